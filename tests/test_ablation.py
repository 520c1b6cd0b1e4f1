"""Ablation against runs written by hand, and the limits in which its kinds coincide."""

import numpy as np
import pytest
import torch
from conftest import load
from torch.testing import assert_close

from interp import Site, Tokens, ablation, edits, metrics, tasks
from interp.arrays import checks_of

METRIC = metrics.logit_diff(5, 9)
IDS = torch.randint(3, 30, (3, 6), generator=torch.Generator().manual_seed(1))
ROLES = {name: torch.full((3,), i) for i, name in enumerate("abcdef")}
PLACES = [("z", ["head"]), ("v", ["head", "pos"]), ("mlp_post", ["neuron"]), ("resid_post", ["pos"]), ("pattern", [])]


def values(array) -> torch.Tensor:
    return torch.tensor(array.values)


@pytest.mark.parametrize("kind, over", PLACES, ids=[kind for kind, _ in PLACES])
@pytest.mark.parametrize("name", ["gpt_neox", "llama"])
def test_each_node_is_the_run_written_by_hand(name, kind, over):
    model = load(name, dtype=torch.float64)
    site, other = Site(kind, 1), IDS.flip(0, 1)
    reference = model.run(other, read=[site])
    low = METRIC(model.run(IDS))
    for way, edit in (("zero", edits.zero), ("mean", lambda *a, **k: edits.mean(reference, *a, **k))):
        array = ablation.ablate(model, IDS, [site], METRIC, way, reference=other, over=over)
        for index in np.ndindex(*array.shape[1:-1]):
            wanted = METRIC(model.run(IDS, edits=[edit(site, **dict(zip(over, index)))])) - low
            assert_close(values(array)[(0, *index)], wanted)


def test_a_reference_of_one_prompt_makes_mean_and_sample_alike(family):
    model, site = load(family), load(family).sites("z")
    one = IDS[:1].flip(1).repeat(3, 1)
    found = ablation.sensitivity(model, IDS, site, METRIC, ["mean", "resample"], reference=one, over=["head"], draws=2)
    assert_close(*values(found), atol=2e-5, rtol=1e-4)
    assert checks_of(found)[0].value < 1e-3 < float(found.std()) and checks_of(found)[0].status == "pass"


def test_prompts_that_are_all_alike_lose_nothing_but_to_zero():
    model = load("gpt_neox")
    alike = IDS[:1].repeat(4, 1)
    found = ablation.sensitivity(model, alike, model.sites("attn_out"), METRIC, over=["pos"])
    np.testing.assert_allclose(found.sel(ablation=["mean", "resample"]), 0, atol=1e-5)
    assert float(abs(found.sel(ablation="zero")).max()) > 0.01
    assert checks_of(found)[0].value > 0.5 and checks_of(found)[0].status == "warn"


def test_a_role_at_every_position_makes_role_means_means_by_position():
    model = load("llama")
    prompts, reference = (Tokens(ids, torch.ones_like(ids), ROLES) for ids in (IDS, IDS.flip(0, 1)))
    kinds = ["role mean", "mean", "pooled mean"]
    found = ablation.sensitivity(model, prompts, model.sites("z"), METRIC, kinds, reference=reference, over=["head"])
    assert_close(values(found[0]), values(found[1]), atol=1e-5, rtol=1e-4)
    assert float(abs(found[2] - found[1]).max()) > 0.01


def test_pooling_counts_tokens_and_not_padding():
    model, site = load("gpt2"), Site("mlp_out", 1)
    padded = torch.cat([IDS[:2], torch.zeros(2, 2, dtype=torch.long)], 1).roll(2, 1)
    mask = (padded != 0).long()
    plain, with_padding = (
        ablation.ablate(model, IDS, [site], METRIC, "pooled mean", reference=reference)
        for reference in (IDS[:2], (padded, mask))
    )
    np.testing.assert_allclose(plain, with_padding, atol=1e-5)


