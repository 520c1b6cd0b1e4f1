"""Linear maps in closed form: ridge regression from sums that are streamed over any number of examples."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Weighted sums over examples of x, of y and of their products, in double precision; they add up."""

    weight: Float[Tensor, ""]
    x: Float[Tensor, " d"]
    y: Float[Tensor, " m"]
    xx: Float[Tensor, "d d"]
    xy: Float[Tensor, "d m"]

    @classmethod
    def of(
        cls, x: Float[Tensor, "row d"], y: Float[Tensor, "row m"], weight: Float[Tensor, " row"] | None = None
    ) -> "Moments":
        """The sums over some examples."""
        x, y = x.double(), y.double()
        w = torch.ones_like(x[:, 0]) if weight is None else weight.double()
        weighted = x * w[:, None]
        return cls(w.sum(), weighted.sum(0), (y * w[:, None]).sum(0), weighted.T @ x, weighted.T @ y)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.weight + other.weight, self.x + other.x, self.y + other.y, self.xx + other.xx, self.xy + other.xy
        )

    @property
    def mean(self) -> Float[Tensor, " d"]:
        """The mean of x."""
        return self.x / self.weight

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """The covariance of x."""
        return self.xx / self.weight - torch.outer(self.mean, self.mean)

    def ridge(self, penalty: float) -> tuple[Float[Tensor, "d m"], Float[Tensor, " m"]]:
        """The matrix and bias of `y = x @ matrix + bias` of least squared error; an infinite penalty leaves the bias.

        Args:
            penalty: On the matrix, as a share of the variance of each coordinate of x, so that no scale matters.
        """
        mean_y = self.y / self.weight
        if penalty == float("inf"):
            return torch.zeros_like(self.xy), mean_y
        covariance = self.covariance
        variance = covariance.diagonal()
        varies = variance > 1e-12 * self.xx.diagonal() / self.weight  # what is left of a constant is rounding
        spread = torch.where(varies, variance, 1).sqrt()
        correlation = covariance / spread / spread[:, None]
        damped = correlation + penalty * torch.eye(len(spread), device=spread.device, dtype=spread.dtype)
        shared = (self.xy / self.weight - torch.outer(self.mean, mean_y)) / spread[:, None]
        matrix = torch.linalg.solve(damped, shared) / spread[:, None]
        return matrix, mean_y - self.mean @ matrix
