"""Is a circuit complete, and is every edge of it needed? The criteria of Wang et al. 2022 (arXiv:2211.00593)."""

from collections.abc import Mapping
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from interp.arrays import Check, labelled
from interp.circuits.ablations import ablated, averaged, stacked_circuits
from interp.circuits.sets import OneMore
from interp.graph import Mask, by_name
from interp.metrics import Metric
from interp.model import Model, Prompts

_IOI = "arXiv:2211.00593"


def completeness(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    circuit: Mask,
    metric: Metric,
    sets: Mapping[str, Mask] | Mask | None = None,
    draws: int = 20,
    seed: int = 0,
    ablation: str = "corrupt",
    budget: int | None = None,
    resamples: int = 4,
) -> xr.Dataset:
    """Do the circuit and the model lose the same when the same part of the circuit is taken from both?

    A circuit that lacks a part, such as a backup, may be as good as the model and yet lose more than it.

    Args:
        sets: Edges of the circuit to take away, by name; by default none, all, and random sets of random sizes.
        draws: How many random sets.
        seed: Of the random sets and of "resample".
        ablation, resamples: What ablated edges carry, see `evaluate`.

    Returns:
        `circuit` and `model`, the metric of each without the set, by (set, prompt). The check is the largest
        difference of their means, as a share of the model's gap to the empty circuit.

    Raises:
        ValueError: A set with edges outside the circuit; what `evaluate` raises.
    """
    exchanges = ablated(model, clean, corrupt, metric, ablation, resamples, seed)
    run, graph = exchanges[0].run, exchanges[0].run.wiring.graph
    whole = stacked_circuits(graph, {"circuit": circuit}, run.tokens.ids.shape[1])[0]
    taken = _random_sets(whole, draws, seed) if sets is None else by_name(sets)
    away = stacked_circuits(graph, taken, run.tokens.ids.shape[1])
    if bool((away > whole).any()):
        worst = next(name for name, mask in zip(taken, away) if bool((mask > whole).any()))
        raise ValueError(
            f"the set {worst!r} has edges that the circuit lacks; only edges of the circuit are taken away"
        )
    there = graph.precedes.to(whole).expand_as(whole)
    values = averaged(exchanges, [torch.cat([there[None], there - whole + away, away])], budget)
    empty, ours, theirs = values[0], values[1 : 1 + len(away)], values[1 + len(away) :]
    gap = float((run.values - empty).mean().abs())
    error = float((ours - theirs).mean(-1).abs().max()) / max(gap, 1e-9)
    why = "a complete circuit loses what the model loses when the same edges are taken from both"
    check = Check.at_most("incompleteness", error, 0.2, why, _IOI)
    coords: dict[str, Any] = {"set": list(taken), "prompt": range(len(run.tokens))}
    how: dict[str, Any] = {"method": "completeness", "metric": metric.name, "ablation": ablation, "seed": seed}
    how |= {"resamples": resamples} if ablation == "resample" else {}
    parts = {
        "circuit": labelled(ours, metric.name, coords, model, [check], **how),
        "model": labelled(theirs, metric.name, coords, model, [check], **how),
    }
    return xr.Dataset(parts, attrs=parts["circuit"].attrs)


def minimality(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    circuit: Mask,
    metric: Metric,
    ablation: str = "corrupt",
    seed: int = 0,
    budget: int | None = None,
    resamples: int = 4,
) -> xr.DataArray:
    """What the circuit loses without each of its edges.

    Edges that stand in for each other lose nothing alone: `hypothesis_tests` and `completeness` see more.

    Args:
        circuit: By (writer, reader).
        ablation, resamples, seed: As for `evaluate`.

    Returns:
        The change in the circuit's metric by (prompt, writer, reader), NaN outside the circuit. The check is the share
        of edges without which the metric changes by less than a hundredth of what the circuit has gained.

    Raises:
        ValueError: An empty circuit, or one at positions; what `evaluate` raises.
    """
    exchanges = ablated(model, clean, corrupt, metric, ablation, resamples, seed)
    run, graph = exchanges[0].run, exchanges[0].run.wiring.graph
    whole = stacked_circuits(graph, {"circuit": circuit}, run.tokens.ids.shape[1])[0]
    if whole.ndim != 2 or not bool(whole.any()):
        raise ValueError(
            f"edges of a circuit by (writer, reader) are tried; {int(whole.sum())} of {tuple(whole.shape)}"
        )
    writers, readers = whole.nonzero(as_tuple=True)
    removed = graph.precedes.to(whole) - whole
    ends = torch.stack([removed, graph.precedes.to(removed)])
    values = averaged(exchanges, [ends, OneMore(removed, writers, readers)], budget)
    changes = values.new_full((len(run.tokens), *whole.shape), torch.nan)
    changes[:, writers, readers] = (values[2:] - values[0]).T
    least = 0.01 * float((values[0] - values[1]).mean().abs())
    idle = float(((values[2:] - values[0]).mean(-1).abs() < least).float().mean())
    why = "edges without which a circuit loses less than a hundredth of what it has gained are not needed by themselves"
    check = Check.at_most("edges not needed alone", idle, 0.1, why, _IOI)
    coords: dict[str, Any] = {"prompt": range(len(run.tokens)), "writer": graph.writers, "reader": graph.readers}
    how: dict[str, Any] = {"method": "minimality", "metric": metric.name, "ablation": ablation, "seed": seed}
    how |= {"direction": "noising"}  # what is taken away was there, so edges that help have changes below zero
    how |= {"resamples": resamples} if ablation == "resample" else {}
    return labelled(changes, f"change in {metric.name}", coords, model, [check], **how)


def _random_sets(whole: Tensor, draws: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = {"nothing": torch.zeros_like(whole), "everything": whole}
    for i in range(draws):
        share = torch.rand((), generator=generator)
        found[f"random {i}"] = whole * (torch.rand(whole.shape, generator=generator) < share)
    return found
