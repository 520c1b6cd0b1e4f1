"""Activation patching against loops written by hand, TransformerLens's own sweeps, and identities."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from conftest import load
from torch.testing import assert_close

import interp
from interp import Site, Tokens, edits, metrics, patching, stats, tasks
from interp.arrays import checks_of
from interp.sites import UNLAYERED

CLEAN = [
    "Mary and John went , John gave to",
    "I love it",
    "she went and Anna gave a ball to",
    "the war lasted from year 17",
    "John gave a ball to",
    "you hate the drink so",
    "Mary and Anna went and Mary gave it",
    "he is not",
]
CORRUPT = [
    "Anna and Mary went , Anna gave to",
    "you hate it",
    "he went and Mary gave a drink to",
    "the war lasted from year 32",
    "Anna gave a drink to",
    "I love the ball so",
    "John and Mary went and John gave it",
    "she is so",
]
METRIC = metrics.logit_diff(4, 5)
OVER = {"pos": ["pos"], "head": ["head", "pos"], "neuron": ["neuron"], "query": ["query", "key"]}


def _over(site: Site) -> list[str]:
    return (
        next(OVER[axis] for axis in ("head", "neuron", "pos") if axis in site.axes)
        if "pos" in site.axes
        else OVER["query"]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 8])
def test_every_cell_is_one_run_with_one_edit(family, n, dtype):
    model = load(family, dtype=dtype)
    clean, corrupt = model.tokens(CLEAN[:n]), model.tokens(CORRUPT[:n])
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    rng = np.random.default_rng(0)
    start = METRIC(model.run(corrupt))
    for site in [Site(kind) if kind in UNLAYERED else Site(kind, 1) for kind in model.editable]:
        array = patching.patch(model, clean, corrupt, [site], METRIC, _over(site), normalize=False)
        values = torch.tensor(array.values).reshape(-1, *array.shape[-1 - len(_over(site)) :])[0]
        trace = model.run(clean, read=[site])
        for _ in range(3):
            index = tuple(int(rng.integers(size)) for size in values.shape[:-1])
            at = dict(zip(_over(site), index))
            measured = values[index].isfinite()
            if not measured.any():
                continue
            at |= {"batch": measured.nonzero().flatten()}
            alone = METRIC(model.run(corrupt, edits=[edits.copy(trace, site, **at)])) - start
            assert_close(values[index][measured], alone[measured], atol=tolerance, rtol=tolerance, msg=f"{site} {at}")


SWEEPS = {
    "resid_pre": ("resid_pre", ["pos"]),
    "attn_out": ("attn_out", ["pos"]),
    "mlp_out": ("mlp_out", ["pos"]),
    "attn_head_out_all_pos": ("z", ["head"]),
    "attn_head_q_all_pos": ("q", ["head"]),
    "attn_head_k_all_pos": ("k", ["head"]),
    "attn_head_v_all_pos": ("v", ["head"]),
    "attn_head_pattern_all_pos": ("pattern", ["head"]),
    "attn_head_out_by_pos": ("z", ["pos", "head"]),
    "attn_head_v_by_pos": ("v", ["pos", "head"]),
    "attn_head_pattern_by_pos": ("pattern", ["head", "query"]),
    "attn_head_pattern_dest_src_pos": ("pattern", ["head", "query", "key"]),
}


@pytest.mark.parametrize(
    "architecture, names", [("gpt2", [*SWEEPS]), ("llama", ["attn_head_k_all_pos", "attn_head_v_by_pos"])]
)
def test_the_sweeps_of_transformer_lens_give_the_same(architecture, names):
    from transformer_lens import patching as theirs

    model = load(architecture, "transformer_lens")
    raw = model.module
    clean, corrupt = model.tokens(CLEAN[4:5]), model.tokens(CORRUPT[4:5])
    _, cache = raw.run_with_cache(clean.ids)
    measure = lambda logits: logits[0, -1, 4] - logits[0, -1, 5]
    for name in names:
        kind, over = SWEEPS[name]
        with torch.no_grad():
            wanted = getattr(theirs, f"get_act_patch_{name}")(raw, corrupt.ids, cache, measure)
        wanted = wanted - measure(raw(corrupt.ids))
        array = patching.patch(model, clean, corrupt, model.sites(kind), METRIC, over, normalize=False)
        ours = torch.tensor(array.values[..., 0])
        if over == ["head", "query", "key"]:  # TransformerLens runs the masked half, too, which changes nothing
            assert_close(ours.isnan(), torch.ones_like(ours).triu(1).bool())
            ours = ours.nan_to_num()
        assert_close(ours, wanted.to(ours), atol=1e-5, rtol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


def test_the_whole_input_restores_the_clean_run(family):
    model = load(family)
    sites = model.sites("resid_pre")
    gap = METRIC(model.run(CLEAN)) - METRIC(model.run(CORRUPT))
    both = patching.both_directions(model, CLEAN, CORRUPT, sites, METRIC, normalize=False)
    for direction, sign in (("denoising", 1), ("noising", -1)):
        restored = torch.tensor(both.sel(direction=direction).values)
        assert_close(restored, sign * gap.expand_as(restored), atol=1e-5, rtol=1e-5)


def test_noising_is_denoising_with_the_prompts_swapped(embedded):
    task = tasks.ioi(embedded, n=4)
    sites = embedded.sites("z")
    noised = patching.patch(embedded, task.clean, task.corrupt, sites, task.logit_diff, ["head"], direction="noising")
    swapped = patching.patch(embedded, task.corrupt, task.clean, sites, task.logit_diff, ["head"])
    np.testing.assert_array_equal(noised.values, swapped.values)
    assert (noised.attrs["direction"], noised.name) == ("noising", "share lost")


def test_several_metrics_are_measured_as_each_alone(embedded):
    task = tasks.ioi(embedded, n=4)
    call = lambda metric: patching.patch(
        embedded, task.clean, task.corrupt, embedded.sites("z"), metric, ["head"], normalize=False
    )
    several = [task.logit_diff, task.prob_diff, replace(task.logit_diff.reading(-2), name="one word earlier")]
    array = call(several)
    assert array.dims == ("metric", "layer", "head", "prompt")
    for metric in several:
        np.testing.assert_allclose(array.sel(metric=metric.name), call(metric), atol=1e-5)


def test_raw_changes_are_shares_of_the_gap(embedded):
    task = tasks.ioi(embedded, n=4)
    gap = task.logit_diff(embedded.run(task.clean)) - task.logit_diff(embedded.run(task.corrupt))
    raw, share = (
        patching.patch(embedded, task.clean, task.corrupt, embedded.sites("z"), task.logit_diff, ["head"], normalize=n)
        for n in (False, True)
    )
    np.testing.assert_allclose(raw, share * gap.numpy(), atol=1e-5)


def test_key_value_heads_are_neither_repeated_nor_padded():
    model = load("llama")
    sites = model.sites("q", "k", "v", layers=[0, 2])
    array = patching.patch(model, CLEAN, CORRUPT, sites, METRIC, ["head"])
    assert array.sizes["kind"] == 3 and list(array["head"].values) == [0, 1, 2, 3]
    assert bool(array.sel(kind=["k", "v"], head=[2, 3]).isnull().all()) and bool(array.sel(kind="q").notnull().all())
    keys = patching.patch(model, CLEAN, CORRUPT, model.sites("k", layers=[0, 2]), METRIC, ["head"])
    assert list(keys["head"].values) == [0, 1] and bool(keys.notnull().all())
    np.testing.assert_array_equal(array.sel(kind="k", head=[0, 1]), keys)


def test_padding_is_not_measured(embedded):
    clean, corrupt = embedded.tokens(["the dog runs", "dog"]), embedded.tokens(["the cat runs", "cat"])
    array = patching.patch(embedded, clean, corrupt, embedded.sites("resid_pre"), metrics.logit(4), ["pos"])
    assert_close(torch.tensor(array.notnull().values[0].T), clean.mask.bool())


def test_masked_attention_is_not_measured_where_it_slides():
    model = load("mistral")  # sees four positions back
    array = patching.patch(model, CLEAN[:1], CORRUPT[:1], model.sites("pattern", layers=[1]), METRIC, ["query", "key"])
    n = array.sizes["query"]
    window = torch.ones(n, n).tril().triu(-3).bool()
    assert_close(torch.tensor(array.notnull().values[0, ..., 0]), window)


def test_roles_along_queries_and_keys(embedded):
    task = tasks.ioi(embedded, n=4)
    call = lambda **more: patching.patch(
        embedded, task.clean, task.corrupt, embedded.sites("pattern"), task.logit_diff, ["head", "query", "key"], **more
    )
    every = call()
    at = {name: int(positions[0]) for name, positions in task.clean.roles.items()}
    both = call(roles=["S2", "END"])
    np.testing.assert_allclose(both.sel(query="END", key="S2"), every.isel(query=at["END"], key=at["S2"]), atol=1e-5)
    assert bool(both.sel(query="S2", key="END").isnull().all())
    one = call(roles={"query": ["END"]})
    np.testing.assert_allclose(one.sel(query="END"), every.isel(query=at["END"]), atol=1e-5)


def test_prompts_of_other_lengths_meet_at_their_roles(embedded):
    clean, corrupt = embedded.tokens("the big dog runs"), embedded.tokens("the cat runs")
    clean, corrupt = (Tokens(t.ids, t.mask, {"noun": torch.tensor([n])}) for t, n in ((clean, 3), (corrupt, 2)))
    site = Site("resid_pre", 1)
    metric = metrics.logit(4)
    array = patching.patch(embedded, clean, corrupt, [site], metric, ["pos"], roles=["noun"], normalize=False)
    value = embedded.run(clean, read=[site])[site][:, 3]
    alone = metric(embedded.run(corrupt, edits=[edits.put(site, value, pos=2)])) - metric(embedded.run(corrupt))
    assert_close(torch.tensor(array.values[0, 0]), alone, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="aligned token by token"):
        patching.patch(embedded, clean, corrupt, [site], metric, normalize=False)


def test_thousands_of_neurons_add_up_to_their_layer_where_the_model_is_linear(embedded):
    """At the last layer the MLP's neurons reach the logits through the final norm alone, nearly additively."""
    task = tasks.pronoun(embedded, n=2)
    seen: list[tuple[int, int]] = []
    call = lambda over, **more: patching.patch(
        embedded, task.clean, task.corrupt, embedded.sites("mlp_post"), task.logit_diff, over, **more
    )
    array = call(["neuron"], progress=lambda done, total: seen.append((done, total)))
    assert array.sizes["neuron"] * array.sizes["layer"] == 4 * 384
    assert seen[-1] == (4 * 384, 4 * 384) and [done for done, _ in seen] == sorted({done for done, _ in seen})
    whole = call([])
    np.testing.assert_allclose(array[-1].sum("neuron"), whole[-1], atol=0.05)


