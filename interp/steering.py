"""Steering vectors: which direction pushes the model towards a behaviour, and at what dose?

Difference of means: Marks & Tegmark 2023 (arXiv:2310.06824); contrastive activation addition: Rimsky et al. 2023
(arXiv:2312.06681).
"""

from collections.abc import Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, labelled
from interp.edits import add
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.sites import Site
from interp.sweep import sweep


@torch.no_grad()
def mean_difference(
    model: Model, positive: Prompts, negative: Prompts, site: Site, at: int | str = -1
) -> Float[Tensor, "*rest"]:
    """Mean activation on positive prompts minus that on negative ones, at one position of each.

    Returns:
        A tensor with the site's axes after `pos`, such as (d_model) or (head, d_head).
    """
    means = []
    for prompts in (positive, negative):
        trace = model.run(prompts, read=[site], last_only=True)
        means.append(trace.at(site, at).mean(0))
    return means[0] - means[1]


@torch.no_grad()
def dose_response(
    model: Model,
    prompts: Prompts,
    site: Site,
    vector: Float[Tensor, " d_model"],
    metric: Metric,
    doses: Sequence[float] = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0),
    at: int | str = -1,
    randoms: int = 10,
    seed: int = 0,
) -> xr.DataArray:
    """The metric under multiples of a vector, and of random vectors of the same norm.

    Returns:
        Values by (vector, dose, prompt); the first vector is "steered", the others "random 0", "random 1", ...
    """
    if vector.ndim != 1 or not bool(vector.isfinite().all()) or not bool(vector.any()):
        raise ValueError(f"a steering vector is one finite, non-zero vector; given shape {tuple(vector.shape)}")
    if not doses:
        raise ValueError("a dose response needs at least one dose; none was given")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(randoms, len(vector), generator=generator).to(vector)
    vectors = [vector, *(noise / noise.norm(dim=-1, keepdim=True) * vector.norm())]
    cells = [[add(site, dose * v, pos=at)] for v in vectors for dose in doses]
    values = sweep(model, prompts, cells, [metric]).values.view(len(vectors), len(doses), -1)
    names = ["steered", *(f"random {i}" for i in range(randoms))]
    coords: dict[str, Sequence[Any]] = {"vector": names, "dose": list(doses), "prompt": range(values.shape[-1])}
    how = {
        "method": "steering by difference of means",
        "site": str(site),
        "at": at,
        "metric": metric.name,
        "seed": seed,
    }
    return labelled(values, metric.name, coords, model, [_against_random(values)], **how)


def _against_random(values: Tensor) -> Check:
    """How far the vector moves the metric over its doses, beside the furthest random one."""
    swing = (values[:, -1] - values[:, 0]).mean(-1)
    ratio = float(swing[0].abs() / swing[1:].abs().max().clamp(min=1e-9)) if len(swing) > 1 else float("nan")
    status = "skipped" if len(swing) == 1 else "pass" if ratio > 1 else "fail"
    why = "the vector must move the metric further than every random vector of its norm"
    return Check("effect over the largest random one", ratio, 1.0, status, why)
