"""Probes by layer: how well each place is read, and how well the best would be by chance."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.plots.style import check_numbers, dress, pen, plain, steps_of

_NULLS = {"skill": 0.0, "auroc": 0.5, "selectivity": 0.0, "compression": 1.0}


def probes(result: xr.Dataset, value: str = "accuracy", title: str = "") -> go.Figure:
    """A curve for each position over layers, with its interval, and in grey what says nothing.

    For accuracies the band ends where 95 % of shuffles of the labels leave the best place, and 95 % the worst; other
    values have a line where there is nothing to be read.

    Args:
        result: What `probing.probe` returns; of heads, the best of each layer is shown.
        value: Such as "accuracy", "skill", "balanced_accuracy", "auroc", "selectivity" or "compression".

    Raises:
        ValueError: What is no dataset; a value that the result does not have by layer and position, or only as NaN.
    """
    if not isinstance(result, xr.Dataset):
        raise ValueError(
            f"probes are drawn from the dataset that probing.probe gives, not from a {type(result).__name__}"
        )
    known = [str(name) for name in result if {"layer", "pos"} <= set(result[name].dims) <= {"layer", "pos", "head"}]
    if value not in known:
        raise ValueError(
            f"there is no {value!r} by layer and position in these probes; there are {', '.join(known) or 'none'}"
        )
    check_numbers("probes", result[value])
    if "head" in result.dims:
        result = result.isel(head=result[value].fillna(-np.inf).argmax("head"))
    figure = go.Figure()
    layers = [int(layer) for layer in result["layer"].values]
    null = "balanced_null_of_the_" if value == "balanced_accuracy" else "null_of_the_"
    if "accuracy" in value and f"{null}best" in result.attrs:
        _band(figure, layers, float(result.attrs[f"{null}worst"]), float(result.attrs[f"{null}best"]))
    elif value in _NULLS:
        figure.add_hline(_NULLS[value], line=dict(color="#888", dash="dot"))
    for i, place in enumerate(result["pos"].values):
        here, (colour, dash, mark) = result.sel(pos=place), pen(i)
        error = None
        if f"{value}_low" in result:
            up, down = here[f"{value}_high"] - here[value], here[value] - here[f"{value}_low"]
            error = dict(type="data", array=up.values, arrayminus=down.values, thickness=1.2, width=4)
        shift = 0.03 * (i - (result.sizes["pos"] - 1) / 2)  # so that intervals do not hide each other
        figure.add_trace(
            go.Scatter(x=[layer + shift for layer in layers], y=here[value].values, error_y=error, name=_name_of(place),
                       mode="lines+markers", line=dict(color=colour, dash=dash), marker_symbol=mark,
                       text=[plain(word) for word in here["verdict"].values] if "verdict" in here else None,
                       hovertemplate="layer %{x:.0f}<br>%{y:.3f}<br>%{text}<extra>%{fullData.name}</extra>")
        )  # fmt: skip
    figure.update_xaxes(title="layer", **steps_of(layers), zeroline=False)
    figure.update_yaxes(title=plain(value.replace("_", " ")), zeroline=False)
    return dress(figure, title)


def _name_of(place: object) -> str:
    """A position as the legend says it; a role by its name."""
    number = str(place).lstrip("-").isdigit()
    return "last position" if str(place) == "-1" else f"position {place}" if number else plain(place)


def _band(figure: go.Figure, layers: list[int], low: float, high: float) -> None:
    edge = 0.15 if len(layers) > 1 else 0.3
    left, right = layers[0] - edge, layers[-1] + edge
    figure.add_trace(
        go.Scatter(x=[left, right, right, left], y=[high, high, low, low], fill="toself", fillcolor="#999",
                   opacity=0.25, line_width=0, mode="lines", name="shuffled labels, best place", hoverinfo="skip")
    )  # fmt: skip
