"""How well attribution patching estimates patching on the embedded model, task by task."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from interp import attribution_patching, tasks
from interp.attribution_patching import ATP, ATP_STAR, INPUTS
from interp.model import Model

ESTIMATORS = {"AtP": ATP, "AtP*": ATP_STAR, "input IG": INPUTS}
NODES: tuple[tuple[str, ...], ...] = (("head",), ("head", "pos"))


def correlations(
    model: Model, kind: str = "z", over: Sequence[str] = ("head",), n: int = 32, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Pearson correlation, over all nodes, of mean estimates with mean exact changes in the logit difference.

    AtP* has no sign: it is held against the mean of the sizes, and so is AtP, under "AtP size".

    Returns:
        For each task, a correlation for each estimator.
    """
    return {name: _of_task(model, make(model, n, seed), kind, over) for name, make in tasks.EMBEDDED.items()}


def _of_task(model: Model, task: tasks.Task, kind: str, over: Sequence[str]) -> dict[str, float]:
    given = model, task.clean, task.corrupt, model.sites(kind), task.logit_diff, over
    every = attribution_patching.verify(*given, normalize=False, top=0, others=10**9)
    signed, size = every.exact.mean("prompt"), abs(every.exact).mean("prompt")
    found = {"AtP size": _pearson(abs(every.estimate).mean("prompt"), size)}
    for name, by in ESTIMATORS.items():
        guess = attribution_patching.estimate(*given, normalize=False, by=by).mean("prompt")
        found[name] = _pearson(guess, size if by.grad_drop else signed)
    return found


def _pearson(guess: xr.DataArray, effect: xr.DataArray) -> float:
    return float(np.corrcoef(guess.values.flatten(), effect.values.flatten())[0, 1])


def table(model: Model, n: int = 32, seed: int = 0) -> str:
    """The correlations as a table in Markdown."""
    columns = ["AtP", "input IG", "AtP size", "AtP*"]
    lines = [f"| task | nodes | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    for over in NODES:
        for task, found in correlations(model, over=over, n=n, seed=seed).items():
            lines.append(f"| {task} | {', '.join(over)} | {' | '.join(f'{found[name]:.2f}' for name in columns)} |")
    return "\n".join(lines)
