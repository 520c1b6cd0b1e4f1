"""What a model would say, word by word: maps with a word in each cell, and trajectories over layers."""

from collections.abc import Hashable
from html import unescape
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.arguments import check_labelled_array
from interp.arrays import in_order_of
from interp.plots.curves import axis_of
from interp.plots.style import (
    BAR,
    COLOURS,
    along_axis,
    check_numbers,
    distinct,
    dress,
    legible,
    outline,
    plain,
    quantity,
    scale_of,
    short,
    size_of,
    ticks_of,
    whiskers,
)
from interp.stats import interval

_CELL = 12  # letters that are written into a cell; hovering shows the whole
_GREYS = [[0, "#f7f7f7"], [1, "#a8a8a8"]]


def words(
    values: xr.DataArray,
    word: xr.DataArray,
    title: str = "",
    labels: xr.DataArray | None = None,
    grey: xr.DataArray | None = None,
) -> go.Figure:
    """Two axes as an image with a word in each cell, the first axis upwards; cells without a number stay empty.

    Args:
        values: What the colour shows: probabilities, entropies or divergences of one prompt, by (layer, pos).
        word: A word for each cell; with a third axis, `top`, the first is written and all are shown on hovering.
        labels: What to write under the second axis, such as the words of the prompt; by default its coordinate.
        grey: Rows of the first axis that are drawn without colour, such as `skill <= 0`.

    Raises:
        ValueError: Values of other than two axes, or without a number; words, labels or rows of other axes or sizes.
    """
    for given in (values, word, labels, grey):
        if given is not None:
            check_labelled_array(given)
    if values.ndim != 2 or set(word.dims) not in ({*values.dims}, {*values.dims, "top"}):
        raise ValueError(
            f"words needs values of two axes and a word for each, not {values.dims} and {word.dims}; choose one of "
            "the others, as in .isel(prompt=0)"
        )
    check_numbers("words", values)
    y, x = values.dims
    word = _like(word, values, y, x)
    several = (word if "top" in word.dims else word.expand_dims("top")).transpose("top", y, x).values
    cells = several.reshape(len(several), -1).T.tolist()
    hover = np.array(["<br>".join(plain(word) for word in cell if word) for cell in cells])
    inside = np.array([short(plain(word), _CELL) for word in several[0].ravel()], dtype=object).reshape(values.shape)
    under = [plain(label) for label in (values[x] if labels is None else _like(labels, values, x)).values]
    greys = np.zeros(values.sizes[y], bool) if grey is None else _like(grey, values, y).values.astype(bool)
    scale = scale_of(values.values)
    beside = distinct([plain(v) for v in values[y].values])
    shared = dict(
        x=list(range(len(under))), y=beside, texttemplate="%{text}",
        customdata=hover.reshape(values.shape), textfont_size=size_of(inside),
        xgap=1, ygap=1, hoverongaps=False,
        hovertemplate=f"{plain(y)} %{{y}}<br>%{{z:.4g}}<br>%{{customdata}}<extra></extra>",
    )  # fmt: skip
    images: list[go.Heatmap] = []
    for rows, colours in ((~greys, scale), (greys, scale | {"colorscale": _GREYS})):
        if rows.any():
            z = np.where(rows[:, None], values.values, np.nan)
            shown = np.where(np.isnan(z), "", inside)
            bar: dict[str, Any] = dict(colorbar=BAR | dict(title=quantity(values).replace("_", " ")))
            bar = bar if colours is scale or greys.all() else dict(showscale=False)
            images.append(go.Heatmap(z=z, text=shown, **colours, **shared, **bar))
    figure = go.Figure([*images, *(dark for image in images for dark in legible(image)[1:])])
    figure.update_xaxes(
        title=plain(x),
        tickvals=list(range(len(under))),
        ticktext=[short(label) for label in under],
        tickangle=-45 if len(under) > 6 else 0,
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(title=plain(y), type="category", categoryarray=beside, showgrid=False, **ticks_of(beside))
    letters = float(np.quantile([len(unescape(cell)) for cell in inside.ravel()], 0.9))  # a few long ones may touch
    figure.update_layout(width=max(700, 220 + round(5.5 * max(letters, 3) * len(under))))
    return dress(figure, title, height=190 + max(34 * values.sizes[y], 100))


def _like(given: xr.DataArray, values: xr.DataArray, *axes: Hashable) -> xr.DataArray:
    """What belongs to the cells of some axes, in the order of their labels.

    Raises:
        ValueError: Other sizes.
    """
    own = {axis: size for axis, size in given.sizes.items() if axis != "top"}
    wanted = {axis: values.sizes[axis] for axis in axes}
    if sorted(own.values()) != sorted(wanted.values()) or (len(axes) > 1 and own != wanted):
        raise ValueError(f"one is needed for each cell of {wanted}, not of {own}")
    return in_order_of(given, values) if own.keys() == wanted.keys() else given


def trajectories(
    array: xr.DataArray,
    title: str = "",
    x: str = "layer",
    over: str = "prompt",
    grey: xr.DataArray | None = None,
    seed: int = 0,
) -> go.Figure:
    """Every prompt's curve, thin, and their mean with its bootstrap interval.

    Args:
        grey: Points of the mean that are drawn without colour, such as `skill <= 0`.

    Raises:
        ValueError: Other axes than the two; no number.
    """
    check_labelled_array(array)
    if set(array.dims) != {x, over}:
        raise ValueError(f"trajectories needs the axes {x} and {over}, not {array.dims}; choose or average the others")
    check_numbers("trajectories", array)
    along, error = along_axis(array[x]), None
    figure = go.Figure()
    for i, curve in enumerate(array.transpose(over, x).values):
        figure.add_trace(
            go.Scatter(x=along, y=curve, mode="lines" if len(along) > 1 else "markers", opacity=0.35,
                       line=dict(color=COLOURS[0], width=0.7),
                       name="each prompt", legendgroup="each", showlegend=i == 0, hoverinfo="skip")
        )  # fmt: skip
    if array.sizes[over] > 1:
        band = interval(array, over, seed=seed)
        around, edge = outline(along, band["low"].values, band["high"].values)
        error = whiskers(band["mean"].values, band["low"].values, band["high"].values, COLOURS[1])
        figure.add_trace(
            go.Scatter(x=around, y=edge, mode="lines", fill="toself", line_width=0,
                       fillcolor=COLOURS[1], opacity=0.25, hoverinfo="skip", showlegend=False)
        )  # fmt: skip
    greys = np.zeros(len(along), bool) if grey is None else _like(grey, array, x).values
    colours = ["#bbb" if g else COLOURS[1] for g in greys]
    marker = dict(color=colours, size=9, line=dict(color=COLOURS[1], width=1))
    mean = array.mean(over).values
    figure.add_trace(
        go.Scatter(
            x=along,
            y=mean,
            error_y=error,
            mode="lines+markers",
            line=dict(color=COLOURS[1], width=3),
            marker=marker,
            name="mean",
        )
    )
    if greys.any():
        figure.add_trace(
            go.Scatter(x=[None], y=[None], mode="markers", marker=marker | {"color": "#bbb"}, name="no skill")
        )
    figure.update_xaxes(title=plain(x), **axis_of(x, array[x]))
    figure.update_yaxes(title=quantity(array).replace("_", " "), zeroline=True, zerolinecolor="#bbb")
    return dress(figure, title)
