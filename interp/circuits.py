"""Circuits: which edges between heads, MLPs and logits carry what distinguishes two prompts?

Exact patching of edges as in Goldowsky-Dill et al. 2023 (arXiv:2304.05969); edge attribution patching, its gradient at
zero, by Syed et al. 2023 (arXiv:2310.10348); with integrated gradients by Hanna et al. 2024 (arXiv:2403.17806).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, labelled
from interp.backends.readers import wiring_of
from interp.edge_gradients import gradients
from interp.edge_pairs import Pair
from interp.edges import written
from interp.graph import Graph
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.progress import Progress

_IG = "arXiv:1703.01365"
BUDGET = 2**28  # bytes that one pass may take; larger passes are no faster


def graph(model: Model) -> Graph:
    """The writers and readers of a model's residual stream, by name, and which edges there are between them.

    Raises:
        ValueError: A backend or a family whose readers cannot be had.
    """
    return wiring_of(model).graph


def patch_edges(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    sets: Mapping[str, Tensor],
    metric: Metric,
    direction: str = "denoising",
    budget: int = BUDGET,
    progress: Progress = None,
) -> xr.DataArray:
    """How the metric changes when the edges of a set, and no others, carry what they carry in the other run.

    Args:
        sets: By name, how much of each edge is taken from the other run: (writer, reader) or (pos, writer, reader), as
            `graph(model).mask([("L0H1", "*")])` gives it. Every set is tried alone, many in one pass.
        direction: "denoising" runs the corrupt prompts with edges of the clean run, "noising" the reverse.
        budget: Bytes that the activations of one pass may take.

    Returns:
        The change in the metric by (set, prompt).

    Raises:
        ValueError: Prompts that do not match position by position; a mask of another shape, with NaN, or on edges that
            there are not; what `graph` raises.
    """
    pair = Pair.of(model, clean, corrupt, direction)
    stacked = pair.masks(sets)
    values, passes = pair.tried(stacked.split(pair.most(budget)), len(stacked), metric, progress)
    coords = {"set": list(sets), "prompt": range(len(pair.this))}
    how: dict[str, Any] = {"method": "edge patching", "direction": direction, "metric": metric.name}
    return labelled(values, f"change in {metric.name}", coords, model, **how, passes=passes)


def patch_each_edge(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    metric: Metric,
    edges: Float[Tensor, "writer reader"] | None = None,
    direction: str = "denoising",
    budget: int = BUDGET,
    progress: Progress = None,
) -> xr.DataArray:
    """How the metric changes when one edge alone carries what it carries in the other run: exact, a row for each edge.

    Args:
        edges: Which edges to try, 1 or 0; by default all.
        direction, budget: As for `patch_edges`.

    Returns:
        The change in the metric by (prompt, writer, reader); NaN where there is no edge, or it was not tried.

    Raises:
        ValueError: What `patch_edges` raises.
    """
    pair = Pair.of(model, clean, corrupt, direction)
    names = pair.wiring.graph
    chosen = names.mask() if edges is None else edges.cpu()
    names.check("edges", chosen)
    if not bool(chosen.any()):
        raise ValueError(
            "no edge was chosen to be tried; give a mask with 1 on some, such as graph(model).mask([('*', 'logits')])"
        )
    # By reader, so that the edges of one pass leave most readers alone.
    readers, writers = chosen.T.nonzero(as_tuple=True)
    size = pair.most(budget)
    ones = (_one_each(names, w, r) for w, r in zip(writers.split(size), readers.split(size)))
    found, passes = pair.tried(ones, len(readers), metric, progress)
    values = found.new_full((len(pair.this), *names.precedes.shape), float("nan"))
    values[:, writers, readers] = found.T
    return pair.scores(values, metric, method="edge patching, each edge alone", passes=passes)


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
    size = max(1, pair.most(budget) // model.shape.n_layers)
    total = None
    for some, weight in zip(points.split(size), torch.tensor(weights / 2).to(points).split(size)):
        found = gradients(model, pair.wiring, pair.this, metric, some, weight, pair.start)
        part = found.dot(difference, positions)
        total = part if total is None else total + part
    assert total is not None
    check = _adding_up("completeness error", "if there are steps enough", total, after - before)
    how = {"path": "what enters the first block", "rule": "Gauss-Legendre", "steps": steps}
    return pair.scores(total, metric, [check], method="edge attribution with integrated gradients", **how)


def _one_each(names: Graph, writers: Tensor, readers: Tensor) -> Float[Tensor, "edge writer reader"]:
    masks = torch.zeros(len(writers), *names.precedes.shape)
    masks[torch.arange(len(writers)), writers, readers] = 1
    return masks


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
