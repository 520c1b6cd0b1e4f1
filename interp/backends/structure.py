"""Find the sites of a model: by its family's row, or else by the structure of its modules.

Nothing that structure suggests is believed: one short run on the model itself must show that what attention and MLP
return is what the residual stream gains, in every block.
"""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from interp.backends.families import ATTENTION_KINDS, FAMILIES, Family, Layout, Tap, submodule
from interp.backends.sizes import shape_of
from interp.backends.told import chooses_keys
from interp.backends.watching import Seen, close, is_matrix, run

_TRANSFORMERS_OWN = (
    None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention"
)  # fmt: skip
_FOUND: WeakKeyDictionary[nn.Module, Family] = WeakKeyDictionary()


def layout_of(module: nn.Module) -> Layout:
    """The table of sites of a Hugging Face causal language model."""
    family = family_of(module)
    layout = Layout.of(family, module.config)
    if submodule(module, family.final_norm) is None:  # a configuration can leave it out
        last = f"{family.blocks}.{shape_of(module).n_layers - 1}"
        layout = replace(layout, taps={**layout.taps, "resid_final": Tap(last)})
    return layout


def family_of(module: nn.Module) -> Family:
    """The row of a model's family or, if it has none, what is found in the model; it is looked at once."""
    config: Any = module.config
    row = FAMILIES.get(config.model_type)
    if row is not None and getattr(config, "_attn_implementation", None) in _TRANSFORMERS_OWN:
        return row
    if module not in _FOUND:
        _FOUND[module] = _find(module) if row is None else _with_attention_of_its_own(module, row)
    return _FOUND[module]


def _with_attention_of_its_own(module: nn.Module, row: Family) -> Family:
    """A row without what somebody's own attention function does in another way."""
    from interp.backends.heads import NOT_A_SOFTMAX, spelled_out  # imports transformers

    blocks: Any = module.get_submodule(row.blocks)
    if spelled_out(module, [block.get_submodule(row.attention) for block in blocks], run(module)):
        return row
    return replace(row, lacks={**row.lacks, "scores": NOT_A_SOFTMAX, "pattern": NOT_A_SOFTMAX})


def _find(module: nn.Module) -> Family:
    """A row for a family that has none."""
    from interp.backends.heads import find_heads  # these two import transformers, which a row does without
    from interp.backends.projections import find_reads

    config: Any = module.config
    n_layers = config.get_text_config().num_hidden_layers
    names = {part: name for name, part in module.named_modules()}
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList) and len(part) == n_layers]
    if not lists:
        raise ValueError(
            f"no row for model type {config.model_type!r}, and no list of {n_layers} blocks was found in it; add "
            f"FAMILIES[{config.model_type!r}] to interp/backends/families.py"
        )
    if any(parameter.is_meta for parameter in module.parameters()):
        raise ValueError(
            f"no row for model type {config.model_type!r}, whose sites must be found by running it, and its weights "
            f"are not here; add FAMILIES[{config.model_type!r}] to interp/backends/families.py"
        )
    blocks = lists[0]
    seen = Seen.of(module)
    if strange := [i for i, block in enumerate(blocks) if block not in seen.entered or block not in seen.left]:
        raise ValueError(
            f"block {strange[0]} of {type(module).__name__} does not take and return its residual stream as tensors, "
            f"so that its sites cannot be found; add FAMILIES[{config.model_type!r}] to interp/backends/families.py"
        )
    numbers = [1.0, *(value for value in config.to_dict().values() if isinstance(value, float))]
    taps, stream = _parts(blocks, numbers, seen)
    neurons, lacks = _neurons(blocks, taps.get("mlp_out"), seen)
    shape = shape_of(module)
    heads = find_heads(module, blocks, taps.get("attn_out"), shape, seen)
    if chooses_keys(module):
        why = "its attention chooses keys by an index, and no longer does where it is looked into"
        heads = replace(heads, path=None, taps={}, lacks=dict.fromkeys(ATTENTION_KINDS, why), values=())
    norm = _final_norm(module, blocks, seen)
    parallel, told = stream == "parallel", taps and heads.values
    reads = find_reads(blocks, taps["attn_out"], parallel, heads, shape, seen) if told else None
    if seen.calls[norm] > 1:  # what it is given elsewhere is not the last stream
        taps["resid_final"] = Tap(f"{names[blocks]}.{n_layers - 1}")
    embed = module.get_input_embeddings()  # type: ignore[operator]
    made, entered = seen.left[embed], seen.entered[blocks[0]]
    if made.shape == entered.shape and close(made * (scale := _factor(entered, made, numbers)), entered):
        taps["embed"] = Tap(names[embed], scale=scale)
    return Family(
        embed=names[embed],
        blocks=names[blocks],
        final_norm=names[norm],
        attention=heads.path or "",
        taps={**taps, **neurons, **heads.taps},
        stream=stream,
        reads=reads,
        interface=heads.path is not None,
        adds_in_place=True,
        between=_between(module, blocks, norm, seen),
        lacks={**lacks, **heads.lacks},
        whole=_passes_whole(module, (*blocks, norm), seen),
    )


def _passes_whole(module: nn.Module, parts: Sequence[nn.Module], seen: Seen) -> bool:
    """Whether some parts are given every position where the logits of the last alone are asked for."""
    if "logits_to_keep" not in inspect.signature(module.forward).parameters:
        return True
    last = Seen.of(module, logits_to_keep=1)
    return all(last.entered[part].shape == seen.entered[part].shape for part in parts)


