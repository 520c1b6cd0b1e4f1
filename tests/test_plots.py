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


def test_dots_are_the_cells_of_both_arrays_whatever_the_order_of_their_axes():
    one, other = _array("writer", "reader"), _array("writer", "reader") * 2
    dots, line = plots.scatter(one, {"twice": other.transpose()}, diagonal=True).data
    np.testing.assert_allclose(np.array(dots.y), 2 * np.array(dots.x))
    assert dots.text[1] == "0, 1" and dots.x[1] == one[0, 1] and list(line.x) == [one.min(), one.max()]


def test_nothing_to_show_is_said():
    with pytest.raises(ValueError, match="at least one number"):
        plots.heatmap(_array("layer", "head") * np.nan)


def test_words_stand_in_their_cells_and_rows_without_skill_are_grey():
    values = _array("layer", "pos").where(lambda a: a.pos < 2)
    word = xr.DataArray(np.array([f"w{i}" for i in range(18)]).reshape(3, 2, 3), dims=("layer", "top", "pos"))
    grey = xr.DataArray([True, False, False], dims="layer")
    coloured, plain = plots.words(values, word, grey=grey).data
    np.testing.assert_array_equal(np.isnan(coloured.z), [[True] * 3, [False, False, True], [False, False, True]])
    np.testing.assert_array_equal(np.isnan(plain.z), [[False, False, True], [True] * 3, [True] * 3])
    assert coloured.text[1].tolist() == ["w6", "w7", ""] and plain.text[0].tolist() == ["w0", "w1", ""]
    assert coloured.customdata[1, 0] == "w6<br>w9" and coloured.zmax == plain.zmax
    with pytest.raises(ValueError, match="words needs values of two axes"):
        plots.words(_array("layer", "pos", "prompt"), word)


def test_trajectories_are_the_prompts_and_their_mean():
    array = _array("layer", "prompt")
    *curves, band, mean, _ = plots.trajectories(array, grey=xr.DataArray([True, False, False], dims="layer")).data
    np.testing.assert_array_equal([curve.y for curve in curves], array.T)
    np.testing.assert_allclose(mean.y, array.mean("prompt"))
    np.testing.assert_allclose(band.y[:3], stats.interval(array)["high"])
    assert mean.marker.color[0] != mean.marker.color[1] == mean.marker.color[2]
    with pytest.raises(ValueError, match="trajectories needs the axes layer and prompt"):
        plots.trajectories(_array("layer", "head"))
