"""Searches by Optuna: what to tell its sweeper, and what its study holds."""

from pathlib import Path
from typing import Any

from experiments.lab.overrides import override


def overrides(database: Path, name: str, trials: int, at_once: int, maximize: bool) -> list[str]:
    """How to run what is left of a search; nothing if no trial is."""
    database.parent.mkdir(parents=True, exist_ok=True)
    done = len(finished(database, name))
    if (left := trials - done) <= 0:
        return []
    return [
        "hydra/sweeper=optuna",
        f"hydra.sweeper.n_trials={left}",
        f"hydra.sweeper.n_jobs={max(1, at_once)}",
        f"hydra.sweeper.direction={'maximize' if maximize else 'minimize'}",
        f"hydra.sweeper.study_name={name}",
        override("hydra.sweeper.storage", f"sqlite:///{database}"),
        f"hydra.sweeper.sampler.seed={done}",  # the same seed would draw the same first points again
    ]


def best(database: Path, name: str, number: str) -> str:
    """The best point so far, in a line."""
    trials = finished(database, name)
    if not trials:
        return "no trial was finished"
    where = ", ".join(f"{option}={value}" for option, value in trials[0].params.items())
    return f"best of {len(trials)} trials: {number} = {trials[0].value:.4g} at {where}"


def finished(database: Path, name: str) -> list[Any]:
    """The finished trials of a search, best first."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    address = f"sqlite:///{database}"
    if name not in optuna.get_all_study_names(address):
        return []
    study = optuna.load_study(study_name=name, storage=address)
    trials = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    largest_first = study.direction == optuna.study.StudyDirection.MAXIMIZE
    return sorted(trials, key=lambda trial: trial.value, reverse=largest_first)
