"""Prepacked matrices: the numbers of the others, also after the weights have changed, and nothing left behind."""

import copy
import gc

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import interp
from interp import circuits, metrics, prepacked, products
from interp.quick import quick

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")

FAMILIES = {
    "conv1d": lambda: GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=4, n_embd=256, vocab_size=600, n_positions=32)),
    "linear": lambda: LlamaForCausalLM(
        LlamaConfig(
            hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=600,
        )
    ),
}  # fmt: skip
families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(autouse=True)
def whatever_the_processor(monkeypatch):
    monkeypatch.setattr(products, "is_faster", lambda: True)
    monkeypatch.setattr(prepacked, "_KEPT", {})


@pytest.fixture
def used(monkeypatch) -> list[bool]:
    """For each product, whether its matrix was prepacked."""
    seen: list[bool] = []
    find = prepacked.prepacked

    def noted(matrix):
        found = find(matrix)
        seen.append(found is not matrix)
        return found

    monkeypatch.setattr(products, "prepacked", noted)
    return seen


def module_of(family: str) -> nn.Module:
    torch.manual_seed(0)
    return FAMILIES[family]().eval()


IDS = torch.arange(12).reshape(2, 6) * 40 + 3
OTHER = IDS + torch.eye(6, dtype=torch.long)[[2, 4]]
METRIC = metrics.logit_diff(5, 7)


def logits(model: interp.Model) -> torch.Tensor:
    return model.run(IDS).logits


@families
@pytest.mark.parametrize("backend", interp.BACKENDS)
def test_logits_and_edges_are_those_of_other_models(family, backend, used):
    plain = interp.load(module_of(family), backend=backend)
    wanted = logits(plain), torch.from_numpy(circuits.eap(plain, IDS, OTHER, METRIC).values)
    assert used and not any(used)
    model = interp.load(module_of(family), backend=backend, prepack=True)
    used.clear()  # a bridge has been tried out
    found = logits(model), torch.from_numpy(circuits.eap(model, IDS, OTHER, METRIC).values)
    assert any(used)
    assert all(used) or (family, backend) == ("conv1d", "transformer_lens")  # a bridge has its queries twice
    for one, other in zip(wanted, found):
        torch.testing.assert_close(one, other, equal_nan=True)


@families
def test_changes_of_the_weights_are_followed(family, used):
    module = module_of(family)
    model = interp.load(module, prepack=True)
    before = logits(model)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.1)
    torch.testing.assert_close(logits(model), logits(interp.load(copy.deepcopy(module))))
    module.load_state_dict({name: value / 1.1 for name, value in module.state_dict().items()})
    torch.testing.assert_close(logits(model), before)
    with torch.no_grad():
        module.get_output_embeddings().weight[1, 1] += 5  # one element alone, which torch counts
    torch.testing.assert_close(logits(model), logits(interp.load(copy.deepcopy(module))))
    used.clear()
    for parameter in module.parameters():
        parameter.data = parameter.data * 1.2  # elsewhere: no longer prepacked, and right
    torch.testing.assert_close(logits(model), logits(interp.load(copy.deepcopy(module))))
    assert not any(used)


def same_as_fresh(model: interp.Model) -> bool:
    return torch.allclose(logits(model), logits(interp.load(copy.deepcopy(model.module))), atol=1e-5)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_steps_of_fused_optimizers_which_torch_does_not_count_are_followed(optimizer):
    module = module_of("linear").requires_grad_()
    model = interp.load(module, prepack=True)
    step = optimizer(module.parameters(), lr=1e-2, fused=True)
    for _ in range(2):
        logits(model)
        module(IDS, labels=IDS).loss.backward()
        changes = module.lm_head.weight._version
        step.step()
        assert module.lm_head.weight._version == changes and same_as_fresh(model)


def test_weights_that_share_memory_are_followed_whichever_is_changed():
    module = module_of("linear")
    module.lm_head.weight.data = module.model.embed_tokens.weight.data
    model = interp.load(module, prepack=True)
    logits(model)
    with torch.no_grad():
        module.model.embed_tokens.weight[:20] *= 1.5
    assert same_as_fresh(model)


def test_there_and_back_to_another_precision_is_followed():
    model = interp.load(module_of("conv1d"), prepack=True)
    for _ in range(8):
        logits(model)
        model.module.bfloat16()
        model.module.float()
        assert same_as_fresh(model)


def test_loading_without_it_ends_it():
    module = module_of("linear")
    logits(interp.load(module, prepack=True))
    model = interp.load(module)
    assert not prepacked._KEPT
    module.lm_head.weight.data[0] += 1
    assert same_as_fresh(model)


def test_tensors_may_be_swapped():
    model = interp.load(module_of("linear"), prepack=True)
    logits(model)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        assert same_as_fresh(interp.load(model.module.double())) and not prepacked._KEPT
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


@families
def test_a_copy_of_the_module_has_its_own_weights(family):
    model = interp.load(module_of(family), prepack=True)
    before = logits(model)
    twin = copy.deepcopy(model.module)
    with torch.no_grad():
        twin.get_output_embeddings().weight.zero_()
    assert not logits(interp.load(twin)).any()
    torch.testing.assert_close(logits(model), before)


def test_part_of_a_matrix_and_new_tensors_in_its_memory_are_not_taken_for_it():
    owner = nn.Linear(512, 512)
    matrix = owner.weight
    prepacked.prepack([owner])
    for view in (matrix, matrix.T, matrix.detach().T):
        assert prepacked.prepacked(view) is not view
    for view in (matrix[:256], matrix[:, :256], matrix.view(256, 1024), matrix[1:], torch.randn(512, 512)):
        assert prepacked.prepacked(view) is view
    alias = matrix.data
    with torch.no_grad():
        matrix.set_(torch.randn(512, 512))
    assert prepacked.prepacked(alias) is alias
    prepacked.forget(())
    assert not prepacked._KEPT


def test_nothing_is_kept_of_models_that_are_gone():
    model = interp.load(module_of("conv1d"), prepack=True)
    logits(model)
    assert prepacked._KEPT
    del model
    gc.collect()
    assert not prepacked._KEPT


def test_gradients_of_the_weights_are_those_of_other_models():
    slopes = []
    for prepack in (False, True):
        module = module_of("conv1d").requires_grad_()
        model = interp.load(module, prepack=prepack)
        with quick(module):
            loss = model.module(IDS, labels=IDS).loss
        slopes.append(torch.autograd.grad(loss, list(module.parameters())))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other)


def test_weights_that_are_made_anew_in_each_run_are_left_as_they_are():
    module = module_of("linear")
    prune.random_unstructured(module.lm_head, "weight", 0.5)
    model = interp.load(module, prepack=True)
    assert logits(model).isfinite().all() and same_as_fresh(model)


def test_weights_made_in_inference_mode_are_left_as_they_are():
    with torch.inference_mode():
        module = module_of("conv1d")
        model = interp.load(module, prepack=True)
        assert torch.isfinite(logits(model)).all()
    assert not prepacked._KEPT


def test_a_server_prepacks_nothing():
    with pytest.raises(ValueError, match="prepack=True is for models that run on this machine"):
        interp.load("gpt2", backend="nnsight", remote=True, prepack=True)
