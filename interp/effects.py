"""Direct and total effects: what does each component add to the logits itself, and what do later ones make of it?

Direct logit attribution: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits". Direct against total
effect, and self-repair: McGrath et al. 2023 (arXiv:2307.15771), Rushing & Nanda 2024 (arXiv:2402.15390).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from interp.arrays import Check, attach, labelled
from interp.components import OutputMatrix, last_stream, output_matrices, split_heads, writers
from interp.edits import Edit
from interp.graph import site_name
from interp.metrics import Metric, as_metric
from interp.model import Model, Prompts
from interp.progress import Progress
from interp.readout import is_linear, readout, uncapped
from interp.sites import Site
from interp.stats import interval, ratio
from interp.sweep import Swept, sweep
from interp.traces import Trace

# Where what an edit of some kind of site changes is written to the stream; the kinds left out are the stream itself.
_WRITTEN_AT = {"embed": "resid_pre"} | dict.fromkeys(("q", "k", "v", "scores", "pattern", "z"), "attn_out")
_WRITTEN_AT |= {"mlp_pre": "mlp_out", "mlp_post": "mlp_out"}


@torch.no_grad()
def logit_attribution(model: Model, prompts: Prompts, metric: Metric, heads: bool = True) -> xr.DataArray:
    """What each component adds to a metric of the logits, the final norm's scale held as it was in each run.

    The components are what enters the first block (`embed`, positions included), every head, the bias that the heads of
    a layer share, every MLP, the bias of norm and unembedding, and what none of them explains (`remainder`).

    Args:
        metric: Linear in the logits, such as a logit or a logit difference; where the model caps its logits, it is
            taken of those before the cap.
        heads: Tell heads apart, where nothing stands between them and the stream; else attention is given whole.

    Returns:
        Contributions by (component, prompt), with the check that they add up to the metric.

    Raises:
        ValueError: A metric that is not linear in the logits.
    """
    tokens, last = model.tokens(prompts), last_stream(model)
    matrices = output_matrices(model) if heads else None
    read = [*writers(model), *(model.sites("z") if matrices else []), last]
    trace = model.run(tokens, read, last_only=as_metric(metric).last_only)
    final = trace.at(last, metric.at)
    line = readout(model, metric, final)
    written = _written(model, trace, metric.at, matrices)
    rest = final - torch.stack(list(written.values())).sum(0)
    shares = {name: line.of(vector) for name, vector in written.items()}
    shares |= {"bias": line.bias, "remainder": line.of(rest)}
    values = torch.stack(list(shares.values()))
    checks = [_adds_up(values, metric, uncapped(model, metric.position(tokens, trace.logits))), _explained(rest, final)]
    how = {
        "method": "direct logit attribution",
        "metric": metric.name,
        "at": metric.at,
        "norm": "scale held as in each prompt's run",
        "logits": "as they are" if model.logit_cap is None else f"before the cap of {model.logit_cap}",
        "heads": "apart" if matrices else "whole" if not heads else "whole: z is not added to the stream by a matrix",
    }
    coords: dict[str, Sequence[Any]] = {"component": list(shares), "prompt": range(len(tokens))}
    return labelled(values, metric.name, coords, model, checks, **how)


@torch.no_grad()
def decompose(
    model: Model,
    prompts: Prompts,
    edits: Mapping[str, Edit],
    metric: Metric,
    budget: int | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    """The total effect of each edit alone, and its parts: direct, with all that follows held, and indirect, the rest.

    An effect is the metric under the edit minus that without. Directly, an edit changes what its component adds to the
    last residual stream at the position that the metric reads, and nothing else. The final norm is free to follow the
    change or, for a metric that is linear in the logits (before a cap), has its scale held ("frozen").

    Args:
        edits: By name, as `components.each` makes them: of heads, of anything else in attention or the MLP, or of the
            stream itself.
        budget, progress: See `sweep`.

    Returns:
        `total`, `direct` and `indirect` by (norm, component, prompt).

    Raises:
        ValueError: No edits, or one of `resid_final`, which nothing follows.
    """
    tokens, last = model.tokens(prompts), last_stream(model)
    metric = as_metric(metric)
    if not isinstance(edits, Mapping) or not edits:
        raise ValueError("edits are given by name; components.each(model, edits.zero) makes one for every head")
    outlets = {name: _outlet(edit.site) for name, edit in edits.items()}
    trace = model.run(tokens, {*outlets.values(), *writers(model), last}, last_only=metric.last_only)
    base, final = metric(trace), trace.at(last, metric.at)
    taps = {name: (_Tap(), _Tap()) for name in edits}
    at = {"pos": metric.at}
    cells = [[edit, Edit(outlets[n], taps[n][0], at), Edit(last, taps[n][1], at)] for n, edit in edits.items()]
    swept = sweep(model, tokens, cells, [metric], budget, progress=progress)
    added = torch.stack([taps[name][0].value - trace.at(outlets[name], metric.at) for name in edits])
    arrived = torch.stack([taps[name][1].value - final for name in edits])
    direct = sweep(model, tokens, [[_adding(last, x, metric.at)] for x in added], [metric], budget, progress=False)
    effects = {"free": (swept.values[0] - base, direct.values[0] - base)}
    if is_linear(metric, metric.position(tokens, trace.logits)):
        line = readout(model, metric, final)
        effects["frozen"] = line.of(arrived), line.of(added)
    rest = final - torch.stack(list(_written(model, trace, metric.at, None).values())).sum(0)
    found = _dataset(model, effects, list(edits), metric, swept)
    return found.assign_attrs(
        attach([_repaired(found), _explained(rest, final)], found["total"].attrs | {"method": "effects"})
    )


def self_repair(
    effects: xr.Dataset, least: float = 0.05, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> xr.Dataset:
    """How much of each component's direct effect what follows it makes up for: 1 - total / direct, of means.

    0: nothing follows; 1: the loss is made good; below 0: what follows carries the effect further. With the norm free,
    the repair that the final norm's scale does is in both effects; frozen, in neither.

    Args:
        effects: From `decompose`, best under an ablation.
        least: Components with a smaller direct effect than this share of the largest are left out: most of them act
            through others.

    Returns:
        `mean`, `low` and `high` (bootstrap over prompts) by (norm, component); NaN where a component is left out, or
        the direct effect's own interval contains zero.
    """
    share = ratio(effects["total"], effects["direct"], level=level, draws=draws, seed=seed)
    found = xr.Dataset({"mean": 1 - share["mean"], "low": 1 - share["high"], "high": 1 - share["low"]})
    how = effects.attrs | share.attrs | {"method": "self-repair", "least": least}
    sure = interval(effects["direct"], level=level, draws=draws, seed=seed)
    return found.where(_matters(effects, least) & (sure["low"] * sure["high"] > 0)).assign_attrs(how)


class _Tap:
    """A change that changes nothing and keeps what it saw: a sweep returns metrics alone."""

    def __init__(self) -> None:
        self._seen: Tensor | None = None

    def __call__(self, part: Tensor) -> Tensor:
        self._seen = part.detach().clone()
        return part

    @property
    def value(self) -> Tensor:
        if self._seen is None:
            raise RuntimeError(
                "this model's edits act elsewhere, on a server, from where nothing comes back to measure"
            )
        return self._seen


def _written(model: Model, trace: Trace, at: int | str, matrices: list[OutputMatrix] | None) -> dict[str, Tensor]:
    """What each component adds to the last residual stream at a position, (prompt, d_model) by name."""
    written: dict[str, Tensor] = {}
    for site in writers(model):
        if matrices and site.kind == "attn_out":
            written |= split_heads(trace, site.layer or 0, at, matrices[site.layer or 0])
        else:
            written[site_name(site)] = trace.at(site, at)
    return written


def _outlet(site: Site) -> Site:
    """The site at which what an edit of a site changes reaches the stream."""
    if site.kind == "resid_final":
        raise ValueError("resid_final is what the final norm is given: an edit of it has no indirect effect")
    return Site(_WRITTEN_AT.get(site.kind, site.kind), site.layer or 0)


def _adding(site: Site, vector: Tensor, at: int | str) -> Edit:
    return Edit(site, lambda x: x + vector, {"pos": at})


def _dataset(
    model: Model, effects: Mapping[str, tuple[Tensor, Tensor]], names: list[str], metric: Metric, swept: Swept
) -> xr.Dataset:
    total, direct = (torch.stack(parts) for parts in zip(*effects.values()))
    coords: dict[str, Sequence[Any]] = {"norm": list(effects), "component": names, "prompt": range(total.shape[-1])}
    how: dict[str, Any] = {"metric": metric.name, "at": metric.at, **swept.how}
    how["frozen"] = "scale held" if "frozen" in effects else f"left out: {metric.name} is not linear in the logits"
    parts = {"total": total, "direct": direct, "indirect": total - direct}
    arrays = {name: labelled(v, name, coords, model, method=f"{name} effect", **how) for name, v in parts.items()}
    return xr.Dataset(arrays)


def _matters(effects: xr.Dataset, least: float) -> xr.DataArray:
    """Which components have a direct effect of some size beside the largest."""
    size = abs(effects["direct"].mean("prompt"))
    return (size > 0) & (size >= least * size.max("component"))


def _repaired(effects: xr.Dataset, most: float = 0.2) -> Check:
    repair = self_repair(effects)["mean"] if effects.sizes["prompt"] > 1 else effects["total"].isel(prompt=0) * np.nan
    if not bool(repair.notnull().any()):
        why = "no direct effect can be told from zero in these prompts"
        return Check("self-repair", float("nan"), most, "skipped", why, "arXiv:2307.15771")
    worst = repair.stack(cell=repair.dims)[int(np.nanargmax(repair.values))]
    value, where = float(worst), f"{worst['component'].item()} (norm {worst['norm'].item()})"
    why = f"{where}: later components make up for an edit, so that a direct effect is not what the model loses"
    return Check("self-repair", value, most, "warn" if value > most else "pass", why, "arXiv:2307.15771")


def _adds_up(shares: Tensor, metric: Metric, logits: Tensor) -> Check:
    size = logits.std().clamp(min=1e-9)
    error = (shares.sum(0) - metric.of(logits)).abs().max() / size
    rounding = 4 * torch.finfo(logits.dtype).eps * logits.abs().max() / size  # of the logits themselves
    why = "the components must add up to the metric of the model's own logits; else a norm or an output was missed"
    return _small("sum of components equals the metric", error, "fail", why, max(_least(logits), float(rounding)))


def _explained(rest: Tensor, final: Tensor) -> Check:
    why = "what enters the first block and what attention and MLPs add must make up the last stream; a norm between "
    why += "blocks breaks this, and then what a component adds is not what reaches the logits"
    error = rest.abs().max() / final.abs().max().clamp(min=1e-9)
    return _small("remainder of the stream", error, "warn", why, _least(final))


def _least(computed: Tensor) -> float:
    """Which errors a model's precision leaves."""
    return 1e-4 if computed.dtype.itemsize >= 4 else 2e-2


def _small(name: str, error: Tensor, otherwise: str, why: str, threshold: float) -> Check:
    return Check.at_most(name, float(error), threshold, why, otherwise=otherwise)
