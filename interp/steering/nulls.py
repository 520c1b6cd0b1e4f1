"""Vectors that should do nothing, of the same length as those that should."""

from dataclasses import replace

import torch
from torch import Tensor

from interp.model import Model, Prompts
from interp.steering.vector import Vector, Vectors, many

_FEWEST = 8  # prompts that say how activations vary


def random_like(vectors: Vectors, n: int = 20, seed: int = 0) -> list[list[Vector]]:
    """Vectors of the same length in random directions, n times.

    A weak null: activations vary along few directions, in which any difference of means lies and these hardly do. Four
    in ten vectors of labels at random move a metric more than all of these.
    """
    listed, generator = many(vectors), torch.Generator().manual_seed(seed)
    noise = lambda vector: torch.randn(len(vector.writer), generator=generator)
    return [[_along(vector, noise(vector)) for vector in listed] for _ in range(n)]


@torch.no_grad()
def varied_like(model: Model, prompts: Prompts, vectors: Vectors, n: int = 20, seed: int = 0) -> list[list[Vector]]:
    """Vectors of the same length in random directions in which the activations of prompts vary, n times.

    They are mixtures of the prompts' activations, less their mean, where each vector was read; at the last position, if
    that is a role that the prompts lack. Of fewer than eight prompts, or of prompts that are all alike there, they are
    what `random_like` gives.
    """
    tokens, listed = model.tokens(prompts), many(vectors)
    trace = model.run(tokens, read={vector.site for vector in listed}, last_only=True)
    spread = []
    for vector in listed:
        at = vector.at if isinstance(vector.at, int) or vector.at in tokens.roles else -1
        held = trace.at(vector.site, at).to(vector.writer)
        held = held if vector.head is None else held[:, vector.head]
        apart = held - held.mean(0)
        if len(tokens) < _FEWEST or float(apart.norm()) <= 1e-6 * float(held.norm()):
            return random_like(listed, n, seed)
        spread.append(apart)
    shares = torch.randn(n, len(tokens), generator=torch.Generator().manual_seed(seed))
    return [[_along(vector, share.to(x) @ x) for vector, x in zip(listed, spread)] for share in shares]


def _along(vector: Vector, direction: Tensor) -> Vector:
    """The vector in another direction."""
    direction = direction.to(vector.writer)
    return replace(vector, writer=direction / direction.norm() * vector.writer.norm())
