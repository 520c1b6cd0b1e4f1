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

from interp.arrays import Check, attach, labelled, position_labels
from interp.metrics import Metric, metrics_of
from interp.model import Model, Prompts
from interp.precision import widened
from interp.sites import Site
from interp.stats import rank_correlation
from interp.traces import Tokens, Trace, visible


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
    scores = [Site("scores", site.layer) for site in sites if "scores" in model.editable]
    with torch.no_grad():
        trace = model.run(tokens, read=[*sites, *scores], last_only=True)
    seen = [visible(trace[site]) for site in scores] or [trace[site] > 0 for site in sites]
    real = _rolled([widened(trace[site]).mean(1) for site in sites], skip)
    null = _rolled([_uniform(one.to(real)).mean(1) for one in seen], skip)
    measured = (null > 0) & tokens.mask.bool()[:, :, None]
    if bool((real.isnan() & measured).any()):
        raise ValueError("patterns are not numbers; are there NaN among the weights?")
    checks = [_first_token(real, null, tokens), _distance(real, null)]
    how = {"layers": [site.layer for site in sites], "skip": skip, "heads": "mean"}
    words = position_labels(model, tokens)
    coords: dict[str, Sequence[Any]] = {"query": words, "key": words, "prompt": range(len(tokens))}
    parts = {"rollout": real, "uniform": null, "excess": real - null}
    found = {
        name: labelled(_last(value.where(measured, torch.nan)), name, coords, model, checks,
                       method="attention rollout", **how)
        for name, value in parts.items()
    }  # fmt: skip
    return xr.Dataset(found, attrs=found["rollout"].attrs)


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
    metrics = metrics_of(metric)
    trace = model.run(tokens, read=sites, grad=True, last_only=all(one.last_only for one in metrics))
    patterns = [trace[site] for site in sites]
    how: dict[str, Any] = {"method": "gradient-weighted attention", "metric": ", ".join(one.name for one in metrics)}
    how["layers"] = [site.layer for site in sites]
    coords: dict[str, Sequence[Any]] = {"metric": [one.name for one in metrics]}
    coords |= {"pos": position_labels(model, tokens), "prompt": range(len(tokens))}
    found, other = (
        labelled(_relevances(some, trace, patterns), "relevance", coords, model, **how)
        for some in (metrics, _random(metrics, trace))
    )
    found = found.assign_attrs(attach([_specific(found, other)], {}))
    return found.isel(metric=0, drop=True) if isinstance(metric, Metric) else found


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


def _relevances(
    metrics: Sequence[Metric], trace: Trace, patterns: Sequence[Float[Tensor, "batch head query key"]]
) -> Float[Tensor, "metric key batch"]:
    """The row of the relevance at which each metric is read, less its identity; NaN at padding."""
    tokens, rows = trace.tokens, []
    identity = torch.eye(tokens.ids.shape[1]).to(widened(patterns[0])).expand(len(tokens), -1, -1)
    for metric in metrics:
        with torch.enable_grad():
            value = metric(trace)
        metric.check_gradient(value)
        found = torch.autograd.grad(value.sum(), patterns, retain_graph=True, materialize_grads=True)
        row = start = metric.position(tokens, identity)
        for pattern, gradient in zip(reversed(patterns), reversed(found)):
            row = row + torch.einsum("bq,bqk->bk", row, widened(pattern * gradient).clamp(min=0).mean(1))
        rows.append((row - start).detach().where(tokens.mask.bool(), torch.nan).T)
    return torch.stack(rows)


def _random(metrics: Sequence[Metric], trace: Trace) -> list[Metric]:
    """A random combination of the logits at each place that is read."""
    weights = torch.randn(trace.logits.shape[-1], generator=torch.Generator().manual_seed(0))
    weights = weights.to(widened(trace.logits))  # as a metric is given them
    return [Metric("random combination", lambda logits: logits @ weights, metric.at) for metric in metrics]


def _specific(found: xr.DataArray, other: xr.DataArray) -> Check:
    """Whether relevance hangs on what it is the relevance of."""
    read = (found.values > 0) | (other.values > 0)  # what lies behind the place that is read is zero in both
    pairs = [(one.where(seen), two.where(seen)) for one, two, seen in zip(found, other, read)]
    each = np.concatenate([rank_correlation(one, two).values for one, two in pairs])
    value = float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")
    why = (
        "rank correlation over positions with the relevance for a random combination of the logits: near 1, it hardly "
    )
    why += "hangs on the metric"
    return Check.at_most("rank correlation with a random target", value, 0.7, why, "arXiv:2202.10419")


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
    return Check.at_least("distance from uniform attention", value, 0.1, why, "arXiv:2005.00928")
