"""A circuit as a graph: layers upward, heads and MLPs as nodes, edges as wide as they matter."""

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.graph import Graph, Mask, node_of, place_of
from interp.plots.style import COLOURS, dress, plain, quantity

_PORTS = {"q": -0.2, "k": 0.0, "v": 0.2}  # where edges end at a head
_WIDTH, _HEIGHT = 0.66, 0.38  # of a node, in columns and rows
_CLEAR = _WIDTH / 2 + 0.08  # from the middle of a node to where an edge may pass
_WIDEST = 9.0
_COLUMN = 66  # pixels, in which the name of a head has room

Point = tuple[float, float]
Places = dict[str, Point]
Edges = list[tuple[str, str, float]]


def circuit_graph(values: Mask, title: str = "", most: int = 60, graph: Graph | None = None) -> go.Figure:
    """Edges as lines from writers up to readers: blue for positive values, red for negative, wide for large ones.

    Queries, keys and values end at the left, the middle and the right of a head, whose letters say which are there.
    Hovering shows the numbers.

    Args:
        values: A circuit or scores by (writer, reader); 0 and NaN are not drawn.
        most: How many of the largest edges to draw.
        graph: Of the model, as `circuits.graph` gives it; it names the edges of values that have no labels, such as the
            mask that `circuits.select` gives, or a list of edges.

    Raises:
        ValueError: Other axes; no edge to draw; values without labels, and no graph; `most` below 1.
    """
    if most < 1:
        raise ValueError(f"at least one edge is drawn; most={most} was given")
    if not isinstance(values, xr.DataArray):
        values = _labelled(values, graph)
    if set(values.dims) != {"writer", "reader"}:
        raise ValueError(f"a circuit has the axes writer and reader, not {values.dims}; average the others first")
    edges = _largest(values, most)
    if not edges:
        raise ValueError("there is no edge to draw: every value is 0 or NaN")
    where = _layout({name for writer, reader, _ in edges for name in (writer, node_of(reader))}, _group(values))
    widest = max(abs(value) for *_, value in edges)
    figure = go.Figure()
    paths = [_path(where, writer, reader) for writer, reader, _ in edges]
    for (*_, value), (points, _) in zip(reversed(edges), reversed(paths)):  # the largest on top
        x, y = zip(*points)
        width = max(0.8, _WIDEST * abs(value) / widest)
        line = dict(color=COLOURS[value < 0], width=width, shape="spline", smoothing=0.6)
        figure.add_trace(go.Scatter(x=x, y=y, mode="lines", line=line, opacity=0.6, hoverinfo="skip", showlegend=False))
    figure.add_trace(_hovers(edges, [middle for _, middle in paths], quantity(values) or "value"))
    figure.add_trace(_nodes(edges, where))
    _boxes(figure, edges, where)
    _rows(figure, where)
    shown = f" ({len(edges)} of {_count(values)} edges)" if _count(values) > len(edges) else ""
    n_rows = 2 + max(y for _, y in where.values())
    return dress(figure, f"{title}{shown}", height=round(120 + 70 * n_rows)).update_layout(margin_b=20)


def _labelled(values: Mask, graph: Graph | None) -> xr.DataArray:
    if graph is None:
        raise ValueError(
            f"a {type(values).__name__} does not say which writers and readers its edges have; give the graph too, as "
            "in circuit_graph(circuit, graph=circuits.graph(model))"
        )
    tensor = graph.tensor_of("values", values)
    graph.check("values", tensor.nan_to_num())
    coords = {"writer": list(graph.writers), "reader": list(graph.readers)}
    return xr.DataArray(tensor.numpy(), dims=tuple(coords), coords=coords)


def _largest(values: xr.DataArray, most: int) -> Edges:
    """Edges by falling size."""
    table = values.transpose("writer", "reader")
    sizes = np.nan_to_num(abs(table.values.astype(float)))
    order = np.argsort(-sizes, axis=None, kind="stable")[: min(most, int((sizes > 0).sum()))]
    pairs = zip(*np.unravel_index(order, sizes.shape))
    names = table.writer.values, table.reader.values
    return [(str(names[0][w]), str(names[1][r]), float(table.values[w, r])) for w, r in pairs]


def _count(values: xr.DataArray) -> int:
    return int((np.nan_to_num(values.values) != 0).sum())


def _group(values: xr.DataArray) -> float:
    """How many heads share keys and values."""
    kinds = [str(name).partition(".")[2] for name in values.reader.values]
    return max(1.0, kinds.count("q") / max(1, kinds.count("k")))


def _layout(nodes: set[str], group: float) -> Places:
    """Rows for attention and for MLPs, those of nothing left out; heads side by side, MLPs to their right."""
    shared = lambda node: "KV" in node
    row_of = lambda node: (*place_of(node)[:2], not shared(node))  # shared keys and values below their heads
    rows = sorted({row_of(node) for node in nodes})
    columns = {
        node: place_of(node)[2] * group + (group - 1) / 2 if shared(node) else place_of(node)[2]
        for node in nodes
        if place_of(node)[1] == "attention"
    }
    middle, right = max(columns.values(), default=0) / 2, max(columns.values(), default=0) + 1.2
    found = {}
    for node in sorted(nodes):  # a set has another order in every process, and figures are stored
        x = columns.get(node, right if place_of(node)[1] == "mlp" else middle)
        found[node] = float(x), float(rows.index(row_of(node)))
    return found


