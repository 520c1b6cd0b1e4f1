"""Labelled arrays to plotly figures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

_FONT = dict(family="Inter, Helvetica, Arial, sans-serif", size=13, color="#222")
_COLOURS = ("#2a5d9f", "#c0562f", "#5b8c5a", "#8a5a9e", "#b08d2e")


def heatmap(array: xr.DataArray, title: str = "", text: xr.DataArray | None = None) -> go.Figure:
    """Two axes as an image: signed values on a scale centred at zero, layers upwards.

    Raises:
        ValueError: An array with other than two axes; average over the others first.
    """
    if array.ndim != 2:
        raise ValueError(f"a heatmap needs two axes, not {array.dims}; average the others, as in .mean('prompt')")
    values = array.values
    reach = float(np.nanmax(np.abs(values))) or 1.0
    signed = bool(np.nanmin(values) < 0)
    y, x = array.dims
    figure = go.Figure(
        go.Heatmap(
            z=values, x=[str(v) for v in array[x].values], y=[str(v) for v in array[y].values],
            colorscale="RdBu" if signed else "Blues", zmid=0 if signed else None,
            zmin=-reach if signed else 0, zmax=reach, colorbar=dict(title=array.name, thickness=12),
            text=None if text is None else text.values, texttemplate=None if text is None else "%{text}",
            hovertemplate=f"{y} %{{y}}<br>{x} %{{x}}<br>%{{z:.3f}}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title=x, type="category", tickangle=-45 if array.sizes[x] > 8 else 0)
    figure.update_yaxes(title=y, type="category")
    row = 44 if array.sizes[y] <= 8 else 26
    return _dress(figure, title, height=170 + max(row * array.sizes[y], 200))


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