def _parts(blocks: nn.ModuleList, known: Sequence[float], seen: Seen) -> tuple[dict[str, Tap], str]:
    """What attention and MLP add, found as the pair of outputs that makes up the gain of every block's stream."""
    first = blocks[0]
    entered, left = seen.entered[first], seen.left[first]
    size = {
        name: seen.left[part]
        for name, part in first.named_modules()
        if name and part in seen.left and seen.left[part].shape == left.shape
    }
    parts = dict(first.named_modules())
    # A matrix, if its output is what is added, for what follows it may do nothing but drop out.
    for attn, mlp in product(sorted(reversed(size), key=lambda name: not is_matrix(parts[name])), repeat=2):
        if attn == mlp or not _before(attn, mlp):
            continue
        gain, total = left - entered, size[attn] + size[mlp]
        scale = _factor(gain, total, known)
        # In half precision, what is small beside the stream must still be small beside what it gains.
        if (total * scale - gain).abs().max() > 0.1 * gain.abs().max():
            continue
        if all(_adds_up(block, (attn, mlp), scale, seen) for block in blocks):
            middle = entered + size[attn] * scale
            after = [seen.entered[part] for part in first.modules() if part in seen.entered and part is not first]
            sequential = any(close(x, middle) for x in after)
            taps = {"attn_out": Tap(attn, scale=scale), "mlp_out": Tap(mlp, scale=scale)}
            return taps, "sequential" if sequential else "parallel"
    return {}, "unknown"


def _factor(gain: Tensor, total: Tensor, known: Sequence[float]) -> float:
    """What a sum must be multiplied by to be a gain: a number of the model's configuration, if it has such a one."""
    wide, square = gain.double(), total.double().square().sum()
    scale = float((wide * total).sum() / square) if square > 0 else 1.0
    tolerance = max(1e-4, 4 * torch.finfo(gain.dtype).eps) * abs(scale)
    return next((value for value in known if abs(value - scale) <= tolerance), scale)


def _before(attn: str, mlp: str) -> bool:
    """Whether two paths can be attention's and the MLP's output: a word of the first or of what it follows says so."""
    return ("att" in attn) and ("att" not in mlp or "norm" in mlp)


def _adds_up(block: nn.Module, paths: Sequence[str], scale: float, seen: Seen) -> bool:
    """Whether what the modules at some paths return, scaled, is what a block's stream gains."""
    total: Tensor = seen.entered[block]
    for path in paths:
        part = submodule(block, path)
        out = None if part is None else seen.left.get(part)
        if out is None or out.shape != total.shape:
            return False
        total = total + out * scale
    return close(total, seen.left[block])


def _neurons(blocks: nn.ModuleList, mlp_out: Tap | None, seen: Seen) -> tuple[dict[str, Tap], dict[str, str]]:
    """The input of the MLP's last matrix, and the output of its first; and why there are none."""
    mlp = _mlp_of(blocks[0])
    if mlp is None:
        return {}, {}
    inside = blocks[0].get_submodule(mlp).named_modules()
    matrices = [f"{mlp}.{name}" for name, part in inside if is_matrix(part) and part in seen.left]
    if len(matrices) < 2:
        return {}, {}
    up, down = matrices[0], matrices[-1]
    if not any(_same(blocks[0], down, path, seen) for path in (mlp, mlp_out.path if mlp_out else "")):
        why = "the last matrix of the MLP does not make all that it returns, as in mixtures of experts"
        return {}, {"mlp_pre": why, "mlp_post": why}
    sizes = [(_width(block, up, seen.left), _width(block, down, seen.entered)) for block in blocks]
    if any(None in pair for pair in sizes):
        why = "the MLPs of different blocks are built differently"
        return {}, {"mlp_pre": why, "mlp_post": why}
    taps = {"mlp_post": Tap(down, "input")}
    if all(first == last for first, last in sizes):  # else gate and input are one matrix
        taps["mlp_pre"] = Tap(up)
    return taps, {}


def _same(block: nn.Module, path: str, other: str, seen: Seen) -> bool:
    """Whether two modules return the same, however it is shaped."""
    a, b = (seen.left.get(block.get_submodule(name)) for name in (path, other))
    return a is not None and b is not None and a.numel() == b.numel() and close(a.reshape(b.shape), b)


def _width(block: nn.Module, path: str, tensors: dict[nn.Module, Tensor]) -> int | None:
    part = submodule(block, path)
    return tensors[part].shape[-1] if part in tensors else None


def _mlp_of(block: nn.Module) -> str | None:
    """The direct part of a block whose name says that it is the MLP; the shortest, for norms and dropouts say more."""
    words = ("mlp", "ffn", "feed_forward", "ff")
    return min(
        (name for name, _ in block.named_children() if any(word in name for word in words)), key=len, default=None
    )


def _final_norm(module: nn.Module, blocks: nn.ModuleList, seen: Seen) -> nn.Module:
    """The first module outside the blocks that is given what the last block returns, and returns as much."""
    inside = set(blocks.modules())
    left = seen.left[blocks[-1]]
    for candidate, entered in seen.entered.items():
        made = seen.left.get(candidate)
        if candidate not in inside and entered.equal(left) and made is not None and made.shape == left.shape:
            return candidate
    raise ValueError(f"no final norm was found in {type(module).__name__}; add a row to interp/backends/families.py")


def _between(module: nn.Module, blocks: nn.ModuleList, norm: nn.Module, seen: Seen) -> str:
    """The path of what makes of the final norm's output what the unembedding is given, if anything does."""
    head = module.get_output_embeddings()  # type: ignore[operator]
    inside = {*blocks.modules(), norm, head}
    if norm not in seen.left or head not in seen.entered or seen.left[norm].equal(seen.entered[head]):
        return ""
    for name, part in module.named_modules():
        if part in inside or part not in seen.left or part not in seen.entered:
            continue
        if seen.entered[part].equal(seen.left[norm]) and seen.left[part].equal(seen.entered[head]):
            return name
    return ""
