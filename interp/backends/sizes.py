"""The sizes of a Hugging Face model, as its configuration says, and whether its blocks are what that says."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from interp.backends.told import n_alike
from interp.shape import Shape


def shape_of(module: nn.Module) -> Shape:
    """The sizes of a Hugging Face causal language model."""
    config: Any = module.config.get_text_config()  # type: ignore[operator, union-attr]
    n_heads, d_model = _size(config, "num_attention_heads") or 0, config.hidden_size  # some have no attention
    return Shape(
        n_layers=config.num_hidden_layers,
        n_heads=n_heads,
        n_kv_heads=_size(config, "num_key_value_heads") or n_heads,
        d_model=d_model,
        d_head=_size(config, "head_dim") or d_model // max(n_heads, 1),
        d_vocab=module.get_input_embeddings().num_embeddings,  # type: ignore[operator]
        n_context=getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None),
        n_alike=n_alike(module),
    )


def _size(config: Any, name: str) -> int | None:
    """A size that a configuration may have; where layers differ, that of the first."""
    try:
        return getattr(config, name, None)
    except RuntimeError:  # transformers refuses to name one for all
        return getattr(config.per_layer_config[0], name, None)


def check_blocks(blocks: Sequence[nn.Module], n_layers: int, kind: str) -> None:
    """Refuse other blocks than a configuration says, and one module in two of them.

    Raises:
        ValueError: If so.
    """
    if len(blocks) != n_layers:
        raise ValueError(
            f"this {kind} has {len(blocks)} blocks, and its configuration says {n_layers}; set its "
            f"config.num_hidden_layers to {len(blocks)}"
        )
    owner: dict[nn.Module, int] = {}
    for i, block in enumerate(blocks):
        for part in block.modules():
            if next(part.parameters(), None) is not None and owner.setdefault(part, i) != i:
                raise ValueError(
                    f"blocks {owner[part]} and {i} of this {kind} share a {type(part).__name__}, so that a site of one "
                    f"is a site of the other; give each its own, by copy.deepcopy"
                )
