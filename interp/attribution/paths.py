"""The straight path of a site's tensor from a baseline to what a run holds there, and the metric's slope along it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.edits import put
from interp.gradients import Leaves, slopes
from interp.grid import Grid
from interp.metrics import Metric
from interp.model import Model
from interp.precision import widened
from interp.recording import Recording
from interp.replay import first_difference, run_recorded
from interp.sites import Site
from interp.sweep import Cell, sweep
from interp.traces import Tokens


@dataclass(frozen=True)
class Steps:
    """What was found at some points of a path.

    Attributes:
        values: The metrics.
        slopes: How fast they change there, per length of the whole path.
        parts: What each part contributes to that.
    """

    values: Float[Tensor, "metric point prompt"]
    slopes: Float[Tensor, "metric point prompt"]
    parts: Float[Tensor, "metric point *over prompt"]

    def among(self, rows: Int[Tensor, " some"]) -> "Steps":
        """The same for some of the prompts."""
        return Steps(*(x[..., rows] for x in (self.values, self.slopes, self.parts)))

    def between(self, others: "Steps") -> "Steps":
        """These points with others that lie between them, one in each gap."""
        pairs = zip(*((x.values, x.slopes, x.parts) for x in (self, others)))
        return Steps(*(_interleaved(*pair) for pair in pairs))


@dataclass(frozen=True)
class Path:
    """From the baseline (0) to what the run of the prompts holds at a site (1).

    Attributes:
        metrics: What is measured, all of them in one forward pass for each point.
        grid: The parts of the site that get a share each.
        start, end: What the site holds at both ends.
        whole: Whether the slope is wanted only of the sum of all metrics, which takes one backward pass.
    """

    model: Model
    tokens: Tokens
    metrics: Sequence[Metric]
    grid: Grid
    start: Tensor
    end: Tensor
    whole: bool = False

    @property
    def site(self) -> Site:
        return self.grid.sites[0]

    def among(self, rows: Int[Tensor, " some"]) -> "Path":
        """The same path of some of the prompts."""
        metrics = [metric.among(rows, len(self.tokens)) for metric in self.metrics]
        some = self.tokens.rows(rows)
        return replace(self, tokens=some, metrics=metrics, start=self.start[rows], end=self.end[rows])

    @cached_property
    def base(self) -> Tokens | Recording:
        """What a sweep starts from: above the embedding, a recording, so that only blocks from the site on are run."""
        if self.site.kind == "embed":
            return self.tokens
        return run_recorded(self.model, self.tokens, [self.site], [], True)[1] or self.tokens

    def ends(self, budget: int | None) -> Float[Tensor, "metric end prompt"]:
        """The metrics at the baseline and at the end of the path."""
        values = sweep(self.model, self.base, [[put(self.site, self.start)], []], self.metrics, budget, progress=False)
        return self._summed(values.values)

    def steps(self, points: Sequence[float], budget: int | None) -> Iterator[Steps]:
        """The path's points, one by one, several of them in each pass."""
        first = min(int(first_difference(self.site, self.start, self.end).min()), self.end.shape[self._along] - 1)
        part = self._from(first)
        start, end = self.start[part], self.end[part]
        difference = widened(end - start)

        def cells() -> Iterator[tuple[Cell, Leaves]]:
            for point in points:
                leaf = torch.lerp(start, end, point).requires_grad_()
                yield [put(self.site, leaf, **{self.site.along: slice(first, None)})], [leaf]

        for found in slopes(self.model, self.base, self.metrics, cells(), budget, self.whole):
            shares = [difference * gradient for (gradient,) in found.gradients]
            parts = torch.stack([self._collect(share, first) for share in shares])
            total = torch.stack([share.flatten(1).sum(1) for share in shares])
            yield Steps(self._summed(found.values)[:, None], total[:, None], parts[:, None])

    @property
    def _along(self) -> int:
        return self.site.axes.index(self.site.along)

    def _from(self, first: int) -> tuple[slice, ...]:
        """The site's tensor from a position on."""
        return (*[slice(None)] * self._along, slice(first, None))

    def _collect(self, share: Tensor, first: int) -> Tensor:
        """A share for each entry of the site from a position on, summed over what parts take whole: (*over, prompt)."""
        every = share.new_zeros(self.end.shape)
        every[self._from(first)] = share
        return self.grid.total(every, self.site.axes, self.tokens)

    def _summed(self, values: Tensor) -> Tensor:
        return values.sum(0, keepdim=True) if self.whole else values


def joined(steps: Sequence[Steps]) -> Steps:
    """Several points, in the order given."""
    pairs = zip(*((x.values, x.slopes, x.parts) for x in steps))
    return Steps(*(torch.cat(group, dim=1) for group in pairs))


def _interleaved(these: Tensor, others: Tensor) -> Tensor:
    both = these.new_empty(these.shape[0], these.shape[1] + others.shape[1], *these.shape[2:])
    both[:, 0::2], both[:, 1::2] = these, others
    return both
