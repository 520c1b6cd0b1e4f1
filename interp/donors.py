"""Which prompt stands in for which, where activations are resampled from other prompts."""

from collections.abc import Callable, Hashable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def donors(
    wanted: Sequence[Hashable],
    offered: Sequence[Hashable] | None,
    draws: int,
    seed: int,
    named: Callable[[Hashable], str] = lambda key: "",
) -> Int[Tensor, "draw prompt"]:
    """In each draw, for each prompt one of those offered that is like it; every one is used before one is used twice.

    Args:
        wanted, offered: What a prompt must have in common with its donor, by prompt. Without `offered` the prompts are
            each other's donors, and none is its own.
        named: What to say of prompts that are alike, if there are too few.

    Raises:
        ValueError: No draw; a prompt that no other is like.
    """
    if draws < 1:
        raise ValueError(f"resampling needs at least one draw; draws={draws} was given")
    generator = torch.Generator().manual_seed(seed)
    own = offered is None
    pools = wanted if offered is None else offered
    found = torch.empty(draws, len(wanted), dtype=torch.long)
    for key in sorted(set(wanted), key=repr):
        wanting = torch.tensor([i for i, other in enumerate(wanted) if other == key])
        pool = torch.tensor([i for i, other in enumerate(pools) if other == key], dtype=torch.long)
        if len(pool) < 1 + own:
            raise ValueError(f"resampling needs other prompts{named(key)}; the reference has none")
        for draw in found:
            order = pool[torch.randperm(len(pool), generator=generator)]
            if own:  # one cycle through all of them: no prompt stands in for itself
                draw[order] = order.roll(1)
            else:
                draw[wanting] = order[torch.arange(len(wanting)) % len(order)]
    return found
