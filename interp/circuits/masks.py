"""The edges between writers and readers of the residual stream: one mask over them, and its gradient.

`x_reader += sum over writers of mask[writer, reader] * (other run's writer - this run's)`, with every reader's own norm
on its own copy of the stream. A circuit is a mask of zeros and ones; a learned mask is one that wants a gradient.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.backends.listening import Expand, Listener
from interp.backends.readers import Projection
from interp.circuits.runs import Run
from interp.products import products_of
from interp.progress import Progress, bar

_ON_CPU, _ELSEWHERE = 2**27, 2**31  # bytes that one pass may take; larger passes are no faster

_CACHE = 2**19  # bytes that a norm is given at once on a processor


@dataclass(frozen=True)
class Exchange:
    """A run, and what its edges can be made to carry instead of what they carry in it.

    Attributes:
        run: The run that is patched.
        others: What every writer adds elsewhere: in another run or, of several sources, in several.
        start: The first position at which they differ from the run.
    """

    run: Run
    others: Float[Tensor, "source prompt writer pos d_model"]
    start: int = 0

    def values(
        self, masks: Float[Tensor, "set writer reader"] | Float[Tensor, "set pos writer reader"]
    ) -> Float[Tensor, "set prompt"]:
        """The metric with some edges exchanged, for several sets of edges in one pass.

        Args:
            masks: How much of each edge is taken from the first source, 0 to 1; gradients reach it.
        """
        return self.mixed(masks[:, None])

    def mixed(self, masks: Float[Tensor, "set source *pos writer reader"]) -> Float[Tensor, "set prompt"]:
        """The same with a mask for each source, which are added up."""
        masks = masks.to(self.others)
        if not masks.requires_grad and not bool(masks.any()):
            return self.run.values.expand(len(masks), -1)
        first = 0 if masks.requires_grad else self._first(masks)
        listener = Masked(self, masks, first)
        return self.run.again(listener, len(masks), first, self.begin, grad=masks.requires_grad)

    @torch.no_grad()
    def changes(
        self, chunks: Iterable[Tensor], n: int, progress: Progress = None, unit: str = "sets of edges"
    ) -> tuple[Float[Tensor, "set prompt"], int]:
        """How far the metric is from that of the run under each of n masks, and in how many passes it was found."""
        found: list[Tensor] = []
        with bar(n, unit, progress) as advance:
            for masks in chunks:
                found.append(self.values(masks) - self.run.values)
                self.run.metric.check_numbers(found[-1])
                advance(len(masks))
        return torch.cat(found), len(found)

    def most(self, budget: int | None = None) -> int:
        """How many sets of edges are tried in one pass, by a generous guess of what each takes."""
        names, shape = self.run.wiring.graph, self.run.model.shape
        copies = len(self.others) * len(names.writers) + 2 * names.attention(0).stop + 24
        each = (self.others.shape[3] - self.begin) * shape.d_model * copies
        each += 0 if self.run.metric.weights is not None else shape.d_vocab
        mask = 3 * names.precedes.numel()  # as it is given, in the model's numbers, and beside the stream's ones
        budget = budget or (_ON_CPU if self.others.device.type == "cpu" else _ELSEWHERE)
        return max(1, budget // ((each * len(self.run.tokens) + mask) * self.others.dtype.itemsize))

    def room(self, name: str, *sizes: int) -> Tensor:
        """Memory for one pass at a time: fresh memory costs as much as what is done in it."""
        n = math.prod(sizes)
        if name not in self._rooms or self._rooms[name].numel() < n:
            self._rooms[name] = self.others.new_empty(n)
        return self._rooms[name][:n].view(sizes)

    @cached_property
    def _rooms(self) -> dict[str, Tensor]:
        return {}

    @property
    def begin(self) -> int:
        """The first position that is run again."""
        return 0 if self.run.recording is None else self.start

    def _first(self, masks: Tensor) -> int:
        """The first layer of which a reader is masked."""
        if self.run.recording is None:
            return 0
        graph, used = self.run.wiring.graph, masks.flatten(0, -2).any(0).cpu()
        return next((i for i in range(graph.n_layers) if used[: graph.mlp(i).stop].any()), graph.n_layers)


class Masked(Listener):
    """Gives every reader its own copy of the stream, with what the masked edges carry elsewhere.

    Args:
        masks: (set, source, [pos,] writer, reader).
        first: The first layer that is run; what was written below it is known.
        given: Readers that get this copy of the stream instead, (set, prompt, pos, d_model) each.
        keep: Readers whose copies are kept.
    """

    def __init__(
        self,
        exchange: Exchange,
        masks: Tensor,
        first: int = 0,
        given: Mapping[int, Tensor] | None = None,
        keep: Collection[int] = (),
    ) -> None:
        self.wiring, self.masks, self.given, self.keep = exchange.run.wiring, masks, given or {}, keep
        self._place = exchange.room
        self.kept: dict[int, Tensor] = {}
        self._start = exchange.begin
        self._others = exchange.others.transpose(1, 2)[:, :, :, self._start :]
        self._used = (masks.detach() != 0).flatten(0, -3).any(0).cpu() | masks.requires_grad
        for reader in [*self.given, *keep]:
            self._used[0, reader] = True
        # What is summed for each reader: the stream, at place 0, and the differences of the writers.
        self._weights = nn.functional.pad(masks, (0, 0, 1, 0))
        self._weights[..., 0, :] = 1
        self._room = self._others.new_zeros(0) if masks.requires_grad else self._empty()
        self._pieces: list[Tensor] = []
        if first:
            below = exchange.run.wiring.graph.before_attention(first)
            known = exchange.run.written.transpose(0, 1)[:below, :, self._start :]
            self._room[:, :, 1 : 1 + below] = (self._others[:, :below] - known)[:, None]

    def _empty(self) -> Float[Tensor, "source set summand prompt pos d_model"]:
        n_sources, n_writers, *sizes = self._others.shape
        room = self._place("summands", n_sources, len(self.masks), 1 + n_writers, *sizes)
        room[1:, :, 0] = 0  # the stream is a summand once
        return room

    def write(self, first: int, piece: Tensor, expand: Expand) -> None:
        values = expand(piece, None if self.masks.requires_grad else partial(self._place, "heads"))
        upto = first + values.shape[1]
        values = values.unflatten(0, (len(self.masks), -1)).transpose(1, 2)
        others = self._others[:, None, first:upto]
        if self.masks.requires_grad:
            self._pieces.append(others - values)
        else:
            torch.sub(others, values, out=self._room[:, :, 1 + first : 1 + upto])

    def replaces(self, layer: int, projection: Projection) -> bool:
        return self._reached(self.wiring.graph.before_attention(layer), self._readers(layer, projection))

    def read_attention(self, layer: int, projection: Projection, stream: Tensor, output: Tensor) -> Tensor | None:
        streams = self._copies(stream, self.wiring.graph.before_attention(layer), self._readers(layer, projection))
        if streams is None:
            return None
        return projection.of(_norm_copies(self.wiring.layers[layer].attn_norm, streams).flatten(1, 2))

    def read_mlp(self, layer: int, stream: Tensor, entering: Tensor) -> Tensor | None:
        graph = self.wiring.graph
        streams = self._copies(stream, graph.before_mlp(layer), graph.mlp(layer))
        return None if streams is None else normed(self.wiring.layers[layer].mlp_norm, streams[0])

    def read_logits(self, stream: Tensor) -> Tensor | None:
        graph = self.wiring.graph
        streams = self._copies(stream, len(graph.writers), graph.logits)
        return None if streams is None else streams[0].flatten(0, 1)

    def _readers(self, layer: int, projection: Projection) -> slice:
        first = self.wiring.graph.attention(layer).start
        return slice(first + projection.readers.start, first + projection.readers.stop)

    def _reached(self, upto: int, readers: slice) -> bool:
        """Whether any of the readers has a stream of its own."""
        return bool(self._used[:upto, readers].any())

    def _copies(self, stream: Tensor, upto: int, readers: slice) -> Tensor | None:
        """The stream as each reader has it, (reader, set, prompt, pos, d_model); None if all have it as it is."""
        if not self._reached(upto, readers):
            return None
        summands = self._summands(stream.unflatten(0, (len(self.masks), -1)), upto)
        weights = self._weights[..., : 1 + upto, readers]
        if weights.ndim == 5:
            streams = torch.einsum("kgsnpd,gkpsr->rgnpd", summands, weights[:, :, self._start :])
        else:
            streams = self._sums(summands, weights)
        for i, reader in enumerate(range(readers.start, readers.stop)):
            if reader in self.given:
                streams[i] = self.given[reader]
            if reader in self.keep:
                self.kept[reader] = streams[i].clone()
        return streams

    def _sums(self, summands: Tensor, weights: Tensor) -> Float[Tensor, "reader set prompt pos d_model"]:
        """Weighted sums, reader first: what is multiplied by the readers' matrices then lies in one piece."""
        n_sets, _, *sizes = summands.shape[1:]
        if torch.is_grad_enabled():
            products = [torch.bmm(w.mT, some.flatten(2)) for some, w in zip(summands, weights.unbind(1))]
            return sum(products[1:], start=products[0]).transpose(0, 1).unflatten(2, sizes)
        streams = self._place("sums", weights.shape[3], n_sets, *sizes)
        out = streams.flatten(2).transpose(0, 1)
        products_of(weights[:, 0].mT, summands[0].flatten(2), out=out)
        for some, w in zip(summands[1:], weights[:, 1:].unbind(1)):
            torch.baddbmm(out, w.mT, some.flatten(2), out=out)
        return streams

    def _summands(self, stream: Tensor, upto: int) -> Float[Tensor, "source set summand prompt pos d_model"]:
        if not self.masks.requires_grad:
            self._room[0, :, 0] = stream
            return self._room[:, :, : 1 + upto]
        once = torch.stack([stream, *[torch.zeros_like(stream)] * (len(self._others) - 1)])
        return torch.cat([once[:, :, None], *self._pieces], dim=2)[:, :, : 1 + upto]


def _norm_copies(norm: nn.Module | None, streams: Float[Tensor, "reader *rest d_model"]) -> Tensor:
    """Streams as a norm leaves them, in their own room and a few readers at a time, which stay in the cache."""
    if norm is None or torch.is_grad_enabled() or streams.device.type != "cpu":
        return normed(norm, streams)
    for some in streams.split(max(1, _CACHE // streams[0].nbytes)):
        some.copy_(norm.forward(some))
    return streams


def normed(norm: nn.Module | None, streams: Tensor) -> Tensor:
    """What a norm makes of streams, without telling its hooks."""
    return streams if norm is None else norm.forward(streams)
