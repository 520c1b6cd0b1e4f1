"""Tokens that are answers: one, one for each prompt, or several."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

Answers = int | Sequence[int] | Sequence[Sequence[int]] | Tensor
"""Token ids that a metric reads: one; (batch,), one a prompt; (batch, n), several a prompt; (1, n), several for all."""


def ids_of(token: Answers, n: int, device: torch.device) -> Int[Tensor, "batch answer"]:
    """Answer tokens of n prompts; -1 fills up unequal numbers."""
    check_answers(token)
    if isinstance(token, list | tuple) and any(isinstance(some, list | tuple) for some in token):
        token = filled([some if isinstance(some, list | tuple) else [some] for some in token])
    ids = torch.as_tensor(token, device=device)
    if ids.is_floating_point() or ids.ndim > 2:
        raise ValueError(f"answers are token ids, one, (batch,) or (batch, n), not {ids.dtype} of {tuple(ids.shape)}")
    if ids.ndim == 0:
        ids = ids.expand(n)
    elif ids.ndim == 2 and len(ids) == 1:
        ids = ids.expand(n, -1)
    if ids.shape[0] != n:
        raise ValueError(f"answers for {ids.shape[0]} prompts were given, but {n} prompts were run")
    ids = ids[:, None] if ids.ndim == 1 else ids
    if not bool((ids >= 0).any(-1).all()) or int(ids.min()) < -1:
        raise ValueError("every prompt needs an answer: token ids from 0 on; -1 only fills up unequal numbers")
    if ids.shape[1] == 1:
        return ids
    again = (ids[:, :, None] == ids[:, None, :]).tril(-1).any(-1)
    return ids.masked_fill(again, -1)  # a token that is given twice is one answer


def filled(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Rows of unequal length, filled up with -1."""
    width = max(map(len, rows))
    return [[*row, *[-1] * (width - len(row))] for row in rows]


def check_answers(*answers: Any) -> None:
    """Refuse words where ids are wanted."""
    for token in answers:
        first = token[0] if isinstance(token, list | tuple) and token else token
        if isinstance(first, str):
            raise TypeError(f"an answer is a token id, not {first!r}; give model.token_id({first!r})")


def chosen(values: Tensor, token: Answers) -> tuple[Tensor, Tensor]:
    """The values of some tokens, (batch, answer), and which of them count."""
    ids = ids_of(token, len(values), values.device)
    return at_tokens(values, ids.clamp(min=0)), ids >= 0


def at_tokens(values: Float[Tensor, "batch vocab"], ids: Int[Tensor, "batch answer"]) -> Float[Tensor, "batch answer"]:
    """The values of some tokens.

    Raises:
        ValueError: A token outside the output vocabulary.
    """
    if int(ids.max()) >= values.shape[-1]:
        raise ValueError(f"token {int(ids.max())} is outside the model's output vocabulary of {values.shape[-1]}")
    return values.gather(-1, ids)


def sum_of(values: Tensor, token: Answers) -> Tensor:
    """The sum over the answers of each prompt."""
    found, counts = chosen(values, token)
    return (found * counts).sum(-1)
