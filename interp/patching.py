"""Activation patching: which places carry what distinguishes two prompts?

Vig et al. 2020 (arXiv:2004.12265), Meng et al. 2022 (arXiv:2202.05262); conventions of Heimersheim & Nanda 2024
(arXiv:2404.15255).
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
import xarray as xr

from interp.arrays import labelled, position_labels
from interp.edits import copy
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.sites import Site
from interp.sweep import sweep
from interp.traces import check_aligned


def patch(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    sites: Sequence[Site],
    metric: Metric,
    over: Sequence[str] = (),
    roles: Sequence[str] = (),
    normalize: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> xr.DataArray:
    """Copy clean activations into the corrupt run, one place at a time (denoising; swap the two for noising).

    Args:
        sites: Sites of one kind, usually one a layer.
        over: Axes of the sites to patch index by index, such as ("pos",) or ("head",); other axes are patched whole.
        roles: Names of positions; if given, `pos` in `over` runs over these instead of over every position.
        normalize: Give the share of the metric that is restored, 0 as corrupt and 1 as clean, instead of the change.

    Returns:
        The effect by (layer, *over, prompt).

    Raises:
        ValueError: Prompts of different lengths; sites of several kinds; a gap between the runs too small to divide by.
    """
    clean, corrupt = model.tokens(clean), model.tokens(corrupt)
    check_aligned(clean, corrupt)
    if len(kinds := sorted({site.kind for site in sites})) != 1:
        raise ValueError(f"patch takes sites of one kind at a time, not {', '.join(kinds) or 'none at all'}")
    if roles and "pos" not in over:
        raise ValueError(f"roles {list(roles)} were given, but over={tuple(over)} has no 'pos' to run over them")
    with torch.no_grad():
        trace = model.run(clean, read=sites, last_only=metric.last_only)
        high, low = metric(trace), metric(model.run(corrupt, last_only=metric.last_only))
        axes = _axes(sites[0], over, roles, trace[sites[0]].shape)
        cells = [[copy(trace, site, **dict(zip(over, index)))] for site in sites for index in product(*axes)]
        swept = sweep(model, corrupt, cells, [metric], progress=progress)
        values = swept.values[0] - low
    if normalize:
        values = values / _gap(high - low, metric.name)
    labels: dict[str, Sequence[Any]] = {"layer": [site.layer for site in sites]}
    words = position_labels(model, clean)
    for axis, indices in zip(over, axes):
        named = axis in ("pos", "query", "key") and not roles
        labels[axis] = [words[int(i)] for i in indices] if named else list(indices)
    labels["prompt"] = range(len(corrupt))
    shape = [len(axis) for axis in labels.values()]
    how: dict[str, Any] = {
        "method": "activation patching",
        "direction": "denoising",
        "site": sites[0].kind,
        "metric": metric.name,
    }
    unit = "share restored" if normalize else f"change in {metric.name}"
    return labelled(values.reshape(shape), unit, labels, model, **how, **swept.how)


def _axes(site: Site, over: Sequence[str], roles: Sequence[str], shape: Sequence[int]) -> list[Sequence[int | str]]:
    """What each patched axis runs over."""
    if len(set(over)) != len(over):
        raise ValueError(f"each axis is patched over once; over={tuple(over)} repeats one")
    if unknown := set(over) - set(site.axes) | (set(over) & {"batch"}):
        raise ValueError(f"cannot patch {site.kind} over {sorted(unknown)}; its axes are {', '.join(site.axes[1:])}")
    sizes = dict(zip(site.axes, shape))
    return [list(roles) if roles and axis == "pos" else range(sizes[axis]) for axis in over]


def _gap(gap: torch.Tensor, name: str) -> torch.Tensor:
    """The gap between clean and corrupt, refused where it is too small to divide by."""
    if not bool(gap.isfinite().all()):
        prompts = (~gap.isfinite()).nonzero().flatten().tolist()[:5]
        raise ValueError(f"the {name} of prompts {prompts} is not a finite number in the clean or the corrupt run")
    small = gap.abs() < 1e-3 * gap.abs().mean().clamp(min=1e-6)
    if bool(small.any()):
        prompts = small.nonzero().flatten().tolist()[:5]
        raise ValueError(
            f"clean and corrupt give nearly the same {name} (prompts {prompts}), so that a share of the gap means "
            f"nothing; choose other prompts, or pass normalize=False"
        )
    return gap
