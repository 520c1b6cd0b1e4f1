"""What a vector is made of: tokens that it writes, parts that write along it, parts that read it.

Everything is measured on the model as it is, so that it holds for every family and backend.
"""

from collections.abc import Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arguments import count_of
from interp.arrays import Check, labelled
from interp.components import output_matrices, split_heads
from interp.edits import Edit, copy
from interp.graph import head_name, site_name
from interp.model import Model, Prompts
from interp.sites import Site
from interp.steering.concept import Concept, concept_of
from interp.steering.nulls import random_like
from interp.steering.vector import Vector
from interp.tasks import Labelled
from interp.traces import Tokens, Trace

_READ = ("q", "k", "v", "mlp_pre")
_ON_STREAM = frozenset({"embed", "resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post", "resid_final"})


@torch.no_grad()
def top_tokens(model: Model, vector: Vector, n: int = 10) -> xr.DataArray:
    """The tokens whose logits the writer raises and lowers most, were it added to the last stream.

    It is added to a stream of nothing, of which the final norm leaves the direction alone: prompts and doses do not
    matter.

    Returns:
        Change of the logit in standard deviations over the vocabulary, by (direction, rank), with the tokens as a
        coordinate. A vector of an early layer acts through later ones too, which this does not show.

    Raises:
        ValueError: A vector that is not added to the stream, or is another model's; more tokens than there are.
    """
    # As long as what the final norm makes of anything: a small step would drown in biases where precision is half.
    step = (_of_stream(model, vector) * len(vector.writer) ** 0.5).to(model.device, model.dtype)
    rows = model.unembed(torch.stack([step, -step])).float()
    if count_of("n", n) > rows.shape[-1]:
        raise ValueError(f"n is a number of tokens from 1 to {rows.shape[-1]}, not {n}")
    if (cap := model.logit_cap) is not None:
        rows = cap * (rows / cap).clamp(-0.999, 0.999).atanh()
    change = rows[0] - rows[1]
    change = (change - change.mean()) / change.std()
    ends = [change.topk(n), (-change).topk(n)]
    words = [model.words(end.indices.tolist()) for end in ends]
    values = torch.stack([ends[0].values, -ends[1].values])
    coords: dict[str, Sequence[Any]] = {"direction": ["up", "down"], "rank": range(n)}
    array = labelled(
        values, "change of the logit", coords, model, method="tokens that a vector writes", **_named(vector)
    )
    return array.assign_coords(token=(("direction", "rank"), words))


@torch.no_grad()
def writers(model: Model, concept: Concept | Labelled, vector: Vector) -> xr.DataArray:
    """What each part below the site adds to the gap between the two classes, along the writer's direction.

    Returns:
        Mean of the positive prompts less that of the negative ones by component: what enters the first block (`embed`),
        heads (`L0H3`) where they can be told apart, else `attn0`, biases that heads share (`attn_bias0`), and MLPs
        (`mlp0`); as shares of the gap. A check says whether they add up to it.

    Raises:
        ValueError: A vector of a site that is no sum of parts.
    """
    concept, unit, below = concept_of(concept), _of_stream(model, vector), _below(model, vector.site)
    matrices = output_matrices(model)
    means: list[dict[str, Tensor]] = []
    for tokens in (concept.positive, concept.negative):
        heads = [Site("z", s.layer) for s in below if matrices and s.kind == "attn_out"]
        trace = model.run(tokens, read={*below, *heads, vector.site}, last_only=True)
        means.append({name: part.double().mean(0) for name, part in _parts(trace, below, matrices, vector).items()})
    along = {name: float((means[0][name] - means[1][name]) @ unit.to(means[0][name])) for name in means[0]}
    gap = along.pop("the site")
    shares = torch.tensor(list(along.values()), dtype=torch.float64) / gap
    coords: dict[str, Sequence[Any]] = {"component": list(along)}
    error = abs(float(shares.sum()) - 1)
    why = "what the parts write adds up to the gap at the site"
    check = Check.at_most("shares add up", error, 1e-3, why, otherwise="fail")
    return labelled(
        shares, "share of the gap", coords, model, [check], method="parts that write a vector", **_named(vector)
    )


def _below(model: Model, site: Site) -> list[Site]:
    """The sites whose sum is a place of the stream."""
    if site.kind not in ("resid_pre", "resid_mid", "resid_post", "resid_final"):
        raise ValueError(f"{site} is not the sum of what parts below it write; extract the vector from resid_post")
    added = sorted(model.sites("attn_out", "mlp_out"), key=lambda s: s.order)
    return [Site("resid_pre", 0), *(s for s in added if s.order < site.order)]


