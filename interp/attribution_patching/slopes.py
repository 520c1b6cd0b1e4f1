"""Effects of nodes, estimated from gradients of the metric at their sites."""

from collections.abc import Callable, Iterator, Sequence

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from interp import edits
from interp.attribution_patching.estimator import Estimator
from interp.attribution_patching.softmax import by_key, by_query
from interp.contrast import Contrast
from interp.gradients import Leaves, gradients
from interp.grid import Grid
from interp.model import Model
from interp.sites import Site
from interp.sweep import Cell

Effect = Callable[[Tensor], Tensor]  # from a gradient to the effects of a site's nodes, (*over, prompt)


def slopes(model: Model, grid: Grid, runs: Contrast, by: Estimator) -> Float[Tensor, "kind layer *over prompt"]:
    """Estimated change in the metric when each node is patched alone; NaN where there is none."""
    values = _along_own_paths(model, grid, runs, by) if by.path == "own" else _at_once(model, grid, runs, by)
    return values.where(grid.measured(runs.source, runs.base), torch.nan)


def _at_once(model: Model, grid: Grid, runs: Contrast, by: Estimator) -> Tensor:
    """All nodes by one gradient for each point on the path, and for each layer that is dropped."""
    fixed = [site for site in grid.sites if by.qk_fix and site.kind in ("q", "k")]
    taps = {site: Site("pattern", site.layer) if site in fixed else site for site in grid.sites}
    read = list(dict.fromkeys(taps.values()))
    job = model, grid, runs
    effects = {site: _through_softmax(*job, site) if site in fixed else _linear(grid, runs, site) for site in taps}
    found = (
        [_of_base(runs, read)]
        if by.plain
        else gradients(model, runs.sweepable, runs.metrics[0], _cells(model, runs, by, read))
    )
    parts = []
    for own in found:
        slope = dict(zip(read, own))
        parts.append(grid.filled({site: effect(slope[taps[site]]) for site, effect in effects.items()}, runs.source))
    weights = torch.tensor([weight for _, weight in by.points()], dtype=torch.float64).to(parts[0])
    dropped = torch.einsum("dp...,p->d...", torch.stack(parts).unflatten(0, (-1, len(weights))), weights)
    if not by.grad_drop:
        return dropped[0]
    # A node inside a layer has no gradient when that layer is dropped.
    inside = [kind != "embed" and not kind.startswith("resid") for kind in grid.kinds]
    counts = len(dropped) - torch.tensor(inside, device=dropped.device).int()
    return dropped.abs().sum(0) / counts.view(-1, *(1,) * (dropped.ndim - 2))


def _of_base(runs: Contrast, read: Sequence[Site]) -> Leaves:
    """The gradients of the metric in the base run, whose graph was kept."""
    with torch.enable_grad():
        values = runs.metrics[0](runs.base)
        total = values.sum()
    runs.metrics[0].check_gradient(values)
    return torch.autograd.grad(total, [runs.base[site] for site in read], materialize_grads=True)


def _cells(model: Model, runs: Contrast, by: Estimator, read: Sequence[Site]) -> Iterator[tuple[Cell, Leaves]]:
    """Cells with zeros added to the sites to read; in order of the layer dropped, then of the point on the path."""
    embed, base = Site("embed"), runs.base
    known = set(read) <= set(base.activations)
    sizes = base if known else model.run(base.tokens, read=read, last_only=True)
    inputs = model.run(runs.source.tokens, read=[embed], last_only=True) if by.path == "inputs" else None
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


def _linear(grid: Grid, runs: Contrast, site: Site) -> Effect:
    """From the gradient at a site to the effects of its nodes."""
    source, base = (grid.pick(run[site].detach(), site.axes, run.tokens) for run in (runs.source, runs.base))
    change = source - base
    return lambda slope: grid.collect(change * grid.pick(slope, site.axes, runs.base.tokens), site.axes)


def _through_softmax(model: Model, grid: Grid, runs: Contrast, site: Site) -> Effect:
    """From the gradient at the pattern to the effects of queries or keys."""
    if "d_head" in grid.over:
        raise ValueError(f"the softmax is taken for whole vectors of {site.kind}; leave 'd_head' out of `over`")
    scores, places = Site("scores", site.layer), [{"pos": role} for role in grid.roles.get("pos", ())] or [{}]
    put = [edits.copy(runs.source, site, **at) for at in places]
    before, after = (
        model.run(runs.base.tokens, read=[scores], edits=change, last_only=True)[scores] for change in ([], put)
    )
    group = model.shape.n_heads // runs.base[site].shape[2]
    # Queries have a row each. The keys of a row compete: patched one by one, each moves alone.
    rule = by_key if site.kind == "k" and "pos" in grid.over else by_query
    axes = ("batch", "pos", "head")

    def effect(slope: Tensor) -> Tensor:
        each = reduce(rule(before, after, slope), "batch (head group) pos -> batch pos head", "sum", group=group)
        return grid.total(each, axes, runs.base.tokens)

    return effect


def _along_own_paths(model: Model, grid: Grid, runs: Contrast, by: Estimator) -> Tensor:
    """The metric's slope along each node's own path, summed over the path."""
    points, wide = by.points(), torch.promote_types(model.dtype, torch.float32)
    measured = grid.measured(runs.source, runs.base)
    places = [place for place in grid.places(runs.source) if bool(measured[place.index].any())]

    def cells() -> Iterator[tuple[Cell, Leaves]]:
        for place in places:
            for point, _ in points:
                how_far = torch.full_like(runs.start[0], point, dtype=wide).requires_grad_()
                yield [edits.blend(runs.source, place.site, how_far, **place.at)], [how_far]

    found = gradients(model, runs.sweepable, runs.metrics[0], cells())
    along = torch.stack([slope for (slope,) in found]).unflatten(0, (-1, len(points)))
    weights = torch.tensor([weight for _, weight in points]).to(along)
    values = along.new_full(measured.shape, float("nan"))
    for place, slope in zip(places, torch.einsum("npb,p->nb", along, weights)):
        values[place.index] = slope
    return values
