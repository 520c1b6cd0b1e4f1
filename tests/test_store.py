"""The store: what is kept, found, compared, verified and cleaned up."""

import errno
import json
import os
import stat
import time
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from parabola import Config

from experiments import store as store_module
from experiments.lab import keep, sweep
from experiments.lab.experiment import experiment_of
from experiments.lab.fingerprints import fingerprint, identify
from experiments.lab.keeping import repeat
from experiments.lab.options import from_settings, settings
from experiments.storage.bucket import Bucket
from experiments.storage.comparing import differences, largest_differences
from experiments.storage.manifests import sealed
from experiments.storage.payload import decode, encode
from experiments.storage.records import combine
from experiments.store import Store, key_of


@pytest.fixture(params=["disk", "bucket"])
def store(request, tmp_path):
    if request.param == "disk":
        return Store(tmp_path / "runs")
    obstore = pytest.importorskip("obstore.store", reason="obstore is not installed: no object storage")
    return Store(Bucket(obstore.MemoryStore(), "memory://"))


def test_what_is_read_back_is_what_the_experiment_returned(store):
    cfg = Config(x=3.0, powers=(1, 2, 3))
    made, run = experiment_of(cfg).run(cfg), keep(cfg, store)
    assert list(run.arrays) == list(made)
    xr.testing.assert_identical(run.load("height"), made["height"])
    xr.testing.assert_identical(run.load("table"), made["table"])
    assert torch.equal(run.load("noise"), made["noise"]) and run.load("noise").dtype == torch.bfloat16
    assert run.show("height") == experiment_of(cfg).draw(made)["height"]
    assert run.show("rows")["name"].tolist() == ["a <b>", "c"]
    assert run.answer == "It is -4.000 high." and run.numbers == {"height": -4.0}
    assert [check["status"] for check in run.checks] == ["warn"]
    found = store.find(run.key[:6])
    assert found.manifest == {**run.manifest, "seal": found.manifest["seal"]}


def test_a_run_that_exists_is_not_run_again(store, tmp_path):
    cfg = Config(x=2.0, log=str(tmp_path / "log"))
    first = keep(cfg, store)
    again = keep(replace(cfg, wait=0.01), store)  # where and how are no part of the key
    assert first.key == again.key and len(store.runs()) == 1
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    assert keep(replace(cfg, x=2.5), store).key != first.key


def test_the_key_depends_on_all_that_numbers_depend_on():
    base = ("a", 1, {"n": 1, "m": 2}, ["f"])
    others = [("b", *base[1:]), ("a", 2, *base[2:]), ("a", 1, {"n": 2, "m": 2}, ["f"]), ("a", 1, base[2], ["g"])]
    assert len({key_of(*parts) for parts in [base, *others]}) == 5
    assert key_of(*base) == key_of("a", 1, {"m": 2, "n": 1}, ["f"])
    assert settings(Config(x=1)) == settings(Config(x=1.0)) and type(settings(Config(x=1))["x"]) is float
    assert from_settings(Config, json.loads(json.dumps(settings(Config(powers=(3,)))))) == Config(powers=(3,))
    with pytest.raises(ValueError, match="has no option y any more; it has"):
        from_settings(Config, {"y": 1})


def test_fingerprints_tell_contents_apart(embedded, tmp_path):
    from interp import tasks

    one, same, other = (tasks.ioi(embedded, n=4, seed=seed) for seed in (0, 0, 1))
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    parts = [{name: getattr(other, name)} for name in ("clean", "corrupt", "right", "wrong")] + [{"labels": {}}]
    variants = [replace(one, **part) for part in [*parts, {"clean": one.corrupt, "corrupt": one.clean}]]
    assert len({fingerprint(task) for task in [one, *variants]}) == 7
    plain = [
        torch.arange(4),
        torch.arange(4).float(),
        torch.arange(4).reshape(2, 2),
        np.arange(4),
        [0, 1, 2, 3],
        "0123",
    ]
    assert len({fingerprint(thing) for thing in plain}) == len(plain)
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"]) and fingerprint(1) != fingerprint(True)
    file = tmp_path / "data.csv"
    prints = [(file.write_text(text), fingerprint(file))[1] for text in ("a", "b", "a")]
    assert prints[0] == prints[2] != prints[1]
    changed = torch.nn.Module.state_dict(embedded.module)["transformer.ln_f.bias"]
    before = identify([embedded])[0]
    try:
        changed += 1e-6
        assert identify([embedded])[0] != before
    finally:
        changed -= 1e-6
    with pytest.raises(TypeError, match="the content of a object cannot be hashed"):
        fingerprint(object())