def test_half_precision_runs_and_stays_near():
    module = tiny.build("gpt2")
    exact, half = (interp.load(module, dtype=dtype, tokenizer=tiny.tokenizer()) for dtype in (None, torch.bfloat16))
    call = lambda model: patching.patch(model, CLEAN, CORRUPT, model.sites("z"), METRIC, ["head"], normalize=False)
    wide, narrow = call(exact), call(half)
    assert narrow.values.dtype == np.float32 and np.isfinite(narrow.values).all()
    assert float(np.corrcoef(wide.values.ravel(), narrow.values.ravel())[0, 1]) > 0.98


@pytest.mark.parametrize("kind", ["resid_pre", "z", "mlp_post"])
def test_a_full_basis_is_the_whole_site(embedded, kind):
    task = tasks.ioi(embedded, n=4)
    sites = embedded.sites(kind, layers=[1])
    width = {"resid_pre": 128, "z": 32, "mlp_post": 384}[kind]
    whole, full = (
        patching.patch(embedded, task.clean, task.corrupt, sites, task.logit_diff, ["pos"], subspace=basis)
        for basis in (None, torch.eye(width))
    )
    np.testing.assert_allclose(full, whole, atol=1e-4)


def test_one_neuron_is_its_direction(embedded):
    task = tasks.ioi(embedded, n=4)
    sites = embedded.sites("mlp_post", layers=[1])
    call = lambda *more, **named: patching.patch(
        embedded, task.clean, task.corrupt, sites, task.logit_diff, *more, **named
    )
    one, along = call(["neuron"]).isel(neuron=5), call(subspace=3 * torch.eye(384)[5])
    np.testing.assert_allclose(along, one, atol=1e-5)