def _parts(trace: Trace, below: Sequence[Site], matrices: Any, vector: Vector) -> dict[str, Tensor]:
    """What each part writes at the vector's position, (prompt, d_model) by name; and what the site holds."""
    found = {"the site": trace.at(vector.site, vector.at)}
    for site in below:
        if site.kind == "attn_out" and matrices:
            assert site.layer is not None
            found |= split_heads(trace, site.layer, vector.at, matrices[site.layer])
        else:
            found[site_name(site)] = trace.at(site, vector.at)
    return found


@torch.no_grad()
def readers(
    model: Model, prompts: Prompts, vector: Vector, at: int | str = -1, randoms: int = 20, seed: int = 0
) -> xr.DataArray:
    """Which parts above the site read the vector: how much more its writer moves their input than a random direction.

    The writer is added to the stream before each block, one block at a time with all others held, so that what a part
    shows is its own reading and not that of the parts before it.

    Args:
        at: Where to add it and look.

    Returns:
        By (component, prompt), of queries, keys and values of each head (`L1H0.q`) and of each MLP (`mlp1`): the
        length of the change over the mean length under random directions of the same length. 1 is no special reading.
        The attribute "not read" names the kinds of site that the model does not have here.
    """
    tokens = model.tokens(prompts)
    unit = _of_stream(model, vector)
    start = 0 if vector.site.layer is None else vector.site.layer + (vector.site.kind == "resid_post")
    layers = range(start, model.shape.n_layers)
    if not layers:
        raise ValueError(f"nothing is above {vector.site} that could read it; {model.name} ends there")
    kinds = [kind for kind in _READ if kind in model.editable]
    read = model.sites(*kinds, layers=layers)
    held = [*model.sites("resid_pre", "attn_out", layers=layers), *model.sites("resid_post", layers=layers)]
    base = model.run(tokens, read=[*read, *held], last_only=True)
    steps = [unit * vector.writer.norm().to(unit), *(v[0].writer for v in random_like(vector, randoms, seed))]
    moved = torch.stack([_moved(model, tokens, base, read, step, layers, at) for step in steps])
    ratio = moved[0] / moved[1:].mean(0).clamp(min=1e-12)
    names = _names(base, read, model.shape.n_heads)
    coords: dict[str, Sequence[Any]] = {"component": names, "prompt": range(len(tokens))}
    how: dict[str, Any] = {"method": "parts that read a vector", "randoms": randoms, "seed": seed} | _named(vector)
    how["not read"] = ", ".join(kind for kind in _READ if kind not in kinds)
    return labelled(ratio, "change over that of random directions", coords, model, **how)


def _moved(
    model: Model, tokens: Tokens, base: Trace, read: Sequence[Site], step: Tensor, layers: range, at: int | str
) -> Float[Tensor, "component prompt"]:
    """How far each part's reading moves when a step is added to the stream before its own block alone."""
    edits: list[Edit] = []
    for layer in layers:
        edits.append(Edit(Site("resid_pre", layer), lambda x: x + step.to(x), {"pos": at}))
        edits += [copy(base, Site(kind, layer)) for kind in ("attn_out", "resid_post")]
    trace = model.run(tokens, read=read, edits=edits, last_only=True)
    lengths = [(trace.at(site, at) - base.at(site, at)).float().norm(dim=-1) for site in read]
    return torch.cat([x.T if x.ndim == 2 else x[None] for x in lengths])


def _names(base: Trace, read: Sequence[Site], n_heads: int) -> list[str]:
    names = []
    for site in read:
        n = base[site].shape[2] if "head" in site.axes else 0
        heads = [f"{head_name(site.layer, head, n < n_heads)}.{site.kind}" for head in range(n)]
        names += heads or [f"mlp{site.layer}"]
    return names


def _of_stream(model: Model, vector: Vector) -> Float[Tensor, " d_model"]:
    if vector.site.kind not in _ON_STREAM:
        raise ValueError(f"{vector.site} is not in the units of the stream; explain a vector of resid_post or attn_out")
    if (width := len(vector.writer)) != model.shape.d_model:
        raise ValueError(f"a vector of {width} entries is none of {model.name}, whose stream has {model.shape.d_model}")
    return vector.unit


def _named(vector: Vector) -> dict[str, Any]:
    return {"site": str(vector.site), "concept": str(vector.how.get("concept", ""))}
