"""What a few tokens do not show of a Hugging Face model, and its configuration tells: the only words that are believed.

Everything else is found by running a model on short prompts.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn


def n_alike(module: nn.Module) -> int | None:
    """How many positions rotary embeddings are the same for (LongRoPE), if they are not for all."""
    config = _of_text(module)
    given = getattr(config, "rope_parameters", None) or {}
    of_kinds = [part for part in given.values() if isinstance(part, Mapping)]  # some have one for each kind of layer
    for rope in [given, *of_kinds]:
        if rope.get("rope_type") == "longrope":
            return rope.get("original_max_position_embeddings") or config.original_max_position_embeddings
    return None


def scales_by_place(module: nn.Module) -> bool:
    """Whether queries are scaled by their places among what a layer is given, as in Llama 4, and not by positions."""
    return bool(getattr(_of_text(module), "attn_temperature_tuning", False))


def chooses_keys(module: nn.Module) -> bool:
    """Whether attention of long prompts chooses keys by an index, as in DeepSeek V3.2."""
    return hasattr(_of_text(module), "index_topk")


def lends_keys(module: nn.Module) -> bool:
    """Whether some blocks are given the keys of others, as in Gemma 4, so that none can be called alone."""
    return bool(getattr(_of_text(module), "num_kv_shared_layers", False))


def _of_text(module: nn.Module) -> Any:
    config: Any = module.config
    return config.get_text_config()
