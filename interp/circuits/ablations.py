"""What edges outside a circuit carry instead: another prompt's, a mean, or nothing."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.backends.readers import wiring_of
from interp.circuits.masks import Exchange
from interp.circuits.runs import Run, Writers, written
from interp.circuits.sets import OneMore, stacked
from interp.donors import donors
from interp.graph import Graph, Mask
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.precision import widened
from interp.traces import Tokens, check_aligned

ABLATIONS = ("corrupt", "mean", "zero", "resample")


def ablated(
    model: Model, clean: Prompts, corrupt: Prompts, metric: Metric, ablation: str, resamples: int = 4, seed: int = 0
) -> list[Exchange]:
    """The clean run, with what its edges carry when they are ablated; several times where that is drawn at random.

    Args:
        ablation: "corrupt", what each prompt's own corrupt one writes; "mean", the mean over the corrupt prompts at
            each position; "resample", what another of the corrupt prompts writes, one of the same length; "zero".
        resamples, seed: Of "resample": how often others are drawn, and which.

    Raises:
        ValueError: An unknown ablation; prompts that do not match position by position; what `wiring_of` and, for
            "resample", `donors` raise.
    """
    if ablation not in ABLATIONS:
        raise ValueError(f"unknown ablation {ablation!r}; choose from {', '.join(ABLATIONS)}")
    wiring = wiring_of(model)
    tokens, others = model.tokens(clean), model.tokens(corrupt)
    if ablation in ("corrupt", "resample"):
        check_aligned(tokens, others)
    run = Run.of(wiring, tokens, metric)
    if ablation == "zero":
        return [Exchange(run, torch.zeros_like(run.written)[None])]
    found = written(wiring, others, metric)[0].tensor()
    if ablation == "mean":
        return [Exchange(run, _mean(found, tokens, others)[None])]
    start = first_difference(tokens, others)
    if ablation == "corrupt":
        return [Exchange(run, found[None], start)]
    lengths = others.mask.sum(1).tolist()
    rows = donors(lengths, None, resamples, seed, lambda length: f" of {length} tokens").to(found.device)
    return [Exchange(run, found[row][None], _common(tokens, others)) for row in rows]


def stacked_circuits(graph: Graph, circuits: Mapping[str, Mask], n_pos: int) -> Float[Tensor, "set *pos writer reader"]:
    """Circuits as one tensor, once they are seen to fit.

    Raises:
        ValueError: Sets that do not fit; one that holds less than 0 or more than 1, such as scores.
    """
    masks = stacked(graph, circuits, n_pos)
    for name, mask in zip(circuits, masks):
        if bool(((mask < 0) | (mask > 1)).any()):
            raise ValueError(
                f"a circuit is 1 on its edges and 0 elsewhere; {name!r} goes from {float(mask.min()):.3g} to "
                f"{float(mask.max()):.3g}; select(graph, scores, 0.1) makes one of scores"
            )
    return masks


def averaged(exchanges: Sequence[Exchange], sets: Sequence[Tensor | OneMore], budget: int | None) -> Tensor:
    """The metric under each mask, (set, prompt), the mean over what ablated edges may carry."""
    size = exchanges[0].most(budget)
    with torch.no_grad():
        values = [
            torch.cat([exchange.values(some) for masks in sets for some in masks.split(size)]) for exchange in exchanges
        ]
    found = torch.stack(values).mean(0)
    exchanges[0].run.metric.check_numbers(found)
    return found


def first_difference(one: Tokens, other: Tokens) -> int:
    """The first position at which aligned prompts differ: before it, both runs of a causal model write the same."""
    return _first(one.ids != other.ids)


def _common(tokens: Tokens, others: Tokens) -> int:
    """The first position at which not all prompts have the same token."""
    ids = torch.cat([some.ids.masked_fill(some.mask == 0, -1) for some in (tokens, others)])
    return _first(ids != ids[0])


def _first(differs: Bool[Tensor, "row pos"]) -> int:
    where = differs.any(0)
    return int(where.int().argmax()) if bool(where.any()) else len(where) - 1


def _mean(found: Writers, tokens: Tokens, others: Tokens) -> Writers:
    """What writers add on average at each position, over the prompts that have a token there."""
    if tokens.ids.shape[1] != others.ids.shape[1]:
        widths = f"{tokens.ids.shape[1]} and {others.ids.shape[1]}"
        raise ValueError(f"a mean at each position needs clean and corrupt prompts of one length, not {widths} tokens")
    counts = others.mask.sum(0)
    if bare := (tokens.mask.bool().any(0) & (counts == 0)).nonzero().flatten().tolist():
        raise ValueError(
            f"no corrupt prompt has a token at positions {bare}, so that there is no mean; take longer ones"
        )
    weights = widened(others.mask.to(found)) / counts.clamp(min=1)
    weights = weights.to(found)
    return torch.einsum("nspd,np->spd", found, weights).expand_as(found)