def _port(where: Places, reader: str) -> Point:
    x, y = where[node_of(reader)]
    return x + _PORTS.get(reader.partition(".")[2], 0.0), y - _HEIGHT / 2


def _path(where: Places, writer: str, reader: str) -> tuple[list[Point], Point]:
    """The points of an edge, which goes through the gaps between the nodes that it passes; and where it is marked."""
    x, y = where[writer]
    end = _port(where, reader)
    points, straight = [(x, y + _HEIGHT / 2)], list[Point]()
    for row in sorted({row for _, row in where.values() if y < row < end[1]}):
        nodes = sorted(x for x, other in where.values() if other == row)
        low, high = row - _HEIGHT / 2, row + _HEIGHT / 2
        ends = [_at(points[-1], end, height) for height in (low, high)]
        if any(min(ends) < node + _CLEAR and node - _CLEAR < max(ends) for node in nodes):
            gap = _nearest_gap(nodes, sum(ends) / 2)
            points += [*straight, (gap, low), (gap, high)]
            straight = []
        else:
            straight += zip(ends, (low, high))
    points.append(end)
    i = max(range(1, len(points)), key=lambda i: math.dist(points[i - 1], points[i]))
    middle = (points[i - 1][0] + points[i][0]) / 2, (points[i - 1][1] + points[i][1]) / 2
    return [*points[:i], middle, *points[i:]], middle


def _at(start: Point, end: Point, height: float) -> float:
    """Where a straight line is at a height."""
    return start[0] + (end[0] - start[0]) * (height - start[1]) / (end[1] - start[1])


def _nearest_gap(nodes: list[float], x: float) -> float:
    """The place nearest to x that is clear of the nodes of a row; these ascend."""
    left = [-math.inf, *(node + _CLEAR for node in nodes)]
    right = [*(node - _CLEAR for node in nodes), math.inf]
    return min((min(max(x, a), b) for a, b in zip(left, right) if a <= b), key=lambda place: abs(place - x))


def _hovers(edges: Edges, middles: list[Point], name: str) -> go.Scatter:
    """Marks without a face in the middle of each edge, which show its numbers."""
    return go.Scatter(
        x=[x for x, _ in middles], y=[y for _, y in middles], mode="markers",
        marker=dict(size=14, color="rgba(0,0,0,0)"), showlegend=False,
        text=[f"{plain(writer)} → {plain(reader)}<br>{name} {value:.4g}" for writer, reader, value in edges],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _nodes(edges: Edges, where: Places) -> go.Scatter:
    """Marks without a face at the nodes, which show their sums."""
    out, into = (dict.fromkeys(where, 0.0) for _ in "ab")
    for writer, reader, value in edges:
        out[writer] += value
        into[node_of(reader)] += value
    sums = ["%{text}", "edges out, sum %{customdata[0]:.4g}", "edges in, sum %{customdata[1]:.4g}"]
    return go.Scatter(
        x=[x for x, _ in where.values()], y=[y for _, y in where.values()], mode="markers",
        marker=dict(symbol="square", size=26, color="rgba(0,0,0,0)"), text=list(where), showlegend=False,
        customdata=[[out[node], into[node]] for node in where], hovertemplate=f"{'<br>'.join(sums)}<extra></extra>",
    )  # fmt: skip


def _boxes(figure: go.Figure, edges: Edges, where: Places) -> None:
    """The faces of the nodes, with the letters of what edges lead to."""
    letters = {(node_of(reader), reader.partition(".")[2]) for _, reader, _ in edges}
    for node, (x, y) in where.items():
        sides = dict(x0=x - _WIDTH / 2, x1=x + _WIDTH / 2, y0=y - _HEIGHT / 2, y1=y + _HEIGHT / 2)
        figure.add_shape(**sides, type="rect", fillcolor="#f4f6fa", line=dict(color="#445", width=1), layer="above")
        used = [kind for kind in _PORTS if (node, kind) in letters]
        figure.add_annotation(x=x, y=y, text=node, yshift=5 if used else 0, showarrow=False, font_size=11)
        for kind in used:
            figure.add_annotation(x=x + _PORTS[kind], y=y, text=kind, yshift=-8, showarrow=False, font_size=9)


def _rows(figure: go.Figure, where: Places) -> None:
    """Name the rows, take the axes away, and give every column its room."""
    labels: dict[float, str] = {}
    for node, (_, y) in where.items():
        layer, kind, _ = place_of(node)
        kind = "keys, values" if "KV" in node else kind
        labels[y] = kind if kind in ("embed", "logits") else f"{kind} {layer:.0f}"
    ticks: dict[str, Any] = dict(tickvals=list(labels), ticktext=list(labels.values()), showgrid=False, zeroline=False)
    figure.update_yaxes(**ticks, range=[-0.5, max(labels) + 0.5])
    xs = [x for trace in figure.data for x in trace.x]  # also of edges that go round
    left, right = min(xs) - 0.8, max(xs) + 0.8
    figure.update_xaxes(visible=False, range=[left, right])
    if right - left > 8:
        figure.update_layout(width=max(700, round(100 + _COLUMN * (right - left))))
