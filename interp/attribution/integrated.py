"""Gradient attribution: how much does each part of a site move the metric?

Integrated gradients: Sundararajan et al. 2017 (arXiv:1703.01365), computed by captum.
"""

import torch
import xarray as xr
from torch import Tensor

from interp.arrays import Check, labelled, position_labels
from interp.edits import put
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.sites import Site
from interp.traces import check_aligned


def integrated_gradients(
    model: Model, clean: Prompts, corrupt: Prompts, site: Site, metric: Metric, steps: int = 32, most: int = 256
) -> xr.DataArray:
    """How much each position of a site moves the metric on the straight path from the corrupt run to the clean one.

    The corrupt run is the baseline: from zero, a norm makes the model a near step function of scale.

    Args:
        steps: Points on the path (Gauss-Legendre); doubled up to `most` until the attributions add up.

    Returns:
        Attributions by (pos, prompt), with the check that they add up to the change in the metric.
    """
    from captum.attr import IntegratedGradients

    clean, corrupt = model.tokens(clean), model.tokens(corrupt)
    check_aligned(clean, corrupt)
    if "pos" not in site.axes:
        raise ValueError(f"{site} has no position axis; its axes are {', '.join(site.axes)}")
    if steps < 1:
        raise ValueError(f"the path needs at least one step; steps={steps} was given")
    end, start = (model.run(tokens, read=[site])[site] for tokens in (clean, corrupt))

    def value_of(value: Tensor, rows: Tensor) -> Tensor:
        return metric(model.run(clean.rows(rows), edits=[put(site, value)], grad=True))

    rows = torch.arange(len(clean), device=model.device)
    with torch.no_grad():
        change = metric(model.run(clean)) - metric(model.run(clean, edits=[put(site, start)]))
    method = IntegratedGradients(_per_row(value_of, len(clean)))
    while True:
        scores = method.attribute(end, start, additional_forward_args=(rows,), n_steps=steps, method="gausslegendre")
        per_position = scores.detach().flatten(2).sum(-1)
        check = _completeness(per_position.sum(-1), change)
        if check.status == "pass" or 2 * steps > most:
            break
        steps *= 2
    coords = {"pos": position_labels(model, clean), "prompt": range(len(clean))}
    how = {"method": "integrated gradients", "site": str(site), "metric": metric.name, "baseline": "corrupt run"}
    return labelled(per_position.T, "attribution", coords, model, [check], **how, steps=steps)


def _per_row(value_of, n: int):  # type: ignore[no-untyped-def]
    """A metric of n prompts as a function of any number of whole repeats of them, which is what captum asks for."""

    def function(value: Tensor, rows: Tensor) -> Tensor:
        return torch.cat([value_of(v, r) for v, r in zip(value.split(n), rows.split(n))])

    return function


def _completeness(total: Tensor, change: Tensor) -> Check:
    error = float((total - change).abs().max() / change.abs().mean().clamp(min=1e-9))
    status = "pass" if error <= 1e-3 else "warn" if error <= 5e-2 else "fail"
    why = "attributions must add up to the change in the metric when the whole site is replaced by the baseline"
    return Check("completeness error", error, 1e-3, status, why, "arXiv:1703.01365")
