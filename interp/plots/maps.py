"""Two axes as an image."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.plots.style import dress


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
    figure = dress(figure, title, height=170 + max(row * array.sizes[y], 200))
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
