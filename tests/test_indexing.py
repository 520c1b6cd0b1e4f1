"""Indices by axis name: each of one axis with each of another, whatever the number of prompts."""

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import xarray as xr
from torch.testing import assert_close

import interp
from interp import Site, attribution, edits, effects, metrics, probing, steering, tasks
from interp.sweep import sweep
from interp.traces import Tokens

Z = Site("z", 0)
AT = {
    "role and heads": {"pos": "S", "head": [1, 3]},
    "positions and heads": {"pos": [1, 2], "head": [0, 3]},
    "positions and entries": {"pos": [1, 2], "d_head": [0, 5]},
    "prompts, positions and heads": {"batch": [0, 2], "pos": [1, 2], "head": torch.tensor([0, 3])},
    "one head": {"pos": [1, 2], "head": 2},
    "a slice": {"pos": "S", "head": slice(1, 3)},
}


def model_and_prompts(n: int) -> tuple[interp.Model, Tokens]:
    ids = torch.randint(2, 30, (n, 6), generator=torch.Generator().manual_seed(n))
    return interp.load(tiny.build("gpt2")), Tokens(ids, torch.ones_like(ids), {"S": 1 + torch.arange(n) % 4})


def chosen(at: dict, tokens: Tokens, shape: torch.Size) -> torch.Tensor:
    """Which entries of z an edit acts on, by a loop over all of them."""
    found = torch.zeros(shape, dtype=torch.bool)
    listed = lambda i, size: range(*i.indices(size)) if isinstance(i, slice) else [i] if isinstance(i, int) else list(i)
    for prompt in listed(at.get("batch", slice(None)), shape[0]):
        pos = [int(tokens.role("S")[prompt])] if at.get("pos") == "S" else listed(at.get("pos", slice(None)), shape[1])
        for p in pos:
            for head in listed(at.get("head", slice(None)), shape[2]):
                found[prompt, p, head, listed(at.get("d_head", slice(None)), shape[3])] = True
    return found


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("case", AT)
def test_zero_copy_and_mean(case, n):
    model, tokens = model_and_prompts(n)
    before, other = model.run(tokens, read=Z)[Z], model.run(tokens.rows(torch.arange(n).flip(0)), read=Z)
    here = chosen(AT[case], tokens, before.shape)
    at = AT[case]
    assert_close(model.run(tokens, read=Z, edits=edits.zero(Z, **at))[Z], before.masked_fill(here, 0))
    if "S" not in at.values():  # roles of the other run are at other places
        assert_close(model.run(tokens, read=Z, edits=edits.copy(other, Z, **at))[Z], other[Z].where(here, before))
    if "batch" not in at:
        pooled = edits.mean(other, Z, ("batch", "pos"), **at)
        wanted = other[Z].mean((0, 1)).expand_as(before).where(here, before)
        assert_close(model.run(tokens, read=Z, edits=pooled)[Z], wanted)
        if "S" not in at.values():
            wanted = other[Z].mean(0).expand_as(before).where(here, before)
            assert_close(model.run(tokens, read=Z, edits=edits.mean(other, Z, **at))[Z], wanted)


PADDED = (torch.tensor([[0, 0, 1, 2], [3, 4, 5, 6]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]))


@pytest.mark.parametrize(
    "site, at", [("resid_post", {"pos": 1}), ("pattern", {"query": 0}), ("scores", {"key": [0, 1]})]
)
def test_what_is_padding_in_some_prompt_is_refused(site, at):
    model = interp.load(tiny.build("gpt2"))
    with pytest.raises(ValueError, match="selects nothing but padding in some prompt"):
        model.run(PADDED, edits=edits.scale(Site(site, 1), 2.0, **at))
    model.run(PADDED, edits=edits.scale(Site(site, 1), 2.0, **{axis: [0, 3] for axis in at}))
    with pytest.raises(ValueError, match=r"position 1 is padding in prompts \[0\]"):
        metrics.logit(3).reading(1)(model.run(PADDED))


def test_an_answer_that_is_given_twice_counts_once():
    model, tokens = model_and_prompts(3)
    trace = model.run(tokens)
    for make in (metrics.prob, metrics.log_prob, metrics.log_odds, metrics.logit):
        assert_close(make([[3, 3, 7]])(trace), make([[3, 7]])(trace))


def test_metrics_of_counts_are_numbers_and_those_that_write_are_refused():
    model, tokens = model_and_prompts(3)
    top = metrics.Metric("is 3", lambda logits: logits.argmax(-1) == 3)
    assert top(model.run(tokens)).dtype == torch.float32

    def writes(logits: torch.Tensor) -> torch.Tensor:
        logits[:, 3] = 0
        return logits[:, 3]

    with pytest.raises(ValueError, match="mine wrote into the logits"):
        metrics.Metric("mine", writes)(model.run(tokens))


