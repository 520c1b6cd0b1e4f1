"""What steering does to an activation. Sent to servers as source, so that nothing here may need jaxtyping."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interp.directions import along
from interp.sweep import Remembering

Change = Callable[[Tensor], Tensor]


def adding(unit: Tensor, length: float) -> Change:
    """Add a multiple of a unit vector."""
    return lambda x: x + (length * unit).to(x)


def stretching(unit: Tensor, factor: float) -> Change:
    """Multiply the projection on a unit vector: by 0 to project it out (directional ablation, arXiv:2406.11717)."""

    def change(x: Tensor) -> Tensor:
        fit = unit.to(x)
        # Twice for what rounding leaves of a large projection.
        out = x + (factor - 1) * along(x, fit) * fit
        return out if factor else out - along(out, fit) * fit

    return change


def setting(unit: Tensor, value: float) -> Change:
    """Set the projection on a unit vector."""
    return lambda x: x + (value - along(x, unit.to(x))) * unit.to(x)


def capping(unit: Tensor, most: float) -> Change:
    """Let the projection on a unit vector be no higher than a value."""
    return lambda x: x + (along(x, unit.to(x)).clamp(max=most) - along(x, unit.to(x))) * unit.to(x)


def turning(unit: Tensor, degrees: float) -> Change:
    """Turn towards a unit vector by an angle, in the plane of the two, at the same length."""

    def change(x: Tensor) -> Tensor:
        fit, angle = unit.to(x), torch.deg2rad(torch.tensor(degrees, dtype=x.dtype, device=x.device))
        level = along(x, fit)
        rest = x - level * fit
        length = rest.norm(dim=-1, keepdim=True)
        other = rest / length.clamp(min=torch.finfo(x.dtype).tiny)
        up, across = level * angle.cos() + length * angle.sin(), length * angle.cos() - level * angle.sin()
        return torch.where(length > 0, up * fit + across * other, x)

    return change


def fitting(change: Change, width: int, site: str) -> Change:
    """A change that refuses activations of another width than the vector's."""

    def check(x: Tensor) -> Tensor:
        if x.shape[-1] != width:
            shape = tuple(x.shape)
            raise ValueError(f"a vector of {width} entries does not fit the selected part of {site}, {shape}")
        return change(x)

    return check


def gated(change: Change, reader: Tensor, threshold: float, above: bool) -> Change:
    """A change of those tokens alone whose own projection on a reader is above a threshold, or below it."""

    def gate(x: Tensor) -> Tensor:
        reading = along(x, reader.to(x)) - threshold
        return torch.where(reading > 0 if above else reading <= 0, change(x), x)

    return gate


@dataclass
class Gate(Remembering):
    """A decision for each prompt, taken at one site and followed at another.

    Attributes:
        reader, threshold, above: Open for prompts that read above the threshold, or below it.
        open: What was decided in the run in progress.
    """

    reader: Tensor
    threshold: float
    above: bool
    open: list[Tensor] = field(default_factory=list)

    def decide(self, x: Tensor) -> Tensor:
        """Decide by the activation of each prompt, (batch, d), and leave it as it is."""
        reading = x @ self.reader.to(x) - self.threshold
        self.open[:] = [reading > 0 if self.above else reading <= 0]
        return x

    def follow(self, change: Change) -> Change:
        """A change of those prompts alone for which the gate is open."""
        return _Followed(self, change)

    def __deepcopy__(self, memo: dict) -> "Gate":
        return Gate(self.reader, self.threshold, self.above)


@dataclass
class _Followed(Remembering):
    gate: Gate
    change: Change

    def __call__(self, x: Tensor) -> Tensor:
        return torch.where(self.gate.open[0].reshape(-1, *(1,) * (x.ndim - 1)), self.change(x), x)