def test_of_two_that_finish_the_same_run_the_first_stands(store):
    record = {"config": {}, "numbers": {}}
    first = store.publish("race", "0" * 16, {"log.txt": b"first"}, record)
    second = store.publish("race", "0" * 16, {"log.txt": b"second"}, record)
    assert second.manifest["folder"] == first.manifest["folder"] and second.log == "first"
    assert store.verify(progress=False) == [] and store.gc(older_than=-1) == []  # the loser's files are gone already


def test_verify_names_what_is_corrupted(tmp_path):
    store = Store(tmp_path)
    runs = [keep(Config(x=float(x)), store) for x in range(4)]
    files = [tmp_path / run.manifest["folder"] for run in runs]
    data = bytearray((files[0] / "height.nc").read_bytes())
    data[len(data) // 2] ^= 1
    (files[0] / "height.nc").write_bytes(data)
    (files[1] / "log.txt").unlink()
    (files[2] / "rows.csv").write_text("")
    manifest = tmp_path / f"{runs[3].name}.json"
    manifest.write_text(manifest.read_text().replace('"height": -4.0', '"height": -5.0'))
    found = {problem.file: problem.what for problem in store.verify(progress=False)}
    names = [f"{run.manifest['folder']}/{name}" for run, name in zip(runs, ("height.nc", "log.txt", "rows.csv"))]
    size = runs[2].manifest["files"]["rows.csv"]["bytes"]
    assert found == {
        names[0]: "its content has changed", names[1]: "missing", names[2]: f"0 bytes, not {size}",
        f"{runs[3].name}.json": "the manifest is corrupted",
    }  # fmt: skip


def test_a_broken_manifest_hides_no_other_run_and_gc_spares_its_files(tmp_path, caplog):
    store = Store(tmp_path)
    runs = [keep(Config(x=float(x)), store) for x in range(2)]
    (tmp_path / f"{runs[0].name}.json").write_text("{")
    assert [run.key for run in store.runs()] == [runs[1].key]
    assert "cannot be read" in caplog.text
    assert store.gc(older_than=-1) == [] and (tmp_path / runs[0].manifest["folder"]).is_dir()


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"null", b'{"experiment": "par', bytes(range(256))])
def test_a_broken_manifest_says_what_to_do_and_that_helps(store, text):
    cfg = Config(x=2.0)
    run, other = keep(cfg, store), keep(Config(x=3.0), store)
    name = f"{run.name}.json"
    store.place.delete(name)
    store.place.put(name, text)
    wanted = f"/{name} is no manifest of a run: {len(text)} bytes .* Remove this file, and the run is computed again"
    for ask in (lambda: keep(cfg, store), lambda: store.find(run.key), lambda: store.get(run.experiment, run.key)):
        with pytest.raises(ValueError, match=wanted):
            ask()
    assert [r.key for r in store.runs()] == [other.key] and store.frame()["key"].tolist() == [other.key]
    store.place.delete(name)
    assert keep(cfg, store).numbers == run.numbers


def test_a_file_that_was_cut_short_is_named_by_whoever_reads_it(tmp_path):
    store, cfg = Store(tmp_path), Config(x=2.0)
    run = keep(cfg, store)
    for file, read in (
        ("height.nc", lambda: run.arrays),
        ("tensors.safetensors", lambda: run.load("noise")),
        ("log.txt", lambda: run.log),
    ):
        path = tmp_path / run.manifest["folder"] / file
        whole = path.read_bytes()
        for data in (whole[:-1], b"", bytes(len(whole))):
            path.write_bytes(data)
            with pytest.raises(ValueError, match=rf"{file} has changed since it was kept .*; remove {run.name}\.json"):
                read()
        path.unlink()
        with pytest.raises(ValueError, match=rf"{file} is missing; remove {run.name}\.json"):
            read()
        path.write_bytes(whole)
    (tmp_path / f"{run.name}.json").unlink()
    assert keep(cfg, store).arrays


