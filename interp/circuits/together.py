"""Run two batches of prompts that begin alike in one pass, in which what they share is run once.

Every matrix is read from memory once, and gradients go to the second batch alone, from where it differs.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.backends.listening import Listener, listening, whole
from interp.backends.readers import Wiring
from interp.circuits.runs import Written, without_logits
from interp.metrics import Metric, of_stream
from interp.packing import Joined, Packing
from interp.quick import quick
from interp.recording import first_of, of_tokens, taken, with_first
from interp.traces import Tokens
from interp.visits import Visits


@dataclass
class Together:
    """One pass for prompts and for variants of them that differ from one position on.

    Its tokens are packed into one row: those of the prompts, then those of the variants from that position on.

    Attributes:
        both: The prompts, then a variant of each.
        start: The first position at which a variant may differ.
        listener: Is told of the packed tokens.
        leaf: Once it has run, what enters the first block in the variants, to which gradients go.
    """

    wiring: Wiring
    both: Tokens
    start: int
    listener: Listener
    leaf: Tensor = field(init=False)
    _final: Tensor = field(init=False)

    def metric(self, metric: Metric) -> Float[Tensor, "2 prompt"]:
        """Run; the metric of the prompts and of their variants."""
        model, joined = self.wiring.model, self.joined
        model.check()
        with model.alone, ExitStack() as stack:
            for block in model.blocks:
                stack.callback(block.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
            stack.callback(model.blocks[-1].register_forward_hook(self._leave).remove)
            stack.enter_context(torch.enable_grad())
            stack.enter_context(quick(model.module, joined.n_first))
            stack.enter_context(without_logits(model))
            stack.enter_context(model.hooked({}, joined.n_pos, Packing(joined=joined)))
            stack.enter_context(listening(self.wiring, self.listener, len(joined.places.row), blocks_only=True))
            model.forward(self.both, Visits(self.both, (), (), True), last_only=True)
        with torch.enable_grad():
            return of_stream(metric, model, metric.position(self.both, self._final), joined.n)

    def difference(self, written: Written) -> Written:
        """How much more the writers of the prompts add than those of the variants, from where these may differ."""
        parts = [self.joined.parts(piece) for piece in written.pieces]
        return Written([first[:, self.start :] - then for first, then in parts], written.expand)

    @cached_property
    def joined(self) -> Joined:
        """How the tokens are packed."""
        ids = self.both.ids
        return Joined(len(ids) // 2, ids.shape[1], self.start, ids.device)

    def _enter(self, block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        call, stream = taken(args, kwargs)
        if block is self.wiring.layers[0].block:
            first, self.leaf = self.joined.pack(stream.detach()).tensor_split([self.joined.n_first], dim=1)
            stream = torch.cat([first, self.leaf.requires_grad_()], dim=1)
            self.listener.write(0, stream, whole)
        look_up = lambda name, value: value if "mask" in name else of_tokens(name, value, self.joined.places)
        return call.arguments(stream, look_up)

    def _leave(self, block: nn.Module, args: tuple, output: Any) -> Any:
        stream = first_of(output)
        changed = self.listener.read_logits(stream)
        self._final = self.joined.spread(stream if changed is None else changed)
        return with_first(output, self._final.detach())
