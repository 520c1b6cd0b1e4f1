"""Is the best of all places better than the best under shuffled labels?

The statistic is that of a least-squares probe, which is linear in the labels: so all shuffles are columns of one
solution. Its penalties depend on the features alone. The largest value over penalties and places corrects for their
choice (Westfall & Young 1993).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import one_hot

from interp.probing.closed_forms import shrinking
from interp.probing.problems import Features, indicators
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
    tallies = [_Tally() for _ in PENALTIES]
    for f, used in enumerate(without(fold, [[f] for f in range(int(fold.max()) + 1)])):
        x, scaling = features.part(used)
        mean = target[:, used].mean(1, keepdim=True)
        solution = shrinking(x, x.mT @ (target[:, used] - mean).permute(1, 0, 2).flatten(1))
        size = x.square().sum((1, 2)) / x.shape[1]
        least = x.shape[1] * torch.finfo(x.dtype).eps  # below it, rounding decides where features depend on each other
        tested = (features.x[:, fold == f] - scaling.mean) / scaling.spread
        for penalty, tally in zip(PENALTIES, tallies):
            weight = solution((max(penalty, least) * size).clamp(min=1e-6))
            found = (tested @ weight).unflatten(-1, (len(y), -1))
            tally.add(found.transpose(1, 2), (target - mean)[:, fold == f], y[:, fold == f].long(), n_classes)
    correlation, best = torch.stack([tally.correlation for tally in tallies]).max(0)
    if not n_classes:
        return Shuffles(correlation, torch.full_like(correlation, torch.nan))
    accuracy = torch.stack([tally.accuracy for tally in tallies])
    return Shuffles(correlation, accuracy.gather(0, best[None])[0])


class _Tally:
    """Sums over examples, fold by fold, from which the scores of one penalty are made."""

    def __init__(self) -> None:
        self._products = self._found = self._wanted = self._right = self._all = torch.zeros(())

    def add(
        self,
        found: Float[Tensor, "site label example out"],
        wanted: Float[Tensor, "label example out"],
        y: Int[Tensor, "label example"],
        n_classes: int,
    ) -> None:
        """Take in the predictions for a fold, what they should have been, and its labels."""
        self._products = self._products.to(found) + (found * wanted).sum(2)
        self._found = self._found.to(found) + found.square().sum(2)
        self._wanted = self._wanted.to(found) + wanted.square().sum(1)
        if n_classes:
            # Shares of the classes were taken away from what was wanted, so that zero is the threshold.
            guess = (found[..., 0] > 0).long() if n_classes == 2 else found.argmax(-1)
            member = one_hot(y, n_classes).to(found)
            self._right = self._right.to(found) + torch.einsum("slx,lxc->slc", (guess == y).to(found), member)
            self._all = self._all.to(found) + member.sum(1)

    @property
    def correlation(self) -> Float[Tensor, "site label"]:
        sizes = self._found.sqrt() * self._wanted.sqrt()
        return (self._products / sizes.clamp(min=torch.finfo(sizes.dtype).tiny)).mean(-1)

    @property
    def accuracy(self) -> Float[Tensor, "site label"]:
        return (self._right / self._all).nanmean(-1)  # over the classes that there are
