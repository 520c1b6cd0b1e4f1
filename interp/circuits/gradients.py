"""The gradient of a metric at every reader, times what a writer adds in another run less what it adds in this one.

That is the gradient of the mask over edges at zero, had for all edges in one backward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.backends.listening import listening
from interp.backends.readers import Wiring
from interp.circuits.reading import Mixed, Read, Reading
from interp.circuits.runs import Run, Written
from interp.circuits.together import Together
from interp.edits import Edit, put
from interp.graph import Graph
from interp.metrics import Metric, as_metric
from interp.recording import entering
from interp.replay import way_of
from interp.sites import Site
from interp.traces import Tokens

_FEW = 96  # tokens; more of them pay for reading a matrix, and gain nothing by company


@dataclass(frozen=True)
class Forward:
    """A forward pass whose backward pass is still to come.

    Attributes:
        values: Of the metric.
        leaf: What gradients go down to.
        partial: Whether edits may cut off the readers below them.
    """

    read: Read
    metric: Metric
    values: Float[Tensor, "point prompt"]
    leaf: Float[Tensor, "row pos d"]
    partial: bool = False

    def scores(
        self, difference: Float[Tensor, "prompt pos writer d_model"], weights: Float[Tensor, " point"], positions: bool
    ) -> Float[Tensor, "prompt *pos writer reader"]:
        """Every writer's difference times every reader's gradient; to be had once.

        Points are summed over with their weights, and positions unless they are asked for. An edge that there is not
        holds NaN.

        Raises:
            ValueError: A metric that has no gradient.
        """
        self.metric.check_gradient(self.values)
        self.metric.check_numbers(self.values)
        scores = _Scores(self.read.wiring.graph, difference, positions)
        self.read.hear = scores.hear
        with torch.enable_grad():
            total = (weights.to(self.values) @ self.values).sum()
        torch.autograd.grad(total, self.leaf)
        scores.finish()
        if scores.heard < len(self.read.readings) and not self.partial:
            raise RuntimeError(f"{len(self.read.readings) - scores.heard} readers have no gradient in this run")
        return scores.values


class _Scores:
    """Products of writers' differences and readers' gradients, made as the gradients come in."""

    def __init__(self, graph: Graph, difference: Float[Tensor, "prompt pos writer d_model"], positions: bool) -> None:
        self.graph, self.difference, self.positions = graph, difference, positions
        self.there = graph.precedes.to(difference.device)
        none = torch.zeros_like(self.there, dtype=difference.dtype).masked_fill_(~self.there, float("nan"))
        self.values = none.repeat(*difference.shape[: 1 + positions], 1, 1)
        self.heard = 0
        self._single: dict[int, Tensor] = {}

    def hear(self, reading: Reading, gradient: Tensor) -> Float[Tensor, "row pos d_model"]:
        """Take in the gradient at what a reading made, and give that at the stream."""
        self.heard += 1
        writers, readers = reading.edges(self.graph)
        if reading.projection is None:
            ((_, pulled),) = reading.pull_back(gradient)
            self._single[readers.start] = pulled
            return pulled[0]
        total = torch.zeros_like(reading.stream)
        values = self.values[..., :writers, readers]
        for some, pulled in reading.pull_back(gradient):
            total += pulled.sum(0)
            values[..., some] = self._products(pulled, writers)
        return total

    def finish(self) -> None:
        """Take in the readers that are alone at their places, all in one product."""
        readers = torch.tensor(list(self._single), device=self.values.device)
        products = self._products(torch.cat(list(self._single.values())), len(self.there))
        self.values[..., readers] = products.masked_fill_(~self.there[:, readers], float("nan"))

    def _products(
        self, pulled: Float[Tensor, "reader row pos d_model"], writers: int
    ) -> Float[Tensor, "prompt *pos writer reader"]:
        """Of the first so many writers and some readers, summed over points."""
        before = self.difference[:, :, :writers]
        points = pulled.reshape(len(pulled), -1, *before.shape[:2], before.shape[3])
        product = torch.einsum("npwd,rknpd->npwr", before, points)
        return product if self.positions else product.sum(1)


def beside(
    wiring: Wiring, other: Tokens, this: Tokens, metric: Metric, start: int
) -> tuple[Written, Float[Tensor, " prompt"], Forward]:
    """How much more one run writes than other prompts from the first different position on; its metric; their pass.

    Where the model allows it and tokens are few, both are one pass; what comes before that position is run once anyway.
    """
    as_metric(metric)
    if way_of(wiring.model) != "packed" or other.ids.numel() > _FEW:
        run = Run.of(wiring, other, metric)
        found = forward(run, this, start)
        return run.pieces.since(start).minus(found.read.written), run.values, found
    read = Read(wiring, other.ids.numel(), None)
    both = Together(wiring, other.followed_by(this), start, read)
    with torch.enable_grad():
        there, here = both.metric(metric).tensor_split(2)
    return both.difference(read.kept.written), there[0].detach(), Forward(read, metric, here, both.leaf)


def forward(
    run: Run,
    tokens: Tokens,
    start: int = 0,
    leaf: Float[Tensor, "row pos d"] | None = None,
    edits: Sequence[Edit] = (),
    mixed: Mixed | None = None,
) -> Forward:
    """The forward pass of other prompts that are the same as a run's up to a position.

    Where the model allows it, what comes before that position is taken from the run.

    Args:
        start: The first position at which the prompts differ, and gradients are wanted.
        leaf: What enters the first block or, with `edits`, what these put elsewhere; for rows that are the prompts once
            for each point.
        edits: Of such rows.
        mixed: What every reader reads instead.
    """
    wiring, metric, n = run.wiring, run.metric, len(tokens)
    leaf = entering(wiring.model, tokens) if leaf is None else leaf
    if run.recording is not None and not edits:
        read = Read(wiring, 0, mixed)
        leaf = leaf[:, start:].detach().requires_grad_()
        return Forward(read, metric, run.again(read, len(leaf) // n, start=start, grad=True, resid=leaf), leaf)
    read = Read(wiring, start, mixed)
    leaf = leaf if edits else leaf.detach().requires_grad_()
    rows = tokens.rows(torch.arange(n, device=tokens.ids.device).repeat(len(leaf) // n))
    with listening(wiring, read, tokens.ids.shape[1]):
        put_in = edits or [put(Site("resid_pre", 0), leaf)]
        trace = wiring.model.run(rows, edits=put_in, grad=True, last_only=metric.last_only)
    with torch.enable_grad():
        values = metric.over_cells(metric.position(rows, trace.logits).unflatten(0, (-1, n)))
    return Forward(read, metric, values, leaf, partial=bool(edits))
