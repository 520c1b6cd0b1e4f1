"""Prompts in, `Tokens` out: the one place where text becomes ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.traces import Tokens

Prompts = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | Tensor | np.ndarray | Mapping | tuple | Tokens
Place = int | str | Sequence[int] | Sequence[str] | Tensor


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
        tokens = self._read(prompts)
        self._check(tokens)
        return tokens

    def with_roles(self, tokens: Tokens, roles: Mapping[str, Place]) -> Tokens:
        """The prompts with names for some of their positions, beside those that they have.

        Args:
            roles: For each name, one place for all prompts or one for each: a number, which counts the prompt's own
                tokens, the beginning-of-sequence token among them, and from the end if it is negative; or a word that
                is one token and occurs once.

        Raises:
            ValueError: A place that a prompt lacks, or has several times; another number of places than of prompts.
        """
        if not isinstance(roles, Mapping):
            raise TypeError(f"roles are places by name, such as {{'END': -1}}, not {roles!r}")
        found = {name: self._places(name, place, tokens) for name, place in roles.items()}
        return replace(tokens, roles={**tokens.roles, **found}) if found else tokens

    def one(self, text: str | int) -> int:
        """The id of a string that is exactly one token; of a model without a tokenizer, an id is its own name."""
        if self.base is None and isinstance(text, Integral):
            if not 0 <= text < self.n_vocab:
                raise ValueError(f"token ids are from 0 to {self.n_vocab - 1}, not {text}")
            return int(text)
        if not isinstance(text, str):
            raise TypeError(f"a token is named by its text here, such as ' the', not {text!r}")
        ids = self._encode(text)
        if len(ids) != 1:
            pieces = [self.base.decode([i]) for i in ids]
            hint = "take a word that is one" if text.startswith(" ") else "a leading space often helps"
            raise ValueError(f"{text!r} is {len(ids)} tokens {pieces}, not one; {hint}")
        return ids[0]

    def _read(self, prompts: Any) -> Tokens:
        if isinstance(prompts, Tokens):
            if prompts.ids.dtype == prompts.mask.dtype == torch.long:
                return prompts
            return replace(prompts, ids=_whole(prompts.ids), mask=_whole(prompts.mask))
        if isinstance(prompts, Mapping) and "input_ids" in prompts:  # what a Hugging Face tokenizer returns
            ids, mask = prompts["input_ids"], prompts.get("attention_mask")
            if isinstance(ids, list) and len({len(row) for row in ids if isinstance(row, Sequence)}) > 1:
                return self._read(ids)  # of a tokenizer that was not asked to pad: every mask is full
            return self._read(ids if mask is None else (ids, mask))
        if isinstance(prompts, np.ndarray) and prompts.dtype.kind in "OU":
            return self._read(prompts.tolist())
        if isinstance(prompts, Tensor | np.ndarray):
            ids = torch.as_tensor(prompts)
            return Tokens(*_batch(ids, torch.ones_like(ids)))
        if isinstance(prompts, tuple) and len(prompts) == 2 and not any(isinstance(p, str | Integral) for p in prompts):
            return Tokens(*_batch(*(torch.as_tensor(part) for part in prompts)))
        if isinstance(prompts, str):
            return self._texts([prompts])
        if isinstance(prompts, Sequence) and prompts and not isinstance(prompts, bytes | bytearray):
            if all(isinstance(prompt, str) for prompt in prompts):
                return self._texts([str(prompt) for prompt in prompts])
            if all(isinstance(i, Integral) for i in prompts):
                return _padded([prompts])
            if all(
                isinstance(row, Sequence | np.ndarray) and all(isinstance(i, Integral) for i in row) for row in prompts
            ):
                return _padded(prompts)
        raise TypeError(
            f"prompts are a text, texts, token ids, (ids, mask), what a tokenizer returns, or Tokens, not "
            f"{_describe(prompts)}{'; give its .clean or .corrupt' if hasattr(prompts, 'clean') else ''}"
        )

    def _texts(self, texts: Sequence[str]) -> Tokens:
        rows = [self._encode(text) for text in texts]
        if self.bos:
            rows = [row if row[:1] == [self.base.bos_token_id] else [self.base.bos_token_id, *row] for row in rows]
        return _padded(rows)

    def _places(self, name: str, place: Place, tokens: Tokens) -> Int[Tensor, " prompt"]:
        """Columns of the batch at which a role stands."""
        one = not isinstance(place, Sequence | Tensor | np.ndarray) or isinstance(place, str) or np.ndim(place) == 0
        places: list[Any] = [place] * len(tokens) if one else list(place)  # type: ignore[arg-type]
        if len(places) != len(tokens):
            raise ValueError(f"role {name!r} has {len(places)} places for {len(tokens)} prompts; give one, or one each")
        found = []
        for i, (at, ids, mask) in enumerate(zip(places, tokens.ids, tokens.mask)):
            length = int(mask.sum())
            if isinstance(at, str):
                columns = ((ids == self.one(at)) & (mask == 1)).nonzero().flatten().tolist()
                if len(columns) != 1:
                    often = f"{len(columns)} times; give its position" if columns else "not at all"
                    raise ValueError(f"role {name!r} is {at!r}, which prompt {i} has {often}")
                found += columns
            elif not isinstance(at, Integral | Tensor | np.ndarray):
                raise TypeError(f"role {name!r} is a position or a word of prompt {i}, not {at!r}")
            elif -length <= int(at) < length:
                found.append(len(ids) - length + int(at) % length)
            else:
                raise ValueError(f"role {name!r} is position {int(at)}, but prompt {i} has {length} tokens")
        return torch.tensor(found, device=tokens.ids.device)

    def _encode(self, text: str) -> list[int]:
        if self.base is None:
            raise ValueError(
                "this model has no tokenizer, so it cannot take texts; give it token ids, or load(..., tokenizer=…)"
            )
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
        if (
            not bool(((mask == 0) | (mask == 1)).all())
            or not bool((mask[:, -1:] == 1).all())
            or not bool((mask.diff(dim=-1) >= 0).all())
        ):
            raise ValueError("prompts are padded on the left, so that the mask of each is 0 … 0 1 … 1; this one is not")
        if self.n_context is not None and ids.shape[1] > self.n_context:
            raise ValueError(f"a prompt of {ids.shape[1]} tokens does not fit the model's context of {self.n_context}")


def _padded(rows: Sequence[Sequence[int]]) -> Tokens:
    """Token ids of prompts of any lengths, padded on the left."""
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + [int(i) for i in row] for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return Tokens(ids, mask)


def _batch(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """One prompt, or several, as a batch."""
    ids, mask = _whole(ids), _whole(mask)
    return (ids[None], mask[None]) if ids.ndim == 1 else (ids, mask)


def _whole(numbers: Tensor) -> Tensor:
    """Whole numbers and truth values in torch's own type for indices; a mask of bytes has no differences below 0."""
    return numbers if numbers.is_floating_point() or numbers.is_complex() else numbers.long()


def _describe(prompts: object) -> str:
    if isinstance(prompts, Sequence):
        return f"{type(prompts).__name__} of {type(prompts[0]).__name__}" if prompts else "an empty list"
    return type(prompts).__name__
