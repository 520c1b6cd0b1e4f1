"""Values over one axis: curves with bands, bars with intervals, dots per prompt; and values against others."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.arrays import in_order_of
from interp.plots.style import COLOURS, distinct, dress, outline, pen, plain, quantity
from interp.stats import interval

Curve = xr.Dataset | xr.DataArray


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
    names = [", ".join(map(plain, index)) for index in product(*(array[axis].values for axis in axes))]
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
    figure.update_xaxes(title=", ".join(map(plain, axes)), type="category", tickangle=-45 if len(chosen) > 8 else 0)
    figure.update_yaxes(title=quantity(array), zeroline=True, zerolinecolor="#888")
    shown = f" ({len(chosen)} of {len(names)} cells)" if len(chosen) < len(names) else ""
    return dress(figure, f"{title}{shown}", height=440)


def lines(
    data: Mapping[str, xr.Dataset | xr.DataArray] | Curve, x: str, title: str = "", y_title: str = ""
) -> go.Figure:
    """Curves over one axis; a dataset of mean, low and high is drawn with its band.

    Args:
        data: Curves by name, or one alone.

    Raises:
        ValueError: A curve of other axes than `x`; a dataset without mean, low and high.
    """
    curves, y_title = ({"": data}, y_title or _measured(data)) if _is_curve(data) else (dict(data), y_title)
    figure = go.Figure()
    for i, (name, curve) in enumerate(curves.items()):
        _check(curve, x, f"the curve {name!r}" if name else "a curve")
        (colour, dash, mark), along = pen(i), _along(curve[x])
        if isinstance(curve, xr.Dataset):
            around, band = outline(along, curve["low"].values, curve["high"].values)
            figure.add_trace(
                go.Scatter(x=around, y=band, mode="lines", fill="toself", fillcolor=colour,
                           opacity=0.18, line_width=0, hoverinfo="skip", showlegend=False)
            )  # fmt: skip
        values = curve["mean"] if isinstance(curve, xr.Dataset) else curve
        figure.add_trace(
            go.Scatter(x=along, y=values.values, name=plain(name), mode="lines+markers", marker_symbol=mark,
                       line=dict(color=colour, dash=dash), showlegend=len(curves) > 1 or bool(name))
        )  # fmt: skip
    figure.update_xaxes(title=plain(x), dtick=1 if x in ("layer", "ahead") else None)
    figure.update_yaxes(title=plain(y_title), zeroline=True, zerolinecolor="#bbb")
    return dress(figure, title)


def bars(data: Curve, x: str, title: str = "", y_title: str = "") -> go.Figure:
    """Means with their intervals, from a dataset of mean, low and high; or the values of an array.

    Raises:
        ValueError: Other axes than `x`; a dataset without mean, low and high.
    """
    _check(data, x, "bars")
    error: dict[str, Any] | None = None
    if isinstance(data, xr.Dataset):
        up, down = data["high"] - data["mean"], data["mean"] - data["low"]
        error = dict(type="data", array=up.values, arrayminus=down.values, color="#444", thickness=1)
    means = data["mean"] if isinstance(data, xr.Dataset) else data
    colours = [COLOURS[0] if value >= 0 else COLOURS[1] for value in means.values]
    names = [plain(v) for v in data[x].values]
    figure = go.Figure(go.Bar(x=names, y=means.values, error_y=error, marker_color=colours))
    crowded = len(names) * max(map(len, names), default=0) > 90
    figure.update_xaxes(title=plain(x), type="category", tickangle=-45 if crowded or len(names) > 8 else 0)
    figure.update_yaxes(title=plain(y_title) or _measured(data), zeroline=True, zerolinecolor="#888")
    return dress(figure, title)


def scatter(
    x: xr.DataArray,
    y: Mapping[str, xr.DataArray] | xr.DataArray,
    title: str = "",
    y_title: str = "",
    diagonal: bool = False,
) -> go.Figure:
    """Dots for the cells of arrays of the same axes, one against each of several by name; labels are shown on hovering.

    Args:
        y: By name, or one alone.
        diagonal: Draw the line on which both are equal.

    Raises:
        ValueError: Arrays of other axes than those of `x`.
    """
    figure = go.Figure()
    alone = isinstance(y, xr.DataArray)
    others: dict[str, xr.DataArray] = {str(y.name or ""): y} if isinstance(y, xr.DataArray) else dict(y)
    for name, array in others.items():
        if dict(array.sizes) != dict(x.sizes):
            raise ValueError(
                f"dots need arrays of the same axes, not {dict(x.sizes)} and, of {name!r}, {dict(array.sizes)}"
            )
    cells = x.stack(cell=x.dims)
    names = [", ".join(map(plain, index)) for index in cells["cell"].values]
    for i, (name, array) in enumerate(others.items()):
        colour, _, mark = pen(i)
        marks = dict(color=colour, symbol=mark, size=8, opacity=0.7)
        values = in_order_of(array.transpose(*x.dims), x).values.ravel()
        dots = go.Scatter(x=cells.values, y=values, text=names, mode="markers", marker=marks, name=plain(name))
        figure.add_trace(dots.update(showlegend=not alone))
    if diagonal and np.isfinite(cells.values).any():
        ends = [float(np.nanmin(cells.values)), float(np.nanmax(cells.values))]
        figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line=dict(color="#999", dash="dash"), name="equal"))
    figure.update_xaxes(title=quantity(x), zeroline=True, zerolinecolor="#bbb")
    figure.update_yaxes(
        title=plain(y_title or (next(iter(others)) if alone else "")), zeroline=True, zerolinecolor="#bbb"
    )
    return dress(figure, title, height=460)


def _is_curve(data: Any) -> bool:
    """Whether this is one curve: a dataset is a mapping as well."""
    return isinstance(data, xr.DataArray) or (isinstance(data, xr.Dataset) and "mean" in data)


def _check(data: Any, x: str, what: str) -> None:
    if not isinstance(data, xr.DataArray | xr.Dataset):
        raise ValueError(f"{what} should be an array or a dataset of mean, low and high, not a {type(data).__name__}")
    if isinstance(data, xr.Dataset) and (lost := {"mean", "low", "high"} - {*map(str, data)}):
        raise ValueError(
            f"{what} should be an array or a dataset of mean, low and high, as stats.interval gives it; this has no "
            f"{', '.join(sorted(lost))}"
        )
    values = data["mean"] if isinstance(data, xr.Dataset) else data
    if values.ndim != 1 or not (x in values.dims or (x in values.coords and values[x].dims == values.dims)):
        raise ValueError(
            f"{what} should have the axis {x} alone, not {values.dims}; choose or average the others, as in "
            ".mean('prompt')"
        )


def _along(labels: Any) -> Any:
    """Where points are: at numbers, or at labels as they stand."""
    return labels.values if labels.dtype.kind in "iufbM" else distinct([plain(label) for label in labels.values])


def _measured(data: Any) -> str:
    return quantity(data["mean"] if isinstance(data, xr.Dataset) else data)
