"""Circuits found by running them: edges removed one by one, or a sparse mask learned.

ACDC by Conmy et al. 2023 (arXiv:2304.14997). Learned masks: hard concrete gates of Louizos et al. 2017
(arXiv:1712.01312), on edges as in Bhaskar et al. 2024 (arXiv:2406.16778).
"""

from itertools import pairwise
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import labelled
from interp.circuits.ablations import ablated
from interp.circuits.masks import Exchange
from interp.graph import Graph
from interp.metrics import Metric, kl_from
from interp.model import Model, Prompts
from interp.progress import Progress, bar

_LOW, _HIGH, _HEAT = -0.1, 1.1, 2 / 3  # the stretch and the temperature of hard concrete gates, as in the paper


def acdc(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    threshold: float,
    metric: Metric | None = None,
    ablation: str = "corrupt",
    budget: int | None = None,
    progress: Progress = None,
) -> xr.DataArray:
    """A circuit by greedy removal: readers from the logits down, each reader's edges from the latest writer on.

    An edge is removed for good if without it the circuit's distance from the model grows by less than the threshold.
    What then leads nowhere is removed unseen. Removals are tried many in a pass, as if each had been accepted, and
    taken up again after the first that was not: the circuit is the one that a trial at a time would find.

    Args:
        threshold: In the unit of the distance, its mean over prompts.
        metric: The distance is how far it is from the model's own, in size; by default the KL divergence (nats) of the
            next-token distribution from the model's.
        ablation: What removed edges carry, see `evaluate`; not "resample".
        budget: As for `patch_edges`.

    Returns:
        1 on the edges of the circuit, 0 on the others, NaN where there is none, by (writer, reader); in the attributes
        how far the circuit is from the model (`distance`) and how many circuits were run (`runs`).

    Raises:
        ValueError: A threshold that is not above 0; what `evaluate` raises.
    """
    if not threshold > 0:
        raise ValueError(f"edges are removed up to a distance above 0; threshold={threshold} was given")
    exchange = _exchange(model, clean, corrupt, metric, ablation)
    greedy = _Greedy(exchange, threshold, exchange.most(budget))
    graph = exchange.run.wiring.graph
    with bar(len(graph.readers), "readers", progress) as advance:
        for reader in reversed(range(len(graph.readers))):
            greedy.clear(reader)
            advance(1)
    how = {"method": "ACDC", "metric": exchange.run.metric.name, "ablation": ablation, "threshold": threshold}
    how |= {"distance": greedy.distance, "runs": greedy.runs, "edges": int((1 - greedy.removed)[graph.precedes].sum())}
    return _labelled(model, graph, 1 - greedy.removed, "circuit", how)


