"""Half precision is widened, and nothing else is."""

from typing import Any

import pytest
import tiny
import torch

import interp
from interp import components, edits, effects, metrics, weights
from interp.arrays import checks_of
from interp.precision import widened


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_alone_is_widened(dtype):
    values = torch.ones(2, dtype=dtype)
    assert widened(values).dtype == (torch.float32 if dtype.itemsize < 4 else dtype)
    assert (widened(values) is values) == (dtype.itemsize >= 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_what_is_read_by_the_final_norm_does_not_overflow(name, dtype):
    """A norm's slope at zero is a few hundred or a thousand, and its square more than float16 holds."""
    whole, half = (interp.load(tiny.build(name, kind), tokenizer=tiny.tokenizer()) for kind in (torch.float32, dtype))
    metric, prompts = metrics.logit_diff([5, 6], [8, 9]), ["John when Anna went to", "Mary and the store to"]
    every = components.each(whole, edits.zero)

    def found(model: interp.Model) -> dict[str, Any]:
        shares = effects.logit_attribution(model, prompts, metric)
        assert all(check.status == "pass" for check in checks_of(shares))
        parts = effects.decompose(model, prompts, every, metric)
        frozen = parts["direct"].sel(norm="frozen", drop=True)
        singular = weights.singular_vectors(model, 1, 1, k=1)
        copying = weights.detect(model)["score"].sel(detector="copying")
        return {
            "shares": shares, "frozen": frozen, "copying": copying, "ov": weights.ov(model, n=20),
            "writes": abs(singular.writes), "reads": abs(singular.reads),
        }  # fmt: skip

    pairs = zip(found(whole).items(), found(half).values())
    for (what, wanted), close in pairs:
        error = float(abs(close - wanted).max() / abs(wanted).max())
        assert error <= (0.01 if dtype == torch.float16 else 0.1), f"{what}: {error:.3f}"
