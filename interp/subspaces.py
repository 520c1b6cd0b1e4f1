"""The interpretability illusion: does a direction that can be patched also carry what the model computes with?

Patching along a direction can work through a part of it that nothing downstream reads: that part differs between the
prompts, and drags along a second part that is read but does not. Makelov et al. 2023 (arXiv:2311.17030).
"""

from collections.abc import Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, labelled
from interp.contrast import DIRECTIONS, Contrast, contrast
from interp.directions import span
from interp.edits import Index, copy, exchange, put
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.precision import widened
from interp.sites import Site
from interp.sweep import sweep
from interp.traces import Tokens, check_aligned

READERS = {"z": "attn_out", "mlp_post": "mlp_out"}  # what one matrix makes of a site
_PAPER = "arXiv:2311.17030"


def illusion(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    site: Site,
    metric: Metric,
    subspace: Float[Tensor, "*k d"],
    randoms: int = 10,
    seed: int = 0,
    direction: str = "denoising",
    **at: Index,
) -> xr.DataArray:
    """Patch a subspace, the part of it that is read downstream, the part that is not, and the whole site.

    What is read is the row space of the matrix that takes the site to what attention or the MLP adds to the stream.
    The residual stream and others have no such matrix: there nothing can be told apart, and `attrs["split"]` says so.

    Args:
        subspace: A direction (d,) or a basis (k, d) in the last axis of the site.
        randoms: How many random subspaces of the same dimension to compare with.
        at: Where to patch, by axis name, as in `edits.copy`; `head=2` reads by that head's part of the matrix.

    Returns:
        The share of the gap by (part, prompt); parts are "subspace", "read", "unread", "whole site", "random 0", ...
        NaN is a part that there is not. The coordinate `spread` is the standard deviation over both runs of what
        lies in each part. Checks: the read part does what the subspace does, the unread part nothing, the subspace no
        more than the whole site, and more than random ones.
    """
    clean, corrupt = model.tokens(clean), model.tokens(corrupt)
    check_aligned(clean, corrupt)
    basis = span(subspace).to(model.device)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(randoms, *basis.shape, generator=generator).to(basis)
    runs = contrast(model, clean, corrupt, [metric], direction, [site], [site])
    if (width := runs.source[site].shape[-1]) != basis.shape[-1]:
        raise ValueError(f"a subspace of {site} has vectors of {width} entries, not {basis.shape[-1]}")
    rows = read_space(model, site, runs.source.tokens, at.get("head"))
    read, unread = _split(basis, rows)
    parts = {"subspace": basis, "read": read, "unread": unread, "whole site": torch.eye(basis.shape[-1]).to(basis)}
    parts |= {f"random {i}": span(vectors) for i, vectors in enumerate(noise)}
    values = _patched(model, runs, site, parts, at)
    how = {"method": "subspace patching", "site": str(site), "at": str(dict(at)), "metric": metric.name, "seed": seed}
    how |= {"direction": direction, "split": _said(site, rows, basis)}
    coords: dict[str, Sequence[Any]] = {"part": list(parts), "prompt": range(len(clean))}
    array = labelled(values, DIRECTIONS[direction], coords, model, _checks(values), **how)
    return array.assign_coords(spread=("part", [_spread(runs, site, part, at) for part in parts.values()]))


def read_space(model: Model, site: Site, tokens: Tokens, head: Any = None) -> Float[Tensor, "rank d"] | None:
    """An orthonormal basis of the directions of a site's last axis that the next matrix reads; None if there is none.

    Found from the derivative of what attention or the MLP returns, at tokens of the prompts: so it is the same on every
    backend, and a norm behind the matrix (Gemma 2, OLMo 2) does not matter.

    Raises:
        ValueError: A model that lacks what is read.
    """
    if site.kind not in READERS:
        return None
    reader = Site(READERS[site.kind], site.layer)
    model.check([site, reader])
    values = model.run(tokens, read=[site], last_only=True)[site]
    # A norm hides the direction along its own input, another one at each token: so more than one is looked at.
    jacobian = torch.cat([_derivative(model, site, reader, value) for value in values[:3, -1]])
    if "head" in site.axes:
        jacobian = (jacobian if head is None else jacobian[:, head]).reshape(-1, jacobian.shape[-1])
    jacobian = widened(jacobian)
    _, sizes, rows = torch.linalg.svd(jacobian, full_matrices=False)
    precision = 1e-2 if model.dtype.itemsize < 4 else 1e-5
    return rows[sizes > precision * sizes.max()]


