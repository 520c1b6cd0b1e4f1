"""Figures show the numbers that they were given."""

from html import unescape

import numpy as np
import pytest
import xarray as xr

from interp import plots, stats
from interp.plots.style import legible

TOKENS = ["<s>", "</s>", "<br>", "<b>x", "&lt;", "$1", "\x07", "\x1f", "\n", ");\n", "\t"]
SEEN = ["<s>", "</s>", "<br>", "<b>x", "&lt;", "$1", r"\x07", r"\x1f", "↵", ");↵", "⇥"]


def _array(*dims: str) -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=[3] * len(dims)) + 1
    return xr.DataArray(values, dims=dims, coords={dim: range(3) for dim in dims}, name="effect")


def test_stars_stand_where_effects_are_significant():
    array = _array("head", "layer")
    image, *_ = plots.heatmap(array, significant=(array > 0.9).T, diverging=True).data
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
    coloured, plain, *_ = plots.words(values, word, grey=grey).data
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


def _texts(figure) -> list[str]:
    """All that plotly reads as markup."""
    found = [title.text for title in (figure.layout.title, figure.layout.xaxis.title, figure.layout.yaxis.title)]
    found += [*(figure.layout.xaxis.ticktext or ())]
    for trace in figure.data:
        found += [trace.name]
        for part in ("x", "y", "text", "customdata"):
            given = [] if getattr(trace, part, None) is None else getattr(trace, part)
            found += [text for text in np.ravel(np.array(given, dtype=object)) if isinstance(text, str)]
        if trace.type == "heatmap":
            found.append(trace.colorbar.title.text)
    return [text for text in found if text]


def test_labels_are_shown_as_they_stand_in_every_figure():
    rng = np.random.default_rng(0)
    named = dict(dims=("layer", "pos"), coords={"layer": TOKENS[:3], "pos": TOKENS}, name="<s>")
    table = xr.DataArray(rng.random((3, len(TOKENS))), **named)
    words, flat = xr.DataArray([TOKENS] * 3, **named), table.isel(layer=0, drop=True)
    prompts = flat.expand_dims(prompt=3)
    square = xr.DataArray(rng.random((len(TOKENS),) * 2), dims=("query", "key"))
    vectors = flat[:3].rename(pos="vector").assign_coords(vector=["<s>", "<b>x 0", "<b>x 1"])
    vectors = vectors.expand_dims(prompt=3, dose=2).assign_attrs(unit="gap")
    figures = [
        plots.heatmap(table, "<s>", text=words),
        plots.words(table, words, "<s>"),
        plots.token_map(square, "<s>", TOKENS),
        plots.lines({name: flat for name in TOKENS}, "pos", "<s>", "<s>"),
        plots.bars(flat, "pos", "<s>"),
        plots.distributions(prompts, "<s>"),
        plots.scatter(flat, {name: flat for name in TOKENS}, "<s>"),
        plots.doses(vectors, title="<s>"),
    ]
    for figure in figures:
        texts = _texts(figure)
        assert "&lt;s&gt;" in texts
        for text in texts:
            pieces = text.replace(", median and 95 %", "").split("<br>")
            assert all("<" not in piece and "$" not in piece and piece.isprintable() for piece in pieces)
            assert {unescape(piece) for piece in pieces} <= {
                *SEEN, *named["dims"], "query", "key", "dose (gap)", "mean, 95 % interval",
                *(f"{i} {token}" for i, token in enumerate(SEEN)),
            }  # fmt: skip


def test_an_author_may_break_a_line():
    array = _array("layer", "head").assign_coords(head=["one\ntwo", "2 \n", "3"])
    figure = plots.heatmap(array, "above\nbelow", text=array.copy(data=np.full((3, 3), "0.1\nnull")))
    assert figure.layout.title.text == "above<br>below" and figure.data[0].text[0, 0] == "0.1<br>null"
    assert list(figure.data[0].x) == ["one<br>two", "2 ↵", "3"]


def test_numbers_in_cells_are_rounded_but_not_away():
    array = _array("layer", "head")
    written = lambda data: plots.heatmap(array, text=array.copy(data=data)).data[0].text
    some = np.linspace(-0.001, 12, 9, dtype=np.float32).reshape(3, 3)
    assert written(some).tolist()[0] == ["0.00", "1.50", "3.00"] and written(some.T)[0, 1] == "4.50"
    assert written(np.full((3, 3), 0.00123))[0, 0] == "0.0012" and written(np.full((3, 3), 7))[0, 0] == "7"
    assert written(np.full((3, 3), np.nan))[0, 0] == ""
    turned = plots.heatmap(array, text=array.copy(data=some).transpose()).data[0].text
    np.testing.assert_array_equal(turned, written(some))
    renamed = plots.heatmap(array.rename(layer="after"), text=array.copy(data=some)).data[0].text
    np.testing.assert_array_equal(renamed, written(some))
    with pytest.raises(ValueError, match=r"each cell of .* gets a text of its own, not {'layer': 2, 'head': 3}"):
        plots.heatmap(array, text=array[:2])


