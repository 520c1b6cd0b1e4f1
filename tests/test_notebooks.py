"""The notebooks run, and what is stored was made from the scripts beside it."""

from pathlib import Path

import nbformat
import pytest

from notebooks import run


@pytest.mark.slow
@pytest.mark.parametrize("source", run.SOURCES, ids=lambda path: path.stem)
def test_a_notebook_runs_without_a_warning(source: Path):
    run.execute(source)


@pytest.mark.parametrize("source", run.SOURCES, ids=lambda path: path.stem)
def test_the_stored_notebook_has_the_cells_of_its_script(source: Path):
    stored = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    cells = [[(cell.cell_type, cell.source) for cell in notebook.cells] for notebook in (stored, run.read(source))]
    assert cells[0] == cells[1], "run `make notebooks`"


@pytest.mark.slow
def test_a_warning_is_an_error(tmp_path: Path):
    source = tmp_path / "odd.py"
    source.write_text("# %%\nimport warnings\n\nwarnings.warn('odd', stacklevel=1)\n")
    with pytest.raises(RuntimeError, match="odd"):
        run.execute(source)
