"""Probes with closed forms, for all sites at once: ridge regression, linear discriminants, differences of means.

Mass-mean probing: Marks & Tegmark 2023 (arXiv:2310.06824).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from interp.probing.problems import Features, Fits, Problems, gram, in_units, indicators, is_few


def ridge(features: Features, problems: Problems, start: Fits | None = None) -> Fits:
    """Least squares with an L2 penalty on standardised features: sum of squares + penalty * |weight|^2.

    This is scikit-learn's Ridge after its StandardScaler. Classes are taken as indicators.
    """
    weight, bias = _empty(features, problems)
    for index, used in problems.by_examples():
        x, scaling = features.part(used)
        target = indicators(problems.y[index][:, used], problems.n_classes, x.dtype)
        mean = target.mean(1)
        right = torch.einsum("snd,qnk->sqdk", x, target - mean[:, None])
        for columns, penalty in _alike(problems.penalty[:, index].to(x).expand(len(x), -1)):
            solved = shrunk(x, right[:, columns].transpose(1, 2).flatten(2), penalty)
            solved = solved.unflatten(-1, (len(columns), -1)).permute(0, 2, 3, 1)
            here = index[columns]
            found = in_units(solved, mean[columns].expand(len(x), -1, -1), scaling, problems.n_classes)
            weight[:, here], bias[:, here] = found.weight, found.bias
    return Fits(weight, bias, problems.n_classes)


def lda(features: Features, problems: Problems, start: Fits | None = None) -> Fits:
    """Linear discriminants: classes of one covariance, shrunk towards a multiple of the identity.

    This is scikit-learn's LinearDiscriminantAnalysis (solver "lsqr") after its StandardScaler; the penalty, above 0 and
    below 1, is its `shrinkage`.
    """
    weight, bias = _empty(features, problems)
    for index, used in problems.by_examples():
        x, scaling = features.part(used)
        for i in index.tolist():
            means, share, within = _classes(x, problems.y[i, used], problems.n_classes)
            amount = problems.penalty[:, i].to(x).expand(len(x))
            level = within.square().mean((1, 2)).clamp(min=torch.finfo(x.dtype).eps)  # below, constant but for rounding
            # (1 - amount) * covariance + amount * level * identity, as a penalty on the sum of squares.
            factor = x.shape[1] / (1 - amount)
            solved = shrunk(within, means.mT, amount * level * factor).mT * factor[:, None, None]
            found = in_units(*_rule(means, solved, share, problems.n_classes), scaling, problems.n_classes)
            weight[:, i], bias[:, i] = found.weight[:, 0], found.bias[:, 0]
    return Fits(weight, bias, problems.n_classes)


def mass_mean(features: Features, problems: Problems, start: Fits | None = None) -> Fits:
    """The class means themselves as weights; their size is such that outputs are log odds, as in `lda`.

    The one number that this takes is the variance within classes along the differences of their means. There is no
    penalty; features are left in their own units, so that the direction is the difference of means.
    """
    weight, bias = _empty(features, problems)
    for index, used in problems.by_examples():
        x = features.x[:, used]
        for i in index.tolist():
            means, share, within = _classes(x, problems.y[i, used], problems.n_classes)
            centre = x.mean(1, keepdim=True)
            apart = means - centre
            size = apart.square().sum((1, 2))
            variance = (within @ apart.mT).square().mean(1).sum(-1) / size.clamp(min=torch.finfo(x.dtype).tiny)
            scale = 1 / variance.clamp(min=torch.finfo(x.dtype).eps * size.clamp(min=1e-12))
            towards, shift = _rule(apart, apart * scale[:, None, None], share, problems.n_classes)
            weight[:, i] = towards[:, 0]
            bias[:, i] = (shift - (towards @ centre.mT[:, None])[..., 0])[:, 0]
    return Fits(weight, bias, problems.n_classes)


def shrunk(
    x: Float[Tensor, "site example d"], right: Float[Tensor, "site d column"], penalty: Float[Tensor, " site"]
) -> Float[Tensor, "site d column"]:
    """(x' x + penalty)^-1 right."""
    return shrinking(x, right)(penalty)


def shrinking(
    x: Float[Tensor, "site example d"], right: Float[Tensor, "site d column"]
) -> Callable[[Float[Tensor, " site"]], Float[Tensor, "site d column"]]:
    """(x' x + penalty)^-1 right for any penalty, by way of the examples if there are fewer of them than features."""
    few = is_few(x)
    products, across = gram(x), x @ right if few else right
    eye = torch.eye(products.shape[-1], dtype=x.dtype, device=x.device)

    def solution(penalty: Float[Tensor, " site"]) -> Float[Tensor, "site d column"]:
        amount = penalty[:, None, None]
        solved = torch.cholesky_solve(across, torch.linalg.cholesky(products + amount * eye))
        return (right - x.mT @ solved) / amount if few else solved

    return solution


def _empty(features: Features, problems: Problems) -> tuple[Tensor, Tensor]:
    n_sites, _, width = features.x.shape
    shape = n_sites, len(problems), problems.n_outputs
    return features.x.new_empty(*shape, width), features.x.new_empty(*shape)


def _alike(penalty: Float[Tensor, "site problem"]) -> list[tuple[Tensor, Float[Tensor, " site"]]]:
    """The problems that have the same penalties at all sites, and these."""
    found, which = torch.unique(penalty, dim=1, return_inverse=True)
    return [((which == i).nonzero().flatten(), found[:, i]) for i in range(found.shape[1])]


def _classes(
    x: Float[Tensor, "site example d"], y: Tensor, n_classes: int
) -> tuple[Float[Tensor, "site class d"], Float[Tensor, " class"], Float[Tensor, "site example d"]]:
    """Means of the classes, their shares, and how far each example is from the mean of its class."""
    member = torch.nn.functional.one_hot(y.long(), n_classes).to(x)
    counts = member.sum(0)[:, None]
    means = torch.where(counts > 0, (member / counts.T.clamp(min=1)).T @ x, x.mean(1, keepdim=True))
    share = counts[:, 0].clamp(min=0.5) / len(y)  # of a class that is missing from a shuffle's fold half an example
    return means, share, x - means[:, y.long()]


def _rule(
    means: Float[Tensor, "site class d"],
    solved: Float[Tensor, "site class d"],
    share: Float[Tensor, " class"],
    n_classes: int,
) -> tuple[Float[Tensor, "site 1 out d"], Float[Tensor, "site 1 out"]]:
    """Gaussian classes as weights and biases: of two, the log odds of the second."""
    bias = share.log() - (means * solved).sum(-1) / 2
    if n_classes == 2:
        solved, bias = solved[:, 1:] - solved[:, :1], bias[:, 1:] - bias[:, :1]
    return solved[:, None], bias[:, None]
