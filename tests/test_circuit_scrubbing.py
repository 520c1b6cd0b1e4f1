"""Scrubbing leaves what a true hypothesis says is enough, and nothing of a false one."""

import numpy as np
import pytest
import torch
from wired import METRIC, model_of

from interp import circuits, metrics
from interp.circuits import Rule
from interp.donors import donors
from interp.zoo import handset

ALL = [("*", "*")]


def prompts(model):
    return model.tokens(torch.randint(1, 30, (6, 5), generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_to_keep_all_is_the_run_and_to_keep_none_is_the_donors(family):
    model = model_of(family)
    tokens = prompts(model)
    rules = {"all": [Rule(ALL, None)], "none": [], "parity": [Rule(ALL, ["parity"])]}
    labels = {"parity": [0, 1, 0, 1, 0, 1]}
    found = circuits.scrub(model, tokens, labels, rules, METRIC, draws=3, seed=4)
    np.testing.assert_allclose(found["metric"].sel(hypothesis="all"), METRIC(model.run(tokens)), atol=1e-10)
    np.testing.assert_allclose(found["full"], METRIC(model.run(tokens)), atol=1e-10)
    own = METRIC(model.run(tokens))
    for name, keys, seed in (("none", [0] * 6, 4), ("parity", labels["parity"], 5)):
        wanted = torch.stack([own[row] for row in donors(keys, None, 3, seed)]).mean(0)  # the answers are all alike
        np.testing.assert_allclose(found["metric"].sel(hypothesis=name), wanted, atol=1e-9)
    np.testing.assert_array_equal(found["empty"], found["metric"].sel(hypothesis="none"))


def test_a_rule_resamples_its_edges_alone():
    model = model_of("llama")
    tokens, graph = prompts(model), circuits.graph(model)
    edges = [("L0H1", "*"), ("embed", "L1H2.q")]
    rules = {"mine": [Rule(edges, ()), Rule(ALL, None)]}
    found = circuits.scrub(model, tokens, {}, rules, METRIC, draws=1, seed=2)["metric"][0]
    (row,) = donors([0] * 6, None, 1, 3)
    wanted = circuits.patch_edges(model, tokens.rows(row), tokens, {"mine": graph.mask(edges)}, METRIC).values[0]
    np.testing.assert_allclose(found.values, METRIC(model.run(tokens)).numpy() + wanted, atol=1e-9)


def test_a_true_hypothesis_recovers_all_and_a_false_one_little():
    toy = handset.backup(repair=0.0)
    names = [name for name in handset.NAMES for _ in "ab"]
    texts = [f"<bos> {name} and :" if i % 2 else f"<bos> and {name} :" for i, name in enumerate(names)]
    labels = {"name": names, "order": [i % 2 for i in range(8)]}
    answer = metrics.logit([1 + handset.NAMES.index(name) for name in names])
    told = lambda *carry: [Rule([("L0H0", "logits")], carry)]
    rules = {"name": told("name"), "order": told("order"), "whole": [Rule([("embed", "L0H0.*"), ("L0H0", "*")], None)]}
    found = circuits.faithfulness(circuits.scrub(toy, texts, labels, rules, answer, seed=1))["mean"]
    assert float(found.sel(hypothesis="name")) == pytest.approx(1, abs=0.01)
    assert float(found.sel(hypothesis="whole")) == pytest.approx(1, abs=0.01)
    assert abs(float(found.sel(hypothesis="order"))) < 0.5


ERRORS = {
    "no hypothesis": (
        ({}, {}),
        "no hypothesis was given; give rules by name, such as {'mine': [Rule([('*', 'logits')], None)]}",
    ),
    "no such label": (
        ({"parity": [0] * 6}, {"mine": [Rule(ALL, ["name"])]}),
        "these prompts have no label 'name'; their labels: parity",
    ),
    "labels of other prompts": (
        ({"parity": [0] * 5}, {"mine": [Rule(ALL, ["parity"])]}),
        "the label 'parity' is of 5 prompts, but 6 were given",
    ),
    "a prompt alone": (
        ({"parity": [0] * 5 + [1]}, {"mine": [Rule(ALL, ["parity"])]}),
        "resampling needs other prompts of 5 tokens, parity 1; the reference has none",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_message(case):
    (labels, rules), message = ERRORS[case]
    model = model_of("gpt2")
    with pytest.raises(ValueError) as caught:
        circuits.scrub(model, prompts(model), labels, rules, METRIC)
    assert caught.value.args[0] == message
