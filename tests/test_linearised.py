"""The linearised network against one written out by hand, and against the model's own output."""

from collections.abc import Callable

import numpy as np
import pytest
import tiny
import torch
from conftest import load
from torch import Tensor, nn

import interp
from interp import attribution, edits, metrics, steering, tasks
from interp.arrays import checks_of
from interp.backends.frozen import frozen_norms

PROMPTS = ["Mary and John went , John gave to", "I love it", "the war lasted from year 17"]
METRIC = metrics.logit_diff(4, 5)


def _output(model: interp.Model, prompts, metric: metrics.Metric = METRIC) -> np.ndarray:
    """The metric of the model's own logits, before their cap if they have one."""
    with torch.no_grad():
        logits = metric.position(model.tokens(prompts), model.run(prompts).logits)
        cap = getattr(model.module.config, "final_logit_softcapping", None)
        return metric.of(logits if cap is None else cap * torch.atanh(logits / cap)).numpy()


@pytest.mark.parametrize("mlp", attribution.MLP)
def test_the_terms_add_up_to_the_output(family, mlp):
    model = load(family, dtype=torch.float64)
    found = attribution.linearised(model, PROMPTS, METRIC, mlp)
    np.testing.assert_allclose(found.sum(("term", "pos")), _output(model, PROMPTS), rtol=0, atol=1e-10)
    assert checks_of(found)[0].status == "pass"
    padding = ~model.tokens(PROMPTS).mask.bool().T.numpy()
    assert np.isnan(found.values[:, padding]).all() and np.isfinite(found.values[:, ~padding]).all()


def test_gates_that_cannot_be_had_apart_leave_what_neurons_give():
    module = tiny.build("phi3", torch.float64)  # one matrix for gate and input
    model = interp.load(module, tokenizer=tiny.tokenizer())
    with pytest.raises(ValueError, match="has no 'mlp_pre'"):
        attribution.linearised(model, PROMPTS, METRIC)
    found = attribution.linearised(model, PROMPTS, METRIC, "constant")
    np.testing.assert_allclose(found.sum(("term", "pos")), _output(model, PROMPTS), rtol=0, atol=1e-10)


def test_norms_of_odd_width_are_held_too():
    module = tiny.build("gpt2", torch.float64, n_embd=33, n_head=3)
    model = interp.load(module, tokenizer=tiny.tokenizer())
    found = attribution.linearised(model, PROMPTS, METRIC)
    np.testing.assert_allclose(found.sum(("term", "pos")), _output(model, PROMPTS), rtol=0, atol=1e-10)


