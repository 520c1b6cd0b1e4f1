"""Gradients of a metric under many sets of edits, each alone, by way of the sweep."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from interp.metrics import Metric
from interp.model import Model
from interp.recording import Recording
from interp.sweep import Cell, sweep
from interp.traces import Tokens

Leaves = Sequence[Tensor]  # tensors that a cell's edits were made of, with requires_grad

_BYTES = 2**28
_MOST = 128  # every edit of a pass copies the gradient of all of its rows


def gradients(
    model: Model, start: Tokens | Recording, metric: Metric, cells: Iterable[tuple[Cell, Leaves]]
) -> Iterator[list[Tensor]]:
    """Gradients of the metric, summed over prompts, with respect to each cell's leaves; zero where it ignores them.

    Prompts do not see each other: where a leaf has a row for each of them, so do exact gradients. Cells are taken from
    the iterable as they are needed, because a gradient keeps its whole graph.
    """
    cells, size = iter(cells), _at_once(model, start.tokens if isinstance(start, Recording) else start)
    while chunk := list(islice(cells, size)):
        values = sweep(model, start, [cell for cell, _ in chunk], [metric], grad=True, progress=False).values
        leaves = [leaf for _, own in chunk for leaf in own]
        found = iter(torch.autograd.grad(values.sum(), leaves, materialize_grads=True))
        for _, own in chunk:
            yield list(islice(found, len(own)))


def _at_once(model: Model, tokens: Tokens) -> int:
    """How many cells' graphs are kept at a time."""
    shape, n_pos = model.shape, tokens.ids.shape[1]
    row = n_pos * (24 * shape.d_model + 4 * shape.n_heads * n_pos) * shape.n_layers * model.dtype.itemsize
    return min(_MOST, max(1, _BYTES // (row * len(tokens))))