class _Greedy:
    """Edges removed so far, and what it cost."""

    def __init__(self, exchange: Exchange, threshold: float, most: int) -> None:
        self.exchange, self.threshold, self.most = exchange, threshold, most
        self.graph = exchange.run.wiring.graph
        self.removed = torch.zeros(self.graph.precedes.shape)
        self.distance, self.runs, self._ahead = 0.0, 0, 8

    def clear(self, reader: int) -> None:
        """Remove what can be removed of the edges into a reader."""
        writers = self.graph.precedes[:, reader].nonzero()[:, 0].flip(0)
        kept = (1 - self.removed) * self.graph.precedes
        if reader != self.graph.logits.start and not kept[self.graph.makes[reader]].any():
            self.removed[writers, reader] = 1
            return
        while len(writers):
            some = writers[: min(self._ahead, self.most)]
            trials = self.removed.repeat(len(some), 1, 1)
            for i, writer in enumerate(some):
                trials[i:, writer, reader] = 1
            distances = [self.distance, *_distance(self.exchange, trials).tolist()]
            self.runs += len(some)
            steps = [after - before for before, after in pairwise(distances)]
            good = next((i for i, step in enumerate(steps) if not step < self.threshold), len(steps))
            if good:
                self.removed, self.distance = trials[good - 1], distances[good]
            failed = good < len(steps)
            self._ahead = max(1, self._ahead // 2) if failed else 2 * self._ahead
            writers = writers[good + failed :]


def learn_mask(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    penalty: float = 1.0,
    metric: Metric | None = None,
    ablation: str = "corrupt",
    steps: int = 300,
    rate: float = 0.1,
    samples: int = 2,
    seed: int = 0,
    progress: Progress = None,
) -> xr.DataArray:
    """Gates on all edges, learned together to keep the model's behaviour with few of them open.

    The loss is the distance from the model (see `acdc`), as a share of that of the empty circuit, plus the penalty
    times the share of edges that are expected to be open. Gates are drawn anew at each step, so that an edge stays open
    only if it matters.

    Args:
        penalty: More of it, fewer edges.
        metric, ablation: As for `acdc`.
        steps, rate: Of Adam.
        samples: Draws of the gates in each step.

    Returns:
        The probability that an edge is open by (writer, reader), NaN where there is none: scores to `select` by, or a
        circuit above a half. The attributes hold the loss of the last step.

    Raises:
        ValueError: No step, sample or penalty; a metric without a gradient; prompts on which the empty circuit is as
            good as the model; what `evaluate` raises.
    """
    if min(steps, samples) < 1 or not penalty > 0:
        raise ValueError(f"steps and samples from 1 on and a penalty above 0, not {steps}, {samples} and {penalty}")
    exchange = _exchange(model, clean, corrupt, metric, ablation)
    graph = exchange.run.wiring.graph
    there = graph.precedes.to(exchange.others)
    whole = float(_distance(exchange, there[None]).detach())
    if not whole > 1e-6:
        raise ValueError("without any edge the metric is that of the model: these prompts leave nothing to keep")
    gates = torch.full_like(there, 2.0).requires_grad_()
    optimizer = torch.optim.Adam([gates], lr=rate, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(seed)
    loss = torch.zeros(())
    with bar(steps, "steps", progress) as advance, torch.enable_grad():
        for _ in range(steps):
            noise = torch.rand(samples, *gates.shape, generator=generator).clamp(1e-6, 1 - 1e-6).to(gates)
            closed = (1 - _opened(gates + noise.logit())) * there
            share = (_chance(gates) * there).sum() / there.sum()
            loss = _distance(exchange, closed).mean() / whole + penalty * share
            (gates.grad,) = torch.autograd.grad(loss, gates)
            optimizer.step()
            advance(1)
    how = {"method": "learned mask", "metric": exchange.run.metric.name, "ablation": ablation, "penalty": penalty}
    how |= {"steps": steps, "rate": rate, "samples": samples, "seed": seed, "loss": float(loss.detach())}
    return _labelled(model, graph, _chance(gates), "probability of an open gate", how)


def _opened(gates: Tensor) -> Tensor:
    """How far gates are open, from 0 to 1, for logits with their noise."""
    return (torch.sigmoid(gates / _HEAT) * (_HIGH - _LOW) + _LOW).clamp(0, 1)


def _chance(gates: Tensor) -> Tensor:
    """The probability that gates are not shut."""
    return torch.sigmoid(gates - _HEAT * torch.log(torch.tensor(-_LOW / _HIGH)))


def _exchange(model: Model, clean: Prompts, corrupt: Prompts, metric: Metric | None, ablation: str) -> Exchange:
    if ablation == "resample":
        raise ValueError("a search needs one thing that removed edges carry: corrupt, mean or zero, not resample")
    if metric is None:
        with torch.no_grad():
            metric = kl_from(model.run(clean, last_only=True).logits[:, -1])
    (exchange,) = ablated(model, clean, corrupt, metric, ablation)
    return exchange


def _distance(exchange: Exchange, removed: Tensor) -> Float[Tensor, " set"]:
    """How far circuits are from the model, without the edges removed: a mean over prompts."""
    with torch.set_grad_enabled(removed.requires_grad):
        values = exchange.values(removed)
        exchange.run.metric.check_numbers(values)
        if removed.requires_grad:
            exchange.run.metric.check_gradient(values)
        return (values - exchange.run.values).abs().mean(-1)


def _labelled(model: Model, graph: Graph, values: Tensor, name: str, how: dict[str, Any]) -> xr.DataArray:
    values = values.detach().cpu().masked_fill(~graph.precedes, torch.nan)
    return labelled(values, name, {"writer": graph.writers, "reader": graph.readers}, model, **how)
