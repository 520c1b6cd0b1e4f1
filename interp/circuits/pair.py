"""A clean and a corrupt run, one of which is patched with edges of the other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, labelled, position_labels
from interp.backends.readers import Wiring, wiring_of
from interp.circuits.masks import masked, written
from interp.contrast import DIRECTIONS
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.progress import Progress, bar
from interp.traces import Tokens, check_aligned

BUDGET = 2**28  # bytes that one pass may take; larger passes are no faster


@dataclass(frozen=True)
class Pair:
    """The prompts of the run that is patched and of the other one, on a model whose edges are known."""

    model: Model
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
        return cls(model, wiring, *((corrupt, clean) if direction == "denoising" else (clean, corrupt)), direction)

    def most(self, budget: int) -> int:
        """How many sets of edges are tried in one pass, by a generous guess of what each takes."""
        names, shape = self.wiring.graph, self.model.shape
        copies = len(names.writers) + 4 * names.attention(0).stop + 24
        each = self.this.ids.shape[1] * shape.d_model * copies + shape.d_vocab
        return max(1, budget // (4 * each * len(self.this)))

    @property
    def start(self) -> int:
        """The first position at which the prompts differ: before it, both runs of a causal model write the same."""
        differs = (self.this.ids != self.other.ids).any(0)
        return int(differs.int().argmax()) if bool(differs.any()) else len(differs) - 1

    @torch.no_grad()
    def tried(self, chunks: Iterable[Tensor], n: int, metric: Metric, progress: Progress) -> tuple[Tensor, int]:
        """The change in the metric under each of n masks, (set, prompt), and in how many passes it was found."""
        other, _ = written(self.model, self.wiring, self.other, metric)
        _, before = written(self.model, self.wiring, self.this, metric)
        writers, values = other.tensor(), list[Tensor]()
        with bar(n, "sets of edges", progress) as advance:
            for masks in chunks:
                values.append(masked(self.model, self.wiring, self.this, writers, masks, metric) - before)
                advance(len(masks))
        return torch.cat(values), len(values)

    def masks(self, sets: Mapping[str, Tensor]) -> Float[Tensor, "set *pos writer reader"]:
        """Masks as one tensor, once they are seen to fit."""
        if not sets:
            raise ValueError("no set of edges was given; give some by name, such as {'all': graph(model).mask()}")
        for name, mask in sets.items():
            self.wiring.graph.check(name, mask, self.this.ids.shape[1])
        if len({mask.ndim for mask in sets.values()}) > 1:
            raise ValueError("some sets of edges have positions and others have none; try them in two calls")
        return torch.stack([mask.detach() for mask in sets.values()])

    def scores(self, values: Tensor, metric: Metric, checks: Sequence[Check] = (), **how: Any) -> xr.DataArray:
        """Values (prompt, [pos,] writer, reader) as a labelled array; positions that they lack at the front hold 0."""
        names = self.wiring.graph
        coords: dict[str, Sequence[Any]] = {"prompt": range(len(self.this))}
        if values.ndim == 4:
            before = torch.zeros_like(values[:, :1]).where(names.precedes.to(values.device), float("nan"))
            before = before.expand(-1, self.this.ids.shape[1] - values.shape[1], -1, -1)
            values = torch.cat([before, values], dim=1)
            values = values.masked_fill(self.this.mask[:, :, None, None] == 0, float("nan"))
            clean = self.other if self.direction == "denoising" else self.this
            coords["pos"] = position_labels(self.model, clean)
        coords |= {"writer": names.writers, "reader": names.readers}
        how |= {"direction": self.direction, "metric": metric.name}
        return labelled(values, f"change in {metric.name}", coords, self.model, checks, **how)
