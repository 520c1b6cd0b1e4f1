"""Direct, total and indirect effects, against the weights, plain torch and a model with a known circuit."""

from functools import partial

import numpy as np
import pytest
import tiny
import torch
import xarray as xr
from conftest import load
from torch.testing import assert_close

import interp
from interp import Site, components, edits, effects, metrics, stats, tasks
from interp.arrays import checks_of
from interp.zoo import handset

PROMPTS = ["when Mary and John went to", "the store gave a"]
METRIC = metrics.logit_diff(5, 9)
WHOLE = ("gemma2", "olmo2")  # families in which a norm stands between the heads and the stream


def attribute(model: interp.Model, metric: metrics.Metric = METRIC, **more) -> xr.DataArray:
    return effects.logit_attribution(model, PROMPTS, metric, **more)


@pytest.fixture(scope="module")
def ioi(embedded):
    return tasks.ioi(embedded, n=16)


def test_components_add_up_to_the_metric_on_every_family_and_backend(family, backend):
    model = load(family, backend)
    for metric in (METRIC, metrics.logit(7)):
        shares = attribute(model, metric)
        assert [check.status for check in checks_of(shares)] == ["pass", "pass"]
        assert any("H" in name for name in shares.component.values) == (family not in WHOLE)
        if model.logit_cap is None:
            assert_close(torch.tensor(shares.sum("component").values), metric(model.run(PROMPTS)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "opt", "phi", "llama", "qwen3"])
