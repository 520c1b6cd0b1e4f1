"""Models that the tests share; nothing is downloaded."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import shapes

shapes.check_in_every_call()

import pytest
import tiny
import torch
from torch.testing import assert_close

import interp
from interp import Site


@pytest.fixture(scope="session")
def embedded() -> interp.Model:
    return interp.load()


@pytest.fixture(scope="session", params=list(tiny.FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session", params=interp.BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def assert_same(ours: interp.Model, reference: interp.Model, prompts: list[str], tolerance: float = 1e-5) -> None:
    """Logits and every site that both have are the same, as far as no mask hides them."""
    shared = [site for site in ours.sites() if site.kind in reference.editable]
    trace, wanted = (model.run(prompts, read=shared) for model in (ours, reference))
    real = trace.tokens.mask.bool()
    assert_close(trace.logits[real], wanted.logits[real], atol=tolerance, rtol=tolerance)
    for site in shared:
        a, b = trace[site], wanted[site]
        if site.kind in ("scores", "pattern"):
            seen = wanted[Site("pattern", site.layer)] > 0 if "pattern" in ours.editable else torch.ones_like(b).bool()
            seen = seen & real[:, None, :, None]
            a, b = a[seen], b[seen]
        else:
            a, b = a[real], b[real]
        assert_close(a, b, atol=tolerance, rtol=tolerance, msg=lambda m, site=site: f"{site}: {m}")


def load(family: str, backend: str = "huggingface", dtype: torch.dtype = torch.float32) -> interp.Model:
    return interp.load(tiny.build(family, dtype), backend=backend, tokenizer=tiny.tokenizer())
