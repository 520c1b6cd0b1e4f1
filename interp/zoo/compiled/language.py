"""Programs of selectors and aggregates for causal models, in the manner of RASP (Weiss et al. 2021, arXiv:2106.06981).

A variable is what every position holds at some step. A selector says, for each position, which earlier positions (its
own among them) it takes something from; an aggregate is what it takes. Preferences among the selected are as in RASP-L
(Zhou et al. 2023, arXiv:2310.16028). Where nothing is selected, a position takes what the start of the prompt holds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

Value = Any  # hashable
NUMBER = "number"  # the only value of a variable that is a number, held as its amount


@dataclass(frozen=True, eq=False)
class Variable:
    """What every position holds: one of some values, or none of them."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Source(Variable):
    """What a position is known by from the start: "tokens", "indices" or "start"."""


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
        """Of what is selected, take the last in this order alone."""
        degrees = {(value, None): i / (2 * len(order)) for i, value in enumerate(order)}
        return replace(self, terms=(*self.terms, Term(keys, None, degrees)), levels=len(order))

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


@dataclass(frozen=True, eq=False)
class Nearest(Variable):
    """Which of some levels, rising, a number is nearest to."""

    of: Variable
    levels: tuple[float, ...]


def tokens(alphabet: Sequence[str]) -> Source:
    """The word at each position."""
    return Source("tokens", tuple(alphabet))


def indices(n: int) -> Source:
    """The number of each word in its prompt, from 0."""
    return Source("indices", tuple(range(n)))


START = Source("start", (True,))


def select(keys: Variable, queries: Variable, predicate: Callable[[Value, Value], bool]) -> Select:
    """The positions that are in a relation to this one: `predicate(key, query)`."""
    table = {(k, q): 1.0 for k, q in product(keys.values, queries.values) if predicate(k, q)}
    return Select((Term(keys, queries, table),), 0.5)


def where(keys: Variable, predicate: Callable[[Value], bool]) -> Select:
    """The positions that hold some values."""
    return Select((Term(keys, None, {(k, None): 1.0 for k in keys.values if predicate(k)}),), 0.5)


def aggregate(name: str, chosen: Select, of: Variable, default: Value = None) -> Aggregate:
    """What is held where a selector points, or the default where it points nowhere; of several, a mixture."""
    values = of.values if default is None or default in of.values else (*of.values, default)
    starts = {} if default is None else {default: 1.0}
    return Aggregate(name, values, chosen, of, {value: {value: 1.0} for value in of.values}, starts)


def mean(name: str, chosen: Select, of: Variable, numbers: Mapping[Value, float]) -> Aggregate:
    """The mean over the selected positions of a number for each value; 0 where there are none."""
    return Aggregate(name, (NUMBER,), chosen, of, {NUMBER: numbers}, {})


def count(name: str, chosen: Select, most: int) -> Nearest:
    """How many positions are selected, 0 to `most`.

    The start of the prompt is attended to as well and is all that counts, so that the mean is 1 / (1 + count).
    """
    if chosen.levels > 1:
        raise ValueError(f"{name} counts what is selected; a preference would leave all but one out")
    with_start = replace(chosen, start=chosen.start + 0.5)
    inverse = Aggregate(f"1 / (1 + {name})", (NUMBER,), with_start, START, {NUMBER: {}}, {NUMBER: 1.0})
    return nearest(name, inverse, {n: 1 / (1 + n) for n in range(most + 1)})


def apply(name: str, function: Callable[..., Value], *inputs: Variable) -> Apply:
    """A function of what a position holds; it holds nothing where the function returns None or an input is missing."""
    results = {given: function(*given) for given in product(*(variable.values for variable in inputs))}
    table = {given: result for given, result in results.items() if result is not None}
    return Apply(name, tuple(dict.fromkeys(table.values())), inputs, table)


def nearest(name: str, number: Variable, levels: Mapping[Value, float]) -> Nearest:
    """The value whose level a number is nearest to; the start of the prompt has one too, so do not aggregate it."""
    ordered = sorted(levels.items(), key=lambda pair: pair[1])
    values, heights = zip(*ordered)
    return Nearest(name, values, number, heights)
