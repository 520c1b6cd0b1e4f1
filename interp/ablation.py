"""Ablation: what does a place contribute, measured by taking away what it says?

What is put in its place decides what is measured: zero is far from anything that the model has seen; a mean takes away
what differs between prompts; resampling (Chan et al. 2022, causal scrubbing) also keeps the spread. Miller et al. 2024
(arXiv:2407.08734) show that conclusions change with this choice: `sensitivity` shows by how much.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Int
from torch import Tensor

from interp import edits
from interp.arrays import Check, labelled
from interp.contrast import share
from interp.donors import donors
from interp.grid import Roles, grid_of
from interp.metrics import Metric, as_metric
from interp.model import Model, Prompts
from interp.progress import Progress
from interp.sites import Site
from interp.sweep import Cell, sweep
from interp.traces import Tokens, Trace

KINDS = ("zero", "mean", "role mean", "pooled mean", "resample")


def ablate(
    model: Model, prompts: Prompts, sites: Sequence[Site], metric: Metric, kind: str = "mean", **options: Any
) -> xr.DataArray:
    """Ablate every node alone, in one way.

    Args:
        kind: One of `KINDS`; see `sensitivity` for them and for the options.

    Returns:
        The change in the metric as `sensitivity` gives it; negative where the node raises the metric.
    """
    return sensitivity(model, prompts, sites, metric, [kind], **options).sel(ablation=kind, drop=True)


@torch.no_grad()
def sensitivity(
    model: Model,
    prompts: Prompts,
    sites: Sequence[Site],
    metric: Metric,
    kinds: Sequence[str] = ("zero", "mean", "resample"),
    *,
    reference: Prompts | None = None,
    over: Sequence[str] = (),
    roles: Roles = (),
    normalize: bool = False,
    draws: int = 8,
    seed: int = 0,
    budget: int | None = None,
    progress: Progress = None,
) -> xr.DataArray:
    """Ablate every node alone, in several ways.

    Args:
        sites: Usually those of one kind, one a layer; several kinds give an axis `kind`.
        kinds: "zero"; "mean", over the reference prompts at each position; "role mean", over them at each role, and
            over all of their tokens elsewhere; "pooled mean", over all of their tokens everywhere; "resample", from
            other prompts of the same length, averaged over draws.
        reference: Where means and samples come from; by default the prompts themselves, none of which is then its own
            sample.
        over: Axes of the sites to ablate index by index, such as ("head",) or ("pos",); other axes are ablated whole.
        roles: Names of positions, over which `pos` then runs, as in `patching.patch`. Reference prompts may then be of
            other lengths: a role is looked up in each.
        normalize: Give the change as a share of the metric of the unablated prompt.
        draws: Samples for each node and prompt.
        budget, progress: See `sweep`.

    Returns:
        The change in the metric by (ablation, kind, layer, *over, prompt), without the kind where there is only one;
        NaN is what was not measured: padding, masked attention, heads that a kind lacks. A check compares the ways: the
        range of a node's mean effect over them, summed over nodes, against the mean size of these effects, likewise.

    Raises:
        ValueError: An unknown kind; a reference that lacks a token, a role or another prompt where one is needed;
            what `grid.grid_of` and `contrast.share` raise.
    """
    if not kinds or set(kinds) - set(KINDS) or len(set(kinds)) != len(kinds):
        raise ValueError(f"kinds of ablation, each once, out of {', '.join(KINDS)}, not {list(kinds)}")
    tokens = model.tokens(prompts)
    source = tokens if reference is None else model.tokens(reference)
    grid = grid_of(sites, over, roles)
    metric = as_metric(metric)
    trace = model.run(tokens, read=grid.sites, last_only=metric.last_only)
    found = trace if reference is None else model.run(source, read=grid.sites, last_only=True)
    before, measured = metric(trace), grid.measured(trace)
    others: list[Trace] = []
    if reference is None and len(tokens) == 1 and (means := [kind for kind in kinds if kind in ("mean", "role mean")]):
        raise ValueError(
            f"the {means[0]} of one prompt is that prompt, so that nothing would be ablated; give more prompts or a "
            f"reference, or choose another kind"
        )
    if not grid.roles and {"mean", "resample"} & set(kinds):
        _check_covers(tokens, source)
    if "resample" in kinds:
        rows = _donors(tokens, source, reference is None, bool(grid.roles), draws, seed)
        others = [_rows(found, row) for row in rows]
    places = [place for place in grid.places(trace) if bool(measured[place.index].any())]
    ways = {kind: [_cells(kind, found, others, place.site, place.at) for place in places] for kind in kinds}
    cells = [cell for way in ways.values() for node in way for cell in node]
    swept = sweep(model, tokens, cells, [metric], budget, progress=progress)
    values = before.new_full((len(kinds), *measured.shape), float("nan"))
    for place, value in zip(places, _mean_of_draws(swept.values[0], ways).unbind(1)):
        index: tuple[Any, ...] = (slice(None), *place.index)
        values[index] = value - before
    values = values.where(measured, torch.nan)
    values = share(values, before, metric.name) if normalize else values
    checks = [_agreement(values)] if len(kinds) > 1 else []
    coords = {"ablation": list(kinds), **grid.coords(model, trace, tokens)}
    how = {"method": "ablation", "site": ", ".join(grid.kinds), "metric": metric.name, "reference": len(source)}
    how |= {"draws": draws, "seed": seed} if others else {}
    unit = f"share of {metric.name}" if normalize else f"change in {metric.name}"
    values = values.reshape([len(axis) for axis in coords.values()])
    return labelled(values, unit, coords, model, checks, **how, **swept.how)


def _cells(kind: str, found: Trace, donors: Sequence[Trace], site: Site, at: Mapping[str, Any]) -> list[Cell]:
    """The cells by which one node is ablated: one, or one for each draw."""
    if kind == "zero":
        return [[edits.zero(site, **at)]]
    if kind == "resample":
        return [[edits.copy(donor, site, **at)] for donor in donors]
    if kind == "mean" or (kind == "role mean" and isinstance(at.get("pos"), str)):
        return [[edits.mean(found, site, **at)]]
    pooled = edits.mean(found, site, ("batch", "pos"), **at)
    if kind == "pooled mean":
        return [[pooled]]
    if "pos" in at or not found.tokens.roles:
        raise ValueError("role means need prompts with roles, and `roles` if `over` has 'pos'; or take 'mean'")
    return [[pooled, *(edits.mean(found, site, pos=role, **at) for role in found.tokens.roles)]]


def _check_covers(tokens: Tokens, reference: Tokens) -> None:
    """Refuse a reference that has no token where the prompts have one."""
    if tokens.ids.shape[1] != reference.ids.shape[1]:
        widths = f"{tokens.ids.shape[1]} positions, the reference {reference.ids.shape[1]}"
        raise ValueError(f"the prompts have {widths}; give prompts of one length, or roles, or take a pooled mean")
    bare = (tokens.mask.bool().any(0) & ~reference.mask.bool().any(0)).nonzero().flatten().tolist()
    if bare:
        raise ValueError(f"no reference prompt has a token at positions {bare}; take longer ones, or a pooled mean")


def _donors(
    tokens: Tokens, reference: Tokens, own: bool, by_role: bool, draws: int, seed: int
) -> Int[Tensor, "draw prompt"]:
    """Which reference prompt stands in for each prompt: in each draw a permutation of those of its length."""
    lengths, offered = ([0] * len(some) if by_role else some.mask.sum(1).tolist() for some in (tokens, reference))
    named = lambda length: "" if by_role else f" of {length} tokens"
    return donors(lengths, None if own else offered, draws, seed, named).to(tokens.ids.device)


def _rows(trace: Trace, rows: Int[Tensor, " prompt"]) -> Trace:
    """The run of some of the prompts, in the order given."""
    activations = {site: value[rows] for site, value in trace.activations.items()}
    return Trace(trace.tokens.rows(rows), trace.logits[rows], activations)


def _mean_of_draws(values: Tensor, ways: Mapping[str, list[list[Cell]]]) -> Tensor:
    """Metrics (kind, node, prompt) of the cells in a row."""
    sizes = [len(way) * len(way[0]) for way in ways.values()]
    parts = zip(values.split(sizes), ways.values())
    return torch.stack([part.unflatten(0, (len(way), -1)).mean(1) for part, way in parts])


def _agreement(values: Tensor) -> Check:
    effects = values.nanmean(-1).flatten(1)
    effects = effects[:, effects.isfinite().all(0)]
    spread = effects.amax(0) - effects.amin(0)
    value = float(spread.sum() / effects.abs().mean(0).sum().clamp(min=1e-9))
    status = "warn" if value > 0.5 else "pass"
    why = "the range of a node's effect over the kinds of ablation should be small against its mean size"
    return Check("ablation sensitivity", value, 0.5, status, why, "arXiv:2407.08734")
