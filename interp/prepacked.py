"""Matrices that are also kept in the order in which oneDNN reads them, for runs of few tokens (decision 15)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn

_ROWS = 16  # for which the order is chosen: those of a short prompt


@dataclass(frozen=True)
class _Kept:
    """A matrix, and what was made of it and of its transpose, with the number of changes that it had had by then."""

    matrix: ReferenceType[Tensor]
    made: dict[bool, tuple[int, Tensor]] = field(default_factory=dict)

    def of(self, view: Tensor) -> Tensor | None:
        """The matrix or its transpose as it is now, prepacked; None if this is another part of the same memory."""
        matrix = self.matrix()
        if matrix is None or matrix.data_ptr() != view.data_ptr():
            return None
        straight = _lie_alike(view, matrix)
        if not straight and not _lie_alike(view, matrix.mT):
            return None
        changes, packed = self.made.get(straight, (-1, view))
        if changes != matrix._version:
            packed = torch.ops.mkldnn._reorder_linear_weight(view.detach(), _ROWS)
            self.made[straight] = matrix._version, packed
        return packed


_KEPT: dict[int, _Kept] = {}  # by address


def prepack(matrices: Iterable[nn.Parameter]) -> None:
    """Keep these in oneDNN's order, too, from their first product on and for as long as they live.

    After a change in place by an operation of torch it is made anew; a change that torch does not count, as through
    `.data` or an array of numpy, is not seen.
    """
    for matrix in matrices:
        if hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and not matrix.is_inference():
            address = matrix.data_ptr()
            if address not in _KEPT or _KEPT[address].matrix() is not matrix:
                _KEPT[address] = _Kept(ref(matrix, lambda gone, at=address: _forget(at, gone)))  # type: ignore[misc]


def prepacked(matrix: Tensor) -> Tensor:
    """The matrix in oneDNN's order if it is kept so, itself otherwise."""
    kept = _KEPT.get(matrix.data_ptr()) if _KEPT else None
    found = kept.of(matrix) if kept else None
    return matrix if found is None else found


def _forget(address: int, gone: ReferenceType[Tensor]) -> None:
    if address in _KEPT and _KEPT[address].matrix is gone:
        del _KEPT[address]


def _lie_alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.stride() == other.stride()
