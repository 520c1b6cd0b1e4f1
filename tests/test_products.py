"""Products by the other library: as exact, differentiable in everything, and only where they are wanted."""

from contextlib import nullcontext
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

import interp
from interp import circuits, edits, metrics, patching, products
from interp.products import quick_functions
from interp.quick import quick

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
SIZES = [(1, 512, 512), (6, 512, 1536), (33, 1024, 512), (700, 512, 640)]


@pytest.fixture(autouse=True)
def whatever_the_processor(monkeypatch):
    monkeypatch.setattr(products, "is_faster", lambda: True)


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """Grows with each product that is made by the other library."""
    counted: list[int] = []
    product = products._by_onednn
    monkeypatch.setattr(products, "_by_onednn", lambda *args: counted.append(1) or product(*args))
    return counted


def matrix(kind: str, inward: int, outward: int) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Linear(inward, outward, bias=kind == "linear") if kind != "conv1d" else Conv1D(outward, inward)
    if kind != "no bias":
        nn.init.normal_(module.bias)
    return module


WAYS = {"in the module": lambda module: quick(module), "in the function": lambda module: quick_functions()}
both_ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def found_by(module: nn.Module, x: Tensor, along: Tensor, way: Any) -> list[Tensor]:
    """What a matrix returns, its gradients with respect to everything, and a gradient of a gradient."""
    x = x.clone().requires_grad_()
    with way(module):
        y = module(x)
    first = torch.autograd.grad((y * along).sum(), [x, *module.parameters()], retain_graph=True)
    (flat,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    (slope,) = torch.autograd.grad((y**2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad((slope**2).sum(), x)
    with torch.no_grad(), way(module):
        plain = module(x)
    return [y, plain, *first, flat, second]


@both_ways
@pytest.mark.parametrize("kind", ["linear", "no bias", "conv1d"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products_and_their_gradients_are_those_of_double_precision(kind, size, way, seen):
    rows, inward, outward = size
    x, along = torch.randn(rows, inward), torch.randn(outward, rows).T
    x, along = (part.reshape(1, rows, -1) for part in (x, along))
    ours = found_by(matrix(kind, inward, outward), x, along, way)
    wanted = found_by(matrix(kind, inward, outward).double(), x.double(), along.double(), lambda _: nullcontext())
    assert len(seen) == 2 + 5  # forward, and in the four gradients
    for one, other in zip(ours, wanted, strict=True):
        assert one.dtype == torch.float32 and one.shape == other.shape
        assert (one - other).abs().max() <= 3e-6 * other.abs().max()


@pytest.mark.parametrize("kind", ["linear", "no bias", "conv1d"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("in_module", [False, True])
def test_no_gradient_goes_to_constant_rows_and_that_of_the_others_is_whole(kind, dtype, in_module, monkeypatch):
    module, x = matrix(kind, 512, 640).to(dtype), torch.randn(1, 9, 512, dtype=dtype, requires_grad=True)
    along = torch.randn(1, 9, 640, dtype=dtype)
    (wanted,) = torch.autograd.grad((module(x) * along).sum(), x)
    sizes, apply = [], products._Product.apply
    monkeypatch.setattr(products._Product, "apply", lambda x, *rest: sizes.append(x.shape[-2]) or apply(x, *rest))
    with quick(module, constant=4) if in_module else quick_functions(4):
        (found,) = torch.autograd.grad((module(x) * along).sum(), x)
    assert sizes == [9, 5]
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert not found[:, :4].any() and (found - wanted)[:, 4:].abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize("order", ["rows", "columns", "neither"])
@pytest.mark.parametrize("given", [False, True], ids=["fresh", "given"])
def test_stacks_of_products_are_those_of_double_precision(order, given, monkeypatch):
    torch.manual_seed(0)
    a, wide = torch.randn(120, 3, 64).transpose(0, 1), torch.randn(3, 64, 2 * 640)
    b = {"rows": wide[..., :640].contiguous(), "columns": wide[..., :640].mT.contiguous().mT, "neither": wide[..., ::2]}
    out = torch.empty(120, 3, 640).transpose(0, 1) if given else None
    monkeypatch.setattr(torch, "bmm", None)
    found, wanted = products.products_of(a, b[order], out), a.double() @ b[order].double()
    assert (found - wanted).abs().max() <= 3e-6 * wanted.abs().max() and (out is None or found is out)


def test_small_stacks_and_those_that_want_a_gradient_are_left_to_torch():
    a, b = torch.randn(2, 8, 64), torch.randn(2, 64, 32)
    assert torch.equal(products.products_of(a, b), torch.bmm(a, b))
    assert torch.equal(products.products_of(a, b, torch.empty(2, 8, 32)), torch.bmm(a, b))
    a, b = torch.randn(2, 128, 64, requires_grad=True), torch.randn(2, 64, 512)
    (slope,) = torch.autograd.grad(products.products_of(a, b).sum(), a)
    assert torch.allclose(slope, b.sum(-1)[:, None].expand_as(a), atol=1e-4)


def test_weights_cost_nothing_where_their_gradient_is_not_asked_for(monkeypatch):
    asked = []
    backward = products._Weights.backward
    monkeypatch.setattr(products._Weights, "backward", lambda *args: asked.append(1) or backward(*args))
    module, x = matrix("linear", 512, 512), torch.randn(8, 512, requires_grad=True)
    with quick(module):
        y = module(x)
    torch.autograd.grad(y.sum(), x, retain_graph=True)
    assert not asked
    y.sum().backward()
    assert asked == [1] and module.weight.grad is not None


def test_everything_else_is_left_to_torch(seen):
    wide, narrow = matrix("linear", 512, 512), matrix("linear", 64, 64)
    cases = [
        lambda: wide(torch.ones(0, 512)),
        lambda: narrow(torch.ones(8, 64)),
        lambda: wide.double()(torch.ones(8, 512, dtype=torch.float64)),
        lambda: nn.functional.linear(input=torch.ones(8, 512), weight=torch.ones(512, 512)),
        lambda: torch.addmm(torch.ones(8, 512), torch.ones(8, 512), torch.ones(512, 512), alpha=2),
        lambda: nn.functional.linear(torch.ones(8, 512), torch.ones(1024, 512)[::2]),
        lambda: nn.functional.linear(torch.ones(8, 512, device="meta"), torch.ones(512, 512, device="meta")).shape,
    ]
    for case, way in product(cases, WAYS.values()):
        with way(nn.ModuleList([wide, narrow])):
            found = case()
        assert found == case() if isinstance(found, torch.Size) else torch.equal(found, case())
    assert not seen


def test_a_chosen_precision_is_kept(seen):
    module = matrix("linear", 512, 512)
    for way in WAYS.values():
        with torch.autocast("cpu", torch.bfloat16), way(module):
            assert module(torch.ones(8, 512)).dtype == torch.bfloat16
    assert not seen


@both_ways
def test_forward_gradients_and_transforms_go_through(way):
    module, (x, along) = matrix("linear", 512, 512).requires_grad_(False), torch.randn(2, 8, 512)
    wanted = along @ module.weight.T
    with way(module):
        with forward_ad.dual_level():
            found = forward_ad.unpack_dual(module(forward_ad.make_dual(x, along))).tangent
        slope, mapped = torch.func.jvp(module, (x,), (along,))[1], torch.vmap(module)(x[:, None])[:, 0]
    for one in (found, slope, mapped - module(x) + wanted):
        assert (one - wanted).abs().max() <= 1e-5


@both_ways
def test_where_torch_does_not_tell_of_transforms_the_product_is_the_plain_one(way, seen, monkeypatch):
    monkeypatch.delattr(torch._C, "_are_functorch_transforms_active")
    module, x = matrix("linear", 512, 512), torch.randn(6, 512)
    with way(module):
        assert torch.equal(module(x), nn.functional.linear(x, module.weight, module.bias))
    assert not seen


@both_ways
def test_it_can_be_turned_off(way, seen):
    module = matrix("linear", 512, 512)
    with torch.backends.mkldnn.flags(enabled=False), way(module):
        module(torch.ones(8, 512))
    assert not seen


def wide(family: str) -> interp.Model:
    torch.manual_seed(0)
    if family == "gpt2":
        return interp.load(GPT2LMHeadModel(GPT2Config(vocab_size=600, n_embd=512, n_layer=2, n_head=8)).eval())
    config = LlamaConfig(
        vocab_size=600, hidden_size=512, intermediate_size=768, num_hidden_layers=2, num_attention_heads=8,
        num_key_value_heads=2,
    )  # fmt: skip
    return interp.load(LlamaForCausalLM(config).eval())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_methods_give_the_same_numbers_either_way(family, seen):
    model, metric = wide(family), metrics.logit_diff(5, 6)
    clean = torch.randint(0, 600, (2, 9), generator=torch.Generator().manual_seed(1))
    corrupt = clean.clone()
    corrupt[:, 4] = (clean[:, 4] + 1) % 600

    def everything() -> list[Tensor]:
        resid, steered = model.sites("resid_pre"), edits.add(interp.Site("resid_post", 0), torch.ones(512))
        sweep = patching.patch(model, clean, corrupt, resid, metric, over=["pos"], normalize=False)
        scores = circuits.eap(model, clean, corrupt, metric, over=["pos"]).fillna(0)
        trace = model.run(clean, read=resid[1], edits=[steered], grad=True)
        (slope,) = torch.autograd.grad(trace.logits[:, -1, 5].sum(), trace[resid[1]])
        return [torch.from_numpy(sweep.values), torch.from_numpy(scores.values), trace.logits.detach(), slope]

    ours = everything()
    assert len(seen) > 100
    with torch.backends.mkldnn.flags(enabled=False):
        n_seen, wanted = len(seen), everything()
    assert len(seen) == n_seen
    for one, other in zip(ours, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-5 * max(1.0, float(other.abs().max()))
