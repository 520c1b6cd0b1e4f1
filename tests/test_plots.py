"""Figures show the numbers that they were given."""

import numpy as np
import pytest
import xarray as xr

from interp import plots, stats


def _array(*dims: str) -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=[3] * len(dims)) + 1
    return xr.DataArray(values, dims=dims, coords={dim: range(3) for dim in dims}, name="effect")


def test_stars_stand_where_effects_are_significant():
    array = _array("head", "layer")
    (image,) = plots.heatmap(array, significant=(array > 0.9).T, diverging=True).data
    np.testing.assert_array_equal(np.array(image.text) == "★", array > 0.9)
    assert image.zmid == 0 and image.zmin == -image.zmax


def test_the_first_query_of_a_triangle_is_on_top_and_masked_cells_stay_empty():
    array = _array("key", "query")
    figure = plots.triangle(array.where(array.key <= array["query"]))
    assert figure.layout.yaxis.autorange == "reversed" and figure.layout.plot_bgcolor != "white"
    np.testing.assert_array_equal(np.isnan(figure.data[0].z), np.triu(np.ones((3, 3)), 1))
    with pytest.raises(ValueError, match="needs the axes query and key"):
        plots.triangle(_array("layer", "head"))


def test_distributions_show_every_prompt_of_the_largest_cells():
    array = _array("layer", "prompt", "head")
    array[1] += 10
    *violins, means = plots.distributions(array, most=3).data
    table = stats.interval(array)["mean"].sel(layer=1)
    assert list(means.x) == ["1, 0", "1, 1", "1, 2"]
    np.testing.assert_allclose(means.y, table)
    np.testing.assert_array_equal([violin.y for violin in violins], array.sel(layer=1).transpose("head", "prompt"))


def test_nothing_to_show_is_said():
    with pytest.raises(ValueError, match="at least one number"):
        plots.heatmap(_array("layer", "head") * np.nan)
