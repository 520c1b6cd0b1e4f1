"""Add up a metric's slope along a path, in a fixed number of steps or until nothing changes, prompt by prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.attribution.paths import Path, Steps, joined
from interp.quadrature import Rule, clenshaw_curtis, gauss_legendre, movement

STEEP = 100  # times the mean slope inside the path: there is a jump at the baseline
MISSED = 5e-2  # of the change in the metric: the sum is wrong
_PATIENCE = 128  # intervals after which a path that jumps at the baseline is given up
_SMALL = 0.05  # of the spread of a metric over prompts: a change below it is no scale for an error


@dataclass(frozen=True)
class Integral:
    """What each node contributes to the change in each metric along the path, and how sure that is.

    Attributes:
        total: Of all nodes and whatever else the site holds.
        at_start, at_end: The metric at both ends of the path.
        moved: How much the last doubling of the points moved any node, as a share of the largest; NaN without one.
        steep: How steep the metric is at the baseline, against the mean inside the path; NaN if unknown.
        steps: At how many points the slope was taken.
    """

    parts: Float[Tensor, "metric *over prompt"]
    total: Float[Tensor, "metric prompt"]
    at_start: Float[Tensor, "metric prompt"]
    at_end: Float[Tensor, "metric prompt"]
    moved: Float[Tensor, "metric prompt"]
    steep: Float[Tensor, "metric prompt"]
    steps: Int[Tensor, " prompt"]

    def error(self, floor: Float[Tensor, "metric #prompt"]) -> Float[Tensor, "metric prompt"]:
        """What is missing from the change in the metric, as a share of it or, if that is larger, of the floor."""
        change = self.at_end - self.at_start
        return (self.total - change).abs() / _positive(torch.maximum(change.abs(), floor))

    def floor(self, tolerance: float, dtype: torch.dtype) -> Float[Tensor, "metric 1"]:
        """A change too small to be the scale of an error: a twentieth of the spread over prompts, or rounding errors.

        Args:
            tolerance: What the error may be.
            dtype: In which the metric was computed.
        """
        spread = _SMALL * self.at_end.std(1, correction=0, keepdim=True)
        size = torch.maximum(self.at_end.abs(), self.at_start.abs()).amax(1, keepdim=True)
        return torch.maximum(spread, 2 * torch.finfo(dtype).eps / tolerance * size)


@dataclass(frozen=True)
class Quadrature:
    """How a path is integrated.

    Attributes:
        steps: A fixed number of points (Gauss-Legendre); None takes as many as each prompt needs.
        tolerance: Of the error of the sum. No node may move by more than `movement` allows.
        most: Intervals between points at which doubling ends.
        budget: Bytes that one pass may take, if not as many as `gradients.slopes` takes.
    """

    steps: int | None
    tolerance: float
    most: int
    budget: int | None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"the path needs at least one step; steps={self.steps} was given")
        if self.most < 4 or self.most & (self.most - 1):
            raise ValueError(f"points are doubled up to a power of two, from 4 on; most={self.most} was given")
        if not self.tolerance > 0:
            raise ValueError(f"the tolerance is a share above 0, such as 1e-3; {self.tolerance} was given")

    @property
    def points(self) -> int:
        """At how many points the slope may be taken."""
        return self.most + 1 if self.steps is None else self.steps

    def of(self, path: Path, advance: Callable[[int], None] = lambda _: None) -> Integral:
        """The integral along a path; `advance` is told of each point."""
        return self._adaptive(path, advance) if self.steps is None else self._fixed(path, self.steps, advance)

    def _fixed(self, path: Path, steps: int, advance: Callable[[int], None]) -> Integral:
        rule = gauss_legendre(steps)
        found = self._walk(path, rule.points, advance)
        start, end = path.ends(self.budget).unbind(1)
        unknown = torch.full_like(start, torch.nan)
        count = torch.full((len(path.tokens),), steps, device=start.device)
        parts, total = _add_up(rule, found.parts), _add_up(rule, found.slopes)
        return Integral(parts, total, start, end, unknown, unknown.clone(), count)

    def _adaptive(self, path: Path, advance: Callable[[int], None]) -> Integral:
        """By nested Clenshaw-Curtis; a prompt is done when its sum is right and no node moves any more."""
        n, rows = 2, torch.arange(len(path.tokens), device=path.end.device)
        found = self._walk(path, clenshaw_curtis(n).points, advance)
        whole = _integral(found, n, None)
        floor = whole.floor(self.tolerance, path.model.dtype)
        while len(rows) and 2 * n <= self.most:
            n *= 2
            found = found.between(self._walk(path, clenshaw_curtis(n).points[1::2], advance))
            now = _integral(found, n, whole.parts[..., rows])
            whole = _updated(whole, now, rows)
            error = now.error(floor)
            hopeless = (n >= _PATIENCE) & ((error > MISSED) & (now.steep > STEEP)).any(0)
            unsettled = ((error > self.tolerance) | (now.moved > movement(self.tolerance))).any(0)
            left = (unsettled & ~hopeless).nonzero()[:, 0]
            if len(left) < len(rows):
                rows, found, path = rows[left], found.among(left), path.among(left)
        return whole

    def _walk(self, path: Path, points: Sequence[float], advance: Callable[[int], None]) -> Steps:
        steps = []
        for step in path.steps(points, self.budget):
            steps.append(step)
            advance(1)
        return joined(steps)


def _integral(found: Steps, n: int, before: Tensor | None) -> Integral:
    """What the rule of n intervals makes of steps at its points."""
    rule = clenshaw_curtis(n)
    parts, total = _add_up(rule, found.parts), _add_up(rule, found.slopes)
    flat = lambda x: x.flatten(1, -2).abs().amax(1) if x.ndim > 2 else x.abs()
    moved = torch.full_like(total, torch.nan) if before is None else flat(parts - before) / _positive(flat(parts))
    steep = found.slopes[:, 0].abs() / _positive(found.slopes[:, 1:].abs().mean(1))
    count = torch.full(total.shape[1:], n + 1, device=total.device)
    return Integral(parts, total, found.values[:, 0], found.values[:, -1], moved, steep, count)


def _updated(whole: Integral, now: Integral, rows: Tensor) -> Integral:
    """The whole with what is known better of some prompts."""
    fields = {name: value.clone() for name, value in vars(whole).items()}
    for name, value in vars(now).items():
        fields[name][..., rows] = value
    return Integral(**fields)


def _add_up(rule: Rule, values: Float[Tensor, "metric point *rest"]) -> Tensor:
    weights = torch.tensor(rule.weights, dtype=torch.float64, device=values.device).to(values.dtype)
    return torch.einsum("mp...,p->m...", values, weights)


def _positive(values: Tensor) -> Tensor:
    return values.clamp(min=torch.finfo(values.dtype).tiny)
