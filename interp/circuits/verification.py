"""Estimated edges beside exact ones: is what was found there, and what was missed?

An estimate by gradients is nearly zero where the model is saturated, however much depends on the edge. So nodes are
screened exactly, all edges that leave a writer at once, and all that enter a reader; edges of those that the estimate
has missed are tried too.
"""

from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.agreement import agreement
from interp.arrays import Check, labelled
from interp.circuits.pair import Pair
from interp.circuits.patching import each, each_node, edges_of
from interp.graph import Graph
from interp.metrics import Metric, as_metric
from interp.model import Model, Prompts
from interp.progress import Progress

_FLAG = 0.25  # of the largest effect of a node: an estimate may be so far off


def verify(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    scores: xr.DataArray,
    metric: Metric,
    top: int = 30,
    others: int = 30,
    seed: int = 0,
    budget: int | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    """Estimated scores of edges beside exact patching of the best, of a random sample, and of every node.

    Args:
        scores: What `eap` or `eap_ig` gave for these prompts, by (prompt, writer, reader). Their direction is taken.
        top: How many edges of the largest scores (mean over prompts) to patch.
        others: How many of the others.
        budget: As for `patch_edges`.

    Returns:
        `estimate` and `exact` by (prompt, writer, reader), the latter NaN where it was not tried; `leaving` and
        `entering` by (by, prompt, writer) and (by, prompt, reader): by "estimate", the sum over the edges, and by
        "exact", all of them patched at once. Checks say how well edges agree, and name the nodes whose estimate is off
        by a quarter of the largest effect of a node: the first five of them have all their edges patched.

    Raises:
        ValueError: Numbers of edges below 0; scores of other prompts, at positions or of another model; what
            `patch_edges` raises.
    """
    as_metric(metric)
    if min(top, others) < 0:
        raise ValueError(f"numbers of edges are from 0 on, not top={top} and others={others}")
    pair = Pair.of(model, clean, corrupt, str(scores.attrs.get("direction", "denoising")))
    graph, exchange = pair.wiring.graph, pair.exchange(metric)
    guess = _scores_of(pair, scores)
    nodes = each_node(exchange, budget, progress)
    sums = torch.cat([guess.nansum(2), guess.nansum(1)], dim=1)
    miss, missed = _missed(graph, sums.mean(0), nodes.mean(0))
    order = guess.mean(0).abs().nan_to_num(-1).flatten().argsort(descending=True)[: int(graph.precedes.sum())]
    sample = order[top:][
        torch.randperm(max(0, len(order) - top), generator=torch.Generator().manual_seed(seed))[:others]
    ]
    chosen = torch.zeros(graph.precedes.numel())
    chosen[torch.cat([order[:top], sample])] = 1
    chosen = torch.maximum(chosen.view(graph.precedes.shape), edges_of(graph, missed))
    exact, passes = each(exchange, chosen, budget, progress)
    checks = [*agreement(guess.movedim(0, -1), exact.movedim(0, -1), sample), miss]
    how: dict[str, Any] = {
        "method": "edges verified",
        "top": top,
        "others": len(sample),
        "seed": seed,
        "passes": passes,
    }
    both = torch.stack([sums, nodes.to(sums)])
    leaving, entering = both.split([len(graph.writers), len(graph.readers)], dim=2)
    coords: dict[str, Any] = {"by": ["estimate", "exact"], "prompt": range(len(guess))}
    name = f"change in {metric.name}"
    parts = {
        "estimate": pair.scores(guess, metric, checks, **how),
        "exact": pair.scores(exact, metric, **how),
        "leaving": labelled(leaving, name, {**coords, "writer": graph.writers}, model, **how),
        "entering": labelled(entering, name, {**coords, "reader": graph.readers}, model, **how),
    }
    return xr.Dataset(parts, attrs=parts["estimate"].attrs)


def _scores_of(pair: Pair, scores: xr.DataArray) -> Float[Tensor, "prompt writer reader"]:
    n, graph = len(pair.this), pair.wiring.graph
    if set(scores.dims) != {"prompt", "writer", "reader"} or scores.sizes["prompt"] != n:
        raise ValueError(
            f"scores by prompt, writer and reader of the {n} prompts given are verified, not {dict(scores.sizes)}"
        )
    return torch.stack([graph.tensor_of("scores", row.drop_vars("prompt")) for row in scores.transpose("prompt", ...)])


def _missed(graph: Graph, guess: Tensor, exact: Tensor) -> tuple[Check, list[int]]:
    """Nodes, writers before readers, whose estimate is far off: as a check, and by number, the worst first."""
    names = [*(f"{name} →" for name in graph.writers), *(f"→ {name}" for name in graph.readers)]
    error = (guess - exact).abs() / exact.abs().max().clamp(min=1e-12)
    worst = [i for i in error.argsort(descending=True).tolist() if error[i] >= _FLAG][:5]
    value = float(error.max())
    said = f": {', '.join(names[i] for i in worst)}" if worst else ""
    why = f"largest error at a node as a share of the largest effect of one; an estimate misses saturated nodes{said}"
    return Check("worst miss of a node", value, _FLAG, "warn" if worst else "pass", why, "arXiv:2403.00745"), worst
