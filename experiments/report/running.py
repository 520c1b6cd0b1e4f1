"""Pages of one run, and of several in a row."""

import json
import math
import shlex
from collections.abc import Sequence
from html import escape
from typing import Any

from experiments.report import html
from experiments.report.html import element
from experiments.report.page import page
from experiments.storage.records import Run


def run_page(run: Run) -> str:
    """Question, answer, figures, tables, checks, how it was made, and how to make it again."""
    body = [element("h1", escape(run.question)), _meta(run), *_found(run)]
    body += [element("h2", "Checks"), html.checks(run.checks), element("h2", "Run it again"), again(run)]
    body += [element("h2", "How it was made"), *_made(run)]
    return page(run.question, "".join(body))


def gallery_page(runs: Sequence[Run], title: str, lead: str) -> str:
    """Several runs, each with its question, answer, figures and checks."""
    places = [f"run-{i}" for i in range(len(runs))]
    links = "".join(
        element("li", element("a", escape(run.question), href=f"#{place}")) for run, place in zip(runs, places)
    )
    body = [element("h1", escape(title)), element("p", escape(lead), kind="lead")]
    body.append(element("nav", element("ol", links), **{"aria-label": "questions"}) if len(runs) > 2 else "")
    for run, place in zip(runs, places):
        inner = [element("h2", escape(run.question)), _meta(run), *_found(run), element("h3", "Checks")]
        inner += [html.checks(run.checks), html.fold("Run it again", again(run))]
        inner.append(html.fold("How it was made", "".join(_made(run))))
        body.append(element("section", "".join(inner), id=place))
    return page(title, "".join(body))


def figures(run: Run) -> dict[str, str]:
    """The run's figures by name, as they go into a page."""
    return {name: html.figure(json.loads(run.read(f"{name}.plotly.json"))) for name in run.names("figure")}


def again(run: Run) -> str:
    """The command, and the same in a notebook."""
    root = run.place.address
    there = "" if root == "runs" else f" --store {shlex.quote(root)}"
    inside = ", ".join(f"{name}={_python(value)}" for name, value in run.changed.items())
    shipped, source = run.manifest.get("shipped", True), run.manifest.get("source", "")
    lines = [
        f"{run.manifest.get('command', '')}{there}",
        f"python -m experiments rerun {run.key}{there}    # and compare with what is stored",
        "",
        "# in a notebook",
        f"from experiments.lab import {'' if shipped else 'find, '}keep",
        f"from experiments import {run.experiment}" if shipped else f"{run.experiment} = find({source!r}).module",
        *(["from experiments.store import Store"] if there else []),
        f"run = keep({run.experiment}.Config({inside}){f', Store({root!r})' if there else ''})",
        "run.arrays, run.numbers, run.answer",
    ]
    return html.code("\n".join(lines))


def _python(value: Any) -> str:
    """A value as Python reads it, infinities and NaNs too."""
    if isinstance(value, list):
        return f"[{', '.join(map(_python, value))}]"
    return repr(value) if not isinstance(value, float) or math.isfinite(value) else f"float('{value}')"


def _meta(run: Run) -> str:
    models = ", ".join(model["name"] for model in run.manifest.get("models", []))
    parts = [run.name, models, run.manifest.get("made", {}).get("time", ""), f"{run.seconds:.1f} s"]
    return element("p", escape(" · ".join(filter(None, parts))), kind="meta")


def _found(run: Run) -> list[str]:
    shown = [element("p", escape(run.answer), kind="answer"), *figures(run).values()]
    shown += [html.frame(run.show(name)) for name in run.names("table")]
    return shown


def _made(run: Run) -> list[str]:
    manifest = run.manifest
    made = manifest.get("made", {})
    versions = ", ".join(f"{name} {version}" for name, version in made.get("versions", {}).items())
    commit = f"{made.get('commit', '')}{' and changes that were not committed' if made.get('changed') else ''}"
    about = {"key": run.key, "version of the experiment": manifest.get("version"), "commit": commit}
    about |= {"python": f"{made.get('python', '')}, {made.get('platform', '')}", "packages": versions}
    about |= {"folder where it was run": manifest.get("cwd")}
    about |= {"fingerprints of its inputs": ", ".join(manifest.get("inputs", []))}
    files = (
        [escape(name), f"{about['bytes']:,}", escape(about["sha256"])] for name, about in manifest["files"].items()
    )
    return [
        element("h3", "Numbers"),
        html.pairs(run.numbers),
        element("h3", "Options"),
        html.pairs(run.config | run.where),
        *(element("h3", "Model") + html.pairs(model) for model in manifest.get("models", [])),
        element("h3", "Provenance"),
        html.pairs(about),
        html.fold("Log", html.code(run.log)),
        html.fold("Files", html.table(["file", "bytes", "sha256"], files)),
    ]
