"""English tasks on a byte-pair tokenizer like those of pretrained models."""

import pytest
import tiny
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import interp
from interp import english


@pytest.fixture(scope="module")
def model() -> interp.Model:
    words = [*english.NAMES, *english.PLACES, *english.OBJECTS, *english.EVENTS, *english.CAPITALS]
    words += [*english.CAPITALS.values(), *english.NOUNS, *english.NOUNS.values()]
    text = [f"When The {word} are is in the city of lasted from year to near" for word in words] * 20
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        text,
        trainers.BpeTrainer(vocab_size=900, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<eos>", eos_token="<eos>")
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
