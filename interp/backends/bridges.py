"""What a TransformerLens bridge is made of: the Hugging Face model inside it, its weights under their own names."""

import copy
from collections.abc import Mapping
from threading import Lock
from typing import Any, cast

import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast
from transformers.initialization import no_init_weights

from interp.backends.watching import run, short_prompt
from interp.model import Model
from interp.trials import apart, tolerance

_MAKING = Lock()  # for meanwhile torch's own functions are replaced


def placeholder() -> Any:
    """A tokenizer for a bridge that will never tokenise: without one, or with a real one, it may ask the hub."""
    words = Tokenizer(WordLevel({"<pad>": 0}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<pad>")


def published(bridge: nn.Module) -> dict[str, Tensor]:
    """The weights under their published names; none if they cannot be found so, or were rewritten."""
    original: Any = bridge.original_model
    found = {name.replace("_original_component.", ""): tensor for name, tensor in original.state_dict().items()}
    weights = {name: found[name] for name in _names(original) if name in found}
    return weights if weights and _same_size(weights, bridge.state_dict()) else {}


def unbridged(bridge: nn.Module) -> nn.Module | None:
    """A Hugging Face model that shares the weights of a bridge; None where `published` finds none."""
    weights, original = published(bridge), cast(Any, bridge.original_model)
    if not weights:
        return None
    make: Any = type(original)
    with _MAKING, next(iter(weights.values())).device, no_init_weights():
        module: nn.Module = make(copy.deepcopy(original.config))
    module.load_state_dict(weights, assign=True)  # the tensors themselves, not copies
    return module.eval()


def let_go(bridge: nn.Module) -> None:
    """Let go of the graph of a run: the pattern that some parts keep holds it, and could not be copied."""
    for part in bridge.modules():
        if isinstance(kept := vars(part).get("_pattern"), Tensor):
            vars(part)["_pattern"] = kept.detach()


@torch.no_grad()
def check_same(model: Model, given: nn.Module) -> None:
    """Refuse a bridge that does not compute what the Hugging Face model that it was made of does.

    Raises:
        ValueError: If so.
    """
    found, wanted = model.run(short_prompt(given)).logits, run(given)
    error = apart(found, wanted)
    if not error <= tolerance(wanted.dtype, single=1e-3):
        raise ValueError(
            f"TransformerLens's bridge does not compute what this {type(given).__name__} does: its logits differ by "
            f"{error:.1%} of the largest; take backend='huggingface' or 'nnsight'"
        )


def _names(module: Any) -> list[str]:
    """The names of the weights of a Hugging Face model that was not taken apart; none for another."""
    if not hasattr(module, "config") or not hasattr(module, "get_input_embeddings"):
        return []
    with torch.device("meta"):
        return list(type(module)(copy.deepcopy(module.config)).state_dict())


def _same_size(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether weights are the same however they are split, up to zeros: a bridge adds biases of zero."""
    one, other = (torch.stack([_size(x) for x in side.values()]).sum(0) for side in (a, b))
    return torch.allclose(one, other, rtol=1e-9, atol=1e-9)


def _size(x: Tensor) -> Float[Tensor, " two"]:
    """Sum and sum of squares in double precision, without a copy in it."""
    x = x if x.is_floating_point() else x.double()
    return torch.stack([x.sum(dtype=torch.double), torch.linalg.vector_norm(x, dtype=torch.double) ** 2])
