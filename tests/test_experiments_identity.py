"""Whose numbers are served: a run is known by the file that asks, as well as by its options and inputs."""

import importlib
import os
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
import tiny

from experiments import facts
from experiments.lab import Experiment, find, keep
from experiments.lab.fingerprints import identify
from experiments.lab.keeping import repeat
from experiments.lab.provenance import _revision
from experiments.lab.subjects import open_model
from experiments.lab.sweeping import sweep
from experiments.storage.manifests import sealed
from experiments.store import Store

HERE = Path(__file__).parent


def own_file(folder, name, height="1"):
    """A question in a file of its own, which answers with a number that is written in it."""
    folder.mkdir(exist_ok=True)
    lines = [
        "from dataclasses import dataclass", "from experiments.lab import option", "QUESTION, VERSION = 'How high?', 1",
        "@dataclass(frozen=True)", "class Config:", "    n: int = option(1, 'how many')", "def inputs(cfg): return ()",
        "def run(cfg):", "    import xarray as xr", f"    return {{'height': xr.DataArray([{height}.0])}}",
        "def numbers(arrays): return {'height': float(arrays['height'][0])}",
        "def answer(arrays): return f'{numbers(arrays)}'", "def draw(arrays): return {}",
    ]  # fmt: skip
    path = folder / f"{name}.py"
    path.write_text("\n".join(lines) + "\n")
    return path


def freshly(path, monkeypatch):
    """The experiment of a file, as another process finds it."""
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.delitem(sys.modules, path.stem, raising=False)
    importlib.invalidate_caches()
    return find(str(path))


def test_an_edited_file_and_another_of_its_name_are_computed_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # what is edited within a second looks like what was compiled
    store, files = Store(tmp_path / "runs"), [own_file(tmp_path / folder, "question", 1) for folder in "ab"]
    keys = []
    for file, height in [(files[0], 1), (files[0], 2), (files[1], 3)]:
        own_file(file.parent, "question", height)
        run = keep(freshly(file, monkeypatch).config(), store)
        assert run.numbers == {"height": height} and run.manifest["source"] == str(file)
        keys.append(run.key)
    assert len(set(keys)) == 3 and len(store.runs("question")) == 3
    key, arrays = repeat(store.find(keys[2]), store)
    assert key == keys[2] and arrays["height"].item() == 3


