"""Indices by axis name: each of one axis with each of another, whatever the number of prompts."""

import pytest
import tiny
import torch
from torch.testing import assert_close

import interp
from interp import Site, edits, metrics
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
    with pytest.raises(ValueError, match=r"logit reads position 1, which is padding in prompts \[0\]"):
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
