"""When in training does each behaviour appear, and does induction appear at once, together with its heads?

Phase change of induction: Olsson et al. 2022 (arXiv:2209.11895). A behaviour is as strong as the right answer is more
probable than in the corrupt prompt, which lacks what it follows from: 0 without it, whatever is probable anyway. What is
half-way is found by interpolation between checkpoints; its interval ends at checkpoints, because nothing is known of what
lies between them. A phase change rises from 10 % to 90 % of its final strength in less time than it waited for the 10 %;
steady growth takes eight times as long.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.lab import Arrays, OnModel, Shown, option
from experiments.lab.checkpoints import opened, training
from experiments.lab.subjects import open_induction, open_model, open_task, speaks_embedded
from experiments.lab.wording import head, largest

if TYPE_CHECKING:
    import numpy as np

    from interp import Model
    from interp.arrays import Check
    from interp.tasks import Task

QUESTION = "When in training does each behaviour appear?"
VERSION = 1
_BEHAVIOURS = ("ioi", "facts", "agreement", "greater_than")
_HEADS = ("previous token", "induction")


@dataclass(frozen=True)
class Config(OnModel):
    checkpoints: tuple[str, ...] = option(
        (), "what came before `model` in its training, oldest first: folders or name@revision; embedded has its own"
    )
    period: int = option(12, "how many tokens there are before they repeat")


def inputs(cfg: Config) -> tuple[Any, ...]:
    *earlier, _ = training(cfg.model, cfg.checkpoints)
    model = open_model(cfg)
    return model, [each.fingerprint() for each in opened(cfg, earlier, model)], [*_tasks(cfg, model)[0].values()]


def run(cfg: Config) -> Arrays:
    import torch

    from interp.arrays import labelled

    steps = training(cfg.model, cfg.checkpoints)
    model = open_model(cfg)
    tasks, lacking = _tasks(cfg, model)
    seen = [_measured(cfg, each, tasks) for each in (*opened(cfg, [*steps][:-1], model), model)]
    strength, margin, right, looks, chance = (torch.stack(parts) for parts in zip(*seen))
    coords: dict[str, Any] = {"step": [*steps.values()], "behaviour": [*tasks], "prompt": range(cfg.n)}
    heads: dict[str, Any] = {"step": coords["step"], "detector": _HEADS}
    heads |= {"layer": range(model.shape.n_layers), "head": range(model.shape.n_heads), "prompt": range(cfg.n)}
    how: dict[str, Any] = {"method": "forward passes of checkpoints", "checkpoints": [*steps]}
    arrays = {
        "strength": labelled(strength, "probability above corrupt", coords, model, lacking=lacking, **how),
        "margin": labelled(margin, "logit difference", coords, model, **how),
        "right": labelled(right, "right answers", coords, model, **how),
        "heads": labelled(looks, "attention", heads, model, **how),
        "chance": labelled(chance, "attention elsewhere", heads, model, **how),
    }
    return arrays | {"onset": _onsets(arrays, cfg.seed)}


def numbers(arrays: Arrays) -> dict[str, float]:
    onset = arrays["onset"]
    found = {f"{what}_step": float(onset["step"].sel(what=what)) for what in onset["what"].values}
    return {name.replace(" ", "_"): value for name, value in found.items()} | {
        "induction_ratio": float(onset["ratio"].sel(what="induction")),
        "induction_right": float(arrays["right"].sel(behaviour="induction").isel(step=-1).mean()),
    }


def answer(arrays: Arrays) -> str:
    onset = arrays["onset"]
    behaviours = [str(name) for name in arrays["strength"]["behaviour"].values]
    there = onset.sel(what=behaviours).dropna("what", subset=["step"]).sortby("step")
    never = [name for name in behaviours if name not in there["what"].values]
    said = [f"Half-way to their final strength, in steps of training: {_when(there)}." if there.sizes["what"] else ""]
    said.append(f"No sign, at the end, of {', '.join(never)}." if never else "")
    if "induction" not in never:
        heads = onset.sel(what=[f"{name} head" for name in _HEADS]).dropna("what", subset=["step"])
        said.append(_phase(onset.sel(what="induction")))
        said.append(
            f"Of its heads, half-way are {_when(heads)}." if heads.sizes["what"] else "No head looks as it wants."
        )
    if lacking := arrays["strength"].attrs["lacking"]:
        said.append(f"Not asked, because no prompts are shipped that fit the model: {lacking}.")
    return " ".join(filter(None, said))


def draw(arrays: Arrays) -> Shown:
    from interp import plots, stats

    steps = arrays["margin"]["step"].values
    titles = {
        "strength": ("Right answer more probable than in the corrupt prompt", "probability"),
        "right": ("Likeliest token is a right answer", "share of prompts"),
        "margin": ("Right answer against wrong", "logits"),
    }
    shown: dict[str, Any] = {}
    for name, (title, unit) in titles.items():
        bands = stats.interval(arrays[name])
        curves = {str(what): bands.sel(behaviour=what) for what in bands["behaviour"].values}
        shown[name] = plots.lines(curves, "step", title, unit)
    heads = {f"{name} head {_name(arrays, name)}": stats.interval(_looks(arrays, name)) for name in _HEADS}
    shown["heads"] = plots.lines(heads, "step", "Heads of induction", "attention above chance")
    for figure in shown.values():
        figure.update_xaxes(type="log", tickvals=steps, ticktext=[f"{step:g}" for step in steps])
    table = arrays["onset"].to_dataframe().reset_index().round(3)
    return shown | {"onset": table.rename(columns={"step": "half-way", "waited": "10 % at", "ratio": "rise / wait"})}


def _tasks(cfg: Config, model: "Model") -> tuple[dict[str, "Task"], str]:
    """The behaviours that there are prompts of for this model, and those that there are not, in words."""
    tasks, lacking = {"induction": open_induction(cfg, model, cfg.period)}, []
    for name in _BEHAVIOURS:
        try:
            tasks[name] = open_task(cfg, model, name)
        except ValueError as error:
            lacking.append(f"{name} ({error})")
    return tasks, "; ".join(lacking)


def _measured(cfg: Config, model: "Model", tasks: "dict[str, Task]") -> list[Any]:
    """Of one checkpoint: strengths, margins and right answers; attention by detector, head and prompt, and by chance."""
    import torch

    from interp import metrics, weights
    from interp.zoo import lexicon

    strength, margin, right = [], [], []
    for task in tasks.values():
        trace, corrupt = (model.run(side, last_only=True) for side in (task.clean, task.corrupt))
        strength.append(metrics.prob(task.right)(trace) - metrics.prob(task.right)(corrupt))
        margin.append(task.logit_diff(trace))
        right.append((trace.logits[:, -1].argmax(-1, keepdim=True) == task.right).any(-1).float())
    words = [model.token_id(word) for word in lexicon.CONTENT] if speaks_embedded(model) else None
    found = weights.behaviour(model, cfg.n, cfg.period, words, seed=cfg.seed).sel(detector=list(_HEADS))
    heads = [torch.tensor(found[name].values) for name in ("score", "null")]
    return [torch.stack(strength), torch.stack(margin), torch.stack(right), *heads]


def _chosen(arrays: Arrays, detector: str) -> dict[str, Any]:
    """The head that looks most as the detector wants, at the end of training, on every second prompt."""
    looks = (arrays["heads"] - arrays["chance"]).sel(detector=detector).isel(step=-1, prompt=slice(0, None, 2))
    return largest(looks.mean("prompt"))


def _looks(arrays: Arrays, detector: str) -> Any:
    """A head's attention above chance, by step, on the prompts that it was not chosen by."""
    looks = (arrays["heads"] - arrays["chance"]).sel(detector=detector, **_chosen(arrays, detector))
    return looks.isel(prompt=slice(1, None, 2))


