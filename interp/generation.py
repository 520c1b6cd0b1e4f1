"""Generate text while edits are in force."""

from collections.abc import Sequence

import torch

from interp.edits import Edit
from interp.model import Model, Prompts


@torch.no_grad()
def generate(model: Model, prompts: Prompts, n_tokens: int = 20, edits: Sequence[Edit] = ()) -> list[str]:
    """Greedy continuations, without a cache, so that an edit means here what it means in `run`.

    An edit at position -1 acts on the newest token of each step; one at a role stays where the role is.
    """
    tokens = model.tokens(prompts)
    width = tokens.ids.shape[1]
    for _ in range(n_tokens):
        tokens = tokens.append(model.run(tokens, edits=edits, last_only=True).logits[:, -1].argmax(-1))
    return [" ".join(model.words(row.tolist())) if model.tokenizer is None else model.tokenizer.decode(row)
            for row in tokens.ids[:, width:]]  # fmt: skip
