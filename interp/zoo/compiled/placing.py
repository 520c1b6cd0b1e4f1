"""Where each variable of a program is computed: which head of which layer, or which MLP, as early as can be."""

from collections.abc import Mapping
from dataclasses import dataclass

from interp.graph import Edge
from interp.zoo.compiled.variables import START, Aggregate, Apply, Nearest, Source, Variable


@dataclass(frozen=True)
class Placed:
    """The variables of a program in the order in which they are computed, and the part that computes each.

    Attributes:
        writers: By variable, the name of the part: "embed", a head ("L0H1") or an MLP ("mlp0").
        layers: By variable, the layer of that part; 0 for sources.
    """

    output: Variable
    variables: tuple[Variable, ...]
    writers: Mapping[Variable, str]
    layers: Mapping[Variable, int]

    @property
    def edges(self) -> frozenset[Edge]:
        """The edges by which one part is given what another makes: no other can matter, nor need all of these."""
        edges = {(self.writers[self.output], "logits")}
        for variable in self.variables:
            for kind, read in reads_of(variable):
                edges.add((self.writers[read], ".".join(filter(None, (self.writers[variable], kind)))))
        return frozenset(edges)

    @property
    def n_layers(self) -> int:
        """How many layers are needed."""
        return 1 + max(self.layers.values())

    @property
    def n_heads(self) -> int:
        """How many heads the layer with the most needs."""
        made = [self.writers[v] for v in self.variables if isinstance(v, Aggregate)]
        return 1 + max((int(name.partition("H")[2]) for name in made), default=0)


def reads_of(variable: Variable) -> list[tuple[str, Variable]]:
    """What a variable is computed from, and whether a head reads it by its queries, keys or values ("" in an MLP)."""
    if isinstance(variable, Aggregate):
        reads = [("v", variable.of), ("k", START), *([("v", START)] if variable.starts else [])]
        for term in variable.select.terms:
            reads += [("k", term.keys), *([("q", term.queries)] if term.queries else [])]
        return reads
    if isinstance(variable, Apply):
        return [("", one) for one in variable.inputs]
    return [("", variable.of)] if isinstance(variable, Nearest) else []


def place(output: Variable) -> Placed:
    """The variables that a program's output needs, each as early as its inputs allow.

    Raises:
        TypeError: What is no variable.
        ValueError: Two variables of one name.
    """
    if not isinstance(output, Variable):
        raise TypeError(f"the output of a program is one of its variables, not {output!r}")
    times: dict[Variable, int] = {}
    for variable in (START, output):
        _time(variable, times)
    names = [variable.name for variable in times]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"two variables are called {twice[0]!r}; give each its own name, and make tokens and indices once"
        )
    ordered = sorted(times, key=times.__getitem__)
    writers, layers, heads = {}, {}, dict[int, int]()
    for variable in ordered:
        layer = max(times[variable] - 1, 0) // 2
        layers[variable] = layer
        writers[variable] = "embed" if isinstance(variable, Source) else f"mlp{layer}"
        if isinstance(variable, Aggregate):
            writers[variable] = f"L{layer}H{heads.get(layer, 0)}"
            heads[layer] = heads.get(layer, 0) + 1
    return Placed(output, tuple(ordered), writers, layers)


def _time(variable: Variable, times: dict[Variable, int]) -> int:
    """When a variable is there: sources at 0, what attention makes at 1, 3, …, what MLPs make at 2, 4, …"""
    if variable not in times:
        ready = max((_time(other, times) for _, other in reads_of(variable)), default=0)
        odd = isinstance(variable, Aggregate)
        soon = ready + 1 if (ready + 1) % 2 == odd else ready + 2
        times[variable] = 0 if isinstance(variable, Source) else soon
    return times[variable]
