"""Labelled arrays to plotly figures."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.stats import interval

_FONT = dict(family="Inter, Helvetica, Arial, sans-serif", size=13, color="#222")
_COLOURS = ("#2a5d9f", "#c0562f", "#5b8c5a", "#8a5a9e", "#b08d2e")


def heatmap(
    array: xr.DataArray,
    title: str = "",
    text: xr.DataArray | None = None,
    significant: xr.DataArray | None = None,
    diverging: bool | None = None,
) -> go.Figure:
    """Two axes as an image: signed values on a scale centred at zero, layers upwards; NaN is left grey.

    Args:
        text: What to write into the cells.
        significant: Cells that get a star, such as `stats.summary(...).significant`.
        diverging: Whether the scale is centred at zero; by default if there is a negative value.

    Raises:
        ValueError: An array with other than two axes; average over the others first. One with no number in it.
    """
    if array.ndim != 2:
        raise ValueError(f"a heatmap needs two axes, not {array.dims}; average the others, as in .mean('prompt')")
    values = array.values
    if not np.isfinite(values).any():
        raise ValueError(f"a heatmap needs at least one number; {dict(array.sizes)} values are all NaN")
    reach = float(np.nanmax(np.abs(values))) or 1.0
    signed = bool(np.nanmin(values) < 0) if diverging is None else diverging
    if significant is not None:
        text = significant.transpose(*array.dims).copy(data=np.where(significant.transpose(*array.dims), "★", ""))
    y, x = array.dims
    figure = go.Figure(
        go.Heatmap(
            z=values, x=[str(v) for v in array[x].values], y=[str(v) for v in array[y].values],
            colorscale="RdBu" if signed else "Blues", zmid=0 if signed else None,
            zmin=-reach if signed else 0, zmax=reach, colorbar=dict(title=array.name, thickness=12),
            text=None if text is None else text.values, texttemplate=None if text is None else "%{text}",
            hovertemplate=f"{y} %{{y}}<br>{x} %{{x}}<br>%{{z:.3f}}<extra></extra>", hoverongaps=False,
        )
    )  # fmt: skip
    figure.update_xaxes(title=x, type="category", tickangle=-45 if array.sizes[x] > 8 else 0, showgrid=False)
    figure.update_yaxes(title=y, type="category", showgrid=False)
    row = 44 if array.sizes[y] <= 8 else 26
    figure = _dress(figure, title, height=170 + max(row * array.sizes[y], 200))
    return figure.update_layout(plot_bgcolor="#e8e8e8") if np.isnan(values).any() else figure


def triangle(array: xr.DataArray, title: str = "", significant: xr.DataArray | None = None) -> go.Figure:
    """A query by key array as a heatmap that is read like text: the first query at the top, masked cells left grey.

    Raises:
        ValueError: An array of other axes than query and key.
    """
    if set(array.dims) != {"query", "key"}:
        raise ValueError(f"a triangle needs the axes query and key, not {array.dims}; choose or average the others")
    figure = heatmap(array.transpose("query", "key"), title, significant=significant, diverging=True)
    return figure.update_yaxes(autorange="reversed")


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
                      line_color=_COLOURS[0], fillcolor="rgba(42,93,159,0.15)", marker=dict(size=4, opacity=0.55),
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
    return _dress(figure, title, height=440)


def lines(data: Mapping[str, xr.Dataset | xr.DataArray], x: str, title: str = "", y_title: str = "") -> go.Figure:
    """Curves over one axis; a dataset of mean, low and high is drawn with its band."""
    figure = go.Figure()
    for i, (name, curve) in enumerate(data.items()):
        colour = _COLOURS[i % len(_COLOURS)]
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
    figure.update_xaxes(title=x, dtick=1 if x == "layer" else None)
    figure.update_yaxes(title=y_title, zeroline=True, zerolinecolor="#bbb")
    return _dress(figure, title)


def bars(data: xr.Dataset, x: str, title: str = "", y_title: str = "") -> go.Figure:
    """Means with their intervals."""
    up, down = data["high"] - data["mean"], data["mean"] - data["low"]
    error: dict[str, Any] = dict(type="data", array=up.values, arrayminus=down.values, color="#444", thickness=1)
    colours = [_COLOURS[0] if value >= 0 else _COLOURS[1] for value in data["mean"].values]
    figure = go.Figure(
        go.Bar(x=[str(v) for v in data[x].values], y=data["mean"].values, error_y=error, marker_color=colours)
    )
    figure.update_xaxes(title=x, type="category", tickangle=-45 if data.sizes[x] > 8 else 0)
    figure.update_yaxes(title=y_title, zeroline=True, zerolinecolor="#888")
    return _dress(figure, title)


def _dress(figure: go.Figure, title: str, height: int = 380) -> go.Figure:
    figure.update_layout(
        title=dict(text=title, x=0.02, font_size=16), template="plotly_white", font=_FONT, height=height,
        margin=dict(l=70, r=30, t=60, b=90),
        legend=dict(orientation="h", y=1.02, yanchor="bottom", x=1, xanchor="right"),
    )  # fmt: skip
    return figure
