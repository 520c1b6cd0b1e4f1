"""When does the model know the answer? The logit lens on the indirect object.

nostalgebraist 2020, "interpreting GPT: the logit lens".
"""

from dataclasses import dataclass
from typing import Any

from experiments.lab import Arrays, OnModel, Shown
from experiments.lab.subjects import open_model, open_task

QUESTION = "When does the model know the answer?"
VERSION = 1


@dataclass(frozen=True)
class Config(OnModel):
    """No options beside those of every experiment on a model."""


def inputs(cfg: Config) -> tuple[Any, ...]:
    model = open_model(cfg)
    return model, open_task(cfg, model, "ioi")


def run(cfg: Config) -> Arrays:
    from interp import lens, stats

    model, task = inputs(cfg)
    values = lens.logit_lens(model, task.clean, task.logit_diff)
    return {
        "decoded": values,
        "decoded_table": stats.interval(values, seed=cfg.seed),
        "top": lens.decode(model, task.clean.rows([0])).isel(top=0, prompt=0),
    }


def numbers(arrays: Arrays) -> dict[str, float]:
    mean = arrays["decoded_table"]["mean"]
    return {"last": float(mean.isel(layer=-1)), "known": _known(arrays)}


def answer(arrays: Arrays) -> str:
    means = ", ".join(f"{value:.1f}" for value in arrays["decoded_table"]["mean"].values)
    known = _known(arrays)
    since = f"it is right for certain after block {known}" if known >= 0 else "it is right for certain after none"
    return f"Decoded after each block, the logit difference of the right name is {means}; {since}."


def draw(arrays: Arrays) -> Shown:
    from interp import plots

    top = arrays["top"]
    curve = {"logit lens": arrays["decoded_table"]}
    return {
        "lens": plots.lines(curve, "layer", "Logit difference decoded after each block", "logits"),
        "words": plots.words(
            top["probability"], top["token"], "Likeliest next word by layer and position", labels=top["input"],
            grey=top["skill"] <= 0,
        ),
    }  # fmt: skip


def _known(arrays: Arrays) -> int:
    """The first block from which on the interval stays above zero; -1 if there is none."""
    low = arrays["decoded_table"]["low"]
    known = [int(layer) for layer in low["layer"].values if bool((low.sel(layer=slice(layer, None)) > 0).all())]
    return known[0] if known else -1