def test_in_float64_they_add_up_to_1e_9(family):
    module = tiny.build(family, torch.float64)
    if family in ("llama", "qwen3"):  # their own norms round to float32
        norm = torch.nn.RMSNorm(32, eps=1e-6).double().eval()
        norm.weight.data = module.model.norm.weight.data
        module.model.norm = norm
    model = interp.load(module, tokenizer=tiny.tokenizer())
    difference = attribute(model).sum("component").values - METRIC(model.run(PROMPTS)).numpy()
    assert np.abs(difference).max() < 1e-9


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_share_is_the_weights_applied_by_hand(family):
    module = tiny.build(family)
    model = interp.load(module, tokenizer=tiny.tokenizer())
    trace = model.run(PROMPTS, read=model.sites("z", "resid_final"))
    final = trace[Site("resid_final")][:, -1]
    norm = model.module.get_submodule("transformer.ln_f" if family == "gpt2" else "model.norm")
    centred = (lambda x: x - x.mean(-1, keepdim=True)) if family == "gpt2" else (lambda x: x)
    scale = (centred(final).pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    read = module.lm_head.weight[5] - module.lm_head.weight[9]
    shares = attribute(model)
    for layer in range(3):
        if family == "gpt2":
            matrix = module.transformer.h[layer].attn.c_proj.weight
        else:
            matrix = module.model.layers[layer].self_attn.o_proj.weight.T
        for head in range(4):
            written = trace[Site("z", layer)][:, -1, head] @ matrix[8 * head : 8 * head + 8]
            by_hand = (centred(written) / scale * norm.weight) @ read
            found = torch.tensor(shares.sel(component=f"L{layer}H{head}").values)
            assert_close(found, by_hand.detach(), atol=1e-4, rtol=1e-4 if family == "gpt2" else 1e-3)


def test_heads_and_their_bias_add_up_to_attention(family):
    model = load(family)
    apart, whole = attribute(model), attribute(model, heads=False)
    if family in WHOLE:
        assert "matrix" in apart.attrs["heads"]
        xr.testing.assert_equal(apart, whole)
        return
    for layer in range(3):
        heads = [n for n in apart.component.values if n.startswith(f"L{layer}H") or n == f"attn_bias{layer}"]
        total = apart.sel(component=heads).sum("component")
        np.testing.assert_allclose(total, whole.sel(component=f"attn{layer}"), atol=1e-5)


def test_output_matrices_are_the_weights():
    module = tiny.build("gpt2")
    matrices = components.output_matrices(interp.load(module))
    for block, found in zip(module.transformer.h, matrices):
        assert_close(found.weight.flatten(0, 1), block.attn.c_proj.weight.detach(), atol=1e-6, rtol=1e-5)
        assert_close(found.bias, block.attn.c_proj.bias.detach())


def test_a_cap_is_taken_off_and_said():
    module = tiny.build("gemma2")
    model = interp.load(module, tokenizer=tiny.tokenizer())
    assert model.logit_cap == 3.0
    tokens = model.tokens(PROMPTS)
    hidden = module.model(input_ids=tokens.ids, attention_mask=tokens.mask, position_ids=tokens.positions)[0][:, -1]
    before = module.lm_head(hidden).detach()
    shares = attribute(model)
    assert_close(torch.tensor(shares.sum("component").values), METRIC.of(before), atol=1e-4, rtol=1e-4)
    assert float((METRIC.of(before) - METRIC(model.run(tokens))).abs().max()) > 0.01
    assert shares.attrs["logits"] == "before the cap of 3.0"


def test_another_position_is_read_as_if_the_prompt_ended_there(embedded, ioi):
    cut = embedded.tokens((ioi.clean.ids[:, :-3], ioi.clean.mask[:, :-3]))
    for at in (-4, ioi.clean.ids.shape[1] - 4):
        shares = effects.logit_attribution(embedded, ioi.clean, ioi.logit_diff.reading(at))
        np.testing.assert_allclose(shares, effects.logit_attribution(embedded, cut, ioi.logit_diff), atol=1e-4)
    made = components.each(embedded, edits.zero)
    there = effects.decompose(embedded, ioi.clean, made, ioi.logit_diff.reading(-4))
    ended = effects.decompose(embedded, cut, made, ioi.logit_diff)
    for name in ("total", "direct"):
        np.testing.assert_allclose(there[name], ended[name], atol=1e-3)


@pytest.mark.parametrize("metric", [metrics.log_prob(5), metrics.prob(5), metrics.prob_diff(5, 9)])
def test_a_curved_metric_has_no_shares_and_no_frozen_norm(metric):
    model = load("gpt2")
    with pytest.raises(ValueError, match="not linear in the logits"):
        attribute(model, metric)
    found = effects.decompose(model, PROMPTS, {"a": edits.zero(Site("z", 0), head=1)}, metric)
    assert list(found.norm.values) == ["free"]
    assert "not linear" in found["total"].attrs["frozen"]


def test_a_norm_between_the_blocks_is_found_out():
    model = interp.load(tiny.build("opt", do_layer_norm_before=False), tokenizer=tiny.tokenizer())
    shares = attribute(model)
    assert [check.status for check in checks_of(shares)] == ["pass", "warn"]
    assert float(abs(shares.sel(component="remainder")).max()) > 0.1


def test_the_frozen_direct_effect_is_what_attribution_says(family, backend):
    model = load(family, backend)
    kinds = ("attn_out", "mlp_out") if family in WHOLE else ("z", "mlp_out")
    shares = attribute(model, heads=family not in WHOLE)
    direct = effects.decompose(model, PROMPTS, components.each(model, edits.zero, *kinds), METRIC)["direct"]
    wanted = -shares.sel(component=direct.component.values)
    np.testing.assert_allclose(direct.sel(norm="frozen"), wanted, atol=2e-4)


def test_effects_equal_the_runs_and_norms_written_by_hand(embedded, ioi):
    site, last = Site("z", 1), Site("resid_post", 3)
    source = embedded.run(ioi.corrupt, read=[site])
    edit = edits.copy(source, site, head=1)
    found = effects.decompose(embedded, ioi.clean, {"L1H1": edit}, ioi.logit_diff).isel(component=0)
    clean, edited = (
        embedded.run(ioi.clean, read=[site, last, Site("attn_out", 1)], edits=some) for some in ([], [edit])
    )
    base, total = ioi.logit_diff(clean), ioi.logit_diff(edited)
    block = embedded.module.transformer.h[1].attn.c_proj.weight.unflatten(0, (4, -1))[1]
    moved = ((source[site] - clean[site])[:, -1, 1] @ block).detach()
    direct = ioi.logit_diff.of(embedded.unembed(clean[last][:, -1] + moved)).detach()
    norm = embedded.module.transformer.ln_f
    scale = (clean[last][:, -1].var(-1, keepdim=True, correction=0) + norm.eps).sqrt()

    def held(change: torch.Tensor) -> torch.Tensor:
        normed = (change - change.mean(-1, keepdim=True)) / scale * norm.weight
        return ioi.logit_diff.of(normed @ embedded.module.lm_head.weight.T).detach()

    at = lambda name, norm: torch.tensor(found[name].sel(norm=norm).values)
    assert_close(at("total", "free"), total - base, atol=1e-4, rtol=1e-4)
    assert_close(at("direct", "free"), direct - base, atol=1e-4, rtol=1e-4)
    assert_close(at("direct", "frozen"), held(moved), atol=1e-4, rtol=1e-4)
    assert_close(at("total", "frozen"), held((edited[last] - clean[last])[:, -1]), atol=1e-4, rtol=1e-4)
    assert_close(at("indirect", "free"), total - direct, atol=1e-4, rtol=1e-4)


def test_nothing_follows_the_last_mlp_and_the_stream(embedded, ioi):
    made = components.each(embedded, partial(edits.scale, factor=0.5), "mlp_out", "resid_post", "mlp_post")
    indirect = effects.decompose(embedded, ioi.clean, made, ioi.logit_diff)["indirect"]
    assert float(abs(indirect.sel(component=["mlp3", "mlp_post.3", "resid_post.3"])).max()) < 1e-4
    assert float(abs(indirect.sel(component=["mlp2", "mlp_post.2", "resid_post.2"])).min("prompt").max()) > 0.1


def test_effects_at_a_role_are_those_at_its_position(embedded, ioi):
    made = components.each(embedded, edits.zero)
    position = int(ioi.clean.roles["S2"][0])
    assert bool((ioi.clean.roles["S2"] == position).all())
    found = [effects.decompose(embedded, ioi.clean, made, ioi.logit_diff.reading(at)) for at in ("S2", position)]
    xr.testing.assert_allclose(*found, atol=1e-5)
    assert float(abs(found[0]["direct"]).max()) > 0.1


@pytest.mark.parametrize("repair", [0.0, 0.3, 0.8])
def test_self_repair_is_what_the_backup_head_was_built_to_do(repair):
    model = handset.backup(repair=repair)
    prompts, metric = ["<bos> Anna and :", "<bos> Tom and :", "<bos> Anna :"], metrics.logit_diff([3, 4, 3], [4, 3, 4])
    found = effects.decompose(model, prompts, components.each(model, edits.zero), metric)
    mover = effects.self_repair(found).sel(component="L0H0")
    for part in ("mean", "low", "high"):
        np.testing.assert_allclose(mover[part], repair, atol=0.01)
    assert checks_of(found)[0].status == ("warn" if repair > 0.2 else "pass")
    assert bool(effects.self_repair(found)["mean"].drop_sel(component="L0H0").isnull().all())


def test_the_backup_stays_out_when_the_mover_is_patched(backend):
    model = handset.backup(backend=backend)
    clean, corrupt, metric = ["<bos> Anna and :"] * 2, ["<bos> Tom and :"] * 2, metrics.logit_diff(3, 4)
    make = partial(edits.copy, model.run(corrupt, read=model.sites("z")))
    patched = effects.decompose(model, clean, components.each(model, make), metric)
    ablated = effects.decompose(model, clean, components.each(model, edits.zero), metric)
    for found, wanted in ((patched, 0.0), (ablated, 0.8)):
        mover = effects.self_repair(found)["mean"].sel(component="L0H0")
        np.testing.assert_allclose(mover, wanted, atol=0.01)


def test_a_ratio_of_means_and_its_interval():
    rng = np.random.default_rng(0)
    below = xr.DataArray(rng.normal(3, 1, (40, 2)), dims=("prompt", "cell"))
    exact = stats.ratio(2 * below, below)
    for part in ("mean", "low", "high"):
        np.testing.assert_allclose(exact[part], 2)
    noisy = stats.ratio(2 * below + rng.normal(0, 1, (40, 2)), below)
    assert bool((noisy["low"] < noisy["mean"]).all() and (noisy["mean"] < noisy["high"]).all())
    np.testing.assert_allclose(noisy["mean"], 2, atol=0.2)
    zero = stats.ratio(below, below - below.mean("prompt"))
    assert bool(zero["mean"].isnull().all() and zero["low"].isnull().all())


def test_effects_say_what_is_wrong():
    model = load("gpt2")
    with pytest.raises(ValueError, match="edits are given by name"):
        effects.decompose(model, PROMPTS, {}, METRIC)
    with pytest.raises(ValueError, match="resid_final is what the final norm is given"):
        effects.decompose(model, PROMPTS, {"a": edits.zero(Site("resid_final"))}, METRIC)


def test_repair_is_of_direct_effects_that_are_surely_not_zero(embedded):
    task = tasks.ioi(embedded, n=5, seed=1)
    found = effects.decompose(embedded, task.clean, components.each(embedded, edits.zero), task.logit_diff)
    repair, direct = effects.self_repair(found)["mean"], stats.interval(found["direct"])
    assert bool(repair.notnull().any()) and not bool((repair.notnull() & (direct.low * direct.high <= 0)).any())
