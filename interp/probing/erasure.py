"""Take out of activations what a linear probe could read, and nothing else.

LEACE: Belrose et al. 2023 (arXiv:2306.03819). Iterative null-space projection (INLP): Ravfogel et al. 2020
(arXiv:2004.07667).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from interp.edits import Edit, Index
from interp.probing.problems import indicators
from interp.sites import Site


@dataclass(frozen=True)
class Eraser:
    """x -> x - (x - mean) @ read.T @ write.

    Attributes:
        read: What is measured, one row for each dimension that is erased.
        write: What is taken away for each; `read @ write.T` is the identity, so that erasing twice is erasing once.
        correlations: Canonical correlations of the features with the labels, one for each dimension.
    """

    mean: Float[Tensor, " d"]
    read: Float[Tensor, "k d"]
    write: Float[Tensor, "k d"]
    correlations: Float[Tensor, " k"]

    def __call__(self, x: Float[Tensor, "*rest d"]) -> Float[Tensor, "*rest d"]:
        """The same without what a linear probe could read."""
        mean, read, write = (part.to(x) for part in (self.mean, self.read, self.write))
        return x - (x - mean) @ read.T @ write

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

    Raises:
        ValueError: Features that are not finite; labels that are all alike, or not one for each example.
    """
    if len(x) != len(y) or not bool(x.isfinite().all()):
        raise ValueError(
            f"LEACE needs finite features and a label for each; given {tuple(x.shape)} and {len(y)} labels"
        )
    if len(y.unique()) < 2:
        raise ValueError(f"there is nothing to erase: all labels are {y[0].item()}")
    if n_classes is None:
        n_classes = 0 if y.is_floating_point() else int(y.max()) + 1
    wide = x.double()
    mean, target = wide.mean(0), indicators(y, n_classes, torch.float64)
    white, back = _whitening(wide - mean)
    labels, _ = _whitening(target - target.mean(0))
    cross = white @ (wide - mean).T @ (target - target.mean(0)) @ labels.T / len(x)
    left, sizes, _ = torch.linalg.svd(cross, full_matrices=False)
    kept = sizes > max(rtol * float(sizes[0]), len(x) * torch.finfo(torch.float64).eps)
    read, write = left[:, kept].T @ white, left[:, kept].T @ back
    dtype = x.dtype if x.dtype.itemsize >= 4 else torch.float32
    return Eraser(mean.to(dtype), read.to(dtype), write.to(dtype), sizes[kept].to(dtype))


def _whitening(centred: Float[Tensor, "example d"]) -> tuple[Float[Tensor, "r d"], Float[Tensor, "r d"]]:
    """The maps to and from coordinates that have unit covariance; directions without variance are left out."""
    _, sizes, rows = torch.linalg.svd(centred / len(centred) ** 0.5, full_matrices=False)
    kept = sizes > max(centred.shape) * torch.finfo(torch.float32).eps * sizes[0]
    return rows[kept] / sizes[kept, None], rows[kept] * sizes[kept, None]
