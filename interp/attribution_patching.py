"""Attribution patching: what would patching each node do, estimated for all of them by a few backward passes?

The estimate is the clean minus the corrupt activation, times the gradient of the metric in the corrupt run (AtP: Nanda
2023; Syed et al. 2023, arXiv:2310.10348). It is wrong where the model is not linear between the two, above all at
softmaxes and where contributions cancel; AtP* (Kramár et al. 2024, arXiv:2403.00745) mends both, integrated gradients
along the inputs (Hanna et al. 2024, arXiv:2403.17806) average over the way. `verify` says how good an estimate is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from einops import reduce
from torch import Tensor

from interp import edits
from interp.gradients import Leaves, gradients
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.pairs import Pair, agreement
from interp.sites import Site
from interp.softmax import by_key, by_query
from interp.sweep import Cell

Effect = Callable[[Tensor], Tensor]  # from a gradient at a site to the effects of its nodes, (*over, prompt)


@dataclass(frozen=True)
class Estimator:
    """How patching is estimated.

    Attributes:
        path: Where gradients are taken: None, in the corrupt run; "inputs", averaged along the straight path of the
            token embeddings to those of the clean run; "own", along each node's own path, one pass for each node and
            step: given steps enough, that is the exact effect.
        steps: Points on the path (Gauss-Legendre).
        qk_fix: For `q` and `k`: take the change of the attention pattern exactly, and the gradient from there on.
        grad_drop: Leave the gradient through each layer out in turn, and average the sizes of the estimates (AtP*), so
            that contributions of different layers cannot cancel; the estimate has no sign then.
    """

    path: str | None = None
    steps: int = 1
    qk_fix: bool = False
    grad_drop: bool = False

    def __post_init__(self) -> None:
        if self.path not in (None, "inputs", "own"):
            raise ValueError(f"gradients are taken along None, 'inputs' or 'own', not {self.path!r}")
        if self.steps < 1 or (self.path is None and self.steps != 1):
            raise ValueError(f"steps={self.steps} on path {self.path!r}; a path has steps from 1 on, None has just one")
        if self.path == "own" and (self.qk_fix or self.grad_drop):
            raise ValueError("along a node's own path the estimate becomes exact; leave qk_fix and grad_drop out")

    def points(self) -> list[tuple[float, float]]:
        """Points on the path, from 0 at the corrupt run to 1 at the clean one, with their weights."""
        if self.path is None:
            return [(0.0, 1.0)]
        points, weights = np.polynomial.legendre.leggauss(self.steps)
        return [(float(p + 1) / 2, float(w) / 2) for p, w in zip(points, weights)]


ATP = Estimator()
ATP_STAR = Estimator(qk_fix=True, grad_drop=True)
INPUTS = Estimator("inputs", steps=5)


def estimate(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    sites: Sequence[Site],
    metric: Metric,
    over: Sequence[str] = (),
    roles: Sequence[str] = (),
    normalize: bool = True,
    by: Estimator = ATP,
) -> xr.DataArray:
    """What `patching.patch` would give for the same arguments, estimated (denoising; swap the two for noising).

    Args:
        by: How; see `ATP`, `ATP_STAR`, `INPUTS` and `Estimator`.

    Returns:
        The estimated effect by (layer, *over, prompt), NaN at padding; of a site without a layer, by (*over, prompt).

    Raises:
        ValueError: Prompts of different lengths; a gap between the runs too small to divide by; an estimator that does
            not fit the sites or the model; what `Nodes.of` raises.
    """
    pair = Pair.run(model, clean, corrupt, sites, metric, over, roles)
    values = _estimate(pair, by)
    values = pair.share(values, not by.grad_drop) if normalize else values
    return pair.label(values, normalize, method="attribution patching", **_how(by))


def verify(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    sites: Sequence[Site],
    metric: Metric,
    over: Sequence[str] = (),
    roles: Sequence[str] = (),
    normalize: bool = True,
    by: Estimator = ATP,
    top: int = 20,
    others: int = 20,
    seed: int = 0,
) -> xr.Dataset:
    """An estimate beside exact patching of the nodes that it puts first and of a random sample of the others.

    Args:
        top: How many nodes of the largest estimates (mean size over prompts) to patch.
        others: How many of the others to patch.

    Returns:
        `estimate` and `exact` by (layer, *over, prompt); `exact` is NaN where it was not measured. Checks say how well
        they agree; an estimate without sign is compared with the size of the effect.

    Raises:
        ValueError: Fewer than two nodes to compare; what `estimate` raises.
    """
    pair = Pair.run(model, clean, corrupt, sites, metric, over, roles)
    if top < 0 or others < 0 or min(top + others, len(pair.nodes)) < 2:
        count = f"top={top} and others={others} of {len(pair.nodes)} were given"
        raise ValueError(f"a comparison needs two nodes or more; {count}")
    guess = _estimate(pair, by)
    guess = pair.share(guess, not by.grad_drop) if normalize else guess
    order = guess.abs().mean(-1).flatten().argsort(descending=True).cpu()
    rest = order[top:]
    sample = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[:others]]
    exact, swept = pair.exact(torch.cat([order[:top], sample]))
    exact = pair.share(exact) if normalize else exact
    checks = agreement(guess, exact.abs() if by.grad_drop else exact, sample)
    how: dict[str, Any] = {
        "top": top,
        "others": len(sample),
        "seed": seed,
        **swept.how,
    }
    estimated = pair.label(guess, normalize, checks, method="attribution patching", **_how(by), **how)
    measured = pair.label(exact, normalize, method="activation patching", **how)
    return xr.Dataset({"estimate": estimated, "exact": measured}, attrs=estimated.attrs)


def _how(by: Estimator) -> dict[str, Any]:
    """An estimator as what an array can remember."""
    return {key: str(value) if value is None else value for key, value in asdict(by).items()}


def _estimate(pair: Pair, by: Estimator) -> Tensor:
    """Estimated change in the metric, (layer, *over, prompt)."""
    if by.path == "own":
        return _along_own_paths(pair, by)
    sites = pair.nodes.sites
    fixed = by.qk_fix and sites[0].kind in ("q", "k")
    read = [Site("pattern", site.layer) for site in sites] if fixed else sites
    effects = [(_through_softmax if fixed else _linear)(pair, site) for site in sites]
    found = gradients(pair.model, pair.start, pair.metric, _cells(pair, by, read))
    parts = torch.stack([torch.stack([effect(g) for effect, g in zip(effects, own)]) for own in found])
    weights = torch.tensor([weight for _, weight in by.points()]).to(parts)
    dropped = torch.einsum("dp...,p->d...", parts.unflatten(0, (-1, len(weights))), weights)
    if not by.grad_drop:
        return dropped[0]
    inside = sites[0].kind != "embed" and not sites[0].kind.startswith("resid")
    return dropped.abs().sum(0) / (len(dropped) - inside)  # a node inside a layer has none without that layer


def _cells(pair: Pair, by: Estimator, read: Sequence[Site]) -> Iterator[tuple[Cell, Leaves]]:
    """Cells with zeros added to the sites to read; in order of the layer dropped, then of the point on the path."""
    model, embed = pair.model, Site("embed")
    known = set(read) <= set(pair.nodes.sites)
    sizes = pair.corrupt if known else model.run(pair.corrupt.tokens, read=read, last_only=True)
    inputs = model.run(pair.clean.tokens, read=[embed], last_only=True) if by.path == "inputs" else None
    for stops in _drops(model) if by.grad_drop else [[]]:
        for point, _ in by.points():
            leaves = [torch.zeros_like(sizes[site]).requires_grad_() for site in read]
            moved = [] if inputs is None else [edits.blend(inputs, embed, point)]
            yield [*moved, *map(edits.add, read, leaves), *stops], leaves


def _drops(model: Model) -> list[Cell]:
    """For each layer, the edits that let no gradient through what it adds to the stream."""
    kinds = [kind for kind in ("attn_out", "mlp_out") if model.editable.get(kind)]
    if "attn_out" not in kinds or model.shape.n_layers < 2:
        raise ValueError("dropping layers in turn needs two layers or more, and an `attn_out` that can be edited")
    return [[edits.stop(Site(kind, layer)) for kind in kinds] for layer in range(model.shape.n_layers)]


def _linear(pair: Pair, site: Site) -> Effect:
    """From the gradient at a site to the effects of its nodes."""
    change = pair.target(site) - pair.corrupt[site]
    return lambda gradient: pair.nodes.collect(change * gradient, site.axes, pair.corrupt.tokens)


def _through_softmax(pair: Pair, site: Site) -> Effect:
    """From the gradient at the pattern to the effects of queries or keys."""
    if "d_head" in pair.nodes.axes:
        raise ValueError(f"the softmax is taken for whole vectors of {site.kind}; leave 'd_head' out of `over`")
    scores, put = Site("scores", site.layer), edits.put(site, pair.target(site))
    before, after = (
        pair.model.run(pair.corrupt.tokens, read=[scores], edits=change, last_only=True)[scores]
        for change in ([], [put])
    )
    group = pair.model.shape.n_heads // pair.corrupt[site].shape[2]
    # Queries have a row each. The keys of a row compete: patched one by one, each moves alone.
    rule = by_key if site.kind == "k" and "pos" in pair.nodes.axes else by_query

    def effect(gradient: Tensor) -> Tensor:
        each = reduce(rule(before, after, gradient), "batch (head group) pos -> batch pos head", "sum", group=group)
        return pair.nodes.collect(each, ("batch", "pos", "head"), pair.corrupt.tokens)

    return effect


def _along_own_paths(pair: Pair, by: Estimator) -> Tensor:
    """The metric's slope along each node's own path, summed over the path."""
    points, wide = by.points(), torch.promote_types(pair.model.dtype, torch.float32)

    def cells() -> Iterator[tuple[Cell, Leaves]]:
        for site, at in pair.nodes:
            for point, _ in points:
                how_far = torch.full_like(pair.low, point, dtype=wide).requires_grad_()
                yield [edits.blend(pair.clean, site, how_far, **at)], [how_far]

    found = gradients(pair.model, pair.start, pair.metric, cells())
    slopes = torch.stack([slope for (slope,) in found]).unflatten(0, (-1, len(points)))
    weights = torch.tensor([weight for _, weight in points]).to(slopes)
    return pair.shaped(torch.einsum("npb,p->nb", slopes, weights))
