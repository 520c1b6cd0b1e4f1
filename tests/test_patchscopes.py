"""Hidden states in other prompts, against the runs that they must equal."""

import numpy as np
import pytest
import torch
from conftest import load

from interp import Site, edits, generate, lens, metrics, tasks
from interp.arrays import checks_of

PROMPTS = ["when Mary and John went to", "the store gave a"]


def test_each_cell_is_the_run_written_by_hand(backend):
    model = load("gpt2", backend)
    target, metric = "John and Anna went", metrics.log_odds([5, 9])
    found = lens.patchscope(model, PROMPTS, target, metric, source_at=-2, target_at=1)
    trace = model.run(PROMPTS, read=model.sites("resid_post"))
    for here, there in ((0, 2), (2, 0), (1, 1)):
        vector = trace[Site("resid_post", here)][:, -2]
        patched = metric(model.run([target] * 2, edits=[edits.put(Site("resid_post", there), vector, pos=1)]))
        cell = found.sel(vector="patched", source=f"resid_post.{here}", target=f"resid_post.{there}")
        np.testing.assert_allclose(cell, patched.detach(), atol=1e-4)
        np.testing.assert_allclose(
            found.sel(vector="other prompt", source=f"resid_post.{here}", target=f"resid_post.{there}")[0],
            metric(model.run([target] * 2, edits=[edits.put(Site("resid_post", there), vector.roll(1, 0), pos=1)]))[
                0
            ].detach(),
            atol=1e-4,
        )
    np.testing.assert_allclose(found.unpatched, metric(model.run([target] * 2)).detach(), atol=1e-4)


def test_into_the_last_layer_it_is_the_logit_lens(family):
    model = load(family)
    metric = metrics.log_odds(7)
    last = Site("resid_post", model.shape.n_layers - 1)
    found = lens.patchscope(model, PROMPTS, "Anna gave", metric, target_sites=[last], randoms=0)
    values = lens.logit_lens(model, PROMPTS, metric)
    np.testing.assert_allclose(found.sel(vector="patched").isel(target=0), values, atol=1e-4)


def test_a_prompt_put_into_itself_stays_as_it_is(family):
    model = load(family)
    found = lens.patchscope(model, PROMPTS, PROMPTS, metrics.log_odds(7), randoms=0).sel(vector="patched")
    for i in range(model.shape.n_layers):
        np.testing.assert_allclose(found[i, i], found.unpatched, atol=1e-4)


def test_random_vectors_have_the_norm_of_the_patched_ones(embedded):
    norms: list[torch.Tensor] = []

    def keep(vectors, here, there):
        norms.append(vectors.norm(dim=-1))
        return vectors

    site = [Site("resid_post", 1)]
    task = tasks.facts(embedded, n=4)
    lens.patchscope(embedded, task.clean, task.corrupt, task.logit_diff, site, site, mapping=keep, randoms=2)
    for other in norms[2:]:
        torch.testing.assert_close(other, norms[0])


def _verb(model, **more):
    task = tasks.refusal(model, n=16, seed=2)
    metric = metrics.log_odds(task.right)
    how = {"source_at": "verb", "target_at": "verb", "randoms": 18} | more
    return lens.patchscope(model, task.clean, task.corrupt, metric, **how)


def test_what_a_verb_carries_is_read_in_other_prompts_and_what_random_vectors_do_is_not_counted(embedded):
    found = _verb(embedded)
    effect = (found - found.unpatched).mean("prompt").max(("source", "target"))
    assert float(effect.sel(vector="patched")) > 1.5 * float(effect.drop_sel(vector="patched").max()) > 0
    (check,) = checks_of(found)
    assert check.status == "pass" and check.value == pytest.approx(float(effect[0] - effect[1:].max()), abs=1e-4)


def test_the_furthest_control_counts(embedded):
    task = tasks.sentiment(embedded, n=16, seed=2)
    metric = metrics.log_odds(task.right)
    found = lens.patchscope(embedded, task.clean, task.corrupt, metric, source_at="adjective", target_at="adjective")
    effect = (found - found.unpatched).mean("prompt").max(("source", "target"))
    assert int(effect[1:].argmax()) > 0  # a random vector, not another prompt's
    assert checks_of(found)[0].value == pytest.approx(float(effect[0] - effect[1:].max()), abs=1e-4)


def test_a_vector_that_says_no_more_than_others_is_warned_about(embedded):
    noise = torch.randn(16, 128, generator=torch.Generator().manual_seed(0))
    assert checks_of(_verb(embedded, mapping=lambda vectors, here, there: noise))[0].status == "warn"


def test_what_is_written_is_what_generation_with_the_edit_gives(embedded):
    task = tasks.facts(embedded, n=3)
    site = Site("resid_post", 1)
    texts = lens.inspect(embedded, task.clean, task.corrupt, site, site, "subject", "subject", n_tokens=2)
    clean = embedded.run(task.clean, read=[site])
    assert texts == generate(embedded, task.corrupt, 2, [edits.copy(clean, site, pos="subject")])
    whole = lens.inspect(embedded, task.clean, task.corrupt, site, site, n_tokens=2)
    position = task.corrupt.ids.shape[1] - 1
    assert whole == generate(embedded, task.corrupt, 2, [edits.put(site, clean[site][:, -1], pos=position)])


def test_log_odds_are_those_of_the_probability():
    logits = torch.randn(3, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for token in (4, [1, 2, 3], [[1, 2], [3, -1], [0, 0]]):
        p = metrics.prob(torch.tensor(token)).of(logits)
        if token == [[1, 2], [3, -1], [0, 0]]:
            p[2] = logits.softmax(-1)[2, 0]  # named twice, it is still one token
        torch.testing.assert_close(metrics.log_odds(torch.tensor(token)).of(logits), (p / (1 - p)).log())


def test_messages(embedded):
    task = tasks.facts(embedded, n=3)
    with pytest.raises(ValueError, match="3 source and 2 target prompts were given; give a target for each, or one"):
        lens.patchscope(embedded, task.clean, task.corrupt.rows([0, 1]), task.logit_diff)
    with pytest.raises(ValueError, match=r"the mapping made \(3, 5\) out of \(3, 128\); it keeps the shape"):
        lens.patchscope(embedded, task.clean, task.corrupt, task.logit_diff, mapping=lambda x, here, there: x[:, :5])
