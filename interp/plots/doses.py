"""Dose and response: a vector's curve over the bands of those that should do nothing, and its cost below."""

from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from interp.arguments import check_labelled_array
from interp.plots.style import COLOURS, check_numbers, dress, outline, plain, quantity, whiskers
from interp.stats import interval


def doses(
    values: xr.DataArray, cost: xr.DataArray | None = None, budget: float | None = None, title: str = ""
) -> go.Figure:
    """The mean response of the first vector, with its bootstrap interval over prompts, and a band for each kind of
    null.

    Args:
        values: By (vector, dose, prompt), the others named "random 0", "random 1", ... as `steering.dose_response`
            does; a band holds the means of 95 % of the vectors of its kind.
        cost: By (dose, prompt), such as the `kl` of `steering.side_effects`; drawn below, over the same doses.
        budget: Of the cost, a line.

    Raises:
        ValueError: Other axes; no number.
    """
    check_labelled_array(values)
    for array, axes in ((values, {"vector", "dose", "prompt"}), (cost, {"dose", "prompt"})):
        if array is not None and set(array.dims) != axes:
            raise ValueError(f"doses needs values by (vector, dose, prompt), costs by (dose, prompt), not {array.dims}")
    check_numbers("doses", values)
    names = [str(name) for name in values["vector"].values]
    kinds = list(dict.fromkeys(name.rpartition(" ")[0] for name in names[1:]))
    rows = 1 if cost is None else 2
    figure = make_subplots(rows=rows, shared_xaxes=True, row_heights=[0.68, 0.32][:rows], vertical_spacing=0.06)
    values = values.sortby("dose")
    for kind, colour in zip(kinds, cycle(COLOURS[1:])):
        means = values.isel(vector=[name.rpartition(" ")[0] == kind for name in names]).mean("prompt")
        low, middle, high = np.quantile(means.transpose("vector", "dose").values, [0.025, 0.5, 0.975], axis=0)
        _band(figure, values.dose.values, low, high, colour, 1)
        lone = whiskers(middle, low, high, colour)
        _line(figure, values.dose.values, middle, colour, f"{plain(kind)}, median and 95 %", 1, lone)
    _curve(figure, values.isel(vector=0, drop=True), COLOURS[0], plain(names[0]), 1)
    figure.update_yaxes(title=quantity(values), zeroline=True, zerolinecolor="#888", row=1, col=1)
    if cost is not None:
        _curve(figure, cost.sortby("dose"), "#666", quantity(cost), 2)
        figure.update_yaxes(title=quantity(cost), rangemode="tozero", row=2, col=1)
        if budget is not None:
            figure.add_hline(y=budget, line_dash="dot", line_color="#a00", row=2, col=1, annotation_text="budget")
    unit = f" ({plain(values.attrs['unit'])})" if values.attrs.get("unit") else ""
    figure.update_xaxes(title=f"dose{unit}", row=rows, col=1)
    return dress(figure, title, height=380 if cost is None else 560)


def _curve(figure: go.Figure, array: xr.DataArray, colour: str, name: str, row: int) -> None:
    """The mean over prompts and, of two or more, its interval."""
    mean, error = array.mean("prompt").values, None
    if array.sizes["prompt"] > 1:
        found = interval(array)
        _band(figure, found.dose.values, found.low.values, found.high.values, colour, row)
        error = whiskers(mean, found.low.values, found.high.values, colour)
    _line(figure, array.dose.values, mean, colour, name, row, error)


def _band(figure: go.Figure, x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, row: int) -> None:
    along, band = outline(x, low, high)
    figure.add_trace(
        go.Scatter(x=along, y=band, mode="lines", fill="toself", fillcolor=colour, opacity=0.18, line_width=0,
                   hoverinfo="skip", showlegend=False),
        row=row, col=1,
    )  # fmt: skip


def _line(figure: go.Figure, x: np.ndarray, y: np.ndarray, colour: str, name: str, row: int, error: Any = None) -> None:
    trace = go.Scatter(x=x, y=y, error_y=error, name=name, mode="lines+markers", line_color=colour, showlegend=row == 1)
    figure.add_trace(trace, row=row, col=1)
