"""Edge patching: what do edges carry that distinguishes two prompts?

Exact patching of edges as in Goldowsky-Dill et al. 2023 (arXiv:2304.05969).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import labelled
from interp.backends.readers import wiring_of
from interp.circuits.masks import Exchange
from interp.circuits.pair import Pair
from interp.circuits.sets import OneMore, stacked
from interp.graph import Graph, Mask, by_name, zero_for_nan
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.progress import Progress


def graph(model: Model) -> Graph:
    """The writers and readers of a model's residual stream, by name, and which edges there are between them.

    Raises:
        ValueError: A backend or a family whose readers cannot be had.
    """
    return wiring_of(model).graph


def patch_edges(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    sets: Mapping[str, Mask] | Mask,
    metric: Metric,
    direction: str = "denoising",
    budget: int | None = None,
    progress: Progress = None,
) -> xr.DataArray:
    """How the metric changes when the edges of a set, and no others, carry what they carry in the other run.

    Args:
        sets: By name, how much of each edge is taken from the other run: (writer, reader) or (pos, writer, reader), as
            `graph(model).mask([("L0H1", "*")])` gives it, or a list of edges. Every set is tried alone, many in one
            pass; one given alone is named "circuit".
        direction: "denoising" runs the corrupt prompts with edges of the clean run, "noising" the reverse.
        budget: Bytes that the activations of one pass may take; by default what suits the device.

    Returns:
        The change in the metric by (set, prompt).

    Raises:
        ValueError: Prompts that do not match position by position; a mask of another shape, with NaN, or on edges that
            there are not; what `graph` raises.
    """
    sets, pair = by_name(sets), Pair.of(model, clean, corrupt, direction)
    masks, exchange = stacked(pair.wiring.graph, sets, pair.this.ids.shape[1]), pair.exchange(metric)
    values, passes = exchange.changes(masks.split(exchange.most(budget)), len(masks), progress)
    coords = {"set": list(sets), "prompt": range(len(pair.this))}
    how: dict[str, Any] = {"method": "edge patching", "direction": direction, "metric": metric.name}
    return labelled(values, f"change in {metric.name}", coords, model, **how, passes=passes)


def patch_each_edge(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    metric: Metric,
    edges: Mask | None = None,
    direction: str = "denoising",
    budget: int | None = None,
    progress: Progress = None,
) -> xr.DataArray:
    """Patch every edge alone: its exact effect, by (prompt, writer, reader).

    Args:
        edges: Which edges to try, a list or a mask of 1 and 0; by default all.
        direction, budget: As for `patch_edges`.

    Returns:
        The change in the metric by (prompt, writer, reader); NaN where there is no edge, or it was not tried.

    Raises:
        ValueError: What `patch_edges` raises.
    """
    pair = Pair.of(model, clean, corrupt, direction)
    names = pair.wiring.graph
    chosen = names.mask() if edges is None else zero_for_nan(names.tensor_of("edges", edges))
    names.check("edges", chosen)
    if not bool(chosen.any()):
        raise ValueError(
            "no edge was chosen to be tried; give a mask with 1 on some, such as graph(model).mask([('*', 'logits')])"
        )
    values, passes = each(pair.exchange(metric), chosen, budget, progress)
    return pair.scores(values, metric, method="edge patching, each edge alone", passes=passes)


def each(
    exchange: Exchange, chosen: Float[Tensor, "writer reader"], budget: int | None, progress: Progress
) -> tuple[Float[Tensor, "prompt writer reader"], int]:
    """The change under each of the chosen edges alone, NaN elsewhere; and in how many passes it was found."""
    names = exchange.run.wiring.graph
    # By reader, so that the edges of one pass leave most readers alone, and most layers below them.
    readers, writers = chosen.T.nonzero(as_tuple=True)
    size = exchange.most(budget)
    alone = OneMore(torch.zeros(names.precedes.shape), writers, readers)
    found, passes = exchange.changes(alone.split(size), len(alone), progress, "edges")
    values = found.new_full((found.shape[1], *names.precedes.shape), float("nan"))
    values[:, writers, readers] = found.T
    return values, passes


def each_node(exchange: Exchange, budget: int | None, progress: Progress) -> Float[Tensor, "prompt node"]:
    """The change when all edges that leave a writer, or all that enter a reader, are patched at once: writers first."""
    names = exchange.run.wiring.graph
    nodes = torch.arange(len(names.writers) + len(names.readers))
    chunks = nodes.split(exchange.most(budget))
    masks = (torch.stack([edges_of(names, [i]) for i in some.tolist()]) for some in chunks)
    return exchange.changes(masks, len(nodes), progress, "nodes")[0].T.cpu()


def edges_of(names: Graph, nodes: Sequence[int]) -> Float[Tensor, "writer reader"]:
    """All edges of some nodes, by number: writers, then readers."""
    chosen, n = torch.zeros(names.precedes.shape), len(names.writers)
    chosen[[i for i in nodes if i < n]] = 1
    chosen[:, [i - n for i in nodes if i >= n]] = 1
    return chosen * names.precedes
