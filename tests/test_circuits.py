"""Edges: what the mask over them must do, and its gradient, on every family."""

import gc
from dataclasses import replace
from weakref import ref

import numpy as np
import pytest
import torch
from conftest import load
from torch import Tensor
from torch.testing import assert_close
from wired import EXACT, METRIC, model_of, pair

from interp import Site, attribution, circuits, edits, metrics, weights
from interp.arrays import checks_of
from interp.backends.modules import on_modules
from interp.circuits import reading
from interp.circuits.gradients import beside, forward
from interp.circuits.pair import Pair
from interp.circuits.runs import Run


def there(array) -> Tensor:
    """The values of the edges that there are."""
    values = torch.from_numpy(array.values)
    return values[~values.isnan()]


@pytest.mark.parametrize("dtype", EXACT)
def test_none_masked_is_this_run_and_all_masked_the_other(family, dtype):
    model = model_of(family, dtype)
    clean, corrupt = pair(model)
    names = circuits.graph(model)
    sets = {"none": 0 * names.mask(), "all": names.mask(), "half": names.mask() / 2}
    found = circuits.patch_edges(model, clean, corrupt, sets, METRIC)
    high, low = (METRIC(model.run(tokens)) for tokens in (clean, corrupt))
    scale = float((high - low).abs().max())
    assert_close(torch.tensor(found.sel(set="none").values).to(low), 0 * low, atol=EXACT[dtype] * scale, rtol=0)
    tolerance = dict(atol=EXACT[dtype] * scale, rtol=0)
    assert_close(torch.tensor(found.sel(set="all").values).to(low), high - low, **tolerance)
    assert float(abs(found.sel(set="half")).min()) > 0
    alone = [circuits.patch_edges(model, clean, corrupt, {name: mask}, METRIC).values[0] for name, mask in sets.items()]
    assert_close(torch.tensor(np.stack(alone)), torch.tensor(found.values), **tolerance)


def test_all_edges_out_of_a_node_are_its_activation_patch(family):
    model = model_of(family)
    clean, corrupt = pair(model)
    names = circuits.graph(model)
    last = model.shape.n_layers - 1
    nodes = {
        "embed": (Site("resid_pre", 0), {}),
        f"mlp{last}": (Site("mlp_out", last), {}),
        "mlp0": (Site("mlp_out", 0), {}),
    }
    if names.splits:
        nodes |= {f"L{i}H3": (Site("z", i), {"head": 3}) for i in (0, last)}
    else:
        nodes |= {f"attn{i}": (Site("attn_out", i), {}) for i in (0, last)}
    sets = {name: names.mask([(name, "*")]) for name in nodes}
    found = circuits.patch_edges(model, clean, corrupt, sets, METRIC)
    trace, low = model.run(clean, read=[site for site, _ in nodes.values()]), METRIC(model.run(corrupt))
    for name, (site, at) in nodes.items():
        patched = METRIC(model.run(corrupt, edits=[edits.copy(trace, site, **at)])) - low
        assert_close(torch.tensor(found.sel(set=name).values), patched, atol=1e-9, rtol=0)


def test_all_edges_into_a_reader_are_the_patch_of_what_it_makes(family):
    model = model_of(family)
    clean, corrupt = pair(model)
    names = circuits.graph(model)
    group = "H" if model.shape.n_kv_heads == model.shape.n_heads else "KV"
    nodes = {"mlp1": (Site("mlp_out", 1), {}), f"L1{group}1.v": (Site("v", 1), {"head": 1})}
    if family != "olmo2":  # its queries and keys pass a norm over all heads
        nodes |= {"L1H2.q": (Site("q", 1), {"head": 2}), f"L1{group}0.k": (Site("k", 1), {"head": 0})}
    sets = {name: names.mask([("*", name)]) for name in nodes}
    found = circuits.patch_edges(model, clean, corrupt, sets, METRIC)
    trace, low = model.run(clean, read=[site for site, _ in nodes.values()]), METRIC(model.run(corrupt))
    for name, (site, at) in nodes.items():
        patched = METRIC(model.run(corrupt, edits=[edits.copy(trace, site, **at)])) - low
        assert_close(torch.tensor(found.sel(set=name).values), patched, atol=1e-9, rtol=0)


