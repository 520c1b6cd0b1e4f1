"""Half precision is widened, and nothing else is."""

import pytest
import torch

from interp.precision import widened


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_alone_is_widened(dtype):
    values = torch.ones(2, dtype=dtype)
    assert widened(values).dtype == (torch.float32 if dtype.itemsize < 4 else dtype)
    assert (widened(values) is values) == (dtype.itemsize >= 4)
