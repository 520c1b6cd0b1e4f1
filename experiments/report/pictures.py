"""Figures as PNG and SVG files, where there is a Chromium."""

import json
from collections.abc import Sequence
from pathlib import Path

from experiments.storage.records import Run

FORMATS = ("png", "svg", "pdf")


def pictures(runs: Sequence[Run], folder: Path, formats: Sequence[str] = ("png",)) -> str:
    """Write every figure of some runs; say in one line what was written, or why nothing was.

    Raises:
        ValueError: An unknown format.
    """
    if unknown := sorted(set(formats) - set(FORMATS)):
        raise ValueError(f"unknown format {unknown[0]!r}; choose from {', '.join(FORMATS)}")
    import plotly.io

    figures, files = [], []
    for run in runs:
        for name in run.names("figure"):
            for suffix in formats:
                figures.append(json.loads(run.read(f"{name}.plotly.json")))
                files.append(folder / f"{run.experiment}-{name}-{run.key[:6]}.{suffix}")
    if not files:
        return "no pictures: these runs have no figures"
    folder.mkdir(parents=True, exist_ok=True)
    heights = [figure["layout"].get("height") for figure in figures]  # of several figures plotly does not look at it
    try:  # one browser for all
        plotly.io.write_images(figures, [str(file) for file in files], width=900, height=heights, scale=2)
    except Exception as error:  # kaleido raises its own errors, and what a browser raises
        return f"no pictures: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    return f"{len(files)} pictures in {folder}"
