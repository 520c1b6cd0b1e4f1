"""Gradients of metrics under many sets of edits, each alone, by way of the sweep."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from interp.metrics import Metric
from interp.model import Model
from interp.recording import Recording
from interp.sweep import Cell, sweep
from interp.traces import Tokens

Leaves = Sequence[Tensor]  # tensors that a cell's edits were made of, with requires_grad

BUDGET = 2**28
_MOST = 128  # every edit of a pass copies the gradient of all of its rows


@dataclass(frozen=True)
class Slope:
    """What metrics are under one cell, and how they change with what its edits were made of.

    Attributes:
        values: The metrics.
        gradients: Of each metric, or of their sum, summed over prompts, with respect to each leaf; zero where it
            ignores them.
    """

    values: Float[Tensor, "metric prompt"]
    gradients: Sequence[Sequence[Tensor]]


def slopes(
    model: Model,
    start: Tokens | Recording,
    metrics: Sequence[Metric],
    cells: Iterable[tuple[Cell, Leaves]],
    budget: int | None = None,
    together: bool = False,
) -> Iterator[Slope]:
    """Each cell's metrics and their gradients with respect to its leaves: one forward pass for all metrics.

    Prompts do not see each other: where a leaf has a row for each of them, so do exact gradients. Cells are taken from
    the iterable as they are needed, because a gradient keeps its whole graph.

    Args:
        budget: Bytes that the graphs kept at a time may take, though a cell is never split; by default 256 MiB.
        together: Take the gradient of the sum of all metrics alone, in one backward pass.

    Raises:
        ValueError: A metric that has no gradient.
    """
    tokens = start.tokens if isinstance(start, Recording) else start
    cells, size = iter(cells), _at_once(model, tokens, BUDGET if budget is None else budget)
    while chunk := list(islice(cells, size)):
        values = sweep(model, start, [cell for cell, _ in chunk], metrics, grad=True, progress=False).values
        leaves = [leaf for _, own in chunk for leaf in own]
        with torch.enable_grad():
            sums = values.sum((1, 2))
            totals = list(sums.sum(0, keepdim=True) if together else sums)
        found = [
            torch.autograd.grad(total, leaves, materialize_grads=True, retain_graph=i + 1 < len(totals))
            for i, total in enumerate(totals)
        ]
        parts = [iter(of_metric) for of_metric in found]
        for i, (_, own) in enumerate(chunk):
            yield Slope(values[:, i].detach(), [list(islice(part, len(own))) for part in parts])


def gradients(
    model: Model, start: Tokens | Recording, metric: Metric, cells: Iterable[tuple[Cell, Leaves]]
) -> Iterator[list[Tensor]]:
    """The gradients of one metric with respect to each cell's leaves; see `slopes`."""
    for slope in slopes(model, start, [metric], cells):
        yield list(slope.gradients[0])


def _at_once(model: Model, tokens: Tokens, budget: int) -> int:
    """How many cells' graphs are kept at a time."""
    shape, n_pos = model.shape, tokens.ids.shape[1]
    row = n_pos * (24 * shape.d_model + 4 * shape.n_heads * n_pos) * shape.n_layers * model.dtype.itemsize
    return min(_MOST, max(1, budget // (row * len(tokens))))