def _onsets(arrays: Arrays, seed: int) -> Any:
    """Of each behaviour and head, when half of its final strength is there, and how fast it came."""
    import xarray as xr

    from interp.arrays import attach

    strength = arrays["strength"]
    grown = {str(name): strength.sel(behaviour=name) for name in strength["behaviour"].values}
    grown |= {f"{name} head": _looks(arrays, name) for name in _HEADS}
    rows = [_onset(array, seed) for array in grown.values()]
    columns = {name: ("what", [row[name] for row in rows]) for name in rows[0]}
    heads = [*["–"] * strength.sizes["behaviour"], *(_name(arrays, name) for name in _HEADS)]
    found = xr.Dataset(columns, {"what": [*grown]}).assign(head=("what", heads))
    return found.assign_attrs(attach([_resolved(found.sel(what="induction"), strength["step"].values)], {"seed": seed}))


def _resolved(at: Any, steps: "np.ndarray") -> "Check":
    """Whether a rise is seen on its way: of one between two checkpoints, all that is known is that it was fast."""
    from interp.arrays import Check

    begun, ended = float(at["waited"]), float(at["waited"] * (1 + at["ratio"]))
    inside = float(((steps > begun) & (steps < ended)).sum()) if begun == begun else float("nan")
    why = "of a rise between two checkpoints no more is known than that it was fast"
    return Check.at_least("checkpoints within the rise of induction", inside, 1, why)


