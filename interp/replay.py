"""Run the upper blocks again on many variants of a prompt, without running the lower ones again.

What every block was called with is recorded once. A variant, a row, is then born at the block where its first edit
acts, as a copy of its prompt's residual stream there, and only the blocks from there on are run for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.model import Model
from interp.sites import STREAM, Site
from interp.traces import Tokens
from interp.visits import Visits


@dataclass(frozen=True)
class Call:
    """How one block was called, apart from the residual stream.

    Attributes:
        name: The argument by which the block takes the stream; None if it is the first by position.
    """

    name: str | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def again(self, block: nn.Module, resid: Tensor, rows: Tensor, n: int) -> Tensor:
        """The block on rows of which each is a variant of one of the n prompts."""
        args = tuple(_take("", value, rows, n) for value in self.args)
        kwargs = {name: _take(name, value, rows, n) for name, value in self.kwargs.items()}
        if self.name is None:
            args = (resid, *args)
        else:
            kwargs[self.name] = resid
        out = block(*args, **kwargs)
        return out[0] if isinstance(out, tuple) else out


@dataclass(frozen=True)
class Recording:
    """One run, kept so that it can be taken up at any block.

    Attributes:
        tokens: What was run.
        stream: The residual stream entering each block, and what leaves the last.
        calls: How each block was called.
    """

    tokens: Tokens
    stream: Sequence[Float[Tensor, "batch pos d_model"]]
    calls: Sequence[Call]


@torch.no_grad()
def record(model: Model, tokens: Tokens, sites: Iterable[Site] = ()) -> Recording:
    """Run the prompts once and keep what every block was called with.

    Args:
        sites: What will be visited when it is taken up; a mask has another form where attention scores are visited.
    """
    stream: list[Tensor] = []
    calls: list[Call] = []

    def enter(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        name = None if args else next(iter(kwargs))
        resid = args[0] if args else kwargs[name]  # type: ignore[index]
        stream.append(resid.clone())  # some families write into it
        calls.append(Call(name, args[1:], {key: value for key, value in kwargs.items() if key != name}))

    def leave(block: nn.Module, args: tuple, output: Any) -> None:
        stream.append((output[0] if isinstance(output, tuple) else output).clone())

    handles = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in model.blocks]
    handles.append(model.blocks[-1].register_forward_hook(leave))
    try:
        model.run(tokens, read=[site for site in sites if site.kind in ("scores", "pattern")][:1], last_only=True)
    finally:
        for handle in handles:
            handle.remove()
    return Recording(tokens, stream, calls)


def replay(
    model: Model, recording: Recording, births: Sequence[Int[Tensor, " born"]], visits: Visits
) -> Float[Tensor, "row pos d_model"]:
    """The residual stream that enters the final norm, for rows in the order of their birth.

    Args:
        births: For each block, and for the end, the prompts of which rows are born there.
        visits: Edits of sites in the block of a row's birth or above; of rows that are not yet born there is no site.
    """
    n = len(recording.tokens)
    inside = {site: visits[site] for site in visits if site.kind not in STREAM}
    rows = births[0][:0]
    resid = recording.stream[0][:0]
    with model.hooked(inside, recording.tokens.ids.shape[1]):
        for i, born in enumerate(births):
            if len(born):
                rows = torch.cat([rows, born])
                resid = torch.cat([resid, recording.stream[i][born]])
            for site in _entering(i, len(recording.calls)):
                if site in visits:
                    resid = visits[site](resid)
            if i < len(recording.calls) and len(rows):
                resid = recording.calls[i].again(model.blocks[i], resid, rows, n)
    return resid


_VERIFIED: WeakKeyDictionary[Model, bool] = WeakKeyDictionary()


def can_replay(model: Model) -> bool:
    """Whether the blocks, called one by one on rows in another order, give the model's own logits.

    Tried once for each model, on padded prompts as many as they have positions and on fewer.
    """
    if model not in _VERIFIED:
        _VERIFIED[model] = bool(model.blocks) and all(_holds(model, n) for n in (4, 3))
    return _VERIFIED[model]


@torch.no_grad()
def _holds(model: Model, n: int) -> bool:
    ids = (torch.arange(4 * n).view(n, 4) * 7 + 1) % model.shape.d_vocab
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    tokens = Tokens(ids, mask).to(model.device)
    recording = record(model, tokens)
    rows = torch.tensor([1, *reversed(range(n))], device=model.device)
    births = [rows, *[rows[:0]] * len(model.blocks)]
    try:
        resid = replay(model, recording, births, Visits(tokens.rows(rows), (), ()))
        logits = model.unembed(resid[:, -1])
    except Exception:  # whatever a block raises when it is called so, it cannot be called so
        return False
    wanted = model.run(tokens, last_only=True).logits[rows, -1]
    tolerance = 1e-4 if logits.dtype.itemsize >= 4 else 5e-2
    return bool((logits - wanted).abs().max() <= tolerance * wanted.abs().max())


def _entering(i: int, n_layers: int) -> list[Site]:
    """The sites that are the residual stream before block i, or after the last."""
    below = [Site("resid_post", i - 1)] if i else []
    return [*below, Site("resid_pre", i) if i < n_layers else Site("resid_final")]


def _take(name: str, value: Any, rows: Tensor, n: int) -> Any:
    """An argument of a block for rows instead of prompts.

    What has one value for each prompt has them along the first of several axes; with a single prompt it broadcasts.
    """
    if isinstance(value, tuple | list):
        return type(value)(_take(name, member, rows, n) for member in value)
    if not isinstance(value, Tensor) or value.ndim < 2 or n == 1 and name != "alibi":
        return value
    if name == "alibi" and value.shape[0] != n:  # (batch x head) is its first axis
        return value.unflatten(0, (n, -1))[rows].flatten(0, 1)
    return value[rows] if value.shape[0] == n else value