def test_letters_are_white_on_dark_cells_and_black_on_the_others():
    array = xr.DataArray(np.linspace(0, 1, 12).reshape(3, 4), dims=("layer", "pos"), name="p")
    light, dark = plots.words(array, array.astype(str)).data
    assert (light.textfont.color, dark.textfont.color) == ("#111", "#fff")
    covered = np.isfinite(dark.z.astype(float))
    np.testing.assert_array_equal(covered, array > float(array.where(~covered).max()))
    np.testing.assert_array_equal(dark.text == "", ~covered)
    assert covered.any() and not covered.all() and not dark.showscale
    assert len(legible(light)) == 2 and len(plots.words(array / 3, array.astype(str)).data[0].z) == 3


def test_a_mean_is_called_by_what_it_is_of():
    array = _array("layer", "head", "prompt").rename("share restored")
    for table in (stats.summary(array), stats.interval(array)):
        assert plots.heatmap(table["mean"]).data[0].colorbar.title.text == "share restored"
        assert plots.heatmap(table["high"]).data[0].colorbar.title.text == "share restored"
        assert plots.lines(table["mean"].isel(head=0), "layer").layout.yaxis.title.text == "share restored"
        assert plots.heatmap(table["mean"].rename("logits")).data[0].colorbar.title.text == "logits"
    assert plots.heatmap(stats.summary(array)["p"]).data[0].colorbar.title.text == "p"
    twice = stats.interval(stats.interval(array)["mean"], "head")["mean"]
    assert twice.attrs["long_name"] == "share restored"


def test_scales_have_no_prefixes():
    tiny = _array("query", "key") * 1e-4
    for figure in (plots.triangle(tiny), plots.words(tiny, tiny.astype(str))):
        assert figure.data[0].colorbar.exponentformat == "power"
    assert plots.lines(tiny.isel(key=0), "query").layout.yaxis.exponentformat == "power"


def test_a_large_map_shows_all_its_labels_on_a_page():
    array = xr.DataArray(np.ones((74, 74)), dims=("query", "key"))
    layout = plots.triangle(array).layout
    assert layout.height < 1100 and 0.8 < layout.width / layout.height < 1.25
    assert layout.xaxis.dtick == layout.yaxis.dtick == 1 and layout.yaxis.tickfont.size <= 12
    huge = plots.triangle(xr.DataArray(np.ones((500, 500)), dims=("query", "key"))).layout
    assert huge.height == layout.height and huge.xaxis.dtick is None and huge.width is None


def test_words_and_grey_rows_are_put_in_the_order_of_the_values():
    values = xr.DataArray([[0.1, 0.2], [0.3, 0.4]], dims=("layer", "pos"), coords={"layer": [0, 1], "pos": ["a", "b"]})
    word = xr.DataArray([["p", "q"], ["r", "s"]], dims=values.dims, coords=values.coords)
    grey = xr.DataArray([True, False], dims="layer", coords={"layer": [0, 1]})
    turned = plots.words(values, word.isel(layer=[1, 0], pos=[1, 0]), grey=grey.isel(layer=[1, 0]))
    assert turned.to_json() == plots.words(values, word, grey=grey).to_json()
    curve = plots.trajectories(values.rename(pos="prompt"), grey=grey.isel(layer=[1, 0]))
    assert curve.to_json() == plots.trajectories(values.rename(pos="prompt"), grey=grey).to_json()
    for wrong in (dict(word=word[:1]), dict(word=word, grey=grey[:1]), dict(word=word, labels=word[0, :1])):
        with pytest.raises(ValueError, match="one is needed for each cell of"):
            plots.words(values, **wrong)
    signed = plots.words(values - 0.2, word).data[0]
    assert (signed.zmin, signed.zmax) == (-0.2, 0.2)


def test_truth_values_are_a_map_of_0_and_1():
    shown = plots.heatmap(xr.DataArray([[True, False]], dims=("y", "x"))).data[0]
    assert np.asarray(shown.z).tolist() == [[1.0, 0.0]] and shown.zmax == 1
    with pytest.raises(ValueError, match="a heatmap shows numbers, not complex128"):
        plots.heatmap(xr.DataArray([[1j]], dims=("y", "x")))


