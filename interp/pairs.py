"""A clean and a corrupt run, and the nodes to be patched from the one into the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from interp import edits
from interp.arrays import Check, labelled
from interp.contrast import share
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.nodes import Nodes
from interp.recording import Recording
from interp.replay import run_recorded
from interp.sites import Site
from interp.sweep import Swept, sweep
from interp.traces import Tokens, Trace, check_aligned


@dataclass(frozen=True)
class Pair:
    """Two runs of aligned prompts; effects are changes from the corrupt one (denoising).

    Attributes:
        nodes: What is patched.
        clean, corrupt: The runs, with the sites of the nodes.
        recording: Of the corrupt run, for sweeps, where the model allows it.
        high, low: The metric in each, one number per prompt.
    """

    model: Model
    metric: Metric
    nodes: Nodes
    clean: Trace
    corrupt: Trace
    recording: Recording | None
    high: Tensor
    low: Tensor

    @classmethod
    def run(
        cls,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        sites: Sequence[Site],
        metric: Metric,
        over: Sequence[str],
        roles: Sequence[str],
    ) -> "Pair":
        """Run both.

        Raises:
            ValueError: Prompts of different lengths; sites that cannot be edited; what `Nodes.of` raises.
        """
        tokens = model.tokens(clean), model.tokens(corrupt)
        check_aligned(*tokens)
        model.check(edits=[edits.zero(site) for site in sites])
        one = model.run(tokens[0], read=sites, last_only=metric.last_only)
        other, recording = run_recorded(model, tokens[1], sites, sites, metric.last_only)
        return cls(model, metric, Nodes.of(sites, over, roles, one), one, other, recording, metric(one), metric(other))

    @property
    def start(self) -> Tokens | Recording:
        """What a sweep of the corrupt prompts starts from."""
        return self.recording or self.corrupt.tokens

    def exact(self, chosen: Tensor) -> tuple[Tensor, Swept]:
        """Change in the metric when each of the chosen nodes is patched alone: (layer, *over, prompt), others NaN."""
        every = list(self.nodes)
        picked = [every[i] for i in chosen.tolist()]
        cells = [[edits.copy(self.clean, site, **at)] for site, at in picked]
        swept = sweep(self.model, self.start, cells, [self.metric])
        values = swept.values[0].new_full((len(every), len(self.low)), float("nan"))
        values[chosen.to(values.device)] = swept.values[0] - self.low
        return self.shaped(values), swept

    def target(self, site: Site) -> Tensor:
        """What patching puts at a site: the clean tensor, its roles moved to where the corrupt prompts have theirs."""
        if not self.nodes.roles:
            return self.clean[site]
        target = self.corrupt[site].clone()
        rows = torch.arange(len(target), device=target.device)[:, None]
        to, of = (self.nodes.positions(trace.tokens) for trace in (self.corrupt, self.clean))
        target[rows, to] = self.clean[site][rows, of]
        return target

    def shaped(self, values: Tensor) -> Tensor:
        """Values (node, prompt) as (layer, *over, prompt)."""
        return values.reshape(len(self.nodes.sites), *map(len, self.nodes.axes.values()), len(self.low))

    def share(self, values: Tensor, signed: bool = True) -> Tensor:
        """Changes, or their sizes, as shares of the gap between the runs."""
        gap = self.high - self.low
        return share(values, gap if signed else gap.abs(), f"gap in {self.metric.name}")

    def label(self, values: Tensor, normalize: bool, checks: Sequence[Check] = (), **how: Any) -> xr.DataArray:
        """Values (layer, *over, prompt) with their names and how they were made."""
        unit = "share restored" if normalize else f"change in {self.metric.name}"
        coords = self.nodes.coords(self.model, self.clean.tokens)
        present = (self.clean.tokens.mask * self.corrupt.tokens.mask).bool()
        values = values.masked_fill(~self.nodes.measured(present).to(values.device), torch.nan)
        if self.nodes.sites[0].layer is None:  # then there is but one
            coords.pop("layer")
            values = values[0]
        how |= {"direction": "denoising", "site": self.nodes.sites[0].kind, "metric": self.metric.name}
        return labelled(values, unit, coords, self.model, checks, **how)


def agreement(estimate: Tensor, exact: Tensor, others: Tensor) -> list[Check]:
    """How well mean estimates agree with mean effects, over the nodes whose effect was measured.

    Args:
        others: Nodes that were not chosen for their estimate, by number.
    """
    from scipy.stats import pearsonr, spearmanr

    guess, effect = (values.mean(-1).flatten().double().cpu().numpy() for values in (estimate, exact))
    known = ~np.isnan(effect)
    x, y = guess[known], effect[known]
    largest = max(float(abs(y).max()), 1e-12)
    x, y = (np.where(abs(values) < 1e-5 * largest, 0, values) for values in (x, y))  # rounding errors have no rank
    pearson, spearman = (float(f(x, y)[0]) if np.ptp(x) * np.ptp(y) else 0.0 for f in (pearsonr, spearmanr))
    sample, miss = abs(effect[others.numpy()]), float(abs(x - y).max()) / largest
    where = "over the nodes patched exactly: those of the largest estimates and a random sample of the others"
    of_largest = f"largest error as a share of the largest effect, {where}"
    rows = [
        ("Pearson correlation with exact", pearson, 0.6, where, "arXiv:2212.11870"),
        ("rank correlation with exact", spearman, 0.6, where, "arXiv:2212.11870"),
        ("worst miss", miss, 0.5, of_largest, "arXiv:2403.00745"),
    ]
    if 0 < len(sample) < len(x):
        why = "largest effect in the random sample as a share of the largest of all; near 1, others are overlooked"
        rows.append(("overlooked effect", float(sample.max()) / largest, 0.5, why, "arXiv:2403.00745"))
    good = [value >= at if "correlation" in name else value <= at for name, value, at, _, _ in rows]
    return [Check(n, v, at, "pass" if ok else "warn", why, of) for (n, v, at, why, of), ok in zip(rows, good)]
