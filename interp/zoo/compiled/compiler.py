"""Compile programs to weights, after Tracr (Lindner et al. 2023, arXiv:2301.05062), into Hugging Face's GPT-2 form.

Every value of every variable has a coordinate of the residual stream. A selector becomes queries and keys, an aggregate
values and outputs of the same head; functions and levels become rectified neurons.
"""

from collections.abc import Hashable, Sequence
from itertools import count

from interp.zoo.compiled.interpreter import SHARPNESS
from interp.zoo.compiled.placing import Placed
from interp.zoo.compiled.variables import NUMBER, Aggregate, Apply, Nearest, Select, Source, Value, Variable
from interp.zoo.handset.blank import BOS, Blank, Features, Scores, Writes

GAIN = 10.0  # the logit of a word that the program says
_IS_START: Features = {("start", True): 1.0}


def compile_program(placed: Placed, n_context: int, alphabet: Sequence[str] = ()) -> Blank:
    """A program as weights.

    Args:
        n_context: How many positions a prompt may have, its start among them.
        alphabet: Words that a prompt may have beside those that the program reads.

    Raises:
        ValueError: Answers that are not different words, or no words.
    """
    said = [str(value) for value in placed.output.values]
    if len({*said}) < len(said) or any(word.split() != [word] for word in said):
        raise ValueError(f"answers are different words without spaces, not {list(placed.output.values)}")
    if BOS in (given := {*_words(placed), *alphabet}):
        raise ValueError(f"{BOS} begins every prompt, and is no word of {sorted(given)}")
    features = [(variable.name, value) for variable in placed.variables for value in variable.values]
    words = dict.fromkeys([*_words(placed), *alphabet])
    aggregates = [variable for variable in placed.variables if isinstance(variable, Aggregate)]
    width = max((max(len(_scores(v.select)) + 1, len(v.values)) for v in aggregates), default=1)
    neurons = {v: _neurons(v) for v in placed.variables if isinstance(v, Apply | Nearest)}
    per_layer = [sum(len(n) for v, n in neurons.items() if placed.layers[v] == i) for i in range(placed.n_layers)]
    blank = Blank.of(
        features, list(words), placed.n_layers, placed.n_heads, width, max([*per_layer, 1]), n_context=n_context
    )
    _embed(blank, placed)
    for variable in aggregates:
        head = int(placed.writers[variable].partition("H")[2])
        blank.head(placed.layers[variable], head, _scores(variable.select), _writes(variable), [_keys(variable.select)])
    numbers = [count() for _ in per_layer]
    for made_by, made in neurons.items():
        layer = placed.layers[made_by]
        for reads, bias, writes in made:
            blank.neuron(layer, next(numbers[layer]), reads, bias, writes)
    for value in placed.output.values:
        blank.unembed(str(value), {(placed.output.name, value): GAIN})
    return blank


def _words(placed: Placed) -> list[str]:
    """What the model can be given, and what it can say."""
    given = [v for v in placed.variables if isinstance(v, Source) and v.name == "tokens"]
    return [str(value) for variable in [*given, placed.output] for value in variable.values]


def _embed(blank: Blank, placed: Placed) -> None:
    """Words and positions are known by their sources, the start of a prompt as such and as nothing else."""
    blank.embed(BOS, _IS_START)
    for variable in placed.variables:
        if isinstance(variable, Source) and variable.name == "tokens":
            for word in variable.values:
                blank.embed(str(word), {("tokens", word): 1.0})
        elif isinstance(variable, Source) and variable.name == "indices":
            within = variable.values[: blank.module.config.n_positions - 1]
            for position, index in enumerate(within, start=1):
                blank.place(position, {("indices", index): 1.0})


def _scores(select: Select) -> Scores:
    """What depends on the query: for each value at the key, how much each value at the query adds."""
    sharp = SHARPNESS / select.gap
    scores: list[tuple[Features, Features, float]] = []
    for term in select.terms:
        if term.queries is not None:
            for key in term.keys.values:
                wanted = {(term.queries.name, q): term.table.get((key, q), 0.0) for q in term.queries.values}
                scores.append((wanted, {(term.keys.name, key): 1.0}, sharp))
    return scores


def _keys(select: Select) -> Features:
    """What a key scores whatever the query."""
    total: dict[Hashable, float] = {("start", True): select.start}
    for term in select.terms:
        if term.queries is None:
            for (key, _), amount in term.table.items():
                total[term.keys.name, key] = total.get((term.keys.name, key), 0.0) + amount
    return {feature: amount * SHARPNESS / select.gap for feature, amount in total.items()}


def _writes(variable: Aggregate) -> Writes:
    writes = []
    for own in variable.values:
        reads: dict[Hashable, float] = {}
        for value, amount in variable.reads.get(own, {}).items():
            reads[variable.of.name, value] = amount
        if own in variable.starts:
            reads["start", True] = variable.starts[own]
        writes.append((reads, {(variable.name, own): 1.0}))
    return writes


Neuron = tuple[Features, float, Features]  # what it reads, its bias, what it writes


def _neurons(variable: Variable) -> list[Neuron]:
    if isinstance(variable, Apply):
        return [_conjunction(variable, given, result) for given, result in variable.table.items()]
    assert isinstance(variable, Nearest)
    bounds = list(zip(variable.levels, variable.levels[1:]))
    every: list[Neuron] = [({}, 1.0, {(variable.name, variable.values[0]): 1.0})]
    for (low, high), below, above in zip(bounds, variable.values, variable.values[1:]):
        slope = 2 / (high - low)
        step = {(variable.name, below): -1.0, (variable.name, above): 1.0}
        back = {feature: -amount for feature, amount in step.items()}
        middle = slope * (low + high) / 2
        number = {(variable.of.name, NUMBER): slope}
        every += [(number, 0.5 - middle, step), (number, -0.5 - middle, back)]
    return every


def _conjunction(variable: Apply, given: tuple[Value, ...], result: Value) -> Neuron:
    """A neuron that fires if every input has its value."""
    reads = {(one.name, value): 1.0 for one, value in zip(variable.inputs, given)}
    return reads, 1.0 - len(given), {(variable.name, result): 1.0}
