"""Which words recall a capital? Integrated gradients at the first block's input.

Sundararajan et al. 2017 (arXiv:1703.01365).
"""

from dataclasses import dataclass
from typing import Any

from experiments.lab import Arrays, OnModel, Shown
from experiments.lab.subjects import open_model, open_task
from experiments.lab.wording import percent

QUESTION = "Which words recall the capital?"
VERSION = 1


@dataclass(frozen=True)
class Config(OnModel):
    """No options beside those of every experiment on a model."""


def inputs(cfg: Config) -> tuple[Any, ...]:
    model = open_model(cfg)
    return model, open_task(cfg, model, "facts")


def run(cfg: Config) -> Arrays:
    from interp import Site, attribution, stats

    model, task = inputs(cfg)
    site = Site("resid_pre", 0)
    scores = attribution.integrated_gradients(model, task.clean, task.corrupt, site, task.logit_diff)
    return {"attribution": scores, "attribution_table": stats.interval(scores, seed=cfg.seed)}


def numbers(arrays: Arrays) -> dict[str, float]:
    mean = arrays["attribution_table"]["mean"]
    return {"total": float(mean.sum()), "largest": float(mean.max() / mean.sum())}


def answer(arrays: Arrays) -> str:
    mean = arrays["attribution_table"]["mean"]
    share = (mean / mean.sum()).sortby(mean, ascending=False)
    named = [
        f"{percent(value)} at \u201c{pos}\u201d"
        for pos, value in zip(share["pos"].values, share.values)
        if value > 0.01
    ]
    return (
        f"Of the attribution {', '.join(named)}. The baseline is another subject, so that words which both prompts share can have "
        f"none; the sum is the change in the logit difference, {float(mean.sum()):.1f}."
    )


def draw(arrays: Arrays) -> Shown:
    from interp import plots

    title = "Integrated gradients at the first block's input"
    return {"attribution": plots.bars(arrays["attribution_table"], "pos", title, "logits")}