def _derivative(
    model: Model, site: Site, reader: Site, value: Float[Tensor, "*rest"]
) -> Float[Tensor, "d_model *rest"]:
    """The derivative of what is read by a site's value at one token: a row of the batch for each output."""
    d_model = model.shape.d_model
    rows = value.detach().expand(d_model, 1, *value.shape).clone().requires_grad_()
    ids = torch.zeros(d_model, 1, dtype=torch.long, device=model.device)
    trace = model.run(Tokens(ids, torch.ones_like(ids)), [reader], [put(site, rows)], grad=True, last_only=True)
    with torch.enable_grad():
        total = trace[reader][:, 0].diagonal().sum()
    (jacobian,) = torch.autograd.grad(total, rows)
    return jacobian[:, 0]


def _split(basis: Float[Tensor, "k d"], rows: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The parts of a subspace in the read space and outside of it; None where nothing is left."""
    if rows is None:
        return basis, None
    inside = basis @ rows.to(basis).T @ rows.to(basis)
    return _basis(inside), _basis(basis - inside)


def _basis(vectors: Float[Tensor, "k d"]) -> Tensor | None:
    _, sizes, rows = torch.linalg.svd(vectors, full_matrices=False)
    kept = rows[sizes > 1e-3]  # of vectors that were orthonormal
    return kept if len(kept) else None


def _patched(
    model: Model, runs: Contrast, site: Site, parts: dict[str, Tensor | None], at: dict[str, Index]
) -> Float[Tensor, "part prompt"]:
    there = {name: basis for name, basis in parts.items() if basis is not None}
    whole = copy(runs.source, site, **at)
    cells = [[whole if name == "whole site" else exchange(runs.source, site, b, **at)] for name, b in there.items()]
    values = sweep(model, runs.sweepable, cells, runs.metrics).values.to(runs.start)
    share = runs.share(runs.change(values), "choose other prompts")[0]
    values = share.new_full((len(parts), share.shape[-1]), float("nan"))
    values[[i for i, basis in enumerate(parts.values()) if basis is not None]] = share
    return values


def _spread(runs: Contrast, site: Site, basis: Tensor | None, at: dict[str, Index]) -> float:
    """How much the site varies inside a subspace, over the prompts of both runs."""
    if basis is None:
        return float("nan")
    held = [copy(run, site, **at).change(run[site]) for run in (runs.source, runs.base)]
    inside = torch.cat(held).to(basis) @ basis.T
    return float(inside.var(0).sum(-1).mean().sqrt())


def _said(site: Site, rows: Tensor | None, basis: Tensor) -> str:
    if rows is None:
        return f"none: {site} is not read by one matrix alone, so that no part of it is known to be unread"
    width = basis.shape[-1]
    share = float(((basis @ rows.to(basis).T) ** 2).sum() / len(basis))
    if len(rows) == width:
        return f"none: the matrix that reads {site} has full rank {width}, so that all of it is read"
    return f"{len(rows)} of {width} dimensions of {site} are read; they hold {share:.3f} of the subspace"


def _checks(values: Float[Tensor, "part prompt"]) -> list[Check]:
    mean = values.double().mean(-1)
    effect, read, unread, whole = mean[:4].tolist()
    if read != read:  # all of it is unread
        read = 0.0
    scale = abs(effect) if effect else 1e-9
    random = float(mean[4:].abs().max()) if len(mean) > 4 else float("nan")
    split = float("nan") if unread != unread else read / (effect or scale)
    why = (
        "an effect that needs the unread part goes through a path that the model does not use by itself",
        "what no weight reads can have no effect of its own",
        "a part that does more than the whole works against the rest of it, or off the distribution",
        "any subspace does something; this one must do more",
    )
    return [
        _check("effect of the read part over the subspace's", split, 0.8, True, why[0]),
        _check("effect of the unread part over the subspace's", abs(unread) / scale, 0.1, False, why[1]),
        _check("effect of the subspace over the whole site's", abs(effect) / max(abs(whole), 1e-9), 1.0, False, why[2]),
        _check("effect of the largest random subspace over the subspace's", random / scale, 1.0, False, why[3]),
    ]


def _check(name: str, value: float, threshold: float, at_least: bool, why: str) -> Check:
    return (Check.at_least if at_least else Check.at_most)(name, value, threshold, why, _PAPER)
