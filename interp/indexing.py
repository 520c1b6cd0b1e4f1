"""Indices of a site's tensor by axis name, as one index into it."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.traces import Tokens

Index = int | slice | Sequence[int] | Tensor | str


def index_of(axes: Sequence[str], at: Mapping[str, Index], tokens: Tokens) -> tuple:
    """The index, axis by axis: each entry of a list is taken with each of another, and a role with its prompt.

    Where there is a role or more than one list, the prompts come first, then the axes with lists, then the others.
    """
    if not any(isinstance(index, str) or _is_list(index) for index in at.values()):
        return tuple(at.get(axis, slice(None)) for axis in axes)  # as most edits of a sweep
    chosen: dict[str, Index] = dict(at)
    chosen |= {axis: tokens.spans[i] for axis, i in at.items() if isinstance(i, str) and i in tokens.spans}
    roles = [axis for axis, index in chosen.items() if isinstance(index, str)]
    lists = [axis for axis in axes if _is_list(chosen.get(axis))]
    if "batch" in axes and (roles or len(lists) > 1):
        rows = chosen.get("batch", slice(None))
        if isinstance(rows, slice):
            rows = torch.arange(len(tokens), device=tokens.ids.device)[rows]
        chosen["batch"] = rows
        for axis in roles:
            chosen[axis] = tokens.role(str(chosen[axis]))[rows]  # type: ignore[index]
        lists = [axis for axis in axes if _is_list(chosen.get(axis)) and axis not in roles]
    if len(lists) > 1:
        own = {axis: i for i, axis in enumerate(lists)} | {axis: lists.index("batch") for axis in roles}
        chosen |= {axis: _along(chosen[axis], i, len(lists), tokens.ids.device) for axis, i in own.items()}
    return tuple(chosen.get(axis, slice(None)) for axis in axes)


def plain(index: Any) -> Index:
    """An index as one of Python's numbers, slices and lists, the name of a role, or a tensor.

    Raises:
        TypeError: What is none.
        ValueError: A list of roles.
    """
    if isinstance(index, Integral) and not isinstance(index, bool):
        return int(index)
    if isinstance(index, str | slice) or (isinstance(index, Tensor) and index.ndim and not index.is_floating_point()):
        return index
    if hasattr(index, "__array__"):
        found = np.array(index.cpu() if isinstance(index, Tensor) else index)
        if found.dtype.kind in "iu" or (found.dtype.kind == "b" and found.ndim):
            return found if found.ndim else int(found)  # type: ignore[return-value]
    elif isinstance(index, Sequence):
        listed = [plain(i) if not isinstance(i, bool) else i for i in index]
        if any(isinstance(i, str) for i in listed):
            raise ValueError(f"one edit takes one role, not {list(index)}; give an edit for each")
        return listed  # type: ignore[return-value]
    raise TypeError(
        f"an index is a number, a slice, several numbers, or the name of a role, not {index!r}; an axis that is left "
        f"out is taken whole"
    )


def pooled(index: Any) -> Any:
    """An index of an axis, for a tensor in which it has one entry."""
    if isinstance(index, int):
        return 0
    if isinstance(index, slice):
        return slice(None)
    found = torch.as_tensor(index)
    return torch.zeros([1] * found.ndim, dtype=torch.long, device=found.device)


def _is_list(index: Index | None) -> bool:
    return isinstance(index, list | tuple | np.ndarray) or (isinstance(index, Tensor) and index.ndim > 0)


def _along(index: Index, axis: int, n_axes: int, device: torch.device) -> Tensor:
    """A list of indices along one of several axes."""
    found = torch.as_tensor(index, device=device)
    if found.dtype == torch.bool:
        found = found.nonzero()[:, 0]
    return found.view([-1 if i == axis else 1 for i in range(n_axes)])