SAME = {  # the same index in several ways
    "range": ({"pos": range(2, 4), "head": [0, 1]}, {"pos": [2, 3], "head": [0, 1]}),
    "numbers of numpy": ({"pos": np.int64(-1), "head": np.int64(1)}, {"pos": -1, "head": 1}),
    "numbers of torch": ({"pos": torch.tensor(2), "head": [0, 1]}, {"pos": 2, "head": [0, 1]}),
    "truth values": ({"pos": torch.tensor([False, True, False, True, True])}, {"pos": [1, 3, 4]}),
    "a table's column": ({"pos": pd.Series([1, 3]), "head": pd.Index([0, 1])}, {"pos": [1, 3], "head": [0, 1]}),
    "a labelled mask": ({"pos": xr.DataArray([False, True, False, True, True])}, {"pos": [1, 3, 4]}),
    "all true": ({"pos": torch.ones(5, dtype=torch.bool)}, {}),
}


@pytest.mark.parametrize("name", SAME)
def test_an_index_that_is_written_in_another_way(name):
    """In a run, where another run is copied from, and in a sweep, which leaves out what comes before an edit."""
    model, tokens = interp.load(tiny.build("gpt2")), torch.randint(2, 30, (2, 5))
    other, metric = model.run(tokens.flip(1), read=[Z]), metrics.logit(3)
    for make in (lambda at: edits.zero(Z, **at), lambda at: edits.copy(other, Z, **at)):
        one, another = (make(at) for at in SAME[name])
        wanted = model.run(tokens, edits=another)
        assert_close(model.run(tokens, edits=one).logits, wanted.logits)
        assert_close(sweep(model, tokens, [[one]], [metric]).values[0, 0], metric(wanted))


def test_what_reads_padding_is_refused():
    model = interp.load(tiny.build("gpt2"))
    for call in (
        lambda: sweep(model, PADDED, [[]], [metrics.logit(3).reading(1)]),
        lambda: probing.collect(model, PADDED, [Z], at=[1]),
        lambda: steering.mean_difference(model, PADDED, PADDED, Z, at=1),
        lambda: effects.logit_attribution(model, PADDED, metrics.logit(3).reading(1)),
    ):
        with pytest.raises(ValueError, match=r"position 1 is padding in prompts \[0\]; count from the end"):
            call()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16])
def test_a_mask_of_another_type_is_read_as_numbers(dtype):
    model, (ids, mask) = interp.load(tiny.build("gpt2")), PADDED
    assert_close(model.run((ids, mask.to(dtype))).logits, model.run(PADDED).logits)
    with pytest.raises(ValueError, match="prompts are padded on the left"):
        model.run((ids, torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1]]).to(dtype)))


@pytest.mark.parametrize("index", [None, True, 1.0, {1, 2}, np.array(1.5), torch.tensor([1.0]), [1, None], {}.keys()])
def test_what_is_no_index_is_refused(index):
    with pytest.raises(TypeError, match="an index is a number, a slice, several numbers, or the name of a role, not"):
        edits.zero(Z, pos=index)


def test_an_edit_takes_one_role():
    with pytest.raises(ValueError, match=r"one edit takes one role, not \['S', 'END'\]; give an edit for each"):
        edits.zero(Z, pos=["S", "END"])


@pytest.mark.parametrize("name", ["prompt", "generated"])
def test_names_of_spans_are_no_roles(name):
    with pytest.raises(ValueError, match=f"'{name}' is the name of all positions that were given or generated"):
        interp.load(tiny.build("gpt2")).tokens(torch.ones(1, 3, dtype=torch.long), {name: 1})


def test_answers_may_be_of_unequal_number():
    model, tokens = model_and_prompts(3)
    trace = model.run(tokens)
    assert_close(metrics.prob([[1], [2, 3], [4]])(trace), metrics.prob([[1, -1], [2, 3], [4, -1]])(trace))
    assert_close(metrics.logit_diff([3, [4, 5], 6], 2)(trace), metrics.logit_diff([[3, -1], [4, 5], [6, -1]], 2)(trace))


def test_a_model_without_a_tokenizer_names_tokens_by_their_ids():
    model = interp.load(tiny.build("gpt2"))
    rows = [{"clean": [2, 3, 4], "corrupt": [2, 5, 4], "right": 6, "wrong": [7, 8]}]
    task = tasks.from_rows(model, pd.DataFrame(rows))
    assert task.right.tolist() == [[6]] and task.wrong.tolist() == [[7, 8]]
    labelled = tasks.from_labels(model, [[2, 3], [3, 2]], [True, False], answers={True: 12, False: (3, 4)})
    assert labelled.answers.tolist() == [[[3, 4], [12, -1]]] * 2
    assert [metric.name for metric in attribution.targets(model, [3, 4])] == ["3", "4"]
    with pytest.raises(ValueError, match="token ids are from 0 to"):
        model.token_id(10**6)
