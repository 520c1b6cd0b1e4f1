"""Annotated shapes are checked while the tests run, so that no annotation can be wrong for long."""

import importlib
import pkgutil

import jaxtyping
import pytest
import torch

import interp
from interp import Tokens, metrics, probing
from interp.arrays import Check


def test_a_shape_that_breaks_its_annotation_is_caught():
    with pytest.raises(jaxtyping.TypeCheckError):
        metrics.kl_from(torch.zeros(3))
    with pytest.raises(jaxtyping.TypeCheckError):
        probing.fit(torch.randn(4, 3), torch.zeros(5))
    with pytest.raises(jaxtyping.TypeCheckError):
        Tokens(torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 4, dtype=torch.long))
    with pytest.raises(jaxtyping.TypeCheckError):
        Check("n", "not a number", 0.0, "pass", "why")


def test_modules_imported_late_are_checked_too():
    for module in pkgutil.iter_modules(interp.backends.__path__, "interp.backends."):
        spec = importlib.import_module(module.name).__spec__
        assert "jaxtyping" in type(spec.loader).__module__, module.name
