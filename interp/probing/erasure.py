"""Take out of activations what a linear probe could read, and nothing else.

LEACE: Belrose et al. 2023 (arXiv:2306.03819). Iterative null-space projection (INLP): Ravfogel et al. 2020
(arXiv:2004.07667).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from interp.arguments import check_finite
from interp.arrays import Check
from interp.edits import Edit, Index
from interp.precision import widened
from interp.probing.crossval import fitted_on_all, losses, out_of_fold, prior_loss
from interp.probing.estimators import ESTIMATORS, Estimator, estimator_of
from interp.probing.problems import Features, Problems, indicators, log_probs
from interp.probing.splits import Groups, folds_of
from interp.sites import Site


@dataclass(frozen=True)
class Eraser:
    """x -> x - (x - mean) @ read.T @ write.

    Attributes:
        read: What is measured, one row for each dimension that is erased.
        write: What is taken away for each; `read @ write.T` is the identity, so that erasing twice is erasing once.
        strength: How much each dimension tells: its canonical correlation with the labels (LEACE), or how far a probe's
            held-out accuracy was above that of the majority (INLP).
    """

    mean: Float[Tensor, " d"]
    read: Float[Tensor, "k d"]
    write: Float[Tensor, "k d"]
    strength: Float[Tensor, " k"]

    def __repr__(self) -> str:
        return f"Eraser({len(self.read)} of {self.read.shape[1]} dimensions)"

    def __call__(self, x: Float[Tensor, "*rest d"]) -> Float[Tensor, "*rest d"]:
        """The same without what a linear probe could read.

        In single precision at least, and rounded once: what half precision rounds off is left, about a 500th of each
        activation, of which many examples can tell a little.
        """
        wide = widened(x)
        mean, read, write = (part.to(wide) for part in (self.mean, self.read, self.write))
        return (wide - (wide - mean) @ read.T @ write).to(x)

    @property
    def basis(self) -> Float[Tensor, "k d"]:
        """An orthonormal basis of what is taken away, as `edits.exchange` takes it."""
        return torch.linalg.qr(self.write.T)[0].T

    def edit(self, site: Site, **at: Index) -> Edit:
        """Erase at a site while a model runs."""
        return Edit(site, self, at)


@torch.no_grad()
def leace(
    x: Float[Tensor, "example d"], y: Shaped[Tensor, " example"], n_classes: int | None = None, rtol: float = 1e-3
) -> Eraser:
    """The least change, in the metric of the features' covariance, after which no linear probe does better than none.

    Features and labels are both whitened first, so that what counts as nothing is a correlation: it depends neither on
    how rare a class is nor on the features' units, unlike an absolute tolerance on covariances.

    Args:
        y: Classes, as integers from 0 on; or numbers.
        n_classes: By default, as many as there are; 0 for numbers.
        rtol: Dimensions whose canonical correlation is below this share of the largest are left alone.

    Returns:
        An eraser of no dimension, if features do not vary.

    Raises:
        ValueError: Features that are not finite; labels that are all alike, or not one for each example.
    """
    if len(x) != len(y):
        raise ValueError(f"LEACE needs a label for each example; given {tuple(x.shape)} and {len(y)} labels")
    check_finite(x)
    if len(y.unique()) < 2:
        raise ValueError(f"there is nothing to erase: all labels are {y[0].item()}")
    if n_classes is None:
        n_classes = 0 if y.is_floating_point() else int(y.max()) + 1
    wide = x.double()
    mean, target = wide.mean(0), indicators(y, n_classes, torch.float64)
    white, back = _whitening(wide - mean, float(wide.abs().max()))
    labels, _ = _whitening(target - target.mean(0))
    cross = white @ (wide - mean).T @ (target - target.mean(0)) @ labels.T / len(x)
    left, sizes, _ = torch.linalg.svd(cross, full_matrices=False)
    kept = sizes > max(rtol * float(sizes[:1].sum()), len(x) * torch.finfo(torch.float64).eps)
    read, write = left[:, kept].T @ white, left[:, kept].T @ back
    dtype = widened(x[:0]).dtype
    return Eraser(mean.to(dtype), read.to(dtype), write.to(dtype), sizes[kept].to(dtype))


@torch.no_grad()
def inlp(
    x: Float[Tensor, "example d"],
    y: Shaped[Tensor, " example"],
    groups: Groups = None,
    most: int = 20,
    seed: int = 0,
) -> Eraser:
    """Project out what a logistic probe reads, fit another to what is left, and so on, until there is nothing to read.

    It ends when a probe's held-out accuracy, over groups, is within two standard errors of the majority's.

    Args:
        y: Classes, as integers from 0 on.
        most: At most so many probes.

    Raises:
        ValueError: Numbers instead of classes; labels of which nothing can be read to begin with.
    """
    if y.is_floating_point():
        raise ValueError("INLP is of classes; for numbers use leace")
    n_classes, wide = int(y.max()) + 1, widened(x)
    fold, mean, rows = folds_of(y, n_classes, groups, seed=seed).to(x.device), wide.mean(0), wide[:0]
    majority = float(torch.bincount(y).max()) / len(y)
    margin = 2 * (majority * (1 - majority) / len(y)) ** 0.5
    gains: list[float] = []
    for _ in range(most):
        left = wide - (wide - mean) @ rows.T @ rows
        held = out_of_fold(Features(left[None]), y[None], n_classes, fold, ESTIMATORS["logistic"])
        gain = float((log_probs(held.outputs[0, 0]).argmax(-1) == y).double().mean()) - majority
        if gain <= margin:
            break
        fits = fitted_on_all(Features(left[None]), y, held.penalty[0, :, :1].amax(1), n_classes, ESTIMATORS["logistic"])
        weight = fits.weight[0, 0] if n_classes == 2 else fits.weight[0, 0, 1:] - fits.weight[0, 0, :1]
        # What was taken out before is not to come back by rounding.
        new = torch.linalg.qr((weight - weight @ rows.T @ rows).T)[0].T
        rows, gains = torch.cat([rows, new]), [*gains, *[gain] * len(new)]
    if not gains:
        raise ValueError("there is nothing to erase: a probe's held-out accuracy is that of the majority")
    return Eraser(mean, rows, rows, wide.new_tensor(gains))


@torch.no_grad()
def verify(
    x: Float[Tensor, "example d"],
    y: Shaped[Tensor, " example"],
    groups: Groups = None,
    erase: Callable[..., Eraser] = leace,
    penalty: float = 1.0,
    seed: int = 0,
) -> list[Check]:
    """Is what was erased gone? An eraser and then a fresh probe are fitted on all folds but one, and tried on that one.

    Args:
        y: Classes, as integers from 0 on.
        erase: Makes an eraser from features and labels.

    Returns:
        Checks: the fresh probe's accuracy against the majority's and two standard errors, its skill, how much is left
        of the covariance of features and labels; and, as no linear eraser sees to it, the skill of nearest neighbours.
    """
    n_classes, wide = int(y.max()) + 1, widened(x)
    fold = folds_of(y, n_classes, groups, seed=seed).to(x.device)
    linear, near = (wide.new_empty(len(y), n_classes if n_classes > 2 else 1) for _ in range(2))
    left = []
    for f in range(int(fold.max()) + 1):
        inside = fold == f
        eraser = erase(wide[~inside], y[~inside])
        erased = eraser(wide)
        problems = Problems(y[None], ~inside[None], wide.new_full((1, 1), penalty), n_classes)
        linear[inside] = ESTIMATORS["logistic"].fit(Features(erased[None]), problems)(erased[None])[0, 0, inside]
        near[inside] = _neighbours(n_classes).fit(Features(erased[None]), problems)(erased[None, inside])[0, 0]
        left.append(_covariance(erased[~inside], y[~inside]) / _covariance(wide[~inside], y[~inside]))
    majority = float(torch.bincount(y).max()) / len(y)
    bound = majority + 2 * (majority * (1 - majority) / len(y)) ** 0.5
    prior = prior_loss(y[None], n_classes, fold)[0]
    skills = [float(1 - losses(outputs, y, n_classes).double().sum() / prior.sum()) for outputs in (linear, near)]
    accuracy = float((log_probs(linear).argmax(-1) == y).double().mean())
    return [
        _row("accuracy of a fresh probe", accuracy, bound, "it must not beat the majority by two standard errors"),
        _row("skill of a fresh probe", skills[0], 0.02, "its log loss must be that of the class shares"),
        _row("covariance left with the labels", float(max(left)), 1e-2, "this is what linear probes read"),
        _row("skill of nearest neighbours", skills[1], 0.02, "what is not linear is not erased"),
    ]


def _neighbours(n_classes: int) -> Estimator:
    from sklearn.neighbors import KNeighborsClassifier

    return estimator_of(KNeighborsClassifier(15), n_classes)


def _covariance(x: Float[Tensor, "example d"], y: Shaped[Tensor, " example"]) -> float:
    target = indicators(y, int(y.max()) + 1, x.dtype)
    return float(((x - x.mean(0)).T @ (target - target.mean(0))).norm() / len(x))


def _row(name: str, value: float, threshold: float, why: str) -> Check:
    return Check.at_most(name, value, threshold, why, "arXiv:2306.03819")


def _whitening(
    centred: Float[Tensor, "example d"], largest: float = 0.0
) -> tuple[Float[Tensor, "r d"], Float[Tensor, "r d"]]:
    """The maps to and from coordinates that have unit covariance; directions without variance are left out.

    Args:
        largest: The size of what was centred, whose rounding is no variance.
    """
    _, sizes, rows = torch.linalg.svd(centred / len(centred) ** 0.5, full_matrices=False)
    noise = torch.finfo(centred.dtype).eps * len(centred) ** 0.5 * largest
    kept = sizes > torch.clamp(max(centred.shape) * torch.finfo(torch.float32).eps * sizes[0], min=noise)
    return rows[kept] / sizes[kept, None], rows[kept] * sizes[kept, None]
