"""One self-contained page: what was asked, what was found, figures, checks, and how it was made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from interp.arrays import Check

_STYLE = """
body{font:16px/1.6 Inter,Helvetica,Arial,sans-serif;color:#222;background:#fff;max-width:900px;margin:3em auto;padding:0 1.2em}
h1{font-size:1.8em;line-height:1.2}h2{margin-top:2.4em;border-top:1px solid #e3e3e3;padding-top:1em}
.lead{font-size:1.12em;color:#444}.found{background:#f3f6fa;border-left:4px solid #2a5d9f;padding:.7em 1em}
table{border-collapse:collapse;font-size:.9em;width:100%}td,th{padding:.35em .7em;border-bottom:1px solid #e6e6e6;text-align:left;vertical-align:top}
.pass{color:#2d7a3a}.warn{color:#a86a00}.fail{color:#b02a2a;font-weight:bold}code,pre{background:#f5f5f5;font-size:.88em}pre{padding:1em;overflow:auto}
"""


@dataclass(frozen=True)
class Section:
    """One question with its answer, its figures and the checks of its numbers."""

    question: str
    answer: str
    figures: Mapping[str, go.Figure]
    checks: Sequence[Check]


def write(path: Path, title: str, lead: str, sections: Sequence[Section], made: Mapping[str, Any]) -> None:
    """Write the page; it opens without a network."""
    body = [f"<h1>{escape(title)}</h1><p class=lead>{escape(lead)}</p>"]
    first = True
    for section in sections:
        body.append(f"<h2>{escape(section.question)}</h2><p class=found>{escape(section.answer)}</p>")
        for figure in section.figures.values():
            body.append(figure.to_html(full_html=False, include_plotlyjs=first, config={"displaylogo": False}))
            first = False
        body.append(_checks(section.checks))
    body.append(f"<h2>How it was made</h2><pre>{escape(json.dumps(made, indent=1))}</pre>")
    head = f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{escape(title)}</title>"
    path.write_text(f"{head}<style>{_STYLE}</style><body>{''.join(body)}</body></html>", encoding="utf-8")


def _checks(checks: Sequence[Check]) -> str:
    if not checks:
        return ""
    rows = "".join(
        f"<tr><td class={c.status}>{c.status}</td><td>{escape(c.name)}</td><td>{c.value:.2g}</td><td>{c.threshold:.2g}</td>"
        f"<td>{escape(c.why)}</td></tr>"
        for c in checks
    )
    return f"<table><tr><th>check</th><th></th><th>value</th><th>threshold</th><th>why</th></tr>{rows}</table>"
