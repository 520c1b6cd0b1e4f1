"""What a model would say, word by word: maps with a word in each cell, and trajectories over layers."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.plots.style import BAR, COLOURS, dress, legible, outline, plain, quantity, size_of
from interp.stats import interval

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
        ValueError: Values of other than two axes; words of other axes.
    """
    if values.ndim != 2 or set(word.dims) not in ({*values.dims}, {*values.dims, "top"}):
        raise ValueError(
            f"words needs values of two axes and a word for each, not {values.dims} and {word.dims}; choose one of "
            "the others, as in .isel(prompt=0)"
        )
    y, x = values.dims
    several = (word if "top" in word.dims else word.expand_dims("top")).transpose("top", y, x).values
    cells = several.reshape(len(several), -1).T.tolist()
    hover = np.array(["<br>".join(plain(word) for word in cell if word) for cell in cells])
    inside = np.array([plain(word) for word in several[0].ravel()], dtype=object).reshape(values.shape)
    under = [plain(label) for label in (values[x] if labels is None else labels).values]
    greys = np.zeros(values.sizes[y], bool) if grey is None else grey.values
    shared = dict(
        x=list(range(len(under))), y=[plain(v) for v in values[y].values], texttemplate="%{text}",
        customdata=hover.reshape(values.shape), textfont_size=size_of(inside),
        zmin=0, xgap=1, ygap=1, hoverongaps=False,
        zmax=float(np.nanmax(values.values, initial=1e-9)),
        hovertemplate=f"{plain(y)} %{{y}}<br>%{{z:.4g}}<br>%{{customdata}}<extra></extra>",
    )  # fmt: skip
    images: list[go.Heatmap] = []
    for rows, scale in ((~greys, "Blues"), (greys, _GREYS)):
        if rows.any():
            z = np.where(rows[:, None], values.values, np.nan)
            shown = np.where(np.isnan(z), "", inside)
            bar: dict[str, Any] = dict(colorbar=BAR | dict(title=quantity(values).replace("_", " ")))
            bar = bar if scale == "Blues" else dict(showscale=False)
            images.append(go.Heatmap(z=z, colorscale=scale, text=shown, **shared, **bar))
    figure = go.Figure([*images, *(dark for image in images for dark in legible(image)[1:])])
    figure.update_xaxes(
        title=plain(x),
        tickvals=list(range(len(under))),
        ticktext=under,
        tickangle=-45 if len(under) > 6 else 0,
        showgrid=False,
    )
    figure.update_yaxes(title=plain(y), type="category", categoryarray=shared["y"], showgrid=False)
    return dress(figure, title, height=190 + 34 * values.sizes[y])


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
        ValueError: Other axes than the two.
    """
    if set(array.dims) != {x, over}:
        raise ValueError(f"trajectories needs the axes {x} and {over}, not {array.dims}; choose or average the others")
    along = array[x].values
    figure = go.Figure()
    for i, curve in enumerate(array.transpose(over, x).values):
        figure.add_trace(
            go.Scatter(x=along, y=curve, mode="lines", line=dict(color=COLOURS[0], width=0.7), opacity=0.35,
                       name="each prompt", legendgroup="each", showlegend=i == 0, hoverinfo="skip")
        )  # fmt: skip
    if array.sizes[over] > 1:
        band = interval(array, over, seed=seed)
        around, edge = outline(along, band["low"].values, band["high"].values)
        figure.add_trace(
            go.Scatter(x=around, y=edge, mode="lines", fill="toself", line_width=0,
                       fillcolor=COLOURS[1], opacity=0.25, hoverinfo="skip", showlegend=False)
        )  # fmt: skip
    colours = [COLOURS[1]] * len(along) if grey is None else ["#bbb" if g else COLOURS[1] for g in grey.values]
    marker = dict(color=colours, size=9, line=dict(color=COLOURS[1], width=1))
    mean = array.mean(over).values
    figure.add_trace(
        go.Scatter(
            x=along, y=mean, mode="lines+markers", line=dict(color=COLOURS[1], width=3), marker=marker, name="mean"
        )
    )
    if grey is not None and bool(grey.any()):
        figure.add_trace(
            go.Scatter(x=[None], y=[None], mode="markers", marker=marker | {"color": "#bbb"}, name="no skill")
        )
    figure.update_xaxes(title=plain(x), dtick=1 if x == "layer" else None)
    figure.update_yaxes(title=quantity(array).replace("_", " "), zeroline=True, zerolinecolor="#bbb")
    return dress(figure, title)
