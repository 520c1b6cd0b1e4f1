"""Hydra as the outer layer: it reads overrides, makes the points of a sweep, and launches them; nothing else knows it."""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf

from experiments.lab.experiment import Experiment, find
from experiments.lab.keeping import keep
from experiments.lab.sweeping import note, sweep_name
from experiments.store import Run, Store

_QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null")


def launch(experiment: Experiment, source: str, overrides: Sequence[str], given: argparse.Namespace) -> int:
    """Run one config, a sweep or a search, as the command line says; return the exit code.

    Args:
        source: How the experiment was named, so that another process finds it too.
        given: The flags; see `command_line`.

    Raises:
        ValueError: What a single run was refused for.
    """
    number = given.maximize or given.minimize
    schema = OmegaConf.structured(experiment.config)
    OmegaConf.set_readonly(
        schema, False
    )  # a frozen dataclass would refuse overrides; what is made of it is frozen again
    ConfigStore.instance().store(name=experiment.name, node=schema)
    scratch = Path(".experiments" if "://" in given.store else f"{given.store}/.hydra") / experiment.name
    words = [*overrides, *_QUIET, f"hydra.job.name={experiment.name}", f"hydra.run.dir={scratch}"]
    if not (given.multirun or number):
        return _one(experiment, source, words, given)
    swept = sorted(word for word in overrides if not word.startswith("hydra"))
    sweep = sweep_name(experiment.name, swept, number)
    store = Store(given.store)
    store.begin_sweep(sweep, note(experiment.name, swept, _command(source, swept, given)))
    print(f"sweep {sweep}: {' '.join(swept)}")
    words += ["--multirun", f"hydra.sweep.dir={scratch}/{sweep}", *_engine(given.on, given.jobs)]
    code = 0
    if not number:
        code = _call(experiment, _point(source, given.store, sweep), words)
    elif search := _search(scratch / f"{sweep}.db", sweep, given):
        code = _call(experiment, _point(source, given.store, sweep, number), [*words, *search])
    if number:
        print(_best(scratch / f"{sweep}.db", sweep, number))
    return _after(store.runs(experiment.name, sweep), given, sweep) or code


def _command(source: str, swept: Sequence[str], given: argparse.Namespace) -> str:
    """What to type to go on with a sweep."""
    words = ["python", "-m", "experiments", source, *swept]
    for flag in ("maximize", "minimize"):
        words += [f"--{flag}", getattr(given, flag), "--trials", str(given.trials)] if getattr(given, flag) else []
    return shlex.join([*words, *([] if given.maximize or given.minimize else ["--multirun"])])


def _one(experiment: Experiment, source: str, words: Sequence[str], given: argparse.Namespace) -> int:
    """A single run, in this process."""
    if given.on != "here":
        raise ValueError(f"--on {given.on} is for sweeps; add --multirun, or leave it out")
    ended: list[Run | Exception] = []

    def point(cfg: DictConfig) -> None:
        try:
            ended.append(keep(OmegaConf.to_object(cfg), Store(given.store)))
        except (ValueError, OSError) as error:  # one line is enough: the log is kept with its traceback
            ended.append(error)

    code = _call(experiment, point, words)
    if not ended:
        return 2 if code else 0  # Hydra has said what is wrong with the options, or has shown what it was asked to show
    if isinstance(ended[0], Exception):
        raise ended[0]
    print(f"{ended[0].answer}\n")
    return _after([ended[0]], given)


def _point(source: str, root: str, sweep: str, number: str = "") -> TaskFunction:
    """What Hydra calls for each point of a sweep, in this process or in another."""

    def point(cfg: DictConfig) -> float | None:
        begun, clock = time.time(), time.perf_counter()
        find(source)
        store = Store(root)
        run = keep(OmegaConf.to_object(cfg), store)
        store.join_sweep(sweep, run)
        took = "was there" if run.manifest["finished"] < begun else f"{time.perf_counter() - clock:.1f} s"
        print(f"{run.name}  {', '.join(HydraConfig.get().overrides.task)}  {took}", flush=True)
        if number and number not in run.numbers:
            raise ValueError(f"{run.experiment} has no number {number!r}; it has {', '.join(run.numbers)}")
        return run.numbers[number] if number else None

    return point


def _call(experiment: Experiment, point: TaskFunction, words: Sequence[str]) -> int:
    """Hand the words to Hydra as a command line of its own; return its exit code."""
    before, sys.argv = sys.argv, [sys.argv[0], *words]
    try:
        hydra.main(config_path=None, config_name=experiment.name)(point)()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def _engine(on: str, jobs: int) -> list[str]:
    """Which launcher, and how many points at once."""
    limits = {
        "joblib": f"hydra.launcher.n_jobs={jobs}",
        "submitit_slurm": f"hydra.launcher.array_parallelism={jobs}",
        "submitit_local": f"hydra.sweeper.max_batch_size={jobs}",
        "ray": f"+hydra.launcher.ray.init.num_cpus={jobs}",
    }
    if on != "here" and on not in limits:
        raise ValueError(f"there is no engine {on!r}; choose from here, {', '.join(limits)}")
    return [] if on == "here" else [f"hydra/launcher={on}", *([limits[on]] if jobs else [])]


def _search(database: Path, name: str, given: argparse.Namespace) -> list[str]:
    """Optuna for what is left of a search, or nothing if no trial is."""
    database.parent.mkdir(parents=True, exist_ok=True)
    done = len(_finished(database, name))
    if (left := given.trials - done) <= 0:
        return []
    return [
        "hydra/sweeper=optuna",
        f"hydra.sweeper.n_trials={left}",
        f"hydra.sweeper.n_jobs={max(1, given.jobs)}",
        f"hydra.sweeper.direction={'maximize' if given.maximize else 'minimize'}",
        f"hydra.sweeper.study_name={name}",
        f"hydra.sweeper.storage=sqlite:///{database}",
        f"hydra.sweeper.sampler.seed={done}",  # the same seed would draw the same first points again
    ]


def _finished(database: Path, name: str) -> list[Any]:
    """The finished trials of a search, best first."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    address = f"sqlite:///{database}"
    if name not in optuna.get_all_study_names(address):
        return []
    study = optuna.load_study(study_name=name, storage=address)
    trials = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    largest_first = study.direction == optuna.study.StudyDirection.MAXIMIZE
    return sorted(trials, key=lambda trial: trial.value, reverse=largest_first)


def _best(database: Path, name: str, number: str) -> str:
    trials = _finished(database, name)
    if not trials:
        return "no trial was finished"
    where = ", ".join(f"{option}={value}" for option, value in trials[0].params.items())
    return f"best of {len(trials)} trials: {number} = {trials[0].value:.4g} at {where}"


def _after(runs: Sequence[Run], given: argparse.Namespace, sweep: str = "") -> int:
    """Write the page, unless none is wanted, and say where it is."""
    if not runs or given.no_page:
        return 0
    from experiments.lab.commands import write_page

    print(f"page: {write_page(runs, given.store, given.page, sweep)}")
    return 0
