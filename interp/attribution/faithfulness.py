"""Is an attribution faithful: does the metric fall as the words it names are taken away, more than by chance?

Comprehensiveness and sufficiency: DeYoung et al. 2020 (arXiv:1911.03429). Words are replaced by those of a baseline,
not cut out (Hase et al. 2021, arXiv:2106.00786).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp import stats
from interp.arrays import Check, attach, labelled
from interp.attribution.baselines import EMBED, Baseline
from interp.attribution.masks import Masked, leave_one_out, orders_at_random, ranks
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.progress import Progress
from interp.sites import Site
from interp.sweep import Swept

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
_ERASER = "arXiv:1911.03429"


def curves(
    model: Model,
    clean: Prompts,
    baseline: Baseline,
    orders: xr.DataArray | Mapping[str, xr.DataArray],
    metric: Metric,
    site: Site = EMBED,
    *,
    shares: Sequence[float] = SHARES,
    draws: int = 20,
    seed: int = 0,
    progress: Progress = None,
) -> xr.Dataset:
    """What the metric loses without the positions that an attribution puts first, and what with nothing but them.

    Args:
        baseline: What a position holds when it is taken away; see `integrated_gradients`.
        orders: Attributions by (pos, prompt), or several by name: positions are taken in descending order.
        site: Where positions are put to the baseline.
        shares: How many of a prompt's tokens to take, rounded up.
        draws: Random orders.

    Returns:
        `comprehensiveness`, the loss without those positions (higher is better), and `sufficiency`, the loss with
        nothing else (lower is better), by (order, share, prompt). Beside the orders given stand "leave one out", the
        order of the losses without each position alone, and "random", the mean over random orders. `alone` holds those
        losses by (pos, prompt). Checks compare every order with random ones, prompt by prompt, and with leave one out;
        those by an interval are skipped below eight prompts.

    Raises:
        ValueError: Shares outside (0, 1]; no random order; attributions of other axes or prompts.
    """
    if not shares or min(shares) <= 0 or max(shares) > 1 or draws < 1:
        raise ValueError(f"shares are above 0 and at most 1, draws at least 1; got {tuple(shares)} and {draws}")
    given = {"attribution": orders} if isinstance(orders, xr.DataArray) else dict(orders)
    if taken := {"random", "leave one out"} & set(given):
        raise ValueError(f"the name {min(taken)!r} is taken; give the order another")
    masked = Masked.of(model, clean, baseline, site, metric)
    scores = {name: masked.scores(array) for name, array in given.items()}
    alone = leave_one_out(masked)
    scores["leave one out"] = alone
    names = [*scores, "random"]
    every = torch.stack([*scores.values(), *orders_at_random(masked, draws, seed)])
    without, only, swept = _losses(masked, every, shares, progress)
    named = [torch.cat([x[: len(scores)], x[len(scores) :].mean(0, keepdim=True)]) for x in (without, only)]
    how: dict[str, Any] = {"method": "faithfulness", "metric": metric.name, "site": str(site)}
    how |= {"draws": draws, "seed": seed, **swept.how}
    coords: dict[str, Sequence[Any]] = {"order": names, "share": list(shares), "prompt": range(len(masked.tokens))}
    found = {
        "comprehensiveness": labelled(named[0], "comprehensiveness", coords, model, **how),
        "sufficiency": labelled(named[1], "sufficiency", coords, model, **how),
        "alone": masked.label(alone, "loss without each", **how),
    }
    table = xr.Dataset(found, attrs=found["alone"].attrs)
    return table.assign_attrs(attach(_checks(table, given), {}))


def baseline_sensitivity(scores: xr.DataArray) -> xr.DataArray:
    """How alike attributions from different baselines rank the parts.

    Args:
        scores: Attributions with an axis `baseline`, as `integrated_gradients` gives them for several.

    Returns:
        Rank correlations by (baseline, other, prompt).

    Raises:
        ValueError: Attributions from one baseline alone.
    """
    if scores.sizes.get("baseline", 1) < 2:
        raise ValueError(f"this takes attributions from two baselines or more, not {dict(scores.sizes)}")
    names = list(scores["baseline"].values)
    one = {name: scores.sel(baseline=name, drop=True) for name in names}
    rows = [xr.concat([stats.rank_correlation(one[a], one[b]) for b in names], "other") for a in names]
    return xr.concat(rows, "baseline").assign_coords(baseline=names, other=names)


def _losses(
    masked: Masked, scores: Float[Tensor, "order prompt pos"], shares: Sequence[float], progress: Progress
) -> tuple[Tensor, Tensor, Swept]:
    """What is lost without the first positions of each order, and with nothing else: (order, share, prompt) each."""
    place, length = ranks(scores)[:, None], masked.present.sum(-1).cpu().double()  # 0.6 of 25 is 15, and no more
    counts = torch.stack([(share * length - 1e-9).ceil() for share in shares]).to(place)
    first = place < counts[:, :, None]
    cells = torch.cat([~first, first]).flatten(0, 1)
    whole = torch.ones_like(cells[:1])
    swept = masked(torch.cat([whole, cells]), progress)
    values = swept.values[0]
    without, only = (values[:1] - values[1:]).unflatten(0, (2, len(scores), len(shares)))
    return without, only, swept


def _checks(table: xr.Dataset, given: Mapping[str, xr.DataArray]) -> list[Check]:
    """Is every order better than random ones, and how close does it come to leaving one out?"""
    checks = []
    gain = table["comprehensiveness"].mean("share")
    gain = gain - gain.sel(order="random")
    best = float(gain.sel(order="leave one out").mean())
    for name, array in given.items():
        one = gain.sel(order=name)
        n = int(one.notnull().sum())
        low = float(stats.interval(one)["low"]) if n > 1 else float("nan")
        status = "skipped" if n < stats.FEWEST else "pass" if low > 0 else "warn"
        why = (
            "the lower end of the 95 % interval, over prompts, of the comprehensiveness less that of random orders; "
            f"it takes {stats.FEWEST} prompts"
        )
        checks.append(Check(f"{name}: better than random", low, 0.0, status, why, _ERASER))
        skill = float(one.mean()) / best if best > 0 else float("nan")
        why = (
            "comprehensiveness on a scale from random orders (0) to leaving one out (1); above 0 if it is better than "
            "random by the interval"
        )
        checks.append(Check(f"{name}: skill", skill, 0.0, "skipped" if skill != skill else status, why, _ERASER))
        alike = float(stats.rank_correlation(array.transpose("pos", "prompt"), table["alone"]).mean())
        why = "rank correlation with what the metric loses without each position alone, mean over prompts"
        checks.append(Check.at_least(f"{name}: agrees with leave one out", alike, 0.6, why, "arXiv:2212.11870"))
    return checks
