"""What is shipped says what it is and needs: its version, that it is typed, and what it imports."""

import ast
import re
import sys
import tomllib
from pathlib import Path

from interp.version import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMED_OTHERWISE = {"sklearn": "scikit-learn", "transformer_lens": "transformer-lens"}
LATER = {"gguf", "networkx"}  # asked for by name where it is needed; torch brings networkx


def test_the_version_is_that_of_the_project():
    assert __version__ in (PROJECT["version"], "not installed")


def test_types_are_shipped():
    assert (ROOT / "interp" / "py.typed").exists() and "Typing :: Typed" in PROJECT["classifiers"]


def test_everything_that_is_imported_is_declared():
    declared = {re.split(r"[<>=\[]", line)[0] for line in PROJECT["dependencies"]}
    imported = set()
    for path in (ROOT / "interp").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.partition(".")[0] for name in names}
    others = imported - set(sys.stdlib_module_names) - {"interp"} - LATER
    assert {NAMED_OTHERWISE.get(name, name) for name in others} - declared == set()
