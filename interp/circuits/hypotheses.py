"""Tests of what is claimed of a circuit: equivalence, independence, minimality, and against random circuits.

Shi et al. 2024 (arXiv:2410.13032). Independence by the kernel statistic of Gretton et al. 2007.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, labelled
from interp.circuits.ablations import ablated, averaged, stacked_circuits
from interp.circuits.masks import Exchange
from interp.circuits.selection import random_circuits, random_path
from interp.circuits.sets import OneMore
from interp.graph import Graph, Mask
from interp.metrics import Metric
from interp.model import Model, Prompts

_SHI = "arXiv:2410.13032"
TESTS = {
    "equivalence": "rejected if the circuit does better, or worse, than the model too often; held otherwise",
    "independence": "rejected if what is left without the circuit still depends on the model's answer; held otherwise",
    "minimality": "rejected if some edge matters less than most random edges added to the circuit; held otherwise",
    "sufficiency": "held if the circuit is nearer to the model than most random circuits of its size",
    "partial necessity": "held if without the circuit more is lost than without most random circuits of its size",
}


def hypothesis_tests(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    circuit: Mask,
    metric: Metric,
    epsilon: float = 0.1,
    quantile: float = 0.9,
    level: float = 0.05,
    draws: int = 100,
    seed: int = 0,
    ablation: str = "corrupt",
    budget: int | None = None,
    resamples: int = 4,
) -> xr.Dataset:
    """Five tests of a circuit, each with its p-value and its verdict; `TESTS` says how they are meant.

    The first three take the claim as their null and can only reject it, the more easily the more prompts there are: to
    hold with few prompts says little. The last two hold if their null is rejected.

    Args:
        circuit: By (writer, reader).
        epsilon: Equivalence: how far from a half the chance of doing better may be.
        quantile: What counts as most, in the last three.
        draws: Random circuits, random edges, and a tenth of the permutations.
        seed: Of all of these and of "resample".
        ablation, resamples: What ablated edges carry, see `evaluate`.

    Returns:
        By test: `p` (of minimality, the smallest over edges, times their number) and `holds`; by (writer, reader):
        `knocked_out`, the mean size of the change without an edge, and `edge_p`, whether it is less than random
        edges'; by draw: `random_edge`, `random_circuit`, `random_complement`, the sizes that these are held against. A
        check for each test.

    Raises:
        ValueError: Fewer than ten draws; an empty circuit, or one at positions; what `evaluate` raises.
    """
    if draws < 10:
        raise ValueError(f"a p-value needs at least ten draws; draws={draws} was given")
    if not (0 <= epsilon < 0.5 and 0 < quantile < 1 and 0 < level < 1):
        given = f"epsilon={epsilon}, quantile={quantile}, level={level}"
        raise ValueError(f"epsilon lies from 0 to below 1/2, quantile and level between 0 and 1, not {given}")
    exchanges = ablated(model, clean, corrupt, metric, ablation, resamples, seed)
    graph = exchanges[0].run.wiring.graph
    kept = stacked_circuits(graph, {"circuit": circuit}, 1)[0]
    if kept.ndim != 2 or not 0 < int(kept.sum()) < int(graph.precedes.sum()):
        raise ValueError(f"a circuit of some edges is tested, by (writer, reader); this has {int(kept.sum())} edges")
    runs = _Runs.of(exchanges, kept, draws, seed, budget)
    edge_p = _less_than_random(runs.knocked, runs.random_edge, quantile)
    p = {
        "equivalence": _equivalence(runs.circuit - runs.full, epsilon),
        "independence": _independence(runs.full, runs.complement, 10 * draws, seed),
        "minimality": min(1.0, float(edge_p.min()) * len(edge_p)),
        "sufficiency": _better(runs.random_circuit > _far(runs.circuit, runs.full), quantile),
        "partial necessity": _better(runs.random_complement < _far(runs.complement, runs.full), quantile),
    }
    holds = [value >= level if name in list(TESTS)[:3] else value < level for name, value in p.items()]
    checks = [
        Check(name, value, level, "pass" if held else "warn", TESTS[name], _SHI)
        for (name, value), held in zip(p.items(), holds)
    ]
    how: dict[str, Any] = {"method": "tests of a circuit", "metric": metric.name, "ablation": ablation}
    how |= {"epsilon": epsilon, "quantile": quantile, "draws": draws, "seed": seed, "edges": int(kept.sum())}
    how |= {"resamples": resamples} if ablation == "resample" else {}
    edges: dict[str, Any] = {"writer": graph.writers, "reader": graph.readers}
    parts = {
        "p": labelled(torch.tensor(list(p.values())), "p", {"test": list(p)}, model, checks, **how),
        "holds": labelled(torch.tensor(holds), "verdict", {"test": list(p)}, model, checks, **how),
        "knocked_out": labelled(_on_edges(kept, runs.knocked), metric.name, edges, model, **how),
        "edge_p": labelled(_on_edges(kept, edge_p), "p", edges, model, **how),
    }
    for name in ("random_edge", "random_circuit", "random_complement"):
        parts[name] = labelled(torch.tensor(getattr(runs, name)), metric.name, {"draw": range(draws)}, model, **how)
    return xr.Dataset(parts, attrs=parts["p"].attrs)


@dataclass(frozen=True)
class _Runs:
    """Metrics by prompt, and mean sizes of changes by edge or draw."""

    full: Float[np.ndarray, " prompt"]
    circuit: Float[np.ndarray, " prompt"]
    complement: Float[np.ndarray, " prompt"]
    knocked: Float[np.ndarray, " edge"]
    random_edge: Float[np.ndarray, " draw"]
    random_circuit: Float[np.ndarray, " draw"]
    random_complement: Float[np.ndarray, " draw"]

    @classmethod
    def of(cls, exchanges: list[Exchange], kept: Tensor, draws: int, seed: int, budget: int | None) -> "_Runs":
        graph = exchanges[0].run.wiring.graph
        there = graph.precedes.to(kept)
        edges = kept.nonzero(as_tuple=True)
        inflated, less = _inflated(graph, kept, draws, torch.Generator().manual_seed(seed))
        others = torch.stack(list(random_circuits(graph, int(kept.sum()), draws, seed, connected=True).values()))
        parts: list[Tensor | OneMore] = [
            torch.stack([there - kept, kept]), OneMore(there - kept, *edges),
            there - inflated, there - less, there - others, others,
        ]  # fmt: skip
        values = averaged(exchanges, parts, budget).double().cpu().numpy()
        full = exchanges[0].run.values.double().cpu().numpy()
        (circuit, complement), without, large, small, random, rest = np.split(
            values, np.cumsum([len(part) for part in parts])[:-1]
        )
        return cls(
            full, circuit, complement, _far(without, circuit), _far(small, large), _far(random, full),
            _far(rest, full),
        )  # fmt: skip


def _inflated(graph: Graph, kept: Tensor, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The circuit with a random path added, and the same without one of the edges that are new, (draw, ...)."""
    large, small = kept.repeat(draws, 1, 1), kept.repeat(draws, 1, 1)
    for i in range(draws):
        new: list[tuple[int, int]] = []
        while not new:
            new = [edge for edge in random_path(graph, generator) if not kept[edge]]
        writers, readers = zip(*new)
        large[i, writers, readers] = small[i, writers, readers] = 1
        small[i][new[int(torch.randint(len(new), (1,), generator=generator))]] = 0
    return large, small


