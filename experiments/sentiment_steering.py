"""Does pushing along the difference of happy and sad change the mood? Dose and response beside random vectors.

Marks & Tegmark 2023 (arXiv:2310.06824), Rimsky et al. 2023 (arXiv:2312.06681).
"""

from dataclasses import dataclass
from typing import Any

from experiments.lab import Arrays, OnModel, Shown, option
from experiments.lab.subjects import embedded_task, open_model
from experiments.lab.wording import percent

QUESTION = "Does pushing along a direction change the mood?"
VERSION = 2


@dataclass(frozen=True)
class Config(OnModel):
    n: int = option(192, "how many prompts the vector is made of, and how many it is tried on")
    layer: int = option(2, "after which block the vector is added")
    dose: float = option(1.0, "how many times the vector is added")


def inputs(cfg: Config) -> tuple[Any, ...]:
    model = open_model(cfg)
    learn, test = (embedded_task(cfg, model, "sentiment", split=split) for split in ("train", "test"))
    return model, learn, test


def run(cfg: Config) -> Arrays:
    import torch

    from interp import Site, metrics, steering

    model, learn, test = inputs(cfg)
    doses = sorted({-1.0, -0.5, 0.0, 0.5, 1.0, 2.0, cfg.dose})
    words = model.words(learn.clean.ids[torch.arange(len(learn)), learn.clean.role("adjective")].tolist())
    concept = steering.labelled_set(model, "sentiment", learn.clean, learn.labels["positive"], words)
    vector = steering.extract(model, concept, Site("resid_post", cfg.layer), seed=cfg.seed)
    metric = metrics.logit_diff(model.token_id("happy"), model.token_id("sad"))
    negative = [text for text, positive in zip(test.texts[0], test.labels["positive"]) if not positive]
    nulls = {"random": steering.varied_like(model, negative, vector, seed=cfg.seed)}
    values = steering.dose_response(model, negative, vector, metric, doses, nulls=nulls)
    return {"response": values.assign_attrs(dose=cfg.dose), "vector": vector.writer}


def numbers(arrays: Arrays) -> dict[str, float]:
    values = arrays["response"].sel(dose=arrays["response"].attrs["dose"])
    flipped = (values > 0).mean("prompt")
    return {
        "response": float(values.sel(vector="steered").mean()),
        "flipped": float(flipped.sel(vector="steered")),
        "flipped_random": float(flipped.drop_sel(vector="steered").mean()),
    }


def answer(arrays: Arrays) -> str:
    values, found = arrays["response"], numbers(arrays)
    return (
        f"At dose {values.attrs['dose']:g} the vector makes {percent(found['flipped'])} of {values.sizes['prompt']} negative prompts "
        f"happy; random vectors of its length, in directions that vary, {percent(found['flipped_random'])}."
    )


def draw(arrays: Arrays) -> Shown:
    from interp import plots, stats

    values = arrays["response"]
    sides = {
        "steered": values.sel(vector="steered", drop=True),
        "random, same length": values.drop_sel(vector="steered").mean("vector"),
    }
    bands = {name: stats.interval(array) for name, array in sides.items()}
    return {"response": plots.lines(bands, "dose", "Dose and response on negative prompts", "logit of happy - sad")}
