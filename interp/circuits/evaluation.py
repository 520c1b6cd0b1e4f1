"""How much of a model's behaviour a circuit keeps when every other edge is ablated, and which of its parts it needs."""

from collections.abc import Mapping
from typing import Any

import torch
import xarray as xr

from interp import stats
from interp.arrays import labelled
from interp.circuits.ablations import ablated, averaged, stacked_circuits
from interp.graph import Mask, by_name
from interp.metrics import Metric
from interp.model import Model, Prompts


def evaluate(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    circuits: Mapping[str, Mask] | Mask,
    metric: Metric,
    ablation: str = "corrupt",
    resamples: int = 4,
    seed: int = 0,
    budget: int | None = None,
) -> xr.Dataset:
    """The metric of circuits: of the clean prompts, with every edge outside a circuit ablated.

    Args:
        circuits: By name, 1 on the edges of a circuit, by (writer, reader) or (pos, writer, reader), or a list of its
            edges; one alone is named "circuit". All are run in as few passes as fit the budget.
        ablation: What the other edges carry: "corrupt", what the edge carries on the paired corrupt prompt; "mean",
            over the corrupt prompts at each position; "zero"; "resample", on another corrupt prompt.
        resamples, seed: Of "resample": how many other prompts are averaged over, and which.
        budget: Bytes that the activations of one pass may take.

    Returns:
        `metric` by (circuit, prompt); `full` and `empty` (all edges, none) by prompt; `edges`, how many each circuit
        has. See `faithfulness`. What is left without a circuit is `graph(model).mask() - circuit`, a circuit too.

    Raises:
        ValueError: No circuit; a mask that does not fit the model; what the ablation raises.
    """
    circuits = by_name(circuits)
    exchanges = ablated(model, clean, corrupt, metric, ablation, resamples, seed)
    run = exchanges[0].run
    kept = stacked_circuits(run.wiring.graph, circuits, run.tokens.ids.shape[1])
    there = run.wiring.graph.precedes.to(kept).expand(1, *kept.shape[1:])
    values = averaged(exchanges, [torch.cat([there, there - kept])], budget)
    how: dict[str, Any] = {"method": "circuit", "metric": metric.name, "ablation": ablation}
    how |= {"resamples": resamples, "seed": seed} if ablation == "resample" else {}
    prompts: dict[str, Any] = {"prompt": range(len(run.tokens))}
    coords = {"circuit": list(circuits), **prompts}
    edges = kept.sum(list(range(1, kept.ndim)))
    parts = {
        "metric": labelled(values[1:], metric.name, coords, model, **how),
        "full": labelled(run.values, metric.name, prompts, model, **how),
        "empty": labelled(values[0], metric.name, prompts, model, **how),
        "edges": labelled(edges, "edges", {"circuit": list(circuits)}, model, **how),
    }
    return xr.Dataset(parts, attrs=parts["metric"].attrs)


def faithfulness(found: xr.Dataset, level: float = 0.95, draws: int = 2000, seed: int = 0) -> xr.Dataset:
    """The share of the behaviour that circuits keep, or that survives scrubbing: 0 as without edges, 1 as the model.

    A ratio of means over prompts, (circuit - empty) / (full - empty), with a bootstrap interval over prompts.

    Args:
        found: What `evaluate` or `scrub` gives.

    Returns:
        A dataset of `mean`, `low` and `high` by circuit or hypothesis, as `stats.ratio`.
    """
    gap = (found["full"] - found["empty"]).broadcast_like(found["metric"]).transpose(*found["metric"].dims)
    return stats.ratio(found["metric"] - found["empty"], gap, level=level, draws=draws, seed=seed)
