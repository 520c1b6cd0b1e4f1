"""Generate text while edits are in force: greedy or sampled, with the keys of earlier tokens kept where that is sound.

An edit means the same whether keys are kept or not: its positions are absolute (decision 7).
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import check_switch, count_of, edits_of
from interp.caching import caching
from interp.columns import CACHEABLE, addressed
from interp.edits import Edit
from interp.model import Model, Prompts
from interp.progress import Progress, bar
from interp.shape import Cache
from interp.traces import Tokens


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen.

    Attributes:
        temperature: Divides the logits; 0 takes the most likely token.
        top_k: Choose among so many of the likeliest tokens.
        top_p: Choose among the fewest tokens whose probabilities, at this temperature, add up to this much
            (Holtzman et al. 2019, arXiv:1904.09751).
        seed: Of the random numbers. Those of a row depend on the row's own prompt, not on other rows; copies of one
            prompt in a batch have different ones.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.temperature, Real) or not 0 <= self.temperature < float("inf"):
            raise ValueError(
                f"a temperature is a number from 0 on, not {self.temperature!r}; 0 takes the likeliest token"
            )
        count_of("seed", self.seed, 0)
        if self.top_k is not None:
            count_of("top_k", self.top_k)
        if self.top_p is not None and not (isinstance(self.top_p, Real) and 0 < self.top_p <= 1):
            raise ValueError(f"top_p is above 0 and at most 1, not {self.top_p!r}")

    def choose(self, logits: Float[Tensor, "batch vocab"], draws: Float[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """A token for each row; a draw, between 0 and 1, decides."""
        if bool((lost := logits.isnan().any(-1)).any()):
            rows = lost.nonzero().flatten().tolist()[:5]
            raise ValueError(f"the logits of rows {rows} are not numbers, so that no token can be chosen; try float32")
        if self.temperature == 0:
            return logits.argmax(-1)
        probs = (logits.double() / self.temperature).softmax(-1)
        ordered, order = probs.sort(descending=True, stable=True)
        kept = torch.ones_like(ordered, dtype=torch.bool)
        if self.top_k is not None:
            kept[:, self.top_k :] = False
        if self.top_p is not None:
            kept &= ordered.cumsum(-1) - ordered < self.top_p
        # Back in the vocabulary's order, so that tokens that are nearly as likely do not change places by rounding.
        mass = probs.masked_fill(~kept.gather(-1, order.argsort(-1)), 0).cumsum(-1)
        below = mass <= draws.to(mass)[:, None] * mass[:, -1:]
        return below.sum(-1).clamp(max=(mass < mass[:, -1:]).sum(-1))


@dataclass(frozen=True)
class Continuations:
    """What a model went on to say.

    Attributes:
        tokens: The prompts and what was generated.
        lengths: How many tokens of each row count: up to and with the first that ends it.
        texts: The same as text.
        log_probs: Log probability (nats) of each token that was generated, before temperature and filters.
        how: What was done: whether keys were kept (`cached`, `keys`), `n_tokens`, and the sampling.
    """

    tokens: Tokens
    lengths: Int[Tensor, " batch"]
    texts: Sequence[str]
    log_probs: Float[Tensor, "batch step"]
    how: dict[str, Any]

    def __repr__(self) -> str:
        return f"Continuations({len(self.texts)} of at most {self.log_probs.shape[1]} tokens: {str(self.texts)[:80]})"


def generate(
    model: Model, prompts: Prompts, n_tokens: int = 20, edits: Edit | Iterable[Edit] = (), **options: Any
) -> list[str]:
    """What the model goes on to say, as text; greedy unless `temperature` is given. See `continuations`.

    Args:
        options: Those of `continuations`, and of `Sampling`: `temperature`, `top_k`, `top_p`, `seed`.
    """
    sampling = Sampling(**{name: options.pop(name) for name in vars(Sampling()) if name in options})
    return list(continuations(model, prompts, n_tokens, edits, sampling, **options).texts)


@torch.no_grad()
def continuations(
    model: Model,
    prompts: Prompts,
    n_tokens: int = 20,
    edits: Edit | Iterable[Edit] = (),
    sampling: Sampling = Sampling(),
    cached: bool | None = None,
    stop: int | Collection[int] = (),
    progress: Progress = None,
) -> Continuations:
    """Continue each prompt while edits are in force.

    Positions of edits are absolute: -1 is the last token of the prompt, slice(-1, None) that and all that follows, a
    role stays where it is in the prompt, "prompt" and "generated" are all positions of either.

    Args:
        cached: Whether to keep keys and values; by default wherever they give what a run without them gives.
        stop: The token, or tokens, that end a row. Rows that have ended are run on until all have, but what they add is
            left out.
        progress: Called with the number of steps done and of all.

    Raises:
        ValueError: Nothing to generate, or more than the context holds; an output vocabulary that is not the input's;
            `cached=True` where that is not sound; an edit that selects nothing.
    """
    tokens, edits, ends = model.tokens(prompts), edits_of(edits), _ends(stop, model)
    if cached is not None:
        check_switch("cached", cached)
    model.check(edits=edits)
    _check_room(model, tokens, n_tokens, edits)
    why_not = _why_uncached(model, edits, tokens.ids.shape[1] + n_tokens)
    if cached and why_not:
        raise ValueError(f"keys cannot be kept here: {why_not}; leave cached= out, or pass cached=False")
    cache = model.new_cache() if cached is not False and not why_not else None
    draws = _draws(tokens, sampling, n_tokens)
    log_probs, width = [], tokens.ids.shape[1]
    with bar(n_tokens, "tokens", progress) as advance:
        for draw in draws.T:
            logits = _next(model, tokens, cache, edits)
            chosen = sampling.choose(logits, draw.to(logits.device))
            log_probs.append(logits.log_softmax(-1).gather(-1, chosen[:, None])[:, 0])
            tokens = tokens.append(chosen)
            advance(1)
            if len(ends) and bool(torch.isin(tokens.ids[:, width:], ends).any(-1).all()):
                break
    lengths = _lengths(tokens.ids[:, width:], ends)
    texts = [_text(model, row[:n]) for row, n in zip(tokens.ids[:, width:].tolist(), lengths.tolist())]
    keys = "kept" if cache is not None else f"not kept: {why_not or 'cached=False was given'}"
    how = {"cached": cache is not None, "keys": keys, "n_tokens": n_tokens, **vars(sampling)}
    return Continuations(tokens, lengths, texts, torch.stack(log_probs, 1), how)


def _ends(stop: int | Collection[int], model: Model) -> Int[Tensor, " end"]:
    """Tokens that end a row, refused where they are none of the model's."""
    given = [stop] if isinstance(stop, int) else list(stop)
    for token in given:
        if not isinstance(token, Integral) or not 0 <= token < model.shape.d_vocab:
            raise ValueError(
                f"stop= takes token ids, from 0 to {model.shape.d_vocab - 1}, not {token!r}; give [model.token_id('.')]"
            )
    return torch.tensor([int(token) for token in given], dtype=torch.long, device=model.device)


