"""See and change what goes through a Hugging Face model's attention, by way of transformers' attention interface.

The interface calls one registered function with the queries, keys and values of every block. Ours shows them to the
visits of the run in progress and hands them on to the implementation that the model was loaded with; only when scores
or patterns are asked for does it compute the softmax itself.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

Visits = Mapping[str, Callable[[Tensor], Tensor]]

_VISITS: WeakKeyDictionary[nn.Module, Visits] = WeakKeyDictionary()
_EXPLICIT = "eager"  # its masks are added to the scores


@contextmanager
def watched(model: nn.Module, visits: Mapping[nn.Module, Visits]) -> Iterator[None]:
    """For the time of a run, show each attention module's tensors to its visits; then leave the model as it was."""
    explicit = any(kind in ("scores", "pattern") for seen in visits.values() for kind in seen)
    found: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    configs = {id(config): config for config in found if hasattr(config, "_attn_implementation_internal")}
    before = {key: config._attn_implementation_internal for key, config in configs.items()}
    _VISITS.update(visits)
    try:
        for key, config in configs.items():
            config._attn_implementation_internal = _register(_EXPLICIT if explicit else before[key] or _EXPLICIT)
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]
        for module in visits:
            _VISITS.pop(module, None)


def must_watch(model: nn.Module, visits: Mapping[nn.Module, Visits]) -> bool:
    """Whether a run needs our attention: something is visited, or eager attention would lose float64."""
    config: Any = model.config
    return bool(visits) or (
        config._attn_implementation == _EXPLICIT and next(model.parameters()).dtype == torch.float64
    )


def _register(implementation: str) -> str:
    """The name of our function over an implementation, with that implementation's masks."""
    name = f"interp_{implementation}"
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(name, _over(implementation))
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return name


def _over(implementation: str) -> Callable:
    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        visits = _VISITS.get(module, {})
        query, key, value = (_show(visits, kind, x) for kind, x in zip("qkv", (query, key, value)))
        # transformers' eager attention takes the softmax in float32, where float64 masks overflow to NaN.
        double = implementation == _EXPLICIT and query.dtype == torch.float64
        if double or "scores" in visits or "pattern" in visits:
            out, weights = _explicit(module, query, key, value, mask, visits, **options)
        else:
            out, weights = _original(module, implementation)(module, query, key, value, mask, **options)
        return visits["z"](out) if "z" in visits else out, weights

    return attention


def _show(visits: Visits, kind: str, tensor: Tensor) -> Tensor:
    """Visit (batch, head, pos, d_head) as (batch, pos, head, d_head)."""
    return visits[kind](tensor.transpose(1, 2)).transpose(1, 2) if kind in visits else tensor


def _original(module: nn.Module, implementation: str) -> Callable:
    default: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    return ALL_ATTENTION_FUNCTIONS.get_interface(implementation, default)


def _explicit(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, visits: Visits, **options: Any
) -> tuple[Tensor, Tensor]:
    """Attention spelled out, with its scores and its pattern shown."""
    if options.get("s_aux") is not None:
        raise ValueError(f"{type(module).__name__} has attention sinks: its scores and pattern cannot be had")
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * (options.get("scaling") or query.shape[-1] ** -0.5)
    if cap := options.get("softcap"):
        scores = (scores / cap).tanh() * cap
    if mask is not None:
        # A row of padding is masked throughout: below the smallest number its softmax would be NaN.
        scores = (scores + mask[..., : key.shape[2]]).clamp(min=torch.finfo(scores.dtype).min)
    if "scores" in visits:
        scores = visits["scores"](scores)
    wide = torch.float32 if scores.dtype.itemsize < 4 else scores.dtype
    pattern = scores.softmax(-1, dtype=wide).to(query.dtype)
    if "pattern" in visits:
        pattern = visits["pattern"](pattern)
    return (pattern @ value).transpose(1, 2).contiguous(), pattern