class _Fixed:
    """Values that are computed in a first pass, and are the same ever after."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.at: int | None = None

    def __call__(self, make: Callable[[], Tensor]) -> Tensor:
        if self.at is None:
            self.values.append(make().detach())
            return self.values[-1]
        self.at += 1
        return self.values[self.at - 1]


def _llama(module: nn.Module, x: Tensor, patterns: tuple[Tensor, ...], fixed: _Fixed, gates: bool = True) -> Tensor:
    """The last position's logits, norms and perhaps gates held."""
    norm = lambda n, x: x * fixed(lambda: (x.pow(2).mean(-1, keepdim=True) + n.variance_epsilon).rsqrt()) * n.weight
    for layer, pattern in zip(module.model.layers, patterns):
        values = layer.self_attn.v_proj(norm(layer.input_layernorm, x)).unflatten(-1, (2, 8))
        z = torch.stack([pattern[0, head] @ values[:, head // 2] for head in range(4)], 1)
        x = x + layer.self_attn.o_proj(z.flatten(1))
        normed = norm(layer.post_attention_layernorm, x)
        gate = lambda: nn.functional.silu(layer.mlp.gate_proj(normed))
        x = x + layer.mlp.down_proj((fixed(gate) if gates else gate()) * layer.mlp.up_proj(normed))
    return module.lm_head(norm(module.model.norm, x[-1]))


def _gpt2(
    module: nn.Module, x: Tensor, patterns: tuple[Tensor, ...], fixed: _Fixed, biases: tuple[object, ...]
) -> Tensor:
    """With the biases of some of the blocks, by number, and of the final norm, None."""

    def norm(n: nn.LayerNorm, x: Tensor, of: object) -> Tensor:
        middle = x - x.mean(-1, keepdim=True)
        scale = fixed(lambda: (middle.pow(2).mean(-1, keepdim=True) + n.eps).rsqrt())
        return middle * scale * n.weight + (of in biases) * n.bias

    for i, (block, pattern) in enumerate(zip(module.transformer.h, patterns)):
        matrix = lambda m, x: x @ m.weight + (i in biases) * m.bias
        values = matrix(block.attn.c_attn, norm(block.ln_1, x, i))[:, 64:].unflatten(-1, (4, 8))
        z = torch.stack([pattern[0, head] @ values[:, head] for head in range(4)], 1)
        x = x + matrix(block.attn.c_proj, z.flatten(1))
        before = matrix(block.mlp.c_fc, norm(block.ln_2, x, i))
        x = x + matrix(block.mlp.c_proj, before * fixed(lambda: block.mlp.act(before) / before))
    return module.lm_head(norm(module.transformer.ln_f, x[-1], None))


def _patterns(module: nn.Module, ids: Tensor) -> tuple[Tensor, ...]:
    module.set_attn_implementation("eager")
    with torch.no_grad():
        return module(input_ids=ids, output_attentions=True, use_cache=False).attentions


@torch.no_grad()
def test_a_tokens_share_is_what_it_gives_alone_in_a_linear_llama():
    module, model = tiny.build("llama", torch.float64), load("llama", dtype=torch.float64)
    ids = model.tokens(PROMPTS[:1]).ids
    fixed, patterns, embedded = _Fixed(), _patterns(module, ids), module.model.embed_tokens(ids[0])
    _llama(module, embedded, patterns, fixed)
    found = attribution.linearised(model, PROMPTS[:1], METRIC).isel(prompt=0)
    for pos in range(len(embedded)):
        fixed.at = 0
        alone = torch.zeros_like(embedded).index_put((torch.tensor(pos),), embedded[pos])
        logits = _llama(module, alone, patterns, fixed)
        np.testing.assert_allclose(found.sel(term="token").values[pos], logits[4] - logits[5], atol=1e-5)
    assert abs(found.sel(term="position")).max() == 0 and abs(found.sel(term="token")).min() > 1e-3


@torch.no_grad()
def test_every_term_is_what_it_gives_alone_in_a_linear_gpt2():
    module, model = tiny.build("gpt2", torch.float64), load("gpt2", dtype=torch.float64)
    ids = model.tokens(PROMPTS[:1]).ids
    fixed, patterns = _Fixed(), _patterns(module, ids)
    parts = {"token": module.transformer.wte(ids[0]), "position": module.transformer.wpe.weight[: ids.shape[1]]}
    _gpt2(module, sum(parts.values()), patterns, fixed, (0, 1, 2, None))

    def alone(x: Tensor, *biases: object) -> Tensor:
        fixed.at = 0
        logits = _gpt2(module, x, patterns, fixed, biases)
        return logits[4] - logits[5]

    found = attribution.linearised(model, PROMPTS[:1], METRIC).isel(prompt=0)
    for name, vectors in parts.items():
        for pos in range(ids.shape[1]):
            x = torch.zeros_like(vectors).index_put((torch.tensor(pos),), vectors[pos])
            np.testing.assert_allclose(found.sel(term=name).values[pos], alone(x), atol=1e-6)
    nothing = torch.zeros_like(parts["token"])
    for name, layer in (("bias0", 0), ("bias1", 1), ("bias2", 2), ("bias", None)):
        np.testing.assert_allclose(found.sel(term=name).sum(), alone(nothing, layer), atol=1e-6)


def test_a_rectifiers_gate_is_its_tangent():
    model = load("opt", dtype=torch.float64)
    gate, tangent = (attribution.linearised(model, PROMPTS, METRIC, mlp) for mlp in ("gate", "tangent"))
    np.testing.assert_allclose(gate, tangent.sel(term=gate.term), atol=1e-10)
    left = sorted({*tangent.term.values} - {*gate.term.values})
    assert left == ["mlp0", "mlp1", "mlp2"] and abs(tangent.sel(term=left)).max() < 1e-10


def test_the_tangent_is_the_gradient_with_norms_and_patterns_held():
    module, model = tiny.build("llama", torch.float64), load("llama", dtype=torch.float64)
    ids = model.tokens(PROMPTS[:1]).ids
    fixed, patterns, embedded = _Fixed(), _patterns(module, ids), module.model.embed_tokens(ids[0]).detach()
    _llama(module, embedded, patterns, fixed, gates=False)
    fixed.at = 0
    logits = _llama(module, embedded.requires_grad_(), patterns, fixed, gates=False)
    (gradient,) = torch.autograd.grad(logits[4] - logits[5], embedded)
    found = attribution.linearised(model, PROMPTS[:1], METRIC, "tangent").isel(prompt=0).sel(term="token")
    np.testing.assert_allclose(found, (embedded * gradient).sum(-1).detach(), atol=1e-5)


def test_a_metric_may_have_a_constant_and_be_read_elsewhere(embedded):
    task = tasks.ioi(embedded, n=4)
    shifted = metrics.Metric("shifted", lambda logits: 2 * logits[:, 7] + 3, at="S2")
    found = attribution.linearised(embedded, task.clean, [shifted, task.logit_diff])
    outputs = [_output(embedded, task.clean, metric) for metric in (shifted, task.logit_diff)]
    np.testing.assert_allclose(found.sum(("term", "pos")), outputs, atol=1e-4)
    alone = attribution.linearised(embedded, task.clean, task.logit_diff)
    np.testing.assert_allclose(found.isel(metric=1), alone, atol=1e-5)
    after = np.arange(found.sizes["pos"])[:, None] > task.clean.role("S2").numpy()
    assert abs(found.isel(metric=0).values[:, after]).max() == 0


def test_the_model_is_left_as_it_was(family):
    model = load(family)
    hooks = lambda: [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules()]
    logits, before = model.run(PROMPTS).logits, hooks()
    attribution.linearised(model, PROMPTS, METRIC)
    with pytest.raises(RuntimeError, match="stopped"), frozen_norms(model):
        raise RuntimeError("stopped")
    assert hooks() == before and torch.equal(model.run(PROMPTS).logits, logits)
    assert all(parameter.grad is None for parameter in model.module.parameters())


def test_what_cannot_be_linearised_is_said(embedded):
    with pytest.raises(ValueError, match="probability is not linear in the logits"):
        attribution.linearised(embedded, "the dog", metrics.prob(4))
    with pytest.raises(ValueError, match="mlp='secant' is unknown; choose from gate, tangent, constant"):
        attribution.linearised(embedded, "the dog", METRIC, "secant")
    with (
        steering.applied(load("gpt2"), [edits.zero(interp.Site("z", 0))]) as steered,
        pytest.raises(ValueError, match=r"need Hugging Face modules .* has none"),
    ):
        attribution.linearised(steered, "I love it", METRIC)
    odd = tiny.build("llama")

    class OddNorm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.tanh()

    odd.model.norm = OddNorm().eval()
    with pytest.raises(ValueError, match="OddNorm is not a linear map times a scale for each token"):
        attribution.linearised(interp.load(odd, tokenizer=tiny.tokenizer()), "I love it", METRIC)