def _far(one: Float[np.ndarray, "*set prompt"], other: Float[np.ndarray, "*#set prompt"]) -> np.ndarray:
    return np.asarray(abs(one - other).mean(-1))


def _equivalence(difference: Float[np.ndarray, " prompt"], epsilon: float) -> float:
    """The chance of so uneven a count, if the circuit does better with a chance of a half plus epsilon; ties even."""
    from scipy.stats import binom

    n = len(difference)
    size = 1e-6 * max(1e-12, float(abs(difference).max()))
    wins, losses = int((difference > size).sum()), int((difference < -size).sum())
    off = abs(wins - losses) / 2  # from a half of n
    counts = np.arange(n + 1)
    return float(binom.pmf(counts[abs(counts - n / 2) >= off - 1e-9], n, 0.5 + epsilon).sum())


def _independence(
    one: Float[np.ndarray, " prompt"], other: Float[np.ndarray, " prompt"], permutations: int, seed: int
) -> float:
    """A permutation test by the Hilbert-Schmidt criterion, with Gaussian kernels of the median distance."""
    first, second = _kernel(one), _kernel(other)
    rng = np.random.default_rng(seed)
    observed = (first * second).sum()
    orders = [rng.permutation(len(one)) for _ in range(permutations)]
    null = np.array([(first * second[np.ix_(order, order)]).sum() for order in orders])
    return float((1 + (null >= observed * (1 - 1e-9)).sum()) / (1 + permutations))


def _kernel(values: Float[np.ndarray, " prompt"]) -> Float[np.ndarray, "prompt prompt"]:
    distances = abs(values[:, None] - values)
    width = float(np.median(distances[~np.eye(len(values), dtype=bool)])) if len(values) > 1 else 0.0
    kernel = np.exp(-(distances**2) / (2 * width**2)) if width > 0 else np.ones_like(distances)
    return kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()


def _less_than_random(
    edges: Float[np.ndarray, " edge"], null: Float[np.ndarray, " draw"], quantile: float
) -> Float[np.ndarray, " edge"]:
    """For each edge, the chance of beating so few random ones, if it beats a quantile of them."""
    from scipy.stats import binom

    return np.asarray(binom.cdf((edges[:, None] > null).sum(1), len(null), quantile))


def _better(beaten: np.ndarray, quantile: float) -> float:
    """The chance of beating so many random circuits, if just a quantile of them is beaten."""
    from scipy.stats import binom

    return float(binom.sf(int(beaten.sum()) - 1, len(beaten), quantile))


def _on_edges(kept: Tensor, values: Float[np.ndarray, " edge"]) -> Float[Tensor, "writer reader"]:
    found = torch.full(kept.shape, torch.nan)
    found[kept.nonzero(as_tuple=True)] = torch.from_numpy(values).to(found)
    return found
