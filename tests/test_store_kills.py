"""The store under kill -9, concurrent writers and a disk that is full."""

import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
from parabola import Config

from experiments.lab import keep
from experiments.store import Store

HERE = Path(__file__).parent
_BLOCK = 200


def _write(root, seed, acknowledged, blocks=None):
    """Publish points, block after block, each in an order of one's own, until killed; say which were published."""
    store, rng = Store(root), random.Random(seed)
    with open(acknowledged, "a", buffering=1) as file:
        for block in count() if blocks is None else range(blocks):
            for point in rng.sample(range(block * _BLOCK, (block + 1) * _BLOCK), _BLOCK):
                key = f"{point:016x}"
                if store.get("kill", key) is None:
                    content = random.Random(point).randbytes(40_000)
                    run = store.publish("kill", key, {"a.bin": content, "b.bin": content[::-1]}, {"config": {}})
                    file.write(f"{key} {run.manifest['folder']}\n")


def test_two_writers_killed_forty_times_lose_nothing(tmp_path):
    fork = multiprocessing.get_context("fork")
    rng, killed = random.Random(0), 0
    files = [tmp_path / f"acknowledged-{side}" for side in range(2)]
    for round_ in range(20):
        writers = [
            fork.Process(target=_write, args=(tmp_path / "runs", 2 * round_ + i, file)) for i, file in enumerate(files)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            time.sleep(rng.uniform(0.01, 0.1))
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
            killed += writer.exitcode == -signal.SIGKILL
    store = Store(tmp_path / "runs")
    acknowledged = dict(
        line.split() for file in files for line in file.read_text().splitlines() if line.count(" ") == 1
    )
    found = {run.key: run.manifest["folder"] for run in store.runs("kill")}
    assert killed == 40 and len(acknowledged) > 20
    assert acknowledged.items() <= found.items(), "a run that was acknowledged is lost, or another's stands"
    assert len(found) <= len(acknowledged) + killed, "a run is found that nobody can have finished"
    assert store.verify(progress=False) == []
    store.gc(older_than=-1)
    folders = {f"kill/{path.name}" for path in (tmp_path / "runs/kill").iterdir() if path.is_dir()}
    assert folders == set(found.values()) and store.verify(progress=False) == []
    blocks = 1 + max(int(key, 16) for key in found) // _BLOCK
    _write(tmp_path / "runs", 0, tmp_path / "rest", blocks)
    assert len((tmp_path / "rest").read_text().splitlines()) == blocks * _BLOCK - len(found)


def _keep_all(root, log):
    store = Store(root)
    for x in range(200):
        keep(Config(x=float(x), log=str(log)), store)


def test_a_sweep_killed_half_way_computes_only_what_is_missing(tmp_path):
    log = tmp_path / "log"
    writer = multiprocessing.get_context("fork").Process(target=_keep_all, args=(tmp_path / "runs", log))
    writer.start()
    while not log.exists() or log.read_text().count("\n") < 100:
        time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    done = len(Store(tmp_path / "runs").runs())
    started = log.read_text().count("\n")
    assert started - 1 <= done <= started
    _keep_all(tmp_path / "runs", log)
    assert log.read_text().count("\n") == started + 200 - done
    frame = Store(tmp_path / "runs").frame()
    assert sorted(frame["x"]) == list(range(200)) and (frame["height"] == -((frame["x"] - 1) ** 2)).all()


def _limited():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_a_file_that_cannot_grow_leaves_the_store_as_it_was(tmp_path):
    """A limit on the size of files stands for a full disk: the write itself is refused, half-way through a run."""
    store = Store(tmp_path)
    before = keep(Config(), store)
    code = (
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from experiments.store import Store\n"
        f"Store({str(tmp_path)!r}).publish('parabola', 'f' * 16, {{'small': b'x', 'large': bytes(200_000)}}, {{}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=_limited, cwd=HERE.parent, timeout=120
    )
    assert "run parabola/ffffffffffffffff was not kept: there is no room for 0.2 MB in" in done.stderr
    assert [run.key for run in store.runs()] == [before.key] and store.verify(progress=False) == []
    assert sorted(path.name for path in (tmp_path / "parabola").iterdir()) == sorted(
        [f"{before.key}.json", Path(before.manifest["folder"]).name]
    )


def test_a_small_disk_that_is_full(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs is not allowed here; a limit on the size of files stands for it")
    try:
        store, kept = Store(tmp_path), []
        with pytest.raises(OSError, match=r"there is no room for 0\.2 MB"):
            for i in range(100):
                kept.append(store.publish("disk", f"{i:016x}", {"a.bin": os.urandom(200_000)}, {}).key)
        assert [run.key for run in store.runs()] == kept and len(kept) >= 3
        assert store.verify(progress=False) == []
        json.loads((tmp_path / f"disk/{kept[-1]}.json").read_text())
        assert len(list((tmp_path / "disk").iterdir())) == 2 * len(kept), "nothing half is left"
        with pytest.raises(OSError, match=r"run parabola/.* was not kept: there is no room for"):
            for x in range(100):
                keep(Config(x=float(x)), store)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
