"""Circuits of a given size: those of the best scores, and random ones to hold them against."""

import warnings

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, attach
from interp.graph import Graph, Mask

RANKS = ("absolute", "signed")
Edges = Float[Tensor, "writer reader"]
_STABLE = "arXiv:2510.00845"


def select(
    graph: Graph, scores: Mask, n_edges: float, rank: str = "absolute", connected: bool = False
) -> Float[Tensor, "writer reader"]:
    """The circuit of the edges whose scores are best.

    Args:
        scores: By writer and reader; averaged over prompts, if there are any. NaN is never chosen.
        n_edges: How many; a float from 0 to 1 is a share of all edges, 0.1 a tenth of them, rounded down.
        rank: "absolute" takes the largest sizes; "signed" those of the most help, and any that hurt last: the largest
            values or, where `scores` remember that they are of noising, the smallest.
        connected: Start at the logits, and take only edges into what is already connected to them (the greedy choice
            of Hanna et al. 2024). Otherwise edges may dangle, which `prune` removes.

    Returns:
        1 on the edges of the circuit.

    Raises:
        ValueError: Scores at positions, or of another graph; more edges than there are scores; no number or share of
            edges; an unknown rank.
    """
    if rank not in RANKS:
        raise ValueError(f"unknown rank {rank!r}; choose from {', '.join(RANKS)}")
    n_edges = size_of(graph, n_edges)
    values = graph.tensor_of("scores", _over_prompts(scores))
    if values.shape != graph.precedes.shape:
        axes = f"(writer, reader) {tuple(graph.precedes.shape)}"
        raise ValueError(
            f"a circuit is selected by scores of {axes}, not {tuple(values.shape)}; sum over positions first"
        )
    known = ~values.isnan() & graph.precedes
    if not 0 <= n_edges <= int(known.sum()):
        raise ValueError(f"a circuit of {n_edges} edges was asked for; {int(known.sum())} edges have scores")
    sign = -1 if isinstance(scores, xr.DataArray) and scores.attrs.get("direction") == "noising" else 1
    if rank == "signed" and sign < 0 and float(values[known].sum()) > 0:
        warnings.warn(
            "these scores say that they are of noising, where what helps is below 0, but they add up to more than 0; "
            "if their sign was changed, take scores.drop_attrs()",
            stacklevel=2,
        )
    values = (values.abs() if rank == "absolute" else sign * values).masked_fill(~known, -torch.inf)
    if connected:
        return _grown(graph, values, n_edges)
    circuit = torch.zeros(values.numel())
    circuit[values.flatten().argsort(descending=True, stable=True)[:n_edges]] = 1
    return circuit.view_as(values)


def prune(graph: Graph, circuit: Mask) -> Float[Tensor, "writer reader"]:
    """A circuit without the edges that are on no path from `embed` to the logits.

    Where ablated edges carry what they carry in one other run, these edges change nothing; where they carry zeros or
    means, they may.
    """
    mask = graph.tensor_of("circuit", circuit)
    edges = mask != 0
    makes = graph.makes
    reached = torch.zeros(len(graph.writers), dtype=torch.bool)
    reached[0] = True
    useful = torch.zeros(len(graph.readers), dtype=torch.bool)
    useful[graph.logits] = True
    for _ in range(2 * graph.n_layers):
        reached |= ((edges & reached[:, None]).any(0)[:, None] & makes).any(0)
        useful |= ((edges & useful).any(1) & makes).any(1)
    return mask * (edges & reached[:, None] & useful)


def random_circuits(
    graph: Graph, n_edges: float, draws: int = 100, seed: int = 0, connected: bool = False
) -> dict[str, Float[Tensor, "writer reader"]]:
    """Circuits of a size, by name: the null that a circuit is held against.

    Args:
        n_edges: As in `select`.
        connected: Make them of random paths from `embed` to the logits, so that every edge can matter: the harder null.
            Otherwise edges are drawn alike, and of small circuits few are connected.
    """
    n_edges = size_of(graph, n_edges)
    if not 0 < n_edges <= int(graph.precedes.sum()) or draws < 1:
        raise ValueError(f"{draws} circuits of {n_edges} edges were asked for; {graph}")
    generator = torch.Generator().manual_seed(seed)
    draw = _of_paths if connected else _of_edges
    return {f"random {i}": draw(graph, n_edges, generator) for i in range(draws)}


