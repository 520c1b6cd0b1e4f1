"""Whether padding changes numbers, tried once for each model before it is believed that it does not."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch

from interp.traces import Tokens
from interp.trials import apart, short_prompts, tolerance

_PADS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()  # by model
_BELIEVED: ContextVar[tuple[Any, ...]] = ContextVar("models whose padded prompts are run as they are", default=())
_STANDS_FOR: WeakKeyDictionary[Any, ReferenceType[Any]] = WeakKeyDictionary()  # a model for another, which may hold it


def check_padding(model: Any, tokens: Tokens) -> None:
    """Refuse padded prompts on a model that does not hide padding.

    Raises:
        ValueError: If so.
    """
    if not bool((tokens.mask == 0).any()):
        return
    longest, alike = tokens.ids.shape[1], model.shape.n_alike
    if alike is not None and longest > alike >= int(tokens.mask.sum(1).min()):
        raise ValueError(
            f"{model.name} has other rotary embeddings for prompts of more than {alike} tokens, so that shorter and "
            f"longer ones cannot be run together; run them apart"
        )
    tried = _STANDS_FOR.get(model.plain, lambda: None)() or model.plain
    if tried in _BELIEVED.get():
        return
    if tried not in _PADS:
        with tried.alone, believed(tried):
            _PADS[tried] = _holds(tried)
    if not _PADS[tried]:
        raise ValueError(
            f"{model.name} does not hide padding on {model.backend}, so that a padded prompt does not give the numbers "
            f"that it gives alone; run prompts of one length at a time"
        )


def stands_for(model: Any, other: Any) -> None:
    """Believe of a model what was found of another, whose weights it has; it may be first run with hooks in it."""
    _STANDS_FOR[model] = ref(other.plain)


@contextmanager
def believed(model: Any) -> Iterator[None]:
    """For a while, in this thread, let padded prompts be run as they are, so that they can be looked at."""
    before = _BELIEVED.set((*_BELIEVED.get(), model.plain))
    try:
        yield
    finally:
        _BELIEVED.reset(before)


@torch.no_grad()
def _holds(model: Any) -> bool:
    """Two prompts, one padded, against the padded one alone."""
    width = min(4, model.shape.n_context or 4)
    padding = max(width - 2, 0)
    tokens = short_prompts(model, 2, width, padding)
    both = model.run(tokens, last_only=True).logits[0, -1]
    alone = model.run(tokens.ids[:1, padding:], last_only=True).logits[0, -1]
    return apart(both, alone) <= tolerance(alone.dtype, single=1e-3)
