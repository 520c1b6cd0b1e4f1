"""How good held-out predictions are, beyond their losses."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from interp.probing.problems import gram, log_probs


def correct(
    outputs: Float[Tensor, "*rest example out"], y: Shaped[Tensor, "*same example"], n_classes: int
) -> Float[Tensor, "*rest example"]:
    """1 where the likeliest class is right, 0 elsewhere; of numbers, NaN."""
    if not n_classes:
        return torch.full_like(outputs[..., 0], torch.nan)
    return (log_probs(outputs).argmax(-1) == y.long()).to(outputs)


def balanced(right: Float[Tensor, "*rest example"], y: Shaped[Tensor, " example"]) -> Float[Tensor, "*rest"]:
    """The mean over classes of the share that is right."""
    return torch.stack([right[..., y == label].mean(-1) for label in y.unique()]).mean(0)


def stability(weight: Float[Tensor, "site fold out d"]) -> Float[Tensor, " site"]:
    """The mean over pairs of folds, and over outputs, of the size of the cosine between their weights."""
    unit = torch.nn.functional.normalize(weight.transpose(1, 2), dim=-1)
    cosines = (unit @ unit.mT).abs()
    n = weight.shape[1]
    return ((cosines.sum((-1, -2)) - cosines.diagonal(dim1=-2, dim2=-1).sum(-1)) / (n * (n - 1))).mean(-1)


def effective_dimension(x: Float[Tensor, "site example d"]) -> Float[Tensor, " site"]:
    """How many directions the standardised features vary in: (sum of variances)^2 / sum of squared variances."""
    z = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True).clamp(min=1e-12)
    products = gram(z)
    return products.diagonal(dim1=-2, dim2=-1).sum(-1).square() / products.square().sum((-1, -2)).clamp(min=1e-12)
