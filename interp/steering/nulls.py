"""Vectors that should do nothing, of the same length as those that should."""

from dataclasses import replace

import torch

from interp.steering.vector import Vector, Vectors, many


def random_like(vectors: Vectors, n: int = 20, seed: int = 0) -> list[list[Vector]]:
    """Vectors of the same length in random directions, n times."""
    listed, generator = many(vectors), torch.Generator().manual_seed(seed)
    return [[_in_random_direction(vector, generator) for vector in listed] for _ in range(n)]


def _in_random_direction(vector: Vector, generator: torch.Generator) -> Vector:
    noise = torch.randn(len(vector.writer), generator=generator).to(vector.writer)
    return replace(vector, writer=noise / noise.norm() * vector.writer.norm())
