"""What a scorecard is made of: one number, of one method, on one known answer, and what was wanted of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import xarray as xr

from interp.arrays import labelled
from interp.model import Model


@dataclass(frozen=True)
class Row:
    """One number.

    Attributes:
        section: What is scored.
        subject: The known answer that it was held to: a model, or a task of one.
        measure: What the number is.
        least, most: What is wanted of it; None where nothing is promised.
    """

    section: str
    subject: str
    method: str
    measure: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def status(self) -> str:
        """ "pass" or "fail"; nothing where nothing is wanted."""
        if self.least is None and self.most is None:
            return ""
        high_enough = self.least is None or self.value >= self.least
        return "pass" if high_enough and (self.most is None or self.value <= self.most) else "fail"


def as_text(rows: Sequence[Row]) -> str:
    """The rows as tables in Markdown: for each section and measure, subjects by methods."""
    parts = []
    for section in dict.fromkeys(row.section for row in rows):
        own = [row for row in rows if row.section == section]
        parts.append(f"## {section}\n")
        for measure in dict.fromkeys(row.measure for row in own):
            parts.append(_table([row for row in own if row.measure == measure], measure))
    return "\n".join(parts)


def _table(rows: Sequence[Row], measure: str) -> str:
    methods = list(dict.fromkeys(row.method for row in rows))
    cells = {(row.subject, row.method): row for row in rows}
    lines = [f"| {measure}{_wanted(rows)} | {' | '.join(methods)} |", "|---|" + "---|" * len(methods)]
    for subject in dict.fromkeys(row.subject for row in rows):
        found = [cells.get((subject, method)) for method in methods]
        lines.append(f"| {subject} | {' | '.join(map(_cell, found))} |")
    return "\n".join(lines) + "\n"


def _wanted(rows: Sequence[Row]) -> str:
    """What is wanted, if it is the same of all."""
    bounds = {(row.least, row.most) for row in rows}
    least, most = bounds.pop() if len(bounds) == 1 else (None, None)
    words = [f"at least {least:g}"] if least is not None else []
    words += [f"at most {most:g}"] if most is not None else []
    return f" ({' and '.join(words)})" if words else ""


def _cell(row: Row | None) -> str:
    if row is None or math.isnan(row.value):
        return ""
    small = row.value != 0 and abs(row.value) < 0.01
    return (f"{row.value:.1e}" if small else f"{row.value:.2f}") + (" ✗" if row.status == "fail" else "")


def as_array(rows: Sequence[Row], model: Model, **how: str | int) -> xr.DataArray:
    """The numbers by row, with what each is as coordinates."""
    values = torch.tensor([row.value for row in rows], dtype=torch.float64)
    array = labelled(values, "score", {"row": range(len(rows))}, model, (), method="scorecard", **how)
    names = ("section", "subject", "method", "measure", "status")
    return array.assign_coords({name: ("row", [str(getattr(row, name)) for row in rows]) for name in names})
