"""The gradient of a metric at every reader's own copy of the residual stream, without making the copies.

The gradient at a head's copy is that at its queries, keys or values, taken back through their matrix and the norm.
Times what a writer adds in another run less what it adds in this one, it is the gradient of the mask at zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.backends.listening import Expand, Listener, listening
from interp.backends.readers import Projection, Wiring
from interp.circuits.masks import normed
from interp.circuits.runs import Kept, Run, Written
from interp.edits import Edit, put
from interp.graph import Graph
from interp.recording import entering
from interp.sites import Site
from interp.traces import Tokens


@dataclass(frozen=True)
class _Reading:
    """What a projection, an MLP or the final norm was given, and what it made of it.

    Attributes:
        layer: None for the final norm.
        projection: None for an MLP and the final norm.
        stream: What it read, before its norm.
        made: What a projection returned; what an MLP was given, normed; the stream for the final norm.
    """

    layer: int | None
    projection: Projection | None
    norm: nn.Module | None
    stream: Float[Tensor, "row pos d_model"]
    made: Float[Tensor, "row all_pos features"]

    def edges(self, graph: Graph) -> tuple[slice, slice]:
        """The writers that come before it, and which readers it is."""
        if self.layer is None:
            return slice(None), graph.logits
        if self.projection is None:
            return slice(graph.before_mlp(self.layer)), graph.mlp(self.layer)
        first, own = graph.attention(self.layer).start, self.projection.readers
        return slice(graph.before_attention(self.layer)), slice(first + own.start, first + own.stop)

    def pull_back(self, gradient: Float[Tensor, "row pos features"]) -> Float[Tensor, "row pos reader d_model"]:
        """The gradient at each reader's copy of the stream, of that at what was made."""
        by_reader = gradient[:, :, None] if self.projection is None else self.projection.pull_back(gradient)
        if self.norm is None:
            return by_reader
        with torch.enable_grad():
            copies = self.stream[:, :, None].expand_as(by_reader).detach().requires_grad_()
            return torch.autograd.grad(normed(self.norm, copies), copies, by_reader)[0]


@dataclass(frozen=True)
class Gradients:
    """The gradient of a metric at every reader's own copy of the residual stream; pulled back one by one when needed.

    Attributes:
        readings: All of them, in the order of the forward pass.
        found: The gradient at what each made, of rows that are the prompts once for each point.
        metric: Its values at the points.
        written: What the writers added, from the first position on at which gradients are wanted.
    """

    graph: Graph
    readings: Sequence[_Reading]
    found: Sequence[Float[Tensor, "row pos _"]]
    metric: Float[Tensor, "point prompt"]
    written: Written

    @torch.no_grad()
    def dot(self, difference: Float[Tensor, "prompt pos writer d_model"], positions: bool) -> Tensor:
        """Every writer's difference times every reader's gradient, (prompt, [pos,] writer, reader).

        Without positions they are summed over, and points always. An edge that there is not holds NaN.
        """
        sizes = (*difference.shape[: 1 + positions], *self.graph.precedes.shape)
        scores = difference.new_full(sizes, float("nan"))
        for reading, found in zip(self.readings, self.found, strict=True):
            writers, readers = reading.edges(self.graph)
            gradient = reading.pull_back(found).unflatten(0, (-1, len(difference)))
            product = torch.einsum("npwd,knprd->npwr", difference[:, :, writers], gradient)
            scores[..., writers, readers] = product if positions else product.sum(1)
        return scores


