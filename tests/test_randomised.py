"""Copies with weights drawn anew: what they keep of the model, by either rule."""

import pytest
import tiny
import torch

import interp
from interp import attribution, probing

RULES = [probing.untrained, attribution.reinitialised]


@pytest.mark.parametrize("rule", RULES)
def test_a_copy_drawn_anew_reads_the_same_tokens(rule):
    model = interp.load(tiny.build("gpt2"), tokenizer=tiny.tokenizer(), bos=True)
    ids = model.tokens("Mary gave a drink").ids
    assert len(ids[0]) == 5 and torch.equal(rule(model).tokens("Mary gave a drink").ids, ids)


def test_only_reinitialised_draws_norms_and_biases_anew():
    model = interp.load(tiny.build("gpt2"))
    with torch.no_grad():  # as they are first made they are all alike, and would be drawn as they were
        for i, weight in enumerate(model.module.parameters()):
            weight += torch.linspace(0, 0.01 * i, weight.numel()).view(weight.shape)
    own = dict(model.module.named_parameters())
    kept = [
        {name for name, weight in rule(model).module.named_parameters() if torch.equal(weight, own[name])}
        for rule in RULES
    ]
    assert kept == [{name for name, weight in own.items() if weight.ndim < 2}, set()]
