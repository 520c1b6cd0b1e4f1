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
from interp.backends.readers import Layer, Projection, Wiring
from interp.circuits.masks import normed
from interp.circuits.runs import Kept, Run, Writers, Written
from interp.edits import Edit, put
from interp.graph import Graph
from interp.recording import entering
from interp.sites import Site
from interp.traces import Tokens


@dataclass(frozen=True)
class Gradients:
    """The gradient of a metric at every reader's own copy of the residual stream.

    Attributes:
        attention: By layer, at the queries, keys and values.
        mlps: By layer.
        logits: At the stream that enters the final norm.
        metric: Its values, one for each point at which the gradient was taken.
        written: What the writers added, from the first position on at which gradients are wanted.
    """

    graph: Graph
    attention: Sequence[Float[Tensor, "prompt reader pos d_model"]]
    mlps: Sequence[Float[Tensor, "prompt pos d_model"]]
    logits: Float[Tensor, "prompt pos d_model"]
    metric: Float[Tensor, "point prompt"]
    written: Written

    @torch.no_grad()
    def dot(self, difference: Writers, positions: bool) -> Tensor:
        """Every writer's difference times every reader's gradient, (prompt, [pos,] writer, reader).

        Without positions they are summed over. An edge that there is not holds NaN.
        """
        graph, into = self.graph, "bps" if positions else "bs"
        sizes = (len(difference), *difference.shape[2:3][: int(positions)], *graph.precedes.shape)
        scores = difference.new_full(sizes, float("nan"))

        def put(upto: int, readers: slice, gradient: Tensor) -> None:
            product = torch.einsum(f"bspd,brpd->{into}r", difference[:, :upto], gradient)
            scores[..., :upto, readers] = product

        for i, (attention, mlp) in enumerate(zip(self.attention, self.mlps)):
            put(graph.before_attention(i), graph.attention(i), attention)
            put(graph.before_mlp(i), graph.mlp(i), mlp[:, None])
        put(len(graph.writers), graph.logits, self.logits[:, None])
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
    read.differentiate(values.sum(), weights.to(values), cut=bool(edits))
    written = read.kept.written.since(read.start)
    return Gradients(wiring.graph, read.attention, read.mlps, read.logits, values.detach(), written)


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
        return cls(1.0, [stream for _, _, stream, _ in read.reads])

    def at(self, share: float) -> "Mixed":
        """The same, another share of the way."""
        return replace(self, share=share)


class _Read(Listener):
    """Keeps what is written and what is read."""

    def __init__(self, wiring: Wiring, start: int, mixed: Mixed | None) -> None:
        self.wiring, self.start, self._mixed = wiring, start, mixed
        self.kept = Kept()
        self.reads: list[tuple[Layer | None, Projection | None, Tensor, Tensor]] = []
        self.attention: list[Tensor] = []
        self.mlps: list[Tensor] = []

    def write(self, first: int, piece: Tensor, expand: Expand) -> None:
        self.kept.write(first, piece, expand)

    def read_attention(self, layer: int, projection: Projection, stream: Tensor, output: Tensor) -> Tensor | None:
        own = self.wiring.layers[layer]
        stream, moved = self._moved(stream)
        if moved:
            output = projection.module.forward(normed(own.attn_norm, stream))
        return self._keep(own, projection, stream, output)

    def read_mlp(self, layer: int, stream: Tensor, entering: Tensor) -> Tensor | None:
        own = self.wiring.layers[layer]
        stream, moved = self._moved(stream)
        return self._keep(own, None, stream, normed(own.mlp_norm, stream) if moved else entering)

    def read_logits(self, stream: Tensor) -> Tensor | None:
        stream, _ = self._moved(stream)
        return self._keep(None, None, stream, stream)

    def _moved(self, stream: Tensor) -> tuple[Tensor, bool]:
        if self._mixed is None:
            return stream, False
        other = self._mixed.streams[len(self.reads)][:, -stream.shape[1] :]
        return torch.lerp(stream, other, self._mixed.share), True

    def _keep(self, layer: Layer | None, projection: Projection | None, stream: Tensor, read: Tensor) -> Tensor | None:
        own = read.view_as(read)  # others may read the same tensor: the gradient wanted is this reader's alone
        self.reads.append((layer, projection, stream.detach()[:, self.start :], own))
        return own.clone()  # some families write into it

    def differentiate(self, total: Tensor, weights: Tensor, cut: bool) -> None:
        """Take the gradients, each pulled back through its reader's norm, and sum them over points."""
        # Edits may cut off the readers below them; that any other is cut off would be a mistake.
        found = torch.autograd.grad(total, [read for *_, read in self.reads], materialize_grads=cut)
        average = lambda gradient: torch.einsum("k,kn...->n...", weights, gradient.unflatten(0, (len(weights), -1)))
        heads: list[Tensor] = []
        for (layer, projection, stream, _), full in zip(self.reads, found):
            gradient = full[:, self.start :]
            if layer is None:
                self.logits = average(gradient)
            elif projection is None:
                self.mlps.append(average(_through(layer.mlp_norm, stream, gradient[:, None])[:, 0]))
                self.attention.append(torch.cat(heads, dim=1))
                heads = []
            else:
                heads.append(average(_through(layer.attn_norm, stream, projection.pull_back(gradient))))


def _through(norm: nn.Module | None, stream: Tensor, gradient: Float[Tensor, "row reader pos d_model"]) -> Tensor:
    """The gradient at each reader's copy of the stream, of that at the normed copy."""
    if norm is None:
        return gradient
    with torch.enable_grad():
        copies = stream[:, None].expand_as(gradient).detach().requires_grad_()
        return torch.autograd.grad(normed(norm, copies), copies, gradient)[0]