@pytest.mark.parametrize("dtype", EXACT)
def test_eap_is_the_gradient_of_the_mask_at_zero(family, dtype):
    model = model_of(family, dtype)
    clean, corrupt = pair(model)
    exchange = Pair.of(model, clean, corrupt, "denoising").exchange(METRIC)
    names = circuits.graph(model)
    for positions in (False, True):
        scores = circuits.eap(model, clean, corrupt, METRIC, over=["pos"] if positions else [])
        shape = (1, *([7] if positions else []), *names.precedes.shape)
        mask = torch.zeros(shape, dtype=dtype, requires_grad=True)
        values = exchange.values(mask)[0]
        exact = torch.stack([torch.autograd.grad(value, mask, retain_graph=True)[0][0] for value in values])
        there = names.precedes.expand(exact.shape).clone()
        if positions:
            there &= corrupt.mask.bool()[..., None, None]
        found = torch.from_numpy(scores.values)
        assert_close(found[there], exact[there], atol=EXACT[dtype] * float(exact.abs().max()), rtol=0)
        assert bool(found[~there].isnan().all()) and not exact[~there].any()


@pytest.mark.parametrize("dtype", EXACT)
def test_scores_are_the_same_from_one_pass_from_a_run_taken_up_and_from_one_made_anew(family, dtype):
    model = model_of(family, dtype)
    both = Pair.of(model, *pair(model), "denoising")
    run = Run.of(both.wiring, both.other, METRIC)
    assert both.start > 0
    assert run.recording is not None
    difference, high, together = beside(both.wiring, both.other, both.this, METRIC, both.start)
    taken, anew = (forward(each, both.this, both.start) for each in (run, replace(run, recording=None)))
    tolerance = dict(atol=EXACT[dtype], rtol=EXACT[dtype])
    assert_close(high, run.values, **tolerance)
    for each in (taken, anew):
        assert_close(each.values, together.values, **tolerance)
        wanted = run.pieces.since(both.start).minus(each.read.written)
        assert_close(list(wanted.pieces), list(difference.pieces), **tolerance)
    scores = [each.scores(difference.by_position(), torch.ones(1), True) for each in (together, taken, anew)]
    for other in scores[1:]:
        assert_close(
            other, scores[0], equal_nan=True, atol=EXACT[dtype] * float(scores[0].nan_to_num().abs().max()), rtol=0
        )


def test_readers_may_be_pulled_back_a_few_at_a_time(monkeypatch):
    model = model_of("llama")
    call = lambda: torch.from_numpy(circuits.eap(model, *pair(model), METRIC, over=["pos"]).values)
    whole = call()
    for size in (1, 3000):
        monkeypatch.setattr(reading, "_ON_CPU", size)
        assert_close(call(), whole, atol=1e-12, rtol=1e-10, equal_nan=True)


