"""English tasks on a byte-pair tokenizer like those of pretrained models."""

import pytest
import tiny
import torch

import interp
from interp import english


@pytest.fixture(scope="module")
def model() -> interp.Model:
    tokenizer = tiny.english_tokenizer()
    return interp.load(tiny.build("gpt2", vocab_size=len(tokenizer)), tokenizer=tokenizer)


@pytest.mark.parametrize("name", ["ioi", "facts", "agreement"])
def test_pairs_are_aligned_and_differ(model, name):
    task = getattr(english, name)(model, n=12, seed=1)
    assert task.clean.ids.shape == task.corrupt.ids.shape
    assert bool((task.clean.ids != task.corrupt.ids).any(-1).all())
    assert bool((task.right != task.wrong).all())
    assert torch.isfinite(task.logit_diff(model.run(task.clean))).all()
    assert task.texts == getattr(english, name)(model, n=12, seed=1).texts


def test_a_tokenizer_that_does_not_split_years_is_refused(model):
    with pytest.raises(ValueError, match="does not split years"):
        english.greater_than(model)


def test_words_of_several_tokens_are_named(model):
    with pytest.raises(ValueError, match=r"only 0 of 2 words are single tokens of .*; not: floccinaucinihil, zzyzx"):
        english.single(model, ["floccinaucinihil", "zzyzx"])
