"""A steering vector: what writes a concept at a site, what reads it there, and what is known of both."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check
from interp.directions import unit_of
from interp.sites import Site

UNITS = ("gap", "sigma", "norm")


@dataclass(frozen=True)
class Vector:
    """A direction to write along and one to read along, at one site. A good reader is not a good writer.

    Attributes:
        site: Where it was read and is to be written.
        writer: Its length is the gap between the two classes along it: added once, it takes the mean of one class's
            projection to that of the other.
        reader: Of length one; a higher projection means more of the concept.
        mean: The midpoint of the two classes' means.
        sigma: The standard deviation of the projection on the writer's direction, within the classes.
        norm: The mean length of the activations.
        threshold: Of the projection on the reader, above which there is more of the concept than not.
        head: Which head, at sites that have them.
        at: The position read.
        how: What it was made of and by.
        checks: Whether to believe it.
    """

    site: Site
    writer: Float[Tensor, " d"]
    reader: Float[Tensor, " d"]
    mean: Float[Tensor, " d"]
    sigma: float
    norm: float
    threshold: float
    head: int | None = None
    at: int | str = -1
    how: Mapping[str, Any] = field(default_factory=dict)
    checks: Sequence[Check] = ()

    def __repr__(self) -> str:
        concept, head = self.how.get("concept") or "a direction", "" if self.head is None else f" of head {self.head}"
        counts = Counter(check.status for check in self.checks)
        checks = ", ".join(f"{n} {status}" for status, n in counts.items()) or "none"
        return (
            f"Vector({concept} at {self.site}{head}, read at {self.at}; gap {self.writer.norm():.3g}; checks: {checks})"
        )

    def __post_init__(self) -> None:
        unit_of(self.writer)  # refuses what is no direction
        unit_of(self.reader)
        check_place(self.site, self.head)

    @property
    def unit(self) -> Float[Tensor, " d"]:
        """The writer at length one."""
        return unit_of(self.writer)

    @property
    def centre(self) -> float:
        """The projection on the unit writer midway between the classes.

        Raises:
            ValueError: It is not known.
        """
        if not self.norm > 0:
            raise ValueError(
                f"the midpoint of the classes at {self.site} is not known of this vector; extract it from prompts, or "
                "give mean= and norm= by dataclasses.replace"
            )
        return float(self.mean @ self.unit)

    def length(self, unit: str) -> float:
        """How long one dose is: the gap between the classes, one sigma of the projection, or the activations' norm.

        Raises:
            ValueError: Another unit; one that is not known of this vector.
        """
        if unit not in UNITS:
            raise ValueError(f"unknown unit {unit!r}; choose from {', '.join(UNITS)}")
        length = {"gap": float(self.writer.norm()), "sigma": self.sigma, "norm": self.norm}[unit]
        if not length > 0:
            raise ValueError(f"the {unit} at {self.site} is not known of this vector; give doses in another unit")
        return length

    def read(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """How far activations lie above the threshold, along the reader."""
        return x @ self.reader.to(x) - self.threshold

    def reversed(self) -> "Vector":
        """The same concept with its sides exchanged."""
        return replace(self, writer=-self.writer, reader=-self.reader, threshold=-self.threshold)

    @classmethod
    def of(
        cls, site: Site, writer: Float[Tensor, " d"], head: int | None = None, how: Mapping[str, Any] | None = None
    ) -> "Vector":
        """A vector of which nothing but the writer is known, such as an SAE's feature or a probe's direction.

        It reads along itself; its doses are multiples of itself. Having no midpoint, it cannot clamp or cap.
        """
        unit = unit_of(writer)
        return cls(site, writer, unit, torch.zeros_like(unit), 0.0, 0.0, 0.0, head, how=how or {})


Vectors = Vector | Sequence[Vector]


def check_place(site: Any, head: int | None) -> None:
    """Refuse what cannot be steered: no site, one without positions, or all of its heads at once."""
    if not isinstance(site, Site):
        raise TypeError(f"a vector is of one Site, not of {type(site).__name__}; for several sites use extract_each")
    if "pos" not in site.axes:
        axes = ", ".join(site.axes)
        raise ValueError(f"{site} has no positions to steer; its axes are {axes}; use the stream, or z")
    if ("head" in site.axes) != (head is not None):
        wanted = "needs head=, the one to steer" if head is None else "has no heads; leave head= out"
        raise ValueError(f"a steering vector of {site} {wanted}")


def many(vectors: Any) -> Sequence[Vector]:
    """One vector or several as several.

    Raises:
        TypeError: Something that is no vector.
        ValueError: None at all.
    """
    listed = list(vectors) if isinstance(vectors, Iterable) and not isinstance(vectors, Tensor) else [vectors]
    if wrong := [v for v in listed if not isinstance(v, Vector)]:
        raise TypeError(
            f"a steering vector is a steering.Vector, not {type(wrong[0]).__name__}; "
            "make one by steering.extract, or of a tensor by steering.Vector.of(site, tensor)"
        )
    if not listed:
        raise ValueError("no steering vector was given; give one, or several for several layers")
    return listed
