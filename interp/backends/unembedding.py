"""What a Hugging Face model makes of its last residual stream."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.backends.families import Family, submodule
from interp.locks import lock_of
from interp.quick import quick


def unembed(
    module: nn.Module,
    family: Family,
    resid: Float[Tensor, "*batch d_model"],
    ids: Int[Tensor, "*batch n"] | None = None,
) -> Float[Tensor, "*batch vocab"]:
    """Final norm, unembedding, and what a family does to its logits after that; of some tokens, if they are given."""
    norm, between = submodule(module, family.final_norm), submodule(module, family.between)
    head: Any = module.get_output_embeddings()  # type: ignore[operator]
    with lock_of(module), quick(head):
        normed = resid if norm is None else norm(resid)
        normed = normed if between is None else between(normed)
        logits = head(normed) if ids is None else _some(head, normed, ids)
    return finished(logits, module.config)


def finished(logits: Float[Tensor, "*batch vocab"], config: Any) -> Float[Tensor, "*batch vocab"]:
    """What a family makes of its logits after the unembedding, by its configuration."""
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if scaling := getattr(config, "logits_scaling", None):
        logits = logits / scaling
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * (logits / cap).tanh()
    return logits


def _some(head: Any, normed: Tensor, ids: Tensor) -> Tensor:
    """A few outputs of the last matrix, other ones in each row."""
    if type(head) is not nn.Linear:
        return head(normed).gather(-1, ids)
    if int(ids.max()) >= len(head.weight):
        raise ValueError(f"token {int(ids.max())} is outside the model's output vocabulary of {len(head.weight)}")
    logits = torch.einsum("...d, ...nd -> ...n", normed, head.weight[ids])
    return logits if head.bias is None else logits + head.bias[ids]
