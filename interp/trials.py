"""Short runs in which it is tried what a model can do, before it is believed."""

from typing import Any

import torch
from torch import Tensor

from interp.traces import Tokens


def short_prompts(model: Any, n: int, width: int, padding: int = 0) -> Tokens:
    """Some prompts of a model's tokens, the first of them padded."""
    ids = (torch.arange(n * width, device=model.device).view(n, width) * 7 + 1) % model.shape.d_vocab
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    return Tokens(ids, mask)


def apart(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of the largest that is wanted."""
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny))


def tolerance(dtype: torch.dtype, single: float = 1e-4) -> float:
    """How far apart the same may be in a precision: in single and double precision, or in half."""
    return single if dtype.itemsize >= 4 else 5e-2
