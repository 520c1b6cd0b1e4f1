"""Keep finished runs: payload files first, the manifest last, created exclusively."""

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io
import xarray as xr

from interp import Model

PACKAGES = ("torch", "transformers", "transformer-lens", "nnsight", "captum", "xarray", "plotly")


def provenance(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """How a result was made: model and tokenizer hashes, seed, versions, commit and command."""
    words = json.dumps(sorted(model.tokenizer.get_vocab().items())) if model.tokenizer is not None else ""
    return {
        "config": dict(config),
        "model": model.name,
        "backend": model.backend,
        "weights": model.fingerprint(),
        "tokenizer": hashlib.sha256(words.encode()).hexdigest()[:16],
        "dtype": str(model.dtype),
        "device": str(model.device),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
        "command": " ".join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def publish(
    root: Path,
    arrays: Mapping[str, xr.DataArray | xr.Dataset],
    figures: Mapping[str, go.Figure],
    made: Mapping[str, Any],
) -> Path:
    """Write a run's arrays and figures into a new folder, and then its manifest; return the folder.

    A folder without `manifest.json` is no run: it was killed, or the disk was full.
    """
    folder = root / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        array.to_netcdf(folder / f"{name}.nc", engine="h5netcdf")
    for name, figure in figures.items():
        (folder / f"{name}.plotly.json").write_text(figure.to_json())
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    draft = folder / "manifest.tmp"
    draft.write_text(json.dumps({**made, "files": files}, indent=1))
    os.link(draft, folder / "manifest.json")
    draft.unlink()
    return folder


def pictures(folder: Path, figures: Mapping[str, go.Figure]) -> str:
    """Write PNGs where a Chromium is found; one line that says what happened."""
    try:
        files = [str(folder / f"{name}.png") for name in figures]
        plotly.io.write_images(list(figures.values()), files, width=900, scale=2)  # one browser for all of them
    except Exception as error:  # kaleido raises its own, and what a browser raises
        return f"no PNG was written: {str(error).strip().splitlines()[0]}"
    return f"{len(figures)} PNG written"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _commit() -> str:
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
