"""Steering as edits: what to do along a vector, how much, and where.

Adding: Turner et al. 2023 (arXiv:2308.10248). Directional ablation: Arditi et al. 2024 (arXiv:2406.11717). Conditions:
Lee et al. 2024 (arXiv:2409.05907).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from interp.arguments import check_number
from interp.edits import Edit, Index
from interp.steering.operators import Change, Gate, adding, capping, fitting, gated, setting, stretching, turning
from interp.steering.vector import Vector, Vectors, many

# From the last token of the prompt on: each of these chooses a next token.
CHOOSING = slice(-1, None)

# What each operator does with a dose, whose length in the site's units is given too; and the dose that changes nothing.
_OPERATORS: dict[str, tuple[Callable[[Vector, float, Callable[[], float]], Change], float | None]] = {
    "add": (lambda v, dose, length: adding(v.unit, dose * length()), 0.0),
    "scale": (lambda v, dose, length: stretching(v.unit, dose), 1.0),
    "ablate": (lambda v, dose, length: stretching(v.unit, 1 - dose), 0.0),
    "clamp": (lambda v, dose, length: setting(v.unit, v.centre + dose * length()), None),
    "cap": (lambda v, dose, length: capping(v.unit, v.centre + dose * length()), None),
    "rotate": (lambda v, dose, length: turning(v.unit, dose), 0.0),
}
OPERATORS = tuple(_OPERATORS)


@dataclass(frozen=True)
class Condition:
    """Steer only where a vector reads above its threshold, or below it.

    Attributes:
        vector: Reads along its `reader`.
        at: The position of the prompt, an index or a role, that decides for the whole prompt and all that follows; or
            "token": each token decides for itself, which needs the site that is steered.
        threshold: Of the projection on the reader; by default the vector's own, set on held-out prompts.
        above: Whether to steer above or below it.
    """

    vector: Vector
    at: int | str = -1
    threshold: float | None = None
    above: bool = True

    @property
    def cut(self) -> float:
        """The threshold in force.

        Raises:
            ValueError: None is known.
        """
        if self.threshold is None and not self.vector.norm > 0:
            raise ValueError(f"the threshold at {self.vector.site} is not known of this vector; give threshold=")
        return self.vector.threshold if self.threshold is None else self.threshold


def steer(
    vectors: Vectors,
    dose: float = 1.0,
    op: str = "add",
    unit: str = "gap",
    where: Index | None = CHOOSING,
    when: Condition | None = None,
) -> list[Edit]:
    """Steering as edits, for `run`, `generate`, `sweep` and `applied` alike.

    Args:
        vectors: One; or several, such as one for each layer, all in the same manner.
        dose: How much: of "add", so many units along the writer; of "clamp" and "cap", so many units from the midpoint
            of the classes, so that 0.5 gaps is the mean of those with the concept; of "scale", the factor of the
            projection; of "ablate", the share of it that is taken away; of "rotate", degrees towards the writer, and
            past it.
        op: "add", "scale", "ablate" (the projection), "clamp" (set the projection), "cap" (let it be no higher) or
            "rotate" (at the same length).
        unit: "gap", the distance of the class means along the writer; "sigma", the standard deviation of the projection
            within them; "norm", the mean length of the activations.
        where: Positions as in `Edit`, absolute; by default the last token of the prompt and all that are generated;
            None for all positions.
        when: A condition.

    Returns:
        An edit for each vector, and before them one that decides, if a position does; none if the dose changes nothing.

    Raises:
        ValueError: An unknown operator or unit; a unit not known of a vector; a condition that cannot be seen in time;
            a dose that is no finite number.
    """
    check_number("a dose", dose)
    if op not in _OPERATORS:
        raise ValueError(f"unknown operator {op!r}; choose from {', '.join(OPERATORS)}")
    make, neutral = _OPERATORS[op]
    listed = many(vectors)
    if dose == neutral:
        return []
    gate = None if when is None or when.at == "token" else Gate(when.vector.reader, when.cut, when.above)
    edits = []
    for vector in listed:
        change = fitting(make(vector, dose, partial(vector.length, unit)), len(vector.writer), str(vector.site))
        if when is not None:
            _check_seen(when, vector)
            change = gate.follow(change) if gate else gated(change, when.vector.reader, when.cut, when.above)
        edits.append(Edit(vector.site, change, _at(vector, where), moves=op == "add" and when is None))
    if when is not None and gate is not None:
        edits.insert(0, Edit(when.vector.site, gate.decide, _at(when.vector, when.at)))
    return edits


def doses_of(given: Sequence[float]) -> list[float]:
    """Doses as numbers of Python.

    Raises:
        TypeError: What is no list of numbers.
        ValueError: None at all.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"doses are several numbers, such as [0, 1, 2], not {given!r}")
    listed = list(given)
    for dose in listed:
        check_number("a dose", dose)
    if not listed:
        raise ValueError("doses are at least one number; none was given")
    return [float(dose) for dose in listed]


def _at(vector: Vector, where: Index | None) -> dict[str, Index]:
    head: dict[str, Index] = {} if vector.head is None else {"head": vector.head}
    return head if where is None else {"pos": where, **head}


def _check_seen(when: Condition, vector: Vector) -> None:
    """Refuse a condition that is not known by the time it is needed."""
    site = when.vector.site
    if when.at == "token" and (site, when.vector.head) != (vector.site, vector.head):
        raise ValueError(f"a condition on each token is read where it is steered, at {vector.site}, not at {site}")
    if when.at in ("prompt", "generated"):
        raise ValueError(f"a condition is read at one position of the prompt or at each token, not at {when.at!r}")
    if site.order > vector.site.order:
        raise ValueError(f"a condition at {site} comes too late to steer {vector.site}; read it there or below")


@dataclass(frozen=True)
class Setting:
    """Vectors with a dose and a way to apply them; see `steer`."""

    vectors: Vectors
    dose: float = 1.0
    op: str = "add"
    unit: str = "gap"
    where: Index | None = field(default_factory=lambda: CHOOSING)  # a slice cannot be hashed
    when: Condition | None = None

    @property
    def edits(self) -> list[Edit]:
        """The steering as edits."""
        return steer(**vars(self))


def setting_of(given: Setting | Vectors) -> Setting:
    """A setting, or vectors as one of dose 1."""
    return given if isinstance(given, Setting) else Setting(many(given))
