"""The tokens whose residual stream a lens decodes, and their logits a few at a time.

A vocabulary is wide: logits of every layer, prompt and position at once would take more memory than all else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from interp.arrays import position_labels
from interp.model import Model
from interp.precision import HINT, widened
from interp.sites import Site
from interp.traces import Tokens, Trace

_BYTES = 2**26  # of float32 logits at a time: more is no faster


@dataclass(frozen=True)
class Rows:
    """Tokens of some prompts, one after the other: all but padding, or one of each prompt.

    Attributes:
        tokens: The prompts.
        prompt, pos: Where each row is.
        whole: Whether all positions were taken.
    """

    tokens: Tokens
    prompt: Int[Tensor, " row"]
    pos: Int[Tensor, " row"]
    whole: bool

    @classmethod
    def of(cls, tokens: Tokens, at: int | str | None = None) -> "Rows":
        """All tokens; or those at one position of each prompt, an index or the name of a role."""
        if at is None:
            prompt, pos = tokens.mask.nonzero(as_tuple=True)
            return cls(tokens, prompt, pos, True)
        return cls(tokens, torch.arange(len(tokens), device=tokens.ids.device), tokens.column(at), False)

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def ids(self) -> Int[Tensor, " row"]:
        """The token of each row."""
        return self.tokens.ids[self.prompt, self.pos]

    def take(self, values: Shaped[Tensor, "batch pos *rest"]) -> Shaped[Tensor, "row *rest"]:
        """The rows of a site's tensor."""
        return values[self.prompt, self.pos]

    def spread(self, values: Shaped[Tensor, "*cell row"], blank: float = float("nan")) -> Tensor:
        """Values of rows as (*cell, pos, prompt), blank at padding; without `pos` if one of each prompt was taken."""
        if not self.whole:
            return values
        n, n_pos = self.tokens.ids.shape
        grid = values.new_full((*values.shape[:-1], n_pos, n), blank)
        grid[..., self.pos, self.prompt] = values
        return grid

    def coords(self, model: Model) -> dict[str, Sequence[Any]]:
        """The coordinates of what `spread` gives."""
        pos: dict[str, Sequence[Any]] = {"pos": position_labels(model, self.tokens)} if self.whole else {}
        return pos | {"prompt": range(len(self.tokens))}


def chunks(n: int, d_vocab: int) -> Iterator[slice]:
    """Rows in packs whose logits take little memory."""
    size = max(1, _BYTES // (4 * d_vocab))
    for start in range(0, n, size):
        yield slice(start, start + size)


def log_probs(model: Model, resid: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
    """What the model's own final norm and unembedding predict from a stream, at least in single precision.

    Raises:
        ValueError: NaN.
    """
    found = widened(model.unembed(resid.to(model.dtype))).log_softmax(-1)
    if bool((lost := found[:, 0].isnan()).any()):  # one NaN makes all of its row NaN
        raise ValueError(
            f"what {model.name} predicts is not a number for {int(lost.sum())} of {len(lost)} tokens; {HINT}"
        )
    return found


def divergence(p: Float[Tensor, "#row vocab"], q: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    """KL(p || q) in nats, of log probabilities."""
    return (p.exp() * (p - q)).sum(-1)


def streams(
    model: Model, tokens: Tokens, sites: Sequence[Site], size: int = 16
) -> Iterator[tuple[Rows, Mapping[Site, Float[Tensor, "row d_model"]], Trace]]:
    """Sites of all tokens, a few prompts at a time."""
    for start in range(0, len(tokens), size):
        part = tokens.rows(slice(start, start + size))
        trace = model.run(part, read=sites, last_only=True)
        rows = Rows.of(part)
        yield rows, {site: rows.take(trace[site]) for site in sites}, trace


def words(model: Model, ids: Int[Tensor, "*any"]) -> np.ndarray:
    """The text of each token, as an array of the same shape; nothing for -1."""
    known, which = ids.cpu().unique(return_inverse=True)
    texts = [text if i >= 0 else "" for i, text in zip(known.tolist(), model.words(known.clamp(min=0).tolist()))]
    return np.array(texts, dtype=object)[which.numpy()]
