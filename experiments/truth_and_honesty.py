"""Who is honest, and what is true: is it decodable, is it used, or is it not there?

Truth and its transfer: Marks & Tegmark 2023 (arXiv:2310.06824). Controls: Hewitt & Liang 2019 (arXiv:1909.03368). Use:
Elazar et al. 2020 (arXiv:2006.00995). The second concept cannot be there, because it is true by a table that no text told:
what is found of it is what probes find by themselves.
"""

from dataclasses import dataclass
from typing import Any

from experiments.lab import Arrays, OnModel, Shown, option
from experiments.lab.claims import honesty, untaught
from experiments.lab.subjects import open_model
from experiments.lab.wording import between, percent

QUESTION = "Does the model know who is honest, and what is true?"
VERSION = 3
_CONCEPTS = {"honesty": "who is honest", "truth": "what is true, of claims that no text told,"}


@dataclass(frozen=True)
class Config(OnModel):
    n: int = option(400, "how many claims of each kind the probes learn from and are tested on")
    shuffles: int = option(199, "of the labels, for p-values")


def inputs(cfg: Config) -> tuple[Any, ...]:
    model = open_model(cfg)
    if cfg.data:
        raise ValueError("truth_and_honesty makes claims whose labels it knows and takes no data=; leave it out")
    return model, honesty(cfg, model), untaught(cfg, model)


def run(cfg: Config) -> Arrays:
    from interp import probing

    model, *sets = inputs(cfg)
    arrays: dict[str, Any] = {}
    sites = model.sites("resid_post")
    for concept, data in zip(_CONCEPTS, sets):
        read = probing.collect(model, data.prompts, sites, ["END"])
        given: dict[str, Any] = {"at": ["END"], "seed": cfg.seed, "activations": read}
        arrays[concept] = probing.probe(model, data, sites, shuffles=cfg.shuffles, **given)
        if "interchange" in arrays[concept]:
            arrays[f"{concept}_use"] = probing.use(model, data, sites, **given)
    return arrays


def numbers(arrays: Arrays) -> dict[str, float]:
    found = {}
    for concept in _CONCEPTS:
        best = _best(arrays[concept])
        for name in ("accuracy", "transfer_accuracy", "interchange", "erasure"):
            found[f"{concept}_{name}"] = float(best.get(name, float("nan")))
    return found


def answer(arrays: Arrays) -> str:
    return " ".join(_said(arrays[concept], what) for concept, what in _CONCEPTS.items())


def draw(arrays: Arrays) -> Shown:
    import pandas as pd

    from interp import plots, stats

    shown: dict[str, Any] = {
        "honesty": plots.probes(arrays["honesty"], "accuracy", "Who is honest: a probe at the last word"),
        "truth": plots.probes(arrays["truth"], "accuracy", "What is true, of claims that no text told"),
    }
    kinds: dict[str, Any] = {}
    for concept in _CONCEPTS:
        here = arrays[concept].isel(pos=0)
        kinds |= {f"{concept}, same kind": _band(here, "accuracy")}
        kinds |= {f"{concept}, other kind": _band(here, "transfer_accuracy")}
    shown["kinds"] = plots.lines(kinds, "layer", "Tested on prompts of the same or of another kind", "accuracy")
    if "honesty_use" in arrays:
        shares = arrays["honesty_use"].isel(pos=0, drop=True).drop_vars("p")
        curves: dict[str, Any] = {}
        for way in ("interchange", "erasure"):
            here = shares.sel(way=way)
            curves[way] = stats.interval(here.sel(direction="probe"))
            curves[f"{way}, largest placebo"] = here.isel(direction=slice(1, None)).mean("prompt").max("direction")
        title = "What the probe reads, set to the other label's or erased"
        shown["use"] = plots.lines(curves, "layer", title, "share of the answer's margin")
    tables = [_table(arrays[concept]).assign(concept=concept) for concept in _CONCEPTS]
    return shown | {"layers": pd.concat(tables).set_index("concept").reset_index().round(3)}


def _best(found: Any) -> Any:
    """The place of the highest verdict and, among those, of the most skill."""
    import numpy as np

    from interp.probing.verdicts import WORDS

    level = found["verdict"].copy(data=np.vectorize(WORDS.index)(found["verdict"].values))
    skill = found["skill"].where(level == level.max())
    return found.isel({str(axis): i for axis, i in skill.argmax(...).items()})


def _said(found: Any, what: str) -> str:
    """One concept's verdict in a sentence or two."""
    from interp.probing.verdicts import LEVEL, why_undecided

    best = _best(found)
    word, layer = str(best["verdict"].values), int(best["layer"])
    read = f"{between(_band(best, 'accuracy'))} after block {layer}"
    chance = percent(found.attrs["majority"])
    null = percent(found.attrs["null_of_the_best"])
    if word == "absent":
        why = "not told from shuffled labels" if best["p"] > LEVEL else "no better than the shares of the labels"
        return f"Absent: {what} is read with {read}, which is {why} (p = {float(best['p']):.2g})."
    if word == "undecided":
        return f"Undecided: {what} is read with {read} (p = {float(best['p']):.2g}), but {why_undecided(found, best)}."
    across = between(_band(best, "transfer_accuracy"))
    if word == "in distribution only":
        return (
            f"Absent, but for what is learnt by heart: {what} is read with {read} (shuffled labels: {null}), but by a probe of "
            f"other kinds of prompt with {across}, where {chance} is chance."
        )
    start = word[0].upper() + word[1:]
    return f"{start}: {what} is read with {read} (shuffled labels: {null}), and by a probe of other kinds of prompt with {across}. {_use(best)}"


def _use(best: Any) -> str:
    if "interchange" not in best:
        return "Whether it is used was not tested, because the answers do not follow it."
    moved, lost = (
        f"{percent(best[way])} (placebos at most {percent(best[f'{way}_placebo'])})"
        for way in ("interchange", "erasure")
    )
    follow = "The answers follow" if str(best["verdict"].values) == "used" else "The answers do not follow"
    return f"{follow}: set to what is read of the other label, they go {moved} of the way; erased, they lose {lost} of their lead."


def _band(found: Any, name: str) -> Any:
    """A number with its interval, under the names that plots and sentences use."""
    import xarray as xr

    return xr.Dataset({"mean": found[name], "low": found[f"{name}_low"], "high": found[f"{name}_high"]})


def _table(found: Any) -> Any:
    names = ["verdict", "accuracy", "transfer_accuracy", "skill", "untrained_skill", "p", "interchange", "erasure"]
    here = found.isel(pos=0, drop=True)
    return here[[name for name in names if name in here]].to_dataframe().reset_index()
