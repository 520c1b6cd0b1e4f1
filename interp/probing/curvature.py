"""The inverse of what the Hessian of a logistic regression is near to, for many problems at every site."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Index = Int[Tensor, " _"]


@dataclass(frozen=True)
class Curvature:
    """A matrix near the Hessian of the loss at every site, with each penalty that there is, inverted.

    Attributes:
        rows: If there are fewer examples than features, the features, each example times the root of its weight; in
            double precision, for under a small penalty Woodbury's identity is a difference of nearly equal numbers.
        penalties, inverses: With each penalty; of the matrix of examples by examples in that identity if there are
            fewer of those.
        bias: That of the biases.
    """

    rows: Float[Tensor, "site example d"] | None
    penalties: Sequence[float]
    inverses: Sequence[Float[Tensor, "site m m"]]
    bias: Float[Tensor, "site problem"]

    def part(self, sites: Index, problems: Index) -> "Curvature":
        """That of some of the problems at some of the sites."""
        rows = None if self.rows is None else self.rows[sites]
        inverses = [inverse[sites] for inverse in self.inverses]
        return Curvature(rows, self.penalties, inverses, some_of(self.bias, sites, problems))

    def solve(self, gradient: Float[Tensor, "site problem out p"], penalty: Float[Tensor, "site problem"]) -> Tensor:
        """The inverse times the gradient."""
        weights = torch.empty_like(gradient[..., :-1])
        for one, inverse in zip(self.penalties, self.inverses):
            here = penalty == one
            columns = here.any(0).nonzero().flatten()
            if not len(columns):
                continue
            part = gradient[:, columns, :, :-1]
            right = part.flatten(1, 2)
            if self.rows is None:
                solved = right @ inverse
            else:
                wide = right.double()
                solved = ((wide - (wide @ self.rows.mT) @ inverse @ self.rows) / one).to(right)
            weights[:, columns] = torch.where(here[:, columns, None, None], solved.view_as(part), weights[:, columns])
        return torch.cat([weights, gradient[..., -1:] / self.bias[..., None, None]], -1)


def some_of(x: Tensor, sites: Index, problems: Index) -> Tensor:
    """Some of the problems at some of the sites."""
    return x[sites[:, None], problems]
