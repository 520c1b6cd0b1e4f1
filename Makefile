# `make demo` runs the main job and `make test` passes the tests; both install what they need into .venv first.
PYTHON ?= python3
VENV ?= .venv
export HF_HUB_OFFLINE = 1
# A process for each core, four at most; one thread in each, or they would wait for each other.
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal

.PHONY: demo test lint check notebooks docs experiments scorecard install format clean

demo: install
	$(VENV)/bin/python -m experiments.main_job

# Every experiment on the embedded model, and one page of all; what has been run is not run again.
experiments: install
	$(VENV)/bin/python -m experiments gallery

test: install
	$(PYTEST)

# Format, lint and types.
lint: install
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

check: lint
	$(VENV)/bin/python notebooks/run.py --check
	$(PYTEST) --deselect tests/test_notebooks.py::test_a_notebook_runs_without_a_warning

# Run every notebook and store it with its pictures; needs a Chromium.
notebooks: install
	$(VENV)/bin/python notebooks/run.py

# Write the reference from the docstrings, and the table of supported models.
docs: install
	$(VENV)/bin/python -m docs.make

# Score every method against known answers: docs/scorecard.md, and the numbers beside it.
scorecard: install
	$(VENV)/bin/python -m interp.zoo.scorecard docs/scorecard.md

format: install
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

install: $(VENV)/.installed

# torch first, in the version that the constraints name: left to itself, pip takes the newest, with gigabytes of CUDA.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q -c constraints.txt torch
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs
