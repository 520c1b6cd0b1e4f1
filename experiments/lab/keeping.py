"""Run an experiment, or fetch it from the store if it has been run."""

import logging
import time
import traceback
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

from experiments.lab.experiment import Experiment, experiment_of, find
from experiments.lab.fingerprints import identify
from experiments.lab.logs import Record, recorded
from experiments.lab.options import Arrays, from_settings, settings, wheres
from experiments.lab.overrides import command, override
from experiments.lab.provenance import provenance
from experiments.storage import payload
from experiments.store import Run, Store, key_of

log = logging.getLogger(__name__)


def keep(cfg: Any, store: Store | None = None) -> Run:
    """The finished run of a config: from the store if it is there, else run now and kept.

    Args:
        cfg: A config of an experiment, such as `indirect_object.Config(n=16)`.
        store: By default the folder `runs`.

    Raises:
        OSError: The run cannot be kept.
        Exception: What the experiment raises; its log is kept among the failures. If `run` was done by then, its arrays
            are kept too: the next try goes on from them.
    """
    store = Store() if store is None else store
    experiment = experiment_of(cfg)
    key, found = _identified(experiment, cfg)
    if (run := store.get(experiment.name, key)) is None:
        return _recorded(experiment, cfg, store, key, found)
    if run.manifest.get("code", experiment.code) != experiment.code:
        log.warning(
            "%s was found by %s.py as it was then; it has changed since, but not its VERSION (%s): raise that, or `rerun %s` "
            "to compare", run.name, experiment.name, experiment.version, run.key
        )  # fmt: skip
    for path in run.lost:
        log.warning(
            "%s is not what was kept; remove %s.json from %s, and the run is computed again", path, run.name, store.root
        )
    return run


def repeat(run: Run, store: Store) -> tuple[str, Arrays]:
    """The same config run again by today's code, on the model and data as they are today: its key, and its arrays.

    Under another key, because the version, the model or the data have changed, it is a run of its own and kept. Files and
    folders that its options name are looked for from where it was run first, if that is still there.
    """
    experiment = find(run.experiment if run.manifest.get("shipped", True) else str(run.manifest["source"]))
    cfg = from_settings(experiment.config, run.config | run.where)
    first = Path(run.manifest.get("cwd", "."))
    with chdir(first if first.is_dir() else "."):
        key, found = _identified(experiment, cfg)
        if key == run.key:
            return key, experiment.run(cfg)
        return key, (store.get(experiment.name, key) or _recorded(experiment, cfg, store, key, found)).arrays


def _identified(experiment: Experiment, cfg: Any) -> tuple[str, dict[str, Any]]:
    """A run's key, and what the manifest says of its inputs."""
    prints, models = identify(experiment.inputs(cfg))
    name, version, *code = experiment.identity
    key = key_of(name, version, settings(cfg), [*prints, *code])
    return key, {"inputs": prints, "models": models, "code": experiment.code}


def _recorded(experiment: Experiment, cfg: Any, store: Store, key: str, found: dict[str, Any]) -> Run:
    """Run now and keep, with a log; a failure leaves its log as well."""
    with recorded() as record:
        try:
            return _run(experiment, cfg, store, key, record, found)
        except Exception:
            text = record.text + traceback.format_exc()
            with suppress(OSError):  # on a full disk, it is the first error that says so
                kept = store.keep_failure(experiment.name, key, text)
                log.error("%s failed; its log is %s in %s", experiment.name, kept, store.root)
            raise


def _run(experiment: Experiment, cfg: Any, store: Store, key: str, record: Record, found: dict[str, Any]) -> Run:
    log.info("%s %s", experiment.name, settings(cfg))
    about = _described(experiment, cfg)
    # A mended `draw` is another file with another key, and goes on from the arrays; a mended `run` does not.
    staged = key_of(experiment.name, experiment.version, settings(cfg), [*found["inputs"], experiment.computing])
    stage = store.stage(experiment.name, staged)
    if stage and not stage.manifest.get("whole", True):
        stage = None
    arrays = stage.arrays if stage else experiment.run(cfg)
    log.info("%s", "its arrays were there already" if stage else f"its arrays took {record.seconds:.1f} s")
    try:
        said = {"answer": experiment.answer(arrays), "numbers": experiment.numbers(arrays)}
        log.info("%s", said["answer"])
        files, kinds = payload.encode(arrays, experiment.draw(arrays), record.text)
        checks = payload.checks_in(arrays)
    except Exception:
        if stage is None:  # what took long is not lost because a figure could not be drawn
            with suppress(Exception):  # it is the first error that is told
                _keep_aside(arrays, store, experiment.name, staged, record)
        raise
    files[payload.LOG] = record.text.encode()
    ended = {"kinds": kinds, "checks": checks, "seconds": record.seconds, "finished": time.time()}
    run = store.publish(experiment.name, key, files, {**about, **said, **found, **ended})
    store.drop_stage(experiment.name, staged)
    return run


def _keep_aside(arrays: Arrays, store: Store, name: str, key: str, record: Record) -> None:
    """Keep what can be kept of a run's arrays, and say what cannot; the next try goes on from them if all are there."""
    kept = payload.keepable(arrays)
    files, kinds = payload.encode(kept, {}, record.text)
    store.keep_stage(name, key, files, {"kinds": kinds, "whole": len(kept) == len(arrays)})
    if lost := [name for name in arrays if name not in kept]:
        log.error("of its arrays, %s are kept aside, and %s cannot be", ", ".join(kept) or "none", ", ".join(lost))


def _described(experiment: Experiment, cfg: Any) -> dict[str, Any]:
    """What was asked, and how to ask it again."""
    file, shipped = experiment.file, experiment.shipped
    usual = settings(experiment.config()) | wheres(experiment.config())
    changed = {name: value for name, value in (settings(cfg) | wheres(cfg)).items() if repr(value) != repr(usual[name])}
    words = [override(name, value) for name, value in changed.items()]
    return {
        "question": experiment.question,
        "version": experiment.version,
        "config": settings(cfg),
        "where": wheres(cfg),
        "changed": changed,
        "shipped": shipped,
        "source": experiment.name if shipped else str(file),
        "command": command(experiment.name if shipped else _near(file), *words),
        "cwd": str(Path.cwd()),
        "made": provenance(),
    }


def _near(file: Path) -> str:
    """The path of a file from the current folder, if it lies below that."""
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)
