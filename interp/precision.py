"""Half precision is for the model to compute in; what is computed from its numbers afterwards is not."""

from torch import Tensor

# What to try where NaN came out.
HINT = "are there NaN among the weights? Where half precision overflows, load the model in float32"


def widened(values: Tensor) -> Tensor:
    """At least single precision: a difference of two half-precision numbers would lose what is left of it."""
    return values.float() if values.dtype.itemsize < 4 else values
