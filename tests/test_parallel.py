"""The same work on every engine, activations in shards, and copies for trackers."""

import os
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from parabola import Config, square

from experiments.lab import OnModel, exporters, keep, sweep
from experiments.lab.harvest import harvest
from experiments.lab.parallel import ENGINES, parallel
from experiments.store import Store
from interp import Site

HERE = str(Path(__file__).parent)


@pytest.fixture(autouse=True, scope="module")
def surroundings():
    """Where other processes find this folder, and where Ray puts its files: the path of a socket must be short."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as short:
        patch.setenv("PYTHONPATH", os.pathsep.join([HERE, str(Path(HERE).parent), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_TMPDIR", short)
        yield
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()


def available(engine):
    module = {"joblib": "joblib", "submitit_local": "submitit", "ray": "ray"}.get(engine)
    if module:
        pytest.importorskip(module, reason=f"{module} is not installed: sweeps on it are not tried")


@pytest.mark.parametrize("engine", ["here", "joblib", "submitit_local", "ray"])
def test_every_engine_gives_the_same_in_the_same_order(engine, tmp_path):
    available(engine)
    options = {"folder": str(tmp_path / "%j")} if engine == "submitit_local" else {}
    done = []
    found = parallel(square, range(5), engine, jobs=2, progress=lambda i, n: done.append((i, n)), **options)
    assert [value for value, _ in found] == [0, 1, 4, 9, 16] and done[-1] == (5, 5)
    assert (os.getpid() in {process for _, process in found}) == (engine == "here")


def test_a_sweep_on_several_processes_is_the_same_sweep(tmp_path):
    pytest.importorskip("joblib")
    axes = {"x": [0.0, 1.0, 2.0]}
    here, there = (sweep(Config(), Store(tmp_path / on), on=on, jobs=2, **axes) for on in ("here", "joblib"))
    assert here.name == there.name
    assert [r.key for r in sorted(here.runs, key=lambda r: r.key)] == sorted(r.key for r in there.runs)


@pytest.mark.slow
def test_a_node_that_is_killed_in_the_middle_of_a_sweep_loses_nothing(tmp_path):
    ray = pytest.importorskip("ray", reason="ray is not installed: no cluster is tried")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    ray.shutdown()
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        store, log, xs = Store(tmp_path / "runs"), tmp_path / "log", [float(x) for x in range(8)]

        def kill_the_node():
            while not log.exists() or log.read_text().count("\n") < 3:
                time.sleep(0.05)
            cluster.remove_node(second, allow_graceful=False)

        killer = threading.Thread(target=kill_the_node)
        killer.start()
        done = sweep(Config(wait=1.0, log=str(log)), store, on="ray", x=xs)
        killer.join()
        assert sorted(run.config["x"] for run in done.runs) == xs and store.verify(progress=False) == []
        deadline = time.time() + 60  # the cluster learns of the loss by a heartbeat that does not come
        while (alive := sum(node["Alive"] for node in ray.nodes())) > 1 and time.time() < deadline:
            time.sleep(0.2)
        assert alive == 1 and log.read_text().count("\n") >= len(xs)
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_engines_are_refused_by_name():
    with pytest.raises(ValueError, match="there is no engine 'dask'; choose from here, joblib, submitit_local"):
        parallel(abs, [1], "dask")
    with pytest.raises(ValueError, match="timeout_min: only submitit takes parameters, not 'joblib'"):
        parallel(abs, [1], "joblib", timeout_min=3)
    assert "ray" in ENGINES


TEXTS = [
    "the dog runs",
    "Mary and John went to the store",
    "the cats run",
    "the capital of",
    "John gave a drink to Mary",
]


def test_a_harvest_is_what_each_text_leaves_by_itself(embedded, tmp_path):
    kept = harvest(OnModel(), TEXTS, ["resid_post.1", "z.0"], Store(tmp_path), shard=2, batch=2, precision="float32")
    assert len(kept.shards) == 3
    tokens = [(i, pos) for i, text in enumerate(TEXTS) for pos in range(embedded.tokens(text).ids.shape[1])]
    assert len(kept) == len(tokens)
    order = torch.randperm(len(tokens)).tolist()
    for site in (Site("resid_post", 1), Site("z", 0)):
        alone = torch.stack([embedded.run(TEXTS[i], read=[site])[site][0, pos] for i, pos in tokens])
        torch.testing.assert_close(kept.rows(str(site), order), alone[order], atol=1e-4, rtol=1e-4)
        whole = torch.cat([part[str(site)] for part in kept.tensors()])
        torch.testing.assert_close(whole, alone, atol=1e-4, rtol=1e-4)
    assert kept.rows("text", range(len(kept))).tolist() == [i for i, _ in tokens]
    assert kept.rows("pos", range(len(kept))).tolist() == [pos for _, pos in tokens]
    with pytest.raises(IndexError, match="tokens run from 0 to"):
        kept.rows("ids", [len(kept)])


def test_a_harvest_goes_on_where_it_stopped(tmp_path, monkeypatch):
    store, seen = Store(tmp_path), []
    arguments = partial(harvest, OnModel(), TEXTS, ["mlp_out.2"], store, shard=1)

    def stop(done, total):
        seen.append(total)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        arguments(progress=stop)
    assert len(store.runs("activations")) == 2
    assert len(arguments(progress=lambda done, total: seen.append(total)).shards) == 5
    assert seen == [5, 5, 3, 3, 3]
    assert store.verify(progress=False) == []


def test_what_a_harvest_cannot_take_is_refused(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ValueError, match=r"pattern\.1 has no position axis"):
        harvest(OnModel(), TEXTS, ["pattern.1"], store)
    with pytest.raises(ValueError, match="a harvest needs texts, sites and sizes from 1 on; given 0 texts"):
        harvest(OnModel(), [], ["resid_post.1"], store)


def test_a_copy_for_wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed: its exporter is not tried")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = keep(Config(x=3.0), Store(tmp_path / "runs"))
    assert run.name in exporters.to_wandb(run, "try")
    assert any(run.key in path.name for path in tmp_path.rglob("*.wandb"))


def test_a_copy_for_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: its exporter is not tried")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path}/mlruns")
    run = keep(Config(x=3.0), Store(tmp_path / "runs"))
    exporters.to_mlflow(run, "try")
    assert "already" in exporters.to_mlflow(run, "try")
    there = mlflow.search_runs(experiment_names=["try"], output_format="list")
    assert len(there) == 1 and there[0].data.metrics == run.numbers
    names = {file.path for file in mlflow.MlflowClient().list_artifacts(there[0].info.run_id)}
    assert {"manifest.json", "height.nc", "height.plotly.json"} <= names
