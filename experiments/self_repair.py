"""How much of a head's loss do later parts make good? Total beside direct effects of ablating each head.

McGrath et al. 2023 (arXiv:2307.15771), Rushing & Nanda 2024 (arXiv:2402.15390).
"""

from dataclasses import dataclass
from typing import Any, Literal

from experiments.lab import Arrays, OnModel, Shown, option
from experiments.lab.subjects import open_model, open_task

QUESTION = "When a head is lost, do later parts make up for it?"
VERSION = 1


@dataclass(frozen=True)
class Config(OnModel):
    task: Literal["ioi", "facts", "agreement"] = option("ioi", "the behaviour whose heads are removed")
    ablation: Literal["mean", "zero"] = option(
        "mean", "what a head's output is set to: its mean on corrupt prompts, or zero"
    )
    least: float = option(0.05, "heads with a smaller share than this of the largest direct effect are left out")


def inputs(cfg: Config) -> tuple[Any, ...]:
    model = open_model(cfg)
    return model, open_task(cfg, model, cfg.task)


def run(cfg: Config) -> Arrays:
    from functools import partial

    from interp import components, edits, effects

    model, task = inputs(cfg)
    reference = model.run(task.corrupt, read=model.sites("z"))
    make = edits.zero if cfg.ablation == "zero" else partial(edits.mean, reference)
    found = effects.decompose(model, task.clean, components.each(model, make), task.logit_diff)
    return {"effects": found, "repair": effects.self_repair(found, cfg.least, seed=cfg.seed)}


def numbers(arrays: Arrays) -> dict[str, float]:
    largest = _largest(arrays)
    if largest is None:
        return {"repair": float("nan"), "direct": float("nan")}
    direct = arrays["effects"]["direct"].sel(norm="frozen", component=largest).mean()
    return {"repair": float(arrays["repair"]["mean"].sel(norm="frozen", component=largest)), "direct": float(direct)}


def answer(arrays: Arrays) -> str:
    largest, direct = _largest(arrays), numbers(arrays)["direct"]
    if largest is None:
        return "No head has a direct effect that is told from zero, so that there is nothing to repair."
    repair = arrays["repair"].sel(norm="frozen", component=largest)
    bounds = tuple(float(repair[name]) for name in ("mean", "low", "high"))
    verdict = (
        "is made good" if bounds[1] > 0 else "is made worse" if bounds[2] < 0 else "is neither made good nor made worse"
    )
    return (
        f"The head with the largest direct effect, {largest}, changes the logit difference by {direct:.2f} by "
        f"itself; later parts repair {bounds[0]:.2f} of that (95 % interval {bounds[1]:.2f} to {bounds[2]:.2f}): its loss {verdict}. "
        f"The final norm's scale is held."
    )


def draw(arrays: Arrays) -> Shown:
    from interp import plots, stats

    frozen = arrays["effects"].sel(norm="frozen")
    chosen = arrays["repair"].sel(norm="frozen").dropna("component")
    if _largest(arrays) is None:
        bands = {name: stats.interval(frozen[name]) for name in ("direct", "total")}
        return {"effects": plots.lines(bands, "component", "Direct and total effect of losing a head", "logits")}
    kept = frozen.sel(component=chosen["component"])
    sides = {name: stats.interval(kept[name]) for name in ("direct", "total")}
    table = chosen.to_dataframe().reset_index().drop(columns="norm").round(3)
    title = "Self-repair: 1 is made good, below 0 is made worse"
    return {
        "repair": plots.bars(chosen, "component", title, "1 - total / direct"),
        "effects": plots.lines(sides, "component", "Direct and total effect of losing a head", "logits"),
        "heads": table.rename(columns={"mean": "repaired"}),
    }


def _largest(arrays: Arrays) -> str | None:
    """The head whose direct effect is the largest of those that are told from zero, if there is one."""
    repair = arrays["repair"].sel(norm="frozen").dropna("component")
    if not repair.sizes["component"]:
        return None
    direct = arrays["effects"]["direct"].sel(norm="frozen").mean("prompt").sel(component=repair["component"])
    return str(direct["component"].values[int(abs(direct).argmax("component"))])
