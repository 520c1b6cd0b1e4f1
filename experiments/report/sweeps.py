"""The page of a sweep: how each number depends on what was varied, and every point in one table."""

import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from experiments.report import html
from experiments.report.html import element
from experiments.report.page import page
from experiments.storage.records import Run, differing

if TYPE_CHECKING:
    import pandas as pd

_MOST = 6  # figures
_CURVES = 12  # in one: more of them cannot be told apart


def sweep_page(runs: Sequence[Run], what: str, command: str = "", points: int = 0) -> str:
    """Every point of a sweep.

    Args:
        what: Which points it has.
        command: What runs it again, or goes on with it.
        points: How many runs it has when all are finished, if that is known.

    Raises:
        ValueError: No runs.
    """
    if not runs:
        raise ValueError("a sweep without a finished run has no page yet")
    import pandas as pd

    rows_found = [run.row() for run in runs]
    data = pd.DataFrame(rows_found)
    axes, numbers = differing(runs), list(runs[0].numbers)
    many = f"{len(runs)} of {points} points" if points > len(runs) else f"{len(runs)} runs"
    body = [element("h1", escape(runs[0].question)), element("p", escape(f"{many}: {what}"), kind="lead")]
    if points > len(runs):
        body.append(
            element("p", "The others have failed, or have not been run yet; the logs of failures are in .failed.")
        )
    body += [html.figure(figure) for figure in _figures(data, axes, numbers)]
    columns = ["key", *axes, *numbers, "checks", "seconds"]
    rows = ([html.verdict(row[c]) if c == "checks" else html.text(row[c]) for c in columns] for row in rows_found)
    body += [element("h2", "Points"), html.table(columns, rows), element("h2", "Checks"), _verdicts(runs)]
    body += [element("h2", "Run it again"), html.code(command)] if command else []
    body += [element("h2", "How it was made"), _makers(runs)]
    answers = "".join(element("h3", _setting(run, axes)) + element("p", escape(run.answer)) for run in runs)
    same = {name: value for name, value in runs[0].config.items() if name not in axes}
    body += [html.fold("Answers", answers), html.fold("Options that were the same everywhere", html.pairs(same))]
    return page(runs[0].question, "".join(body))


def _figures(data: "pd.DataFrame", axes: Sequence[str], numbers: Sequence[str]) -> list[dict[str, Any]]:
    """Each number over the option that takes the most values, one curve for each value of the next."""
    import plotly.graph_objects as go

    from interp.plots.style import dress, pen

    ordered = sorted(axes, key=lambda axis: (axis != "seed", data[axis].nunique(dropna=False)), reverse=True)
    if not ordered:
        return []
    x, by = ordered[0], (ordered[1] if len(ordered) > 1 and ordered[1] != "seed" else None)
    # By an iterator, of which list does not ask the length: pandas 2 cannot count groups if one has no value.
    groups = list(iter(data.groupby(by, dropna=False))) if by else [("", data)]
    made = []
    for number in numbers[:_MOST]:
        figure, barred = go.Figure(), False
        for i, (value, group) in enumerate(groups[:_CURVES]):
            colour, dash, mark = pen(i)
            means = group.groupby(x, dropna=False)[number].agg(["mean", "min", "max"]).reset_index()
            several = bool((means["max"] > means["min"]).any())
            barred |= several
            spread = dict(
                type="data", array=means["max"] - means["mean"], arrayminus=means["mean"] - means["min"], thickness=1
            )
            figure.add_scatter(
                x=[_label(value) for value in means[x]], y=means["mean"], error_y=spread if several else None, mode="lines+markers",
                line=dict(color=colour, dash=dash), marker_symbol=mark, name=f"{by} {_label(value)}" if by else number, showlegend=bool(by),
            )  # fmt: skip
        figure.update_xaxes(title=x, type="category" if data[x].isna().any() else None).update_yaxes(title=number)
        said = ["bars: lowest to highest of the other options"] * barred
        said += [f"{_CURVES} of {len(groups)} values of {by}"] * (len(groups) > _CURVES)
        title = f"{number} ({'; '.join(said)})" if said else number
        made.append(json.loads(dress(figure, title).to_json()))
    return made


def _verdicts(runs: Sequence[Run]) -> str:
    """How often each check ended how."""
    counts: dict[str, Counter[str]] = {}
    for run in runs:
        for check in run.checks:
            counts.setdefault(check["name"], Counter())[check["status"]] += 1
    if not counts:
        return element("p", "These numbers carry no checks.", kind="quiet")
    names = ("pass", "warn", "fail", "skipped")
    return html.table(
        ["check", *names], ([escape(check), *(str(count[n]) for n in names)] for check, count in counts.items())
    )


def _makers(runs: Sequence[Run]) -> str:
    """Which versions and commits made the points, and how many each."""
    made = [run.manifest.get("made", {}) for run in runs]
    changed = {True: "yes", False: "no"}
    counts = Counter(
        (m.get("commit", ""), changed.get(m.get("changed"), "unknown"), json.dumps(m.get("versions", {}))) for m in made
    )
    rows = (
        [escape(commit[:16]), escape(since), escape(versions.strip("{}")), str(n)]
        for (commit, since, versions), n in counts.items()
    )
    return html.table(["commit", "changed since", "packages", "points"], rows)


def _setting(run: Run, axes: Sequence[str]) -> str:
    return escape(", ".join(f"{axis}={run.config.get(axis)}" for axis in axes) or run.key)


def _label(value: Any) -> Any:
    """How a value of an option is written at an axis; a data frame has NaN for None."""
    if value is None or value != value:
        return "None"
    return value if isinstance(value, int | float | str) else json.dumps(value)
