"""Which places carry who is given something? Activation patching of positions and heads, in both directions.

Wang et al. 2022 (arXiv:2211.00593).
"""

from dataclasses import dataclass
from typing import Any

from experiments.lab import Arrays, OnModel, Shown
from experiments.lab.subjects import open_model, open_task
from experiments.lab.wording import between, head, largest, percent

QUESTION = "Where is the indirect object decided?"
VERSION = 1


@dataclass(frozen=True)
class Config(OnModel):
    """No options beside those of every experiment on a model."""


def inputs(cfg: Config) -> tuple[Any, ...]:
    model = open_model(cfg)
    return model, open_task(cfg, model, "ioi")


def run(cfg: Config) -> Arrays:
    from interp import patching, stats

    model, task = inputs(cfg)
    given = model, task.clean, task.corrupt
    heads = patching.both_directions(*given, model.sites("z"), task.logit_diff, over=["head"])
    return {
        "positions": patching.patch(*given, model.sites("resid_pre"), task.logit_diff, over=["pos"]),
        "heads": heads,
        "heads_table": stats.summary(heads, seed=cfg.seed),
    }


def numbers(arrays: Arrays) -> dict[str, float]:
    restored, lost = (arrays["heads_table"]["mean"].sel(direction=way) for way in ("denoising", "noising"))
    best = largest(restored)
    return {
        "restored": float(restored.max()),
        "lost": float(lost.sel(best)),
        "best_layer": best["layer"],
        "best_head": best["head"],
    }


def answer(arrays: Arrays) -> str:
    table = arrays["heads_table"]
    best = largest(table["mean"].sel(direction="denoising"))
    restored, lost = (between(table, direction=way, **best) for way in ("denoising", "noising"))
    sure = int(table["significant"].any("direction").sum())
    at_end = arrays["positions"].mean("prompt").isel(pos=-1)
    arrived = [int(layer) for layer in at_end["layer"].values if float(at_end.sel(layer=layer)) > 0.5]
    since = "No block gathers it at the last word"
    if arrived:
        since = (
            f"Entering block {arrived[0]}, {percent(at_end.sel(layer=arrived[0]))} of the answer is at the last word"
        )
    return (
        f"Head {head(best)} restores most of the logit difference, {restored}, and without it {lost} is lost; {sure} of "
        f"{table['mean'].isel(direction=0).size} heads have an effect that is not chance. {since}."
    )


def draw(arrays: Arrays) -> Shown:
    from interp import plots

    table = arrays["heads_table"]
    share = table["mean"].rename("share")
    maps = {
        way: plots.heatmap(
            share.sel(direction=way),
            f"Heads, {way} (★ p ≤ 0.05)",
            significant=table["significant"].sel(direction=way),
        )
        for way in ("denoising", "noising")
    }
    positions = plots.heatmap(arrays["positions"].mean("prompt"), "Residual stream restored, by layer and position")
    return {"stream": positions, **maps}
