"""Values over one axis: curves with bands, bars with intervals, dots per prompt; and values against others."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.arguments import check_labelled_array
from interp.arrays import in_order_of
from interp.plots.style import (
    COLOURS,
    along_axis,
    check_numbers,
    distinct,
    dress,
    outline,
    pen,
    plain,
    quantity,
    steps_of,
    ticks_of,
    whiskers,
)
from interp.stats import interval

Curve = xr.Dataset | xr.DataArray


def distributions(
    array: xr.DataArray, title: str = "", most: int = 16, over: str = "prompt", seed: int = 0
) -> go.Figure:
    """Every prompt's value in the cells of largest mean: dots, their violin, and the mean with its bootstrap interval.

    Args:
        most: How many cells to show.
        over: The axis of the dots.

    Raises:
        ValueError: One prompt alone; no number; `most` below 1.
    """
    check_labelled_array(array)
    check_numbers("distributions", array)
    if most < 1:
        raise ValueError(f"at least one cell is shown; most={most} was given")
    table = interval(array, over, seed=seed)
    axes = [axis for axis in array.dims if axis != over]
    flat = array.transpose(over, *axes).values.reshape(array.sizes[over], -1)
    names = distinct([", ".join(map(plain, index)) for index in product(*(array[axis].values for axis in axes))])
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
    figure.update_xaxes(ticks_of([names[i] for i in chosen]))
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
        ValueError: A curve of other axes than `x`; a dataset without mean, low and high; no number.
    """
    alone = _is_curve(data) or not isinstance(data, Mapping)
    curves: dict[str, Any] = {"": data} if alone else {str(name): curve for name, curve in data.items()}
    for name, curve in curves.items():
        _check(curve, x, f"the curve {name!r}" if name else "a curve")
    check_numbers("lines", *map(_mean, curves.values()))
    measured = {_measured(curve) for curve in curves.values()}
    title_of_y = plain(y_title) or (measured.pop() if len(measured) == 1 else "")
    figure = go.Figure()
    for i, (name, curve) in enumerate(curves.items()):
        if curve[x].dims == (x,) and curve[x].dtype.kind in "iuf":
            curve = curve.sortby(x)
        (colour, dash, mark), along, error = pen(i), along_axis(curve[x]), None
        if isinstance(curve, xr.Dataset):
            around, band = outline(along, curve["low"].values, curve["high"].values)
            error = whiskers(curve["mean"].values, curve["low"].values, curve["high"].values, colour)
            figure.add_trace(
                go.Scatter(x=around, y=band, mode="lines", fill="toself", fillcolor=colour,
                           opacity=0.18, line_width=0, hoverinfo="skip", showlegend=False)
            )  # fmt: skip
        figure.add_trace(
            go.Scatter(x=along, y=_mean(curve).values, error_y=error, name=plain(name), mode="lines+markers",
                       marker_symbol=mark, line=dict(color=colour, dash=dash), showlegend=len(curves) > 1 or bool(name))
        )  # fmt: skip
    figure.update_xaxes(title=plain(x), **axis_of(x, *(curve[x] for curve in curves.values())))
    figure.update_yaxes(title=title_of_y, zeroline=True, zerolinecolor="#bbb")
    return dress(figure, title)


def bars(data: Curve, x: str, title: str = "", y_title: str = "") -> go.Figure:
    """Means with their intervals, from a dataset of mean, low and high; or the values of an array.

    Raises:
        ValueError: Other axes than `x`; a dataset without mean, low and high.
    """
    _check(data, x, "bars")
    check_numbers("bars", _mean(data))
    error: dict[str, Any] | None = None
    if isinstance(data, xr.Dataset):
        up, down = data["high"] - data["mean"], data["mean"] - data["low"]
        error = dict(type="data", array=up.values, arrayminus=down.values, color="#444", thickness=1)
    means = _mean(data)
    colours = [COLOURS[0] if value >= 0 else COLOURS[1] for value in means.values]
    names = distinct([plain(v) for v in data[x].values])
    figure = go.Figure(go.Bar(x=names, y=means.values, error_y=error, marker_color=colours))
    crowded = len(names) * max(map(len, names), default=0) > 90
    figure.update_xaxes(title=plain(x), type="category", tickangle=-45 if crowded or len(names) > 8 else 0)
    figure.update_xaxes(ticks_of(names))
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
    check_labelled_array(x)
    figure = go.Figure()
    alone = not isinstance(y, Mapping)
    others: dict[str, Any] = dict(y) if isinstance(y, Mapping) else {str(getattr(y, "name", "") or ""): y}
    for name, array in others.items():
        check_labelled_array(array)
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
    values = _mean(data)
    if values.ndim != 1 or not (x in values.dims or (x in values.coords and values[x].dims == values.dims)):
        raise ValueError(
            f"{what} should have the axis {x} alone, not {values.dims}; choose or average the others, as in "
            ".mean('prompt')"
        )


def axis_of(x: str, *labels: xr.DataArray) -> dict[str, Any]:
    """How an axis is marked: layers at their numbers, long labels cut off."""
    if all(some.dtype.kind in "iu" for some in labels) and x in ("layer", "ahead"):
        return steps_of([number for some in labels for number in some.values.tolist()])
    texts = [label for some in labels if some.dtype.kind not in "iufbM" for label in along_axis(some)]
    return ticks_of(list(dict.fromkeys(texts)))


def _mean(data: Any) -> xr.DataArray:
    return data["mean"] if isinstance(data, xr.Dataset) else data


def _measured(data: Any) -> str:
    return quantity(_mean(data))
