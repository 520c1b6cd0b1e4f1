"""The edges between writers and readers of the residual stream: one mask over them, and its gradient.

`x_reader += sum over writers of mask[writer, reader] * (other run's writer - this run's)`, with every reader's own norm
on its own copy of the stream. A circuit is a mask of zeros and ones; a learned mask is one that wants a gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.backends.listening import Expand, Listener, listening
from interp.backends.readers import Projection, Wiring
from interp.metrics import Metric
from interp.model import Model
from interp.traces import Tokens

Writers = Float[Tensor, "prompt writer pos d_model"]


@dataclass(frozen=True)
class Written:
    """What the writers of a run add to the residual stream, heads as their `z`, which takes less room.

    Attributes:
        pieces: By module, in the order of the forward pass.
        expand: How each becomes what its writers add.
    """

    pieces: Sequence[Float[Tensor, "prompt pos d"]]
    expand: Sequence[Expand]

    def minus(self, other: "Written", start: int = 0) -> "Written":
        """The difference to another run, from a position on."""
        pairs = zip(self.pieces, other.pieces, strict=True)
        return Written([(one - two)[:, start:] for one, two in pairs], self.expand)

    @property
    def embed(self) -> Float[Tensor, "prompt pos d_model"]:
        """What enters the first block."""
        return self.pieces[0]

    def tensor(self) -> Writers:
        """What every writer adds."""
        return torch.cat([expand(piece) for piece, expand in zip(self.pieces, self.expand)], dim=1)


@torch.no_grad()
def written(model: Model, wiring: Wiring, tokens: Tokens, metric: Metric) -> tuple[Written, Float[Tensor, " prompt"]]:
    """What every writer of a run adds to the residual stream, and the metric of the run."""
    kept = Kept()
    with listening(wiring, kept, tokens.ids.shape[1]):
        trace = model.run(tokens, last_only=metric.last_only)
    return kept.written, metric(trace)


def masked(
    model: Model,
    wiring: Wiring,
    tokens: Tokens,
    other: Writers,
    masks: Float[Tensor, "set writer reader"] | Float[Tensor, "set pos writer reader"],
    metric: Metric,
) -> Float[Tensor, "set prompt"]:
    """The metric of a run in which some edges carry what they carried in another, for several sets at once.

    Args:
        tokens: The prompts of this run.
        other: What every writer added in the other run.
        masks: How much of each edge is taken from the other run, 0 to 1; gradients reach it.
    """
    n_sets, n = len(masks), len(tokens)
    rows = torch.arange(n, device=tokens.ids.device).repeat(n_sets)
    masks = masks.to(other)
    listener = _Masked(wiring, other, masks)
    with listening(wiring, listener, tokens.ids.shape[1]):
        trace = model.run(tokens.rows(rows), grad=masks.requires_grad, last_only=metric.last_only)
    return metric.over_cells(metric.position(trace.tokens, trace.logits).unflatten(0, (n_sets, n)))


class Kept(Listener):
    """Keeps what is written, and leaves everything as it is."""

    def __init__(self) -> None:
        self._pieces: list[Tensor] = []
        self._expand: list[Expand] = []

    @property
    def written(self) -> Written:
        """What the writers added, once the run is over."""
        return Written(self._pieces, self._expand)

    def write(self, first: int, piece: Tensor, expand: Expand) -> None:
        self._pieces.append(piece.detach())
        self._expand.append(expand)

    def read_attention(self, layer: int, projection: Projection, stream: Tensor, output: Tensor) -> Tensor | None:
        return None

    def read_mlp(self, layer: int, stream: Tensor, entering: Tensor) -> Tensor | None:
        return None

    def read_logits(self, stream: Tensor) -> Tensor | None:
        return None


class _Masked(Listener):
    """Gives every reader its own copy of the stream, with what the masked edges carried in the other run."""

    def __init__(self, wiring: Wiring, other: Tensor, masks: Tensor) -> None:
        self.wiring, self.other, self.masks = wiring, other, masks
        self._used = (masks.detach() != 0).flatten(0, -3).any(0).cpu() | masks.requires_grad
        self._pieces: list[Tensor] = []
        self._room = None if masks.requires_grad else other.new_empty(len(masks), *other.shape)

    def write(self, first: int, piece: Tensor, expand: Expand) -> None:
        values = expand(piece)
        upto = first + values.shape[1]
        difference = self.other[:, first:upto] - values.unflatten(0, (len(self.masks), -1))
        if self._room is None:
            self._pieces.append(difference)
        else:
            self._room[:, :, first:upto] = difference

    def read_attention(self, layer: int, projection: Projection, stream: Tensor, output: Tensor) -> Tensor | None:
        graph = self.wiring.graph
        first = graph.attention(layer).start
        readers = slice(first + projection.readers.start, first + projection.readers.stop)
        streams = self._copies(stream, graph.before_attention(layer), readers)
        return None if streams is None else projection.of(normed(self.wiring.layers[layer].attn_norm, streams))

    def read_mlp(self, layer: int, stream: Tensor, entering: Tensor) -> Tensor | None:
        graph = self.wiring.graph
        streams = self._copies(stream, graph.before_mlp(layer), graph.mlp(layer))
        return None if streams is None else normed(self.wiring.layers[layer].mlp_norm, streams[:, 0])

    def read_logits(self, stream: Tensor) -> Tensor | None:
        graph = self.wiring.graph
        streams = self._copies(stream, len(graph.writers), graph.logits)
        return None if streams is None else streams[:, 0]

    def _copies(self, stream: Tensor, upto: int, readers: slice) -> Tensor | None:
        """The stream as each reader has it, (row, reader, pos, d_model); None if all have it as it is."""
        if not bool(self._used[:upto, readers].any()):
            return None
        differences = torch.cat(self._pieces, 2) if self._room is None else self._room
        masks, axes = self.masks[..., :upto, readers], "gsr" if self.masks.ndim == 3 else "gpsr"
        return stream[:, None] + torch.einsum(f"gnspd,{axes}->gnrpd", differences[:, :, :upto], masks).flatten(0, 1)


def normed(norm: nn.Module | None, streams: Tensor) -> Tensor:
    """What a norm makes of streams, without telling its hooks."""
    return streams if norm is None else norm.forward(streams)
