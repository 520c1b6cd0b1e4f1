"""Two axes as an image."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.arguments import check_labelled_array
from interp.arrays import in_order_of
from interp.plots.style import (
    BAR,
    check_numbers,
    distinct,
    dress,
    legible,
    longest_line,
    plain,
    quantity,
    scale_of,
    size_of,
    ticks_of,
)


def heatmap(
    array: xr.DataArray,
    title: str = "",
    text: xr.DataArray | None = None,
    significant: xr.DataArray | None = None,
    diverging: bool | None = None,
) -> go.Figure:
    """Two axes as an image: signed values on a scale centred at zero, layers upwards; NaN is left grey.

    Args:
        text: What to write into the cells, where "\\n" between words begins a line; numbers are rounded.
        significant: Cells that get a star, such as `stats.summary(...).significant`.
        diverging: Whether the scale is centred at zero; by default if there is a negative value.

    Raises:
        ValueError: An array with other than two axes; average over the others first. One with no number in it. Texts
            that are too many or too few.
    """
    for given in (array, text, significant):
        if given is not None:
            check_labelled_array(given)
    if array.ndim != 2:
        raise ValueError(f"a heatmap needs two axes, not {array.dims}; average the others, as in .mean('prompt')")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"a heatmap shows numbers, not {array.dtype}; give real ones, or words by text=")
    values = array.values.astype(float)
    check_numbers("a heatmap", array)
    if significant is not None:
        text = significant.copy(data=np.where(significant, "★", ""))
    y, x = array.dims
    columns, rows = (distinct([plain(v) for v in array[axis].values]) for axis in (x, y))
    image = go.Heatmap(
        z=values, x=columns, y=rows, **scale_of(values, diverging), colorbar=BAR | dict(title=quantity(array)),
        hovertemplate=f"{plain(y)} %{{y}}<br>{plain(x)} %{{x}}<br>%{{z:.4g}}<extra></extra>", hoverongaps=False,
    )  # fmt: skip
    if text is not None:
        cells = _cells(_aligned(text, array))
        image.update(text=cells, texttemplate="%{text}", textfont_size=size_of(cells))
    figure = go.Figure([image] if text is None else legible(image))
    figure.update_xaxes(title=plain(x), type="category", showgrid=False, **ticks_of(columns))
    figure.update_yaxes(title=plain(y), type="category", showgrid=False, **ticks_of(rows))
    figure = _sized(figure, title, len(rows), len(columns), 0 if text is None else longest_line(cells))
    return figure if np.isfinite(values).all() else figure.update_layout(plot_bgcolor="#e8e8e8")


def triangle(array: xr.DataArray, title: str = "", significant: xr.DataArray | None = None) -> go.Figure:
    """A query by key array as a heatmap that is read like text: the first query at the top, masked cells left grey.

    Raises:
        ValueError: An array of other axes than query and key.
    """
    check_labelled_array(array)
    if set(array.dims) != {"query", "key"}:
        raise ValueError(f"a triangle needs the axes query and key, not {array.dims}; choose or average the others")
    figure = heatmap(array.transpose("query", "key"), title, significant=significant, diverging=True)
    return figure.update_yaxes(autorange="reversed")


def _aligned(text: xr.DataArray, array: xr.DataArray) -> np.ndarray:
    """In the order of the array's axes and labels, or as it is if they have other names."""
    found = in_order_of(text.transpose(*array.dims), array) if set(text.dims) == set(array.dims) else text
    if found.shape != array.shape:
        raise ValueError(f"each cell of {dict(array.sizes)} gets a text of its own, not {dict(text.sizes)}")
    return found.values


def _cells(values: np.ndarray) -> np.ndarray:
    """What is written into cells: numbers to two places, or as many more as the largest needs for two digits."""
    numbers = [abs(v) for v in values.ravel().tolist() if isinstance(v, float) and np.isfinite(v)]
    largest = max(numbers, default=1.0) or 1.0
    places = int(np.clip(1 - np.floor(np.log10(largest)), 2, 6))
    form = f"z.{places}f" if 1e-4 <= largest < 1e5 else ".2g"
    cell = lambda v: ("" if np.isnan(v) else f"{v:{form}}") if isinstance(v, float) else plain(v)
    return np.array([cell(v) for v in values.ravel().tolist()], dtype=object).reshape(values.shape)


def _sized(figure: go.Figure, title: str, rows: int, columns: int, letters: int) -> go.Figure:
    """A figure as large as its labels, and the letters in a cell, need; all labels are shown while they can be read."""
    row = 44.0 if rows <= 8 else min(26.0, 900 / rows)
    if 8 < rows <= 90:
        figure.update_yaxes(dtick=1, tickfont_size=int(min(13, row - 2)))
    crowded = sum(map(len, figure.layout.xaxis.ticktext or figure.data[0].x)) > 90
    figure.update_xaxes(tickangle=-45 if columns > 8 or crowded else 0)
    if 30 < columns <= 90:
        figure.update_xaxes(dtick=1, tickfont_size=10, tickangle=-90)
    needed = 220 + columns * max(12 if 30 < columns <= 90 else 0, 5 * letters)
    if needed > 700:
        figure.update_layout(width=min(needed, 2400))
    return dress(figure, title, height=170 + round(max(row * rows, 200)))
