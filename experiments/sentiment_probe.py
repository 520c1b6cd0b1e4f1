"""Can the writer's feeling be read off each layer? Linear probes on adjectives that they never saw.

Alain & Bengio 2016 (arXiv:1610.01644), Hewitt & Liang 2019 (arXiv:1909.03368).
"""

from dataclasses import dataclass
from typing import Any

from experiments.lab import Arrays, OnModel, Shown, option
from experiments.lab.subjects import embedded_task, open_model
from experiments.lab.wording import percent

QUESTION = "Can the writer's feeling be read off?"
VERSION = 3


@dataclass(frozen=True)
class Config(OnModel):
    n: int = option(192, "how many prompts the probes learn from and are tested on")


def inputs(cfg: Config) -> tuple[Any, ...]:
    model = open_model(cfg)
    return model, embedded_task(cfg, model, "sentiment", split="train")  # more adjectives to hold some out


def run(cfg: Config) -> Arrays:
    import torch

    from interp import probing, tasks

    model, task = inputs(cfg)
    words = model.words(task.clean.ids[torch.arange(len(task)), task.clean.role("adjective")].tolist())
    data = tasks.from_labels(model, task.clean, task.labels["positive"], words, name="sentiment")
    return {"probe": probing.probe(model, data, model.sites("resid_post"), seed=cfg.seed)}


def numbers(arrays: Arrays) -> dict[str, float]:
    found = arrays["probe"]
    return {"accuracy": float(found["accuracy"].max()), "null": float(found.attrs["null_of_the_best"])}


def answer(arrays: Arrays) -> str:
    found = numbers(arrays)
    return (
        f"A probe of the writer's feeling reaches {percent(found['accuracy'])} on adjectives that it never saw; of shuffled "
        f"labels, the best layer reaches {percent(found['null'])} in one case of twenty. What can be read off need not be used."
    )


def draw(arrays: Arrays) -> Shown:
    from interp import plots

    return {"probe": plots.probes(arrays["probe"], "accuracy", "Probe of sentiment at the last position")}
