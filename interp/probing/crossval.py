"""Nested cross-validation of many labels at every site at once; no fold is seen by anything that predicts it.

To choose a penalty for the fold left out, the other folds are left out one more at a time; the fits without two folds
serve both of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import softplus

from interp.probing.estimators import Estimator, Fitted
from interp.probing.problems import Features, Fits, Problems, log_probs
from interp.probing.splits import without

_HOPELESS = 1.1  # times the least loss


@dataclass(frozen=True)
class Held:
    """What probes say of examples that they were not fitted on.

    Attributes:
        outputs: As `Fits` gives them.
        penalty: The penalty chosen for each fold.
        weight: The weights of the fits without each fold.
        n_classes: 0 if numbers are predicted.
    """

    outputs: Float[Tensor, "site label example out"]
    penalty: Float[Tensor, "site label fold"]
    weight: Float[Tensor, "site label fold out d"]
    n_classes: int

    def loss(self, y: Shaped[Tensor, "label example"]) -> Float[Tensor, "site label example"]:
        """Log loss (nats), or squared error, of each example."""
        return losses(self.outputs, y, self.n_classes)


def losses(
    outputs: Float[Tensor, "*rest example out"], y: Shaped[Tensor, "*same example"], n_classes: int
) -> Float[Tensor, "*rest example"]:
    """Log loss (nats) of each example; of numbers, the squared error."""
    if not n_classes:
        return (outputs[..., 0] - y).square()
    if n_classes == 2:
        return softplus((1 - 2 * y.to(outputs)) * outputs[..., 0])
    logs = log_probs(outputs)
    return -logs.gather(-1, y.long().expand(logs.shape[:-1])[..., None])[..., 0]


@torch.no_grad()
def out_of_fold(
    features: Features,
    y: Shaped[Tensor, "label example"],
    n_classes: int,
    fold: Int[Tensor, " example"],
    estimator: Estimator,
    members: Bool[Tensor, "label example"] | None = None,
) -> Held:
    """Predictions for every example by a probe fitted on the other folds, its penalty chosen on those alone.

    Args:
        members: The examples that may be learnt from, for each set of labels; by default all.
    """
    members = torch.ones_like(y, dtype=torch.bool) if members is None else members
    held = [_Nested(part, y, n_classes, fold, estimator, members).held() for part in features.parts]
    outputs, penalty, weight = (torch.cat(x) for x in zip(*((one.outputs, one.penalty, one.weight) for one in held)))
    return Held(outputs, penalty, weight, n_classes)


@dataclass(frozen=True)
class _Nested:
    """Cross-validation of some sites, with another inside of it that chooses penalties."""

    features: Features
    y: Shaped[Tensor, "label example"]
    n_classes: int
    fold: Int[Tensor, " example"]
    estimator: Estimator
    members: Bool[Tensor, "label example"]

    @property
    def n_folds(self) -> int:
        return int(self.fold.max()) + 1

    def held(self) -> Held:
        """What is said of every fold by fits to the others."""
        penalty, near = self._choose()
        problems = self._problems([[f] for f in range(self.n_folds)], penalty.flatten(1))
        fits = self.estimator.fit(self.features, problems, near)
        outputs = fits(self.features.x).unflatten(1, (len(self.y), -1))
        fold = self.fold[None, None, None, :, None].expand(*outputs.shape[:2], 1, -1, outputs.shape[-1])
        weight = fits.weight.unflatten(1, (len(self.y), -1))
        return Held(outputs.gather(2, fold)[:, :, 0], penalty, weight, self.n_classes)

    def _problems(self, left_out: Sequence[Sequence[int]], penalty: Float[Tensor, "#site problem"]) -> Problems:
        """Every labelling, without each of these sets of folds."""
        used = (self.members[:, None] & without(self.fold, left_out)).flatten(0, 1)
        return Problems(self.y.repeat_interleave(len(left_out), 0), used, penalty, self.n_classes)

    def _choose(self) -> tuple[Float[Tensor, "site label fold"], Fits | None]:
        """The penalty for each fold: of the losses of the other folds, each predicted from the rest, the least.

        And a fit under it without this fold and another, which is near to that without this fold and has not seen it.
        """
        x, n_folds, n_labels = self.features.x, self.n_folds, len(self.y)
        grid = x.new_tensor(self.estimator.penalties)
        least = x.new_full((len(x), n_labels, n_folds), torch.inf)
        best = grid[0].expand_as(least)
        if len(grid) == 1:
            return best, None
        pairs = list(combinations(range(n_folds), 2))
        nearest = torch.tensor([next(i for i, pair in enumerate(pairs) if f in pair) for f in range(n_folds)])
        fits: Fits | Fitted | None = None
        near: Fits | None = None
        for i, penalty in enumerate(grid):
            problems = self._problems(pairs, penalty.expand(1, n_labels * len(pairs)))
            for fit in self.estimator.quick[0 if i > 1 else -1 :]:  # strong penalties are fitted as fast as looked at
                fits = fit(self.features, problems, fits)
                loss = losses(fits(x), problems.y, self.n_classes).unflatten(1, (n_labels, -1))
                table = _inner(loss * self.members[:, None], pairs, self.fold, n_folds)
                # Losses fall and then rise; they fall again, from a small rise, where a table is learnt by heart.
                if bool((table > _HOPELESS * least).all()):
                    return best, near
            assert fits is not None
            better = table < least
            least, best = torch.where(better, table, least), torch.where(better, penalty, best)
            near = _better(_at_folds(fits, n_labels, nearest), better.flatten(1), near)
        return best, near


def _at_folds(fits: "Fits | Fitted", n_labels: int, pairs: Int[Tensor, " fold"]) -> Fits:
    """For each fold, the fits without one of the pairs."""
    weight, bias = (x.unflatten(1, (n_labels, -1))[:, :, pairs].flatten(1, 2) for x in (fits.weight, fits.bias))
    return Fits(weight, bias, fits.n_classes)


def _better(fits: Fits, better: Bool[Tensor, "site problem"], others: Fits | None) -> Fits:
    """The fits that are better, else the others."""
    if others is None:
        return fits
    weight = torch.where(better[..., None, None], fits.weight, others.weight)
    return Fits(weight, torch.where(better[..., None], fits.bias, others.bias), fits.n_classes)


def _inner(
    loss: Float[Tensor, "site label pair example"], pairs: Sequence[tuple[int, int]], fold: Tensor, n_folds: int
) -> Float[Tensor, "site label fold"]:
    """For each fold, the loss of all others, each of them left out together with it."""
    total = loss.new_zeros(*loss.shape[:2], n_folds)
    for i, (a, b) in enumerate(pairs):
        total[..., a] += loss[:, :, i, fold == b].sum(-1)
        total[..., b] += loss[:, :, i, fold == a].sum(-1)
    return total


def prior_outputs(
    y: Shaped[Tensor, "label example"],
    n_classes: int,
    used: Bool[Tensor, "fold example"],
    fold: Int[Tensor, " example"],
) -> Float[Tensor, "label example out"]:
    """What is said of an example without looking at it: shares of the classes, or the mean, in the other folds."""
    weight = used.double()
    if not n_classes:
        mean = y.double() @ weight.mT / weight.sum(-1)
        return mean[:, fold, None]
    kinds = torch.nn.functional.one_hot(y.long(), n_classes).double()
    counts = torch.einsum("lnc,fn->lfc", kinds, weight) + 0.5  # a class may be missing from a shuffle's fold
    logs = (counts / counts.sum(-1, keepdim=True)).log()
    return (logs[..., 1:] - logs[..., :1] if n_classes == 2 else logs)[:, fold]


def prior_loss(
    y: Shaped[Tensor, "label example"], n_classes: int, fold: Int[Tensor, " example"]
) -> Float[Tensor, "label example"]:
    """The loss of each example if it is not looked at: what skill is measured against."""
    used = without(fold, [[f] for f in range(int(fold.max()) + 1)])
    return losses(prior_outputs(y, n_classes, used, fold), y, n_classes)


def fitted_on_all(
    features: Features, y: Shaped[Tensor, " example"], penalty: Float[Tensor, " site"], n_classes: int, estimator: Any
) -> Any:
    """A probe at each site, fitted on every example."""
    used = torch.ones(1, len(y), dtype=torch.bool, device=y.device)
    return estimator.fit(features, Problems(y[None], used, penalty[:, None], n_classes))
