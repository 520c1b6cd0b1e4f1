"""What a probe must be better than: labels without meaning, the words themselves, a model without training.

Control tasks: Hewitt & Liang 2019 (arXiv:1909.03368). Untrained models: Zhang & Bowman 2018 (arXiv:1809.10040).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from interp.model import Model
from interp.probing.activations import At
from interp.probing.splits import codes_of
from interp.randomised import redrawn
from interp.traces import Tokens


def control_labels(
    types: Sequence[object], y: Shaped[Tensor, " example"], n: int, generator: torch.Generator
) -> Shaped[Tensor, "draw example"]:
    """Labels without meaning: one for each type, drawn from the labels that there are."""
    codes = codes_of(types)
    drawn = torch.randint(0, len(y), (n, int(codes.max()) + 1), generator=generator)
    return y[drawn.to(y.device)][:, codes.to(y.device)]


def types_at(tokens: Tokens, at: At, groups: Sequence[str] | None) -> tuple[Sequence[object], str]:
    """What gets a label of its own in a control task, and its name: the token that is read, or what varies instead."""
    ids = token_at(tokens, at).tolist()
    if len(set(ids)) >= 8:
        return ids, "token"
    return (groups, "group") if groups is not None else (range(len(tokens)), "prompt")


def token_at(tokens: Tokens, at: At) -> Tensor:
    """The token at a position of each prompt."""
    return tokens.ids.gather(1, tokens.column(at)[:, None])[:, 0]


def bag_of_tokens(tokens: Tokens) -> Float[Tensor, "example d"]:
    """How often each token stands in each prompt, without order."""
    known, which = tokens.ids.unique(return_inverse=True)
    counts = torch.zeros(len(tokens), len(known), device=tokens.ids.device)
    return counts.scatter_add_(1, which, tokens.mask.float())


def token_and_position(tokens: Tokens, at: At) -> Float[Tensor, "example d"]:
    """Which token is read, and at which position, counted without padding."""
    place = tokens.positions.gather(1, tokens.column(at)[:, None])
    known, which = token_at(tokens, at).unique(return_inverse=True)
    return torch.cat([torch.nn.functional.one_hot(which, len(known)).float(), place.float()], 1)


def untrained(model: Model, seed: int = 0) -> Model:
    """A copy of a model that has learnt nothing: each matrix gets random numbers of its own mean and spread.

    Norms and biases, of which there are few, keep theirs, so that activations stay of their size; in
    `attribution.reinitialised` they are drawn anew too. The model itself is left as it is.

    Raises:
        ValueError: A model that cannot be copied here, such as one on a server.
    """
    return redrawn(model, seed, lambda twin: (weight for weight in twin.module.parameters() if weight.ndim >= 2))
