"""Path patching: what does a sender say to a receiver, directly or through what is left free between them?

Wang et al. 2022 (arXiv:2211.00593), Goldowsky-Dill et al. 2023 (arXiv:2304.05969). The prompts are run with a sender's
output exchanged and everything frozen but the receivers and what is free; what the receivers read in that run is put
into a second one, in which all else is free.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import labelled
from interp.circuits.masks import Exchange, Masked
from interp.circuits.pair import Pair
from interp.graph import Graph
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.progress import Progress, bar


def path_patch(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    receivers: Sequence[str] | str,
    metric: Metric,
    senders: Mapping[str, Sequence[str] | str] | None = None,
    free: Sequence[str] | str = (),
    direction: str = "noising",
    budget: int | None = None,
    progress: Progress = None,
) -> xr.DataArray:
    """How the metric changes when receivers hear what senders say in the other run.

    Args:
        receivers: Names of readers, or patterns: "logits"; "L3H1.q" or "L3H*.v"; "mlp2".
        senders: Sets of writers, names or patterns, each tried alone; by default every head and MLP that comes before
            some receiver, by its own name.
        free: Writers between them that hear the senders too, and pass on what they make of it; the others are frozen.
            None leaves the edges from the senders to the receivers; ("mlp*",) is the choice of Wang et al. for heads.
        direction: "noising" (theirs) puts what is said in the corrupt run into the clean one; "denoising" the reverse.
        budget: As for `patch_edges`.

    Returns:
        The change in the metric by (sender, prompt). For one receiver, with nothing free, it is what
        `patch_edges` gives in the same direction; several are all given what they read in the first run, whatever the
        ones below them make of it.

    Raises:
        ValueError: Names that match nothing; "logits" along with other receivers, of which they would hear nothing; a
            sender that comes after all receivers; what `patch_edges` raises.
    """
    pair = Pair.of(model, clean, corrupt, direction)
    graph, exchange = pair.wiring.graph, pair.exchange(metric)
    into = _matching(graph.readers, receivers, "receivers")
    if len(into) > 1 and graph.logits.start in into:
        raise ValueError(
            "the logits hear everything, so that as a receiver they stand alone; try the others in a second call"
        )
    sets = _senders(graph, senders, into)
    if not sets:
        raise ValueError("no sender comes before the receivers; give some, such as {'embed': 'embed'}")
    passing = _matching(graph.writers, free, "free writers") if free else []
    both = Exchange(exchange.run, torch.cat([exchange.others, exchange.run.written[None]]), exchange.start)
    masks = torch.stack([_first_run(graph, sending, passing) for sending in sets.values()])
    values, passes = [], 0
    with bar(len(masks), "senders", progress) as advance:
        for some in masks.split(both.most(budget)):
            values.append(_heard(both, some, into) - exchange.run.values)
            metric.check_numbers(values[-1])
            passes += 1 + (graph.logits.start not in into)
            advance(len(some))
    coords = {"sender": list(sets), "prompt": range(len(pair.this))}
    how: dict[str, Any] = {"method": "path patching", "receivers": [graph.readers[i] for i in into], "passes": passes}
    how |= {"free": [free] if isinstance(free, str) else list(free), "direction": direction, "metric": metric.name}
    return labelled(torch.cat(values), f"change in {metric.name}", coords, model, **how)


@torch.no_grad()
def _heard(both: Exchange, masks: Tensor, receivers: Sequence[int]) -> Float[Tensor, "set prompt"]:
    """The metric where receivers read what they read in the first run."""
    run, masks = both.run, masks.to(both.others)
    first = Masked(both, masks, keep=receivers)
    values = run.again(first, len(masks), start=both.start)
    if run.wiring.graph.logits.start in receivers:
        return values
    second = Masked(both, torch.zeros_like(masks), given=first.kept)
    return run.again(second, len(masks), start=both.start)


def _first_run(graph: Graph, senders: Sequence[int], free: Sequence[int]) -> Float[Tensor, "source writer reader"]:
    """Senders say what they say in the other run, those that are free what they will, the rest what they said."""
    other, same = torch.zeros(len(graph.writers)), torch.ones(len(graph.writers))
    other[list(senders)] = 1
    same[[*senders, *free]] = 0
    return torch.stack([other, same])[:, :, None] * graph.precedes


def _senders(
    graph: Graph, senders: Mapping[str, Sequence[str] | str] | None, receivers: Sequence[int]
) -> dict[str, list]:
    before = graph.precedes[:, list(receivers)].any(1)
    if senders is None:
        return {name: [i] for i, name in enumerate(graph.writers) if i and before[i]}
    found = {name: _matching(graph.writers, patterns, "senders") for name, patterns in senders.items()}
    for name, numbers in found.items():
        if not before[numbers].any():
            raise ValueError(f"sender {name!r} comes after all receivers; senders are earlier writers")
    return found


def _matching(names: Sequence[str], patterns: Sequence[str] | str, what: str) -> list[int]:
    """The numbers of names that match some pattern, every one of which must match one."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"no name of {what} matches {pattern!r}; they are {names[0]}, {names[1]}, … {names[-1]}")
    if not patterns:
        raise ValueError(f"no {what} were given; they are {names[0]}, {names[1]}, … {names[-1]}")
    return [i for i, name in enumerate(names) if any(fnmatchcase(name, pattern) for pattern in patterns)]
