"""Directions and the spaces that they span, in the last axis of a tensor.

What edits are made of is sent to servers as source, so that nothing here may need jaxtyping.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from interp.precision import widened
from interp.wording import shown

ArrayLike = Tensor | np.ndarray | Sequence[float] | float


def tensor_of(given: ArrayLike) -> Tensor:
    """A number, an array or a tensor as a tensor: what Python holds is kept in double precision.

    Raises:
        TypeError: Something else.
    """
    try:
        return torch.as_tensor(given, dtype=None if isinstance(given, Tensor | np.ndarray) else torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"this takes a number, an array or a tensor, not {shown(given)}") from None


def span(vectors: Tensor) -> Tensor:
    """An orthonormal basis (k, d) of the space that vectors (d,) or (k, d) span.

    Raises:
        ValueError: Vectors that are zero, not finite or linearly dependent, or more of them than entries in each.
    """
    rows = vectors.detach().reshape(-1, vectors.shape[-1])
    rows = widened(rows)
    if vectors.ndim in (1, 2) and len(rows) <= rows.shape[-1] and bool(rows.isfinite().all()):
        # Lengths do not matter to a span, so they must not decide whether vectors count as independent.
        unit = rows / rows.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
        basis, triangle = torch.linalg.qr(unit.T)
        if bool((triangle.diagonal().abs() > 1e-5).all()):
            return basis.T
    shape = tuple(vectors.shape)
    raise ValueError(f"a subspace is a direction (d,) or independent, finite vectors (k, d); these, {shape}, are not")


def unit_of(direction: Tensor) -> Tensor:
    """A direction (d,) at length one.

    Raises:
        ValueError: Several vectors, or one of zero or infinite length.
    """
    norm = direction.norm()
    if direction.ndim != 1 or not torch.isfinite(norm) or norm == 0:
        shape = tuple(direction.shape)
        raise ValueError(f"a direction is one vector of finite, non-zero length; given shape {shape}, norm {norm:.3g}")
    return direction / norm


def rotation(like: Tensor, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix (d, d) of a tensor's last axis, of all alike likely."""
    size = like.shape[-1]
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator).to(like))
    return q * r.diagonal().sign()


def along(x: Tensor, unit: Tensor) -> Tensor:
    """The projection of (*rest, d) on a unit vector, (*rest, 1)."""
    return (x @ unit).unsqueeze(-1)
