"""The layout of experiments/, kept by the tests: who may import whom, and what may be imported when."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.lab.experiment import shipped

ROOT = Path(__file__).parents[1] / "experiments"


def imported(path, inside):
    """Modules of this package that a file imports at its top or, if `inside`, in its functions as well."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if inside else tree.body:
        if isinstance(node, ast.ImportFrom):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_the_store_knows_nothing_of_experiments():
    for path in [ROOT / "store.py", *(ROOT / "storage").glob("*.py")]:
        used = {name for name in imported(path, inside=True) if name.startswith("experiments")}
        assert all(name.startswith(("experiments.storage", "experiments.store")) for name in used), (path.name, used)
    for path in (ROOT / "report").glob("*.py"):
        used = {name for name in imported(path, inside=True) if name.startswith("experiments.lab")}
        assert not used, f"a page is made from the store alone, but {path.name} imports {used}"


def test_no_experiment_imports_another_and_none_is_heavy_at_the_top():
    for name in shipped():
        path = ROOT / f"{name}.py"
        others = {used.rpartition(".")[2] for used in imported(path, inside=True)} & set(shipped())
        assert not others, f"{name} imports {others}"
        heavy = {
            used
            for used in imported(path, inside=False)
            if used.split(".")[0] in ("interp", "torch", "xarray", "plotly")
        }
        assert not heavy, f"{name} imports {heavy} before it runs, so that --help would wait for it"


def test_modules_are_short():
    for path in ROOT.rglob("*.py"):
        assert path.read_text().count("\n") <= 250, path.name


@pytest.mark.parametrize(
    "module", ["experiments.store", "experiments.lab", "experiments.report", *map("experiments.{}".format, shipped())]
)
def test_each_part_can_be_imported_first(module):
    heavy = ("torch", "hydra", "xarray", "plotly", "pandas")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=True)
    assert out.stdout.strip() == "[]"
