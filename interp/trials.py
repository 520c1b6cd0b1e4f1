"""Short runs in which it is tried what a model can do, before it is believed."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from interp.traces import Tokens

T = TypeVar("T")


class Trials(Generic[T]):
    """What was found of models, for as long as nobody hooks something else into them."""

    def __init__(self, look: Callable[[Any], T]) -> None:
        self._look = look
        self._found: WeakKeyDictionary[Any, tuple[list[int], T]] = WeakKeyDictionary()

    def of(self, model: Any) -> T:
        """What is found of a model, looked for when it is first asked and when its hooks are others."""
        hooks = [key for part in model.module.modules() for key in (*part._forward_hooks, *part._forward_pre_hooks)]
        if (known := self._found.get(model)) is None or known[0] != hooks:
            known = self._found[model] = (hooks, self._look(model))
        return known[1]


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
