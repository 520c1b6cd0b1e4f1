"""Identities that every backend and family must satisfy: what a site means, not what it is called."""

import copy

import pytest
import tiny
import torch
from conftest import assert_same, load
from torch.testing import assert_close

import interp
from interp import Edit, Site, Tokens, edits, metrics
from interp.sweep import sweep
from interp.traces import visible

PROMPTS = ["when Mary and John went to the store , John gave a drink to", "I love it"]
OTHERS = ["when Mary and John went to the park , Mary gave a ball to", "you hate it"]


def test_identities_in_float32(family, backend):
    report = interp.check(load(family, backend))
    assert report.holds, str(report)


def test_identities_in_float64(family, backend):
    report = interp.check(load(family, backend, dtype=torch.float64))
    assert report.holds, str(report)


def test_backends_agree(family, backend):
    assert_same(load(family, backend), load(family), PROMPTS)


def test_what_is_put_into_masked_scores_shows_no_query_the_future_or_padding(family, backend):
    model = load(family, backend)
    if not model.editable.get("scores"):
        pytest.skip(f"{backend} has no scores of {family}")
    scores, pattern = Site("scores", 1), Site("pattern", 1)
    before = model.run(PROMPTS, read=[scores, pattern])
    after = model.run(
        PROMPTS, read=pattern, edits=[edits.zero(scores, head=0), edits.put(scores, torch.tensor(9.0), head=1)]
    )
    real = before.tokens.mask.bool()
    seen = visible(before[scores]).transpose(1, 2)[real]
    found, was = (run[pattern].transpose(1, 2)[real] for run in (after, before))
    assert_close(found[:, :2], (seen / seen.sum(-1, keepdim=True))[:, :2], atol=1e-6, rtol=1e-6)
    assert_close(found[:, 2:], was[:, 2:])


def test_a_pattern_that_is_put_in_gives_each_prompt_what_it_gives_alone_whatever_the_padding(family, backend):
    model = load(family, backend)
    if not model.editable.get("pattern"):
        pytest.skip(f"{backend} has no pattern of {family}")
    even = [edits.put(Site("pattern", 1), torch.tensor(0.1), head=0), edits.put(Site("pattern", 1), torch.tensor(0.2))]
    together = model.run(PROMPTS, edits=even).logits[:, -1]
    alone = torch.cat([model.run(prompt, edits=even).logits[:, -1] for prompt in PROMPTS])
    assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_logits_are_those_of_the_plain_model(family):
    module = tiny.build(family)
    model = interp.load(module, tokenizer=tiny.tokenizer())
    tokens = model.tokens(PROMPTS[0])
    with torch.no_grad():
        assert_close(model.run(tokens).logits, module(input_ids=tokens.ids).logits, atol=1e-5, rtol=1e-5)


def test_batched_sweep_equals_one_at_a_time(family):
    model = load(family)
    sites = model.sites("z") + model.sites("resid_pre")
    clean = model.run(OTHERS, read=sites)
    prompts = model.tokens(["when Mary and John went to the store , John gave a drink to", "I love it"])
    cells = [[edits.copy(clean, site, pos=-2)] for site in sites]
    metric = metrics.logit_diff(4, 5)
    alone = torch.stack([metric(model.run(prompts, edits=cell)) for cell in cells])
    assert_close(sweep(model, prompts, cells, [metric], budget=1).values[0], alone, atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_site(family, backend):
    model = load(family, backend)
    sites = [site for site in model.sites() if site.kind != "resid_mid" and site.layer in (None, 1)]
    trace = model.run(PROMPTS[0], read=sites, grad=True)
    grads = torch.autograd.grad(trace.logits[0, -1, 4], [trace[site] for site in sites])
    for site, grad in zip(sites, grads):
        assert bool(grad.isfinite().all()), site
        assert grad.abs().max() > 0, site


@pytest.mark.parametrize("kind", ["resid_pre", "resid_mid"])
def test_gradient_of_the_stream_is_that_of_an_added_vector(kind):
    model = load("gpt2", dtype=torch.float64)  # RMS norms work in float32
    site = Site(kind, 1)
    trace = model.run(PROMPTS[0], read=[site], grad=True)
    (grad,) = torch.autograd.grad(trace.logits[0, -1, 4], trace[site])
    step = torch.randn(32, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1e-6
    up, down = (model.run(PROMPTS[0], edits=[edits.add(site, s * step, pos=-1)]).logits[0, -1, 4] for s in (1, -1))
    assert_close((up - down) / 2, grad[0, -1] @ step, atol=1e-13, rtol=1e-5)


def test_no_hook_survives_an_exception(family, backend):
    model = load(family, backend)
    before = model.run(PROMPTS).logits

    def fail(x):
        raise ZeroDivisionError

    for kind in ("resid_pre", "z"):
        with pytest.raises(Exception):  # nnsight raises its own
            model.run(PROMPTS, edits=[Edit(Site(kind, 1), fail)])
        assert_close(model.run(PROMPTS).logits, before)


def test_the_given_model_stays_as_it_was(backend):
    module = tiny.build("gpt2")
    state = copy.deepcopy(module.state_dict())
    implementation = module.config._attn_implementation
    model = interp.load(module, backend=backend, tokenizer=tiny.tokenizer())
    model.run(PROMPTS, read=model.sites("pattern"))
    assert module.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert module.config._attn_implementation == implementation


def test_a_native_bridge_without_mlp_or_norm():
    from transformer_lens import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    config = TransformerBridgeConfig(
        d_model=16,
        n_layers=2,
        n_heads=2,
        d_head=8,
        n_ctx=16,
        d_vocab=20,
        attn_only=True,
        normalization_type=None,
        seed=0,
    )
    model = interp.load(TransformerBridge.boot_native(config).eval())
    ids = torch.arange(6)[None]
    trace = model.run(ids, read=model.sites("resid_pre", "resid_post"))
    assert trace.logits.shape == (1, 6, 20)
    assert_close(model.unembed(trace[Site("resid_post", 1)]), trace.logits)


def test_token_ids_without_a_tokenizer():
    model = interp.load(tiny.build("gpt2"))
    ids, mask = torch.tensor([[3, 4, 5], [0, 6, 7]]), torch.tensor([[1, 1, 1], [0, 1, 1]])
    assert_close(model.run((ids, mask)).logits[1, -1], model.run(Tokens(ids[1:, 1:], mask[1:, 1:])).logits[0, -1])
