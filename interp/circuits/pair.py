"""A clean and a corrupt run, one of which is patched with edges of the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from interp.arrays import Check, labelled, position_labels
from interp.backends.readers import Wiring, wiring_of
from interp.circuits.ablations import first_difference
from interp.circuits.masks import Exchange
from interp.circuits.runs import Run, written
from interp.contrast import DIRECTIONS
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.traces import Tokens, check_aligned


@dataclass(frozen=True)
class Pair:
    """The prompts of the run that is patched and of the other one, on a model whose edges are known."""

    wiring: Wiring
    this: Tokens
    other: Tokens
    direction: str

    @classmethod
    def of(cls, model: Model, clean: Prompts, corrupt: Prompts, direction: str) -> "Pair":
        """Clean and corrupt prompts: in denoising the corrupt run is patched, in noising the clean one.

        Raises:
            ValueError: Prompts that do not match position by position; an unknown direction; what `wiring_of` raises.
        """
        if direction not in DIRECTIONS:
            raise ValueError(f"unknown direction {direction!r}; choose from {', '.join(DIRECTIONS)}")
        wiring = wiring_of(model)
        clean, corrupt = model.tokens(clean), model.tokens(corrupt)
        check_aligned(clean, corrupt)
        return cls(wiring, *((corrupt, clean) if direction == "denoising" else (clean, corrupt)), direction)

    @property
    def model(self) -> Model:
        """What is run: plain Hugging Face modules."""
        return self.wiring.model

    @property
    def start(self) -> int:
        """The first position at which the prompts differ."""
        return first_difference(self.this, self.other)

    def exchange(self, metric: Metric) -> Exchange:
        """This run, with what every edge carries in the other."""
        other, _ = written(self.wiring, self.other, metric)
        run = Run.of(self.wiring, self.this, metric)
        return Exchange(run, other.tensor()[None], self.start)

    def scores(self, values: Tensor, metric: Metric, checks: Sequence[Check] = (), **how: Any) -> xr.DataArray:
        """Values (prompt, [pos,] writer, reader) as a labelled array; positions before the first difference hold 0."""
        names = self.wiring.graph
        coords: dict[str, Sequence[Any]] = {"prompt": range(len(self.this))}
        if values.ndim == 4:
            before = torch.zeros_like(values[:, :1]).where(names.precedes.to(values.device), float("nan"))
            before = before.expand(-1, self.this.ids.shape[1] - values.shape[1], -1, -1)
            values = torch.cat([before, values], dim=1)
            if not bool(self.this.mask.all()):
                values.masked_fill_(self.this.mask[:, :, None, None] == 0, float("nan"))
            clean = self.other if self.direction == "denoising" else self.this
            coords["pos"] = position_labels(self.model, clean)
        coords |= {"writer": names.writers, "reader": names.readers}
        how |= {"direction": self.direction, "metric": metric.name}
        return labelled(values, f"change in {metric.name}", coords, self.model, checks, **how)
