"""Patchscopes: put a hidden state of one prompt into another prompt, and see what the model makes of it there.

Ghandeharioun et al. 2024 (arXiv:2401.06102). A target prompt has an answer of its own, and any vector that is put into
it does something; so each number stands beside the unpatched prompt, other prompts' vectors and random ones.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, labelled
from interp.edits import put
from interp.generation import generate
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.progress import Progress
from interp.resampling import FEWEST_NULLS
from interp.sites import Site
from interp.sweep import sweep
from interp.traces import Tokens

Taken = Mapping[Site, Float[Tensor, "prompt d_model"]]
Mapped = Callable[[Float[Tensor, "prompt d_model"], Site, Site], Float[Tensor, "prompt d_model"]]


@torch.no_grad()
def patchscope(
    model: Model,
    source: Prompts,
    target: Prompts,
    metric: Metric,
    source_sites: Sequence[Site] | None = None,
    target_sites: Sequence[Site] | None = None,
    source_at: int | str = -1,
    target_at: int | str = -1,
    mapping: Mapped | None = None,
    randoms: int = 3,
    seed: int = 0,
    progress: Progress = None,
) -> xr.DataArray:
    """A metric of the target prompts with a hidden state of the source prompts put into them, for each pair of layers.

    Args:
        target: One for each source prompt, or one for all.
        metric: Of the patched target prompts, such as `metrics.log_odds` of what the source should be read as.
        source_sites, target_sites: Where vectors are taken, and put; by default what leaves each block.
        source_at, target_at: At which position: an index, or a role.
        mapping: Makes vectors of one site into vectors of another; by default they stay as they are.
        randoms: How many random vectors, of the norm of each prompt's own, to compare with.
        progress: See `sweep`.

    Returns:
        The metric by (vector, source, target, prompt); vectors are "patched", "other prompt" (the next one's, if there
        are several) and "random 0", "random 1", ... The coordinate `unpatched`, by (prompt), is the metric of the
        target alone: subtract it for effects. Check: the best pair of layers moves the metric further than the best of
        any control.

    Raises:
        ValueError: Numbers of prompts that do not match; a mapping to another shape.
    """
    sources, targets = _paired(model, source, target)
    outs, ins = (list(sites) if sites else model.sites("resid_post") for sites in (source_sites, target_sites))
    trace = model.run(sources, read=outs, last_only=True)
    taken = {site: trace.at(site, source_at) for site in outs}
    generator = torch.Generator().manual_seed(seed)
    kinds = _vectors(taken, randoms, generator)
    cells = [
        [put(there, _mapped(mapping, vectors[here], here, there), pos=target_at)]
        for vectors in kinds.values()
        for here in outs
        for there in ins
    ]
    swept = sweep(model, targets, [[], *cells], [metric], progress=progress)
    values = swept.values[0]
    unpatched, patched = values[0], values[1:].view(len(kinds), len(outs), len(ins), -1)
    coords: dict[str, Sequence[Any]] = {"vector": list(kinds), "source": list(map(str, outs))}
    coords |= {"target": list(map(str, ins)), "prompt": range(len(targets))}
    how = {"method": "patchscope", "metric": metric.name, "source_at": source_at, "target_at": target_at, "seed": seed}
    check = _beats_controls(patched - unpatched, list(kinds))
    array = labelled(patched, metric.name, coords, model, [check], **how, **swept.how)
    return array.assign_coords(unpatched=("prompt", unpatched.tolist()))


@torch.no_grad()
def inspect(
    model: Model,
    source: Prompts,
    target: Prompts,
    source_site: Site,
    target_site: Site,
    source_at: int | str = -1,
    target_at: int | str = -1,
    n_tokens: int = 5,
) -> list[str]:
    """What the model writes after each target prompt with a hidden state of the source prompt put into it (greedily).

    Args:
        target: One for each source prompt, or one for all.

    Raises:
        ValueError: Numbers of prompts that do not match; what `generate` raises.
    """
    sources, targets = _paired(model, source, target)
    vectors = model.run(sources, read=[source_site], last_only=True).at(source_site, source_at)
    # The prompt grows while it is written, so that a place counted from its end would move.
    at = target_at if isinstance(target_at, str) else target_at % targets.ids.shape[1]
    return generate(model, targets, n_tokens, [put(target_site, vectors, pos=at)])


def _paired(model: Model, source: Prompts, target: Prompts) -> tuple[Tokens, Tokens]:
    sources, targets = model.tokens(source), model.tokens(target)
    if len(targets) == 1:
        targets = targets.rows([0] * len(sources))
    if len(sources) != len(targets):
        raise ValueError(
            f"{len(sources)} source and {len(targets)} target prompts were given; give a target for each, or one for "
            "all"
        )
    return sources, targets


def _vectors(
    taken: Mapping[Site, Tensor], randoms: int, generator: torch.Generator
) -> dict[str, Mapping[Site, Tensor]]:
    """What is put into the targets, by name and source site."""
    kinds: dict[str, Mapping[Site, Tensor]] = {"patched": taken}
    if len(next(iter(taken.values()))) > 1:
        kinds["other prompt"] = {site: vectors.roll(-1, 0) for site, vectors in taken.items()}
    for i in range(randoms):
        kinds[f"random {i}"] = {site: _like(vectors, generator) for site, vectors in taken.items()}
    return kinds


def _like(vectors: Float[Tensor, "prompt d_model"], generator: torch.Generator) -> Float[Tensor, "prompt d_model"]:
    """Random vectors of the same norms."""
    noise = torch.randn(vectors.shape, generator=generator).to(vectors)
    return noise / noise.norm(dim=-1, keepdim=True) * vectors.norm(dim=-1, keepdim=True)


def _mapped(mapping: Mapped | None, vectors: Tensor, here: Site, there: Site) -> Tensor:
    made = vectors if mapping is None else mapping(vectors, here, there)
    if made.shape != vectors.shape:
        raise ValueError(f"the mapping made {tuple(made.shape)} out of {tuple(vectors.shape)}; it keeps the shape")
    return made


def _beats_controls(effects: Float[Tensor, "vector source target prompt"], names: Sequence[str]) -> Check:
    name, paper = "best pair over the best control", "arXiv:2401.06102"
    best = effects.mean(-1).flatten(1).max(1).values
    why = "the best pair of layers must move the metric further than the best pair does with other vectors"
    if len(best) == 1:
        return Check(name, float("nan"), 0.0, "skipped", why, paper)
    control = int(best[1:].argmax()) + 1
    margin = float(best[0] - best[control])
    said = f"{why}; the furthest control is {names[control]}; it takes {FEWEST_NULLS} controls for a chance below 0.05"
    status = "skipped" if len(best) <= FEWEST_NULLS else "pass" if margin > 0 else "warn"
    return Check(name, margin, 0.0, status, said, paper)
