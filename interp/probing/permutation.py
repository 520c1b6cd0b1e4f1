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
        accuracy: Balanced over the classes; NaN for numbers.
    """

    correlation: Float[Tensor, "site label"]
    accuracy: Float[Tensor, "site label"]

    def p(self, best: Float[Tensor, " shuffle"]) -> Float[Tensor, " site"]:
        """p-values, given the largest correlation over all places under each shuffle."""
        exceeding = (best[None] >= self.correlation[:, :1]).sum(-1)
        return (1 + exceeding).double() / (1 + len(best))


@torch.no_grad()
def shuffle_scores(
    features: Features, y: Shaped[Tensor, "label example"], n_classes: int, fold: Int[Tensor, " example"]
) -> Shuffles:
    """Scores of probes of several labellings of the same examples, the first of which are the labels themselves."""
    target = indicators(y, n_classes, features.x.dtype)
    n_sites, (n_labels, _, n_out) = len(features.x), target.shape
    products, squares = features.x.new_zeros(2, len(PENALTIES), n_sites, n_labels, n_out)
    wanted = torch.empty_like(target)
    right = torch.zeros(len(PENALTIES), n_sites, *y.shape, dtype=torch.bool, device=y.device)
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
                right[i, ..., tested] = _guess(found, n_classes) == y[:, tested]
    sizes = squares.sqrt() * wanted.square().sum(1).sqrt()
    correlation, best = (products / sizes.clamp(min=torch.finfo(sizes.dtype).tiny)).mean(-1).max(0)
    if not n_classes:
        return Shuffles(correlation, torch.full_like(correlation, torch.nan))
    chosen = torch.take_along_dim(right, best[None, ..., None], 0)[0].to(correlation)
    return Shuffles(correlation, torch.stack([balanced(chosen[:, i], labels) for i, labels in enumerate(y)], 1))


def _guess(found: Float[Tensor, "site label example out"], n_classes: int) -> Int[Tensor, "site label example"]:
    """The likeliest class."""
    # Of indicators from which the shares of the classes were taken away, so that zero is the threshold.
    return (found[..., 0] > 0).long() if n_classes == 2 else found.argmax(-1)
