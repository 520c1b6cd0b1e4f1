"""The same experiment at many points of its options."""

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

from experiments.lab.experiment import experiment_of
from experiments.lab.keeping import keep
from experiments.lab.options import settings
from experiments.store import Run, Store


@dataclass(frozen=True)
class Sweep:
    """The finished points of a sweep, and the name by which the store finds them again."""

    name: str
    runs: list[Run]


def sweep(base: Any, store: Store | None = None, on: str = "here", jobs: int = -1, **axes: Sequence[Any]) -> Sweep:
    """Every combination of some options' values; points that are in the store are not run again.

    Args:
        base: A config; what is not swept stays as it is there.
        on, jobs: See `experiments.lab.parallel.parallel`.
        axes: Values of each option, as in `sweep(Config(), seed=range(5), n=[8, 16])`.

    Raises:
        ValueError: No axes, or one that is no option; one value where there should be several.
    """
    from experiments.lab.parallel import parallel

    store = Store() if store is None else store
    known = list(settings(base))
    if not axes or not {*axes} <= {*known}:
        what = ", ".join(sorted({*axes} - {*known})) or "none"
        raise ValueError(f"a sweep needs values of some options, not of {what}; there are {', '.join(known)}")
    asked = experiment_of(base)
    experiment = asked.name
    swept = {axis: _several(axis, values) for axis, values in axes.items()}
    name = sweep_name(asked.identity, settings(base), swept)
    every = [replace(base, **dict(zip(swept, values))) for values in product(*swept.values())]
    points = list({json.dumps(settings(cfg), default=str): cfg for cfg in every}.values())  # each once
    store.begin_sweep(name, note(experiment, swept, points=len(points)))
    parallel(partial(_point, store=store, sweep=name), points, on, jobs)
    return Sweep(name, store.runs(experiment, name))


def _several(axis: str, values: Any) -> list[Any]:
    """The values of an axis, as numbers of Python."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ValueError(
            f"a sweep takes several values of each option, as in {axis}=[{values!r}], not {axis}={values!r}"
        )
    found = values.tolist() if hasattr(values, "tolist") else list(values)
    if not found:
        raise ValueError(f"{axis} has no values; give some, as in {axis}=[1, 2]")
    return found


def sweep_name(identity: Sequence[Any], *parts: Any) -> str:
    """What a sweep is called by: the same points and code, the same name, so that one that was killed goes on."""
    return hashlib.sha256(json.dumps([*identity, *parts], sort_keys=True, default=str).encode()).hexdigest()[:8]


def note(experiment: str, what: Any, command: str = "", points: int = 0) -> dict[str, Any]:
    """What the store keeps of a sweep itself; points are 0 for a search, which can always be continued."""
    return {"experiment": experiment, "what": what, "command": command, "points": points, "began": time.time()}


def _point(cfg: Any, store: Store, sweep: str) -> str:
    run = keep(cfg, store)
    store.join_sweep(sweep, run)
    return run.key
