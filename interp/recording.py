"""Keep a run so that it can be taken up again at any block, for rows of which each is a variant of one prompt."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.model import Model
from interp.packing import Packing
from interp.sites import Site
from interp.traces import Tokens, Trace

LookUp = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Call:
    """How one block was called, apart from the residual stream.

    Attributes:
        name: The argument by which the block takes the stream; None if it is the first by position.
    """

    name: str | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def again(self, block: nn.Module, resid: Tensor, look_up: LookUp) -> Tensor:
        """The block on another residual stream, with every argument looked up for it."""
        args, kwargs = self.arguments(resid, look_up)
        return first_of(block(*args, **kwargs))

    def arguments(self, resid: Tensor, look_up: LookUp) -> tuple[tuple, dict[str, Any]]:
        """The same call with another residual stream, and every other argument looked up for it."""
        args = tuple(look_up("", value) for value in self.args)
        kwargs = {name: look_up(name, value) for name, value in self.kwargs.items()}
        if self.name is None:
            return (resid, *args), kwargs
        return args, {self.name: resid, **kwargs}


@dataclass(frozen=True)
class Recording:
    """One run, kept so that it can be taken up at any block.

    Attributes:
        trace: What the run gave: tokens, logits, and what was read.
        stream: The residual stream entering each block, and what leaves the last.
        calls: How each block was called.
        packing: The keys and values of each block's attention, if tokens can be packed.
    """

    trace: Trace
    stream: Sequence[Float[Tensor, "batch pos d_model"]]
    calls: Sequence[Call]
    packing: Packing | None

    def __repr__(self) -> str:
        return f"Recording({len(self.calls)} blocks; {self.trace!r})"

    @property
    def tokens(self) -> Tokens:
        """What was run."""
        return self.trace.tokens


@torch.no_grad()
def record(
    model: Model,
    tokens: Tokens,
    sites: Iterable[Site],
    packed: bool,
    read: Iterable[Site] = (),
    last_only: bool = True,
) -> Recording:
    """Run the prompts once and keep what every block was called with.

    Args:
        sites: What will be visited when it is taken up.
        packed: Whether to keep keys and values too.
        read, last_only: As in `Model.run`.
    """
    packing = Packing() if packed else None
    # Where scores are visited, attention is spelled out; the run must be the one that the edits were read from.
    spelled = [site for site in sites if site.kind in ("scores", "pattern")][:1]
    stream: list[Tensor] = []
    calls: list[Call] = []

    def enter(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        call, resid = taken(args, kwargs)
        stream.append(resid.clone())  # some families write into it
        calls.append(call)

    def leave(block: nn.Module, args: tuple, output: Any) -> None:
        stream.append(first_of(output).clone())

    with ExitStack() as stack:
        stack.enter_context(model.alone)
        for block in model.blocks:
            stack.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)
        stack.callback(model.blocks[-1].register_forward_hook(leave).remove)
        stack.enter_context(model.hooked({site: lambda x: x for site in spelled}, tokens.ids.shape[1], packing))
        trace = model.run(tokens, read=[*read, *([] if packed else spelled)], last_only=last_only)
    return Recording(trace, stream, calls, packing)


class _Enough(Exception):
    """Ends a run at its first block."""


@torch.no_grad()
def entering(model: Model, tokens: Tokens) -> Float[Tensor, "batch pos d_model"]:
    """What enters the first block; no block is run."""
    held: list[Tensor] = []

    def enter(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        held.append(taken(args, kwargs)[1].clone())
        raise _Enough

    with model.alone:
        handle = model.blocks[0].register_forward_pre_hook(enter, with_kwargs=True)
        try:
            with suppress(_Enough):
                model.run(tokens, last_only=True)
        finally:
            handle.remove()
    return held[0]


def of_rows(name: str, value: Any, prompts: Tensor, n: int) -> Any:
    """An argument of a block for rows instead of prompts.

    What has one value for each prompt has them along the first of several axes; with a single prompt it broadcasts.
    """
    if isinstance(value, tuple | list):
        return type(value)(of_rows(name, member, prompts, n) for member in value)
    if name == "alibi" and isinstance(value, Tensor) and value.shape[0] != n:  # (batch x head) is its first axis
        return value.unflatten(0, (n, -1))[prompts].flatten(0, 1)
    if not isinstance(value, Tensor) or value.ndim < 2 or n == 1 or name == "position_bias":  # has heads first
        return value
    return value[prompts] if value.shape[0] == n else value


def of_tokens(name: str, value: Any, packing: Packing) -> Any:
    """An argument of a block for packed tokens: what belongs to positions is looked up; attention has its own mask."""
    if isinstance(value, tuple | list):
        return type(value)(of_tokens(name, member, packing) for member in value)
    if not isinstance(value, Tensor) or value.ndim < 2:
        return value
    if "mask" in name:
        return None
    assert packing.prompts is not None  # the block at hand was turned to
    if value.shape[1] != packing.shape[1]:
        return value
    prompts = packing.prompts[packing.row] if len(value) > 1 else torch.zeros_like(packing.row)
    return value[prompts, packing.pos][None]


def taken(args: tuple, kwargs: dict[str, Any]) -> tuple[Call, Tensor]:
    """How a block is called, and the stream that it is given, its first argument."""
    name = None if args else next(iter(kwargs))
    others = {key: _uncached(value) for key, value in kwargs.items() if key != name}
    return Call(name, tuple(map(_uncached, args[1:])), others), args[0] if name is None else kwargs[name]


def _uncached(value: Any) -> Any:
    """An argument of a block, unless it is a cache, which another run of the block would add to."""
    return None if hasattr(value, "get_seq_length") else value


def with_first(output: Any, first: Tensor) -> Any:
    """What a block returns, or the first of several things, replaced."""
    return (first, *output[1:]) if isinstance(output, tuple) else first


def first_of(output: Any) -> Tensor:
    """What a block returns, or the first of several things."""
    return output[0] if isinstance(output, tuple) else output
