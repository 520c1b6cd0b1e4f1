"""What leaves the library, as text, as a graph or as a figure, has the edges and numbers that went in."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr
from wired import model_of

from interp import circuits, plots
from interp.circuits.export import nodes_of
from interp.graph import Graph, place_of


@pytest.fixture(params=["gpt2", "llama", "gpt_neox", "gemma2"])
def graph(request):
    return circuits.graph(model_of(request.param))


def some_values(graph, n: int = 25):
    scores = torch.randn(graph.precedes.shape, generator=torch.Generator().manual_seed(0))
    return scores * circuits.select(graph, scores, n)


def named(graph, values):
    coords = {"writer": list(graph.writers), "reader": list(graph.readers)}
    return xr.DataArray(values, coords=coords, dims=list(coords), name="effect")


def test_json_is_read_back(graph):
    values = some_values(graph)
    again, found = circuits.from_json(circuits.to_json(graph, values))
    assert again == graph
    torch.testing.assert_close(found, values)
    with pytest.raises(ValueError, match="this is not a circuit written by to_json"):
        circuits.from_json("[1, 2]")
    with pytest.raises(ValueError, match="this is no JSON, as to_json writes it"):
        circuits.from_json("oops")
    precise = values.double() / 3
    assert torch.equal(circuits.from_json(circuits.to_json(graph, precise))[1], precise)
    for writer in ("L9H9", graph.writers[-1]):
        text = circuits.to_json(graph, graph.mask([("embed", "mlp0")])).replace('"embed"', f'"{writer}"')
        with pytest.raises(ValueError, match=f"has no edge from '{writer}' to 'mlp0'"):
            circuits.from_json(text)


def test_networkx_has_the_edges_and_what_shares_readers(graph):
    values = some_values(graph)
    made = circuits.to_networkx(graph, values)
    found = {(one, key): value for one, _, key, value in made.edges(keys=True, data="value") if value is not None}
    wanted = {(graph.writers[w], graph.readers[r]): float(values[w, r]) for w, r in values.nonzero().tolist()}
    assert found == wanted
    layers = [(made.nodes[one]["layer"], made.nodes[two]["layer"]) for one, two in made.edges()]
    assert all(one <= two for one, two in layers)
    for one, two, value in made.edges(data="value"):
        if value is None:
            readers = [i for i, name in enumerate(graph.readers) if name.startswith(one)]
            assert any(graph.makes[i, graph.writers.index(two)] for i in readers)


def test_a_pruned_circuit_is_connected_in_networkx(graph):
    import networkx

    scores = torch.rand(graph.precedes.shape, generator=torch.Generator().manual_seed(2))
    circuit = circuits.prune(graph, circuits.select(graph, scores * graph.precedes, 30))
    made = circuits.to_networkx(graph, circuit)
    for node in made:
        assert networkx.has_path(made, "embed", node) or node not in graph.writers
        assert networkx.has_path(made, node, "logits")


def test_graphviz_has_a_line_for_each_edge(graph):
    values = some_values(graph)
    lines = circuits.to_dot(graph, values).splitlines()
    drawn = [line for line in lines if "penwidth" in line]
    assert len(drawn) == 25
    largest = max(drawn, key=lambda line: float(re.search(r'penwidth="([\d.]+)"', line)[1]))
    w, r = divmod(int(values.abs().argmax()), len(graph.readers))
    assert f"{graph.writers[w]} to {graph.readers[r]}: {float(values[w, r]):.4g}" in largest
    assert lines[0] == "digraph circuit {" and lines[-1] == "}"


def test_nodes_are_in_the_order_of_the_forward_pass(graph):
    nodes = nodes_of(graph, graph.mask())
    assert nodes[0] == "embed" and nodes[-1] == "logits"
    writers = [node for node in nodes if node in graph.writers]
    assert writers == list(graph.writers) and [place_of(node) for node in nodes] == sorted(map(place_of, nodes))


def test_the_figure_is_as_wide_as_the_numbers(graph):
    values = some_values(graph)
    figure = plots.circuit_graph(named(graph, values), most=10)
    *lines, hovers, nodes = figure.data
    sizes = np.sort(np.abs(values.numpy()), axis=None)[-10:]
    np.testing.assert_allclose([line.line.width for line in lines], np.maximum(0.8, 9 * sizes / sizes[-1]), rtol=1e-6)
    w, r = divmod(int(values.abs().argmax()), len(graph.readers))
    assert hovers.text[0] == f"{graph.writers[w]} → {graph.readers[r]}<br>effect {float(values[w, r]):.4g}"
    assert [line.line.color for line in lines[-1:]] == ["#2a5d9f" if values[w, r] > 0 else "#c0562f"]
    assert list(nodes.text) == sorted(nodes.text), "the same figure in every process"
    heights = dict(zip(nodes.text, nodes.y))
    assert all(heights[one] < heights[two] for one, two in _pairs(hovers.text))


def test_the_figure_of_a_mask_needs_the_graph_that_names_its_edges(graph):
    values = some_values(graph)
    (edge,) = torch.nonzero(values)[:1].tolist()
    names = [(graph.writers[edge[0]], graph.readers[edge[1]])]
    for bare, labelled in ((values, named(graph, values)), (names, named(graph, graph.mask(names)))):
        one, other = plots.circuit_graph(bare, graph=graph), plots.circuit_graph(labelled.rename(None))
        assert one.to_dict() == other.to_dict()
        with pytest.raises(ValueError, match="does not say which writers and readers its edges have; give the graph"):
            plots.circuit_graph(bare)


def test_edges_pass_behind_no_node(graph):
    figure = plots.circuit_graph(graph.mask(), most=10**4, graph=graph)
    *lines, _, _ = figure.data
    boxes = [(box.x0 + 0.01, box.x1 - 0.01, box.y0 + 0.01, box.y1 - 0.01) for box in figure.layout.shapes]
    share = np.linspace(0, 1, 101)[:, None]
    for line in lines:
        points = np.stack([line.x, line.y], 1)
        between = np.concatenate([a + share * (b - a) for a, b in pairwise(points)])
        for x0, x1, y0, y1 in boxes:
            x, y = between.T
            assert not ((x0 < x) & (x < x1) & (y0 < y) & (y < y1)).any()


@pytest.mark.parametrize("n_heads", [4, 12, 20])
def test_the_names_of_heads_have_room_in_their_boxes(n_heads):
    wide = Graph(2, n_heads, n_heads, False, True)
    layout = plots.circuit_graph(wide.mask(), most=10**4, graph=wide).layout
    left, right = layout.xaxis.range
    column = ((layout.width or 700) - layout.margin.l - layout.margin.r) / (right - left)
    longest = max(len(note.text) for note in layout.annotations)
    assert column * (layout.shapes[0].x1 - layout.shapes[0].x0) > 0.6 * layout.annotations[0].font.size * longest


def _pairs(texts):
    for text in texts:
        writer, reader = text.split("<br>")[0].split(" → ")
        yield writer, reader.partition(".")[0]


def test_nothing_to_draw_is_said(graph):
    values = named(graph, 0 * graph.mask())
    with pytest.raises(ValueError, match="there is no edge to draw: every value is 0 or NaN"):
        plots.circuit_graph(values)
    with pytest.raises(
        ValueError, match=r"a circuit has the axes writer and reader, not \('prompt', 'writer', 'reader'\)"
    ):
        plots.circuit_graph(values.expand_dims("prompt"))
