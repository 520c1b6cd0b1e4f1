"""Annotated shapes are checked while the tests run, so that no annotation can be wrong for long."""

import importlib

import jaxtyping
import pytest
import shapes
import torch

from interp import Tokens, metrics, probing


def test_a_shape_that_breaks_its_annotation_is_caught():
    with pytest.raises(jaxtyping.TypeCheckError):
        metrics.kl_from(torch.zeros(3))
    with pytest.raises(jaxtyping.TypeCheckError):
        probing.fit(torch.randn(4, 3), torch.zeros(5))
    with pytest.raises(jaxtyping.TypeCheckError):
        Tokens(torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 4, dtype=torch.long))


def test_every_module_that_annotates_shapes_is_checked():
    for name in shapes.annotated():
        spec = importlib.import_module(name).__spec__
        assert spec is not None and "jaxtyping" in type(spec.loader).__module__, name