def test_what_was_imported_is_not_kept_as_what_was_written_since(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    store, file = Store(tmp_path / "runs"), own_file(tmp_path / "a", "asked", 1)
    module = freshly(file, monkeypatch).module
    first = keep(module.Config(), store)
    own_file(tmp_path / "a", "asked", 2)
    assert keep(module.Config(), store).key == first.key and "has changed since it was imported" in caplog.text
    again = keep(importlib.reload(module).Config(), store)
    assert again.key != first.key and again.numbers == {"height": 2}


@pytest.mark.parametrize("package", [False, True])
def test_what_a_file_imports_is_part_of_it(tmp_path, monkeypatch, caplog, package):
    """A helper, and what that imports, beside the file or in its package; other files of the folder are not."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "asking"
    folder.mkdir()
    if package:
        (folder / "__init__.py").touch()
    name, dot = ("asking.helped", ".") if package else ("helped", "")
    file = own_file(folder, "helped", "helper.height() * 1")
    file.write_text(("from . import helper\n" if package else "import helper\n") + file.read_text())
    (folder / "helper.py").write_text(f"def height():\n    from {dot}deeper import HIGH\n    return HIGH\n")
    monkeypatch.syspath_prepend(str(tmp_path if package else folder))
    store, keys, sweeps = Store(tmp_path / "runs"), [], []

    def asked():
        for module in [*sys.modules]:
            if module.startswith("asking") or module in ("helped", "helper", "deeper"):
                monkeypatch.delitem(sys.modules, module)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    for high, other in [(1, 0), (1, 1), (2, 1)]:
        (folder / "deeper.py").write_text(f"HIGH = {high}\n")
        (folder / "unrelated.py").write_text(f"OTHER = {other}\n")
        module = asked()
        run = keep(module.Config(), store)
        assert run.numbers == {"height": high}
        keys.append(run.key)
        sweeps.append(sweep(module.Config(), store, n=[1, 2]))
    assert keys[0] == keys[1] != keys[2]
    assert sweeps[0].name == sweeps[1].name != sweeps[2].name
    assert [run.numbers["height"] for run in sweeps[2].runs] == [2, 2] and len(sweeps[0].runs) == 2
    assert "has changed" not in caplog.text
    (folder / "deeper.py").write_text("HIGH = 3\n")
    assert keep(module.Config(), store).key == keys[2] and "deeper.py has changed since it was imported" in caplog.text


def test_a_config_that_extends_another_is_known_by_its_own_file(tmp_path, monkeypatch):
    base = freshly(own_file(tmp_path / "a", "base", 1), monkeypatch)
    file = own_file(tmp_path / "b", "extended", 2)
    file.write_text(
        file.read_text()
        .replace("class Config:", "class Config(base.Config):")
        .replace("from data", "import base\nfrom data", 1)
    )
    assert freshly(file, monkeypatch).source == file.read_bytes() != base.source


def test_another_model_in_the_same_folder_is_another(tmp_path, monkeypatch):
    """Trained on, set to another activation, or in a folder of the same name beside."""
    (tmp_path / "beside").mkdir()
    tiny.save("llama", tmp_path / "one")
    monkeypatch.chdir(tmp_path)
    opened = [open_model(facts.Config(model="one"))]
    assert open_model(facts.Config(model="one")) is opened[0]
    config = tmp_path / "one/config.json"
    config.write_text(config.read_text().replace('"silu"', '"relu"'))
    opened.append(open_model(facts.Config(model="one")))
    tiny.save("llama", tmp_path / "one", seed=1)
    opened.append(open_model(facts.Config(model="one")))
    tiny.save("llama", tmp_path / "beside/one", seed=2)
    monkeypatch.chdir(tmp_path / "beside")
    opened.append(open_model(facts.Config(model="one")))
    assert len({identify([model])[0][0] for model in opened}) == 4


def test_a_copy_of_a_shipped_file_stands_beside_it(tmp_path, monkeypatch):
    copy = freshly(own_file(tmp_path, "facts"), monkeypatch)
    assert copy.name == "my_facts" and not copy.shipped and find("facts").shipped
    store = Store(tmp_path / "runs")
    assert keep(copy.config(), store).experiment == "my_facts" and store.experiments() == ["my_facts"]


def test_arrays_that_were_kept_aside_are_those_of_the_same_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    store, file = Store(tmp_path / "runs"), own_file(tmp_path, "aside", 4)
    whole = file.read_text()
    file.write_text(whole.replace("return {}", "return 1 / 0"))
    with pytest.raises(ZeroDivisionError):
        keep(freshly(file, monkeypatch).config(), store)
    file.write_text(whole)
    mended = freshly(file, monkeypatch)
    monkeypatch.setattr(mended.module, "run", None)  # not asked for: only `draw` was mended
    assert keep(mended.config(), store).numbers == {"height": 4.0}
    file.write_text(whole.replace("return {}", "return 1 / 0").replace("4.0", "5.0"))
    with pytest.raises(ZeroDivisionError):
        keep(freshly(file, monkeypatch).config(), store)
    own_file(tmp_path, "aside", 6)
    assert keep(freshly(file, monkeypatch).config(), store).numbers == {"height": 6.0}


def test_a_shipped_file_that_changed_under_its_version_is_told_of(tmp_path, monkeypatch, caplog):
    store, cfg = Store(tmp_path), facts.Config(n=4)
    run = keep(cfg, store)
    assert keep(cfg, store).key == run.key and "has changed since" not in caplog.text
    monkeypatch.setattr(Experiment, "code", "another")
    assert keep(cfg, store).key == run.key
    assert f"it has changed since, but not its VERSION (1): raise that, or `rerun {run.key}`" in caplog.text
    path = tmp_path / f"{run.name}.json"
    before = {name: value for name, value in run.manifest.items() if name not in ("code", "seal")}
    path.write_bytes(sealed(before))
    caplog.clear()
    assert keep(cfg, store).key == run.key and not caplog.text, "runs of before this was noted are read as ever"


def test_a_question_that_is_in_no_file_is_refused(tmp_path):
    script = own_file(tmp_path, "script").read_text() + (
        "if __name__ == '__main__':\n    from experiments.lab import keep\n    print(keep(Config()).name)\n"
    )
    (tmp_path / "script.py").write_text(script)
    start = partial(subprocess.run, capture_output=True, text=True, cwd=tmp_path)
    start = partial(start, env=os.environ | {"PYTHONPATH": str(HERE.parent)})
    assert start([sys.executable, "script.py"]).stdout.startswith("script/")
    said = start([sys.executable, "-"], input=script).stderr
    assert "this one is typed in a notebook or on standard input; write it to a file" in said


def test_a_run_on_a_file_is_repeated_from_any_folder(tmp_path, monkeypatch):
    rows = "clean,corrupt,right,wrong\nthe dog,the dogs,runs,run\nthe cat,the cats,runs,run\n"
    for folder in ("mine", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mine/pairs.csv").write_text(rows)
    (tmp_path / "other/pairs.csv").write_text(rows + "the car,the cars,runs,run\n")
    monkeypatch.chdir(tmp_path / "mine")
    store = Store("runs")
    run = keep(facts.Config(data="pairs.csv"), store)
    for folder in ("mine", "other", "."):
        monkeypatch.chdir(tmp_path / folder)
        key, arrays = repeat(store.find(run.key), store)
        assert key == run.key and arrays["stream"].sizes["prompt"] == 2
        assert Path.cwd() == (tmp_path / folder).resolve() and len(store.runs()) == 1


def test_the_commit_of_another_project_is_not_ours(tmp_path):
    git = partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True)
    for words in (["init"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-m", "theirs"]):
        git(["git", *words])
    file = tmp_path / "site-packages" / "provenance.py"
    file.parent.mkdir()
    file.write_text("")
    assert _revision(file) == {"commit": f"interp {version('interp')}", "changed": None}
    git(["git", "add", "."])
    git(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "ours now"])
    head = git(["git", "rev-parse", "HEAD"], text=True).stdout.strip()
    assert _revision(file) == {"commit": head, "changed": False}
    file.write_text("changed")
    assert _revision(file) == {"commit": head, "changed": True}
