"""What is attributed, to what, and along which straight paths; shared by the methods that integrate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from interp import edits
from interp.attribution.baselines import Baselines, held, named
from interp.attribution.integration import MISSED, STEEP, Integral, Quadrature
from interp.attribution.paths import Path, joined
from interp.grid import Grid, Roles, grid_of
from interp.metrics import Metric, metrics_of
from interp.model import Model
from interp.progress import Progress, bar
from interp.sites import Site
from interp.traces import Tokens, Trace

_NEAR_ZERO = 1e-2  # of the size of what the site holds


@dataclass(frozen=True)
class Attributed:
    """A run of prompts, metrics of it, and the places of a site that are to have shares of them.

    Attributes:
        seen: The run, with what the site holds.
        fixed: Positions at which every baseline holds what the run does.
        whole: Whether the metrics are attributed as one, their sum.
    """

    model: Model
    tokens: Tokens
    metrics: Sequence[Metric]
    grid: Grid
    seen: Trace
    fixed: Bool[Tensor, "batch pos"] | None = None
    whole: bool = False

    @classmethod
    def run(
        cls, model: Model, tokens: Tokens, site: Site, metrics: Sequence[Metric], over: Sequence[str],
        roles: Roles = (), **more: Any,
    ) -> "Attributed":  # fmt: skip
        """Run the prompts.

        Raises:
            ValueError: No metric, or two of one name; axes that the site lacks; a site that cannot be edited.
        """
        metrics = metrics_of(metrics)
        names = [metric.name for metric in metrics]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"metrics need names that tell them apart, not {names}; rename by dataclasses.replace")
        grid = grid_of([site], over, roles)
        model.check(edits=[edits.zero(site)])
        trace = model.run(tokens, read=[site], last_only=True)
        return cls(model, tokens, metrics, grid, trace, **more)

    @property
    def site(self) -> Site:
        return self.grid.sites[0]

    @property
    def value(self) -> Tensor:
        """What the site holds."""
        return self.seen[self.site]

    def path(self, baseline: Any) -> Path:
        """The straight path from a baseline."""
        start = held(self.model, self.tokens, self.site, self.value, baseline, self.fixed)
        return Path(self.model, self.tokens, self.metrics, self.grid, start, self.value, self.whole)

    def integrate(
        self, baselines: Baselines, by: Quadrature, refuse: bool = True, progress: Progress = None
    ) -> dict[str, Integral]:
        """The integral along the path from each baseline, by its name.

        Raises:
            ValueError: What `baselines.held` raises; if it is to be refused, a degenerate path.
        """
        chosen, found = named(baselines), {}
        with bar(len(chosen) * by.points, "steps", progress) as advance:
            for name, baseline in chosen.items():
                path = self.path(baseline)
                found[name] = _with_steepness(path, by.of(path, advance), by)
                if refuse:
                    self._refuse(name, path, found[name], by)
        return found

    def _refuse(self, name: str, path: Path, found: Integral, by: Quadrature) -> None:
        error = found.error(found.floor(by.tolerance, self.model.dtype)).amax(0)
        steep = found.steep.amax(0)
        bad = (error > MISSED) & (_near_zero(path) | (steep > STEEP))
        if bool(bad.any()):
            i = int(torch.where(bad, error, -1).argmax())
            raise ValueError(
                f"the path from {name!r} to {self.site} is degenerate: with {int(found.steps[i])} points the "
                f"attributions of prompt {i} miss the change in the metric by {float(error[i]):.2g} times its size; at "
                f"the baseline it is {float(steep[i]):.1g} times as steep as along the way (near zero a norm makes a "
                f"model a step function of scale). Take the corrupt run or `mean_baseline` instead, or refuse=False to "
                f"get what came out"
            )


def _with_steepness(path: Path, found: Integral, by: Quadrature) -> Integral:
    """Look at the slope at the baseline if the sum is wrong and it was not looked at."""
    error = found.error(found.floor(by.tolerance, path.model.dtype))
    if not bool((found.steep.isnan() & (error > MISSED)).any()):
        return found
    slopes = joined(list(path.steps([0, 0.25, 0.5, 0.75, 1], by.budget))).slopes.abs()
    return replace(found, steep=slopes[:, 0] / slopes[:, 1:].mean(1).clamp(min=torch.finfo(slopes.dtype).tiny))


def _near_zero(path: Path) -> Bool[Tensor, " prompt"]:
    """Whether all that a baseline changes, it puts to nearly nothing."""
    start, end = (torch.where(path.start != path.end, x, 0).flatten(1).norm(dim=1) for x in (path.start, path.end))
    return start < _NEAR_ZERO * end
