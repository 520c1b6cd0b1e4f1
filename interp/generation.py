"""Generate text while edits are in force."""

from collections.abc import Sequence

import torch

from interp.edits import Edit
from interp.model import Model, Prompts


@torch.no_grad()
def generate(model: Model, prompts: Prompts, n_tokens: int = 20, edits: Sequence[Edit] = ()) -> list[str]:
    """Greedy continuations, without a cache, so that an edit means here what it means in `run`.

    An edit at position -1 acts on the newest token of each step; one at a role stays where the role is.

    Raises:
        ValueError: A model whose output vocabulary is not that of its input.
    """
    if n_tokens < 1:
        raise ValueError(f"generate adds at least one token; n_tokens={n_tokens} was asked for")
    tokens = model.tokens(prompts)
    width = tokens.ids.shape[1]
    for _ in range(n_tokens):
        logits = model.run(tokens, edits=edits, last_only=True).logits[:, -1]
        if logits.shape[-1] != model.shape.d_vocab:
            raise ValueError(
                f"{model.name} reads a vocabulary of {model.shape.d_vocab} and predicts one of {logits.shape[-1]}, so "
                "that what it predicts cannot be fed back; use run"
            )
        tokens = tokens.append(logits.argmax(-1))
    return [" ".join(model.words(row.tolist())) if model.tokenizer is None else model.tokenizer.decode(row)
            for row in tokens.ids[:, width:]]  # fmt: skip
