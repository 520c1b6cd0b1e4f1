"""Models that the tests share; nothing is downloaded."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import shapes

shapes.check_in_every_call()

import pytest
import tiny
import torch

import interp


@pytest.fixture(scope="session")
def embedded() -> interp.Model:
    return interp.load()


@pytest.fixture(scope="session", params=list(tiny.FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session", params=interp.BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def load(family: str, backend: str = "huggingface", dtype: torch.dtype = torch.float32) -> interp.Model:
    return interp.load(tiny.build(family, dtype), backend=backend, tokenizer=tiny.tokenizer())
