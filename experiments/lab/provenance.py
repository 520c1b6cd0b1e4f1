"""How a run was made: what a reader needs to make it again, and what is no part of its key."""

import platform
import subprocess
import time
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "transformer-lens", "nnsight", "captum", "xarray", "numpy", "plotly")


def provenance() -> dict[str, Any]:
    """Versions, commit and time."""
    return {**_of_process(), "time": time.strftime("%Y-%m-%d %H:%M:%S %z")}


@lru_cache(maxsize=1)  # of the code as it was when a process first ran something
def _of_process() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: _version(name) for name in PACKAGES},
        **_revision(Path(__file__)),
    }


def _revision(file: Path) -> dict[str, Any]:
    """The commit that a file of ours is of, and whether anything tracked was changed since; else the package's version.

    Installed below another project's folder, it is not git's business here: the commit would be that project's.
    """
    if not _git(file.parent, "ls-files", "--error-unmatch", file.name):
        return {"commit": f"interp {_version('interp')}", "changed": None}
    return {
        "commit": _git(file.parent, "rev-parse", "HEAD") or "unknown",
        "changed": bool(_git(file.parent, "status", "--porcelain", "--untracked-files=no")),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _git(here: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=here, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
