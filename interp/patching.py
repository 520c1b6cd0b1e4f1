"""Activation patching: which places carry what distinguishes two prompts?

Vig et al. 2020 (arXiv:2004.12265), Meng et al. 2022 (arXiv:2202.05262); conventions of Heimersheim & Nanda 2024
(arXiv:2404.15255), checks of Zhang & Nanda 2023 (arXiv:2309.16042).
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, labelled
from interp.contrast import DIRECTIONS, Contrast
from interp.edits import Edit, copy, exchange
from interp.grid import Grid, Place, Roles, grid_of
from interp.metrics import Metric, metrics_of
from interp.model import Model, Prompts
from interp.progress import Progress, bar
from interp.sites import Site
from interp.stats import spearman
from interp.sweep import sweep

_BLOCK = 4096  # so many cells are made at a time: each holds its edit


def patch(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    sites: Sequence[Site],
    metric: Metric | Sequence[Metric],
    over: Sequence[str] = (),
    roles: Roles = (),
    normalize: bool = True,
    direction: str = "denoising",
    subspace: Float[Tensor, "*k d"] | None = None,
    budget: int | None = None,
    progress: Progress = None,
) -> xr.DataArray:
    """Copy activations of one run into another, one place at a time, and measure what that does.

    Args:
        sites: Usually those of one kind, one a layer; several kinds give an axis `kind`.
        metric: One, or several, which give an axis `metric`.
        over: Axes of the sites to patch index by index, such as ("pos",), ("head", "pos"), ("neuron",) or
            ("query", "key"); other axes are patched whole.
        roles: Names of positions, over which `pos`, `query` and `key` then run instead of over every position; or a
            mapping, if not all of them do so, as in `{"query": ["END"]}`. Where every position axis runs over roles,
            clean and corrupt may differ in length.
        normalize: Give the share of the way to the other run, 0 as without a patch and 1 as there, not the change.
        direction: "denoising" puts clean activations into the corrupt run, "noising" corrupt ones into the clean run.
        subspace: A direction (d,) or a basis (k, d) in the last axis of the sites: only what lies in it is copied.
        budget, progress: See `sweep`.

    Returns:
        The effect by (metric, kind, layer, *over, prompt), without those of the first three that there are not. NaN is
        what was not measured: padding, masked attention, heads that a kind lacks (`k` and `v` have key-value heads).

    Raises:
        ValueError: Prompts that are not aligned; axes that a site lacks; a gap between the runs too small to divide by.
    """
    clean, metrics = model.tokens(clean), metrics_of(metric)
    grid = grid_of(sites, over, roles)
    if subspace is not None:
        _check_last_axis(grid)
    runs = grid.runs(model, clean, corrupt, metrics, direction, both=False)
    values, engine = _measure(model, grid, runs, subspace, budget, progress)
    changes = runs.change(values)
    values = runs.share(changes) if normalize else changes
    names = ", ".join(metric.name for metric in metrics)
    several: dict[str, Any] = {} if isinstance(metric, Metric) else {"metric": [metric.name for metric in metrics]}
    coords = several | grid.coords(model, runs.source, clean)
    unit = DIRECTIONS[direction] if normalize else f"change in {names}"
    how: dict[str, Any] = {"method": "activation patching", "direction": direction, "site": ", ".join(grid.kinds)}
    how |= {"metric": names, "subspace": "" if subspace is None else subspace.tolist()} | engine
    return labelled(values.reshape([len(names) for names in coords.values()]), unit, coords, model, **how)


def both_directions(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    sites: Sequence[Site],
    metric: Metric | Sequence[Metric],
    over: Sequence[str] = (),
    **more: Any,
) -> xr.DataArray:
    """Denoising and noising, and whether they name the same places.

    What denoising restores is enough for the behaviour; what noising takes away is needed for it. Redundant places are
    found by the first alone, places that work only together by the second alone.

    Args:
        more: Passed on to `patch`.

    Returns:
        The effect by (direction, ...as `patch`), with two checks, of several metrics the worst: the rank correlation
        over cells of the mean effects, and the share of the larger cells in which their signs differ.
    """
    if "direction" in more:
        raise ValueError("both_directions patches in both; leave direction= out, or call patch")
    arrays = [patch(model, clean, corrupt, sites, metric, over, direction=name, **more) for name in DIRECTIONS]
    sign = 1 if more.get("normalize", True) else -1  # raw changes that agree have opposite signs
    n_metrics = 1 if isinstance(metric, Metric) else arrays[0].sizes["metric"]
    means = [array.mean("prompt").values.reshape(n_metrics, -1) for array in (arrays[0], sign * arrays[1])]
    checks = [_same_order(*means), _same_signs(*means)]
    coords: dict[str, Sequence[Any]] = {"direction": list(DIRECTIONS)}
    coords |= {str(axis): list(arrays[0][axis].values) for axis in arrays[0].dims}
    how = arrays[0].attrs | {
        "direction": ", ".join(DIRECTIONS),
        "passes": sum(array.attrs["passes"] for array in arrays),
        "work": sum(array.attrs["work"] for array in arrays),
    }
    made_by = {key: how[key] for key in how if key not in ("model", "backend", "precision", "device", "checks")}
    unit = "share of the gap" if sign == 1 else str(arrays[0].name)
    return labelled(torch.tensor(np.stack([a.values for a in arrays])), unit, coords, model, checks, **made_by)


def _measure(
    model: Model, grid: Grid, runs: Contrast, subspace: Tensor | None, budget: int | None, progress: Progress
) -> tuple[Float[Tensor, "metric kind layer *over prompt"], dict[str, Any]]:
    """The metrics in every cell, NaN where there is nothing to patch; and how they were had."""
    measured, how = grid.measured(runs.source, runs.base), {"engine": "", "passes": 0, "work": 0}
    values = runs.start.new_full((len(runs.metrics), *measured.shape), float("nan"))
    there = measured.any(-1).cpu().numpy()
    places = (place for place in grid.places(runs.source) if there[place.index])
    with bar(values[0, ..., 0].numel(), "cells", progress) as advance:
        while block := list(islice(places, _BLOCK)):
            cells = [[_edit(runs, place, subspace)] for place in block]
            swept = sweep(model, runs.sweepable, cells, runs.metrics, budget, progress=_upto(advance))
            for place, value in zip(block, swept.values.unbind(1)):
                index: tuple[Any, ...] = (slice(None), *place.index)
                values[index] = value
            how = {name: value + how[name] if name != "engine" else value for name, value in swept.how.items()}
    return values.where(measured, torch.nan), how


def _edit(runs: Contrast, place: Place, subspace: Tensor | None) -> Edit:
    """What puts the source's activation into a place."""
    if subspace is None:
        return copy(runs.source, place.site, **place.at)
    return exchange(runs.source, place.site, subspace, **place.at)


