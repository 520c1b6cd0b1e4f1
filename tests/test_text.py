"""Text views hold the words and numbers that they were given, and can be read in both themes."""

from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from interp import plots
from interp.arrays import prompt_words
from interp.plots.text import DARK, LIGHT, blend


class _Lines(HTMLParser):
    """The words of each line of text with their values, and the names of the lines."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.lines: list[list[list[str]]] = []
        self.names: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        given = dict(attrs)
        self.inside.append((given.get("class") or "").partition(" ")[0])
        if self.inside[-1] == "line":
            self.lines.append([])
        if self.inside[-1] == "name":
            self.names.append("")
        if self.inside[-1] == "tok":
            self.lines[-1].append(["", given["data-value"]])

    def handle_endtag(self, tag: str) -> None:
        self.inside.pop()

    def handle_data(self, data: str) -> None:
        if self.inside[-1:] == ["tok"]:
            self.lines[-1][-1][0] += data
        if self.inside[-1:] == ["name"]:
            self.names[-1] += data


def _array(*dims: str, n: int = 4) -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=[n] * len(dims))
    labels = {dim: [f"{i} word{i}" for i in range(n)] if dim in ("pos", "key") else range(n) for dim in dims}
    return xr.DataArray(values, dims=dims, coords=labels, name="effect")


def test_every_token_carries_its_own_number():
    array = _array("pos", "prompt")
    words = [["the", "<b>dog</b>", '"runs"', "&"], ["a"], ["x", "y", "z"], ["one", "two", "three", "four"]]
    parsed = _Lines(plots.token_text(array, words, "<script>alert(1)</script>").html)
    assert [[word for word, _ in line] for line in parsed.lines] == words
    assert parsed.names == ["prompt 0", "prompt 1", "prompt 2", "prompt 3"]
    for i, line in enumerate(parsed.lines):
        wanted = array.values[4 - len(line) :, i]  # what is missing is padding, on the left
        np.testing.assert_allclose([float(value) for _, value in line], wanted, rtol=1e-3)
    assert "<script>" not in plots.token_text(array, words, "<script>alert(1)</script>").html


def test_labels_serve_as_words_and_any_other_axis_as_lines():
    array = _array("pos", "metric").assign_coords(metric=["logit of dog", "b", "c", "d"])
    parsed = _Lines(plots.token_text(array).html)
    assert [word for word, _ in parsed.lines[0]] == ["word0", "word1", "word2", "word3"]
    assert parsed.names == ["logit of dog", "b", "c", "d"]
    (line,) = _Lines(plots.token_text(array.isel(metric=0)).html).lines
    assert line == parsed.lines[0]


def test_what_was_not_measured_and_what_cannot_be_seen_are_shown():
    array = _array("key").where([True, False, True, True])
    html = plots.token_text(array, [" the", "\n", "\t", ""]).html
    (line,) = _Lines(html).lines
    assert [word for word, _ in line] == [" the", "↵\n", "⇥", "∅"]
    assert line[1][1] == "not measured" and html.count("not measured") == 1
    assert "apart" not in html.partition("</style>")[2]  # tokens that bring their own spaces get no others
    assert "apart" in plots.token_text(array, ["the", "dog", "runs", "."]).html.partition("</style>")[2]


def _luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _contrast(one: str, other: str) -> float:
    """As the Web Content Accessibility Guidelines define it."""
    low, high = sorted([_luminance(one), _luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_every_shade_can_be_read_and_zero_has_none(theme):
    shades = {share: blend(share, theme) for share in np.linspace(-1, 1, 41)}
    assert min(_contrast(shade, theme["ink"]) for shade in shades.values()) >= 5
    assert _contrast(theme["mute"], theme["paper"]) >= 4.5
    assert shades[0] == theme["paper"] and blend(5, theme) == theme["plus"] and blend(-1, theme) == theme["minus"]
    for sign in (1, -1):  # the larger the value, the further from the paper
        steps = [_contrast(blend(sign * share, theme), theme["paper"]) for share in np.linspace(0, 1, 11)]
        assert (np.diff(steps) > 0).all()
    same = (_contrast(theme[end], theme["paper"]) for end in ("plus", "minus"))
    assert np.ptp([*same]) < 0.8  # neither sign looks the larger


def test_one_scale_for_all_lines_and_a_reach_of_ones_own():
    array = xr.DataArray([[2.0, -1.0], [0.5, 0.0]], dims=("prompt", "pos"), name="effect")
    html = plots.token_text(array, ["a", "b"]).html
    for share in (1, -0.5, 0.25, 0):
        assert f"--light:{blend(share, LIGHT)};--dark:{blend(share, DARK)}" in html
    assert f"--light:{blend(-0.25, LIGHT)}" in plots.token_text(array, ["a", "b"], reach=4.0).html
    assert "−2" in html and "−" not in plots.token_text(abs(array), ["a", "b"]).html


def test_a_page_has_the_theme_that_it_is_told():
    view = plots.token_text(_array("pos"))
    assert view._repr_html_() == view.html and view.html in view.page()
    assert '<body class="dark">' in view.page("dark") and '<body class="">' in view.page()
    with pytest.raises(ValueError, match="theme='pink' is unknown; choose light or dark"):
        view.page("pink")


def test_a_map_is_read_like_text():
    array = _array("key", "query")
    (image,) = (figure := plots.token_map(array, words=["the", "dog", "the", "end"])).data
    np.testing.assert_array_equal(image.z, array.values.T)
    assert list(image.x) == list(image.y) == ["0 the", "1 dog", "2 the", "3 end"]
    assert figure.layout.yaxis.autorange == "reversed" and image.zmid == 0
    (image,) = plots.token_map(_array("metric", "pos"), words=["the", "dog", "the", "end"]).data
    assert list(image.x) == ["0 the", "1 dog", "2 the", "3 end"] and list(image.y) == ["0", "1", "2", "3"]


def test_words_of_prompts_leave_padding_out(embedded):
    tokens = embedded.tokens(["the dog", "the dog runs ."])
    assert [words[-2:] for words in prompt_words(embedded, tokens)] == [["the", "dog"], ["runs", "."]]
    assert list(map(len, prompt_words(embedded, tokens))) == tokens.mask.sum(1).tolist()


def test_what_cannot_be_shown_is_said():
    for call, message in (
        (lambda: plots.token_text(_array("layer", "head")), "along pos or key and at most one other axis"),
        (lambda: plots.token_text(_array("pos", "layer", "head")), "along pos or key and at most one other axis"),
        (lambda: plots.token_text(_array("pos") * np.nan), "needs at least one number"),
        (lambda: plots.token_text(_array("pos"), ["a"] * 5), r"1 lines of \[5\] words were given for 1 lines of 4"),
        (lambda: plots.token_text(_array("pos", "prompt"), [["a"]]), r"1 lines of \[1\] words were given for 4 lines"),
        (lambda: plots.token_map(_array("layer", "head")), "an axis of targets and one of sources"),
        (lambda: plots.token_map(_array("query", "key"), words=["a"]), "1 words were given for 4 positions"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