def _onset(array: Any, seed: int) -> dict[str, float]:
    """When a growing number is half-way, between which checkpoints that lies (95 %), and how long it waits and rises."""
    import numpy as np

    from interp import stats

    names = ("step", "from", "to", "waited", "ratio", "ratio_low", "ratio_high")
    if float(stats.interval(array.isel(step=-1), seed=seed)["low"]) <= 0:
        return dict.fromkeys(names, float("nan"))
    steps = np.concatenate([[0.0], array["step"].values])

    def reached(means: "np.ndarray") -> "np.ndarray":
        levels = np.concatenate([np.zeros_like(means[:, :1]), means], axis=1) / means[:, -1:]
        (waited, *_), half, (ended, *_) = (_reached(levels, steps, share) for share in (0.1, 0.5, 0.9))
        return np.stack([*half, waited, (ended - waited) / waited], axis=1)

    found, low, high = stats.of_means(reached, array, seed=seed)
    values = (found[0], low[1], high[2], found[3], found[4], low[4], high[4])
    return dict(zip(names, map(float, values)))


def _reached(levels: "np.ndarray", steps: "np.ndarray", share: float) -> list["np.ndarray"]:
    """By draw: when a share of the final level is first reached, and the checkpoints before and after."""
    import numpy as np

    rows = np.arange(len(levels))
    after = (levels >= share).argmax(axis=1)
    low, high = levels[rows, after - 1], levels[rows, after]
    begun, ended = steps[after - 1], steps[after]
    return [begun + (ended - begun) * (share - low) / (high - low), begun, ended]


def _when(onset: Any) -> str:
    """Names with their steps, and the checkpoints that these lie between: "facts at 812 (750 to 1000), …"."""
    rows = onset.to_dataframe().reset_index().to_dict("records")
    names = [f"{row['what']} {row['head']}".removesuffix(" –") for row in rows]
    return ", ".join(
        f"{name} at {row['step']:.0f} ({row['from']:.0f} to {row['to']:.0f})" for name, row in zip(names, rows)
    )


def _phase(at: Any) -> str:
    """Whether something that grew did so at once: the rise takes less time than there was before it."""
    verdict = "changes phase" if float(at["ratio_high"]) < 1 else "does not change phase"
    ratio, low, high = (float(at[name]) for name in ("ratio", "ratio_low", "ratio_high"))
    return (
        f"Induction {verdict}: its rise from 10 % to 90 % takes {ratio:.2g} ({low:.2g} to {high:.2g}) times the "
        f"{float(at['waited']):.0f} steps before it; steady growth takes 8."
    )


def _name(arrays: Arrays, detector: str) -> str:
    return head(_chosen(arrays, detector))
