"""Many probes at once: which labels are fitted, on which examples, how strongly penalised; and the maps found."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import one_hot, pad

_CACHE = 2**22  # bytes of features that a processor's cache has room for
_BLOCK = 128  # rows of a symmetric product that are made at once


@dataclass(frozen=True)
class Problems:
    """Fits that share their examples, at every site.

    Attributes:
        y: What each is to predict: classes from 0 on, or numbers.
        used: The examples that each is fitted on.
        penalty: How strongly each is regularised, at every site or at each; in the unit of the estimator.
        n_classes: The number of classes; 0 if numbers are predicted.
    """

    y: Shaped[Tensor, "problem example"]
    used: Bool[Tensor, "problem example"]
    penalty: Float[Tensor, "#site problem"]
    n_classes: int

    def __len__(self) -> int:
        return len(self.y)

    @property
    def n_outputs(self) -> int:
        """One for two classes (its log odds) and for numbers, else one a class."""
        return self.n_classes if self.n_classes > 2 else 1

    def by_examples(self) -> Iterator[tuple[Int[Tensor, " some"], Bool[Tensor, " example"]]]:
        """The numbers of the problems that share their examples, and these."""
        sets, which = torch.unique(self.used, dim=0, return_inverse=True)
        for i, used in enumerate(sets):
            yield (which == i).nonzero().flatten(), used


@dataclass(frozen=True)
class Scaling:
    """Mean and spread of the features over the examples of each problem."""

    mean: Float[Tensor, "site problem d"]
    spread: Float[Tensor, "site problem d"]

    def within(self, outer: "Scaling") -> "Scaling":
        """Both scalings as one, this one after the outer."""
        return Scaling(outer.mean + self.mean * outer.spread, self.spread * outer.spread)


def scaling_of(x: Float[Tensor, "site example d"], used: Bool[Tensor, "problem example"]) -> Scaling:
    """Mean and standard deviation; features that do not vary are left at their scale."""
    sets, which = torch.unique(used, dim=0, return_inverse=True)
    weight = sets.to(x) / sets.sum(-1, keepdim=True)
    moments = [_moments(one, weight) for one in x]
    mean, spread = (torch.stack(part)[:, which] for part in zip(*moments))
    return Scaling(mean, spread)


def _moments(x: Float[Tensor, "example d"], weight: Float[Tensor, "set example"]) -> tuple[Tensor, Tensor]:
    """Mean and spread of each set, by a few examples at a time, which stay in the cache."""
    centre = x.mean(0)  # of large means, the squares would lose the variance
    mean, square = (x.new_zeros(len(weight), x.shape[1]) for _ in range(2))
    size = max(1, _CACHE // (4 * x[0].nbytes))
    for some, share in zip(x.split(size), weight.split(size, 1)):
        apart = some - centre
        mean += share @ apart
        square += share @ apart.square_()
    spread = (square - mean.square()).clamp(min=0).sqrt()
    constant = spread <= 4 * torch.finfo(x.dtype).eps ** 0.75 * (mean + centre).abs()
    return mean + centre, spread.masked_fill(constant | (spread == 0), 1.0)


def is_few(x: Float[Tensor, "*site example d"]) -> bool:
    """Whether there are fewer examples than features, so that products of examples are the smaller matrix."""
    return x.shape[-2] < x.shape[-1]


def gram(
    x: Float[Tensor, "site example d"], root: Float[Tensor, "site example"] | None = None
) -> Float[Tensor, "site m m"]:
    """Products of features, or of examples if there are fewer of those, each example times a root of its weight.

    One site at a time, which takes little memory, and a symmetric matrix by its lower half.
    """
    size = min(x.shape[1:])
    out = x.new_empty(len(x), size, size)
    for i, one in enumerate(x):
        rows = one if root is None else one * root[i, :, None]
        left = rows if is_few(rows) else rows.mT
        for start in range(0, size, _BLOCK):
            end = min(start + _BLOCK, size)
            out[i, start:end, :end] = left[start:end] @ left[:end].mT
            out[i, :start, start:end] = out[i, start:end, :start].mT
    return out


def inverse_of(products: Float[Tensor, "site m m"], ridge: float) -> Float[Tensor, "site m m"]:
    """The inverse of products to whose diagonal something is added, at least what rounding may have taken from them."""
    matrix = products.clone()
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    diagonal.add_((torch.finfo(matrix.dtype).eps * diagonal.sum(-1, keepdim=True)).clamp(min=ridge))
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))


@dataclass(frozen=True)
class Features:
    """What probes read, and what all fits to it share."""

    x: Float[Tensor, "site example d"]

    @cached_property
    def parts(self) -> "list[Features]":
        """Some sites at a time: on a processor as many as its cache holds, since fits pass over them often."""
        size = max(1, _CACHE // self.x[0].nbytes) if self.x.device.type == "cpu" else len(self.x)
        return [Features(some) for some in self.x.split(size)]

    @cached_property
    def scaling(self) -> Scaling:
        """Over all examples: for precision alone, since every problem has a scaling of its own."""
        return scaling_of(self.x, torch.ones(1, self.x.shape[1], dtype=torch.bool, device=self.x.device))

    @cached_property
    def scaled(self) -> Float[Tensor, "site example d"]:
        """The features under that scaling."""
        return (self.x - self.scaling.mean).div_(self.scaling.spread)

    @cached_property
    def gram(self) -> Float[Tensor, "site m m"]:
        """Products of features; or of examples, in double precision, if there are fewer of those."""
        return gram(self.scaled.double() if is_few(self.x) else self.scaled)

    def inverse(self, ridge: float, within: float = 1.0) -> Float[Tensor, "site m m"]:
        """The inverse of the products with a ridge; those of the last two are kept, since fits come back to them.

        Args:
            within: Let one that is kept do whose ridge is at most so many times as large.
        """
        for known, inverse in self._inverses.items():
            if ridge <= known <= within * ridge * (1 + 1e-6):
                return inverse
        if len(self._inverses) > 1:
            self._inverses.pop(next(iter(self._inverses)))
        self._inverses[ridge] = inverse_of(self.gram, ridge)
        return self._inverses[ridge]

    @cached_property
    def _inverses(self) -> dict[float, Tensor]:
        return {}

    @cached_property
    def _scalings(self) -> dict[bytes, Scaling]:
        return {}

    def among(self, used: Bool[Tensor, "problem example"]) -> Scaling:
        """The scaling of `scaled` over the examples of each problem; the same sets of examples come again and again."""
        key = used.cpu().numpy().tobytes()
        if key not in self._scalings:
            self._scalings[key] = scaling_of(self.scaled, used)
        return self._scalings[key]

    def part(self, used: Bool[Tensor, " example"]) -> tuple[Float[Tensor, "site used d"], Scaling]:
        """Some examples, scaled among themselves; and how."""
        scaling = scaling_of(self.x, used[None])
        return (self.x[:, used] - scaling.mean) / scaling.spread, scaling


@dataclass(frozen=True)
class Fits:
    """The linear maps found, in the units of the features.

    Attributes:
        n_classes: As in `Problems`.
    """

    weight: Float[Tensor, "site problem out d"]
    bias: Float[Tensor, "site problem out"]
    n_classes: int

    def __call__(self, x: Float[Tensor, "site example d"]) -> Float[Tensor, "site problem example out"]:
        """What each map gives for every example: log odds, unnormalised log probabilities, or numbers."""
        outputs = (self.weight.flatten(1, 2) @ x.mT).unflatten(1, self.weight.shape[1:3])
        return outputs.mT + self.bias[:, :, None]


def log_probs(outputs: Float[Tensor, "*rest out"]) -> Float[Tensor, "*rest class"]:
    """Log probabilities: of one output, as the log odds of the second class; else of one output a class."""
    return (pad(outputs, (1, 0)) if outputs.shape[-1] == 1 else outputs).log_softmax(-1)


def indicators(
    y: Shaped[Tensor, "*rest example"], n_classes: int, dtype: torch.dtype
) -> Float[Tensor, "*rest example out"]:
    """What outputs would be if they were indicators: of each class, of the second of two, or the numbers themselves."""
    if not n_classes:
        return y[..., None].to(dtype)
    return one_hot(y.long(), n_classes)[..., -(n_classes if n_classes > 2 else 1) :].to(dtype)


def in_units(
    weight: Float[Tensor, "site problem out d"],
    bias: Float[Tensor, "site problem out"],
    scaling: Scaling,
    n_classes: int,
) -> Fits:
    """Maps of scaled features as maps of the features themselves."""
    raw = weight / scaling.spread[:, :, None]
    return Fits(raw, bias - (raw @ scaling.mean[..., None])[..., 0], n_classes)
