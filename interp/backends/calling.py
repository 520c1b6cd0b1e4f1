"""What a Hugging Face model is called with."""

import inspect
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from interp.backends.families import FAMILIES, Family
from interp.backends.watching import close, run, short_prompt
from interp.shape import Cache
from interp.traces import Tokens


def arguments_of(
    tokens: Tokens, accepts: Collection[str], last_only: bool, cache: Cache | None, first: int = 0
) -> dict[str, Any]:
    """The arguments of a run, of those that the model's `forward` accepts.

    Args:
        first: The number of a prompt's first position.
    """
    held = 0 if cache is None else cache.held
    arguments: dict[str, Any] = {"input_ids": tokens.ids[:, held:], "attention_mask": tokens.mask, "use_cache": False}
    if cache is not None:
        arguments |= {cache_name(accepts): cache.store, "use_cache": True}
    optional = {"position_ids": tokens.positions[:, held:] + first} | ({"logits_to_keep": 1} if last_only else {})
    return arguments | {name: value for name, value in optional.items() if name in accepts}


def accepted(module: nn.Module, family: Family) -> set[str]:
    """The arguments that a model's `forward` is given, if there is something to give."""
    names = set(inspect.signature(module.forward).parameters)
    return names if family.whole else names - {"logits_to_keep"}


@torch.no_grad()
def first_position(module: nn.Module, accepts: Collection[str]) -> int:
    """The number that a model gives to a prompt's first position; RoBERTa counts on from that of padding.

    Families that have a row count from 0; others are run with numbers and without.

    Raises:
        ValueError: A model whose own numbers are neither.
    """
    config: Any = module.config
    if config.model_type in FAMILIES or "position_ids" not in accepts:
        return 0
    ids = short_prompt(module)
    wanted = run(module)
    for first in (0, (getattr(config, "pad_token_id", None) or 0) + 1):
        positions = torch.arange(first, first + ids.shape[1], device=ids.device)[None]
        with suppress(IndexError, RuntimeError):
            if close(run(module, position_ids=positions), wanted):
                return first
    raise ValueError(
        f"{type(module).__name__} numbers positions in a way of its own; numbered from 0, its logits differ"
    )


def cache_name(accepts: Collection[str]) -> str:
    """The argument by which `forward` accepts a cache, renamed in transformers 5.24; empty if it accepts none."""
    return next((name for name in ("cache", "past_key_values") if name in accepts), "")


def empty_cache(module: nn.Module) -> Cache:
    """A cache of the kind that transformers would make for a model."""
    return Cache(DynamicCache(config=module.config))  # type: ignore[arg-type]
