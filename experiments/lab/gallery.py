"""Every shipped experiment on one page."""

from collections.abc import Sequence
from pathlib import Path

from experiments.lab.experiment import find, shipped
from experiments.lab.keeping import keep
from experiments.lab.options import chosen, configured, describe
from experiments.store import Run, Store

LEAD = "Every question that ships with the toolkit, asked of one model; what is behind each figure is in the store."


def gallery(store: Store, overrides: Sequence[str], file: Path) -> int:
    """Run what has not been run, write the page, and say where it is; 1 if an experiment failed.

    Raises:
        ValueError: An override that is no option of any of them.
    """
    from experiments.report import gallery_page, write

    runs: list[Run] = []
    failed = []
    experiments = {name: find(name) for name in shipped()}
    options = {name: [option.name for option in describe(each.config)] for name, each in experiments.items()}
    for word in overrides:
        chosen([word.partition("=")[0]], dict.fromkeys(name for names in options.values() for name in names), "options")
    for name, experiment in experiments.items():
        own = [word for word in overrides if word.partition("=")[0] in options[name]]
        try:
            runs.append(keep(configured(experiment.config, own), store))
            print(f"{runs[-1].name}: {runs[-1].answer}")
        except (ValueError, TypeError) as error:  # a question that this model or these prompts do not fit
            failed.append(name)
            print(f"{name}: {error}")
    if runs:
        print(f"page: {write(file, gallery_page(runs, 'What does a small model know, and where?', LEAD))}")
    return 1 if failed else 0
