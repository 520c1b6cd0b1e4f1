"""`python -m experiments`: help, overrides, sweeps, searches, commands on the store, and how each ends."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from experiments.lab import command_line
from experiments.lab.options import configured
from experiments.store import Store

HERE = Path(__file__).parent
PARABOLA = str(HERE / "parabola.py")


def experiments(*arguments, cwd, **more):
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)} | more
    command = [sys.executable, "-m", "experiments", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=280)


def cpu_seconds(*arguments, cwd):
    before = os.times()
    done = experiments(*arguments, cwd=cwd)
    after = os.times()
    return done, after.children_user + after.children_system - before.children_user - before.children_system


@pytest.fixture
def said(tmp_path, monkeypatch, capfd):
    """Run a command line in this process and a folder of its own: its exit code, and what it wrote."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = command_line.main([str(word) for word in words])
        out = capfd.readouterr()
        return code, out.out + out.err

    return run


def test_help_lists_questions_and_options_with_their_meaning_at_once(tmp_path):
    for arguments, wanted in (
        (["--help"], ["indirect_object", "Where is the indirect object decided?", "verify", "exit code"]),
        (
            ["self_repair", "--help"],
            ["ablation", "mean | zero", "0.05", "the library that runs it", "--maximize NUMBER"],
        ),
    ):
        done, seconds = cpu_seconds(*arguments, cwd=tmp_path)
        assert done.returncode == 0 and all(word in done.stdout for word in wanted)
        assert seconds < 1.5, f"{seconds:.2f} s: something heavy is imported for a help text"


def test_a_run_its_page_and_the_same_again(tmp_path):
    log = tmp_path / "log"
    first, again = (experiments(PARABOLA, "x=3", "powers=[1,3]", f"log={log}", cwd=tmp_path) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("It is -4.000 high.") and first.stderr == ""
    page = re.search(r"page: (.*)", first.stdout)[1]
    assert (tmp_path / page).is_file() and again.stdout == first.stdout
    assert log.read_text().count("\n") == 1
    run = Store(tmp_path / "runs").runs()[0]
    assert run.config == {"x": 3.0, "seed": 0, "sign": "down", "powers": [1, 3]}
    assert run.manifest["command"] == f"python -m experiments {PARABOLA} x=3.0 'powers=[1,3]' log={log}"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("sed=1", "Did you mean: 'seed'?"),
        ("seed=abc", "could not be converted to Integer"),
        ("sign=left", "expected one of ['up', 'down']"),
        ("x=-1", "experiments tests/parabola.py: a parabola of negative x is not measured; give x from 0 on"),
        ("-z", "'-z' is neither an option (key=value) nor a flag; see --help"),
        ("--on=ray", "--on ray is for sweeps; add --multirun, or leave it out"),
    ],
)
def test_a_mistake_is_said_and_ends_with_two(tmp_path, capsys, monkeypatch, word, said):
    monkeypatch.chdir(HERE.parent)
    code = command_line.main(["tests/parabola.py", word, f"--store={tmp_path}"])
    assert code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("facts device=bogus", "device=bogus cannot be computed on here; there is cpu"),
        ("facts device=cuda:99", "device=cuda:99 cannot be computed on here; there is cpu"),
        ("facts +z=1", "options: there is no 'z'. Choose from model, backend"),
        ("facts ++sed=1", "options: there is no 'sed'; did you mean 'seed'?"),
        *((f"induction_heads period={n}", f"period={n} is not from 3 to ") for n in (0, 1, 2, 500)),
        ("superposition features=0", "features=0 and length=24 should be 2 or more"),
        ("superposition n=0", "n=0 texts cannot be read; give 1 or more"),
        ("tuned_lens held_out=0", "n=480 and held_out=0 should be 1 or more"),
        ("tuned_lens n=0", "n=0 and held_out=96 should be 1 or more"),
        ("facts --trials=3", "--trials is for a search: say what is to be largest or smallest"),
        ("facts --maximize response", "a search needs options to vary"),
        ("facts --maximize moved n=4", "a search needs options to vary"),
    ],
)
def test_a_plain_mistake_is_one_line(said, words, message):
    code, text = said(*words.split())
    assert code == 2 and message in text and text.count("\n") == 1, text


def test_what_is_as_small_as_can_be_is_run(said):
    assert said("induction_heads", "period=3", "n=4", "--no-page")[0] == 0
    assert said("facts", "++n=2", "--no-page")[0] == 0


def test_unknown_names_are_answered_with_the_nearest(tmp_path, capsys):
    assert command_line.main(["indirect_objct"]) == 2
    assert "there is no experiment 'indirect_objct'; did you mean 'indirect_object'?" in capsys.readouterr().err
    (tmp_path / "half.py").write_text("QUESTION = 'What?'\nVERSION = 1\n")
    assert command_line.main([str(tmp_path / "half.py")]) == 2
    assert "half is no experiment: it lacks Config, inputs, run, numbers, answer, draw" in capsys.readouterr().err


def test_a_sweep_on_two_processes_goes_on_from_what_there_is(tmp_path, said):
    log = tmp_path / "log"
    words = [PARABOLA, "-m", f"log={log}", "sign=up,down"]
    code, few = said(*words, "x=range(0,2)")
    assert code == 0 and few.count(" s left\n") == 4 and "4/4  parabola/" in few
    more = experiments(*words, "x=range(0,4)", "--on", "joblib", "--jobs", "2", cwd=tmp_path)
    assert more.returncode == 0 and more.stdout.count("was there") == 4, more.stderr
    assert log.read_text().count("\n") == 8
    store = Store(tmp_path / "runs")
    sweep = re.search(r"sweep (\w+)", more.stdout)[1]
    assert sorted(store.frame(sweep=sweep)["x"]) == sorted([0.0, 1, 2, 3] * 2)
    assert "8 runs" in (tmp_path / re.search(r"page: (.*)", more.stdout)[1]).read_text()


def test_a_point_that_fails_stops_no_other(tmp_path, said):
    code, text = said(PARABOLA, "-m", "x=0,-1,2")
    assert "Traceback" not in text and "experiments parabola: a parabola of negative x is not measured" in text
    assert code == 2 and "2 of 3 points" in Path(re.search(r"page: (.*)", text)[1]).read_text()
    assert sorted(Store(tmp_path / "runs").frame()["x"]) == [0, 2]
    assert list((tmp_path / "runs/.failed/parabola").glob("*.log"))


