"""Which few words are enough? The overinterpretation test: words that suffice ought to make sense to a reader.

Sufficient input subsets: Carter et al. 2019 (arXiv:1810.03805); overinterpretation: Carter et al. 2021
(arXiv:2003.08907).
"""

from collections.abc import Callable
from itertools import combinations
from math import comb
from typing import Any

import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from interp.arrays import labelled
from interp.attribution.baselines import EMBED, Baseline
from interp.attribution.masks import Masked, orders_at_random, ranks
from interp.contrast import share as share_of
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.progress import Progress, bar
from interp.sites import Site

Measure = Callable[[Bool[Tensor, "cell prompt pos"]], Float[Tensor, "cell prompt"]]


def sufficient_subsets(
    model: Model,
    clean: Prompts,
    baseline: Baseline,
    metric: Metric,
    site: Site = EMBED,
    *,
    share: float = 0.9,
    most: int = 512,
    draws: int = 20,
    seed: int = 0,
    progress: Progress = None,
) -> xr.Dataset:
    """The smallest sets of positions found that keep the metric up when all others hold the baseline.

    Positions are taken away one by one, always the one that is missed least; then all smaller sets are tried, as long
    as there are not too many. Positions where the baseline is what stands there anyway are never needed.

    Args:
        baseline: What a position holds when it is taken away; see `integrated_gradients`.
        share: Enough is this share of the way from the metric under the baseline to that of the prompt.
        most: Sets of one size to try at most.
        draws: Random sets of the same size, for comparison.

    Returns:
        `kept` by (pos, prompt), 1 for positions in the set; and by prompt `size`, `reached`, the share that the set
        reaches, `smallest`, 1 if all smaller sets were tried, and `random`, what share of random sets of its size are
        enough.

    Raises:
        ValueError: A share outside (0, 1]; a metric that hardly differs between prompt and baseline.
    """
    if not 0 < share <= 1 or most < 1 or draws < 1:
        raise ValueError(f"the share is above 0 and at most 1, counts are at least 1; got {share}, {most}, {draws}")
    masked = Masked.of(model, clean, baseline, site, metric)
    measure = _share_reached(masked)
    with bar(int(masked.matters.sum(-1).max()), "positions", progress) as advance:
        kept, reached = _taken_away(masked, measure, share, advance)
    smallest = _smaller(masked, measure, kept, reached, share, most)
    size = kept.sum(-1)
    drawn = torch.stack([ranks(x) < size[:, None] for x in orders_at_random(masked, draws, seed, masked.matters)])
    chance = (measure(drawn) >= share).float().mean(0)
    how: dict[str, Any] = {
        "method": "sufficient subsets",
        "metric": metric.name,
        "site": str(site),
        "share": share,
        "draws": draws,
    }
    each = {"size": size, "reached": reached, "smallest": smallest, "random": chance}
    coords = {"prompt": range(len(size))}
    found = {name: labelled(values.float(), name, coords, model, **how, seed=seed) for name, values in each.items()}
    found["kept"] = masked.label(kept.float(), "kept", **how, seed=seed)
    return xr.Dataset(found, attrs=found["kept"].attrs)


def _share_reached(masked: Masked) -> Measure:
    """How much of the way from the metric under the baseline to that of the prompt a set of positions reaches."""
    start, end = masked(torch.stack([torch.zeros_like(masked.matters), torch.ones_like(masked.matters)])).values[0]
    what, hint = f"change in {masked.metric.name}", "choose other prompts, or another baseline"
    return lambda kept: share_of(masked(kept).values[0] - start, end - start, what, hint)


def _taken_away(
    masked: Masked, measure: Measure, share: float, advance: Callable[[int], None]
) -> tuple[Bool[Tensor, "prompt pos"], Float[Tensor, " prompt"]]:
    """The smallest sufficient set on the way down, the position that is missed least going first; and its share."""
    left, rows = masked.matters, torch.arange(len(masked.tokens), device=masked.base.device)
    kept, reached = left.clone(), measure(left[None])[0]
    while bool(left.any()):
        nth = left.cumsum(-1) - 1
        tries = torch.stack([left & (nth != i) for i in range(int(left.sum(-1).max()))])
        values = measure(tries).masked_fill(tries.sum(-1) == left.sum(-1), -torch.inf)
        best = values.argmax(0)
        left, values = torch.where(left.any(-1, keepdim=True), tries[best, rows], left), values[best, rows]
        enough = values >= share
        kept, reached = torch.where(enough[:, None], left, kept), torch.where(enough, values, reached)
        advance(1)
    return kept, reached


def _smaller(
    masked: Masked, measure: Measure, kept: Tensor, reached: Tensor, share: float, most: int
) -> Bool[Tensor, " prompt"]:
    """Try all smaller sets, the smallest first, and put what suffices in place; for which prompts that was done."""
    nth, width, size = masked.matters.cumsum(-1) - 1, int(masked.matters.sum(-1).max()), 1
    while size < int(kept.sum(-1).max()) and comb(width, size) <= most:
        chosen = torch.tensor(list(combinations(range(width), size)), device=kept.device)
        member = torch.zeros(len(chosen), width, dtype=torch.bool, device=kept.device).scatter(1, chosen, True)
        tries = member[:, nth.clamp(min=0)] & masked.matters
        values, best = measure(tries).masked_fill(tries.sum(-1) < size, -torch.inf).max(0)
        better = ((values >= share) & (kept.sum(-1) > size)).nonzero().flatten()
        kept[better], reached[better] = tries[best[better], better], values[better]
        size += 1
    return kept.sum(-1) <= size
