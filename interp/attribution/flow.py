"""What attention carries, layer upon layer: which words can what is read at a position have come from?

Rollout: Abnar & Zuidema 2020 (arXiv:2005.00928). Relevance: Chefer et al. 2021 (arXiv:2012.09838, its rule for
self-attention as in arXiv:2103.15679). Both add up paths and know nothing of values, MLPs and norms: they suggest where
to look, and say nothing of what the model does with it.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, labelled, position_labels
from interp.contrast import widened
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.sites import Site
from interp.softmax import visible
from interp.traces import Tokens, Trace


def rollout(model: Model, prompts: Prompts, layers: Collection[int] | None = None, skip: float = 0.5) -> xr.Dataset:
    """Attention, averaged over heads and multiplied through the layers, beside what uniform attention would give.

    In a causal model every path leads towards the first token, so that even attention that looks at nothing in
    particular piles up there. The null is that: every query attends equally to all keys that the model lets it see, by
    its own mask, window and padding.

    Args:
        layers: By default all.
        skip: How much of each position comes through the residual connection; the rest comes through attention.

    Returns:
        `rollout`, `uniform` and their difference, `excess`, by (query, key, prompt); NaN at padding and where no path
        leads from key to query. Each query's rollout adds up to 1, its excess to 0.

    Raises:
        ValueError: A `skip` that is no share; no layers, or layers that the model does not have.
    """
    if not 0 <= skip < 1:
        raise ValueError(f"skip is the share that the residual connection carries, from 0 to below 1, not {skip}")
    tokens, sites = model.tokens(prompts), _patterns(model, layers)
    scores = [Site("scores", site.layer) for site in sites]
    with torch.no_grad():
        trace = model.run(tokens, read=[*sites, *scores], last_only=True)
    seen = [visible(trace[site]) for site in scores]
    real = _rolled([widened(trace[site]).mean(1) for site in sites], skip)
    null = _rolled([_uniform(one.to(real)).mean(1) for one in seen], skip)
    measured = (null > 0) & tokens.mask.bool()[:, :, None]
    checks = [_first_token(real, null, tokens), _distance(real, null)]
    how = {"layers": [site.layer for site in sites], "skip": skip, "heads": "mean"}
    words = position_labels(model, tokens)
    coords: dict[str, Sequence[Any]] = {"query": words, "key": words, "prompt": range(len(tokens))}
    parts = {"rollout": real, "uniform": null, "excess": real - null}
    return xr.Dataset(
        {
            name: labelled(_last(value.where(measured, torch.nan)), name, coords, model, checks,
                           method="attention rollout", **how)
            for name, value in parts.items()
        }
    )  # fmt: skip


def relevance(
    model: Model, prompts: Prompts, metric: Metric | Sequence[Metric], layers: Collection[int] | None = None
) -> xr.DataArray:
    """Attention times the metric's gradient at it, the positive part averaged over heads and added up over paths.

    With A the mean over heads of the positive part, each layer turns the relevance R into R + A R, from the identity
    on; the result is the row of the position that the metric reads, less the identity: what it holds of itself without
    any attention is 1 by definition.

    Args:
        metric: One, or several, which give an axis `metric`.
        layers: By default all.

    Returns:
        Relevance, never negative, by (metric, pos, prompt), without the first if there is one metric; NaN at padding.
        With the check that it is another than that for a random combination of the logits.

    Raises:
        ValueError: A metric that has no gradient; layers that the model does not have.
    """
    tokens, sites = model.tokens(prompts), _patterns(model, layers)
    metrics = [metric] if isinstance(metric, Metric) else list(metric)
    with torch.enable_grad():
        last_only = all(one.last_only for one in metrics)
        trace = model.run(tokens, read=sites, grad=True, last_only=last_only)
        patterns = [trace[site] for site in sites]
        values = [one(trace) for one in metrics]
    rows = torch.stack([_relevance_row(one, value, patterns, tokens) for one, value in zip(metrics, values)])
    check = _specific(rows, metrics, trace, patterns)
    rows = rows.where(tokens.mask.bool(), torch.nan).transpose(-1, -2)
    coords: dict[str, Sequence[Any]] = {"metric": [one.name for one in metrics]}
    coords |= {"pos": position_labels(model, tokens), "prompt": range(len(tokens))}
    if isinstance(metric, Metric):
        coords.pop("metric")
    how: dict[str, Any] = {"method": "gradient-weighted attention", "metric": ", ".join(one.name for one in metrics)}
    how["layers"] = [site.layer for site in sites]
    shape = [len(labels) for labels in coords.values()]
    return labelled(rows.reshape(shape), "relevance", coords, model, [check], **how)


def _patterns(model: Model, layers: Collection[int] | None) -> list[Site]:
    sites = model.sites("pattern", layers=None if layers is None else sorted(layers))
    if not sites:
        raise ValueError(f"at least one layer is needed; {model.name} has layers 0 to {model.shape.n_layers - 1}")
    return sites


def _uniform(seen: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head query key"]:
    """The same weight on every key that a query sees, of ones where it sees one."""
    return seen / seen.sum(-1, keepdim=True).clamp(min=1)


def _rolled(patterns: Sequence[Float[Tensor, "batch query key"]], skip: float) -> Float[Tensor, "batch query key"]:
    """The product over layers of what attention and the residual connection carry together."""
    identity = torch.eye(patterns[0].shape[-1]).to(patterns[0])
    rolled = identity.expand_as(patterns[0])
    for pattern in patterns:
        rolled = (skip * identity + (1 - skip) * pattern) @ rolled
    return rolled


def _relevance_row(
    metric: Metric, value: Float[Tensor, " batch"], patterns: Sequence[Tensor], tokens: Tokens
) -> Float[Tensor, "batch key"]:
    """The row of the relevance at which a metric is read, less its identity."""
    if not value.requires_grad:
        raise ValueError(f"{metric.name} has no gradient; make it of differentiable operations on the logits")
    found = torch.autograd.grad(value.sum(), patterns, retain_graph=True, materialize_grads=True)
    identity = torch.eye(tokens.ids.shape[1]).to(widened(patterns[0])).expand(len(tokens), -1, -1)
    start = metric.position(tokens, identity)
    row = start
    for pattern, gradient in zip(reversed(patterns), reversed(found)):
        row = row + torch.einsum("bq,bqk->bk", row, widened(pattern * gradient).clamp(min=0).mean(1))
    return (row - start).detach()


def _specific(
    rows: Float[Tensor, "metric batch key"], metrics: Sequence[Metric], trace: Trace, patterns: Sequence[Tensor]
) -> Check:
    """Whether relevance hangs on what it is the relevance of."""
    from scipy.stats import spearmanr

    generator, tokens = torch.Generator().manual_seed(0), trace.tokens
    weights = torch.randn(trace.logits.shape[-1], generator=generator).to(trace.logits)
    found = []
    for row, metric in zip(rows, metrics):
        random = Metric("random combination", lambda logits: logits @ weights, metric.at)
        with torch.enable_grad():
            total = random(trace)
        other = _relevance_row(random, total, patterns, tokens)
        for mask, *pair in zip((row > 0) | (other > 0), row, other):
            one, two = (values[mask].cpu().numpy() for values in pair)
            if len(one) > 3 and np.ptp(one) * np.ptp(two) > 0:
                found.append(spearmanr(one, two).statistic)
    value = float(np.mean(found)) if found else float("nan")
    why = (
        "rank correlation over positions with the relevance for a random combination of the logits: near 1, it hardly "
    )
    why += "hangs on the metric"
    status = "skipped" if not found else "pass" if value <= 0.7 else "warn"
    return Check("rank correlation with a random target", value, 0.7, status, why, "arXiv:2202.10419")


def _last(values: Float[Tensor, "batch query key"]) -> Float[Tensor, "query key batch"]:
    return values.permute(1, 2, 0)


def _first_token(real: Tensor, null: Tensor, tokens: Tokens) -> Check:
    rows, first = torch.arange(len(tokens), device=real.device), tokens.mask.int().argmax(-1)
    mass, expected = (float(x[rows, -1, first].mean()) for x in (real, null))
    why = (
        f"of the last position's rollout; uniform attention alone puts {expected:.3f} there, the model's is the excess"
    )
    return Check(
        "mass on the first token", mass, expected, "warn" if expected > 0.5 else "pass", why, "arXiv:2005.00928"
    )


def _distance(real: Tensor, null: Tensor) -> Check:
    value = float((real - null)[:, -1].abs().sum(-1).mean() / 2)
    why = "share of the last position's rollout that lies elsewhere than uniform attention would put it"
    return Check(
        "distance from uniform attention", value, 0.1, "pass" if value >= 0.1 else "warn", why, "arXiv:2005.00928"
    )
