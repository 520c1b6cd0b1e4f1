"""`python -m interp check`: what it prints and how it ends."""

import re
import subprocess
import sys

import pytest
import tiny

from interp.checking import Report, Row


def interp(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "interp", *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("backend", ["huggingface", "nnsight"])
def test_a_supported_model_ends_with_zero(tmp_path, backend):
    done = interp("check", tiny.save("llama", tmp_path), "--backend", backend)
    assert done.returncode == 0, done.stderr
    assert "FAIL" not in done.stdout
    assert "ok   pattern @ v = z" in done.stdout
    assert done.stdout.startswith(f"{tmp_path} (3 layers, 4 heads, d_model 32; {backend})")


def test_without_a_model_the_embedded_one_is_checked():
    done = interp("check")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("embedded (4 layers, 4 heads, d_model 128; huggingface)")


def test_a_folder_that_is_not_there_is_one_line_and_two(tmp_path):
    done = interp("check", str(tmp_path / "gone"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"python -m interp check: there is no folder '{tmp_path / 'gone'}'; "
        "give a folder written by save_pretrained, or a hub name\n"
    )


def test_help_names_the_command_its_arguments_and_the_exit_codes():
    text = interp("--help").stdout
    assert all(word in text for word in ("check", "MODEL", "--backend", "transformer_lens", "exit code"))


def test_a_report_says_what_was_found_in_words():
    """An effect has no size here: 0.0 beside it read as none."""
    moved, still = (Row("z: an edit has an effect", error, None) for error in (0.0, 1.0))
    text = str(Report("a model", (Row("a = b", 2e-7, 1e-5), moved, still), {}))
    assert re.search(r"ok +a = b +2.0e-07 +\(at most 1e-05\)\n", text)
    assert re.search(r"ok +z: an edit has an effect +yes\n", text)
    assert re.search(r"FAIL +z: an edit has an effect +no$", text)
