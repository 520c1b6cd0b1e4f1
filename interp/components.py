"""The parts of a model that write to the residual stream: named, edited one by one, and added up."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.edits import Edit, put
from interp.graph import head_name, site_name
from interp.model import Model
from interp.sites import Site
from interp.traces import Tokens, Trace


def each(model: Model, make: Callable[..., Edit], *kinds: str) -> dict[str, Edit]:
    """One edit for each component, by name: heads `L0H3` for `z`, otherwise whole sites, `mlp2` and `attn2`.

    Args:
        make: Makes an edit of a site and indices, as `edits.zero` does, `partial(edits.copy, trace)` or
            `partial(edits.mean, trace)`.
        kinds: Kinds of site; by default `z`, which is every head.

    Raises:
        ValueError: A kind that the model does not have.
    """
    made: dict[str, Edit] = {}
    for site in sorted(model.sites(*kinds or ("z",)), key=lambda site: site.order):
        if site.kind == "z":
            made |= {head_name(site.layer, head): make(site, head=head) for head in range(model.shape.n_heads)}
        else:
            made[site_name(site)] = make(site)
    return made


@dataclass(frozen=True)
class OutputMatrix:
    """How one layer's heads write: `attn_out = sum over heads of z[head] @ weight[head], plus bias`."""

    weight: Float[Tensor, "head d_head d_model"]
    bias: Float[Tensor, " d_model"]


@torch.no_grad()
def output_matrices(model: Model) -> list[OutputMatrix] | None:
    """How the heads of each layer write to the stream; None where heads cannot be told apart.

    Measured in one run in which every token's `z` is a unit vector, so that it holds for any backend and family. Where
    a norm stands between `z` and the stream, a head's share depends on the other heads: three random vectors tell.
    """
    if not model.editable.get("z") or "attn_out" not in model.editable:
        return None
    shape = model.shape
    sites = model.sites("attn_out")
    one = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    seen = model.run(Tokens(one, torch.ones_like(one)), model.sites("z"), last_only=True)
    # Values may be narrower than queries, and layers differ.
    sizes = [seen[site].shape[-1] for site in model.sites("z")]
    length = min(shape.n_context or 32, 32)
    n_prompts = -(-(shape.n_heads * max(sizes) + 4) // length)
    fed = {size: _fed(n_prompts * length, shape.n_heads * size).to(model.device, model.dtype) for size in sizes}
    ids = torch.zeros(n_prompts, length, dtype=torch.long, device=model.device)
    puts = [
        put(site, fed[size].view(n_prompts, length, shape.n_heads, size)) for site, size in zip(model.sites("z"), sizes)
    ]
    trace = model.run(Tokens(ids, torch.ones_like(ids)), sites, puts, last_only=True)
    found = [_affine(trace[site].flatten(0, 1), fed[size], shape.n_heads) for site, size in zip(sites, sizes)]
    return None if None in found else [matrix for matrix in found if matrix is not None]


def _fed(n_tokens: int, width: int) -> Float[Tensor, "token width"]:
    """Unit vectors, three random ones, and zeros."""
    fed = torch.zeros(n_tokens, width)
    fed[:width] = torch.eye(width)
    fed[width : width + 3] = torch.randn(3, width, generator=torch.Generator().manual_seed(0))
    return fed


def _affine(out: Float[Tensor, "token d_model"], fed: Float[Tensor, "token width"], heads: int) -> OutputMatrix | None:
    """The matrix and bias that made unit vectors, and then zeros, into this, if they also hold for the rest."""
    width = fed.shape[1]
    bias = out[-1]
    weight = out[:width] - bias
    error = (out[width:] - (fed[width:] @ weight + bias)).abs().max()
    tolerance = 1e-4 if out.dtype.itemsize >= 4 else 5e-2
    return OutputMatrix(weight.unflatten(0, (heads, -1)), bias) if error <= tolerance * out.abs().max() else None


def last_stream(model: Model) -> Site:
    """The residual stream that leaves the last block, which is what the final norm is given."""
    return Site("resid_post", model.shape.n_layers - 1)


def writers(model: Model) -> list[Site]:
    """The sites that add up to the last residual stream: what enters the first block, and what each part adds."""
    kinds = [kind for kind in ("attn_out", "mlp_out") if kind in model.editable]
    added = sorted(model.sites(*kinds), key=lambda site: site.order) if kinds else []
    return [Site("resid_pre", 0), *added]


def split_heads(trace: Trace, layer: int, at: int | str, matrix: OutputMatrix) -> dict[str, Tensor]:
    """What each head of a layer writes at one position, (prompt, d_model) by name, and the bias that all share."""
    z = trace.at(Site("z", layer), at)
    by_head = torch.einsum("bhd,hdm->hbm", z, matrix.weight)
    named = {head_name(layer, head): written for head, written in enumerate(by_head)}
    if bool(matrix.bias.any()):
        named[f"attn_bias{layer}"] = matrix.bias.expand_as(by_head[0])
    return named
