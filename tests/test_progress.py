"""Bars: shown where they are wanted, and silenced by tqdm's own switch."""

import os
import subprocess
import sys

import pytest

from interp.progress import bar


def work(progress):
    with bar(3, "steps", progress) as advance:
        for _ in range(3):
            advance(1)


def test_a_bar_is_shown_where_one_is_asked_for(capsys):
    work(True)
    assert "3/3" in capsys.readouterr().err
    work(False)
    work(None)  # no one is watching: standard error is no terminal
    assert capsys.readouterr().err == ""


def test_a_callback_is_told_how_far_the_work_is():
    told = []
    work(lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.slow
def test_the_switch_of_tqdm_turns_bars_off():
    script = "from interp.progress import bar\nwith bar(3, 'steps', True) as advance: advance(3)"
    shown = [
        subprocess.run([sys.executable, "-c", script], env=os.environ | {"TQDM_DISABLE": switch}, capture_output=True)
        for switch in ("1", "")
    ]
    assert [b"3/3" in run.stderr for run in shown] == [False, True]
