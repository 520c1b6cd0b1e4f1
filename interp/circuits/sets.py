"""Sets of edges, as masks that are tried many in one pass."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.graph import Graph, Mask, zero_for_nan


def stacked(graph: Graph, circuits: Mapping[str, Mask], n_pos: int) -> Float[Tensor, "set *pos writer reader"]:
    """Masks as one tensor, once they are seen to fit."""
    if not circuits:
        raise ValueError("no set of edges was given; give some by name, such as {'all': graph(model).mask()}")
    masks = [graph.tensor_of(name, mask) for name, mask in circuits.items()]
    masks = [x if isinstance(given, Tensor) else zero_for_nan(x) for x, given in zip(masks, circuits.values())]
    for name, mask in zip(circuits, masks):
        graph.check(name, mask, n_pos)
    if len({mask.ndim for mask in masks}) > 1:
        raise ValueError("some sets of edges have positions and others have none; try them in two calls")
    return torch.stack(masks)


@dataclass(frozen=True)
class OneMore:
    """A set of edges with one more at a time; the masks are made as they are tried, as all may not fit in memory."""

    base: Float[Tensor, "writer reader"]
    writers: Int[Tensor, " edge"]
    readers: Int[Tensor, " edge"]

    def __len__(self) -> int:
        return len(self.writers)

    def split(self, size: int) -> Iterator[Float[Tensor, "edge writer reader"]]:
        for writers, readers in zip(self.writers.split(size), self.readers.split(size)):
            masks = self.base.repeat(len(writers), 1, 1)
            masks[torch.arange(len(writers)), writers, readers] = 1
            yield masks