def test_a_sample_is_a_copy_from_each_other_prompt_in_turn():
    """With two prompts each can only be the other's sample."""
    model, site, two = load("qwen3"), Site("k", 1), IDS[:2]
    trace = model.run(two.flip(0), read=[site])
    wanted = METRIC(model.run(two, edits=[edits.copy(trace, site, head=1)])) - METRIC(model.run(two))
    found = ablation.ablate(model, two, [site], METRIC, "resample", over=["head"], draws=3)
    assert_close(values(found)[0, 1], wanted, atol=1e-6, rtol=1e-5)


def test_samples_keep_to_prompts_of_the_same_length():
    """The reference has one prompt of each length, so that each prompt has one possible sample."""
    model, site = load("llama", dtype=torch.float64), Site("z", 0)
    prompts, reference = (torch.cat([torch.zeros(3, 2, dtype=torch.long), ids], 1) for ids in (IDS, IDS.flip(1)))
    for ids in (prompts, reference):
        ids[1, :2] = 7
    call = lambda **more: ablation.ablate(model, (prompts, (prompts != 0).long()), [site], METRIC, "resample", **more)
    with pytest.raises(ValueError, match="of 8 tokens"):
        call()
    pair = (reference[:2], (reference[:2] != 0).long())
    donor = model.run(tuple(x[[0, 1, 0]] for x in pair), read=[site])
    tokens = model.tokens((prompts, (prompts != 0).long()))
    wanted = METRIC(model.run(tokens, edits=[edits.copy(donor, site)])) - METRIC(model.run(tokens))
    assert_close(values(call(reference=pair))[0], wanted)


def test_the_check_is_the_range_over_the_mean(embedded):
    task = tasks.ioi(embedded, n=8)
    found = ablation.sensitivity(embedded, task.clean, embedded.sites("z"), task.logit_diff, over=["head"])
    effects = found.mean("prompt").values
    wanted = np.ptp(effects, axis=0).sum() / abs(effects).mean(0).sum()
    np.testing.assert_allclose(checks_of(found)[0].value, wanted, rtol=1e-5)
    share = ablation.ablate(
        embedded, task.clean, embedded.sites("z"), task.logit_diff, over=["head"], normalize=True, kind="zero"
    )
    clean = task.logit_diff(embedded.run(task.clean)).numpy()
    np.testing.assert_allclose(share * clean, found.sel(ablation="zero"), atol=1e-4)


def test_samples_by_role_come_from_prompts_of_any_length(embedded):
    """Of another task, whose prompts are of another length."""
    task, other = tasks.ioi(embedded, n=3), tasks.facts(embedded, n=3)
    site = Site("resid_pre", 1)
    found = ablation.ablate(
        embedded, task.clean, [site], task.logit_diff, "mean", reference=other.clean, over=["pos"], roles=["END"]
    )
    trace = embedded.run(other.clean, read=[site])
    edit = edits.put(site, trace[site][:, -1].mean(0), pos=-1)
    wanted = task.logit_diff(embedded.run(task.clean, edits=[edit])) - task.logit_diff(embedded.run(task.clean))
    assert_close(values(found)[0, 0], wanted, atol=1e-4, rtol=1e-4)


REFUSED = {
    "unknown kind": (dict(kinds=["none"]), "kinds of ablation, each once, out of zero, mean"),
    "too narrow": (dict(reference=IDS[:, 1:]), "the prompts have 6 positions, the reference 5"),
    "no other": (dict(reference=None, kinds=["resample"], prompts=IDS[:1]), "needs other prompts of 6 tokens"),
    "no roles": (dict(kinds=["role mean"]), "role means need prompts with roles"),
    "no positions": (dict(kinds=["pooled mean"], sites=[Site("pattern", 0)]), "pattern.0 has no positions to pool"),
    "no draw": (dict(draws=0), "at least one draw; draws=0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused(case):
    given, message = REFUSED[case]
    call = dict(prompts=IDS, sites=[Site("z", 0)], metric=METRIC) | given
    with pytest.raises(ValueError, match=message):
        ablation.sensitivity(load("gpt2"), **call)
