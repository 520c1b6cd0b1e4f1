"""What strangers found who tried to break the library: each was silently wrong, or failed for no good reason."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny
import torch
from conftest import load
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.testing import assert_close

import interp
from interp import (
    Site,
    attribution,
    attribution_patching,
    circuits,
    edits,
    effects,
    lens,
    metrics,
    patching,
    probing,
    steering,
)
from interp.backends.bridges import unbridged
from interp.sweep import sweep

BACKENDS = ["huggingface", "transformer_lens", "nnsight"]
METRIC = metrics.logit_diff(3, 6)
SHORT, LONG = [3, 5, 8, 2], [4, 9, 7, 3, 2, 8, 6]
TEXTS = ["Mary and Anna went to", "Mary went"]
OTHERS = ["Mary and Mary went to", "Anna went"]


@pytest.mark.parametrize("penalty", [1.0, 1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("n, d", [(120, 128), (60, 200), (300, 128)])
def test_probes_of_single_precision_reach_the_least_loss_under_small_penalties(n, d, penalty):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, 10, generator=generator)
    x = hidden @ torch.randn(10, d, generator=generator) + 0.1 * torch.randn(n, d, generator=generator)
    y = (hidden[:, 0] > 0.3).long()
    scaler = StandardScaler().fit(x.double().numpy())
    scaled = torch.from_numpy(scaler.transform(x.double().numpy()))

    def loss(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        outputs = scaled @ weight + bias
        return (torch.nn.functional.softplus(outputs) - y * outputs).sum() + penalty / 2 * (weight**2).sum()

    found = probing.fit(x, y, penalty=penalty)
    scale, mean = (torch.from_numpy(value) for value in (scaler.scale_, scaler.mean_))
    weight = found.weight.double().flatten()
    ours = loss(weight * scale, found.bias.double() + weight @ mean)
    theirs = LogisticRegression(C=1 / penalty, max_iter=10**5, tol=1e-10).fit(scaled.numpy(), y)
    best = loss(torch.from_numpy(theirs.coef_[0]), torch.from_numpy(theirs.intercept_))
    assert best <= ours * (1 + 1e-9) and ours <= 1.001 * best


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_final_norm_waits_for_another_threads_hooks(backend):
    model, done = load("gpt2", backend), threading.Event()
    resid = torch.randn(2, model.shape.d_model)
    with ThreadPoolExecutor(1) as pool:
        with model.alone:
            task = pool.submit(lambda: (model.unembed(resid), done.set()))
            assert not done.wait(0.2)
        task.result(timeout=20)


def test_threads_that_take_models_out_of_bridges_leave_torch_as_it_was():
    bridges = [load("gpt2", "transformer_lens").module for _ in range(2)]
    before = torch.nn.init.normal_
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda i: unbridged(bridges[i % 2]), range(16)))
    assert torch.nn.init.normal_ is before


def test_a_bridge_shares_the_lock_of_the_model_inside():
    model = load("gpt2", "transformer_lens")
    assert model.alone is interp.locks.lock_of(model.module.original_model)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_edges_of_padded_prompts_are_the_same_on_every_backend(family):
    found = []
    for backend in BACKENDS:
        given = interp.load(tiny.build(family), backend=backend, tokenizer=tiny.tokenizer()), TEXTS, OTHERS, METRIC
        scores = circuits.eap_ig(*given, steps=2)
        patched = circuits.patch_each_edge(*given, edges=[("embed", "logits"), ("L0H0", "mlp1")])
        found.append([scores.values, patched.values])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert_close(torch.from_numpy(one), torch.from_numpy(two), atol=1e-5, rtol=0, equal_nan=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["mlp_post", "z", "mlp_pre"])
def test_edits_may_return_any_order_in_memory(backend, kind):
    model, site = load("gpt2", backend), Site(kind, 0)
    ids = torch.tensor([SHORT, SHORT[::-1]])
    trace = model.run(ids, read=site)
    mean = model.run(ids, edits=edits.mean(trace, site)).logits
    assert_close(mean, model.run(ids, edits=edits.put(site, trace[site].mean(0))).logits)
    turned = edits.Edit(site, lambda x: (2 * x).mT.contiguous().mT)
    assert_close(model.run(ids, edits=turned).logits, model.run(ids, edits=edits.scale(site, 2)).logits)


def test_a_bridge_can_be_copied_after_a_run_with_gradients():
    model = load("gpt2", "transformer_lens")
    model.run(torch.tensor([SHORT]), read=[Site("embed")], grad=True)
    assert interp.load(model.module, dtype="float64").dtype == torch.float64
    assert attribution.reinitialised(model, seed=1).backend == "transformer_lens"


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("top", [None, 1])
def test_a_seed_draws_the_same_copy_on_every_backend(family, top):
    ids = torch.tensor([SHORT])
    copies = [attribution.reinitialised(load(family, backend), seed=3, top=top) for backend in BACKENDS]
    for copied in copies[1:]:
        assert_close(copied.run(ids).logits, copies[0].run(ids).logits, atol=1e-5, rtol=0)


def test_a_condition_decides_in_each_cell_of_a_sweep_for_itself():
    model, generator = load("gpt2"), torch.Generator().manual_seed(0)
    reader = torch.nn.functional.normalize(torch.randn(model.shape.d_model, generator=generator), dim=0)
    vector = lambda layer, writer: steering.Vector.of(Site("resid_post", layer), writer)
    when = steering.Condition(vector(0, reader), at=-1, threshold=0.5)
    push = steering.steer(vector(1, torch.randn(len(reader), generator=generator)), 3.0, when=when)
    cells = [[edits.add(Site("resid_pre", 0), size * reader, pos=-1), *push] for size in (30.0, -30.0)]
    ids = torch.tensor([SHORT, SHORT[::-1]])
    alone = torch.stack([METRIC(model.run(ids, edits=cell)) for cell in cells])
    assert_close(sweep(model, ids, cells, [METRIC]).values[0], alone)
    assert (alone[0] - alone[1]).abs().min() > 1e-3


@pytest.mark.parametrize("value", [float("-inf"), torch.finfo(torch.float32).min])
def test_a_query_that_is_left_without_keys_is_an_error(value):
    model, hide = load("gpt2"), lambda **at: edits.put(Site("scores", 0), value, head=0, **at)
    for prompts in ([SHORT], [SHORT, LONG]):
        with pytest.raises(ValueError, match="leaves a query no key that it sees"):
            model.run(prompts, edits=hide(query=-2))
    trace = model.run([SHORT, LONG], read=Site("pattern", 0), edits=hide(query=-1, key=-2))
    pattern = trace[Site("pattern", 0)][:, 0, -1]
    assert_close(pattern.sum(-1), torch.ones(2))
    assert not pattern[:, -2].any() and not pattern[0, :3].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_a_middle_of_the_stream_that_is_set_to_zero_is_zero(family, backend):
    model, site = load(family, backend), Site("resid_mid", 1)
    after = model.sites("mlp_out", "resid_post", layers=1)
    mlp, post = (model.run([SHORT], read=after, edits=edits.zero(site))[one] for one in after)
    assert_close(post, mlp, atol=0, rtol=0)


def test_weights_that_are_no_numbers_are_an_error():
    model, sites = load("gpt2"), [Site("z", 0)]
    with torch.no_grad():
        model.module.transformer.h[1].mlp.c_fc.weight[0, 0] = float("nan")
    given = model, torch.tensor([SHORT]), torch.tensor([SHORT[::-1]])
    circuit = {"some": [("embed", "logits")]}
    calls = [
        lambda: circuits.eap(*given, METRIC),
        lambda: circuits.eap_ig(*given, METRIC, 2),
        lambda: circuits.patch_edges(*given, circuit, METRIC),
        lambda: circuits.patch_each_edge(*given, METRIC),
        lambda: circuits.path_patch(*given, ["logits"], METRIC),
        lambda: circuits.evaluate(*given, circuit, METRIC),
        lambda: attribution_patching.estimate(*given, sites, METRIC, normalize=False),
        lambda: patching.patch(*given, sites, METRIC, normalize=False),
        lambda: lens.logit_lens(*given[:2], METRIC),
        lambda: attribution.relevance(*given[:2], METRIC),
        lambda: attribution.linearised(*given[:2], METRIC),
        lambda: attribution.rollout(*given[:2]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"not a number|not numbers|not finite"):
            call()


def test_nothing_is_lost_of_double_precision():
    model = interp.load(tiny.build("gpt2").double())
    ids = torch.tensor([SHORT])
    logits = model.run(ids).logits[0, -1]
    assert_close(metrics.logit([[3, 5, 6]])(model.run(ids))[0], logits[[3, 5, 6]].mean(), atol=1e-15, rtol=0)
    trace = model.run(ids[:, [1, 0, 2, 3]], read=Site("embed"))
    third = model.run(ids, read=Site("embed"), edits=edits.blend(trace, Site("embed"), 1 / 3))[Site("embed")]
    own = model.run(ids, read=Site("embed"))[Site("embed")]
    assert_close(third, own + (trace[Site("embed")] - own) / 3, atol=1e-15, rtol=0)


def test_what_cannot_be_done_is_said():
    model = load("gpt2")
    given = model, torch.tensor([SHORT]), torch.tensor([SHORT[::-1]])
    with pytest.raises(ValueError, match="no sender comes before the receivers"):
        circuits.path_patch(*given, ["L0H0.q"], METRIC)
    with pytest.raises(ValueError, match="edits are given by name"):
        effects.decompose(*given[:2], [edits.zero(Site("z", 0))], METRIC)
    with pytest.raises(TypeError, match="dtype is one of torch"):
        interp.load(model.module, dtype="double precision")


def test_a_token_on_both_sides_of_a_logit_difference_counts_on_both():
    trace = load("gpt2").run(torch.tensor([[5, 6, 7], [8, 9, 3]]))
    logits = trace.logits[:, -1]
    assert not metrics.logit_diff(5, 5)(trace).any()
    wanted = (logits[:, 5] - logits[:, 7]) / 2
    both = metrics.logit_diff([[5, 6]], [[6, 7]])
    torch.testing.assert_close(both(trace), wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(both.over_cells(logits[None])[0], wanted, atol=1e-6, rtol=0)


def test_one_row_of_prompts_is_a_batch_of_one():
    tokens = load("gpt2").tokens(torch.tensor([[5, 6, 7], [8, 9, 3]]))
    assert tokens.rows(-1).ids.tolist() == tokens.rows([-1]).ids.tolist() == [tokens.ids[-1].tolist()]
