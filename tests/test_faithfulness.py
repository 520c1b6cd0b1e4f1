"""Tests of attributions, against loops over prompts written by hand."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import load
from test_attribution import EMBED, known
from torch.testing import assert_close

from interp import Site, attribution, metrics, tasks
from interp.arrays import checks_of
from interp.attribution.faithfulness import _checks
from interp.attribution.randomisation import _checks as _checks_of_copies


@pytest.fixture(scope="module")
def ioi(embedded):
    return tasks.ioi(embedded, n=6, seed=3)


def mixed(task, kept):
    """Clean prompts with the words that are not kept replaced by the corrupt ones."""
    return replace(task.clean, ids=torch.where(kept, task.clean.ids, task.corrupt.ids))


@pytest.fixture(scope="module")
def three(embedded):
    """Prompts of facts, with a baseline that differs from them in every word but the first."""
    task = tasks.facts(embedded, n=6, seed=3)
    ids = torch.cat([task.corrupt.ids[:, :1], task.corrupt.ids[:, 1:].flip(1)], 1)
    return replace(task, corrupt=replace(task.corrupt, ids=ids))


@pytest.mark.parametrize("site", [EMBED, Site("resid_pre", 0)])
def test_curves_equal_prompts_with_replaced_words(embedded, three, site):
    scores = attribution.integrated_gradients(embedded, three.clean, three.corrupt, EMBED, three.logit_diff, steps=4)
    found = attribution.curves(
        embedded, three.clean, three.corrupt, scores, three.logit_diff, site, shares=[0.3, 0.6], draws=2
    )
    metric = lambda kept: three.logit_diff(embedded.run(mixed(three, kept)))
    values = known(scores)
    whole, n_pos = metric(torch.ones_like(three.clean.ids, dtype=torch.bool)), len(values)
    for share in (0.3, 0.6):
        first = values.sort(0, descending=True).values[int(np.ceil(share * n_pos)) - 1][:, None] <= values.T
        one = found.sel(order="attribution", share=share)
        for name, kept in (("comprehensiveness", ~first), ("sufficiency", first)):
            assert_close(torch.from_numpy(one[name].values), whole - metric(kept), atol=1e-4, rtol=1e-4)
    for pos in (2, 5):
        kept = torch.ones_like(three.clean.ids, dtype=torch.bool)
        kept[:, pos] = False
        assert_close(torch.from_numpy(found.alone[pos].values), whole - metric(kept), atol=1e-4, rtol=1e-4)


def test_no_order_is_better_than_another_where_all_words_are_taken(embedded, three):
    scores = attribution.saliency(embedded, three.clean, EMBED, three.logit_diff)
    found = attribution.curves(
        embedded, three.clean, three.corrupt, {"saliency": scores}, three.logit_diff, shares=[1.0], draws=3
    )
    gap = three.logit_diff(embedded.run(three.clean)) - three.logit_diff(
        embedded.run(mixed(three, torch.tensor(False)))
    )
    for order in found.order.values:
        assert_close(
            torch.from_numpy(found.comprehensiveness.sel(order=order, share=1).values), gap, atol=1e-4, rtol=1e-4
        )
    assert float(abs(found.sufficiency).max()) < 1e-4


def test_random_scores_are_seldom_better_than_random():
    """Losses that do not depend on the order; of seven prompts or fewer nothing is said."""
    for n in (2, 7, 8, 12):
        found = []
        for seed in range(100):
            draw = np.random.default_rng(seed)
            values = draw.normal(size=(3, 1, n)) * np.array([1, 1, 20**-0.5])[:, None, None]
            coords = {"order": ["given", "leave one out", "random"], "share": [0.1], "prompt": range(n)}
            table = xr.Dataset({
                "comprehensiveness": xr.DataArray(values, dims=coords.keys(), coords=coords),
                "alone": xr.DataArray(draw.normal(size=(4, n)), dims=("pos", "prompt")),
            })  # fmt: skip
            given = {"given": xr.DataArray(draw.normal(size=(4, n)), dims=("pos", "prompt"))}
            found += [row.status for row in _checks(table, given) if "random" in row.name or "skill" in row.name]
        if n < 8:
            assert set(found) == {"skipped"}
        else:
            assert found.count("pass") <= 7 and found.count("warn") > 100  # of 100 each, 2.5 are expected


def test_an_order_is_told_from_chance_and_its_reverse_too(embedded):
    task = tasks.ioi(embedded, n=24, seed=1)
    mean = attribution.mean_baseline(embedded, task.clean)
    scores = attribution.feature_ablation(embedded, task.clean, mean, EMBED, task.logit_diff)
    found = attribution.curves(
        embedded, task.clean, mean, {"good": scores, "bad": -scores}, task.logit_diff, shares=[0.2], draws=20
    )
    status = {check.name: check.status for check in checks_of(found)}
    assert status["good: better than random"] == "pass" and status["bad: better than random"] == "warn"
    assert_close(known(found.alone), known(scores), atol=1e-4, rtol=1e-4)
    assert next(c for c in checks_of(found) if c.name == "good: skill").value == pytest.approx(1)


def test_the_smallest_sufficient_sets_are_those_of_an_exhaustive_search(embedded, three):
    share, metric = 0.8, three.logit_diff
    found = attribution.sufficient_subsets(embedded, three.clean, three.corrupt, metric, share=share)
    n_pos = three.clean.ids.shape[1]
    whole, none = (metric(embedded.run(mixed(three, torch.tensor(kept)))) for kept in (True, False))
    smallest = torch.full((6,), n_pos)
    for size in range(n_pos, -1, -1):
        for chosen in combinations(range(n_pos), size):
            kept = torch.zeros(n_pos, dtype=torch.bool)
            kept[list(chosen)] = True
            reached = (metric(embedded.run(mixed(three, kept))) - none) / (whole - none)
            smallest[reached >= share] = size
    assert found["size"].values.tolist() == smallest.tolist() and bool((found.smallest == 1).all())
    greedy = attribution.sufficient_subsets(embedded, three.clean, three.corrupt, metric, share=share, most=1)
    assert bool((greedy.smallest == 0).all()) and int((greedy["size"] - found["size"]).sum()) <= 2
    kept = torch.from_numpy(found.kept.transpose("prompt", "pos").values) == 1
    reached = (metric(embedded.run(mixed(three, kept))) - none) / (whole - none)
    assert_close(torch.from_numpy(found.reached.values), reached, atol=1e-4, rtol=1e-4)
    assert bool((reached >= share).all())


def test_one_word_is_enough_where_only_one_differs(embedded, ioi):
    found = attribution.sufficient_subsets(embedded, ioi.clean, ioi.corrupt, ioi.logit_diff)
    assert found["size"].values.tolist() == [1] * 6
    assert float(found.kept[int(ioi.clean.roles["S2"][0])].min()) == 1


@pytest.mark.parametrize("top", [None, 1])
def test_a_model_drawn_anew_is_another_and_leaves_the_first_alone(backend, top):
    model = load("llama", backend)
    before, ids = model.fingerprint(), torch.tensor([[3, 4, 5, 6]])
    logits, stream = model.run(ids).logits, Site("resid_pre", model.shape.n_layers - 1)
    twin, other = (attribution.reinitialised(model, seed, top) for seed in (0, 1))
    assert model.fingerprint() == before and torch.equal(model.run(ids).logits, logits)
    assert (
        (twin.run(ids).logits - logits).abs().max() > 0.1 < (twin.run(ids).logits - other.run(ids).logits).abs().max()
    )
    same = torch.equal(twin.run(ids, read=[stream])[stream], model.run(ids, read=[stream])[stream])
    assert same == (top == 1)


def test_randomisation_passes_what_the_model_knows_and_warns_of_what_it_does_not(embedded, ioi):
    of_model = lambda m: attribution.gradient_x_input(m, ioi.clean, EMBED, ioi.logit_diff)

    def of_position(m):
        scores = of_model(embedded)
        return scores.copy(data=np.arange(scores.sizes["pos"], dtype=float)[:, None] + 0 * scores.values)

    sees, blind = (attribution.randomisation(embedded, f, draws=3, seed=1) for f in (of_model, of_position))
    assert float(abs(sees.trained).mean()) < 0.6 and float(blind.trained.min()) == pytest.approx(1)
    assert [check.status for check in checks_of(sees)] == ["pass", "pass"]
    assert [check.status for check in checks_of(blind)] == ["warn", "warn"]


def test_a_random_model_is_seldom_told_from_random_models():
    """Models that are more or less typical, and all alike: one more of them is not unlike them."""
    told, draw = 0, np.random.default_rng(0)
    for _ in range(400):
        typical = 0.04 * draw.normal(size=6)
        table = 0.7 + typical[:, None] + typical + 0.04 * draw.normal(size=(6, 6))
        pairs = np.array([[table[i, j]] for i, j in combinations(range(1, 6), 2)])
        told += _checks_of_copies(table[0, 1:, None], pairs)[0].status == "pass"
    assert told <= 31  # 20 are expected: more in a case of a hundred
    alike = np.full((10, 1), 0.7)
    assert _checks_of_copies(np.full((5, 1), 0.5), alike)[0].status == "pass"
    assert _checks_of_copies(np.full((3, 1), 0.5), alike[:3])[0].status == "warn"  # of three, too little is known


def test_saliency_of_a_random_model_is_like_that_of_others(embedded, ioi):
    of_model = lambda m: attribution.saliency(m, ioi.clean, EMBED, ioi.logit_diff)
    for model, status in ((embedded, "pass"), (attribution.reinitialised(embedded, 99), "warn")):
        check = checks_of(attribution.randomisation(model, of_model, draws=4))[0]
        assert check.name == "like a random model" and check.status == status


def test_the_more_blocks_are_drawn_anew_the_less_is_left():
    model, ids = load("gpt2"), torch.tensor([[3, 4, 5, 6, 7, 8, 9, 10]])
    of_model = lambda m: attribution.gradient_x_input(m, ids, EMBED, metrics.logit(3))
    cascade = attribution.randomisation(model, of_model, cascade=True, draws=4)
    assert cascade.reset.values.tolist() == ["top 1", "top 2", "top 3", "all"]
    by_reset = cascade.trained.mean(("draw", "prompt"))
    assert float(by_reset.sel(reset="top 1")) > float(by_reset.sel(reset="all"))


ERRORS = {
    "scores of neurons": (
        lambda m, t, a: attribution.curves(m, t.clean, t.corrupt, a.rename(pos="neuron"), t.logit_diff),
        "an order of positions needs attributions by (pos, prompt) of these prompts, which have 15 positions, not "
        "{'neuron': 15, 'prompt': 6}; choose a baseline, metric or target first",
    ),
    "scores that are none": (
        lambda m, t, a: attribution.curves(m, t.clean, t.corrupt, a.where(a.prompt < 4), t.logit_diff),
        "attributions that are NaN at all positions give no order; those of prompts [4, 5] are",
    ),
    "a share of nothing": (
        lambda m, t, a: attribution.curves(m, t.clean, t.corrupt, a, t.logit_diff, shares=[0.0]),
        "shares are above 0 and at most 1, draws at least 1; got (0.0,) and 20",
    ),
    "a name that is taken": (
        lambda m, t, a: attribution.curves(m, t.clean, t.corrupt, {"random": a}, t.logit_diff),
        "the name 'random' is taken; give the order another",
    ),
    "one baseline": (
        lambda m, t, a: attribution.baseline_sensitivity(a),
        "this takes attributions from two baselines or more, not {'pos': 15, 'prompt': 6}",
    ),
    "too much of the way": (
        lambda m, t, a: attribution.sufficient_subsets(m, t.clean, t.corrupt, t.logit_diff, share=1.5),
        "the share is above 0 and at most 1, counts are at least 1; got 1.5, 512, 20",
    ),
    "one copy": (
        lambda m, t, a: attribution.randomisation(m, lambda m: a, draws=1),
        "random copies are compared with each other, so that it takes two; draws=1 was given",
    ),
    "too many blocks": (
        lambda m, t, a: attribution.reinitialised(m, top=5),
        "top=5 blocks of embedded (huggingface), which has 4 that can be told apart; leave top out for all",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_message(embedded, ioi, case):
    call, message = ERRORS[case]
    scores = attribution.saliency(embedded, ioi.clean, EMBED, ioi.logit_diff)
    with pytest.raises(ValueError) as caught:
        call(embedded, ioi, scores)
    assert caught.value.args[0] == message