def test_a_subspace_does_not_depend_on_its_basis(embedded):
    task = tasks.ioi(embedded, n=4)
    basis = torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
    mixed = torch.randn(3, 3, generator=torch.Generator().manual_seed(1)) @ basis
    call = lambda subspace: patching.patch(
        embedded, task.clean, task.corrupt, embedded.sites("resid_post"), task.logit_diff, subspace=subspace
    )
    np.testing.assert_allclose(call(mixed), call(basis), atol=1e-4)


def test_both_directions_say_where_they_agree(embedded):
    task = tasks.ioi(embedded, n=8)
    call = lambda **more: patching.both_directions(
        embedded, task.clean, task.corrupt, embedded.sites("z"), task.logit_diff, ["head"], **more
    )
    array = call()
    ranks = [array.sel(direction=d).mean("prompt").values.ravel().argsort().argsort() for d in array.direction.values]
    order, _ = checks_of(array)
    assert order.value == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=0.02)  # what rounds to zero is a tie
    assert order.status == ("pass" if order.value >= 0.6 else "warn")
    raw = checks_of(call(normalize=False))
    assert raw[1].value <= 0.5 and raw[0].value > 0  # raw changes of opposite sign agree


@pytest.mark.slow
def test_random_answers_rarely_get_a_star(embedded):
    """Which of the two answers is right is drawn at random, so no place can matter on average."""
    starred = sum(_shuffled(embedded, seed) for seed in range(30))
    assert starred <= 5  # of 30 at a rate of 0.05, more are seen in 0.3 % of all trials


def _shuffled(model: interp.Model, seed: int) -> bool:
    task = tasks.ioi(model, n=16, seed=seed)
    flip = torch.tensor(np.random.default_rng(seed).random(16) < 0.5)[:, None]
    metric = metrics.logit_diff(task.right.where(~flip, task.wrong), task.wrong.where(~flip, task.right))
    array = patching.patch(model, task.clean, task.corrupt, model.sites("resid_pre"), metric, ["pos"], normalize=False)
    return bool(stats.summary(array, seed=seed).significant.any())
