"""Is the best of all places better than the best under shuffled labels?

The statistic is that of a least-squares probe, which is linear in the labels: so all shuffles are columns of one
solution. Its penalty depends on the features alone, and the largest value over places corrects for their choice
(Westfall & Young 1993).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from interp.probing.closed_forms import shrunk
from interp.probing.problems import Features, indicators
from interp.probing.scores import balanced
from interp.probing.splits import without


@dataclass(frozen=True)
class Shuffles:
    """Held-out scores of least-squares probes: of the labels themselves first, then of each shuffle.

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
    scores = features.x.new_empty(len(features.x), *target.shape)
    centred = torch.empty_like(target)
    for f, used in enumerate(without(fold, [[f] for f in range(int(fold.max()) + 1)])):
        x, scaling = features.part(used)
        mean = target[:, used].mean(1, keepdim=True)
        centred[:, fold == f] = (target - mean)[:, fold == f]
        right = x.mT @ (target[:, used] - mean).permute(1, 0, 2).flatten(1)
        # As large as an example's squared length: about half of the features' degrees of freedom are left.
        penalty = x.square().sum((1, 2)) / x.shape[1]
        weight = shrunk(x, right, penalty.clamp(min=1e-6))
        tested = (features.x[:, fold == f] - scaling.mean) / scaling.spread
        scores[:, :, fold == f] = (tested @ weight).unflatten(-1, (len(y), -1)).transpose(1, 2)
    return Shuffles(_correlation(scores, centred), _accuracy(scores, y, n_classes))


def _correlation(scores: Float[Tensor, "site label example out"], target: Tensor) -> Float[Tensor, "site label"]:
    products = (scores * target).sum(2)
    sizes = scores.square().sum(2).sqrt() * target.square().sum(1).sqrt()
    return (products / sizes.clamp(min=torch.finfo(sizes.dtype).tiny)).mean(-1)


def _accuracy(
    scores: Float[Tensor, "site label example out"], y: Tensor, n_classes: int
) -> Float[Tensor, "site label"]:
    if not n_classes:
        return torch.full_like(scores[:, :, 0, 0], torch.nan)
    # Scores are of indicators from which the shares of the classes were taken away, so that zero is the threshold.
    guess = (scores[..., 0] > 0).long() if n_classes == 2 else scores.argmax(-1)
    right = (guess == y.long()).to(scores)
    return torch.stack([balanced(right[:, i], labels) for i, labels in enumerate(y)], 1)
