"""Runs whose edges can be changed: what was written in them, and how to take them up again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.backends.listening import Expand, Listener, listening, whole
from interp.backends.readers import Projection, Wiring
from interp.metrics import Metric, as_metric, of_stream
from interp.model import Model
from interp.quick import quick
from interp.recording import Recording, of_tokens, record
from interp.replay import way_of
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

    def since(self, start: int) -> "Written":
        """The same from a position on."""
        return Written([piece[:, start:] for piece in self.pieces], self.expand)

    def minus(self, other: "Written") -> "Written":
        """The difference to another run."""
        return Written([one - two for one, two in zip(self.pieces, other.pieces, strict=True)], self.expand)

    @property
    def embed(self) -> Float[Tensor, "prompt pos d_model"]:
        """What enters the first block."""
        return self.pieces[0]

    def tensor(self) -> Writers:
        """What every writer adds."""
        return torch.cat([expand(piece, None) for piece, expand in zip(self.pieces, self.expand)], dim=1)

    @torch.no_grad()
    def by_position(self) -> Float[Tensor, "prompt pos writer d_model"]:
        """The same in another order, in which what happens at one position lies together."""
        parts = [expand(piece, None).transpose(1, 2) for piece, expand in zip(self.pieces, self.expand)]
        return torch.cat(parts, dim=2)


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


@torch.no_grad()
def written(wiring: Wiring, tokens: Tokens, metric: Metric) -> tuple[Written, Float[Tensor, " prompt"]]:
    """What every writer of a run adds to the residual stream, and the metric of the run."""
    kept = Kept()
    with listening(wiring, kept, tokens.ids.shape[1]):
        trace = wiring.model.run(tokens, last_only=as_metric(metric).last_only)
    return kept.written, metric(trace)


@contextmanager
def without_logits(model: Model) -> Iterator[None]:
    """For a while, let the unembedding of a Hugging Face model work on no position at all."""
    head: nn.Module = model.module.get_output_embeddings()  # type: ignore[operator]
    with model.alone:
        handle = head.register_forward_pre_hook(lambda _, args: (args[0][:, :0], *args[1:]))
        try:
            yield
        finally:
            handle.remove()


@dataclass(frozen=True)
class Run:
    """A run of some prompts, kept so that it can be run again with a listener that changes what is read.

    Attributes:
        pieces: What the writers added.
        values: The metric.
        recording: Where the model allows it, what is needed to take the run up at any block and position.
    """

    wiring: Wiring
    tokens: Tokens
    metric: Metric
    pieces: Written
    values: Float[Tensor, " prompt"]
    recording: Recording | None

    @classmethod
    @torch.no_grad()
    def of(cls, wiring: Wiring, tokens: Tokens, metric: Metric) -> "Run":
        """Run the prompts and keep the run."""
        if way_of(wiring.model) != "packed":
            found, values = written(wiring, tokens, metric)
            return cls(wiring, tokens, metric, found, values, None)
        as_metric(metric)
        kept = Kept()
        with listening(wiring, kept, tokens.ids.shape[1]), without_logits(wiring.model):
            recording = record(wiring.model, tokens, (), packed=True)
        (values,) = of_stream(metric, wiring.model, metric.position(tokens, recording.stream[-1]), len(tokens))
        metric.check_numbers(values)
        return cls(wiring, tokens, metric, kept.written, values, recording)

    @cached_property
    def written(self) -> Writers:
        """What every writer added."""
        return self.pieces.tensor()

    @property
    def model(self) -> Model:
        """What is run."""
        return self.wiring.model

    def again(
        self,
        listener: Listener,
        n_sets: int,
        first: int = 0,
        start: int = 0,
        grad: bool = False,
        resid: Float[Tensor, "row pos d_model"] | None = None,
    ) -> Float[Tensor, "set prompt"]:
        """The metric of as many variants of the run as there are sets, in rows set by set.

        Args:
            listener: What changes the readers; it is told of positions from `start` on alone if there is a recording.
            first, start: The first layer and the first position at which a variant may differ from the run.
            grad: Keep the graph.
            resid: Of a run with a recording, what enters the first layer from `start` on, if it is not the run's.
        """
        n, n_pos = self.tokens.ids.shape
        rows = torch.arange(n, device=self.tokens.ids.device).repeat(n_sets)
        tokens = self.tokens.rows(rows)
        if self.recording is None:
            with listening(self.wiring, listener, n_pos):
                trace = self.model.run(tokens, grad=grad, last_only=self.metric.last_only)
            return self.metric.over_cells(self.metric.position(tokens, trace.logits).unflatten(0, (n_sets, n)))
        with torch.set_grad_enabled(grad):
            begun = self.recording.stream[first][rows, start:] if resid is None else resid
            last = self._taken_up(self.recording, listener, rows, first, start, begun)
            final = torch.cat([self.recording.stream[-1][rows, :start], last], dim=1)
            return of_stream(self.metric, self.model, self.metric.position(tokens, final), n)

    def _taken_up(
        self, recording: Recording, listener: Listener, rows: Tensor, first: int, start: int, resid: Tensor
    ) -> Tensor:
        """What enters the final norm, (row, pos, d_model), from `start` on."""
        packing, n_pos = recording.packing, self.tokens.ids.shape[1]
        assert packing is not None
        packing.turn_to_end(rows, start, n_pos)
        with (
            self.model.alone,
            quick(self.model.module),
            self.model.hooked({}, n_pos, packing),
            listening(self.wiring, listener, n_pos - start, first, blocks_only=True),
        ):
            if first == 0:
                listener.write(0, resid, whole)
            for block, call in zip(self.model.blocks[first:], recording.calls[first:]):
                out = call.again(block, resid.flatten(0, 1)[None], lambda name, value: of_tokens(name, value, packing))
                resid = out.view_as(resid)
        changed = listener.read_logits(resid)
        return resid if changed is None else changed
