"""Edge attribution: what would patching each edge do, estimated for all of them by a few backward passes?

Edge attribution patching, the gradient of the mask at zero, by Syed et al. 2023 (arXiv:2310.10348); with integrated
gradients by Hanna et al. 2024 (arXiv:2403.17806).
"""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from interp.arrays import Check
from interp.circuits.gradients import gradients
from interp.circuits.masks import BUDGET
from interp.circuits.pair import Pair
from interp.circuits.runs import written
from interp.metrics import Metric
from interp.model import Model, Prompts

_IG = "arXiv:1703.01365"


def eap(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    metric: Metric,
    over: Sequence[str] = (),
    direction: str = "denoising",
) -> xr.DataArray:
    """Edge attribution patching: a first-order estimate of what patching each edge alone would change.

    Two forward passes and one backward pass give every edge. The gradient is taken in the run that is patched, the
    corrupt one in denoising.

    Args:
        over: ("pos",) for a score at each position; otherwise positions are summed over.
        direction: As for `patch_edges`.

    Returns:
        Scores by (prompt, [pos,] writer, reader); NaN where there is no edge, and at padding. The check says how far
        the scores of what leaves `embed` are from the change they stand for: how little linear the model is here.

    Raises:
        ValueError: What `patch_edges` raises; a metric that has no gradient.
    """
    pair = Pair.of(model, clean, corrupt, direction)
    positions = _positions(over)
    other, after = written(model, pair.wiring, pair.other, metric)
    found = gradients(model, pair.wiring, pair.this, metric, start=pair.start)
    scores = found.dot(other.minus(found.written, pair.start).tensor(), positions)
    check = _adding_up("linearity error", "if the model is linear between the runs", scores, after - found.metric[0])
    return pair.scores(scores, metric, [check], method="edge attribution patching")


def eap_ig(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    metric: Metric,
    steps: int = 5,
    over: Sequence[str] = (),
    direction: str = "denoising",
    budget: int = BUDGET,
) -> xr.DataArray:
    """Edge attribution with integrated gradients: the gradients of `eap` averaged on a path between the two runs.

    On the path, what enters the first block is moved straight from one run's to the other's. The average is taken by
    Gauss-Legendre quadrature, which needs fewer steps than the sum of the paper for the same integral.

    Args:
        steps: Points on the path.
        over, direction, budget: As for `eap` and `patch_edges`.

    Returns:
        Scores by (prompt, [pos,] writer, reader); NaN where there is no edge, and at padding. The check says how far
        the scores of what leaves `embed` are from adding up to the change in the metric: more steps bring them nearer.

    Raises:
        ValueError: What `eap` raises; fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"the path needs at least one step; steps={steps} was given")
    pair = Pair.of(model, clean, corrupt, direction)
    positions = _positions(over)
    (other, after), (this, before) = (written(model, pair.wiring, x, metric) for x in (pair.other, pair.this))
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    t = torch.tensor((nodes + 1) / 2).to(this.embed)[:, None, None, None]
    points = this.embed + t * (other.embed - this.embed)
    difference = other.minus(this, pair.start).tensor()
    size = max(1, budget // (96 * pair.this.ids.numel() * model.shape.d_model * model.shape.n_layers))
    total = None
    for some, weight in zip(points.split(size), torch.tensor(weights / 2).to(points).split(size)):
        found = gradients(model, pair.wiring, pair.this, metric, some, weight, pair.start)
        part = found.dot(difference, positions)
        total = part if total is None else total + part
    assert total is not None
    check = _adding_up("completeness error", "if there are steps enough", total, after - before)
    how = {"path": "what enters the first block", "rule": "Gauss-Legendre", "steps": steps}
    return pair.scores(total, metric, [check], method="edge attribution with integrated gradients", **how)


def _positions(over: Sequence[str]) -> bool:
    if unknown := sorted(set(over) - {"pos"}):
        raise ValueError(
            f"edges are scored by writer and reader and, with over=['pos'], by position; not over {unknown}"
        )
    return "pos" in over


def _adding_up(name: str, why: str, scores: Tensor, change: Tensor) -> Check:
    """Do the scores of what leaves `embed` add up to the change in the metric?"""
    total = scores[..., 0, :].flatten(1).sum(-1)
    error = float((total - change).abs().max() / change.abs().mean().clamp(min=1e-9))
    status = "pass" if error <= 1e-3 else "warn" if error <= 5e-2 or name != "completeness error" else "fail"
    return Check(name, error, 1e-3, status, f"what leaves `embed` adds up to the change in the metric {why}", _IG)
