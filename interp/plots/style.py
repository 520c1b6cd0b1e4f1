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
_QUANTITY = 34  # letters that fit beside one
_TICK = 20  # letters of a label at an axis: longer ones would take the figure's room
_DASHES, _MARKS = ("solid", "dash", "dot", "dashdot"), ("circle", "square", "diamond", "triangle-up")

_SEEN = {"\n": "↵", "\t": "⇥"}


def dress(figure: go.Figure, title: str, height: int = 380) -> go.Figure:
    """The figure with its title, broken where it would be cut off, and the house's look."""
    lines = [part for line in str(title or "").split("\n") for part in (wrap(line, _TITLE) or [""])]
    more = 20 * (len(lines) - 1 + max(0, _legend_rows(figure) - 1))
    figure.update_layout(
        title=dict(text=plain("\n".join(lines)), x=0.02, font_size=16, y=1, yanchor="top", pad_t=16),
        template="plotly_white", font=FONT, height=height + more,
        margin=dict(l=70, r=30, t=76 + more, b=90),
        legend=dict(orientation="h", y=1.02, yanchor="bottom", x=1, xanchor="right"),
    )  # fmt: skip
    return figure.update_yaxes(exponentformat="power").update_xaxes(exponentformat="power")


def _legend_rows(figure: go.Figure) -> int:
    """How many rows a legend above the figure takes: entries stand in columns as wide as the longest."""
    named = [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]
    if len(named) < 2:
        return 1
    width = (figure.layout.width or 700) - 100
    return -(-len(named) // max(1, width // (48 + 7 * max(len(unescape(name)) for name in named))))


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
    if isinstance(text, float):
        text = f"{text:.6g}"
    lines = map(visible, re.split(r"(?<=\S)\n(?=\S)", str(text)))
    return "<br>".join(escape(line, quote=False).replace("$", "&#36;") for line in lines)


def quantity(array: xr.DataArray) -> str:
    """What an array measures, as a label; of a mean and its bounds, what they are of."""
    of = array.attrs.get("long_name") if array.name in ("mean", "low", "high") else None
    return plain("\n".join(wrap(str(of or ("" if array.name is None else array.name)), _QUANTITY)))


def scale_of(values: np.ndarray, diverging: bool | None = None) -> dict[str, Any]:
    """Colours and limits of an image: centred at zero for signed values, or if it is wanted, else from zero on."""
    known = values[np.isfinite(values)]
    reach = float(np.abs(known).max()) or 1.0
    if bool(known.min() < 0) if diverging is None else diverging:
        return dict(colorscale="RdBu", zmid=0, zmin=-reach, zmax=reach)
    return dict(colorscale="Blues", zmin=0, zmax=reach)


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
    return int(np.clip(1000 / max(cells.shape[1], 1) / max(longest_line(cells), 1), 8, 13))


def longest_line(cells: np.ndarray) -> int:
    """How many letters the longest line in any cell has."""
    return max((len(unescape(line)) for cell in cells.ravel() for line in cell.split("<br>")), default=1)


def _luminance(colour: str) -> float:
    """Of a colour, as WCAG defines it; black and white letters contrast alike at 0.18."""
    channels = np.array(unlabel_rgb(colour)) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def distinct(labels: Sequence[str]) -> list[str]:
    """Labels of a category axis, on which two that are the same would be one place: then numbers stand before all."""
    return list(labels) if len({*labels}) == len(labels) else [f"{i} {label}" for i, label in enumerate(labels)]


def along_axis(labels: xr.DataArray) -> Any:
    """Where points are: at numbers, or at labels as they stand."""
    return labels.values if labels.dtype.kind in "iufbM" else distinct([plain(label) for label in labels.values])


def short(label: str, most: int = _TICK) -> str:
    """A label as `plain` gives it, cut off where it would take too much room."""
    text = unescape(label)
    return label if "<br>" in label or len(text) <= most else plain(f"{text[: most - 1]}…")


def ticks_of(labels: Sequence[str]) -> dict[str, Any]:
    """What an axis of categories writes at its ticks, if some labels are too long to be written whole."""
    if all(label == short(label) for label in labels):
        return {}
    return dict(tickvals=list(labels), ticktext=[short(label) for label in labels])


def steps_of(numbers: Sequence[float]) -> dict[str, Any]:
    """An axis of layers or the like: a tick at each, or at some if they are many, and none where there is nothing."""
    known = sorted({*numbers})
    pad = max(0.3, 0.03 * (known[-1] - known[0]))
    return dict(tickvals=known[:: -(-len(known) // 24)], range=[known[0] - pad, known[-1] + pad])


def whiskers(mean: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str) -> dict[str, Any] | None:
    """Error bars for the points without a neighbour, around which a band has no width; None if there are none."""
    known = np.pad(np.isfinite(low) & np.isfinite(high), 1)
    lone = known[1:-1] & ~known[:-2] & ~known[2:]
    if not lone.any():
        return None
    up, down = (np.where(lone, side, 0) for side in (high - mean, mean - low))
    return dict(type="data", array=up, arrayminus=down, color=colour, thickness=1.2, width=4)


def check_numbers(what: str, *arrays: xr.DataArray) -> None:
    """Refuse to draw nothing.

    Raises:
        ValueError: No number in any of the arrays.
    """
    if not any(np.isfinite(np.asarray(array.values, float)).any() for array in arrays):
        raise ValueError(f"{what} needs at least one number to draw; what was given is all NaN, or empty")


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
