"""Is the best of all places better than the best under shuffled labels?

The statistic is that of a least-squares probe, which is linear in the labels: so all shuffles are columns of one
solution. Its penalties depend on the features alone. The largest value over penalties and places corrects for their
choice (Westfall & Young 1993).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from interp.probing.closed_forms import shrinking
from interp.probing.problems import Features, indicators
from interp.probing.scores import balanced
from interp.probing.splits import without

# Of the mean squared length of an example. The first leaves about half of the features' degrees of freedom and finds a
# faint direction among many; the last leaves nearly all, without which nothing is seen of what was learnt by heart.
PENALTIES = (1.0, 0.1, 0.01, 0.001)


@dataclass(frozen=True)
class Shuffles:
    """Held-out scores of least-squares probes under the best penalty: of the labels first, then of each shuffle.

    Attributes:
        correlation: Of predictions with indicators of the classes (mean over classes), or with the numbers.
        accuracy: Where the likeliest class is said; NaN for numbers.
        balanced: The mean over classes, where that class is said whose output is the furthest above its share.
    """

    correlation: Float[Tensor, "site label"]
    accuracy: Float[Tensor, "site label"]
    balanced: Float[Tensor, "site label"]


@torch.no_grad()
def shuffle_scores(
    features: Features, y: Shaped[Tensor, "label example"], n_classes: int, fold: Int[Tensor, " example"]
) -> Shuffles:
    """Scores of probes of several labellings of the same examples, the first of which are the labels themselves."""
    target = indicators(y, n_classes, features.x.dtype)
    n_sites, (n_labels, _, n_out) = len(features.x), target.shape
    products, squares = features.x.new_zeros(2, len(PENALTIES), n_sites, n_labels, n_out)
    wanted = torch.empty_like(target)
    right = torch.zeros(2, len(PENALTIES), n_sites, *y.shape, dtype=torch.bool, device=y.device)
    for f, used in enumerate(without(fold, [[f] for f in range(int(fold.max()) + 1)])):
        x, scaling = features.part(used)
        mean, tested = target[:, used].mean(1, keepdim=True), fold == f
        wanted[:, tested] = apart = target[:, tested] - mean
        solution = shrinking(x, x.mT @ (target[:, used] - mean).permute(1, 0, 2).flatten(1))
        size = x.square().sum((1, 2)) / x.shape[1]
        least = x.shape[1] * torch.finfo(x.dtype).eps  # below it, rounding decides where features depend on each other
        unseen = (features.x[:, tested] - scaling.mean) / scaling.spread
        for i, penalty in enumerate(PENALTIES):
            weight = solution((max(penalty, least) * size).clamp(min=1e-6))
            found = (unseen @ weight).unflatten(-1, (n_labels, n_out)).transpose(1, 2)
            products[i] += (found * apart).sum(2)
            squares[i] += found.square().sum(2)
            if n_classes:
                right[0, i, ..., tested] = _guess(found + mean, 0.5) == y[:, tested]
                right[1, i, ..., tested] = _guess(found, 0.0) == y[:, tested]
    sizes = squares.sqrt() * wanted.square().sum(1).sqrt()
    correlation, best = (products / sizes.clamp(min=torch.finfo(sizes.dtype).tiny)).mean(-1).max(0)
    if not n_classes:
        return Shuffles(correlation, *torch.full_like(correlation, torch.nan).expand(2, -1, -1))
    plain, even = torch.take_along_dim(right, best[None, None, ..., None], 1)[:, 0].to(correlation)
    return Shuffles(
        correlation, plain.mean(-1), torch.stack([balanced(even[:, i], labels) for i, labels in enumerate(y)], 1)
    )


def _guess(outputs: Float[Tensor, "site label example out"], threshold: float) -> Int[Tensor, "site label example"]:
    """The likeliest class; the second of two where the one output is above a threshold."""
    return (outputs[..., 0] > threshold).long() if outputs.shape[-1] == 1 else outputs.argmax(-1)


def p_values(correlation: Float[Tensor, "site label"]) -> Float[Tensor, " site"]:
    """p-values of the labels, which come first, against the largest value that each shuffle has at any site."""
    best = correlation[:, 1:].amax(0)
    return (1 + (best >= correlation[:, :1]).sum(-1)).double() / (1 + len(best))
