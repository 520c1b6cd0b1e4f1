"""See and change what goes through a Hugging Face model's attention, by way of transformers' attention interface.

The interface calls one registered function with the queries, keys and values of every block. Ours shows them to the
visits of the run in progress and hands them on to the implementation that the model was loaded with; only when scores
or patterns are asked for does it compute the softmax itself.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from interp.packing import Keys, Packing

Shown = Mapping[str, Callable[[Tensor], Tensor]]

_EXPLICIT = "eager"  # its masks are added to the scores
_PREFIX = "interp_"


@dataclass(frozen=True)
class Watch:
    """What happens in one attention module: visits by kind of site, and the packing of a sweep's rows."""

    visits: Shown = field(default_factory=dict)
    packing: Packing | None = None


_WATCHED: WeakKeyDictionary[nn.Module, Watch] = WeakKeyDictionary()
_NOTHING = Watch()


@contextmanager
def watched(model: nn.Module, watches: Mapping[nn.Module, Watch]) -> Iterator[None]:
    """For the time of a run, show each attention module's tensors to its visits; then leave the model as it was."""
    explicit = any({"scores", "pattern"} & set(watch.visits) for watch in watches.values())
    packing = any(watch.packing is not None for watch in watches.values())
    found: list[Any] = [vars(module).get("config") for module in model.modules()]
    configs = {id(config): config for config in found if hasattr(config, "_attn_implementation_internal")}
    before = {key: config._attn_implementation_internal for key, config in configs.items()}
    outer = {module: _WATCHED[module] for module in watches if module in _WATCHED}
    for module, watch in watches.items():  # a run may read what a recording around it watches too
        around = outer.get(module, _NOTHING)
        _WATCHED[module] = Watch({**around.visits, **watch.visits}, watch.packing or around.packing)
    try:
        for key, config in configs.items():
            original = (before[key] or _EXPLICIT).removeprefix(_PREFIX)
            readable = original in (_EXPLICIT, "sdpa") or not packing  # other masks are not (query, key)
            config._attn_implementation_internal = _register(_EXPLICIT if explicit or not readable else original)
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]
        for module in watches:
            _WATCHED.pop(module, None)
        _WATCHED.update(outer)


def must_watch(model: nn.Module, watches: Mapping[nn.Module, Watch]) -> bool:
    """Whether a run needs our attention: something is visited, or eager attention would lose float64."""
    config: Any = model.config
    return bool(watches) or (
        config._attn_implementation == _EXPLICIT and next(model.parameters()).dtype == torch.float64
    )


def _register(implementation: str) -> str:
    """The name of our function over an implementation, with that implementation's masks."""
    name = _PREFIX + implementation
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(name, _over(implementation))
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return name


def _over(implementation: str) -> Callable:
    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        watch = _WATCHED.get(module, _NOTHING)
        packing = watch.packing
        if packing is not None and packing.joined is not None:
            watch, attention_mask = _NOTHING, packing.joined.mask(attention_mask, query.dtype)
        return attend(watch, module, query, key, value, attention_mask, **options)

    def attend(
        watch: Watch,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        visits, packing = watch.visits, watch.packing
        query, key, value = (
            _show(watch, kind, x.transpose(1, 2)).transpose(1, 2) for kind, x in zip("qkv", (query, key, value))
        )
        packed = packing is not None and packing.prompts is not None
        if packing is not None and packed:
            query, key, value, mask = packing.attend(module, query, key, value)
        elif packing is not None:
            packing.recorded[module] = Keys(key, value, mask)
        # transformers' eager attention takes the softmax in float32, where float64 masks overflow to NaN.
        double = implementation == _EXPLICIT and query.dtype == torch.float64
        unfused = options.get("softcap") or options.get("s_aux") is not None
        if {"scores", "pattern"} & set(visits) or (unfused and packed) or (double and not packed):
            out, weights = _explicit(module, query, key, value, mask, visits, **options)
        elif packed:
            out, weights = _fused(query, key, value, mask, **options), None
        else:
            out, weights = _original(module, implementation)(module, query, key, value, mask, **options)
        return _show(watch, "z", packing.attended(out) if packing is not None and packed else out), weights

    return attention


def _show(watch: Watch, kind: str, tensor: Tensor) -> Tensor:
    """Visit a tensor (batch, pos, head, d_head), or that of packed tokens (1, token, head, d_head)."""
    if kind not in watch.visits:
        return tensor
    if watch.packing is None or watch.packing.prompts is None:
        return watch.visits[kind](tensor)
    return watch.packing.take(watch.visits[kind](watch.packing.grid(tensor)))


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Tensor:
    key, value = _for_queries(query, key), _for_queries(query, value)
    scale = options.get("scaling")
    out = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    return out.transpose(1, 2)


def _for_queries(query: Tensor, kept: Float[Tensor, "row kv_head pos d_head"]) -> Float[Tensor, "row head pos d_head"]:
    """Keys or values, each as often as there are heads of queries that share it."""
    groups = query.shape[1] // kept.shape[1]
    return kept if groups == 1 else kept.repeat_interleave(groups, dim=1)


def _original(module: nn.Module, implementation: str) -> Callable:
    default: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    return ALL_ATTENTION_FUNCTIONS.get_interface(implementation, default)


def _explicit(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, visits: Shown, **options: Any
) -> tuple[Tensor, Tensor]:
    """Attention spelled out, with its scores and its pattern shown; a sink takes its share, and is not shown."""
    key, value = _for_queries(query, key), _for_queries(query, value)
    scores = query @ key.transpose(2, 3) * (options.get("scaling") or query.shape[-1] ** -0.5)
    if cap := options.get("softcap"):
        scores = (scores / cap).tanh() * cap
    if mask is not None:
        # A row of padding is masked throughout: below the smallest number its softmax would be NaN.
        scores = (scores + mask[..., : key.shape[2]]).clamp(min=torch.finfo(scores.dtype).min)
    if "scores" in visits:
        scores = visits["scores"](scores)
    wide = torch.float32 if scores.dtype.itemsize < 4 else scores.dtype
    n_keys, sinks = scores.shape[-1], options.get("s_aux")
    if sinks is not None:  # one more score for each head, of a key without a value
        scores = torch.cat([scores, sinks.to(scores).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)], dim=-1)
    pattern = scores.softmax(-1, dtype=wide)[..., :n_keys].to(query.dtype)
    if "pattern" in visits:
        pattern = visits["pattern"](pattern)
    return (pattern @ value).transpose(1, 2).contiguous(), pattern
