"""What a Hugging Face model is called with."""

from collections.abc import Collection
from typing import Any

from torch import nn
from transformers import DynamicCache

from interp.shape import Cache
from interp.traces import Tokens


def arguments_of(tokens: Tokens, accepts: Collection[str], last_only: bool, cache: Cache | None) -> dict[str, Any]:
    """The arguments of a run, of those that the model's `forward` accepts."""
    held = 0 if cache is None else cache.held
    arguments: dict[str, Any] = {"input_ids": tokens.ids[:, held:], "attention_mask": tokens.mask, "use_cache": False}
    if cache is not None:
        arguments |= {cache_name(accepts): cache.store, "use_cache": True}
    optional = {"position_ids": tokens.positions[:, held:]} | ({"logits_to_keep": 1} if last_only else {})
    return arguments | {name: value for name, value in optional.items() if name in accepts}


def cache_name(accepts: Collection[str]) -> str:
    """The argument by which `forward` accepts a cache, renamed in transformers 5.24; empty if it accepts none."""
    return next((name for name in ("cache", "past_key_values") if name in accepts), "")


def empty_cache(module: nn.Module) -> Cache:
    """A cache of the kind that transformers would make for a model."""
    return Cache(DynamicCache(config=module.config))  # type: ignore[arg-type]
