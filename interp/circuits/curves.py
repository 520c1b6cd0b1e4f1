"""How faithfulness grows with the size of a circuit, and the areas under that curve.

CPR and CMD of the benchmark MIB, Mueller et al. 2025 (arXiv:2504.13151).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from interp import stats
from interp.arrays import labelled
from interp.circuits.evaluation import evaluate
from interp.circuits.patching import graph
from interp.circuits.selection import select, size_of
from interp.graph import Mask
from interp.metrics import Metric
from interp.model import Model, Prompts

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of all edges, as in MIB


def areas(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    scores: Mask,
    metric: Metric,
    rank: str = "absolute",
    connected: bool = False,
    shares: Sequence[float] = SHARES,
    ablation: str = "corrupt",
    draws: int = 2000,
    seed: int = 0,
    budget: int | None = None,
    resamples: int = 4,
) -> xr.Dataset:
    """Faithfulness of circuits of growing size, and two areas: how much of it, and how near to the model.

    Args:
        scores: By (writer, reader), or by prompt too: which edges come first. Take them from other prompts.
        rank, connected: How circuits are selected, see `select`. The areas depend on it: MIB reports CPR for "signed",
            and CMD for "absolute". It is kept in the attributes.
        shares: Sizes as shares of all edges, rising.
        ablation, resamples: See `evaluate`.
        draws: Of the bootstrap over prompts.
        seed: Of the bootstrap and of "resample".

    Returns:
        By (share, bound), bound being mean, low or high: `faithfulness`; by bound: `cpr`, the area under the curve, and
        `cmd`, the area between it and 1, by the trapezoid rule over shares; by share: `edges`.

    Raises:
        ValueError: Shares that do not rise within 0 and 1; a behaviour that does not differ between the model and the
            empty circuit; what `select` and `evaluate` raise.
    """
    if len(shares) < 2 or not shares[0] > 0 or shares[-1] > 1 or bool((np.diff(shares) <= 0).any()):
        raise ValueError(f"shares of all edges rise from above 0 to at most 1; {list(shares)} do not")
    names = graph(model)
    sizes = [size_of(names, float(share)) for share in shares]
    circuits = {str(share): select(names, scores, size, rank, connected) for share, size in zip(shares, sizes)}
    found = evaluate(model, clean, corrupt, circuits, metric, ablation, resamples, seed, budget)
    gain, gap = found["metric"] - found["empty"], found["full"] - found["empty"]
    if not abs(float(gap.mean())) > 1e-3 * float(abs(found["full"]).mean()):
        raise ValueError(f"{metric.name} is that of the model without any edge: there is nothing to be faithful to")
    how: dict[str, Any] = {"method": "faithfulness by size", "metric": metric.name, "ablation": ablation}
    how |= {"rank": rank, "connected": str(connected), "rule": "trapezoid over shares", "draws": draws, "seed": seed}
    how |= {"resamples": resamples} if ablation == "resample" else {}
    bounds = lambda function: torch.tensor(np.stack(stats.of_means(function, gain, gap, draws=draws, seed=seed), -1))
    under = lambda g, w: _area(_ratio(g, w), shares)
    away = lambda g, w: _area(abs(1 - _ratio(g, w)), shares)
    by_bound: dict[str, Sequence[Any]] = {"bound": ["mean", "low", "high"]}
    coords: dict[str, Sequence[Any]] = {"share": list(shares), **by_bound}
    parts = {
        "faithfulness": labelled(bounds(_ratio), "faithfulness", coords, model, **how),
        "cpr": labelled(bounds(under), "area", by_bound, model, **how),
        "cmd": labelled(bounds(away), "area", by_bound, model, **how),
        "edges": labelled(torch.tensor(sizes), "edges", {"share": list(shares)}, model, **how),
    }
    return xr.Dataset(parts, attrs=parts["faithfulness"].attrs)


def _ratio(gain: Float[np.ndarray, "draw size"], gap: Float[np.ndarray, " draw"]) -> Float[np.ndarray, "draw size"]:
    return gain / gap[:, None]


def _area(heights: Float[np.ndarray, "draw size"], at: Sequence[float]) -> Float[np.ndarray, " draw"]:
    """By the trapezoid rule."""
    return ((heights[:, 1:] + heights[:, :-1]) / 2) @ np.diff(at)