@pytest.mark.slow
def test_a_sweep_by_the_way_that_slurm_goes(tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed: its launcher is not tried")
    done = experiments(PARABOLA, "-m", "x=0,1,2", "--on", "submitit_local", "--jobs", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(Store(tmp_path / "runs").frame()["x"]) == [0, 1, 2]


@pytest.mark.slow
def test_a_sweep_on_ray(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="hydra-ray-launcher is not installed: not tried")
    with tempfile.TemporaryDirectory(prefix="ray") as short:  # the path of a socket must be short
        quiet = {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": short}
        done = experiments(PARABOLA, "-m", "x=0,1,2", "--on", "ray", "--jobs", "2", cwd=tmp_path, **quiet)
    assert done.returncode == 0, done.stderr
    assert sorted(Store(tmp_path / "runs").frame()["x"]) == [0, 1, 2]


def test_a_search_finds_the_top_and_goes_on(tmp_path, said):
    words = [PARABOLA, "x=interval(0,4)", "--maximize", "height"]
    code, text = said(*words, "--trials", "6")
    assert code == 0 and "best of 6 trials: height = " in text
    text = said(*words, "--trials", "14")[1]
    assert "best of 14 trials" in text and text.count("parabola/") == 8, text
    frame = Store(tmp_path / "runs").frame()
    assert len(frame) == 14 and frame["height"].max() > -0.3
    assert "best of 14 trials" in said(*words, "--trials", "10")[1] and len(Store(tmp_path / "runs").runs()) == 14
    code, text = said(PARABOLA, "x=interval(0,4)", "--maximize", "width", "--trials", "1")
    assert code == 2 and "parabola has no number 'width'; it has height" in text and "Traceback" not in text
    code, text = said(PARABOLA, "x=interval(4,0)", "--maximize", "height", "--trials", "1")
    assert code == 2 and "`low <= high` must hold" in text and "Traceback" not in text
    code, text = said(PARABOLA, "-m", "x=1,up")
    assert code == 2 and "could not be converted to Float" in text and "Traceback" not in text


def test_ctrl_c_leaves_what_was_finished(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, "-m", "experiments", PARABOLA, "-m", "x=range(0,50)", "wait=0.3"]
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # what runs in the background does not hear Ctrl-C
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=-1, stderr=-1, text=True, preexec_fn=heard
    )
    store = Store(tmp_path / "runs")
    deadline = time.time() + 120
    while len(store.runs()) < 2 and time.time() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; what was finished is kept, and the same command goes on from there" in said
    done = len(store.runs())
    assert 2 <= done < 50 and store.verify(progress=False) == []


def test_commands_on_the_store(tmp_path, said):
    for x in (1, 3):
        assert said(PARABOLA, f"x={x}", "--no-page")[0] == 0
    one, three = (run.key for run in Store("runs").runs())
    assert "-4" in said("list")[1] and one in said("list", "parabola", "--all")[1]
    assert "there are no runs of facts in runs" in said("list", "facts")[1]
    code, text = said("show", three[:8], "--log")
    assert code == 0 and "It is -4.000 high." in text and "warn    low: 1" in text and "measuring at 3.0" in text
    code, text = said("diff", one, three)
    assert code == 0 and "options   x: 1 -> 3" in text and "arrays    noise: the same" in text
    code, text = said("rerun", three)
    assert code == 0 and text.endswith("the same numbers\n") and "height: 0.00e+00 of its largest value apart" in text
    files = sum(path.is_file() and "/parabola/" in str(path) for path in Path("runs").resolve().rglob("*"))
    assert said("verify") == (0, f"every file is what it was: {files} of 2 runs\n")
    code, text = said("verify", "--store", "rnus")
    assert code == 2 and "there is nothing to verify in rnus; is it the right --store?" in text
    shutil.copy(PARABOLA, "pages.py")
    code, text = said("./pages.py")
    assert code == 2 and "give the file pages.py another name" in text
    assert said("gc") == (0, "0 leftovers removed\n")
    for command in (["page", three], ["page", one, three], ["compare", one, three]):
        code, text = said(*command)
        assert code == 0 and Path(text.rpartition("page: ")[2].strip()).is_file()
    manifest = Store("runs").find(one).manifest
    Path("runs", manifest["folder"], "height.nc").write_bytes(b"")
    code, text = said(PARABOLA, "x=1", "--no-page")
    assert code == 0 and f"{manifest['folder']}/height.nc is not what was kept; remove parabola/{one}.json" in text
    code, text = said("verify")
    assert code == 1 and f"{manifest['folder']}/height.nc: 0 bytes" in text and "1 files are not what they were" in text
    assert said("show", "zz")[0] == 2


def test_words_of_a_harvest_and_of_the_gallery_are_checked_like_those_of_a_run(tmp_path, said):
    from parabola import Config

    assert configured(Config, ["x=2", "sign=up", "powers=[1,3]"]) == Config(x=2.0, sign="up", powers=(1, 3))
    assert configured(Config, ["powers=2"]).powers == (2,) and configured(Config, []) == Config()
    for word, message in (
        ("sed=1", "options: there is no 'sed'; did you mean 'seed'?"),
        ("sign=dwn", "sign: there is no 'dwn'; did you mean 'down'? Choose from up, down"),
        ("powers=[1,a]", "powers is of type int, not 'a'"),
        ("x", "'x' is no key=value"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            configured(Config, [word])
    Path("texts").write_text("the dog runs\n")
    for command in (["harvest", "texts", "resid_post.1"], ["gallery"]):
        code, text = said(*command, "modle=gpt2")
        assert code == 2 and "options: there is no 'modle'; did you mean 'model'?" in text
    code, text = said("harvest", "texts", "resid_post.1", "backend=nnsigt")
    assert code == 2 and "backend: there is no 'nnsigt'; did you mean 'nnsight'?" in text and not Path("runs").exists()


def test_a_store_and_a_file_may_have_any_name(tmp_path, said, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shutil.copy(PARABOLA, "tö.py")
    names = ["s=4", "s(1)", "s,2", "sü", "s[1]", "s{a}", "s'q", "s#1", "s 5", "${x}", "~/x"]
    for name in names:
        code, text = said("tö.py", "x=1", f"--store={name}")
        folder = Path(name).expanduser()
        assert code == 0 and [run.experiment for run in Store(folder).runs()] == ["tö"], (name, text)
        assert Path(text.rpartition("page: ")[2].strip()).parent == folder / "pages"
        code, text = said("page", Store(folder).runs()[0].key, f"--store={name}")
        assert code == 0 and Path(text.rpartition("page: ")[2].strip()).parent == folder / "pages"
    assert said("tö.py", "-m", "x=2,3", "--store=s=4,(1)")[0] == 0 and len(Store("s=4,(1)").runs()) == 2
    code, text = said("tö.py", "x=interval(0,4)", "--maximize=height", "--trials=2", "--store=s#[1]")
    assert code == 0 and len(Store("s#[1]").runs()) == 2, text
    assert not Path("~").exists() and not Path("runs").exists()
    shutil.copy(PARABOLA, "my.toy.py")
    code, text = said("my.toy.py")
    assert code == 2 and "'my.toy.py' cannot be imported by its name; call it my_toy.py" in text


def test_a_sweep_says_how_to_go_on_with_it_where_and_how_it_was_begun(tmp_path, said):
    words = [PARABOLA, "x=0,1", "sign=up", "-m", "--store", "my runs", "--on", "joblib", "--jobs", "2"]
    assert said(*words)[0] == 0
    told = next(iter(Store("my runs").sweeps().values()))["command"]
    assert shlex.split(told)[3:] == [PARABOLA, "sign=up", "x=0,1", "--multirun", *words[6:], *words[4:6]]
    assert (
        said(*shlex.split(told)[3:])[0] == 0
        and len(Store("my runs").runs()) == 2
        and len(Store("my runs").sweeps()) == 1
    )
