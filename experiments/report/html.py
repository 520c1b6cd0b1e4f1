"""Pieces of a page."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_MARKS = {"pass": "✓", "warn": "!", "fail": "✗", "skipped": "–"}


def text(value: Any) -> str:
    """Anything as text that is safe in a page; numbers in a few digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None or value == "":
        return "–"
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def element(tag: str, content: str, **attributes: str) -> str:
    """A tag around content that is HTML already; `kind` is its class."""
    given = {"class" if name == "kind" else name: value for name, value in attributes.items()}
    listed = "".join(f' {name}="{escape(value)}"' for name, value in given.items())
    return f"<{tag}{listed}>{content}</{tag}>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table; its cells are HTML already. Wide ones scroll by themselves."""
    top = "".join(element("th", escape(name), scope="col") for name in head)
    body = "".join(element("tr", "".join(element("td", cell) for cell in row)) for row in rows)
    inner = element("thead", element("tr", top)) + element("tbody", body)
    return element("div", element("table", inner, kind=kind), kind="scroll")


def pairs(values: Mapping[str, Any]) -> str:
    """Names and values, one a line."""
    rows = "".join(element("dt", escape(str(name))) + element("dd", text(value)) for name, value in values.items())
    return element("dl", rows)


def fold(title: str, content: str, opened: bool = False) -> str:
    """Content that is shown on a click."""
    return f"<details{' open' if opened else ''}>{element('summary', escape(title))}{content}</details>"


def code(lines: str) -> str:
    return element("pre", escape(lines), tabindex="0")


def figure(data: Mapping[str, Any]) -> str:
    """A plotly figure, which the page's script draws in the page's colours."""
    title = data.get("layout", {}).get("title", {})
    label = str(title.get("text", "") if isinstance(title, dict) else title)
    height = data.get("layout", {}).get("height", 380)
    raw = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # a label may hold "</script>" or "<!--"
    place = element("div", "", kind="plot", style=f"min-height:{height}px", role="img", **{"aria-label": label})
    return element("figure", f'{place}<script type="application/json">{raw}</script>')


def frame(data: Any) -> str:
    """A data frame."""
    return table(
        [str(name) for name in data.columns], ([text(cell) for cell in row] for row in data.itertuples(index=False))
    )


def checks(rows: Sequence[Mapping[str, Any]]) -> str:
    """Checks with their verdicts, the worst first; with the array that each is of, if they are of several."""
    if not rows:
        return element("p", "These numbers carry no checks.", kind="quiet")
    order = {status: i for i, status in enumerate(("fail", "warn", "pass", "skipped"))}
    several = len({row.get("array") for row in rows}) > 1
    cells = (
        [verdict(row["status"]), *([escape(str(row.get("array", "")))] if several else []), escape(row["name"]), text(float(row["value"])), text(float(row["threshold"])),
         escape(row["why"]) + (f" ({escape(row['source'])})" if row.get("source") else "")]
        for row in sorted(rows, key=lambda row: order.get(row["status"], 9))
    )  # fmt: skip
    titles = ["verdict", *(["of"] if several else []), "check", "value", "threshold", "why"]
    return table(titles, cells, kind="checks")


def verdict(status: str) -> str:
    """A status as a badge that is told by more than its colour."""
    return (
        element("span", f"{_MARKS.get(status, '')} {escape(status)}", kind=f"badge {escape(status)}") if status else ""
    )