def gradients(
    run: Run,
    tokens: Tokens,
    start: int = 0,
    weights: Float[Tensor, " point"] | None = None,
    resid: Float[Tensor, "row pos d_model"] | None = None,
    edits: Sequence[Edit] = (),
    mixed: "Mixed | None" = None,
) -> Gradients:
    """The gradient of a run's metric at every reader, for other prompts that are the same up to a position.

    Where the model allows it, what comes before that position is taken from the run.

    Args:
        start: The first position at which the prompts differ, and gradients are wanted.
        weights: How the gradients of several points are summed; by default there is one.
        resid: What enters the first block, of rows that are the prompts once for each point.
        edits: Of such rows.
        mixed: What every reader reads instead.

    Raises:
        ValueError: A metric that has no gradient.
    """
    wiring, metric, n = run.wiring, run.metric, len(tokens)
    weights = torch.ones(1) if weights is None else weights
    if run.recording is None or edits:
        read = _Read(wiring, start, mixed)
        rows = tokens.rows(torch.arange(n, device=tokens.ids.device).repeat(len(weights)))
        edits = edits if resid is None else [put(Site("resid_pre", 0), resid.requires_grad_())]
        with listening(wiring, read, tokens.ids.shape[1]):
            trace = wiring.model.run(rows, edits=edits, grad=True, last_only=metric.last_only)
        with torch.enable_grad():
            values = metric.over_cells(metric.position(rows, trace.logits).unflatten(0, (-1, n)))
    else:
        read = _Read(wiring, 0, mixed)
        resid = entering(wiring.model, tokens) if resid is None else resid
        resid = resid[:, start:].detach().requires_grad_()
        values = run.again(read, len(weights), start=start, grad=True, resid=resid)
    if not values.requires_grad:
        raise ValueError(f"{metric.name} has no gradient; make it of differentiable operations on the logits")
    total = (weights.to(values) @ values).sum()
    # Edits may cut off the readers below them; that any other is cut off would be a mistake.
    found = torch.autograd.grad(total, [reading.made for reading in read.readings], materialize_grads=bool(edits))
    found = [gradient[:, read.start :] for gradient in found]
    return Gradients(wiring.graph, read.readings, found, values.detach(), read.kept.written.since(read.start))


@dataclass(frozen=True)
class Mixed:
    """What every reader reads: the stream, moved towards that of another run.

    Attributes:
        share: How far.
        streams: The other run's at every reading, in the order of the forward pass.
    """

    share: float
    streams: Sequence[Float[Tensor, "prompt pos d_model"]]

    @classmethod
    @torch.no_grad()
    def whole(cls, wiring: Wiring, tokens: Tokens) -> "Mixed":
        """All the way to a run of other prompts."""
        read = _Read(wiring, 0, None)
        with listening(wiring, read, tokens.ids.shape[1]):
            wiring.model.run(tokens, last_only=True)
        return cls(1.0, [reading.stream for reading in read.readings])

    def at(self, share: float) -> "Mixed":
        """The same, another share of the way."""
        return replace(self, share=share)


class _Read(Listener):
    """Keeps what is written and what is read."""

    def __init__(self, wiring: Wiring, start: int, mixed: Mixed | None) -> None:
        self.wiring, self.start, self._mixed = wiring, start, mixed
        self.kept = Kept()
        self.readings: list[_Reading] = []

    def write(self, first: int, piece: Tensor, expand: Expand) -> None:
        self.kept.write(first, piece, expand)

    def read_attention(self, layer: int, projection: Projection, stream: Tensor, output: Tensor) -> Tensor | None:
        norm = self.wiring.layers[layer].attn_norm
        stream, moved = self._moved(stream)
        made = projection.module.forward(normed(norm, stream)) if moved else output
        return self._keep(layer, projection, norm, stream, made)

    def read_mlp(self, layer: int, stream: Tensor, entering: Tensor) -> Tensor | None:
        norm = self.wiring.layers[layer].mlp_norm
        stream, moved = self._moved(stream)
        return self._keep(layer, None, norm, stream, normed(norm, stream) if moved else entering)

    def read_logits(self, stream: Tensor) -> Tensor | None:
        stream, _ = self._moved(stream)
        return self._keep(None, None, None, stream, stream)

    def _moved(self, stream: Tensor) -> tuple[Tensor, bool]:
        if self._mixed is None:
            return stream, False
        other = self._mixed.streams[len(self.readings)][:, -stream.shape[1] :]
        return torch.lerp(stream, other, self._mixed.share), True

    def _keep(
        self, layer: int | None, projection: Projection | None, norm: nn.Module | None, stream: Tensor, made: Tensor
    ) -> Tensor:
        own = made.view_as(made)  # others may read the same tensor: the gradient wanted is this reader's alone
        self.readings.append(_Reading(layer, projection, norm, stream.detach()[:, self.start :], own))
        return own.clone()  # some families write into it
