"""Values over one axis: curves with bands, bars with intervals, dots per prompt; and values against others."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.plots.style import COLOURS, dress
from interp.stats import interval


def distributions(
    array: xr.DataArray, title: str = "", most: int = 16, over: str = "prompt", seed: int = 0
) -> go.Figure:
    """Every prompt's value in the cells of largest mean: dots, their violin, and the mean with its bootstrap interval.

    Args:
        most: How many cells to show.
        over: The axis of the dots.
    """
    table = interval(array, over, seed=seed)
    axes = [axis for axis in array.dims if axis != over]
    flat = array.transpose(over, *axes).values.reshape(array.sizes[over], -1)
    names = [", ".join(map(str, index)) for index in product(*(array[axis].values for axis in axes))]
    mean, low, high = (table[name].transpose(*axes).values.ravel() for name in ("mean", "low", "high"))
    size = np.nan_to_num(np.abs(mean), nan=-1)
    chosen = np.sort(np.argsort(-size, kind="stable")[: min(most, int((size >= 0).sum()))])
    figure = go.Figure()
    for i in chosen:
        figure.add_trace(
            go.Violin(x=[names[i]] * len(flat), y=flat[:, i], points="all", pointpos=0, jitter=0.5, line_width=0.5,
                      line_color=COLOURS[0], fillcolor="rgba(42,93,159,0.15)", marker=dict(size=4, opacity=0.55),
                      showlegend=False)
        )  # fmt: skip
    error: dict[str, Any] = dict(type="data", array=(high - mean)[chosen], arrayminus=(mean - low)[chosen])
    figure.add_trace(
        go.Scatter(x=[names[i] for i in chosen], y=mean[chosen], mode="markers",
                   error_y=error | dict(color="#111", thickness=2, width=7),
                   marker=dict(color="#111", size=8, symbol="diamond"), name="mean, 95 % interval")
    )  # fmt: skip
    figure.update_xaxes(title=", ".join(map(str, axes)), type="category", tickangle=-45 if len(chosen) > 8 else 0)
    figure.update_yaxes(title=array.name, zeroline=True, zerolinecolor="#888")
    return dress(figure, title, height=440)


def lines(data: Mapping[str, xr.Dataset | xr.DataArray], x: str, title: str = "", y_title: str = "") -> go.Figure:
    """Curves over one axis; a dataset of mean, low and high is drawn with its band."""
    figure = go.Figure()
    for i, (name, curve) in enumerate(data.items()):
        colour = COLOURS[i % len(COLOURS)]
        if isinstance(curve, xr.Dataset):
            band = np.concatenate([curve["high"].values, curve["low"].values[::-1]])
            along = np.concatenate([curve[x].values, curve[x].values[::-1]])
            figure.add_trace(
                go.Scatter(x=along, y=band, mode="lines", fill="toself", fillcolor=colour, opacity=0.18, line_width=0,
                           hoverinfo="skip", showlegend=False)
            )  # fmt: skip
            curve = curve["mean"]
        figure.add_trace(
            go.Scatter(x=curve[x].values, y=curve.values, name=name, mode="lines+markers", line_color=colour)
        )
    figure.update_xaxes(title=x, dtick=1 if x in ("layer", "ahead") else None)
    figure.update_yaxes(title=y_title, zeroline=True, zerolinecolor="#bbb")
    return dress(figure, title)


def bars(data: xr.Dataset, x: str, title: str = "", y_title: str = "") -> go.Figure:
    """Means with their intervals."""
    up, down = data["high"] - data["mean"], data["mean"] - data["low"]
    error: dict[str, Any] = dict(type="data", array=up.values, arrayminus=down.values, color="#444", thickness=1)
    colours = [COLOURS[0] if value >= 0 else COLOURS[1] for value in data["mean"].values]
    names = [str(v) for v in data[x].values]
    figure = go.Figure(go.Bar(x=names, y=data["mean"].values, error_y=error, marker_color=colours))
    crowded = len(names) * max(map(len, names), default=0) > 90
    figure.update_xaxes(title=x, type="category", tickangle=-45 if crowded or len(names) > 8 else 0)
    figure.update_yaxes(title=y_title, zeroline=True, zerolinecolor="#888")
    return dress(figure, title)


def scatter(
    x: xr.DataArray, y: Mapping[str, xr.DataArray], title: str = "", y_title: str = "", diagonal: bool = False
) -> go.Figure:
    """Dots for the cells of arrays of the same axes, one against each of several by name; labels are shown on hovering.

    Args:
        diagonal: Draw the line on which both are equal.
    """
    figure = go.Figure()
    cells = x.stack(cell=x.dims)
    names = [", ".join(map(str, index)) for index in cells["cell"].values]
    for i, (name, array) in enumerate(y.items()):
        marks = dict(color=COLOURS[i % len(COLOURS)], size=8, opacity=0.7)
        values = array.transpose(*x.dims).values.ravel()
        figure.add_trace(go.Scatter(x=cells.values, y=values, text=names, mode="markers", marker=marks, name=name))
    if diagonal and np.isfinite(cells.values).any():
        ends = [float(np.nanmin(cells.values)), float(np.nanmax(cells.values))]
        figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line=dict(color="#999", dash="dash"), name="equal"))
    figure.update_xaxes(title=x.name, zeroline=True, zerolinecolor="#bbb")
    figure.update_yaxes(title=y_title, zeroline=True, zerolinecolor="#bbb")
    return dress(figure, title, height=460)