def stability(
    graph: Graph, scores: xr.DataArray, n_edges: float, draws: int = 200, seed: int = 0, **options: object
) -> xr.DataArray:
    """How often each edge is in the circuit of a size when the prompts are resampled with replacement.

    Args:
        scores: By prompt, writer and reader.
        n_edges: As in `select`.
        options: Passed on to `select`.

    Returns:
        The share of draws by (writer, reader), NaN where there is no edge. The check is the mean overlap (Jaccard)
        of a resampled circuit with the one of all prompts.

    Raises:
        ValueError: No draws; scores without prompts; what `select` raises.
    """
    if draws < 1 or "prompt" not in scores.dims:
        raise ValueError(
            f"prompts are drawn anew once at least: scores by prompt are needed, not by {scores.dims} (draws={draws})"
        )
    n_edges = size_of(graph, n_edges)
    whole = select(graph, scores, n_edges, **options)  # type: ignore[arg-type]
    n, order = scores.sizes["prompt"], scores.transpose("prompt", "writer", "reader")
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws) / n
    means = np.einsum("dp,pwr->dwr", weights, order.values)
    circuits = torch.stack(
        [select(graph, order[0].copy(data=mean), n_edges, **options) for mean in means]  # type: ignore[arg-type]
    )
    both, either = (circuits * whole).sum((1, 2)), torch.maximum(circuits, whole).sum((1, 2))
    overlap = float((both / either.clamp(min=1)).mean())
    shares = circuits.mean(0).masked_fill(~graph.precedes, torch.nan)
    why = "the edges of a circuit should not hang on which prompts were drawn"
    status = "skipped" if n < 2 or n_edges < 1 else "pass" if overlap >= 0.7 else "warn"
    check = Check("overlap with resampled circuits", overlap, 0.7, status, why, _STABLE)
    how = {"method": "edge stability", "draws": draws, "seed": seed, "edges": n_edges}
    found = order.mean("prompt", keep_attrs=True).copy(data=shares.numpy())
    return found.rename("share of draws").assign_attrs(attach([check], how))


def size_of(graph: Graph, n_edges: float) -> int:
    """How many edges are asked for, by a number or, as a float from 0 to 1, by their share."""
    if isinstance(n_edges, float | np.floating) and 0 <= n_edges <= 1:
        return int(n_edges * int(graph.precedes.sum()) + 1e-9)
    if not isinstance(n_edges, int | np.integer):
        raise ValueError(f"a circuit has a whole number of edges, or a share of all from 0.0 to 1.0, not {n_edges!r}")
    return int(n_edges)


def _over_prompts(scores: Mask) -> Mask:
    return scores.mean("prompt") if isinstance(scores, xr.DataArray) and "prompt" in scores.dims else scores


def _grown(graph: Graph, values: Tensor, n_edges: int) -> Edges:
    circuit = torch.zeros_like(values)
    readers = torch.zeros(len(graph.readers), dtype=torch.bool)
    readers[graph.logits] = True
    for _ in range(n_edges):
        open_values = values.masked_fill(~readers | (circuit != 0), -torch.inf)
        best = int(open_values.argmax())
        writer, reader = divmod(best, len(graph.readers))
        if open_values[writer, reader] == -torch.inf:
            break
        circuit[writer, reader] = 1
        readers |= graph.makes[:, writer]
    return circuit


def _of_edges(graph: Graph, n_edges: int, generator: torch.Generator) -> Edges:
    there = graph.precedes.flatten().nonzero()[:, 0]
    circuit = torch.zeros(graph.precedes.numel())
    circuit[there[torch.randperm(len(there), generator=generator)[:n_edges]]] = 1
    return circuit.view(graph.precedes.shape)


def _of_paths(graph: Graph, n_edges: int, generator: torch.Generator) -> Edges:
    circuit, left, tries = torch.zeros(graph.precedes.shape), n_edges, 0
    while left:
        path = random_path(graph, generator)
        new = [edge for edge in path if not circuit[edge]]
        tries += 1
        if len(new) > left and tries < 50 * n_edges:
            continue
        for edge in new[:left]:  # nothing fits any more: a path that ends before `embed`
            circuit[edge] = 1
        left = n_edges - int(circuit.sum())
    return circuit


def random_path(graph: Graph, generator: torch.Generator) -> list[tuple[int, int]]:
    """The edges, by number, of a random path from the logits back to `embed`."""
    pick = lambda chosen: int(chosen[torch.randint(len(chosen), (1,), generator=generator)])
    path, reader = [], graph.logits.start
    while True:
        writer = pick(graph.precedes[:, reader].nonzero()[:, 0])
        path.append((writer, reader))
        if writer == 0:
            return path
        reader = pick(graph.makes[:, writer].nonzero()[:, 0])
