"""Which columns of a growing batch an edit addresses: positions are absolute, counted from the prompt."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from interp.edits import Edit, Index
from interp.traces import Tokens

# Sites where a new token's part of the tensor is all that its edit needs: attention reads older keys from the cache.
CACHEABLE = frozenset("embed resid_pre q z attn_out resid_mid mlp_pre mlp_post mlp_out resid_post resid_final".split())


def addressed(edits: Iterable[Edit], tokens: Tokens, held: int = 0) -> list[Edit]:
    """The edits that select something among the columns from `held` on, with indices into those columns.

    Positions are absolute: negative ones count from the end of the prompt, wherever the text ends by now, a slice
    without an end goes on into what is generated, and a role stays where it is. Edits that select none of the columns
    are left out.

    Args:
        tokens: The prompts and what was generated so far.
        held: How many columns are left out, because a cache holds them: none, or the whole prompt at least.
    """
    moved = (_moved(edit, tokens, held) for edit in edits)
    return [edit for edit in moved if edit is not None]


def _moved(edit: Edit, tokens: Tokens, held: int) -> Edit | None:
    width, along = tokens.ids.shape[1], edit.site.along
    given = width - tokens.generated
    at = {axis: _anchored(i, given) if axis in ("pos", "query", "key") else i for axis, i in edit.at.items()}
    edit = replace(edit, at=at)
    if along not in at:
        return edit
    chosen = at[along]
    if isinstance(chosen, str):
        covers = range(width)[tokens.spans[chosen]] if chosen in tokens.spans else range(given)  # roles lie in prompts
        return edit if any(column >= held for column in covers[-1:]) else None
    local = _inside(chosen, held, width)
    return None if local is None else replace(edit, at={**at, along: local})


def _anchored(index: Index, given: int) -> Index:
    """An index in which nothing is counted from the end of the text."""
    if isinstance(index, str):
        return index
    if isinstance(index, int):
        return index + given if index < 0 else index
    if isinstance(index, slice):
        start, stop = (None if i is None else max(i + given, 0) if i < 0 else i for i in (index.start, index.stop))
        return slice(start, stop, index.step)
    positions = torch.as_tensor(index)
    if positions.dtype == torch.bool:
        return positions.nonzero().flatten()
    return torch.where(positions < 0, positions + given, positions)


def _inside(index: Index, held: int, width: int) -> Index | None:
    """What an anchored index selects among columns, counted from the first of them; None if it is nothing."""
    if isinstance(index, int):
        return index - held if held <= index < width else None
    if isinstance(index, slice):
        columns = [column for column in range(*index.indices(width)) if column >= held]
        return slice(columns[0] - held, columns[-1] - held + 1, index.step) if columns else None
    assert isinstance(index, Tensor)  # what _anchored makes of lists
    columns_ = index[(index >= held) & (index < width)] - held
    return columns_ if columns_.numel() else None
