"""Find the sites of a model: by its family's row, or else by the structure of its modules.

Nothing that structure suggests is believed: one short run on the model itself must show that what attention and MLP
return is what the residual stream gains.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from interp.backends.families import FAMILIES, Family, Layout, Tap
from interp.model import Shape


def layout_of(module: nn.Module) -> Layout:
    """The table of sites of a Hugging Face causal language model."""
    config: Any = module.config
    family = FAMILIES.get(config.model_type)
    return Layout.of(family or _find(module), config)


def shape_of(module: nn.Module) -> Shape:
    """The sizes of a Hugging Face causal language model."""
    config: Any = module.config.get_text_config()  # type: ignore[operator, union-attr]
    n_heads, d_model = config.num_attention_heads, config.hidden_size
    return Shape(
        n_layers=config.num_hidden_layers,
        n_heads=n_heads,
        n_kv_heads=getattr(config, "num_key_value_heads", None) or n_heads,
        d_model=d_model,
        d_head=getattr(config, "head_dim", None) or d_model // n_heads,
        d_vocab=module.get_input_embeddings().num_embeddings,  # type: ignore[operator]
        n_context=getattr(config, "max_position_embeddings", None),
    )


def _find(module: nn.Module) -> Family:
    """A row for a family that has none."""
    config: Any = module.config
    names = {submodule: name for name, submodule in module.named_modules()}
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList) and len(m) == config.num_hidden_layers]
    if not lists:
        raise ValueError(
            f"no row for model type {config.model_type!r}, and no list of {config.num_hidden_layers} blocks was found "
            f"in it; add FAMILIES[{config.model_type!r}] to interp/backends/families.py"
        )
    blocks = lists[0]
    seen = _watch(module, blocks)
    attention = _child(blocks[0], "att") or ""
    taps, stream = _parts(blocks[0], seen)
    return Family(
        embed=names[module.get_input_embeddings()],  # type: ignore[operator]
        blocks=names[blocks],
        final_norm=names[_final_norm(module, blocks, seen)],
        attention=attention,
        taps=taps,
        stream=lambda config: stream,
        interface=bool(attention) and _uses_interface(blocks[0].get_submodule(attention)),
        adds_in_place=True,
    )


_Seen = dict[nn.Module, tuple[Tensor | None, Tensor | None]]


def _watch(module: nn.Module, blocks: nn.ModuleList) -> _Seen:
    """The first tensor into and out of each module, in a run of four tokens."""
    seen: _Seen = {}

    def record(submodule: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        entered, left = next(_tensors((*args, *kwargs.values())), None), next(_tensors(output), None)
        seen.setdefault(submodule, (entered, None if left is None else left.clone()))  # some families add in place

    handles = [m.register_forward_hook(record, with_kwargs=True) for m in module.modules()]
    device = next(module.parameters()).device
    try:
        with torch.no_grad():
            module(input_ids=torch.arange(4, device=device)[None] + 1, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for member in value:
            yield from _tensors(member)


def _parts(block: nn.Module, seen: _Seen) -> tuple[dict[str, Tap], str]:
    """What attention and MLP add, found as the pair of outputs that makes up the gain of the residual stream."""
    entered, left = seen[block]
    assert entered is not None and left is not None  # a block takes and returns the stream
    streams = {name: seen[m][1] for name, m in block.named_modules() if name and m in seen}
    size = {name: out for name, out in streams.items() if out is not None and out.shape == left.shape}  # type: ignore[union-attr]
    for attn, mlp in product(reversed(size), repeat=2):
        if attn != mlp and _before(block, attn, mlp) and _close(entered + size[attn] + size[mlp], left):  # type: ignore[operator]
            taps = {"attn_out": Tap(attn), "mlp_out": Tap(mlp)} | _neurons(block, seen)
            middle = entered + size[attn]  # type: ignore[operator]
            after = [seen[m][0] for m in block.modules() if m in seen and m is not block]
            sequential = any(x is not None and x.shape == middle.shape and _close(x, middle) for x in after)
            return taps, "sequential" if sequential else "parallel"
    return {}, "unknown"


def _before(block: nn.Module, attn: str, mlp: str) -> bool:
    """Whether two paths can be attention's and the MLP's output: a word of the first or of what it follows says so."""
    return ("att" in attn) and ("att" not in mlp or "norm" in mlp)


def _neurons(block: nn.Module, seen: _Seen) -> dict[str, Tap]:
    """The input of the MLP's last matrix, and the output of its first."""
    mlp = _child(block, "mlp", "ffn", "feed_forward", "ff")
    if mlp is None:
        return {}
    matrices = [
        (f"{mlp}.{name}", m) for name, m in block.get_submodule(mlp).named_modules() if _is_matrix(m) and m in seen
    ]
    if len(matrices) < 2:
        return {}
    (first, up), (last, down) = matrices[0], matrices[-1]
    taps = {"mlp_post": Tap(last, "input")}
    if seen[up][1].shape == seen[down][0].shape:  # type: ignore[union-attr]  # else gate and input are one matrix
        taps["mlp_pre"] = Tap(first)
    return taps


def _is_matrix(module: nn.Module) -> bool:
    return getattr(module, "weight", None) is not None and bool(module.weight.ndim == 2)  # type: ignore[union-attr]


def _child(block: nn.Module, *words: str) -> str | None:
    """The direct part of a block whose name has one of some words in it, and which is no norm."""
    return next((n for n, m in block.named_children() if any(w in n for w in words) and "norm" not in n), None)


def _final_norm(module: nn.Module, blocks: nn.ModuleList, seen: _Seen) -> nn.Module:
    """The first module outside the blocks that is given what the last block returns."""
    inside = set(blocks.modules())
    left = seen[blocks[-1]][1]
    for candidate, (entered, _) in seen.items():
        if candidate not in inside and entered is not None and torch.equal(entered, left):  # type: ignore[arg-type]
            return candidate
    raise ValueError(f"no final norm was found in {type(module).__name__}; add a row to interp/backends/families.py")


def _uses_interface(attention: nn.Module) -> bool:
    module = type(attention).__module__
    return hasattr(__import__(module, fromlist=["_"]), "ALL_ATTENTION_FUNCTIONS")


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs().max() <= 1e-4 * b.abs().max()).item())
