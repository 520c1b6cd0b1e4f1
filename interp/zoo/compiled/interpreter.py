"""What a program computes, step by step, in plain Python: no weights, no torch.

It is independent of the compiler, and says what a compiled model must say. It also says what the model must say when an
edge is cut: a part of the program then reads another prompt's variables, or none, where it would have read its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp

from interp.graph import Edge
from interp.zoo.compiled.placing import Placed
from interp.zoo.compiled.variables import (
    NUMBER,
    START,
    Aggregate,
    Apply,
    Held,
    Nearest,
    Select,
    Source,
    Variable,
    read_of,
)

SHARPNESS = 20.0  # log of the odds of what is attended to against everything else
State = dict[Variable, Sequence[Held]]  # by variable, at each position, the start of the prompt first

Read = Callable[[Variable, str], Sequence[Held]]  # what a part of the model reads of a variable


@dataclass(frozen=True)
class Cut:
    """An edge that carries what it carries in another run, or nothing."""

    edge: Edge
    other: State | None = None


def interpret(placed: Placed, words: Sequence[str], cut: Cut | None = None) -> State:
    """What every position holds of every variable.

    Args:
        words: The prompt, without its start.
        cut: The edge that is cut, if any.
    """
    state: State = {}

    def read(variable: Variable, reader: str) -> Sequence[Held]:
        if cut is None or cut.edge != (placed.writers[variable], reader):
            return state[variable]
        return [{}] * (len(words) + 1) if cut.other is None else cut.other[variable]

    for variable in placed.variables:
        part = placed.writers[variable]
        if isinstance(variable, Source):
            state[variable] = _known(variable, words)
        elif isinstance(variable, Aggregate):
            state[variable] = _attend(variable, part, read)
        elif isinstance(variable, Apply):
            held = zip(*(read(one, part) for one in variable.inputs))
            state[variable] = [variable.held(given) for given in held]
        elif isinstance(variable, Nearest):
            state[variable] = [variable.held(held.get(NUMBER, 0.0)) for held in read(variable.of, part)]
    return state | {placed.output: read(placed.output, "logits")}


def _known(source: Source, words: Sequence[str]) -> list[Held]:
    nothing: Held = {}
    if source.name == "start":
        return [{True: 1.0}, *[nothing] * len(words)]
    values = words if source.name == "tokens" else range(len(words))
    return [nothing, *({value: 1.0} for value in values)]


def _attend(variable: Aggregate, part: str, read: Read) -> list[Held]:
    select = variable.select
    scores = _scores(select, part, read)
    values, starts = read(variable.of, f"{part}.v"), read(START, f"{part}.v")
    held: list[Held] = []
    for row in scores:
        top = max(row)
        weights = [exp((score - top) * SHARPNESS / select.gap) for score in row]
        mixture = dict.fromkeys(variable.values, 0.0)
        for weight, value, start in zip(weights, values, starts):
            for own, amount in read_of(variable.reads, value).items():
                mixture[own] += weight * amount
            for own, amount in variable.starts.items():
                mixture[own] += weight * amount * start.get(True, 0.0)
        held.append({own: amount / sum(weights) for own, amount in mixture.items()})
    return held


def _scores(select: Select, part: str, read: Read) -> list[list[float]]:
    """For each position, the scores of those up to it."""
    starts = read(START, f"{part}.k")
    rows = [[select.start * starts[j].get(True, 0.0) for j in range(i + 1)] for i in range(len(starts))]
    for term in select.terms:
        keys = read(term.keys, f"{part}.k")
        anything: Sequence[Held] = [{None: 1.0}] * len(keys)
        queries = anything if term.queries is None else read(term.queries, f"{part}.q")
        for i, row in enumerate(rows):
            for j in range(len(row)):
                row[j] += sum(
                    a * b * term.table.get((k, q), 0.0) for k, a in keys[j].items() for q, b in queries[i].items()
                )
    return rows
