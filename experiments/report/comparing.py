"""Runs side by side: what was set differently, what came out differently, and their figures."""

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from experiments.report import html
from experiments.report.html import element
from experiments.report.page import page
from experiments.storage.comparing import differences
from experiments.storage.records import Run


def comparison_page(runs: Sequence[Run]) -> str:
    """Two or more runs in columns; maps of the same name share one scale.

    Raises:
        ValueError: Fewer than two runs.
    """
    if len(runs) < 2:
        raise ValueError(f"a comparison needs two runs or more, not {len(runs)}")
    title = " and ".join(dict.fromkeys(run.question for run in runs))
    body = [element("h1", escape(title)), element("p", f"{len(runs)} runs side by side.", kind="lead")]
    body.append(
        _columns([element("h3", escape(run.name)) + element("p", escape(run.answer), kind="answer") for run in runs])
    )
    for part, rows in differences(runs).items():
        body += [element("h2", escape(part.capitalize()))]
        cells = ([escape(name), *(_cell(value, values) for value in values)] for name, values in rows.items())
        said = "These runs do not differ here."
        body.append(html.table(["", *(run.key for run in runs)], cells) if rows else element("p", said, kind="quiet"))
    names = dict.fromkeys(name for run in runs for name in run.names("figure"))
    body += [element("h2", "Figures"), *(_figures(runs, name) for name in names)]
    body += [element("h2", "Checks"), _columns([html.checks(run.checks) for run in runs])]
    return page(title, "".join(body))


def _figures(runs: Sequence[Run], name: str) -> str:
    has = [name in run.names("figure") for run in runs]
    found = [json.loads(run.read(f"{name}.plotly.json")) if there else None for run, there in zip(runs, has)]
    _share_scales([data for data in found if data])
    lacking = element("p", f"no figure “{escape(name)}”", kind="quiet")
    return _columns([html.figure(data) if data else lacking for data in found])


def _share_scales(found: Sequence[dict[str, Any]]) -> None:
    """Give the maps at the same place of several figures the widest of their scales, and one meaning of each colour."""
    maps: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for trace in (trace for data in found for trace in data["data"]):
        if trace.get("type") == "heatmap" and {"zmin", "zmax"} <= trace.keys():
            maps.setdefault((trace.get("xaxis", "x"), trace.get("yaxis", "y")), []).append(trace)
    for same in maps.values():
        _share_scale(same)


def _share_scale(maps: Sequence[dict[str, Any]]) -> None:
    """If one of them has values of both signs, zero is in the middle of all, in its colours."""
    signed = next((trace for trace in maps if trace.get("zmid") == 0 or trace["zmin"] < 0), None)
    low, high = min(trace["zmin"] for trace in maps), max(trace["zmax"] for trace in maps)
    for trace in maps:
        trace["zmin"], trace["zmax"] = low, high
        if signed:
            reach = max(abs(low), abs(high))
            trace |= {"zmin": -reach, "zmax": reach, "zmid": 0, "colorscale": signed.get("colorscale")}


def _cell(value: Any, values: Sequence[Any]) -> str:
    usual = max(values, key=values.count)
    return (
        element("span", html.text(value), kind="changed")
        if value != usual or values.count(usual) == 1
        else html.text(value)
    )


def _columns(parts: Sequence[str]) -> str:
    return element("div", "".join(element("div", part) for part in parts), kind="columns")
