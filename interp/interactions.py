"""Interactions of pairs: what do two components do together that they do not do one by one?"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
import xarray as xr

from interp.arrays import labelled
from interp.edits import Edit
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.progress import Progress
from interp.sweep import sweep


@torch.no_grad()
def pairs(
    model: Model,
    prompts: Prompts,
    edits: Mapping[str, Edit],
    metric: Metric,
    chosen: Sequence[tuple[str, str]] | None = None,
    budget: int | None = None,
    progress: Progress = None,
) -> xr.DataArray:
    """The effect of two edits together minus the sum of the effects of each alone.

    Under ablations it is zero where components work apart. It has the sign of the effects where each makes up for the
    other's loss (backups: together they cost more than their sum), and the opposite sign where they share one path (in
    series: the second costs nothing once the first is gone) or undo each other.

    Args:
        edits: By name, as `components.each` makes them.
        chosen: Pairs of names of the edits to combine; by default every pair.
        budget, progress: See `sweep`.

    Returns:
        Interactions by (first, second, prompt): symmetric, NaN on the diagonal and for pairs that were not chosen.

    Raises:
        ValueError: A pair of a name with itself, or with one that is not among the edits.
    """
    names = list(edits)
    chosen = list(combinations(names, 2)) if chosen is None else list(chosen)
    for pair in chosen:
        if len(set(pair)) < 2 or not set(pair) <= set(names):
            raise ValueError(f"a pair is of two different edits among {', '.join(names) or 'none'}, not {pair}")
    tokens = model.tokens(prompts)
    cells = [[], *([edit] for edit in edits.values()), *([edits[first], edits[second]] for first, second in chosen)]
    swept = sweep(model, tokens, cells, [metric], budget, progress=progress)
    base, alone, together = swept.values[0].split([1, len(names), len(chosen)])
    first, second = ([names.index(pair[side]) for pair in chosen] for side in (0, 1))
    effect = together - alone[first] - alone[second] + base
    values = torch.full((len(names), len(names), len(tokens)), float("nan"), dtype=effect.dtype, device=effect.device)
    values[first, second] = values[second, first] = effect
    coords: dict[str, Sequence[Any]] = {"first": names, "second": names, "prompt": range(len(tokens))}
    how = {"method": "interactions of pairs", "metric": metric.name, **swept.how}
    return labelled(values, f"interaction in {metric.name}", coords, model, **how)
