"""English tasks on a byte-pair tokenizer like those of pretrained models."""

import pytest
import tiny
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

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


@pytest.mark.parametrize("bos", [False, True])
def test_roles_are_where_the_words_are(model, bos):
    model = interp.load(model.module, tokenizer=model.tokenizer, bos=bos)
    for name in ("ioi", "facts", "agreement"):
        task = getattr(english, name)(model, n=8, seed=2)
        found = {role: model.words(task.clean.ids[torch.arange(8), task.clean.role(role)]) for role in task.clean.roles}
        labels = {key: [f" {value}" for value in values] for key, values in task.labels.items()}
        if name == "ioi":
            assert found["IO"] == labels["io"] and found["S1"] == found["S2"] == labels["subject"]
            assert found["place"] == labels["place"] and found["object"] == labels["object"]
            other = task.corrupt.ids[torch.arange(8), task.corrupt.role("S2")]
            assert model.words(other) == labels["io"] and torch.equal(task.right[:, 0], other)
        elif name == "facts":
            assert found["subject"] == labels["subject"]
        else:
            plural = [bool(p) for p in task.labels["plural"]]
            forms = [f" {english.NOUNS[n] if p else n}" for n, p in zip(task.labels["noun"], plural)]
            assert found["subject"] == forms
        assert found["END"] == model.words(task.clean.ids[:, -1])


def _of_years() -> interp.Model:
    """A model whose tokenizer splits years as GPT-2's does: 1732 is 17 and 32."""
    words = [*"The lasted from the year to".split(), *english.EVENTS, "16", "17", "18"]
    words += [f"{year:02d}" for year in range(100) if f"{year:02d}" not in words]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["?", *dict.fromkeys(words)])}, "?"))
    two = pre_tokenizers.Split(Regex(r"[0-9]{2}|[A-Za-z]+"), "removed", invert=True)
    backend.pre_tokenizer = two
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?")
    return interp.load(tiny.build("gpt2", vocab_size=len(tokenizer)), tokenizer=tokenizer)


def test_every_later_year_is_right_and_no_other():
    model = _of_years()
    task = english.greater_than(model, n=10, seed=1)
    years = model.words(task.clean.ids[torch.arange(10), task.clean.role("YY")])
    assert [int(year) for year in years] == task.labels["year"]
    for year, right, wrong in zip(task.labels["year"], task.right, task.wrong):
        later, earlier = ([int(word) for word in model.words(ids[ids >= 0])] for ids in (right, wrong))
        assert later == [y for y in range(2, 98) if y > year] and earlier == [y for y in range(2, 98) if y <= year]
    probs = model.run(task.clean).logits[:, -1].softmax(-1)
    mass = [
        probs[i, r[r >= 0]].sum() - probs[i, w[w >= 0]].sum() for i, (r, w) in enumerate(zip(task.right, task.wrong))
    ]
    torch.testing.assert_close(task.prob_diff(model.run(task.clean)), torch.stack(mass))


def test_a_tokenizer_that_does_not_split_years_is_refused(model):
    with pytest.raises(ValueError, match="does not split years"):
        english.greater_than(model)


def test_words_of_several_tokens_are_named(model):
    with pytest.raises(ValueError, match=r"only 0 of 2 words are single tokens of .*; not: floccinaucinihil, zzyzx"):
        english.single(model, ["floccinaucinihil", "zzyzx"])
