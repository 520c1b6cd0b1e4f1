"""Values of tokens on the text itself, as HTML; and what goes from which token to which, as an image."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import final

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.arguments import check_labelled_array
from interp.plots.maps import heatmap
from interp.plots.style import check_numbers, visible

# Paper is blended with blue (positive) or orange (negative), which those can tell apart who do not see red or green as
# others do. On every blend the ink keeps a contrast of at least 5 to 1 (WCAG AA asks for 4.5).
LIGHT = {"ink": "#1b1b1b", "paper": "#ffffff", "mute": "#5f6368", "plus": "#7fb3e6", "minus": "#f0a07a"}
DARK = {"ink": "#f1f1f1", "paper": "#17191e", "mute": "#a3a9b3", "plus": "#1f5f9e", "minus": "#9c431d"}

_TOKENS = ("pos", "key")  # the axes that run over tokens, first of those that there are
_RULES = """\
.interp-text{%(colours)s;background:var(--paper);color:var(--ink);border-radius:6px;padding:12px 14px 34px;
font:14px/2 Inter,Helvetica,Arial,sans-serif;overflow-x:auto}
.interp-text .head{display:flex;flex-wrap:wrap;gap:4px 24px;align-items:center;line-height:1.4;margin-bottom:8px}
.interp-text .title{font-size:16px;font-weight:600}
.interp-text .legend{display:flex;gap:6px;align-items:center;font-size:12px;color:var(--mute)}
.interp-text .bar{width:120px;height:11px;border-radius:2px;border:1px solid var(--mute)}
.interp-text .rows{display:grid;grid-template-columns:fit-content(15em) 1fr;gap:4px 14px}
.interp-text .name{color:var(--mute);font-size:12px;line-height:16px;padding-top:6px}
.interp-text .line{white-space:pre-wrap;overflow-wrap:anywhere}
.interp-text .tok{position:relative;border-radius:3px;padding:3px 0;background:var(--light);outline-offset:1px}
.interp-text .apart .tok{display:inline-block;line-height:1.4;padding:2px 4px;margin-right:3px}
.interp-text .none{background:none;color:var(--mute);text-decoration:underline dotted}
.interp-text .tok:hover,.interp-text .tok:focus{outline:2px solid var(--ink)}
.interp-text .tok:hover::after,.interp-text .tok:focus::after{content:attr(data-value);position:absolute;left:0;
top:100%%;z-index:9;margin-top:4px;padding:1px 7px;border-radius:4px;background:var(--ink);color:var(--paper);
font-size:12px;line-height:20px;white-space:pre}"""
_DARK = "%(scope)s{%(colours)s}%(scope)s .tok{background:var(--dark)}%(scope)s .none{background:none}"
# A page or a notebook says which theme it has; where it says nothing, the system's is taken.
_SAYS_DARK = '.dark,.vscode-dark,[data-theme="dark"],[data-jp-theme-light="false"],[theme="dark"]'
_SAYS_LIGHT = '.light,.vscode-light,[data-theme="light"],[data-jp-theme-light="true"],[theme="light"]'


@final
@dataclass(frozen=True)
class TextView:
    """Text whose tokens are coloured by their values; a notebook shows it, `page` makes a file of it.

    Attributes:
        html: A fragment that brings its own styles, for the themes light and dark.
    """

    html: str

    def _repr_html_(self) -> str:
        return self.html

    def page(self, theme: str = "") -> str:
        """A whole document.

        Args:
            theme: "light" or "dark"; by default as the reader's system has it.

        Raises:
            ValueError: Another theme.
        """
        if theme not in ("", "light", "dark"):
            raise ValueError(f"theme={theme!r} is unknown; choose light or dark, or leave it out")
        paper = "@media (prefers-color-scheme:dark){body:not(.light){%s}}body.dark{%s}" % ((_paper(DARK),) * 2)
        style = f"<style>body{{margin:16px;{_paper(LIGHT)}}}{paper}</style>"
        head = f'<!doctype html><meta charset="utf-8"><title>tokens</title>{style}'
        return f'{head}<body class="{theme}">{self.html}</body>\n'


def token_text(
    array: xr.DataArray,
    words: Sequence[str] | Sequence[Sequence[str]] | None = None,
    title: str = "",
    reach: float | None = None,
) -> TextView:
    """Tokens coloured by their values: blue above zero, orange below, none at zero; the number shows on hovering.

    Args:
        array: Values along `pos` or `key` and at most one other axis, such as `prompt`, `metric` or `query`, of which
            every entry is a line of text.
        words: The text of each token, the same in all lines, or of each line; a line of fewer words than the array has
            positions is taken to be padded on the left. By default, the labels of the array.
        reach: The size of value that is given the full colour; by default the largest that there is.

    Raises:
        ValueError: An array with other axes, or without a number in it; words that are too many or too few; a reach
            that is not above 0.
    """
    check_labelled_array(array)
    if reach is not None and not reach > 0:
        raise ValueError(f"reach is the size of value that is given the full colour, above 0, not {reach}")
    axis = next((name for name in _TOKENS if name in array.dims), None)
    others = [str(name) for name in array.dims if name != axis]
    if axis is None or len(others) > 1:
        raise ValueError(
            f"tokens are coloured along pos or key and at most one other axis, not {array.dims}; choose or average"
        )
    check_numbers("a text", array)
    values = np.atleast_2d(array.transpose(*others, axis).values)
    names = (
        [name if isinstance(name, str) else f"{others[0]} {name}" for name in array[others[0]].values]
        if others
        else [""]
    )
    size = float(np.abs(values[np.isfinite(values)]).max()) if reach is None else reach
    lines = _lines(array, axis, words, len(values))
    rows = "".join(_row(*row, size or 1.0) for row in zip(names, lines, values))
    heading = f'<span class="title">{escape(title)}</span>' if title else ""
    legend = _legend(str(array.name or ""), size, signed=bool(np.nanmin(values) < 0))
    head = f'<div class="head">{heading}{legend}</div>'
    return TextView(f'<style>{_style()}</style><div class="interp-text">{head}<div class="rows">{rows}</div></div>')


def token_map(array: xr.DataArray, title: str = "", words: Sequence[str] | None = None) -> go.Figure:
    """Targets by sources as an image that is read like text: the first target on top, the scale centred at zero.

    Args:
        array: Targets (such as `query` or `metric`) along one axis and sources along the other, `pos` or `key`.
        words: The text of each source token, and of each target if those are the same tokens; by default the labels.

    Raises:
        ValueError: An array with other axes; words that are too many or too few.
    """
    check_labelled_array(array)
    axis = next((name for name in _TOKENS if name in array.dims), None)
    if axis is None or array.ndim != 2:
        raise ValueError(f"a map needs an axis of targets and one of sources, pos or key, not {array.dims}")
    (other,) = (name for name in array.dims if name != axis)
    array = array.transpose(other, axis)
    if words is not None:
        for name in {axis, other} & {"pos", "key", "query"}:
            if len(words) != array.sizes[name]:
                raise ValueError(f"{len(words)} words were given for {array.sizes[name]} positions along {name}")
            array = array.assign_coords({name: [f"{i} {_shown(word)}" for i, word in enumerate(words)]})
    figure = heatmap(array, title, diverging=True)
    return figure.update_yaxes(autorange="reversed")


def _lines(
    array: xr.DataArray, axis: str, words: Sequence[str] | Sequence[Sequence[str]] | None, n: int
) -> list[list[str]]:
    """The words of each line."""
    n_pos = array.sizes[axis]
    if words is None:
        words = [re.sub(r"^\d+ (?=.)", "", str(label), flags=re.S) for label in array[axis].values]
    words = list(words)
    one = all(isinstance(word, str) for word in words)
    lines = [[str(word) for word in words]] * n if one else [list(line) for line in words]
    if len(lines) != n or any(not 0 < len(line) <= n_pos for line in lines):
        sizes = f"{len(lines)} lines of {sorted({len(line) for line in lines})} words"
        raise ValueError(f"{sizes} were given for {n} lines of {n_pos} positions")
    return lines


def _row(name: str, words: Sequence[str], values: np.ndarray, size: float) -> str:
    """One line of text; the words are those of its last positions."""
    apart = "" if any(word[:1].isspace() for word in words[1:]) else " apart"  # some tokenizers keep no spaces
    tokens = "".join(_token(word, float(value), size) for word, value in zip(words, values[len(values) - len(words) :]))
    return f'<div class="name">{escape(name)}</div><div class="line{apart}">{tokens}</div>'


def _token(word: str, value: float, size: float) -> str:
    shown = escape(_shown(word)) + "\n" * word.count("\n")
    if not np.isfinite(value):
        return f'<span class="tok none" tabindex="0" data-value="not measured">{shown}</span>'
    colours = f"--light:{blend(value / size, LIGHT)};--dark:{blend(value / size, DARK)}"
    return f'<span class="tok" tabindex="0" data-value="{value:+.4g}" style="{colours}">{shown}</span>'


def _shown(word: str) -> str:
    """A token as it can be seen."""
    return visible(word) or "∅"


def blend(share: float, colours: dict[str, str]) -> str:
    """The background of a value from -1 to 1, between paper and the full colour of its sign."""
    end = colours["plus"] if share > 0 else colours["minus"]
    part = min(abs(share), 1.0)
    mixed = (round(a + (b - a) * part) for a, b in zip(_rgb(colours["paper"]), _rgb(end)))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _rgb(colour: str) -> Iterator[int]:
    return (int(colour[i : i + 2], 16) for i in (1, 3, 5))


def _legend(name: str, size: float, signed: bool) -> str:
    left = f"−{size:.3g}" if signed else "0"
    bar = "var(--minus),var(--paper),var(--plus)" if signed else "var(--paper),var(--plus)"
    gradient = f'<span class="bar" style="background:linear-gradient(to right,{bar})"></span>'
    return (
        f'<span class="legend"><span>{escape(name)}</span><span>{left}</span>{gradient}<span>{size:.3g}</span></span>'
    )


def _style() -> str:
    dark = "{" + _DARK % {"scope": f".interp-text:not(:is({_SAYS_LIGHT}) *)", "colours": _colours(DARK)} + "}"
    told = _DARK % {"scope": f":is({_SAYS_DARK}) .interp-text", "colours": _colours(DARK)}
    return f"{_RULES % {'colours': _colours(LIGHT)}}\n@media (prefers-color-scheme:dark){dark}\n{told}"


def _colours(theme: dict[str, str]) -> str:
    return ";".join(f"--{name}:{colour}" for name, colour in theme.items())


def _paper(theme: dict[str, str]) -> str:
    return f"background:{theme['paper']};color:{theme['ink']}"
