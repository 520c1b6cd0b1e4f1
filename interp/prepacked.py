"""Matrices that are also kept in the order in which oneDNN reads them, for runs of few tokens (decision 15)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn

_ROWS = 16  # for which the order is chosen: those of a short prompt
_SAMPLE = 64  # elements that are compared at each use


@dataclass(frozen=True)
class _Copy:
    """A matrix or its transpose, prepacked; how often it had been changed by then, and some of its elements."""

    packed: Tensor
    changes: int
    sample: Tensor


@dataclass(frozen=True)
class _Kept:
    """The weight of a module, and what was made of it and of its transpose."""

    owner: ReferenceType[nn.Module]  # not the weight: torch swaps no tensors that anybody refers to weakly
    copies: dict[bool, _Copy] = field(default_factory=dict)

    @property
    def matrix(self) -> Tensor | None:
        """The weight as it is now."""
        owner = self.owner()
        return None if owner is None else owner._parameters.get("weight")

    def of(self, view: Tensor) -> Tensor | None:
        """The weight or its transpose as it is now, prepacked; None if this is another part of the same memory."""
        matrix = self.matrix
        if matrix is None or matrix.data_ptr() != view.data_ptr() or matrix.is_inference():
            return None
        straight = _lie_alike(view, matrix)
        if not straight and not _lie_alike(view, matrix.mT):
            return None
        copy, sample = self.copies.get(straight), _sample(matrix)
        if copy is None or copy.changes != matrix._version or not torch.equal(copy.sample, sample):
            packed = torch.ops.mkldnn._reorder_linear_weight(view.detach(), _ROWS)
            copy = self.copies[straight] = _Copy(packed, matrix._version, sample.clone())
        return copy.packed


_KEPT: dict[int, _Kept] = {}  # by address


def prepack(owners: Iterable[nn.Module]) -> None:
    """Keep the weights of these in oneDNN's order, too, from their first product on and for as long as they live.

    After a change it is made anew, if torch counts the change or it reaches one of some elements. What is written to a
    few elements past torch's count, as through `.data` or an array of numpy, is not seen.
    """
    for owner in owners:
        matrix = owner._parameters.get("weight")  # of a module that is pruned it is none
        if hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and matrix is not None and not matrix.is_inference():
            address = matrix.data_ptr()
            if address not in _KEPT or _KEPT[address].owner() is not owner:
                _KEPT[address] = _Kept(ref(owner, lambda gone, at=address: _forget(at, gone)))  # type: ignore[misc]


def forget(owners: Iterable[nn.Module]) -> None:
    """Keep the weights of these no longer, nor what has been moved elsewhere."""
    given = {id(owner) for owner in owners}
    for address, kept in [*_KEPT.items()]:
        matrix = kept.matrix
        if matrix is None or matrix.data_ptr() != address or id(kept.owner()) in given:
            _KEPT.pop(address, None)


def prepacked(matrix: Tensor) -> Tensor:
    """The matrix in oneDNN's order if it is kept so, itself otherwise."""
    kept = _KEPT.get(matrix.data_ptr()) if _KEPT else None
    found = kept.of(matrix) if kept else None
    return matrix if found is None else found


def _forget(address: int, gone: ReferenceType[nn.Module]) -> None:
    if address in _KEPT and _KEPT[address].owner is gone:
        del _KEPT[address]


def _lie_alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.stride() == other.stride()


def _sample(matrix: Tensor) -> Tensor:
    """Elements of many rows and columns."""
    return matrix.detach().reshape(-1)[:: matrix.numel() // _SAMPLE | 1]
