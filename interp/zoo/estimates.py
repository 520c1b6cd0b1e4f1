"""How well attribution estimates patching of nodes and edges on the embedded model, task by task."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from interp import attribution_patching, circuits, tasks
from interp.attribution_patching import ATP, ATP_STAR, INPUTS
from interp.model import Model
from interp.zoo import truth

ESTIMATORS = {"AtP": ATP, "AtP*": ATP_STAR, "input IG": INPUTS}
COLUMNS = ("AtP", "AtP size", "AtP*", "input IG")  # the last but one has no sign, and so stands beside a size
NODES: tuple[tuple[str, ...], ...] = (("head",), ("head", "pos"))


def correlations(
    model: Model, kind: str = "z", over: Sequence[str] = ("head",), n: int = 32, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Pearson correlation, over all nodes, of mean estimates with mean exact changes in the logit difference.

    AtP* has no sign: it is held against the mean of the sizes, and so is AtP, under "AtP size".

    Returns:
        For each task, a correlation for each of `COLUMNS`, in their order.
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
    return {name: found[name] for name in COLUMNS}


def _pearson(guess: xr.DataArray, effect: xr.DataArray) -> float:
    there = np.isfinite(effect.values)
    return float(np.corrcoef(guess.values[there], effect.values[there])[0, 1])


def edge_correlations(model: Model, steps: int = 5) -> dict[str, dict[str, float]]:
    """Pearson correlation, over all edges, of mean estimates with the exact changes that are stored, under denoising.

    Args:
        steps: Of integrated gradients.

    Returns:
        For each task, a correlation for "EAP" and one for "EAP-IG".
    """
    exact = truth.stored()
    found = {}
    for name in exact["task"].values:
        task = tasks.EMBEDDED[name](model, exact.attrs["pairs"], exact.attrs["seed"])
        given = model, task.clean, task.corrupt, task.logit_diff
        effect = exact["edge"].sel(task=name, intervention="denoising")
        guesses = {"EAP": circuits.eap(*given), "EAP-IG": circuits.eap_ig(*given, steps=steps)}
        found[str(name)] = {kind: _pearson(guess.mean("prompt"), effect) for kind, guess in guesses.items()}
    return found


def edge_table(model: Model) -> str:
    """These correlations as a table in Markdown."""
    lines = ["| task | EAP | EAP-IG |", "|---|---|---|"]
    for task, found in edge_correlations(model).items():
        lines.append(f"| {task} | {found['EAP']:.2f} | {found['EAP-IG']:.2f} |")
    return "\n".join(lines)


def table(model: Model, n: int = 32, seed: int = 0) -> str:
    """The correlations as a table in Markdown, below a line that says of how many pairs they are."""
    of = f"over nodes of `z`, {n} pairs, seed {seed}"
    lines = [
        f"Pearson correlation of attribution patching with exact patching, {of}:\n",
        f"| task | nodes | {' | '.join(COLUMNS)} |",
        f"|---|---|{'---|' * len(COLUMNS)}",
    ]
    for over in NODES:
        for task, found in correlations(model, over=over, n=n, seed=seed).items():
            lines.append(f"| {task} | {', '.join(over)} | {' | '.join(f'{value:.2f}' for value in found.values())} |")
    return "\n".join(lines)
