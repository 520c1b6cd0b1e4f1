"""Estimated effects, alone or beside those that were measured."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from interp.agreement import agreement
from interp.arrays import Check, labelled
from interp.attribution_patching.estimator import ATP, Estimator
from interp.attribution_patching.slopes import slopes
from interp.contrast import DIRECTIONS, Contrast
from interp.edits import copy
from interp.grid import Grid, Roles, grid_of
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.sites import Site
from interp.sweep import Swept, sweep
from interp.traces import Tokens


def estimate(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    sites: Sequence[Site],
    metric: Metric,
    over: Sequence[str] = (),
    roles: Roles = (),
    normalize: bool = True,
    by: Estimator = ATP,
    direction: str = "denoising",
) -> xr.DataArray:
    """What `patching.patch` would give for the same arguments, estimated for all sites at once.

    Args:
        by: How; see `ATP`, `ATP_STAR`, `INPUTS` and `Estimator`.

    Returns:
        The estimated effect by (kind, layer, *over, prompt), as `patching.patch` gives it.

    Raises:
        ValueError: Prompts of different lengths; a gap between the runs too small to divide by; an estimator that does
            not fit the sites or the model; what `patching.patch` raises.
    """
    clean, grid = model.tokens(clean), grid_of(sites, over, roles)
    runs = grid.runs(model, clean, corrupt, [metric], direction, both=True, grad=by.plain)
    labels = _Labels(model, grid, runs, clean, direction, normalize)
    return labels.put_on(labels.share(slopes(model, grid, runs, by), by), **_how(by))


def verify(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    sites: Sequence[Site],
    metric: Metric,
    over: Sequence[str] = (),
    roles: Roles = (),
    normalize: bool = True,
    by: Estimator = ATP,
    direction: str = "denoising",
    top: int = 20,
    others: int = 20,
    seed: int = 0,
) -> xr.Dataset:
    """An estimate beside exact patching of the nodes that it puts first and of a random sample of the others.

    Args:
        top: How many nodes of the largest estimates (mean size over prompts) to patch.
        others: How many of the others to patch.

    Returns:
        `estimate` and `exact` by (kind, layer, *over, prompt); `exact` is NaN where it was not measured. Checks say how
        well they agree; an estimate without sign is compared with the size of the effect.

    Raises:
        ValueError: Fewer than two nodes to compare; what `estimate` raises.
    """
    clean, grid = model.tokens(clean), grid_of(sites, over, roles)
    runs = grid.runs(model, clean, corrupt, [metric], direction, both=True, grad=by.plain)
    labels = _Labels(model, grid, runs, clean, direction, normalize)
    guess = labels.share(slopes(model, grid, runs, by), by)
    first, sample = _chosen(guess, top, others, seed)
    effects, swept = _exact(model, grid, runs, torch.cat([first, sample]))
    exact = labels.share(effects)
    checks = agreement(guess, exact.abs() if by.grad_drop else exact, sample)
    how = {"top": top, "others": len(sample), "seed": seed} | swept.how
    estimated = labels.put_on(guess, checks, **_how(by), **how)
    measured = labels.put_on(exact, method="activation patching", **how)
    return xr.Dataset({"estimate": estimated, "exact": measured}, attrs=estimated.attrs)


@dataclass(frozen=True)
class _Labels:
    """What an estimate and an exact effect of the same places have in common."""

    model: Model
    grid: Grid
    runs: Contrast
    clean: Tokens
    direction: str
    normalize: bool

    def share(self, changes: Tensor, by: Estimator = ATP) -> Tensor:
        """Changes in the metric (kind, layer, *over, prompt) as they are asked for; without sign, if that is lost."""
        values = self.runs.share(changes[None])[0] if self.normalize else changes
        return values.abs() if by.grad_drop else values

    def put_on(self, values: Tensor, checks: Sequence[Check] = (), **how: Any) -> xr.DataArray:
        """The values with their names, and how they were made."""
        metric = self.runs.metrics[0].name
        how |= {"direction": self.direction, "site": ", ".join(self.grid.kinds), "metric": metric}
        unit = DIRECTIONS[self.direction] if self.normalize else f"change in {metric}"
        coords = self.grid.coords(self.model, self.runs.source, self.clean)
        return labelled(values.reshape([len(x) for x in coords.values()]), unit, coords, self.model, checks, **how)


def _how(by: Estimator) -> dict[str, Any]:
    """An estimator as what an array can remember."""
    plain = {key: value if type(value) in (str, int) else str(value) for key, value in asdict(by).items()}
    return {"method": "attribution patching"} | plain


def _chosen(guess: Tensor, top: int, others: int, seed: int) -> tuple[Tensor, Tensor]:
    """The nodes of the largest mean size, and a random sample of the rest; by number, those alone that there are."""
    size = guess.abs().nanmean(-1).flatten().cpu()
    order = size.nan_to_num(-1).argsort(descending=True)[: int(size.isfinite().sum())]
    if top < 0 or others < 0 or min(top + others, len(order)) < 2:
        count = f"top={top} and others={others} of {len(order)} were given"
        raise ValueError(f"a comparison needs two nodes or more; {count}")
    rest = order[top:]
    return order[:top], rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[:others]]


def _exact(model: Model, grid: Grid, runs: Contrast, chosen: Tensor) -> tuple[Tensor, Swept]:
    """Change in the metric when each of the chosen nodes is patched alone, (kind, layer, *over, prompt); others NaN."""
    measured, wanted = grid.measured(runs.source, runs.base), set(chosen.tolist())
    number = lambda place: int(np.ravel_multi_index(place.index, measured.shape[:-1]))
    places = [place for place in grid.places(runs.source) if number(place) in wanted]
    cells = [[copy(runs.source, place.site, **place.at)] for place in places]
    swept = sweep(model, runs.sweepable, cells, runs.metrics)
    values = runs.start.new_full(measured.shape, float("nan"))
    for place, value in zip(places, swept.values[0] - runs.start[0]):
        values[place.index] = value
    return values.where(measured, torch.nan), swept
