"""Edge attribution: what would patching each edge do, estimated for all of them by a few backward passes?

Edge attribution patching, the gradient of the mask at zero, by Syed et al. 2023 (arXiv:2310.10348); with integrated
gradients by Hanna et al. 2024 (arXiv:2403.17806).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check
from interp.circuits.gradients import beside, forward
from interp.circuits.pair import Pair
from interp.circuits.reading import Mixed
from interp.circuits.runs import Run, Written, written
from interp.edits import Edit, put
from interp.gradients import BUDGET
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.quadrature import gauss_legendre
from interp.sites import Site

_IG = "arXiv:1703.01365"
PATHS = ("inputs", "activations", "mask")


def eap(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    metric: Metric,
    over: Sequence[str] = (),
    direction: str = "denoising",
) -> xr.DataArray:
    """Edge attribution patching: a first-order estimate of what patching each edge alone would change.

    Both runs and one backward pass give every edge; what comes before the first token that differs is run once, and
    few tokens are run in one pass. The gradient is taken in the run that is patched, the corrupt one in denoising.

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
    difference, value, found = beside(pair.wiring, pair.other, pair.this, metric, pair.start)
    scores = found.scores(difference.by_position(), torch.ones(1), positions)
    change = value - found.values[0].detach()
    check = _adding_up("linearity error", "if the model is linear between the runs", scores[..., :1, :], change)
    return pair.scores(scores, metric, [check], method="edge attribution patching")


def eap_ig(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    metric: Metric,
    steps: int = 5,
    along: str = "inputs",
    over: Sequence[str] = (),
    direction: str = "denoising",
    budget: int | None = None,
) -> xr.DataArray:
    """Edge attribution with integrated gradients: the gradients of `eap` averaged on a path between the two runs.

    The average is taken by Gauss-Legendre quadrature, which needs fewer steps than the sum of the paper.

    Args:
        steps: Points on the path.
        along: What is moved straight from one run's to the other's. "inputs": what enters the first block, `steps`
            backward passes. "activations": what each attention and each MLP writes, one by one, for the edges that
            leave it: `steps` passes for each, and what leaves a module adds up to the exact effect of patching it.
            "mask": what all readers read, so that the scores of all edges add up; `steps` passes.
        over, direction, budget: As for `eap` and `patch_edges`.

    Returns:
        Scores by (prompt, [pos,] writer, reader); NaN where there is no edge, and at padding. The check says how far
        scores are from adding up to the change in the metric, those of what leaves `embed` or, along "mask", all:
        more steps bring them nearer.

    Raises:
        ValueError: What `eap` raises; fewer than one step; an unknown path.
    """
    rule = gauss_legendre(steps)
    if along not in PATHS:
        raise ValueError(f"unknown path {along!r}; choose from {', '.join(PATHS)}")
    pair = Pair.of(model, clean, corrupt, direction)
    positions = _positions(over)
    other = Run.of(pair.wiring, pair.other, metric)
    this, before = written(pair.wiring, pair.this, metric)
    weights = torch.tensor(rule.weights, dtype=torch.float64).to(this.embed)
    path = _Path(pair, this, other, np.array(rule.points), weights, positions)
    scores = path.of_masks() if along == "mask" else path.of_pieces(along == "activations", budget)
    added = scores if along == "mask" else scores[..., :1, :]
    check = _adding_up("completeness error", "if there are steps enough", added, other.values - before)
    how = {"path": along, "rule": "Gauss-Legendre", "steps": steps}
    return pair.scores(scores, metric, [check], method="edge attribution with integrated gradients", **how)


@dataclass(frozen=True)
class _Path:
    """The way from one run to the other, at some points with their weights."""

    pair: Pair
    this: Written
    other: Run
    points: Float[np.ndarray, " point"]
    weights: Float[Tensor, " point"]
    positions: bool

    def of_masks(self) -> Tensor:
        """Scores where all readers are moved at once."""
        pair, total = self.pair, torch.zeros(())
        whole = Mixed.whole(pair.wiring, pair.other)
        for point, weight in zip(self.points, self.weights):
            found = forward(self.other, pair.this, pair.start, self.this.embed, mixed=whole.at(float(point)))
            difference = self.other.pieces.since(pair.start).minus(found.read.written).by_position()
            total = found.scores(difference, weight[None], self.positions) + total.to(difference)
        return total

    def of_pieces(self, each: bool, budget: int | None) -> Tensor:
        """Scores where what modules write is moved, each for what leaves it; or, for all, what enters the first."""
        start = self.pair.start
        difference = self.other.pieces.since(start).minus(self.this.since(start)).by_position()
        scores = self._of_piece(0, difference, budget)
        first = 1
        for i in range(1, len(self.this.pieces) if each else 1):
            upto = first + self.this.expand[i](self.this.pieces[i][:1, :1], None).shape[1]
            scores[..., first:upto, :] = self._of_piece(i, difference, budget)[..., first:upto, :]
            first = upto
        return scores

    def _of_piece(self, i: int, difference: Tensor, budget: int | None) -> Tensor:
        """Scores of all edges, where one of the pieces is moved."""
        pair, (one, two) = self.pair, (written.pieces[i] for written in (self.this, self.other.pieces))
        t = torch.tensor(self.points).to(one)[:, None, None, None]
        points = torch.lerp(one, two, t)
        size = max(
            1,
            (budget or BUDGET) // (96 * one.shape[:2].numel() * pair.model.shape.d_model * pair.model.shape.n_layers),
        )
        total = torch.zeros(())
        for some, weights in zip(points.split(size), self.weights.split(size)):
            rows = some.flatten(0, 1).requires_grad_()
            with torch.enable_grad():
                edits = [self._put(i, rows)] if i else []
            found = forward(self.other, pair.this, pair.start, rows, edits)
            total = found.scores(difference, weights, self.positions) + total.to(difference)
        return total

    def _put(self, i: int, value: Tensor) -> Edit:
        """The edit that makes a module write something else; modules take turns, attention first."""
        layer, is_mlp = divmod(i - 1, 2)
        if is_mlp:
            return put(Site("mlp_out", layer), value)
        if not self.pair.wiring.graph.splits:
            return put(Site("attn_out", layer), value)
        return put(Site("z", layer), value.unflatten(-1, (self.pair.model.shape.n_heads, -1)))


def _positions(over: Sequence[str]) -> bool:
    if unknown := sorted(set(over) - {"pos"}):
        raise ValueError(
            f"edges are scored by writer and reader and, with over=['pos'], by position; not over {unknown}"
        )
    return "pos" in over


def _adding_up(name: str, why: str, scores: Tensor, change: Tensor) -> Check:
    """Do scores add up to the change in the metric?"""
    total = scores.nan_to_num().flatten(1).sum(-1)
    error = float((total - change).abs().max() / change.abs().mean().clamp(min=1e-9))
    status = "pass" if error <= 1e-3 else "warn" if error <= 5e-2 or name != "completeness error" else "fail"
    return Check(name, error, 1e-3, status, f"scores add up to the change in the metric {why}", _IG)
