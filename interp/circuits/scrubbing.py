"""Causal scrubbing: does behaviour survive if edges carry what other prompts, alike by hypothesis, make them carry?

Chan et al. 2022, "Causal scrubbing: a method for rigorously testing interpretability hypotheses". A hypothesis says of
each edge what it carries; then any prompt that agrees in that may stand in for it there. Here a donor's value is that
of its own whole run: the donor's inputs are not scrubbed in turn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import listed, names_of
from interp.arrays import labelled
from interp.backends.readers import wiring_of
from interp.circuits.masks import Exchange
from interp.circuits.runs import Run
from interp.donors import donors
from interp.graph import Edge, Graph
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.traces import Tokens

Labels = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Rule:
    """What some edges carry, by hypothesis.

    Attributes:
        edges: Pairs of a writer and a reader, or patterns, as for `Graph.mask`.
        carry: The names of the labels that they tell apart, and nothing else: a prompt that agrees in all of these may
            stand in. None of them: any prompt. `None`: everything, so that they are left alone.
    """

    edges: Sequence[Edge]
    carry: str | Sequence[str] | None = ()


def scrub(
    model: Model,
    prompts: Prompts,
    labels: Labels,
    hypotheses: Mapping[str, Rule | Sequence[Rule]],
    metric: Metric,
    draws: int = 8,
    seed: int = 0,
) -> xr.Dataset:
    """The metric when every edge carries what it carries in another prompt that the hypothesis says is alike.

    Args:
        prompts: Donors come from among them, and are of the same length.
        labels: What is known of each prompt, by name.
        hypotheses: Rules by name, all tried on the same prompts. For an edge the first rule with it counts; edges of no
            rule carry nothing, and are resampled from any prompt. Each rule draws donors of its own.
        draws, seed: Of the donors.

    Returns:
        `metric` by (hypothesis, prompt), averaged over draws; `full`, the model's own, and `empty`, with every edge
        resampled from any prompt, by prompt: `faithfulness` makes a share of them.

    Raises:
        ValueError: No hypothesis; labels that there are not, or of another number of prompts; a prompt that no other is
            like; what `circuits.graph` raises.
    """
    example = "{'mine': [Rule([('*', 'logits')], None)]}"
    if not isinstance(hypotheses, Mapping):
        raise TypeError(f"hypotheses are rules by name, such as {example}, not {type(hypotheses).__name__}")
    if not hypotheses:
        raise ValueError(f"no hypothesis was given; give rules by name, such as {example}")
    named = {name: listed(rules, Rule, f"rules by name, such as {example}") for name, rules in hypotheses.items()}
    wiring = wiring_of(model)
    tokens = model.tokens(prompts)
    run = Run.of(wiring, tokens, metric)
    sources, masks = _masks(wiring.graph, [*named.values(), []])
    rows = [donors(*_keys(tokens, labels, names), draws, seed + i, _named(names)) for i, names in enumerate(sources)]
    values = torch.stack([_scrubbed(run, [row[i] for row in rows], masks) for i in range(draws)]).mean(0)
    metric.check_numbers(values)
    coords: dict[str, Any] = {"hypothesis": list(hypotheses), "prompt": range(len(tokens))}
    how: dict[str, Any] = {"method": "causal scrubbing", "metric": metric.name, "draws": draws, "seed": seed}
    prompts_only = {"prompt": coords["prompt"]}
    parts = {
        "metric": labelled(values[:-1], metric.name, coords, model, **how),
        "full": labelled(run.values, metric.name, prompts_only, model, **how),
        "empty": labelled(values[-1], metric.name, prompts_only, model, **how),
    }
    return xr.Dataset(parts, attrs=parts["metric"].attrs)


def _masks(
    graph: Graph, hypotheses: Sequence[Sequence[Rule]]
) -> tuple[list[Sequence[str]], Float[Tensor, "hypothesis source writer reader"]]:
    """What donors have in common with a prompt, by source, and which edges of a hypothesis each serves."""
    sources: list[Sequence[str]] = [()]
    parts: list[tuple[int, int, Tensor]] = []
    for i, rules in enumerate(hypotheses):
        left = graph.mask()
        for rule in rules:
            mask = graph.mask(rule.edges) * left
            left = left - mask
            if rule.carry is not None:
                sources.append(list(names_of(rule.carry)))
                parts.append((i, len(sources) - 1, mask))
        parts.append((i, 0, left))
    masks = torch.zeros(len(hypotheses), len(sources), *graph.precedes.shape)
    for i, source, mask in parts:
        masks[i, source] = mask
    return sources, masks


def _keys(tokens: Tokens, labels: Labels, names: Sequence[str]) -> tuple[list[tuple], None]:
    """What a prompt's donor has in common with it: its length, and labels; donors are of the prompts themselves."""
    for name in names:
        if name not in labels:
            raise ValueError(f"these prompts have no label {name!r}; their labels: {', '.join(labels) or 'none'}")
        if len(labels[name]) != len(tokens):
            raise ValueError(f"the label {name!r} is of {len(labels[name])} prompts, but {len(tokens)} were given")
    return list(zip(tokens.mask.sum(1).tolist(), *(labels[name] for name in names))), None


def _named(names: Sequence[str]) -> Any:
    return lambda key: f" of {key[0]} tokens" + "".join(f", {name} {value!r}" for name, value in zip(names, key[1:]))


@torch.no_grad()
def _scrubbed(
    run: Run, rows: Sequence[Int[Tensor, " prompt"]], masks: Float[Tensor, "hypothesis source writer reader"]
) -> Float[Tensor, "hypothesis prompt"]:
    others = torch.stack([run.written[row.to(run.written.device)] for row in rows])
    exchange = Exchange(run, others)
    return torch.cat([exchange.mixed(some) for some in masks.split(exchange.most())])
