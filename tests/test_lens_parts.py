"""Neurons against the weights; causal fidelity against runs done by hand."""

import numpy as np
import pytest
import tiny
import torch
from conftest import load

from interp import Edit, Site, lens, metrics, tasks
from interp.arrays import checks_of
from interp.lens import causal, places
from interp.lens.tuned import Translator, TunedLens

PROMPTS = ["when Mary and John went to", "the store gave a"]
METRIC = metrics.logit_diff(5, 9)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_a_contribution_is_activation_times_output_vector_times_unembedding(family, backend):
    model, module = load(family, backend), tiny.build(family)
    found = lens.neurons(model, PROMPTS, METRIC, top=48)
    names = {"gpt2": "transformer.h.1.mlp.c_proj", "gpt_neox": "gpt_neox.layers.1.mlp.dense_4h_to_h"}
    weight = module.get_submodule(names.get(family, "model.layers.1.mlp.down_proj")).weight.detach()
    weight = weight if family == "gpt2" else weight.T
    trace = model.run(PROMPTS, read=[Site("mlp_post", 1), Site("resid_final")])
    final, active = trace[Site("resid_final")][:, -1], trace[Site("mlp_post", 1)][:, -1]
    centre = (lambda x: x) if family == "llama" else (lambda x: x - x.mean(-1, keepdim=True))
    norm = module.get_submodule(
        {"gpt2": "transformer.ln_f", "gpt_neox": "gpt_neox.final_layer_norm"}.get(family, "model.norm")
    )
    head = module.get_output_embeddings().weight
    read = (head[5] - head[9]) * norm.weight / (centre(final).pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    by_hand = active * (centre(weight) @ read.T).T
    cell = found.sel(layer=1)
    np.testing.assert_allclose(cell.contribution, by_hand.detach()[:, cell.neuron.values].T, atol=1e-4, rtol=1e-3)
    np.testing.assert_allclose(cell.activation, active[:, cell.neuron.values].T, atol=1e-5)
    size = np.abs(cell.contribution.mean("prompt").values)
    largest = by_hand.detach().mean(0).abs().sort(descending=True).values[: len(size)]
    assert np.all(np.diff(size) <= 1e-6) and size[0] == pytest.approx(float(largest[0]), rel=1e-3)
    best = model.unembed(weight[cell.neuron.values[:8]] * active.mean(0)[cell.neuron.values[:8]].sign()[:, None])
    assert cell.word.isel(top=0).values[:8].tolist() == model.words(best.argmax(-1).tolist())


def test_neurons_behind_a_norm_are_refused():
    for family in ("gemma2", "olmo2"):
        with pytest.raises(ValueError, match="cannot be told apart: what its MLPs add is no sum over them; a norm"):
            lens.neurons(load(family), PROMPTS, METRIC)


def test_more_neurons_than_there_are_is_refused(embedded):
    with pytest.raises(ValueError, match="top is a number of neurons from 1 to 384, not 385"):
        lens.neurons(embedded, "the dog", METRIC, top=385)
    with pytest.raises(ValueError, match="top is a number of neurons from 1 to 384, not 0"):
        lens.neurons(embedded, "the dog", METRIC, top=0)
    with pytest.raises(ValueError, match="is not linear in the logits"):
        lens.neurons(embedded, "the dog", metrics.log_prob(5))


def test_at_the_last_layer_lens_and_model_respond_alike(family):
    model = load(family)
    ids = torch.randint(3, len(tiny.WORDS), (12, 6), generator=torch.Generator().manual_seed(0))
    found = lens.fidelity(model, ids, Site("resid_post", model.shape.n_layers - 1))
    np.testing.assert_allclose(found.sel(responder="lens"), found.sel(responder="model"), atol=1e-5)
    assert checks_of(found)[0].value == pytest.approx(1)


def test_the_models_response_is_that_of_a_run_with_the_direction_at_its_mean(embedded):
    task, site = tasks.ioi(embedded, n=12), Site("resid_post", 1)
    found = lens.fidelity(embedded, task.clean, site, at="END", directions=4)
    plain = embedded.run(task.clean, read=[site])
    stream = plain.at(site, "END")
    rows = torch.arange(12)
    before = plain.logits[rows, task.clean.role("END")].log_softmax(-1)
    total = 0.0
    for i, unit in enumerate(_directions(embedded, task, site, 4)):
        change = lambda x: x - ((x - stream.mean(0)) @ unit)[..., None] * unit
        after = embedded.run(task.clean, edits=[Edit(site, change, {"pos": "END"})])
        after = after.logits[rows, task.clean.role("END")].log_softmax(-1)
        kl = (before.exp() * (before - after)).sum(-1).detach()
        np.testing.assert_allclose(found.sel(responder="model", direction=i), kl, atol=1e-4)
        total += float(kl.mean())
    assert total > 1e-3


def _directions(model, task, site, n):
    place = places.place_of(model, site)
    stream = model.run(task.clean, read=[site]).at(site, "END")
    return causal._directions(model, place, stream, n, 8, torch.Generator().manual_seed(0))


def test_the_first_directions_move_the_lens_more_than_random_ones(embedded):
    prompts = tasks.ioi(embedded, 64).clean
    values = lens.fidelity(embedded, prompts, Site("resid_post", 2), directions=16).sel(responder="lens").mean("prompt")
    assert float(values[:4].mean()) > 2 * float(values[8:].mean())


def test_a_lens_that_does_not_look_is_not_ranked(embedded):
    blind = Translator(-torch.eye(128), torch.randn(128, generator=torch.Generator().manual_seed(0)))
    by = TunedLens({Site("resid_post", 1): blind}, embedded.fingerprint())
    prompts = tasks.ioi(embedded, n=8).clean
    values = lens.fidelity(embedded, prompts, Site("resid_post", 1), by=by, directions=6)
    assert float(values.sel(responder="lens").max()) < 1e-6
    assert checks_of(values)[0].status == "skipped"


def test_too_few_prompts_are_refused(embedded):
    with pytest.raises(ValueError, match="the variance of a stream needs prompts, eight or more; 1 were given"):
        lens.fidelity(embedded, "the dog", Site("resid_post", 1))


def test_prompts_that_do_not_differ_have_no_directions(embedded):
    with pytest.raises(ValueError, match=r"resid_post\.1 holds the same at -1 of all prompts: no direction varies"):
        lens.fidelity(embedded, ["the dog"] * 8, Site("resid_post", 1))


def test_a_lens_behind_a_rotation_is_not_what_the_model_uses(embedded):
    site, task = Site("resid_post", 2), tasks.ioi(embedded, n=24)
    passed = 0
    for seed in range(6):
        turn = torch.linalg.qr(torch.randn(128, 128, generator=torch.Generator().manual_seed(100 + seed)))[0]
        by = TunedLens({site: Translator(turn - torch.eye(128), torch.zeros(128))}, embedded.fingerprint())
        (check,) = checks_of(lens.fidelity(embedded, task.clean, site, by=by, seed=seed))
        passed += check.status == "pass"
        assert check.value > 0.5  # which says little
    assert passed <= 2