def test_a_note_of_a_sweep_that_cannot_be_read_hides_no_other(tmp_path, caplog):
    store = Store(tmp_path)
    first, second = (sweep(Config(), store, x=[x]).name for x in (0.0, 1.0))
    (tmp_path / f".sweeps/{first}.json").write_bytes(b"{")
    assert list(store.sweeps()) == [second] and f"{first}.json cannot be read" in caplog.text


def test_gc_removes_what_killed_processes_left_and_nothing_else(tmp_path):
    store = Store(tmp_path)
    run = keep(Config(), store)
    orphan, young = (tmp_path / f"parabola/{letter * 16}.12345678" for letter in "ab")
    draft, mine_too = tmp_path / f"parabola/{'c' * 16}.json.12345678.tmp", tmp_path / "notes/old"
    for folder in (orphan, young, mine_too, tmp_path / "parabola/backup"):
        folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / "notes/draft.tmp").write_bytes(b"of somebody")
    for folder in (orphan, young):
        (folder / "height.nc").write_bytes(b"half")
    draft.write_bytes(b"half")
    old = time.time() - 7200
    mine = tmp_path / run.manifest["folder"]
    own = [mine_too, tmp_path / "parabola/backup", tmp_path / "notes/draft.tmp"]
    for path in (orphan / "height.nc", orphan, draft, young, *mine.iterdir(), mine, *own):
        os.utime(path, (old, old))  # a file in `young` was written just now
    assert store.gc(3600, dry=True) == [f"parabola/{'a' * 16}.12345678/", f"parabola/{'c' * 16}.json.12345678.tmp"]
    assert orphan.is_dir()
    store.gc(3600)
    assert not orphan.exists() and not draft.exists() and young.is_dir() and all(path.exists() for path in own)
    assert [r.key for r in store.runs()] == [run.key] and store.verify(progress=False) == []


def test_a_failure_keeps_its_log_and_what_was_computed(store, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="not measured"):
        keep(Config(x=-1.0), store)
    assert store.runs() == []
    failed = [entry.name for entry in store.place.entries(".failed")]
    assert len(failed) == 1 and b"give x from 0 on" in store.place.get(failed[0])
    import parabola

    cfg, draw = Config(x=7.0, log=str(tmp_path / "log")), parabola.draw
    monkeypatch.setattr(parabola, "draw", lambda arrays: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        keep(cfg, store)
    monkeypatch.setattr(parabola, "draw", draw)
    run = keep(cfg, store)
    assert len((tmp_path / "log").read_text().splitlines()) == 1  # the arrays were not computed again
    xr.testing.assert_identical(run.load("height"), parabola.run(cfg)["height"])
    assert not any("stages" in entry.name for entry in store.place.entries(".stages"))


def test_a_broken_array_is_no_reason_to_lose_the_others(store, monkeypatch):
    """What is wrong with an array is seen after the question is answered and drawn."""
    import parabola

    run, cfg = parabola.run, Config(x=8.0)
    monkeypatch.setattr(parabola, "run", lambda cfg: {"height": run(cfg)["height"].assign_attrs(checks="none")})
    with pytest.raises(ValueError):
        keep(cfg, store)
    assert any("stages" in entry.name for entry in store.place.entries(".stages"))


def test_a_number_is_not_called_as_an_option(store, monkeypatch):
    import parabola

    numbers = parabola.numbers
    monkeypatch.setattr(parabola, "numbers", lambda arrays: numbers(arrays) | {"x": 1.0})
    with pytest.raises(ValueError, match="a number cannot be called 'x', as an option or a column of runs is"):
        keep(Config(x=9.0), store)


def test_an_option_without_a_default_is_refused_before_it_runs(monkeypatch):
    import parabola

    config = make_dataclass("Config", [("path", str)], frozen=True)
    config.__module__ = "parabola"
    monkeypatch.setattr(parabola, "Config", config)
    with pytest.raises(ValueError, match="every option has a default, and 'path' of"):
        experiment_of(config("here"))


def test_tables_keep_their_rows_names_and_their_texts():
    table = pd.DataFrame({"score": [1.0, np.nan, 3.0]}, index=pd.Index(["NA", "null", "the"], name="token"))
    files, kinds = encode({}, {"scores": table}, "")
    again = decode(kinds["shown"]["scores"], files["scores.csv"])
    pd.testing.assert_frame_equal(again, table.reset_index())


def test_a_file_system_that_cannot_flush_a_folder_keeps_runs(store, monkeypatch):
    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "no folders here")

    monkeypatch.setattr(os, "fsync", fsync)
    assert keep(Config(x=10.0), store).name and store.verify(progress=False) == []


