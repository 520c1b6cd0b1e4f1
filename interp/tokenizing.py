"""Prompts in, `Tokens` out: the one place where text becomes ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.traces import Tokens

Prompts = str | Sequence[str] | Tensor | tuple[Tensor, Tensor] | Tokens


@dataclass(frozen=True)
class Tokenizer:
    """A Hugging Face tokenizer, or none, with the rules of this library.

    Attributes:
        base: The tokenizer, or None for a model that works on ids.
        bos: Whether a text that does not begin with the beginning-of-sequence token is given one.
        n_vocab: Number of token ids that the model knows.
        n_context: Number of positions that it has, if it says so.
    """

    base: Any
    bos: bool
    n_vocab: int
    n_context: int | None

    def __call__(self, prompts: Prompts) -> Tokens:
        """Prompts as ids with a mask, padded on the left."""
        if isinstance(prompts, Tokens):
            tokens = prompts
        elif isinstance(prompts, Tensor):
            tokens = Tokens(*_batch(prompts, torch.ones_like(prompts)))
        elif isinstance(prompts, tuple) and len(prompts) == 2 and all(isinstance(p, Tensor) for p in prompts):
            tokens = Tokens(*_batch(*prompts))
        elif isinstance(prompts, str) or (prompts and all(isinstance(prompt, str) for prompt in prompts)):
            tokens = self._texts([prompts] if isinstance(prompts, str) else [str(prompt) for prompt in prompts])
        else:
            raise TypeError(f"prompts are a text, texts, token ids, (ids, mask) or Tokens, not {_describe(prompts)}")
        self._check(tokens)
        return tokens

    def one(self, text: str) -> int:
        """The id of a string that is exactly one token."""
        ids = self._encode(text)
        if len(ids) != 1:
            pieces = [self.base.decode([i]) for i in ids]
            hint = "take a word that is one" if text.startswith(" ") else "a leading space often helps"
            raise ValueError(f"{text!r} is {len(ids)} tokens {pieces}, not one; {hint}")
        return ids[0]

    def _texts(self, texts: Sequence[str]) -> Tokens:
        rows = [self._encode(text) for text in texts]
        if self.bos:
            rows = [row if row[:1] == [self.base.bos_token_id] else [self.base.bos_token_id, *row] for row in rows]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        return Tokens(ids, mask)

    def _encode(self, text: str) -> list[int]:
        if self.base is None:
            raise ValueError("this model has no tokenizer, so it cannot take texts; give it token ids")
        ids = self.base.encode(text, add_special_tokens=False)
        if not ids:
            raise ValueError(f"the prompt {text!r} is empty: it has no tokens")
        unknown = self.base.unk_token_id
        if unknown is not None and unknown in ids and self.base.unk_token not in text:
            lost = [word for word in text.split() if unknown in self.base.encode(word, add_special_tokens=False)]
            raise ValueError(f"{lost or [text]} is not in the tokenizer's vocabulary of {len(self.base)} words")
        return ids

    def _check(self, tokens: Tokens) -> None:
        ids, mask = tokens.ids, tokens.mask
        if ids.shape != mask.shape or ids.ndim != 2 or ids.numel() == 0:
            raise ValueError(f"ids and mask are both (batch, pos), not {tuple(ids.shape)} and {tuple(mask.shape)}")
        if ids.is_floating_point() or int(ids.min()) < 0 or int(ids.max()) >= self.n_vocab:
            raise ValueError(f"token ids are integers from 0 to {self.n_vocab - 1}, not {ids.min()} to {ids.max()}")
        if not bool((mask[:, -1:] == 1).all()) or not bool((mask.diff(dim=-1) >= 0).all()):
            raise ValueError("prompts are padded on the left, so that the mask of each is 0 … 0 1 … 1; this one is not")
        if self.n_context is not None and ids.shape[1] > self.n_context:
            raise ValueError(f"a prompt of {ids.shape[1]} tokens does not fit the model's context of {self.n_context}")


def _batch(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """One prompt, or several, as a batch."""
    return (ids[None], mask[None]) if ids.ndim == 1 else (ids, mask)


def _describe(prompts: object) -> str:
    if isinstance(prompts, Sequence):
        return f"{type(prompts).__name__} of {type(prompts[0]).__name__}" if prompts else "an empty list"
    return type(prompts).__name__
