"""The store in a bucket, against an S3 server on this machine."""

import multiprocessing
import os
import random
import signal
import time
import urllib.request

import pytest
import xarray as xr
from parabola import Config

from experiments.lab import sweep
from experiments.store import Store

pytest.importorskip("obstore", reason="obstore is not installed: no object storage")
moto = pytest.importorskip("moto.server", reason="moto is not installed: the store is not tried against an S3 server")


@pytest.fixture(scope="module")
def address():
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    names = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    names |= {"AWS_ENDPOINT": endpoint, "AWS_ALLOW_HTTP": "true"}
    before = {name: os.environ.get(name) for name in names}
    os.environ |= names
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/runs", method="PUT")).read()
    yield "s3://runs"
    server.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def test_a_bucket_keeps_what_a_folder_keeps(address, tmp_path):
    there, here = Store(f"{address}/same"), Store(tmp_path)
    done = sweep(Config(), there, x=[0.0, 2.0], sign=["up", "down"])
    near = sweep(Config(), here, x=[0.0, 2.0], sign=["up", "down"])
    assert done.name == near.name
    frames = [store.frame(sweep=done.name).drop(columns="seconds").sort_values("key") for store in (there, here)]
    assert frames[0].reset_index(drop=True).equals(frames[1].reset_index(drop=True))
    xr.testing.assert_identical(*(store.dataset("height", sweep=done.name) for store in (there, here)))
    assert there.verify(progress=False) == []
    name = f"{done.runs[0].manifest['folder']}/height.nc"
    there.place.put(name, b"changed")
    assert [problem.file for problem in there.verify(progress=False)] == [name]


def test_the_server_decides_who_was_first_and_gc_cleans_up(address):
    store = Store(f"{address}/first")
    first, second = (store.publish("race", "0" * 16, {"log.txt": text}, {}) for text in (b"first", b"second"))
    assert second.manifest["folder"] == first.manifest["folder"] and second.log == "first"
    store.place.put("race/aaaa.1234/half.nc", b"half")
    assert store.gc(older_than=3600) == []
    time.sleep(1.1)  # the server counts whole seconds
    assert store.gc(older_than=0) == ["race/aaaa.1234/"] and store.gc(older_than=0) == []
    assert store.find("0000").log == "first"


def _write(root, seed, acknowledged):
    store, rng = Store(root), random.Random(seed)
    with open(acknowledged, "a", buffering=1) as file:
        for point in rng.sample(range(200), 200):
            key = f"{point:016x}"
            if store.get("kill", key) is None:
                content = random.Random(point).randbytes(50_000)
                run = store.publish("kill", key, {"a.bin": content, "b.bin": content[::-1]}, {})
                file.write(f"{key} {run.manifest['folder']}\n")


@pytest.mark.slow
def test_killed_writers_lose_nothing_in_a_bucket(address, tmp_path):
    spawn, rng = multiprocessing.get_context("spawn"), random.Random(0)
    root, files = f"{address}/kill", [tmp_path / "0", tmp_path / "1"]
    for round_ in range(5):
        writers = [spawn.Process(target=_write, args=(root, 2 * round_ + i, file)) for i, file in enumerate(files)]
        for writer in writers:
            writer.start()
        before = [file.stat().st_size if file.exists() else 0 for file in files]
        while any(
            w.is_alive() and (not f.exists() or f.stat().st_size == b) for w, f, b in zip(writers, files, before)
        ):
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, 0.5))
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL) if writer.is_alive() else None
            writer.join()
    store = Store(root)
    acknowledged = dict(
        line.split() for file in files for line in file.read_text().splitlines() if line.count(" ") == 1
    )
    found = {run.key: run.manifest["folder"] for run in store.runs("kill")}
    assert len(acknowledged) >= 10 and acknowledged.items() <= found.items() and store.verify(progress=False) == []
