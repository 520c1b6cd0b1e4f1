"""Half precision is for the model to compute in; what is computed from its numbers afterwards is not."""

from torch import Tensor


def widened(values: Tensor) -> Tensor:
    """At least single precision: a difference of two half-precision numbers would lose what is left of it."""
    return values.float() if values.dtype.itemsize < 4 else values
