"""Baselines: what a site holds where the attributed part is absent."""

from collections.abc import Mapping
from numbers import Number
from typing import Any, TypeGuard

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.model import Model
from interp.sites import Site
from interp.tokenizing import Prompts
from interp.traces import Tokens, check_aligned

EMBED = Site("embed")

Baseline = Prompts | Tensor  # prompts, whose run holds it; or numbers that broadcast to the site's tensor
Baselines = Baseline | Mapping[str, Baseline]  # or several, by name


@torch.no_grad()
def mean_baseline(model: Model, prompts: Prompts, site: Site = EMBED) -> Float[Tensor, "..."]:
    """The mean of a site over all tokens of some prompts, without padding: a baseline that is on the data's scale.

    Args:
        prompts: What to average over: those to be attributed, or any others.

    Returns:
        A tensor of the site's axes after `pos`.

    Raises:
        ValueError: A site without a position axis.
    """
    if "pos" not in site.axes:
        raise ValueError(f"{site} has no position axis to average over; its axes are {', '.join(site.axes)}")
    trace = model.run(prompts, read=[site], last_only=True)
    return trace[site][trace.tokens.mask.bool()].mean(0)


_NO_PROMPT = frozenset({"zero", "zeros", "mean", "average", "corrupt", "random", "uniform", "pad", "mask", "unk"})
_MAY_BE = (
    "a baseline is attribution.mean_baseline(model, prompts), a tensor of floating numbers that broadcasts to what the "
    "site holds, or prompts aligned with those attributed"
)


def baseline_of(given: Any) -> Baseline:
    """A baseline as it is to be used: arrays of floating numbers as tensors, all else as it is.

    Raises:
        TypeError: What cannot be one, such as a number.
        ValueError: A word that is the name of a baseline elsewhere.
    """
    if isinstance(given, np.ndarray) and np.issubdtype(given.dtype, np.floating):
        return torch.from_numpy(given)
    if isinstance(given, str) and given.strip().lower() in _NO_PROMPT:
        raise ValueError(f"{given!r} would be read as a prompt; {_MAY_BE}")
    if given is None or isinstance(given, Number) or (isinstance(given, Mapping) and "input_ids" not in given):
        raise TypeError(f"{_MAY_BE}, not {type(given).__name__}")
    return given


def named(baseline: Baselines) -> dict[str, Baseline]:
    """Baselines by name; one alone is called "baseline".

    Raises:
        ValueError: A mapping that holds none.
    """
    if not isinstance(baseline, Mapping) or "input_ids" in baseline:
        return {"baseline": baseline_of(baseline)}
    if not baseline:
        raise ValueError("no baseline was given; pass prompts, a tensor, or several of them by name")
    return {name: baseline_of(one) for name, one in baseline.items()}


def is_value(baseline: Baseline) -> TypeGuard[Tensor]:
    """Whether a baseline is what a site holds, and not prompts."""
    return isinstance(baseline, Tensor) and baseline.is_floating_point()


@torch.no_grad()
def held(
    model: Model, tokens: Tokens, site: Site, value: Tensor, baseline: Baseline, fixed: Tensor | None = None
) -> Tensor:
    """What a site holds under a baseline, for each prompt; at padding, what it holds anyway.

    Args:
        value: What it holds in the run of the prompts.
        fixed: Further positions (batch, pos) at which it holds that under any baseline.

    Raises:
        ValueError: Prompts that are not aligned with those attributed; numbers that do not fit the site.
        TypeError: What is no baseline; see `baseline_of`.
    """
    baseline = baseline_of(baseline)
    if is_value(baseline):
        try:
            found = baseline.to(value).expand_as(value)
        except RuntimeError:
            shapes = f"{tuple(baseline.shape)} does not broadcast to {tuple(value.shape)}"
            raise ValueError(f"a baseline of {shapes}, which is {site} of these prompts") from None
    else:
        if isinstance(baseline, Tensor | np.ndarray) and baseline.shape[-1:] != tokens.ids.shape[1:]:
            raise ValueError(
                f"integers of {tuple(baseline.shape)} would be read as token ids, which are {tuple(tokens.ids.shape)} "
                f"here; {_MAY_BE}"
            )
        other = model.tokens(baseline)
        check_aligned(tokens, other)
        found = model.run(other, read=[site], last_only=True)[site]
    if "pos" not in site.axes:
        return found
    free = tokens.mask.bool() if fixed is None else tokens.mask.bool() & ~fixed
    return torch.where(free.reshape(*tokens.mask.shape, *(1,) * (value.ndim - 2)), found, value)
