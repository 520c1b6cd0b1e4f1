"""Does a noun in between mislead the verb, and which head reads the subject's number past it?

Linzen et al. 2016 (arXiv:1611.01368), Finlayson et al. 2021 (arXiv:2106.06087).
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from experiments.lab import Arrays, OnModel, Shown
from experiments.lab.subjects import open_model, open_task, speaks_embedded
from experiments.lab.wording import between, head, largest, percent

if TYPE_CHECKING:
    from interp import Model, Tokens

QUESTION = "Does a noun in between mislead the verb?"
VERSION = 1


@dataclass(frozen=True)
class Config(OnModel):
    """No options beside those of every experiment on a model."""


def inputs(cfg: Config) -> tuple[Any, ...]:
    model = open_model(cfg)
    return model, open_task(cfg, model, "agreement")


def run(cfg: Config) -> Arrays:
    import torch

    from interp import patching, stats
    from interp.arrays import labelled

    model, task = inputs(cfg)
    attractor = _other_number(model, task.clean)
    sides = [task.logit_diff(model.run(tokens, last_only=True)) for tokens in (task.clean, attractor)]
    coords: dict[str, Any] = {"attractor": ["other number", "same number"], "prompt": range(len(task))}
    heads = patching.patch(model, task.clean, task.corrupt, model.sites("z"), task.logit_diff, over=["head"])
    return {
        "margin": labelled(torch.stack(sides), task.logit_diff.name, coords, model, method="forward pass"),
        "heads": heads,
        "heads_table": stats.summary(heads, seed=cfg.seed),
        "looks": _looks(model, task),
    }


def numbers(arrays: Arrays) -> dict[str, float]:
    margin = arrays["margin"]
    right = (margin > 0).mean("prompt")
    return {
        "right": float(right.sel(attractor="other number")),
        "right_without": float(right.sel(attractor="same number")),
        "pull": float((margin.sel(attractor="same number") - margin.sel(attractor="other number")).mean()),
        "restored": float(arrays["heads_table"]["mean"].max()),
    }


def answer(arrays: Arrays) -> str:
    from interp import stats

    margin, table = arrays["margin"], arrays["heads_table"]
    pull = stats.interval(margin.sel(attractor="same number") - margin.sel(attractor="other number"))
    best = largest(table["mean"])
    looks = arrays["looks"].mean("prompt").sel(best)
    found = numbers(arrays)
    low, high = float(pull["low"]), float(pull["high"])
    return (
        f"{'Hardly' if found['right'] > 0.9 else 'Often'}: the verb agrees with its subject in {percent(found['right'])} of the prompts "
        f"with a noun of the other number in between ({percent(found['right_without'])} with one of the same). One of the same "
        f"number changes the logit difference by {found['pull']:+.2f} (95 % interval {low:+.2f} to {high:+.2f}). Head {head(best)} carries the subject's number, {between(table, **best)} restored alone; from the last word it looks at the subject with {float(looks.sel(noun='subject')):.2f} and at the noun in "
        f"between with {float(looks.sel(noun='attractor')):.2f} of its attention."
    )


def draw(arrays: Arrays) -> Shown:
    from interp import plots

    table, looks = arrays["heads_table"], arrays["looks"].mean("prompt")
    difference = (looks.sel(noun="subject") - looks.sel(noun="attractor")).rename("attention")
    return {
        "margin": plots.distributions(arrays["margin"], "Right verb against wrong verb, by the noun in between"),
        "heads": plots.heatmap(
            table["mean"].rename("share"), "Heads restored (★ p ≤ 0.05)", significant=table["significant"]
        ),
        "looks": plots.heatmap(
            difference, "Attention from the last word: subject minus the noun in between", diverging=True
        ),
    }


def _other_number(model: "Model", tokens: "Tokens") -> "Tokens":
    """The prompts with their last noun in its other number.

    Raises:
        ValueError: A prompt in which no noun of the shipped lists is found.
    """
    swap = _numbers(model)
    ids = tokens.ids.clone()
    for row, words in enumerate(ids.tolist()):
        places = [i for i, word in enumerate(words) if word in swap]
        if len(places) < 2:
            text = " ".join(model.words(words))
            raise ValueError(f"prompt {row} ({text!r}) needs two nouns of the shipped lists, subject and attractor")
        ids[row, places[-1]] = swap[words[places[-1]]]
    return replace(tokens, ids=ids)


def _numbers(model: "Model") -> dict[int, int]:
    """The other number of each noun, as tokens."""
    from interp import english
    from interp.zoo import lexicon

    if speaks_embedded(model):
        pairs = list(zip(lexicon.SINGULAR, lexicon.PLURAL))
    else:
        fit = set(english.single(model, [*english.NOUNS, *english.NOUNS.values()]))
        pairs = [(f" {one}", f" {many}") for one, many in english.NOUNS.items() if {one, many} <= fit]
    ids = [(model.token_id(one), model.token_id(many)) for one, many in pairs]
    return dict(ids) | {many: one for one, many in ids}


def _looks(model: "Model", task: Any) -> Any:
    """How much each head looks from the last word at the subject and at the noun in between."""
    import torch

    from interp.arrays import labelled

    sites = model.sites("pattern")
    trace = model.run(task.clean, read=sites, last_only=True)
    rows = torch.arange(len(task), device=model.device)
    subject = (task.clean.ids != task.corrupt.ids).float().argmax(-1)
    attractor = (task.clean.ids != _other_number(model, task.clean).ids).float().argmax(-1)
    seen = [torch.stack([trace[s][rows, :, -1, noun] for noun in (subject, attractor)]).transpose(1, 2) for s in sites]
    coords: dict[str, Any] = {
        "layer": [s.layer for s in sites], "noun": ["subject", "attractor"], "head": range(model.shape.n_heads),
        "prompt": range(len(task)),
    }  # fmt: skip
    return labelled(torch.stack(seen), "attention", coords, model, method="attention", site="pattern")