def test_labels_that_are_the_same_are_places_of_their_own():
    array = xr.DataArray(
        np.random.default_rng(0).normal(size=(3, 9)), dims=("pos", "prompt"), coords={"pos": ["the", "cat", "the"]}
    )
    assert len({*plots.bars(stats.interval(array), "pos").data[0].x}) == 3
    assert len({*plots.distributions(array).data[-1].x}) == 3
    words = plots.words(array[:, :2] ** 2, xr.full_like(array[:, :2], "w", dtype=object))
    assert len({*words.data[0].y}) == 3


def test_a_point_without_a_neighbour_keeps_its_interval():
    array = xr.DataArray(
        np.random.default_rng(0).normal(size=(5, 9)), dims=("layer", "prompt"), coords={"layer": range(5)}
    )
    array[1] = np.nan
    table = stats.interval(array)
    for figure in (plots.lines(table, "layer"), plots.trajectories(array)):
        error = figure.data[-1].error_y
        assert np.flatnonzero(np.nan_to_num(error.array)).tolist() == [0]
        np.testing.assert_allclose(error.array[0] + float(table["mean"][0]), table["high"][0], rtol=1e-6)
    assert plots.lines(stats.interval(array[2:]), "layer").data[-1].error_y.array is None


def test_axes_have_ticks_at_layers_alone_and_long_labels_are_cut():
    many = xr.DataArray(np.arange(48.0), dims="layer", coords={"layer": range(48)})
    axis = plots.lines({"a": many, "b": many[:7]}, "layer").layout.xaxis
    assert len(axis.tickvals) == 24 and axis.range[0] > -2 and axis.range[1] < 49
    long = many[:2].rename(layer="pos").assign_coords(pos=["<s>", "y" * 60])
    for figure in (plots.bars(long, "pos"), plots.lines(long, "pos"), plots.heatmap(long.expand_dims("q"))):
        assert list(figure.layout.xaxis.ticktext) == ["&lt;s&gt;", "y" * 19 + "…"]
    named = {f"curve number {i}": many for i in range(14)}
    assert plots.lines(named, "layer").layout.margin.t >= plots.lines(many, "layer").layout.margin.t + 40


def test_nothing_is_refused_and_not_drawn_as_an_empty_frame():
    array = xr.DataArray(np.full((2, 3), np.nan), dims=("layer", "prompt"), coords={"layer": [0, 1]})
    word = xr.full_like(array, "w", dtype=object)
    for draw in (
        lambda: plots.lines({"a": array[:, 0]}, "layer"), lambda: plots.lines({}, "layer"),
        lambda: plots.bars(array[:, 0], "layer"), lambda: plots.distributions(array),
        lambda: plots.trajectories(array), lambda: plots.words(array, word),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="needs at least one number to draw"):
            draw()
    for draw in (
        plots.trajectories,
        plots.token_text,
        plots.token_map,
        plots.triangle,
        plots.doses,
        plots.distributions,
    ):
        with pytest.raises(TypeError, match="this takes a labelled array"):
            draw(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="at least one edge is drawn; most=0"):
        plots.circuit_graph(array, most=0)
    with pytest.raises(ValueError, match=r"reach is the size of value .* not -1"):
        plots.token_text(array.rename(layer="pos").fillna(1.0), reach=-1)


def test_one_curve_or_its_interval_needs_no_name():
    array = _array("layer", "prompt")
    one, table = array.isel(prompt=0), stats.interval(array)
    for bare, named in ((one, {"": one}), (table, {"": table})):
        shown = plots.lines(bare, "layer")
        assert shown.data == plots.lines(named, "layer").data and not shown.data[-1].showlegend
        assert shown.layout.yaxis.title.text == "effect"
    (bars,) = plots.bars(one, "layer").data
    np.testing.assert_array_equal(bars.y, one)
    assert bars.error_y.array is None and plots.bars(table, "layer").data[0].error_y.array is not None
    np.testing.assert_array_equal(plots.scatter(one, one * 2).data[0].y, one * 2)