def test_a_log_has_what_was_logged_and_warned(store):
    log = keep(Config(x=2000.0), store).log
    assert "measuring at 2000.0" in log and "UserWarning: x is large" in log and "high" in log


def test_a_sweep_is_one_frame_and_one_array(store):
    done = sweep(Config(), store, x=[0.0, 1.0, 3.0], sign=["up", "down"])
    frame = store.frame(sweep=done.name)
    assert len(frame) == len(done.runs) == 6
    assert (frame["height"] == np.where(frame["sign"] == "up", 1, -1) * (frame["x"] - 1) ** 2).all()
    array = store.dataset("height", sweep=done.name)
    assert array.dims == ("x", "sign", "prompt") and float(array.sel(x=3.0, sign="up")[0]) == 4.0
    assert store.dataset("height", sweep=done.name).x.dtype == float
    keep(Config(x=9.0), store)
    assert len(store.frame("parabola")) == 7 and len(store.frame(sweep=done.name)) == 6
    assert sweep(Config(), store, x=[0.0, 1.0, 3.0], sign=["up", "down"]).name == done.name
    with pytest.raises(ValueError, match="not of y; there are x, seed"):
        sweep(Config(), store, y=[1])
    for one in (3, "up"):
        with pytest.raises(ValueError, match=f"a sweep takes several values of each option, as in seed=.{one!r}."):
            sweep(Config(), store, seed=one)
    with pytest.raises(ValueError, match="seed has no values"):
        sweep(Config(), store, seed=[])
    with pytest.raises(ValueError, match="there is no sweep 'gone'"):
        store.frame(sweep="gone")


def test_an_option_that_may_be_none_is_an_axis_of_text(store, monkeypatch):
    import parabola

    monkeypatch.setattr(parabola, "run", lambda cfg: {"height": xr.DataArray([cfg.x or -1.0], dims="prompt")})
    monkeypatch.setattr(parabola, "numbers", lambda arrays: {"height": float(arrays["height"][0])})
    monkeypatch.setattr(parabola, "answer", lambda arrays: "It is.")
    monkeypatch.setattr(parabola, "draw", lambda arrays: {})
    array = combine([keep(Config(x=x), store) for x in (0.5, None)], "height")
    assert sorted(array.x.values) == ["0.5", "null"] and float(array.sel(x="null")[0]) == -1.0


def test_equal_options_are_one_run(store):
    @dataclass(frozen=True)
    class Loose:
        most: float | None = 1.0
        shares: list[float] = field(default_factory=list)
        powers: tuple[int, ...] = (1,)

    one, other = Loose(1, [1, 2.0], [np.int64(3)]), Loose(np.float32(1), [1.0, 2], (3,))
    assert settings(one) == settings(other) and repr(settings(one)) == repr(settings(other))


def test_runs_are_found_by_the_beginning_of_their_key(store):
    runs = [keep(Config(x=float(x)), store) for x in range(20)]
    assert store.find(f"parabola/{runs[3].key}").key == runs[3].key
    with pytest.raises(ValueError, match=r"0 runs in .* begin with 'zz'"):
        store.find("zz")
    with pytest.raises(ValueError, match=r"20 runs in .* give more digits"):
        store.find("")
    with pytest.raises(ValueError, match=r"has no 'gone'; it has height, table, noise"):
        runs[0].load("gone")


