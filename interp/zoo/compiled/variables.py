"""What programs are made of: variables, and selectors of positions; `language` makes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

Value = Any  # hashable
Held = Mapping[Value, float]  # how much of each value; of a clean run, 1 of one value or nothing
NUMBER = "number"  # the only value of a variable that is a number, held as its amount


@dataclass(frozen=True, eq=False)
class Variable:
    """What every position holds: one of some values, or none of them."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Source(Variable):
    """What a position is known by from the start: "tokens", "indices" or "start"; the same if it is made twice."""


@dataclass(frozen=True)
class Term:
    """A part of a selector's score: what a value at the key and a value at the query (None for any) add to it."""

    keys: Variable
    queries: Variable | None
    table: Mapping[tuple[Value, Value], float]


@dataclass(frozen=True)
class Select:
    """Which earlier positions are selected: those that satisfy every predicate; of them, the preferred.

    Attributes:
        terms: Each adds 1 where its predicate holds, or less than 1/2 by preference.
        start: What the start of the prompt scores: less than what is selected, more than what is not.
        levels: How many degrees of preference there are.
    """

    terms: tuple[Term, ...] = ()
    start: float = -0.5
    levels: int = 1

    def __and__(self, other: "Select") -> "Select":
        if self.levels > 1 and other.levels > 1:
            raise ValueError("both selectors have preferences; give them to the selector that the two make")
        return Select(self.terms + other.terms, self.start + other.start + 0.5, max(self.levels, other.levels))

    def preferring(self, keys: Variable, order: Sequence[Value]) -> "Select":
        """Of what is selected, take the last in this order alone; values that are not in it come before the first.

        Raises:
            ValueError: A selector that has a preference; an order of nothing, or of values that there are not.
        """
        if self.levels > 1:
            raise ValueError(
                "this selector has a preference; apply joins two variables whose pairs can be put in order"
            )
        check_values(f"an order of {as_variable(keys).name!r}", order, keys.values)
        levels = len(order) + 1
        degrees = {(value, None): i / (2 * levels) for i, value in enumerate(order, start=1)}
        return replace(self, terms=(*self.terms, Term(keys, None, degrees)), levels=levels)

    @property
    def gap(self) -> float:
        """By how much what is attended to outscores everything else."""
        return 1 / (2 * self.levels)


@dataclass(frozen=True, eq=False)
class Aggregate(Variable):
    """The mean, over the keys that are attended to, of what they hold.

    Attributes:
        reads: For each of its values, the values of `of` that count for it, and how much.
        starts: How much of each of its values the start of the prompt holds.
    """

    select: Select
    of: Variable
    reads: Mapping[Value, Mapping[Value, float]]
    starts: Mapping[Value, float]


@dataclass(frozen=True, eq=False)
class Apply(Variable):
    """A function of other variables at the same position."""

    inputs: tuple[Variable, ...]
    table: Mapping[tuple[Value, ...], Value]

    def held(self, given: Sequence[Held]) -> Held:
        """What is held where the inputs hold this."""
        held = dict.fromkeys(self.values, 0.0)
        for values, result in self.table.items():
            together = sum(one.get(value, 0.0) for one, value in zip(given, values)) - (len(values) - 1)
            held[result] += max(together, 0.0)
        return held


@dataclass(frozen=True, eq=False)
class Nearest(Variable):
    """Which of some levels, rising, a number is nearest to."""

    of: Variable
    levels: tuple[float, ...]

    def held(self, number: float) -> Held:
        """The nearest level; half-way between two, over half of the gap, a mixture of both."""
        passed = [1.0]
        for low, high in pairwise(self.levels):
            passed.append(min(max((number - (low + high) / 2) / ((high - low) / 2) + 0.5, 0.0), 1.0))
        return {value: here - beyond for value, here, beyond in zip(self.values, passed, [*passed[1:], 0.0])}


START = Source("start", (True,))


def at_start(variable: Variable) -> Held:
    """What the start of every prompt holds."""
    if variable is START:
        return {True: 1.0}
    if isinstance(variable, Aggregate):  # the start sees nothing but itself
        return added(variable.starts, read_of(variable.reads, at_start(variable.of)))
    if isinstance(variable, Apply):
        return variable.held([at_start(one) for one in variable.inputs])
    if isinstance(variable, Nearest):
        return variable.held(at_start(variable.of).get(NUMBER, 0.0))
    return {}


def read_of(reads: Mapping[Value, Held], held: Held) -> Held:
    """How much of each of its values an aggregate reads where a variable holds this."""
    return {own: sum(amount * held.get(one, 0.0) for one, amount in counted.items()) for own, counted in reads.items()}


def added(one: Held, other: Held) -> Held:
    """The sum, without what is nothing."""
    both = {value: one.get(value, 0.0) + other.get(value, 0.0) for value in (*one, *other)}
    return {value: amount for value, amount in both.items() if amount}


def as_variable(given: Any) -> Variable:
    if not isinstance(given, Variable):
        raise TypeError(f"a program is made of variables, such as tokens('abc'), not of {given!r}")
    return given


def discrete(given: Any) -> Variable:
    """A variable that holds one of some values."""
    if NUMBER in as_variable(given).values:
        raise ValueError(f"{given.name!r} is a number; nearest makes one of some values of it")
    return given


def check_values(what: str, given: Sequence[Value], known: Sequence[Value]) -> None:
    """Refuse values that are not among those of a variable, or none."""
    unknown = [value for value in given if value not in known]
    if unknown or not given or len({*given}) < len(given):
        raise ValueError(f"{what} is of different values among {list(known)}, not of {list(given)}")
