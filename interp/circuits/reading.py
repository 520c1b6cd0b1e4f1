"""What every reader of a run reads, and its gradient at the reader's own copy of the residual stream.

The gradient at a head's copy is that at its queries, keys or values, taken back through their matrix and the norm. The
sum over the readers of a projection is what goes on down the stream, so that each matrix is passed once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.backends.listening import Expand, Listener, listening
from interp.backends.readers import Projection, Wiring
from interp.circuits.masks import normed
from interp.circuits.runs import Kept, Written
from interp.graph import Graph
from interp.traces import Tokens

_ON_CPU, _ELSEWHERE = 2**22, 2**28  # bytes that are pulled back at once: what stays in a processor's cache


@dataclass(frozen=True)
class Reading:
    """What a projection, an MLP or the final norm was given.

    Attributes:
        layer: None for the final norm.
        projection: None for an MLP and the final norm.
        stream: What it read, before its norm.
    """

    layer: int | None
    projection: Projection | None
    norm: nn.Module | None
    stream: Float[Tensor, "row pos d_model"]

    def edges(self, graph: Graph) -> tuple[int, slice]:
        """How many writers come before it, and which readers it is."""
        if self.layer is None:
            return len(graph.writers), graph.logits
        if self.projection is None:
            return graph.before_mlp(self.layer), graph.mlp(self.layer)
        first, own = graph.attention(self.layer).start, self.projection.readers
        return graph.before_attention(self.layer), slice(first + own.start, first + own.stop)

    def pull_back(
        self, gradient: Float[Tensor, "row pos features"]
    ) -> Iterator[tuple[slice, Float[Tensor, "reader row pos d_model"]]]:
        """The gradient at each reader's copy of the stream, of that at what was made of it; a few readers at a time."""
        if self.projection is None:
            yield slice(0, 1), self._through_norm(gradient[None])
            return
        n, room = len(self.projection.weight), _ON_CPU if self.stream.device.type == "cpu" else _ELSEWHERE
        few = max(1, room // self.stream.nbytes)
        for i in range(0, n, few):
            some = slice(i, min(i + few, n))
            yield some, self._through_norm(self.projection.pull_back(gradient, some))

    def _through_norm(self, gradient: Tensor) -> Tensor:
        if self.norm is None:
            return gradient
        with torch.enable_grad():
            copies = self.stream.expand_as(gradient).detach().requires_grad_()
            return torch.autograd.grad(normed(self.norm, copies), copies, gradient)[0]


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
        read = Read(wiring, 0, None)
        with listening(wiring, read, tokens.ids.shape[1]):
            wiring.model.run(tokens, last_only=True)
        return cls(1.0, [reading.stream for reading in read.readings])

    def at(self, share: float) -> "Mixed":
        """The same, another share of the way."""
        return replace(self, share=share)


class Read(Listener):
    """Keeps what is written and what is read, and hears of gradients in the backward pass."""

    def __init__(self, wiring: Wiring, start: int, mixed: Mixed | None) -> None:
        self.wiring, self.start, self._mixed = wiring, start, mixed
        self.kept = Kept()
        self.readings: list[Reading] = []
        self.hear: Callable[[Reading, Tensor], Tensor] | None = None

    @property
    def written(self) -> Written:
        """What the writers added, from the first position on at which gradients are wanted."""
        return self.kept.written.since(self.start)

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
        reading = Reading(layer, projection, norm, stream.detach()[:, self.start :])
        self.readings.append(reading)

        def back(gradient: Tensor) -> Tensor:
            assert self.hear is not None
            total = self.hear(reading, gradient[:, self.start :])
            return nn.functional.pad(total, (0, 0, self.start, 0))  # nothing before it is asked for

        return _Reader.apply(stream, made.detach(), back)


class _Reader(torch.autograd.Function):
    """What was made of the stream, with a backward pass of its own to the stream."""

    @staticmethod
    def forward(ctx: Any, stream: Tensor, made: Tensor, back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.back = back
        return made.clone()  # some families write into it

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        with torch.no_grad():
            return ctx.back(gradients[0]), None, None
