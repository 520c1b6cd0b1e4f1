"""Modules that work in a quicker way: the same values and gradients, and nothing that a hook could notice."""

import copy
from contextlib import ExitStack

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.activations import ACT2FN

import interp
from interp import Site, edits, products
from interp.quick import quick

MLP = lambda name: nn.Sequential(nn.Linear(4, 6), ACT2FN[name], nn.Linear(6, 4))


@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast"])
def test_values_and_gradients_are_those_of_the_formula(name):
    mlp, x = MLP(name).double(), torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    plain = mlp(x)
    with quick(mlp):
        quicker = mlp(x)
    torch.testing.assert_close(quicker, plain, atol=1e-10, rtol=0)  # `gelu_fast` has a constant of ten digits
    slopes = [torch.autograd.grad(y.square().sum(), x)[0] for y in (quicker, plain)]
    torch.testing.assert_close(*slopes, atol=1e-9, rtol=0)


def test_only_activations_that_are_spelled_out_are_replaced():
    for name in ("gelu_new", "gelu_fast", "gelu", "silu"):
        mlp = MLP(name)
        with quick(mlp):
            assert [name for name, module in mlp.named_modules() if "forward" in vars(module)] == (
                ["1"] if name in ("gelu_new", "gelu_fast") else []
            )


def test_other_hooks_see_the_whole_input_and_output_and_may_change_them():
    mlp, x = MLP("gelu_new"), torch.randn(5, 4)
    seen = []
    with ExitStack() as stack:
        stack.callback(mlp[1].register_forward_pre_hook(lambda _, args: seen.append(args[0])).remove)
        stack.callback(mlp[1].register_forward_hook(lambda _, args, out: (seen.append(out), 2 * out)[1]).remove)
        plain = mlp(x)
        with quick(mlp):
            quicker = mlp(x)
    assert [one.shape for one in seen] == [(5, 6)] * 4
    torch.testing.assert_close(quicker, plain)


def test_half_precision_keeps_the_rounding_of_the_module():
    mlp, x = MLP("gelu_new").bfloat16(), torch.randn(50, 4).bfloat16()
    plain = mlp(x)
    with quick(mlp):
        assert torch.equal(mlp(x), plain)


def test_one_inside_another_changes_nothing_and_nothing_is_left_behind():
    mlp, x = MLP("gelu_new"), torch.randn(5, 4)
    with pytest.raises(KeyboardInterrupt), quick(mlp):
        with quick(mlp):
            inner = mlp(x)
        torch.testing.assert_close(mlp(x), inner, rtol=0, atol=0)
        raise KeyboardInterrupt
    assert not any("forward" in vars(module) for module in mlp.modules())
    torch.testing.assert_close(mlp(x), inner)


def test_a_copy_that_is_made_meanwhile_works_on_its_own_weights(monkeypatch):
    monkeypatch.setattr(products, "is_faster", lambda: True)
    module, x = nn.Sequential(nn.Linear(512, 512)), torch.randn(3, 512)
    with quick(module):
        other = copy.deepcopy(module)
    nn.init.zeros_(other[0].weight), nn.init.ones_(other[0].bias)
    assert torch.equal(other(x), torch.ones(3, 512)) and not torch.equal(module(x), other(x))


def test_a_forward_of_its_own_is_called_and_stays():
    mlp, x = MLP("gelu_new"), torch.randn(5, 4)
    mlp[1].forward = own = lambda x: 3 * x
    with quick(mlp):
        assert mlp[1].forward is own
        torch.testing.assert_close(mlp(x), mlp[2](3 * mlp[0](x)))
    assert mlp[1].forward is own


def test_matrices_that_another_library_works_in_are_quick_too(monkeypatch):
    monkeypatch.setattr(products, "is_faster", lambda: True)
    by_onednn, made = products._by_onednn, []
    monkeypatch.setattr(products, "_by_onednn", lambda *args: made.append(1) or by_onednn(*args))
    module, x = nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 512)), torch.randn(3, 512)
    inside = type(module[0]).forward
    module[0].forward = lambda x: 2 * inside(module[0], x)  # as nnsight does it
    with torch.no_grad():
        plain = module(x)
        with quick(module):
            torch.testing.assert_close(module(x), plain)
    assert len(made) == 2


def test_a_wide_model_is_run_with_it_and_its_neurons_can_be_edited(monkeypatch):
    torch.manual_seed(0)
    module = GPT2LMHeadModel(GPT2Config(n_embd=512, n_layer=2, n_head=8, vocab_size=50, n_positions=8)).eval()
    model, ids = interp.load(module), torch.arange(6)[None]
    made = []
    gelu = nn.functional.gelu
    monkeypatch.setattr(nn.functional, "gelu", lambda x, **how: made.append(x.shape) or gelu(x, **how))
    trace = model.run(ids, read=Site("mlp_post", 1), edits=[edits.zero(Site("mlp_post", 0), neuron=3)])
    assert made == [(1, 6, 2048)] * 2
    with module.transformer.h[0].mlp.act.register_forward_hook(
        lambda _, args, out: out.index_fill(2, torch.tensor(3), 0)
    ):
        plain = module(ids).logits
    torch.testing.assert_close(trace.logits, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["q_proj", "up_proj"])
def test_a_matrix_that_gets_a_parametrization_after_a_run_keeps_its_own_way(kind, monkeypatch):
    monkeypatch.setattr(products, "is_faster", lambda: True)
    config = LlamaConfig(
        hidden_size=384, intermediate_size=768, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=50,
    )  # fmt: skip
    module, ids = LlamaForCausalLM(config).eval(), torch.tensor([[3, 4, 5]])
    model = interp.load(module)
    model.run(ids)
    layer = module.model.layers[0]
    weight_norm(layer.self_attn.q_proj if kind == "q_proj" else layer.mlp.up_proj)
    module.eval()
    with torch.no_grad():
        torch.testing.assert_close(model.run(ids).logits, module(ids).logits, atol=1e-5, rtol=1e-5)