@pytest.mark.parametrize("steps", [1, 3])
def test_what_leaves_a_head_adds_up_to_its_node_attribution(steps):
    model = model_of("llama")
    clean, corrupt = pair(model)
    sites = [Site("resid_pre", 0), Site("z", 1)]
    high, low = (model.run(tokens, read=sites) for tokens in (clean, corrupt))
    total = 0
    for node, weight in zip(*np.polynomial.legendre.leggauss(steps)):
        start = torch.lerp(low[sites[0]], high[sites[0]], float(node + 1) / 2)
        trace = model.run(corrupt, read=sites, edits=[edits.put(sites[0], start.requires_grad_())], grad=True)
        total = total + weight / 2 * torch.autograd.grad(METRIC(trace).sum(), trace[sites[1]])[0]
    nodes = ((high[sites[1]] - low[sites[1]]) * total).sum((1, 3))
    scores = circuits.eap_ig(model, clean, corrupt, METRIC, steps=steps).sum("reader")
    names = [f"L1H{head}" for head in range(4)]
    assert_close(torch.tensor(scores.sel(writer=names).values), nodes, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_integrated_gradients_of_edges_are_complete(direction):
    model = model_of("gpt2")
    clean, corrupt = pair(model)
    scores = circuits.eap_ig(model, clean, corrupt, METRIC, steps=40, direction=direction)
    assert checks_of(scores)[0].status == "pass" and scores.attrs["direction"] == direction
    change = METRIC(model.run(clean)) - METRIC(model.run(corrupt))
    sign = 1 if direction == "denoising" else -1
    assert_close(torch.tensor(scores.sel(writer="embed").sum("reader").values), sign * change, atol=1e-5, rtol=1e-5)
    few = circuits.eap_ig(model, clean, corrupt, METRIC, steps=40, direction=direction, budget=1)
    assert_close(there(few), there(scores), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_along_activations_what_leaves_a_module_is_its_activation_patch(family):
    """And what leaves `embed` is what integrated gradients along the inputs give it."""
    model = model_of(family)
    clean, corrupt = pair(model)
    scores = circuits.eap_ig(model, clean, corrupt, METRIC, steps=40, along="activations")
    inputs = circuits.eap_ig(model, clean, corrupt, METRIC, steps=40)
    np.testing.assert_allclose(scores.sel(writer="embed"), inputs.sel(writer="embed"), atol=1e-10)
    names = circuits.graph(model)
    attention = [f"L1H{i}" for i in range(4)] if names.splits else ["attn1"]
    modules = {Site("z", 1): attention, Site("mlp_out", 0): ["mlp0"], Site("resid_pre", 0): ["embed"]}
    trace, low = model.run(clean, read=modules), METRIC(model.run(corrupt))
    for site, writers in modules.items():
        wanted = METRIC(model.run(corrupt, edits=[edits.copy(trace, site)])) - low
        found = torch.tensor(scores.sel(writer=writers).sum(["writer", "reader"]).values)
        assert_close(found, wanted, atol=1e-4, rtol=2e-3)  # forty points are not all of the path


def test_along_the_mask_scores_are_the_gradients_of_masks(family):
    model = model_of(family)
    clean, corrupt = pair(model)
    scores = circuits.eap_ig(model, clean, corrupt, METRIC, steps=2, along="mask")
    exchange = Pair.of(model, clean, corrupt, "denoising").exchange(METRIC)
    total = 0
    for node, weight in zip(*np.polynomial.legendre.leggauss(2)):
        mask = (circuits.graph(model).mask().double() * float(node + 1) / 2)[None].requires_grad_()
        values = exchange.values(mask)[0]
        slopes = [torch.autograd.grad(value, mask, retain_graph=True)[0][0] for value in values]
        total = total + weight / 2 * torch.stack(slopes)
    found = torch.from_numpy(scores.values)
    assert_close(found[~found.isnan()], total[~found.isnan()], atol=1e-8, rtol=0)


def test_along_the_mask_all_scores_add_up():
    model = model_of("llama")
    clean, corrupt = pair(model)
    scores = circuits.eap_ig(model, clean, corrupt, METRIC, steps=60, along="mask", direction="noising")
    change = METRIC(model.run(corrupt)) - METRIC(model.run(clean))
    assert checks_of(scores)[0].status == "pass"
    assert_close(torch.tensor(scores.sum(["writer", "reader"]).values), change, atol=1e-5, rtol=1e-4)


def test_the_gradient_at_a_soft_mask_is_the_slope():
    model = model_of("gpt_neox")
    clean, corrupt = pair(model)
    exchange = Pair.of(model, clean, corrupt, "denoising").exchange(METRIC)
    generator = torch.Generator().manual_seed(1)
    mask, way = (
        torch.rand(1, *circuits.graph(model).precedes.shape, generator=generator, dtype=torch.float64) for _ in "ab"
    )
    at = lambda step: exchange.values(mask + step * way).sum()
    soft = mask.clone().requires_grad_()
    gradient = torch.autograd.grad(exchange.values(soft).sum(), soft)[0]
    assert_close((gradient * way).sum(), (at(1e-5) - at(-1e-5)) / 2e-5, atol=1e-7, rtol=1e-6)


def test_an_edge_at_one_position_is_the_patch_of_that_position():
    model = model_of("gpt2")
    clean, corrupt = pair(model)
    mask = torch.zeros(7, *circuits.graph(model).precedes.shape)
    mask[4] = circuits.graph(model).mask([("L0H1", "*")])
    found = circuits.patch_edges(model, clean, corrupt, {"at 4": mask}, METRIC)
    trace = model.run(clean, read=[Site("z", 0)])
    patched = model.run(corrupt, edits=[edits.copy(trace, Site("z", 0), pos=4, head=1)])
    assert_close(torch.tensor(found.values[0]), METRIC(patched) - METRIC(model.run(corrupt)), atol=1e-10, rtol=0)


def test_each_edge_alone_is_a_set_of_one():
    model = model_of("qwen2")
    clean, corrupt = pair(model)
    names = circuits.graph(model)
    edges = [("embed", "L0H1.q"), ("L0H2", "mlp0"), ("mlp0", "L2KV1.v"), ("L1H0", "logits")]
    found = circuits.patch_each_edge(model, clean, corrupt, METRIC, names.mask(edges), budget=1)
    sets = {"-".join(edge): names.mask([edge]) for edge in edges}
    wanted = circuits.patch_edges(model, clean, corrupt, sets, METRIC)
    for (writer, reader), name in zip(edges, sets):
        chosen = found.sel(writer=writer, reader=reader).values
        assert_close(torch.tensor(chosen), torch.tensor(wanted.sel(set=name).values), atol=1e-10, rtol=0)
    assert int((~found.isnull()).sum()) == len(edges) * 2


def test_scores_are_those_of_transformer_lens():
    from transformer_lens.tools.analysis import EdgeAttributionConfig, attribution_patch

    from benchmarks.edges import largest_difference

    model = load("gpt2")
    ids = torch.randint(1, 30, (1, 6), generator=torch.Generator().manual_seed(2))
    other = ids.clone()
    other[0, 2] = ids[0, 2] % 29 + 1
    scores = circuits.eap(model, ids, other, METRIC, over=["pos"])
    bridge = load("gpt2", "transformer_lens").module
    theirs = attribution_patch(
        bridge, ids, other, lambda logits: logits[0, -1, 4] - logits[0, -1, 5], EdgeAttributionConfig("edge")
    )
    n, worst, largest = largest_difference(scores, theirs.edge_scores)
    assert n == 6 * int(circuits.graph(model).precedes.sum()) and worst < 1e-5 * largest


@pytest.mark.parametrize("backend", ["transformer_lens", "nnsight"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_what_needs_to_know_where_the_stream_is_read_is_the_same_on_every_backend(family, backend):
    """Matrices, edges and linearised runs are had from the weights that a bridge or nnsight holds, without a copy."""
    ids, other = torch.tensor([[3, 4, 5, 6]]), torch.tensor([[3, 7, 5, 6]])
    found = []
    for model in (load(family), load(family, backend)):
        state = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
        mask = circuits.graph(model).mask([("*", "logits")])
        evaluated = circuits.evaluate(model, ids, other, {"direct": mask}, METRIC, "mean")["metric"]
        scores = (
            circuits.eap(model, ids, other, METRIC),
            circuits.patch_edges(model, ids, other, {"direct": mask}, METRIC),
        )
        shares = attribution.linearised(model, ids, METRIC)
        found.append([np.nan_to_num(array.values) for array in (*scores, evaluated, shares)])
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.module.state_dict().items())
        shared = {tensor.data_ptr() for tensor in model.weights().values()}
        assert all(tensor.data_ptr() in shared for tensor in model.hugging_face().state_dict().values())
    for one, another in zip(*found):
        np.testing.assert_allclose(one, another, atol=2e-5)
    matrices = [weights.heads(model) for model in (load(family), load(family, backend))]
    assert_close(matrices[0].q, matrices[1].q, rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", ["transformer_lens", "nnsight"])
def test_plain_modules_are_made_once_for_the_weights_as_they_are_and_let_go_with_the_model(backend):
    """What was tried of them is not tried again; of changed weights a bridge may have other ones, or none."""
    model, ids = load("gpt2", backend), torch.tensor([[3, 4, 5, 6]])
    plain = on_modules(model, "edges need")
    plain.tokens([[3, 4], [5]])  # padded, so that the one is asked about the other
    circuits.eap(model, ids, ids.flip(1), METRIC)
    assert on_modules(model, "edges need") is plain
    with torch.no_grad():
        next(p for name, p in model.module.named_parameters() if "mlp" in name)[0] += 1e-3
    other = on_modules(model, "edges need")
    assert other is not plain and on_modules(model, "edges need") is other
    assert_close(other.run(ids).logits, model.run(ids).logits, atol=1e-5, rtol=1e-5)
    held = [ref(one) for one in (model, plain, other)]
    del model, plain, other
    gc.collect()
    assert [one() for one in held] == [None] * 3


def test_patterns_name_edges_that_there_are():
    names = circuits.graph(model_of("llama"))
    assert names.mask([("L1H2", "*")]).sum() == names.precedes[names.writers.index("L1H2")].sum()
    assert names.mask([("L0H1", "L1KV0.k")])[names.writers.index("L0H1"), names.readers.index("L1KV0.k")] == 1
    parallel = circuits.graph(model_of("phi"))
    assert not parallel.precedes[parallel.writers.index("L1H0"), parallel.readers.index("mlp1")]
    assert names.precedes[names.writers.index("L1H0"), names.readers.index("mlp1")]


def test_nothing_is_left_on_the_model_after_an_error():
    model = model_of("gpt2")
    clean, corrupt = pair(model)
    broken = metrics.Metric("broken", lambda logits: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        circuits.eap(model, clean, corrupt, broken)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())
