"""Runs in which some positions of a site hold what they do and the others hold the baseline."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from interp.arrays import labelled, position_labels
from interp.attribution.baselines import Baseline, held
from interp.edits import Edit
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.progress import Progress
from interp.recording import Recording
from interp.replay import run_recorded
from interp.sites import Site
from interp.sweep import Swept, sweep
from interp.traces import Tokens


@dataclass(frozen=True)
class Masked:
    """A metric as a function of which positions of a site are kept.

    Attributes:
        base: What the site holds where positions are not kept.
        matters: The positions where that is not what it holds anyway; never padding.
        start: What sweeps start from.
    """

    model: Model
    tokens: Tokens
    site: Site
    metric: Metric
    base: Tensor
    matters: Bool[Tensor, "prompt pos"]
    start: Tokens | Recording

    @classmethod
    def of(cls, model: Model, prompts: Prompts, baseline: Baseline, site: Site, metric: Metric) -> "Masked":
        """Run the prompts and, if it is of prompts, the baseline.

        Raises:
            ValueError: A site without positions; what `baselines.held` raises.
        """
        if "pos" not in site.axes:
            raise ValueError(f"{site} has no positions to mask; its axes are {', '.join(site.axes)}")
        tokens = model.tokens(prompts)
        trace, recording = model.run(tokens, read=[site], last_only=True), None
        if site.kind != "embed":
            trace, recording = run_recorded(model, tokens, [site], [site], True)
        base = held(model, tokens, site, trace[site], baseline)
        matters = (base != trace[site]).flatten(2).any(-1)
        return cls(model, tokens, site, metric, base, matters, recording or tokens)

    @torch.no_grad()
    def __call__(self, kept: Bool[Tensor, "cell prompt pos"], progress: Progress = False) -> Swept:
        """The metric under each mask, a cell; masks that come to the same are run once."""
        different, where = (kept & self.matters).unique(dim=0, return_inverse=True)
        cells = [[Edit(self.site, self._keeping(mask))] for mask in different]
        found = sweep(self.model, self.start, cells, [self.metric], progress=progress)
        return replace(found, values=found.values[:, where])

    def _keeping(self, mask: Bool[Tensor, "prompt pos"]):  # type: ignore[no-untyped-def]
        wide = mask.reshape(*mask.shape, *(1,) * (self.base.ndim - 2))
        return lambda x: torch.where(wide, x, self.base)

    @property
    def present(self) -> Bool[Tensor, "prompt pos"]:
        """Where there is a token, not padding."""
        return self.tokens.mask.bool()

    def label(self, values: Float[Tensor, "prompt pos"], name: str, **how: Any) -> xr.DataArray:
        """Values by (pos, prompt) with their names; NaN at padding."""
        coords = {"pos": position_labels(self.model, self.tokens), "prompt": range(len(self.tokens))}
        return labelled(values.masked_fill(~self.present, torch.nan).T, name, coords, self.model, **how)

    def scores(self, array: xr.DataArray) -> Float[Tensor, "prompt pos"]:
        """Attributions by position as a tensor, padding last in any order.

        Raises:
            ValueError: An array of other axes than pos and prompt, or of other prompts; nothing but NaN for a prompt.
        """
        if set(array.dims) != {"pos", "prompt"} or array.sizes["pos"] != self.present.shape[1]:
            raise ValueError(
                f"an order of positions needs attributions by (pos, prompt) of these prompts, which have "
                f"{self.present.shape[1]} positions, not {dict(array.sizes)}; choose a baseline, metric or target first"
            )
        values = torch.from_numpy(array.transpose("prompt", "pos").values.copy()).to(self.base.device)
        if len(values) != len(self.tokens):
            raise ValueError(f"attributions of {len(values)} prompts were given, but {len(self.tokens)} prompts")
        if bool((unknown := (values.isnan() | ~self.present).all(-1)).any()):
            numbers = unknown.nonzero().flatten().tolist()[:5]
            raise ValueError(
                f"attributions that are NaN at all positions give no order; those of prompts {numbers} are"
            )
        return torch.where(self.present, values.nan_to_num(0), -torch.inf)


def ranks(scores: Float[Tensor, "*any pos"]) -> Tensor:
    """The place of each position in descending order, from 0 on."""
    return scores.argsort(dim=-1, descending=True, stable=True).argsort(-1)


def leave_one_out(masked: Masked) -> Float[Tensor, "prompt pos"]:
    """What the metric loses when each position alone is put to the baseline."""
    n_pos = masked.present.shape[1]
    without = ~torch.eye(n_pos, dtype=torch.bool, device=masked.base.device)[:, None]
    every = torch.ones(1, *masked.present.shape, dtype=torch.bool, device=masked.base.device)
    values = masked(torch.cat([every, without.expand(-1, len(masked.tokens), -1)])).values[0]
    return (values[:1] - values[1:]).T


def orders_at_random(
    masked: Masked, draws: int, seed: int, among: Bool[Tensor, "prompt pos"] | None = None
) -> list[Float[Tensor, "prompt pos"]]:
    """Scores that put the positions of each prompt in random orders.

    Args:
        among: The positions to be ordered, before all others; by default all tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(draws, *masked.present.shape, generator=generator).to(masked.base.device)
    return list(torch.where(masked.present if among is None else among, drawn, -torch.inf))
