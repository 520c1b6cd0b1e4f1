"""How every figure looks: fonts, colours, margins, and letters that can be read."""

import re
import unicodedata
from collections.abc import Sequence
from html import escape, unescape
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.colors import sample_colorscale, unlabel_rgb

FONT = dict(family="Inter, Helvetica, Arial, sans-serif", size=13, color="#222")
COLOURS = ("#2a5d9f", "#c0562f", "#5b8c5a", "#8a5a9e", "#b08d2e", "#3f9a98", "#6b6b6b")
BAR: dict[str, Any] = dict(thickness=12, exponentformat="power")  # 0.00015, where plotly would write 150µ

_TITLE = 80  # letters that fit above a figure of usual width
_DASHES, _MARKS = ("solid", "dash", "dot", "dashdot"), ("circle", "square", "diamond", "triangle-up")

_SEEN = {"\n": "↵", "\t": "⇥"}


def dress(figure: go.Figure, title: str, height: int = 380) -> go.Figure:
    """The figure with its title, broken where it would be cut off, and the house's look."""
    lines = [part for line in title.split("\n") for part in (wrap(line, _TITLE) or [""])]
    more = 20 * (len(lines) - 1)
    figure.update_layout(
        title=dict(text=plain("\n".join(lines)), x=0.02, font_size=16, y=1, yanchor="top", pad_t=16),
        template="plotly_white", font=FONT, height=height + more,
        margin=dict(l=70, r=30, t=76 + more, b=90),
        legend=dict(orientation="h", y=1.02, yanchor="bottom", x=1, xanchor="right"),
    )  # fmt: skip
    return figure.update_yaxes(exponentformat="power")


def pen(i: int) -> tuple[str, str, str]:
    """Colour, dash and mark of the i-th curve or cloud: where colours begin anew, the others change."""
    again = i // len(COLOURS)
    return COLOURS[i % len(COLOURS)], _DASHES[again % len(_DASHES)], _MARKS[again % len(_MARKS)]


def visible(text: str) -> str:
    """Text whose control characters are seen, a new line as ↵: a figure with one as it is cannot be drawn."""
    return "".join(
        _seen(letter) if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter for letter in text
    )


def _seen(letter: str) -> str:
    return _SEEN.get(letter) or repr(letter)[1:-1]


def plain(text: object) -> str:
    """A label that plotly shows as it stands: it takes `<s>` for markup, `&lt;` for a sign and dollars for formulas.

    A new line between words breaks the line; any other is a token's, and seen.
    """
    lines = map(visible, re.split(r"(?<=\S)\n(?=\S)", str(text)))
    return "<br>".join(escape(line, quote=False).replace("$", "&#36;") for line in lines)


def quantity(array: xr.DataArray) -> str:
    """What an array measures, as a label; of a mean and its bounds, what they are of."""
    of = array.attrs.get("long_name") if array.name in ("mean", "low", "high") else None
    return plain(of or ("" if array.name is None else array.name))


def legible(image: go.Heatmap) -> list[go.Heatmap]:
    """An image with black letters, and over it the dark cells with white ones: an image has one colour for all its
    letters, and those that plotly chooses are grey on blue.
    """
    z = np.asarray(image.z, float)
    shares = np.nan_to_num(np.clip((z - image.zmin) / ((image.zmax - image.zmin) or 1.0), 0, 1))
    colours = sample_colorscale([colour for _, colour in image.colorscale], shares.ravel())  # evenly spaced
    dark = np.isfinite(z) & (np.array([_luminance(colour) for colour in colours]).reshape(z.shape) < 0.18)
    image.update(textfont_color="#111")
    if not dark.any():
        return [image]
    text = np.where(dark, image.text, "")
    return [
        image,
        go.Heatmap(image).update(z=np.where(dark, z, np.nan), text=text, textfont_color="#fff", showscale=False),
    ]


def size_of(cells: np.ndarray) -> int:
    """The size of letters at which the longest line fits its cell, on a page of usual width."""
    longest = max((len(unescape(line)) for cell in cells.ravel() for line in cell.split("<br>")), default=1)
    return int(np.clip(1000 / max(cells.shape[1], 1) / max(longest, 1), 8, 13))


def _luminance(colour: str) -> float:
    """Of a colour, as WCAG defines it; black and white letters contrast alike at 0.18."""
    channels = np.array(unlabel_rgb(colour)) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def distinct(labels: Sequence[str]) -> list[str]:
    """Labels of a category axis, on which two that are the same would be one place: then numbers stand before all."""
    return list(labels) if len({*labels}) == len(labels) else [f"{i} {label}" for i, label in enumerate(labels)]


def outline(along: Any, low: np.ndarray, high: np.ndarray) -> tuple[list[Any], list[float | None]]:
    """The outline of the band between two curves, in pieces where there is no number in between."""
    xs: list[Any] = []
    ys: list[float | None] = []
    known = np.isfinite(low) & np.isfinite(high)
    for piece in np.split(np.arange(len(known)), np.flatnonzero(np.diff(known)) + 1):
        if len(piece) and known[piece[0]]:
            xs += [*([None] if xs else []), *(along[i] for i in piece), *(along[i] for i in piece[::-1])]
            ys += [*([None] if ys else []), *high[piece].tolist(), *low[piece[::-1]].tolist()]
    return xs, ys
