"""What goes through a softmax when queries or keys change: the exact change of the pattern, times a gradient.

The "QK fix" of AtP* (Kramár et al. 2024, arXiv:2403.00745): a linear estimate fails at attention that is saturated.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from interp.precision import widened


def by_query(
    scores: Float[Tensor, "batch head query key"],
    changed: Float[Tensor, "batch head query key"],
    gradient: Float[Tensor, "batch head query key"],
) -> Float[Tensor, "batch head query"]:
    """What each query's row contributes when all of its scores change.

    Args:
        gradient: With respect to the pattern.
    """
    scores, changed, gradient = map(widened, (scores, changed, gradient))
    return ((changed.softmax(-1) - scores.softmax(-1)) * gradient).sum(-1)


def by_key(
    scores: Float[Tensor, "batch head query key"],
    changed: Float[Tensor, "batch head query key"],
    gradient: Float[Tensor, "batch head query key"],
) -> Float[Tensor, "batch head key"]:
    """What each key contributes, summed over queries, when its score alone changes.

    Its weight becomes p' = sigmoid(score - log of the others' sum); the others share the rest as before, so that with m
    the mean gradient of the others the row gains (p' - p) (g - m).
    """
    scores, changed, gradient = map(widened, (scores, changed, gradient))
    pattern = scores.softmax(-1)
    top = scores.argmax(-1, keepdim=True)
    is_top = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, top, True)
    # Nothing is left of 1 - p where one key has all the weight: the others are added up without it.
    rest = scores.masked_fill(is_top, torch.finfo(scores.dtype).min)
    without = scores.logsumexp(-1, keepdim=True) + torch.log1p(-pattern)
    log_others = torch.where(is_top, rest.logsumexp(-1, keepdim=True), without)
    of_rest = (rest.softmax(-1) * gradient).sum(-1, keepdim=True)
    of_others = ((pattern * gradient).sum(-1, keepdim=True) - pattern * gradient) / (1 - pattern)
    mean = torch.where(is_top, of_rest, of_others)
    return (((changed - log_others).sigmoid() - pattern) * (gradient - mean)).sum(2)
