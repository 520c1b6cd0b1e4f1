"""Conductance: through which heads, neurons or other parts does the effect of the input flow?

Dhamdhere et al. 2018 (arXiv:1805.12233). The input moves from a baseline to the prompts; a part's share is the metric's
slope at that part, times how fast the part moves, added up along the way. At a site that everything passes through,
such as the residual stream, the shares add up to the change in the metric.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
import xarray as xr
from torch import Tensor

from interp.arrays import Check
from interp.attribution.baselines import EMBED, Baseline
from interp.attribution.labels import completeness, label, tolerance_of
from interp.attribution.paths import Path
from interp.attribution.straight import Attributed
from interp.edits import Edit, put
from interp.gradients import Leaves, slopes
from interp.grid import Grid, Roles, grid_of
from interp.metrics import Metric, as_metric
from interp.model import Model, Prompts
from interp.progress import Progress, bar
from interp.quadrature import chebyshev_derivative, clenshaw_curtis, movement
from interp.sites import STREAM, Site
from interp.sweep import Cell
from interp.traces import Tokens

_SOURCE = "arXiv:1805.12233"


@dataclass(frozen=True)
class _Point:
    """One point of the path: the metric, and at each site what it holds and the gradient there."""

    value: Tensor
    held: Sequence[Tensor]
    gradients: Sequence[Tensor]

    def among(self, rows: Tensor) -> "_Point":
        """The same for some of the prompts."""
        held, gradients = ([x[rows] for x in side] for side in (self.held, self.gradients))
        return _Point(self.value[rows], held, gradients)


def conductance(
    model: Model,
    clean: Prompts,
    baseline: Baseline,
    sites: Sequence[Site],
    metric: Metric,
    *,
    over: Sequence[str] = ("pos",),
    roles: Roles = (),
    path: Site = EMBED,
    tolerance: float | None = None,
    most: int = 64,
    budget: int | None = None,
    progress: Progress = None,
) -> xr.DataArray:
    """How much of the metric's change flows through each part of some sites while an earlier site moves.

    All sites are had from the same passes. How fast a part moves is the slope of the polynomial through what it holds
    at the Chebyshev points of the path, so that no small steps are needed. What the sites hold is kept for every point.

    Args:
        baseline: What the earlier site starts from; see `integrated_gradients`.
        sites: Sites of one kind above it, usually one a layer.
        over: Axes of the sites that have a share for each index, such as ("neuron",); other axes are summed over.
        roles: Names of positions; if given, `pos` in `over` runs over these.
        path: The site that moves along a straight path.
        tolerance: Points are doubled, for each prompt alone, until two doublings in a row move none of its shares by
            more than twenty times that share of the largest, or 5 %.
        most: Intervals between points at which doubling ends, a power of two.
        budget, progress: See `integrated_gradients`.

    Returns:
        Conductance by (layer, *over, prompt), NaN at padding. Checks say whether the points were enough and, of the
        residual stream, whether shares add up.

    Raises:
        ValueError: Sites of several kinds, or not above the path's; what `integrated_gradients` raises for a baseline.
    """
    grid = grid_of(sites, over, roles)
    sites = list(grid.sites)
    if len(grid.kinds) > 1:
        raise ValueError(f"conductance is of sites of one kind at a time, not {', '.join(grid.kinds)}")
    if early := [site for site in sites if site.order <= path.order]:
        raise ValueError(f"{early[0]} does not come after {path}, which moves; choose later sites, or another path")
    of = Attributed.run(model, model.tokens(clean), path, [as_metric(metric)], ())
    trace = model.run(of.tokens, read=sites, last_only=True)
    tolerance = tolerance_of(of) if tolerance is None else tolerance
    allowed = movement(tolerance)
    way, rows, n = of.path(baseline), torch.arange(len(of.tokens), device=trace[sites[0]].device), 2
    with bar(most + 1, "steps", progress) as advance:
        walk = lambda where: list(
            _points(way, sites, {site: trace[site][rows] for site in sites}, where, budget, advance)
        )
        points = walk(clenshaw_curtis(n).points)
        shares, change = _add_up(points, grid, way.tokens), points[-1].value - points[0].value
        moved = torch.full_like(change, torch.inf)
        while len(rows) and 2 * n <= most:
            n *= 2
            between = walk(clenshaw_curtis(n).points[1::2])
            points = [*chain(*zip(points, between)), points[-1]]
            now = _add_up(points, grid, way.tokens)
            still = moved[rows] <= allowed
            moved[rows], shares[..., rows] = _moved(shares[..., rows], now), now
            left = (~still | (moved[rows] > allowed)).nonzero()[:, 0]  # one doubling can be still by chance
            if len(left) < len(rows):
                rows, way, points = rows[left], way.among(left), [point.among(left) for point in points]
    why = "the last doubling of the points must not move a share by more than this part of the largest"
    checks = [Check.at_most("quadrature", float(moved.max()), allowed, why, _SOURCE)]
    if sites[0].kind in STREAM and not roles:
        total = shares.flatten(1, -2).sum(1) if shares.ndim > 2 else shares
        checks.append(completeness((total - change).abs() / change.abs().mean().clamp(min=1e-9), tolerance))
    leading = {} if sites[0].layer is None else {"layer": [site.layer for site in sites]}
    shares = shares if leading else shares[0]
    how = {"method": "conductance", "metric": metric.name, "path": str(path), "steps": n + 1}
    return label(shares, replace(of, grid=grid, seen=trace), leading, checks, **how)


def _points(
    path: Path, sites: Sequence[Site], like: Mapping[Site, Tensor], where: Sequence[float], budget: int | None,
    advance: Callable[[int], None],
) -> Iterator[_Point]:  # fmt: skip
    """Points of a path, with what the sites hold there and the gradient with respect to it."""
    taps: deque[list[_Tap]] = deque()

    def cells() -> Iterator[tuple[Cell, Leaves]]:
        for point in where:
            taps.append([_Tap(torch.zeros_like(like[site]).requires_grad_()) for site in sites])
            start = put(path.site, torch.lerp(path.start, path.end, point))
            yield [start, *map(Edit, sites, taps[-1])], [tap.leaf for tap in taps[-1]]

    for found in slopes(path.model, path.base, path.metrics, cells(), budget):
        held = [tap.held for tap in taps.popleft()]
        advance(1)
        yield _Point(found.values[0], held, found.gradients[0])


class _Tap:
    """A change of a site that changes nothing, but keeps what the site holds and lets the gradient there be had."""

    def __init__(self, leaf: Tensor) -> None:
        self.leaf, self.held = leaf, leaf

    def __call__(self, value: Tensor) -> Tensor:
        self.held = value.detach().clone()
        return value + self.leaf


def _add_up(points: Sequence[_Point], grid: Grid, tokens: Tokens) -> Tensor:
    """The sum over the points of weight, gradient and speed: (layer, *over, prompt)."""
    n = len(points) - 1
    weights, derivative = clenshaw_curtis(n).weights, torch.from_numpy(chebyshev_derivative(n))
    layers = []
    for i, site in enumerate(grid.sites):
        held = torch.stack([point.held[i].double() for point in points])
        speed = torch.tensordot(derivative.to(held), held, 1)
        share = sum(weight * speed[k] * points[k].gradients[i] for k, weight in enumerate(weights))
        layers.append(grid.total(torch.as_tensor(share), site.axes, tokens))
    return torch.stack(layers).to(points[0].value.dtype)


def _moved(before: Tensor, after: Tensor) -> Tensor:
    """The largest change of any share of each prompt, as part of its largest share."""
    size = lambda x: (x.flatten(1, -2).abs().amax(1) if x.ndim > 2 else x.abs()).amax(0)
    return size(after - before) / size(after).clamp(min=1e-12)
