"""Attributions as labelled arrays, with the checks that say whether to believe them."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from interp.arrays import Check, attach, labelled
from interp.attribution.integration import MISSED, STEEP, Integral, Quadrature
from interp.attribution.straight import Attributed
from interp.quadrature import movement
from interp.stats import rank_correlation

_IG, _BASELINES = "arXiv:1703.01365", "doi:10.23915/distill.00022"

_BESIDE = ("moved", "at_start", "at_end", "steep")


def label(
    values: Tensor, of: Attributed, leading: Mapping[str, Sequence[Any]], checks: Sequence[Check] = (), **how: Any
) -> xr.DataArray:
    """Values (*leading, *over, prompt) with their names; NaN at padding."""
    present = of.grid.measured(of.seen)[0].to(values.device)
    present = present if "layer" in leading else present[0]
    labels = of.grid.coords(of.model, of.seen, of.tokens)
    coords = {**leading, **{axis: names for axis, names in labels.items() if axis != "layer"}}
    how |= {"site": str(of.site)}
    return labelled(values.masked_fill(~present, torch.nan), "attribution", coords, of.model, checks, **how)


def tolerance_of(of: Attributed) -> float:
    """The error of a sum that a model's precision allows."""
    return 1e-3 if of.model.dtype.itemsize >= 4 else 2e-2


def present(
    found: Mapping[str, Integral], of: Attributed, by: Quadrature, leading: Mapping[str, Sequence[Any]], **how: Any
) -> xr.DataArray:
    """Integrals of each baseline as an array (*leading, *over, prompt), with how sure each prompt's is beside them.

    Args:
        leading: Names of the baselines and of the metrics; without one of the two if there is but one.
    """
    error = torch.stack([x.error(x.floor(by.tolerance, of.model.dtype)) for x in found.values()])
    moved, start, end, steep = (torch.stack([vars(x)[part] for x in found.values()]) for part in _BESIDE)
    steps = torch.stack([x.steps.expand_as(x.total) for x in found.values()])
    beside = {"error": error, "moved": moved, "change": end - start, "start": start, "steps": steps}
    checks = [completeness(error, by.tolerance), _converged(moved, by), _straight(steep, error)]
    values = torch.stack([x.parts for x in found.values()])
    several = "baseline" in leading, not {"metric", "target"}.isdisjoint(leading)
    kept = tuple(slice(None) if some else 0 for some in several)
    how |= {"quadrature": "Clenshaw-Curtis, adaptive" if by.steps is None else f"Gauss-Legendre, {by.steps}"}
    array = label(values[kept], of, leading, checks, **how)
    array = array.assign_coords(
        {name: ([*leading, "prompt"], value[kept].cpu().numpy()) for name, value in beside.items()}
    )
    if array.sizes.get("baseline", 1) > 1:
        checks.append(agreement(array))
    return array.assign_attrs(attach(checks, {}))


def completeness(error: Tensor, tolerance: float) -> Check:
    """Do the attributions of every prompt add up to the change in the metric?"""
    value = float(error.max())
    status = "pass" if value <= tolerance else "warn" if value <= MISSED else "fail"
    why = "a prompt's attributions must add up to the change in the metric when the whole site is put to the baseline"
    return Check("completeness error", value, tolerance, status, why, _IG)


def agreement(array: xr.DataArray) -> Check:
    """Do attributions from different baselines rank the parts alike?"""
    pairs = combinations(range(array.sizes["baseline"]), 2)
    value = min(float(rank_correlation(array[{"baseline": i}], array[{"baseline": j}]).mean()) for i, j in pairs)
    why = "the least rank correlation between two baselines, mean over prompts; what depends on it is no finding"
    return Check.at_least("baseline agreement", value, 0.5, why, _BASELINES)


def _converged(moved: Tensor, by: Quadrature) -> Check:
    most = movement(by.tolerance)
    why = "the last doubling of the points must not move an attribution by more than this share of the largest"
    if by.steps is not None:
        return Check("quadrature", float("nan"), most, "skipped", why, _IG)
    return Check.at_most("quadrature", float(moved.max()), most, why, _IG)


def _straight(steep: Tensor, error: Tensor) -> Check:
    """Is there no jump near the baseline?"""
    why = "how steep the metric is at the baseline, against the mean along the path: a jump there is no share of a part"
    known = steep.nan_to_num(0)
    value = float(known.max())
    status = "pass" if value <= STEEP else "fail" if bool((error > MISSED)[known > STEEP].any()) else "warn"
    return Check("steepness at the baseline", value, STEEP, status, why, _BASELINES)
