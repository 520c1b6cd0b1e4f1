"""Programs of selectors and aggregates for causal models, in the manner of RASP (Weiss et al. 2021, arXiv:2106.06981).

A variable is what every position holds at some step. A selector says, for each position, which earlier positions (its
own among them) it takes something from; an aggregate is what it takes. Preferences among the selected are as in RASP-L
(Zhou et al. 2023, arXiv:2310.16028). Where nothing is selected, a position takes what the start of the prompt holds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import isfinite

from interp.zoo.compiled.variables import (
    NUMBER,
    START,
    Aggregate,
    Apply,
    Held,
    Nearest,
    Select,
    Source,
    Term,
    Value,
    Variable,
    added,
    as_variable,
    at_start,
    check_values,
    discrete,
    read_of,
)


def tokens(alphabet: Sequence[str]) -> Source:
    """The word at each position.

    Raises:
        ValueError: No words, a word that is given twice, is empty or has a space in it.
    """
    words = tuple(alphabet)
    if not words or len({*words}) < len(words) or any(not isinstance(w, str) or w.split() != [w] for w in words):
        raise ValueError(
            f"an alphabet is of different words without spaces, such as 'abc' or ['cat', 'dog'], not {words}"
        )
    return Source("tokens", words)


def indices(n: int) -> Source:
    """The number of each word in its prompt, from 0 to below n."""
    if n < 1:
        raise ValueError(f"indices are of at least one position, not of {n}")
    return Source("indices", tuple(range(n)))


def select(keys: Variable, queries: Variable, predicate: Callable[[Value, Value], bool]) -> Select:
    """The positions that are in a relation to this one: `predicate(key, query)`."""
    pairs = product(discrete(keys).values, discrete(queries).values)
    return _selecting(Term(keys, queries, {(k, q): 1.0 for k, q in pairs if predicate(k, q)}))


def where(keys: Variable, predicate: Callable[[Value], bool]) -> Select:
    """The positions that hold some values."""
    return _selecting(Term(keys, None, {(k, None): 1.0 for k in discrete(keys).values if predicate(k)}))


def aggregate(name: str, chosen: Select, of: Variable, default: Value = None) -> Aggregate:
    """What is held where a selector points, or the default where it points nowhere; of several, a mixture."""
    values = discrete(of).values if default is None or default in of.values else (*of.values, default)
    reads = {value: {value: 1.0} for value in of.values}
    return Aggregate(name, values, chosen, of, reads, _starts({} if default is None else {default: 1.0}, reads, of))


def mean(name: str, chosen: Select, of: Variable, numbers: Mapping[Value, float]) -> Aggregate:
    """The mean over the selected positions of a number for each value; 0 where there are none."""
    check_values(f"the numbers of {name!r}", [*numbers], discrete(of).values)
    return Aggregate(name, (NUMBER,), chosen, of, {NUMBER: numbers}, _starts({}, {NUMBER: numbers}, of))


def count(name: str, chosen: Select, most: int) -> Nearest:
    """How many positions are selected, 0 to `most`; of more, `most`.

    The start of the prompt is attended to as well and is all that counts, so that the mean is 1 / (1 + count).
    """
    if chosen.levels > 1:
        raise ValueError(f"{name} counts what is selected; a preference would leave all but one out")
    if most < 1:
        raise ValueError(f"{name} counts to 1 at least, not to {most}")
    with_start = replace(chosen, start=chosen.start + 0.5)
    inverse = Aggregate(f"1 / (1 + {name})", (NUMBER,), with_start, START, {NUMBER: {}}, {NUMBER: 1.0})
    return nearest(name, inverse, {n: 1 / (1 + n) for n in range(most + 1)})


def apply(name: str, function: Callable[..., Value], *inputs: Variable) -> Apply:
    """A function of what a position holds; it holds nothing where the function returns None or an input is missing."""
    if not inputs:
        raise ValueError(f"{name!r} is a function of nothing; give it the variables that it is a function of")
    once = tuple(dict.fromkeys(map(discrete, inputs)))
    places = [once.index(variable) for variable in inputs]
    results = {given: function(*(given[i] for i in places)) for given in product(*(one.values for one in once))}
    table = {given: result for given, result in results.items() if result is not None}
    return Apply(name, tuple(dict.fromkeys(table.values())), once, table)


def nearest(name: str, number: Variable, levels: Mapping[Value, float]) -> Nearest:
    """The value whose level a number is nearest to.

    Raises:
        ValueError: What is no number; no levels, equal ones, or one that is not finite.
    """
    if NUMBER not in as_variable(number).values:
        raise ValueError(f"{number.name!r} is no number, whose level {name!r} could be; mean makes one")
    ordered = sorted(levels.items(), key=lambda pair: pair[1])
    heights = tuple(height for _, height in ordered)
    if not heights or len({*heights}) < len(heights) or not all(map(isfinite, heights)):
        raise ValueError(f"the levels of {name!r} are different finite numbers by value, not {dict(levels)}")
    return Nearest(name, tuple(value for value, _ in ordered), number, heights)


def _selecting(term: Term) -> Select:
    """What satisfies a predicate, but for the start: what it holds itself is no reason to select it."""
    held = at_start(term.keys)
    queries = (None,) if term.queries is None else term.queries.values
    found = {q: sum(amount * term.table.get((k, q), 0.0) for k, amount in held.items()) for q in queries}
    back = {(True, q): -amount for q, amount in found.items() if amount}
    return Select((term, Term(START, term.queries, back)) if back else (term,), 0.5)


def _starts(default: Held, reads: Mapping[Value, Held], of: Variable) -> Held:
    """How much the start holds for itself, so that with what it holds of the variable it holds the default."""
    return added(default, {own: -amount for own, amount in read_of(reads, at_start(of)).items()})
