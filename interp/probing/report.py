"""What can be read off, where, and is it used? Probes at every place, with their controls and a verdict.

Alain & Bengio 2016 (arXiv:1610.01644); Belinkov 2021 (arXiv:2102.12452).
"""

from collections.abc import Sequence
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from interp.arrays import attach, labelled
from interp.model import Model
from interp.probing.activations import Activations, At, activations_of, collect
from interp.probing.causal import use
from interp.probing.controls import types_at, untrained
from interp.probing.crossval import prior_loss
from interp.probing.estimators import estimator_of
from interp.probing.measure import By, Plan, lexical, measure, nulls, plain_loss
from interp.probing.pairing import follows, margin, paired
from interp.probing.permutation import p_values
from interp.probing.splits import check_labelled, folds_of
from interp.probing.transfer import transfer
from interp.probing.verdicts import checks, overall, verdicts
from interp.progress import Progress
from interp.sites import Site
from interp.stats import interval, ratio
from interp.tasks import Labelled


def probe(
    model: Model,
    data: Labelled,
    sites: Sequence[Site],
    at: Sequence[At] = (-1,),
    heads: bool = False,
    by: Any = "logistic",
    folds: int = 5,
    split: str = "group",
    shuffles: int = 199,
    controls: bool = True,
    causal: bool | None = None,
    seed: int = 0,
    activations: Activations | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    """A probe at every layer, position and, if wanted, head: held-out scores, controls, causal use, and a verdict.

    Folds keep groups whole; scaling and the choice of a penalty see the other folds alone. Every number of a prompt is
    that of a probe that has not seen its group.

    Args:
        data: Prompts with labels (`tasks.from_labels`, `tasks.CONCEPTS`).
        sites, at, heads: Where to read, see `collect`.
        by: "logistic", "lda" or "mass_mean" for classes, "ridge" for numbers; or an estimator of scikit-learn, which
            tunes itself and gets scaled features.
        split: "group"; "random" is for data without groups.
        shuffles: Of the labels, for p-values.
        controls: Measure the control task, baselines of words, an untrained copy, code lengths and transfer too.
        causal: Change what the probes read, see `use`; by default with the controls, if answers are known and follow
            the labels, sites can be edited, and probes are linear.
        activations: What `collect` gave for the same prompts, sites and positions, so that they are not run again.

    Returns:
        By (layer, pos, head if told apart): `skill`, 1 - loss / loss of the class shares (for numbers, R^2), and
        `accuracy`, with `_low` and `_high` from a bootstrap of groups; `balanced_accuracy`, `auroc`; `p`, corrected
        over all places; `null_accuracy` (the majority's at least) and `null_balanced_accuracy`, which 95 % of shuffles
        stay below there; `control_accuracy`, `selectivity`; `untrained_skill`, `token_skill`, `bag_skill`, and gains
        over them; `stability`; `compression` and `control_compression` of the online code, over one of the class
        shares; `transfer`, accuracies (train, test) between families, and `transfer_margin`, by how much the worst
        keeps more than half of the advantage (`_high` from the bootstrap);
        `interchange`, `erasure` (mean shares) with their `_p`; `weight`, `bias` of the probe of all prompts (see
        `probe_at`); `verdict` (see `verdicts`). By prompt: `loss`, `prior_loss`.
        The checks are of the best place; `attrs["verdict"]` says in a sentence what was found.

    Raises:
        ValueError: A random split of known groups; too few groups; a family without a class; what `collect` raises.
    """
    check_labelled(data)
    if shuffles < 1:
        raise ValueError(f"p-values take shuffles of the labels, 39 at least for p <= 0.025; shuffles={shuffles}")
    device = model.device
    activations = activations_of(model, data.prompts, sites, at, heads, activations)
    estimator = estimator_of(by, len(data.classes))
    fold = folds_of(data.y, len(data.classes), data.groups, folds, seed, split)
    blind = folds_of(torch.zeros(len(data)), 0, data.groups, folds, seed, split)
    plan = Plan(data, fold, blind, estimator, 5, shuffles, controls, seed)
    found = measure(activations, plan, device)
    result = _table(model, activations, plan, found)
    if controls:
        result = result.assign(_baselines(model, activations, plan, result))
    if causal is None:
        causal = controls and _testable(model, data, sites[0], result["weight"], seed)
    if causal:
        effects = use(model, data, sites, at, heads, by, seed=seed, activations=activations, progress=progress)
        result = result.assign(_effects(effects))
    result = result.assign(verdict=verdicts(result))
    how = {"method": f"{estimator.name} probes", "concept": data.name, "site": sites[0].kind, "seed": seed}
    how |= {
        "split": "by group" if data.groups is not None else "random: no groups were given",
        "folds": int(fold.max()) + 1,
    }
    how |= {
        "shuffles": round(1 / result.attrs["least_p"]) - 1,
        "controls": "on" if controls else "off",
        "verdict": overall(result, data.name),
    }
    how |= {"control types": {str(p): types_at(data.prompts, p, data.groups)[1] for p in at}}
    return result.assign_attrs(_about(model) | attach(checks(result, data), how))


def _testable(model: Model, data: Labelled, site: Site, weight: xr.DataArray, seed: int) -> bool:
    """Whether it can be asked if the model uses what its probes read."""
    if data.answers is None or not data.classes or not model.editable[site.kind] or bool(weight.isnull().any()):
        return False
    return follows(margin(model, paired(data, 128, seed))) > 0


def _about(model: Model) -> dict[str, str]:
    return dict(model=model.name, backend=model.backend, precision=str(model.dtype), device=str(model.device))


class _Namer:
    """Tensors by place as labelled arrays of the places' axes."""

    def __init__(self, model: Model, activations: Activations, n: int) -> None:
        self.model, self.coords, self.n = model, activations.coords, n

    def __call__(self, values: Tensor, name: str, **more: Sequence[Any]) -> xr.DataArray:
        sizes = [len(labels) for labels in self.coords.values()]
        shaped = values.reshape(*sizes, *values.shape[1:])
        return labelled(shaped, name, {**self.coords, **more}, self.model).drop_attrs()

    def by_prompt(self, values: Tensor, name: str) -> xr.DataArray:
        return self(values, name, prompt=range(self.n))


def _table(model: Model, activations: Activations, plan: Plan, found: By) -> xr.Dataset:
    """The scores of the probes themselves."""
    name, n, groups = _Namer(model, activations, len(plan.data)), len(plan.data), plan.data.groups
    prior = prior_loss(plan.data.y[None], plan.n_classes, plan.fold)[0]
    p, about = p_values(found["correlation"]), {"least_p": 1 / found["correlation"].shape[1]}
    table = {"loss": name.by_prompt(found["loss"], "loss")}
    prior_array = labelled(prior, "prior loss", {"prompt": range(n)}, model).drop_attrs()
    table["prior_loss"] = prior_array
    table |= _skill("skill", table["loss"], prior_array, groups, plan.seed)
    plain = ("balanced_accuracy", "auroc", "stability", "penalty", "examples_per_dimension")
    table |= {key: name(found[key], key) for key in plain if key in found}
    table |= {"p": name(p, "p"), "correlation": name(found["correlation"][:, 0], "held-out correlation")}
    if plan.n_classes:
        right = name.by_prompt(found["right"], "accuracy")
        table |= _with_bounds("accuracy", interval(right, seed=plan.seed, clusters=groups))
        places, ends = nulls(found, _majority(plan))
        table |= {key: name(null, "accuracy of shuffled labels") for key, null in places.items()} | {"right": right}
        about |= ends | {"majority": _majority(plan)}
    if plan.full and plan.n_classes:
        table |= _codes(name, found) | _selective(name, found, plan)
    if plan.families:
        table |= _transferred(name, found, plan)
    outs = [str(label) for label in plan.data.classes[-(found["weight"].shape[1]) :]] or ["number"]
    weights = name(found["weight"], "weight", out=outs, feature=range(found["weight"].shape[-1]))
    table |= {"weight": weights, "bias": name(found["bias"], "bias", out=outs)}
    fewer = found["correlation"].shape[1] - 1 < plan.shuffles
    return xr.Dataset(table).assign_attrs(about | {"labellings": "all" if fewer else "drawn"})


def _with_bounds(name: str, table: xr.Dataset) -> dict[str, xr.DataArray]:
    return {name: table["mean"], f"{name}_low": table["low"], f"{name}_high": table["high"]}


def _skill(
    name: str, loss: xr.DataArray, prior: xr.DataArray, groups: Sequence[str] | None, seed: int
) -> dict[str, xr.DataArray]:
    """1 - loss / prior loss, with its interval over groups."""
    bottom = prior.broadcast_like(loss).transpose(*loss.dims)
    return _with_bounds(name, ratio(bottom - loss, bottom, seed=seed, clusters=groups))


def _codes(name: _Namer, found: By) -> dict[str, xr.DataArray]:
    """How much shorter the online code is than one of the shares of the classes alone; of the control task, too."""
    ratio = found["compression"]
    table = {"codelength": name(found["bits"][:, 0], "bits"), "compression": name(ratio[:, 0], "compression")}
    return table | {"control_compression": name(ratio[:, 1], "compression")}


def _selective(name: _Namer, found: By, plan: Plan) -> dict[str, xr.DataArray]:
    control = name.by_prompt(found["control_right"], "accuracy")
    mean = control.mean("prompt")
    right, majority = name.by_prompt(found["right"], "accuracy"), _majority(plan)
    apart, alone = (interval(one, seed=plan.seed, clusters=plan.data.groups) for one in (right - control, right))
    # Where groups are left out, a control task can fall below chance: that is no merit of the probe, whose accuracy is
    # then as sure as it is by itself.
    bounds = xr.where(mean > majority, apart, alone - majority, keep_attrs=True)
    return {"control_accuracy": mean, **_with_bounds("selectivity", bounds)}


def _majority(plan: Plan) -> float:
    """The accuracy of always saying the commonest class."""
    return float(torch.bincount(plan.data.y).max()) / len(plan.data)


def _transferred(name: _Namer, found: By, plan: Plan) -> dict[str, xr.DataArray]:
    """Accuracy, or R^2, between families; and each prompt's mean over probes of the other families."""
    between = transfer(found, plan, _majority(plan) if plan.n_classes else 0.0)
    table = {"transfer": name(between.matrix, "transfer", train=plan.families, test=plan.families)}
    for key in ("margin", "margin_high"):
        table[f"transfer_{key}"] = name(getattr(between, key), "transfer beyond half of the advantage")
    if plan.n_classes:
        bounds = interval(name.by_prompt(between.away, "accuracy"), seed=plan.seed, clusters=plan.data.groups)
        table |= _with_bounds("transfer_accuracy", bounds)
    return table


def _baselines(model: Model, activations: Activations, plan: Plan, result: xr.Dataset) -> dict[str, xr.DataArray]:
    """Skills of words alone and of an untrained copy, and how much better the probes are than each."""
    name, groups, device = _Namer(model, activations, len(plan.data)), plan.data.groups, model.device
    bag, token = lexical(plan, activations.at, device)
    loss, prior = result["loss"], result["prior_loss"]
    rivals = {
        "bag": xr.ones_like(loss) * xr.DataArray(bag.cpu().numpy(), dims="prompt"),
        "token": xr.ones_like(loss) * xr.DataArray(token.cpu().numpy(), dims=("pos", "prompt")),
    }
    copied = untrained(model, plan.seed)
    read = collect(copied, plan.data.prompts, activations.sites, activations.at, bool(activations.n_heads))
    rivals["untrained"] = name.by_prompt(plain_loss(read, plan, device), "loss")
    table: dict[str, xr.DataArray] = {}
    whole = prior.broadcast_like(loss).transpose(*loss.dims)
    for rival, other in rivals.items():
        other = other.transpose(*loss.dims)
        table[f"{rival}_skill"] = _skill("skill", other, prior, groups, plan.seed)["skill"]
        gain = ratio(other - loss, whole, seed=plan.seed, clusters=groups)
        table |= _with_bounds(f"gain_over_{rival}", gain)
    return table


def _effects(effects: xr.DataArray) -> dict[str, xr.DataArray]:
    """Mean shares of the probe's changes, the largest of the placebos', and p-values."""
    mean = effects.mean("prompt").drop_attrs().drop_vars("p")
    found = {}
    for way in effects["way"].values:
        here = mean.sel(way=way, drop=True)
        found[str(way)] = here.sel(direction="probe", drop=True)
        found[f"{way}_placebo"] = here.isel(direction=slice(1, None)).max("direction")
        found[f"{way}_p"] = effects["p"].sel(way=way, drop=True).drop_vars("p")
    return found
