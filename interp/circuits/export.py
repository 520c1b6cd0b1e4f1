"""Circuits for other programs: JSON, networkx, and the language of Graphviz."""

import json
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.graph import Graph, Mask, node_of, place_of, zero_for_nan

_FORMAT = "interp circuit 1"


def to_json(graph: Graph, values: Mask) -> str:
    """The edges whose value is not 0, as JSON that `from_json` reads.

    Args:
        values: A circuit or scores, by (writer, reader).

    Raises:
        ValueError: Values that do not fit the graph.
    """
    sizes = {name: getattr(graph, name) for name in Graph.__dataclass_fields__}
    edges = [{"writer": writer, "reader": reader, "value": value} for writer, reader, value in _edges(graph, values)]
    dtype = str(graph.tensor_of("values", values).dtype).removeprefix("torch.")
    return json.dumps({"format": _FORMAT, "graph": sizes, "dtype": dtype, "edges": edges}, indent=1)


def from_json(text: str) -> tuple[Graph, Float[Tensor, "writer reader"]]:
    """A graph and the values of its edges, 0 where none was written.

    Raises:
        ValueError: Text that `to_json` did not write; an edge that there is not.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is no JSON, as to_json writes it: {error}") from None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise ValueError(f"this is not a circuit written by to_json, which begins with a format {_FORMAT!r}")
    graph = Graph(**found["graph"])
    values = torch.zeros(graph.precedes.shape, dtype=getattr(torch, found.get("dtype", "float32")))
    rows, columns = ({name: i for i, name in enumerate(names)} for names in (graph.writers, graph.readers))
    for edge in found["edges"]:
        row, column = rows.get(edge["writer"]), columns.get(edge["reader"])
        if row is None or column is None or not graph.precedes[row, column]:
            raise ValueError(f"{graph} has no edge from {edge['writer']!r} to {edge['reader']!r}")
        values[row, column] = edge["value"]
    return graph, values


def to_networkx(graph: Graph, values: Mask) -> Any:
    """A `networkx.MultiDiGraph` of the edges whose value is not 0.

    Nodes are heads, MLPs, `embed` and `logits`, with `layer` and `kind`. Edges have the reader's name as their key, and
    `value`. Where readers belong to several heads (grouped queries) they are nodes of their own, from which edges with
    `value` None lead to those of the heads that edges leave.
    """
    import networkx  # only who asks for it needs it

    made = networkx.MultiDiGraph()
    for name in nodes_of(graph, values):
        layer, kind, index = place_of(name)
        made.add_node(name, layer=layer, kind=kind, index=index)
    for writer, reader, value in _edges(graph, values):
        made.add_edge(writer, node_of(reader), key=reader, value=value)
    for name, writer in _parts(graph, values):
        made.add_edge(name, writer, key="part", value=None)
    return made


def to_dot(graph: Graph, values: Mask) -> str:
    """The edges whose value is not 0 in the language of Graphviz: layers upward, width by size, colour by sign."""
    edges = _edges(graph, values)
    largest = max((abs(value) for *_, value in edges), default=1.0)
    lines = ["digraph circuit {", '  rankdir=BT; node [shape=box, fontname="Helvetica"]; edge [arrowsize=0.5];']
    rows: dict[tuple, list[str]] = {}
    for name in nodes_of(graph, values):
        rows.setdefault((*place_of(name)[:2], name in graph.writers), []).append(name)
    lines += [f"  {{rank=same; {' '.join(map(json.dumps, row))}}}" for row in rows.values()]
    for writer, reader, value in edges:
        look = {
            "penwidth": f"{0.3 + 4.7 * abs(value) / largest:.2f}",
            "color": "#2a5d9f" if value > 0 else "#c0562f",
            "label": reader.partition(".")[2],
            "tooltip": f"{writer} to {reader}: {value:.4g}",
        }
        options = ", ".join(f"{key}={json.dumps(option)}" for key, option in look.items())
        lines.append(f"  {json.dumps(writer)} -> {json.dumps(node_of(reader))} [{options}];")
    lines += [f"  {json.dumps(name)} -> {json.dumps(writer)} [style=dotted];" for name, writer in _parts(graph, values)]
    return "\n".join([*lines, "}"]) + "\n"


def nodes_of(graph: Graph, values: Mask) -> list[str]:
    """The names of the nodes that edges lead from or to, in the order of the forward pass."""
    ends = {name for writer, reader, _ in _edges(graph, values) for name in (writer, node_of(reader))}
    ends |= {name for pair in _parts(graph, values) for name in pair}
    return sorted(ends, key=place_of)


def _edges(graph: Graph, values: Mask) -> list[tuple[str, str, float]]:
    tensor = zero_for_nan(graph.tensor_of("values", values))
    graph.check("values", tensor)
    return [(graph.writers[w], graph.readers[r], float(tensor[w, r])) for w, r in tensor.nonzero().tolist()]


def _parts(graph: Graph, values: Mask) -> list[tuple[str, str]]:
    """Where edges lead to what is no writer itself: to which of the writers that edges leave it belongs."""
    found: dict[tuple[str, str], None] = {}
    edges = _edges(graph, values)
    leaving = {writer for writer, _, _ in edges}
    for _, reader, _ in edges:
        name = node_of(reader)
        if name != "logits" and name not in graph.writers:
            for i in graph.makes[graph.readers.index(reader)].nonzero()[:, 0].tolist():
                if graph.writers[i] in leaving:
                    found[name, graph.writers[i]] = None
    return list(found)