def _next(model: Model, tokens: Tokens, cache: Cache | None, edits: Sequence[Edit]) -> Float[Tensor, "batch vocab"]:
    """The logits after the last token."""
    if cache is not None:
        logits = model.advance(tokens, cache, edits)
    else:
        logits = model.run(tokens, edits=addressed(edits, tokens), last_only=True).logits[:, -1]
    if logits.shape[-1] != model.shape.d_vocab:
        raise ValueError(
            f"{model.name} reads a vocabulary of {model.shape.d_vocab} and predicts one of {logits.shape[-1]}, so "
            "that what it predicts cannot be fed back; use run"
        )
    return logits


def _check_room(model: Model, tokens: Tokens, n_tokens: int, edits: Sequence[Edit]) -> None:
    count_of("n_tokens", n_tokens)
    last = tokens.ids.shape[1] + n_tokens - 1  # the last token is not run
    if model.shape.n_context is not None and last > model.shape.n_context:
        raise ValueError(
            f"a prompt of {tokens.ids.shape[1]} tokens and {n_tokens} more do not fit the model's context of "
            f"{model.shape.n_context}"
        )
    whole = tokens
    for _ in range(n_tokens - 1):
        whole = whole.append(tokens.ids[:, -1])
    if lost := [edit for edit in edits if not addressed([edit], whole)]:
        where = f"{lost[0].site} at {dict(lost[0].at)}"
        raise ValueError(f"edit of {where} selects none of the {last} positions that will be run")


def _why_uncached(model: Model, edits: Sequence[Edit], longest: int) -> str:
    """Why keys cannot be kept; empty if they can."""
    if inside := [edit.site for edit in [*edits, *model.in_force] if edit.site.kind not in CACHEABLE]:
        return f"{inside[0]} is edited inside attention, where each step sees the keys of all tokens again"
    if model.shape.n_alike is not None and longest > model.shape.n_alike:
        return f"{model.name} has other rotary embeddings beyond {model.shape.n_alike} tokens, with other keys"
    return caching(model.plain)


def _draws(tokens: Tokens, sampling: Sampling, n: int) -> Float[Tensor, "batch step"]:
    """Random numbers of each row, by the seed, its prompt, and how many rows before it have the same."""
    if sampling.temperature == 0:
        return torch.zeros(len(tokens), n)
    rows, drawn = tokens.unpadded, []
    for i, row in enumerate(rows):
        digest = hashlib.sha256(repr((sampling.seed, rows[:i].count(row), row)).encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        drawn.append(torch.rand(n, generator=generator, dtype=torch.float64))
    return torch.stack(drawn)


def _lengths(ids: Int[Tensor, "batch step"], ends: Int[Tensor, " end"]) -> Int[Tensor, " batch"]:
    """Up to and with the first token that ends a row."""
    ended = torch.isin(ids, ends)
    return torch.where(ended.any(-1), ended.int().argmax(-1) + 1, ids.shape[1])


def _text(model: Model, ids: list[int]) -> str:
    return " ".join(model.words(ids)) if model.tokenizer is None else model.tokenizer.decode(ids)
