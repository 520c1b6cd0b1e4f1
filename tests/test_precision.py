"""Half precision is widened, and nothing else is."""

from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch

import interp
from interp import components, edits, effects, metrics, patching, tasks, weights
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


def test_metrics_of_half_precision_are_computed_in_single(embedded):
    half = interp.load(embedded.module, dtype=torch.bfloat16, tokenizer=embedded.tokenizer, bos=embedded.bos)
    task = tasks.ioi(half, n=4)
    trace = half.run(task.clean)
    wide = replace(trace, logits=trace.logits.float())
    for metric in (metrics.log_prob(3), metrics.prob(3), metrics.logit(3), metrics.kl_from(trace.logits[:, -2])):
        assert metric(trace).dtype == torch.float32
        assert torch.equal(metric(trace), metric(wide))
    divergence = patching.patch(
        half, task.clean, task.corrupt, half.sites("z"), metrics.kl_from(trace.logits[:, -1]), over=["head"],
        normalize=False, direction="noising",
    )  # fmt: skip
    assert float(divergence.min()) > -1e-6


@pytest.mark.parametrize("over", [("batch",), ("batch", "pos")])
def test_means_do_not_overflow_in_half_precision(over):
    site, tokens = interp.Site("resid_pre", 0), torch.ones(64, 3, dtype=torch.long)
    model = interp.load(tiny.build("gpt2", torch.float16))
    trace = model.run(tokens, read=[site], edits=[edits.put(site, 3000.0)])
    mean = edits.mean(trace, site, over)
    assert torch.equal(model.run(tokens, read=[site], edits=[mean])[site], trace[site])
