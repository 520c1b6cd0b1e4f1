"""Every shipped experiment on one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.lab.experiment import find, shipped
from experiments.lab.keeping import keep
from experiments.lab.options import describe
from experiments.store import Run, Store

LEAD = "Every question that ships with the toolkit, asked of one model; what is behind each figure is in the store."


def gallery(store: Store, overrides: Sequence[str], file: Path) -> int:
    """Run what has not been run, write the page, and say where it is; 1 if an experiment failed."""
    from experiments.report import gallery_page, write

    runs: list[Run] = []
    failed = []
    for name in shipped():
        experiment = find(name)
        try:
            runs.append(keep(configured(experiment.config, overrides), store))
            print(f"{runs[-1].name}: {runs[-1].answer}")
        except (ValueError, TypeError) as error:  # a question that this model or these prompts do not fit
            failed.append(name)
            print(f"{name}: {error}")
    if runs:
        print(f"page: {write(file, gallery_page(runs, 'What does a small model know, and where?', LEAD))}")
    return 1 if failed else 0


def configured(config: type, overrides: Sequence[str]) -> Any:
    """A config with those overrides that are options of it.

    Raises:
        ValueError: An override that is no key=value, or of the wrong type.
    """
    known = {option.name: option for option in describe(config)}
    values: dict[str, Any] = {}
    for word in overrides:
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"{word!r} is no key=value")
        if name in known:
            kind = type(known[name].default)
            try:
                values[name] = text if kind is str else kind(text)
            except ValueError:
                raise ValueError(f"{name} is of type {known[name].type}, not {text!r}") from None
    return config(**values)