def test_differences_and_repeats(store, monkeypatch):
    import parabola

    a, b = keep(Config(x=2.0), store), keep(Config(x=2.0, sign="up"), store)
    assert differences([a, b]) == {
        "options": {"sign": ["down", "up"]}, "inputs": {}, "made by": {}, "numbers": {"height": [-1.0, 1.0]},
    }  # fmt: skip
    assert largest_differences(a.arrays, b.arrays) == {"height": 2.0, "table": 0.0, "noise": 0.0}
    shipped = {**a.manifest, "shipped": False, "source": parabola.__file__}
    key, arrays = repeat(replace(a, manifest=shipped), store)
    assert largest_differences(a.arrays, arrays) == {"height": 0.0, "table": 0.0, "noise": 0.0}
    assert key == a.key and len(store.runs()) == 2
    monkeypatch.setattr(parabola, "VERSION", 2)
    assert repeat(replace(a, manifest=shipped), store)[0] != a.key and len(store.runs()) == 3
    lost = {**a.arrays, "height": a.load("height")[:2]}
    assert largest_differences(a.arrays, lost)["height"] == float("inf")
    far = xr.DataArray([4.0, float("inf")], dims="i")
    assert largest_differences({"a": far}, {"a": far}) == {"a": 0.0}
    assert largest_differences({"a": far}, {"a": far - 1}) == {"a": 0.25}
    assert largest_differences({"a": far}, {"a": -far}) == {"a": float("inf")}


def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    store = Store(tmp_path)
    run = keep(Config(), store)
    put = store_module.Disk.put

    def fills_up(self, name, data):
        if not name.endswith((".nc", ".txt")):
            put(self, name, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        put(self, name, data)

    monkeypatch.setattr(store_module.Disk, "put", fills_up)
    with pytest.raises(OSError, match=r"was not kept: there is no room for 0\.0 MB in .*; free some and start again"):
        keep(Config(x=5.0), store)
    monkeypatch.undo()
    assert [r.key for r in store.runs()] == [run.key] and store.verify(progress=False) == []
    assert store.gc(older_than=-1) == [], "the half of it is gone already"


def test_five_thousand_runs_are_one_frame(tmp_path):
    store = Store(tmp_path)
    run = keep(Config(), store)
    made = {name: value for name, value in run.manifest.items() if name != "seal"}
    for i in range(5000):
        (tmp_path / f"parabola/{i:016x}.json").write_bytes(sealed(made | {"key": f"{i:016x}"}))
    took = []
    for _ in range(3):
        start = time.process_time()
        frame = store.frame("parabola")
        took.append(time.process_time() - start)
    assert len(frame) == 5001 and frame["key"].is_unique
    assert min(took) < 1, f"{min(took):.2f} s of CPU"


def test_a_store_is_no_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="a store is a folder or an address"):
        Store(tmp_path / "file")


def test_a_manifest_that_was_changed_by_hand_is_not_read(tmp_path, caplog):
    store = Store(tmp_path)
    run = keep(Config(), store)
    path = tmp_path / f"{run.name}.json"
    path.write_text(path.read_text().replace(run.answer, "something better"))
    with pytest.raises(ValueError, match="bytes that were cut short or changed"):
        store.get(run.experiment, run.key)
    assert not len(store.frame("parabola")) and "cannot be read" in caplog.text


def test_infinities_and_nans_among_the_options_come_back_as_they_were(store):
    from parabola import numbers

    cfg = Config(x=float("inf"), wait=0.0, powers=(0, 1))
    run = keep(cfg, store)
    assert run.config["x"] == float("inf") and keep(cfg, store).key == run.key
    assert keep(replace(cfg, x=float("nan")), store).key != run.key
    text = store.place.get(f"{run.name}.json").decode()
    assert "Infinity" not in text and json.loads(text)["config"]["x"] == {"float": "inf"}
    key, arrays = repeat(store.find(run.key), store)
    assert key == run.key and numbers(arrays)["height"] == -float("inf")
    assert from_settings(Config, run.config) == cfg and sorted(map(str, store.frame()["x"])) == ["inf", "nan"]
    again = [keep(replace(cfg, x=float("nan"), sign=sign), store) for sign in ("up", "down")]
    assert list(differences(again)["options"]) == ["sign"], "one NaN is as good as another"


def test_a_number_that_is_not_finite_is_a_word_in_the_file_and_itself_in_the_frame(store, monkeypatch):
    import parabola

    monkeypatch.setattr(
        parabola, "numbers", lambda arrays: {"height": float("nan"), "width": float("inf"), "depth": 1.0}
    )
    monkeypatch.setattr(parabola, "answer", lambda arrays: "none")
    run = keep(Config(), store)
    text = store.place.get(f"{run.name}.json").decode()
    assert "NaN" not in text and "Infinity" not in text
    assert np.isnan(run.numbers["height"]) and store.frame()["depth"].tolist() == [1.0]
    assert run.numbers["width"] == float("inf") == store.frame()["width"][0]
    assert np.isnan(store.frame()["height"][0]) and store.verify(progress=False) == []


def test_what_cannot_be_kept_is_named(store, monkeypatch):
    import parabola

    monkeypatch.setattr(parabola, "run", lambda cfg: {"height": xr.DataArray([1.0]), "junk": {1, 2}})
    with pytest.raises(TypeError, match="'junk' is of type set, which the store cannot keep there; `run` returns"):
        keep(Config(x=1.0), store)
    assert store.runs() == []


def test_tensors_that_share_memory_are_kept_each_for_itself(store, monkeypatch):
    import parabola

    whole = torch.arange(6.0)
    made = {
        "height": xr.DataArray([1.0]),
        "whole": whole,
        "slice": whole[1:4],
        "twice": whole,
        "turned": whole.view(2, 3).T,
    }
    monkeypatch.setattr(parabola, "run", lambda cfg: made)
    monkeypatch.setattr(parabola, "draw", lambda arrays: {})
    run = keep(Config(), store)
    assert all(torch.equal(run.load(name), made[name]) for name in ("whole", "slice", "twice", "turned"))


def _stacked():
    return xr.DataArray(np.ones((1, 2)), dims=("p", "q"), coords={"p": [1], "q": [1, 2]}).stack(cell=("p", "q"))


@pytest.mark.parametrize(
    "thing", [xr.DataArray([1.0], attrs={"how": {"a": 1}}), xr.DataArray([1.0], attrs={"sure": True}), _stacked(),
              xr.DataArray(np.array([{1}, 2], dtype=object)), torch.eye(2).to_sparse()],
    ids=["mapping", "flag", "stacked", "objects", "sparse"],
)  # fmt: skip
def test_what_no_file_can_hold_is_named_and_the_rest_is_kept_aside(store, monkeypatch, caplog, thing):
    import parabola

    made = {"height": xr.DataArray([1.0]), "odd": thing, "noise": torch.ones(2)}
    monkeypatch.setattr(parabola, "run", lambda cfg: made)
    monkeypatch.setattr(parabola, "draw", lambda arrays: {})
    for _ in range(2):  # the second try does not go on from a part
        with pytest.raises(TypeError, match="'odd' cannot be kept as"):
            keep(Config(), store)
    assert "of its arrays, height, noise are kept aside, and odd cannot be" in caplog.text and store.runs() == []
    name = store.place.listing(".stages/parabola")[1][0]
    aside = store.stage("parabola", name.removesuffix(".json"))
    assert torch.equal(aside.load("noise"), torch.ones(2)) and float(aside.load("height")[0]) == 1.0


def test_an_address_of_nothing_is_refused(monkeypatch):
    pytest.importorskip("obstore", reason="obstore is not installed: no object storage")
    with pytest.raises(ValueError, match="names no bucket; write it as s3://bucket/prefix"):
        Store("s3://")
    assert Path("s3:").exists() is False
