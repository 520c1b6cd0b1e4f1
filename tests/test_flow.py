"""Attention rollout and relevance against loops over Hugging Face's own attention weights, and against their null."""

import numpy as np
import pytest
import tiny
import torch
from conftest import load
from torch import nn

import interp
from interp import attribution, metrics, tasks
from interp.arrays import checks_of

PROMPTS = [
    "Mary and John went , John gave to",
    "I love it",
    "the war lasted from year 17",
    "she went and Anna gave a ball to",
]
METRIC = metrics.logit_diff(4, 5)


def _attentions(family: str, text: str) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """One prompt's attention weights, (1, head, query, key) by layer, and its last logits, from transformers alone."""
    raw = tiny.build(family, torch.float64)
    raw.set_attn_implementation("eager")
    ids = torch.tensor([tiny.tokenizer()(text).input_ids])
    out = raw(input_ids=ids, output_attentions=True, use_cache=False)
    return out.attentions, out.logits[:, -1]


def test_rollout_is_the_product_of_mean_attention(family):
    found = attribution.rollout(load(family, dtype=torch.float64), PROMPTS)
    for i, text in enumerate(PROMPTS):
        attentions, _ = _attentions(family, text)
        n = attentions[0].shape[-1]
        product = torch.eye(n, dtype=torch.float64)
        for layer in attentions:
            step = 0.5 * layer[0].mean(0) + 0.5 * torch.eye(n)
            product = torch.stack([sum(step[q, m] * product[m] for m in range(n)) for q in range(n)])
        ours = found["rollout"].isel(prompt=i).values[-n:, -n:]
        np.testing.assert_allclose(np.nan_to_num(ours), product.detach(), atol=1e-6)


def test_a_rollout_carries_its_checks_as_a_whole():
    found = attribution.rollout(load("gpt2"), PROMPTS)
    assert checks_of(found) == checks_of(found["excess"]) and len(checks_of(found)) == 2


def test_rollouts_add_up_to_one_and_padding_is_not_measured(family):
    model = load(family)
    found = attribution.rollout(model, PROMPTS, skip=0.3)
    real = model.tokens(PROMPTS).mask.bool().T.numpy()
    for name, total in (("rollout", 1), ("uniform", 1), ("excess", 0)):
        np.testing.assert_allclose(found[name].sum("key").values[real], total, atol=1e-5)
        assert np.isnan(found[name].transpose("query", "prompt", "key").values[~real]).all()
        assert np.isnan(found[name].transpose("key", "prompt", "query").values[~real]).all()


def _without_keys(family: str) -> nn.Module:
    """A model whose keys are zero, so that every score is."""
    module = tiny.build(family)
    for name, part in module.named_modules():
        last = name.rpartition(".")[2]
        for weight in [getattr(part, "weight", None), getattr(part, "bias", None)]:
            if weight is None or last not in ("k_proj", "c_attn", "query_key_value", "k_norm"):
                continue
            with torch.no_grad():
                if last == "c_attn":
                    weight[..., 32:64] = 0
                elif last == "query_key_value":
                    weight.view(4, 3, 8, *weight.shape[1:])[:, 1] = 0
                else:
                    weight.zero_()
    return module


def test_nothing_exceeds_the_null_where_attention_is_uniform(family):
    model = interp.load(_without_keys(family), tokenizer=tiny.tokenizer())
    found = attribution.rollout(model, PROMPTS)
    assert np.nanmax(np.abs(found["excess"].values)) < 1e-6
    assert np.nanmax(np.abs(attribution.rollout(load(family), PROMPTS)["excess"].values)) > 1e-3
    distance = next(check for check in checks_of(found["excess"]) if "uniform" in check.name)
    assert distance.status == "warn" and distance.value < 1e-6


def test_uniform_attention_piles_up_on_the_first_token_as_it_must():
    """In one sequence of n tokens one layer puts (1 - skip) / n of the last row on the first."""
    model = load("gpt2")
    found = attribution.rollout(model, PROMPTS[:1], layers=[1], skip=0.2)["uniform"]
    n = found.sizes["key"]
    np.testing.assert_allclose(found.values[-1, :-1, 0], 0.8 / n, atol=1e-6)
    np.testing.assert_allclose(found.values[-1, -1, 0], 0.2 + 0.8 / n, atol=1e-6)