WRONG = {
    "a curve of two axes": (
        lambda a: plots.lines({"mine": a}, "layer"),
        r"the curve 'mine' should have the axis layer al",
    ),
    "a curve of another axis": (
        lambda a: plots.lines(a[0], "layer"),
        r"a curve should have the axis layer alone, not \('he",
    ),
    "a curve of a list": (
        lambda a: plots.lines({"mine": [1, 2]}, "layer"),
        "the curve 'mine' should be an array or a data",
    ),
    "bars of two axes": (
        lambda a: plots.bars(a, "layer"),
        r"bars should have the axis layer alone, not \('layer', 'head'",
    ),
    "bars of another axis": (
        lambda a: plots.bars(a[0], "layer"),
        r"bars should have the axis layer alone, not \('head',\)",
    ),
    "bars without bounds": (lambda a: plots.bars(a.to_dataset(name="mean"), "layer"), "bars .* this has no high, low"),
    "dots of other axes": (lambda a: plots.scatter(a, a[0]), "dots need arrays of the same axes"),
    "doses without doses": (lambda a: plots.doses(a), r"doses needs values by \(vector, dose, prompt\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_drawn_is_said(case):
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call(_array("layer", "head"))


def test_cells_are_drawn_at_their_own_labels():
    array = _array("layer", "head")
    turned = array.isel(layer=slice(None, None, -1))
    image = plots.heatmap(turned, significant=array > 0.9).data[0]
    np.testing.assert_array_equal(np.array(image.text) == "★", turned > 0.9)
    dots = plots.scatter(array, {"turned": turned}).data[0]
    np.testing.assert_array_equal(dots.x, dots.y)


def test_repeated_labels_and_infinite_cells_stay_apart():
    array = _array("layer", "pos").assign_coords(pos=["the", "cat", "the"])
    array[0, 0] = -np.inf
    image = plots.heatmap(array).data[0]
    assert list(image.x) == ["0 the", "1 cat", "2 the"] and np.isfinite([image.zmin, image.zmax]).all()
    assert list(plots.lines(array.isel(layer=1), "pos").data[0].x) == ["0 the", "1 cat", "2 the"]


def test_a_band_has_a_gap_where_there_is_no_number():
    coords = {"layer": range(5)}
    curve = xr.Dataset(
        {name: ("layer", np.full(5, value)) for name, value in dict(mean=1.0, low=0.5, high=1.5).items()}, coords
    )
    curve = curve.where(curve.layer != 2)
    band = plots.lines(curve, "layer").data[0]
    assert list(band.x) == [0, 1, 1, 0, None, 3, 4, 4, 3] and list(band.y) == [
        1.5,
        1.5,
        0.5,
        0.5,
        None,
        1.5,
        1.5,
        0.5,
        0.5,
    ]


def test_doses_tell_nulls_apart_whose_names_begin_alike():
    values = np.zeros((19, 2, 4))
    values[0, 1], values[1:3, 1], values[3:5, 1] = 5, 1, 100
    names = ["steered", *(f"random {i}" for i in range(2)), *(f"random unit {i}" for i in range(2))]
    names += [f"kind{i} {j}" for i in range(7) for j in range(2)]
    coords = {"vector": names, "dose": [1.0, 0.0], "prompt": range(4)}
    array = xr.DataArray(values[:, ::-1], dims=("vector", "dose", "prompt"), coords=coords, name="effect")
    curves = {trace.name: list(trace.y) for trace in plots.doses(array).data if trace.name}
    assert curves["random, median and 95 %"] == [0, 1] and curves["random unit, median and 95 %"] == [0, 100]
    assert curves["steered"] == [0, 5] and len(curves) == 10
    assert [trace.name for trace in plots.doses(array.isel(prompt=[0])).data if trace.name] == list(curves)


def test_ten_curves_are_told_apart():
    curve = xr.DataArray([0.0, 1.0], dims=("layer",))
    figure = plots.lines({str(i): curve + i for i in range(10)}, "layer")
    assert len({(line.line.color, line.line.dash, line.marker.symbol) for line in figure.data}) == 10
    clouds = plots.scatter(curve, {str(i): curve + i for i in range(10)})
    assert len({(cloud.marker.color, cloud.marker.symbol) for cloud in clouds.data}) == 10


def test_distributions_say_how_many_cells_are_left_out():
    array = xr.DataArray(np.random.default_rng(0).normal(size=(20, 9)), dims=("head", "prompt"))
    assert plots.distributions(array, "effects").layout.title.text == "effects (16 of 20 cells)"
    assert plots.distributions(array[:3], "effects").layout.title.text == "effects"


def test_a_long_title_is_broken_and_has_room():
    short, long = (plots.lines(xr.DataArray([0.0, 1.0], dims=("x",)), "x", "word " * n) for n in (5, 30))
    lines = long.layout.title.text.split("<br>")
    assert len(lines) == 2 and max(map(len, lines)) <= 80
    assert long.layout.margin.t - short.layout.margin.t == 20 == long.layout.height - short.layout.height
