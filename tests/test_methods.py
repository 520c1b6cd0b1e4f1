"""The methods on the embedded model, against independent computations."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from torch.testing import assert_close

from interp import Site, attribution, edits, generate, lens, patching, stats, tasks
from interp.arrays import checks_of
from interp.zoo import card, own_circuits


def test_the_embedded_model_does_what_its_card_says(embedded):
    for prefix in (False, True):
        found = card.measure(embedded, n=100, seed=1, prefix=prefix)
        assert {name: value for name, value in found.items() if value < card.THRESHOLDS[name] - 0.01} == {}


@pytest.mark.parametrize("name", tasks.EMBEDDED)
def test_the_model_solves_every_task_and_its_opposite(embedded, name):
    task = tasks.EMBEDDED[name](embedded, n=48, seed=3)
    clean, corrupt = (task.prob_diff(embedded.run(tokens)) for tokens in (task.clean, task.corrupt))
    assert float((clean > 0).float().mean()) >= 0.95
    assert float((clean - corrupt).mean()) > 0.5
    assert task.clean.ids.shape == task.corrupt.ids.shape


def test_patching_equals_the_loop_written_by_hand(embedded):
    task = tasks.ioi(embedded, n=4)
    array = patching.patch(embedded, task.clean, task.corrupt, embedded.sites("z"), task.logit_diff, over=["head"])
    site = Site("z", 1)
    clean = embedded.run(task.clean, read=[site])
    low, high = (task.logit_diff(embedded.run(tokens)) for tokens in (task.corrupt, task.clean))
    patched = task.logit_diff(embedded.run(task.corrupt, edits=[edits.copy(clean, site, head=1)]))
    assert_close(torch.tensor(array.sel(layer=1, head=1).values), (patched - low) / (high - low), atol=1e-4, rtol=1e-4)


def test_patching_a_role_equals_patching_its_position(embedded):
    task = tasks.ioi(embedded, n=4)
    sites = embedded.sites("resid_pre")
    call = lambda **more: patching.patch(
        embedded, task.clean, task.corrupt, sites, task.logit_diff, over=["pos"], **more
    )
    position = int(task.clean.roles["S2"][0])
    np.testing.assert_allclose(call(roles=["S2"]).isel(pos=0), call().isel(pos=position), atol=1e-4)


def test_the_whole_stream_restores_everything(embedded):
    task = tasks.ioi(embedded, n=4)
    array = patching.patch(embedded, task.clean, task.corrupt, embedded.sites("resid_pre"), task.logit_diff)
    np.testing.assert_allclose(array.values, 1, atol=1e-5)


def test_integrated_gradients_are_complete_and_fall_on_the_subject(embedded):
    task = tasks.facts(embedded, n=8)
    scores = attribution.integrated_gradients(
        embedded, task.clean, task.corrupt, Site("resid_pre", 0), task.logit_diff, most=512
    )
    assert checks_of(scores)[0].status == "pass"
    subject = int(task.clean.roles["subject"][0])
    share = scores.isel(pos=[subject - 1, subject]).sum("pos") / scores.sum("pos")
    assert float(share.min()) > 0.9


def test_the_last_lens_is_the_model(embedded):
    task = tasks.ioi(embedded, n=8)
    values = lens.logit_lens(embedded, task.clean, task.logit_diff)
    assert_close(torch.tensor(values[-1].values), task.logit_diff(embedded.run(task.clean)))
    assert checks_of(values)[0].status == "pass"


def test_generation_ends_as_the_language_does(embedded):
    assert generate(embedded, "when Mary and John went to the store , John gave a drink to", 2) == ["Mary ."]


def test_sign_flips_find_an_effect_and_spare_a_null():
    noise = np.random.default_rng(0).normal(size=(40, 10))
    array = xr.DataArray(noise, dims=("prompt", "cell"), coords={"prompt": range(40), "cell": range(10)})
    assert float(stats.sign_flip(array).min()) > 0.05
    assert float(stats.sign_flip(array + (array.cell == 3))[3]) <= 0.01


def test_a_task_from_a_file(embedded, tmp_path):
    rows = [{"clean": "the dog", "corrupt": "the dogs", "right": "runs", "wrong": "run"}]
    path = tmp_path / "agree.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    task = tasks.from_file(embedded, path)
    assert (
        float(task.logit_diff(embedded.run(task.clean))[0]) > 0 > float(task.logit_diff(embedded.run(task.corrupt))[0])
    )


def test_the_circuits_on_the_card_are_found_in_both_directions(embedded):
    for behaviour, layer, head in (("ioi", 1, 1), ("ioi", 2, 2), ("induction", 2, 3)):
        found = own_circuits.effects(embedded, behaviour, "head", n=16, seed=5).sel(layer=layer, head=head)
        assert bool((found["low"] > 0.2).all()) and bool(found["significant"].all()), (behaviour, layer, head)
