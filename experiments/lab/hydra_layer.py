"""Hydra as the outer layer: it reads overrides, makes the points of a sweep, and launches them; nothing else knows it."""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from math import prod
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.lab import searching
from experiments.lab.experiment import Experiment, find
from experiments.lab.keeping import keep
from experiments.lab.overrides import command, override
from experiments.lab.sweeping import note, sweep_name
from experiments.store import Run, Store

_WHOLE = "HYDRA_FULL_ERROR"  # errors come here as they are, and not as a traceback on the screen
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
    ConfigStore.instance().store(name=experiment.name, node=schema, replace=True)
    store = Store(given.store)
    scratch = Path(".experiments" if "://" in given.store else f"{given.store}/.hydra") / experiment.name
    words = [*overrides, *_QUIET, override("hydra.job.name", experiment.name), override("hydra.run.dir", str(scratch))]
    if not (given.multirun or number):
        return _one(experiment, source, words, given)
    swept = sorted(word for word in overrides if not word.startswith("hydra"))
    sweep = sweep_name(experiment.identity, swept, number)
    words += ["--multirun", override("hydra.sweep.dir", f"{scratch}/{sweep}"), *_engine(given.on, given.jobs)]
    varied, database = _varied(swept), scratch / f"{sweep}.db"
    if varied is None:
        return _call(experiment, _point(source, given.store, sweep, number, 0), words)  # Hydra says what
    if number and not varied:
        raise ValueError("a search needs options to vary, such as layer=0,1,2 or 'dose=interval(0,4)'; see --help")
    points = prod(len({*word.sweep_string_iterator()}) for word in varied if word.is_discrete_sweep())
    store.begin_sweep(sweep, note(experiment.name, swept, _command(source, swept, given), 0 if number else points))
    print(f"sweep {sweep}: {' '.join(swept)}")
    if number:
        search = searching.overrides(database, sweep, given.trials, given.jobs, bool(given.maximize))
        words, points = words + search, given.trials if search else 0
    code = _call(experiment, _point(source, given.store, sweep, number, points), words) if points else 0
    if number:
        print(searching.best(database, sweep, number))
    return _after(store.runs(experiment.name, sweep), given, sweep) or code


def _varied(swept: Sequence[str]) -> list[Override] | None:
    """The options that a sweep or a search varies; None if Hydra cannot read its words."""
    try:
        words = OverridesParser.create().parse_overrides(list(swept))
    except HydraException:
        return None
    return [word for word in words if word.is_sweep_override()]


def _command(source: str, swept: Sequence[str], given: argparse.Namespace) -> str:
    """What to type to go on with a sweep."""
    number = next((name for name in ("maximize", "minimize") if getattr(given, name)), "")
    words = [
        source,
        *swept,
        *([f"--{number}", getattr(given, number), "--trials", str(given.trials)] if number else ["--multirun"]),
    ]
    words += ["--on", given.on] if given.on != "here" else []
    words += ["--jobs", str(given.jobs)] if given.jobs else []
    return command(*words, *(["--store", given.store] if given.store != "runs" else []))


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
        return code  # what is wrong was said, or what Hydra was asked to show was shown
    if isinstance(ended[0], Exception):
        raise ended[0]
    print(f"{ended[0].answer}\n")
    return _after([ended[0]], given)


def _point(source: str, root: str, sweep: str, number: str, points: int) -> TaskFunction:
    """What Hydra calls for each point of a sweep, in this process or in another."""
    began = time.time()

    def point(cfg: DictConfig) -> float | None:
        begun = time.time()
        find(source)
        store = Store(root)
        try:
            run = keep(OmegaConf.to_object(cfg), store)
        except (ValueError, OSError) as error:  # its log has the whole traceback, of which Hydra would show every line
            raise error.with_traceback(None) from None
        store.join_sweep(sweep, run)
        took = "was there" if run.manifest["finished"] < begun else f"{time.time() - begun:.1f} s"
        done = HydraConfig.get().job.num + 1
        left = (time.time() - began) / done * max(points - done, 0)
        words = ", ".join(HydraConfig.get().overrides.task)
        print(f"{done}/{points}  {run.name}  {words}  {took}, {left:.0f} s left", flush=True)
        if number and number not in run.numbers:
            raise ValueError(f"{run.experiment} has no number {number!r}; it has {', '.join(run.numbers)}")
        return run.numbers[number] if number else None

    return point


def _call(experiment: Experiment, point: TaskFunction, words: Sequence[str]) -> int:
    """Hand the words to Hydra as a command line of its own; return the exit code, having said what went wrong."""
    before, sys.argv = sys.argv, [sys.argv[0], *words]
    own = _WHOLE not in os.environ
    os.environ[_WHOLE] = "1"
    try:
        hydra.main(config_path=None, config_name=experiment.name)(point)()
    except SystemExit as end:
        return int(end.code or 0)
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        print(f"python -m experiments {experiment.name}: {error}", file=sys.stderr)
        if isinstance(error.__cause__, OmegaConfBaseException):
            print(error.__cause__, file=sys.stderr)
        return 2
    except Exception:  # a point that broke down: what was finished is shown nevertheless
        traceback.print_exc()
        return 1
    finally:
        sys.argv = before
        if own:
            del os.environ[_WHOLE]
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


def _after(runs: Sequence[Run], given: argparse.Namespace, sweep: str = "") -> int:
    """Write the page, unless none is wanted, and say where it is."""
    if not runs or given.no_page:
        return 0
    from experiments.lab.commands import write_page

    print(f"page: {write_page(runs, given.store, given.page, sweep)}")
    return 0