def test_the_checks_of_rollout_are_those_of_the_last_row():
    """Two tokens: half of each row stays through three layers, so that more than half piles up on the first."""
    for text, status in (("I love", "warn"), (PROMPTS[0], "pass")):
        found = attribution.rollout(load("gpt2"), [text])
        first, distance = checks_of(found)
        rollout, uniform = (found[name].values[-1, :, 0] for name in ("rollout", "uniform"))
        assert first.value == pytest.approx(rollout[0]) and first.threshold == pytest.approx(uniform[0])
        assert distance.value == pytest.approx(np.abs(rollout - uniform).sum() / 2, rel=1e-4) and distance.value > 0
        assert first.status == status and (uniform[0] > 0.5) == (status == "warn")


def test_a_sliding_window_bounds_how_far_a_path_leads():
    """Three layers with windows of four tokens: nothing reaches further back than nine."""
    found = attribution.rollout(load("mistral"), torch.randint(3, 30, (1, 14)), skip=0.1)["rollout"].isel(prompt=0)
    behind = np.arange(14)[:, None] - np.arange(14)
    np.testing.assert_array_equal(np.isfinite(found.values), (behind >= 0) & (behind <= 9))


def test_relevance_is_what_the_papers_loop_gives(family):
    found = attribution.relevance(load(family, dtype=torch.float64), PROMPTS, METRIC)
    for i, text in enumerate(PROMPTS):
        attentions, logits = _attentions(family, text)
        for layer in attentions:
            layer.retain_grad()
        (logits[0, 4] - logits[0, 5]).backward()
        n = attentions[0].shape[-1]
        total = torch.eye(n, dtype=torch.float64)
        for layer in attentions:
            total = total + (layer.grad * layer)[0].clamp(min=0).mean(0) @ total
        wanted = total[-1].detach() - torch.eye(n)[-1]
        np.testing.assert_allclose(found.isel(prompt=i).values[-n:], wanted, atol=1e-6, rtol=1e-5)
        assert np.isnan(found.isel(prompt=i).values[:-n]).all()


def test_several_metrics_at_several_places_are_measured_as_each_alone(embedded):
    task = tasks.ioi(embedded, n=3)
    several = [task.logit_diff, metrics.logit(7).reading("S2"), metrics.prob(8)]
    found = attribution.relevance(embedded, task.clean, several)
    for i, metric in enumerate(several):
        alone = attribution.relevance(embedded, task.clean, metric)
        np.testing.assert_allclose(found.isel(metric=i), alone, atol=1e-6)
    after = np.arange(found.sizes["pos"])[:, None] > task.clean.role("S2").numpy()
    assert not found.isel(metric=1).values[after].any() and (found.isel(metric=1).values[~after] > 0).any()


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_backends_agree(architecture, backend):
    for call in (
        lambda model: attribution.rollout(model, PROMPTS)["excess"],
        lambda model: attribution.relevance(model, PROMPTS, METRIC),
        lambda model: attribution.knock_out(model, PROMPTS, METRIC, windows=2),
    ):
        np.testing.assert_allclose(call(load(architecture, backend)), call(load(architecture)), atol=1e-4, rtol=1e-4)


def test_what_cannot_be_rolled_out_is_said(embedded):
    for call, message in (
        (lambda: attribution.rollout(embedded, "the dog", skip=1.0), "from 0 to below 1, not 1.0"),
        (lambda: attribution.rollout(embedded, "the dog", layers=[]), "at least one layer is needed"),
        (lambda: attribution.rollout(embedded, "the dog", layers=[9]), "has layers 0 to 3"),
        (
            lambda: attribution.relevance(embedded, "the dog", metrics.Metric("top", lambda x: x.argmax(-1).float())),
            "top has no gradient",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_relevance_in_half_precision_is_near_that_of_single(dtype):
    prompts = ["when Mary and John went to the store"]
    models = [load("gpt2", dtype=some) for some in (dtype, torch.float32)]
    half, single = (attribution.relevance(model, prompts, metrics.logit_diff(4, 5)) for model in models)
    np.testing.assert_allclose(half, single, atol=0.05 * float(abs(single).max()))