def _check_last_axis(grid: Grid) -> None:
    """Refuse a subspace of sites whose last axis is not a whole one of features."""
    for site in grid.sites:
        if (last := site.axes[-1]) in grid.over or last == "key":
            raise ValueError(
                f"a subspace of {site} lies in its last axis, which must be a whole one of features, not {last}"
            )


def _upto(advance: Callable[[int], None]) -> Callable[[int, int], None]:
    """A bar's `advance` for work that says how far it is, not how much more."""
    before = 0

    def report(done: int, total: int) -> None:
        nonlocal before
        advance(done - before)
        before = done

    return report


def _same_order(denoised: Float[np.ndarray, "metric cell"], noised: Float[np.ndarray, "metric cell"]) -> Check:
    """Whether noising ranks the cells as denoising does."""
    worst = float(np.min([_rank_correlation(*sides) for sides in zip(denoised, noised)]))
    why = "noising and denoising should rank the places alike; where they do not, some are redundant or work together"
    return Check.at_least("rank correlation of noising and denoising", worst, 0.6, why, "arXiv:2404.15255")


def _same_signs(denoised: Float[np.ndarray, "metric cell"], noised: Float[np.ndarray, "metric cell"]) -> Check:
    """Whether noising and denoising agree on what helps and what hurts, where both find something."""
    sizes = [np.abs(side) / np.nanmax(np.abs(side), axis=-1, keepdims=True) for side in (denoised, noised)]
    large = (sizes[0] >= 0.1) & (sizes[1] >= 0.1)
    differ = ((np.sign(denoised) != np.sign(noised)) & large).sum(-1) / np.maximum(large.sum(-1), 1)
    worst = float(differ.max())
    why = (
        "a place that helps in one direction and hurts in the other has no single role (cells above 0.1 of the largest)"
    )
    status = "skipped" if not large.any() else "pass" if worst == 0 else "warn"
    return Check("share of cells whose sign differs", worst, 0.0, status, why, "arXiv:2404.15255")


def _rank_correlation(a: Float[np.ndarray, " cell"], b: Float[np.ndarray, " cell"]) -> float:
    """Spearman's, over what both have; NaN where one is constant."""
    both = np.isfinite(a) & np.isfinite(b)
    # Rounding errors around zero have no order.
    a, b = (np.round(side[both] / (np.abs(side[both]).max(initial=0) or 1), 4) for side in (a, b))
    return spearman(a, b)
