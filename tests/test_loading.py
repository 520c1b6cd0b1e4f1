"""Models that come from TransformerLens and nnsight keep what makes them special."""

from pathlib import Path

import nnsight
import pytest
import tiny
import torch
from torch import Tensor
from torch.testing import assert_close
from transformer_lens import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

import interp
from interp import Tokens, metrics, patching

NATIVE: dict[str, dict] = {
    "plain": {},
    "bidirectional": dict(attention_dir="bidirectional"),
    "other output": dict(d_vocab_out=7),
    "no norm": dict(normalization_type=None),
    "attention only": dict(attn_only=True),
    "rotary, grouped, capped": dict(
        positional_embedding_type="rotary", n_key_value_heads=1, attn_scores_soft_cap=5.0, output_logits_soft_cap=2.0
    ),
    "gated": dict(gated_mlp=True, act_fn="silu", normalization_type="RMS"),
    "one layer for modular addition": dict(
        n_layers=1, n_ctx=3, d_vocab_out=19, normalization_type=None, act_fn="relu", attention_dir="causal"
    ),
    "all at once": dict(attention_dir="bidirectional", d_vocab_out=7, normalization_type=None, attn_only=True),
    "rotary encoder": dict(attention_dir="bidirectional", d_vocab_out=30, positional_embedding_type="rotary"),
}


def config(**changes) -> TransformerBridgeConfig:
    sizes = dict(d_model=16, n_layers=2, n_heads=2, d_head=8, n_ctx=16, d_vocab=20, d_mlp=24, act_fn="gelu", seed=0)
    return TransformerBridgeConfig(**sizes | dict(normalization_type="LN") | changes)


def native(dtype: torch.dtype | None = None, **changes) -> interp.Model:
    return interp.load(TransformerBridge.boot_native(config(**changes)).eval(), dtype=dtype)


@pytest.mark.parametrize("kind", NATIVE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identities_of_native_bridges(kind: str, dtype: torch.dtype):
    report = interp.check(native(dtype, **NATIVE[kind]))
    assert report.holds, str(report)


@pytest.mark.parametrize("kind", NATIVE)
def test_logits_are_those_of_the_bridge(kind: str):
    bridge = TransformerBridge.boot_native(config(**NATIVE[kind])).eval()
    ids = torch.tensor([[3, 1, 2]])
    with torch.no_grad():
        assert_close(interp.load(bridge).run(ids).logits, bridge(ids))


@pytest.mark.parametrize("kind", [kind for kind, changes in NATIVE.items() if "encoder" in kind or "all" in kind])
def test_only_bidirectional_attention_looks_ahead(kind: str):
    ids, other = torch.tensor([[3, 1, 2, 5], [3, 1, 2, 6]])[:, None]
    model, causal = native(**NATIVE[kind]), native(**NATIVE[kind] | dict(attention_dir="causal"))
    first = [(m.run(ids).logits - m.run(other).logits)[0, 0].abs().max() for m in (model, causal)]
    assert first[0] > 1e-4 and first[1] == 0


@pytest.mark.parametrize("kind", ["bidirectional", "rotary encoder", "all at once"])
def test_padding_is_seen_by_no_one(kind: str):
    model = native(**NATIVE[kind])
    ids, mask = torch.tensor([[1, 2, 3, 4, 5], [9, 9, 6, 7, 8]]), torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    trace = model.run((ids, mask), read=model.sites("pattern", "resid_post"))
    alone = model.run(ids[1:, 2:], read=model.sites("resid_post"))
    assert_close(trace.logits[1, 2:], alone.logits[0], atol=1e-6, rtol=1e-5)
    for site in model.sites("resid_post"):
        assert_close(trace[site][1, 2:], alone[site][0], atol=1e-6, rtol=1e-5)
    for site in model.sites("pattern"):
        assert trace[site][1, :, 2:, :2].abs().max() == 0
    other = model.run((ids + 7 * (1 - mask), mask))
    assert_close(other.logits[1, 2:], trace.logits[1, 2:])


def test_ids_belong_to_the_input_and_answers_to_the_output():
    model = native(d_vocab_out=30, attention_dir="bidirectional")
    ids, mask = torch.tensor([[1, 2, 3], [0, 4, 5]]), torch.tensor([[1, 1, 1], [0, 1, 1]])
    tokens = Tokens(ids, mask, {"MID": torch.tensor([1, 2])})
    trace = model.run(tokens)
    assert_close(metrics.logit(29).reading("MID")(trace), torch.stack([trace.logits[0, 1, 29], trace.logits[1, 2, 29]]))
    assert_close(metrics.logit(29).reading(-2)(trace), trace.logits[:, -2, 29])
    with pytest.raises(ValueError, match="output vocabulary of 30"):
        metrics.logit(30)(trace)
    with pytest.raises(ValueError, match="from 0 to 19, not 1 to 25"):
        model.run(torch.tensor([[1, 25]]))
    with pytest.raises(ValueError, match="reads a vocabulary of 20 and predicts one of 30"):
        interp.generate(model, ids[:1], 1)


def test_patching_reads_the_position_that_the_metric_names():
    model = native(attention_dir="bidirectional", d_vocab_out=7)
    clean, corrupt = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 3, 9]])
    metric = metrics.logit_diff(1, 2).reading(0)
    whole = patching.patch(model, clean, corrupt, model.sites("resid_pre", layers=[0]), metric, over=["pos"])
    assert_close(torch.tensor(whole.values).flatten(), torch.tensor([0.0, 0.0, 0.0, 1.0]), atol=1e-4, rtol=0)


def old_checkpoint(cfg: TransformerBridgeConfig) -> dict[str, Tensor]:
    """A state dict with the names and shapes of TransformerLens before version 4."""
    draw = torch.Generator().manual_seed(0)
    heads, d, head, mlp = cfg.n_heads, cfg.d_model, cfg.d_head, cfg.d_mlp
    shapes = {"embed.W_E": (cfg.d_vocab, d), "pos_embed.W_pos": (cfg.n_ctx, d)}
    for i in range(cfg.n_layers):
        block = {f"attn.W_{m}": (heads, d, head) for m in "QKV"} | {f"attn.b_{m}": (heads, head) for m in "QKV"}
        block |= {"attn.W_O": (heads, head, d), "attn.b_O": (d,), "ln1.w": (d,), "ln1.b": (d,)}
        if not cfg.attn_only:
            block |= {"mlp.W_in": (d, mlp), "mlp.b_in": (mlp,), "mlp.W_out": (mlp, d), "mlp.b_out": (d,)}
            block |= {"ln2.w": (d,), "ln2.b": (d,)}
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    shapes |= {
        "ln_final.w": (d,),
        "ln_final.b": (d,),
        "unembed.W_U": (d, cfg.d_vocab_out),
        "unembed.b_U": (cfg.d_vocab_out,),
    }
    return {name: torch.randn(shape, generator=draw) * 0.4 for name, shape in shapes.items()}


def old_forward(w: dict[str, Tensor], cfg: TransformerBridgeConfig, ids: Tensor) -> Tensor:
    """The transformer that an old checkpoint describes, one prompt at a time."""

    def norm(x: Tensor, name: str) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        return x / (x.pow(2).mean(-1, keepdim=True) + cfg.eps).sqrt() * w[f"{name}.w"] + w[f"{name}.b"]

    x = w["embed.W_E"][ids] + w["pos_embed.W_pos"][: len(ids)]
    for i in range(cfg.n_layers):
        at = lambda name: w[f"blocks.{i}.{name}"]
        h = norm(x, f"blocks.{i}.ln1")
        q, k, v = (torch.einsum("pd,hde->hpe", h, at(f"attn.W_{m}")) + at(f"attn.b_{m}")[:, None] for m in "QKV")
        scores = q @ k.transpose(1, 2) / cfg.d_head**0.5
        if cfg.attention_dir == "causal":
            scores = scores + torch.full_like(scores, -torch.inf).triu(1)
        x = x + torch.einsum("hpe,hed->pd", scores.softmax(-1) @ v, at("attn.W_O")) + at("attn.b_O")
        if not cfg.attn_only:
            hidden = (norm(x, f"blocks.{i}.ln2") @ at("mlp.W_in") + at("mlp.b_in")).relu()
            x = x + hidden @ at("mlp.W_out") + at("mlp.b_out")
    return norm(x, "ln_final") @ w["unembed.W_U"] + w["unembed.b_U"]


@pytest.mark.parametrize("changes", [{}, dict(attn_only=True), dict(attention_dir="bidirectional")], ids=str)
def test_an_old_checkpoint_gives_the_logits_that_it_describes(changes: dict):
    cfg = config(act_fn="relu", d_vocab_out=9, **changes)
    old = old_checkpoint(cfg)
    bridge = TransformerBridge.boot_native(cfg).eval()
    bridge.load_state_dict(convert_tl_checkpoint(old, cfg))
    model = interp.load(bridge)
    ids, mask = torch.tensor([[1, 2, 3, 4, 5], [0, 0, 6, 7, 8]]), torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    logits = model.run((ids, mask)).logits
    assert_close(logits[0], old_forward(old, cfg, ids[0]), atol=1e-4, rtol=1e-4)
    assert_close(logits[1, 2:], old_forward(old, cfg, ids[1, 2:]), atol=1e-4, rtol=1e-4)
    report = interp.check(model)
    assert report.holds, str(report)


PROMPTS = ["when Mary and John went to the store", "I love it"]
NNSIGHT = {
    "folder": lambda folder, module: nnsight.TransformersModel(folder, task="text-generation", dispatch=True),
    "lazy": lambda folder, module: nnsight.TransformersModel(
        folder, task="text-generation", tokenizer=tiny.tokenizer()
    ),
    "object": lambda folder, module: nnsight.TransformersModel(
        module, task="text-generation", tokenizer=tiny.tokenizer()
    ),
    "plain": lambda folder, module: nnsight.NNsight(module),
}


@pytest.mark.parametrize("kind", NNSIGHT)
@pytest.mark.parametrize("family", ["gpt2", "llama", "phi"])
def test_nnsight_models_give_the_default_numbers(family: str, kind: str, tmp_path: Path):
    folder = tiny.save(family, tmp_path)
    default = interp.load(folder)
    model = interp.load(NNSIGHT[kind](folder, tiny.build(family)), tokenizer=tiny.tokenizer())
    assert model.backend == "nnsight" and list(model.editable) == list(default.editable)
    ours, theirs = (m.run(PROMPTS, read=m.sites()) for m in (model, default))
    assert_close(ours.logits, theirs.logits)
    for site in default.sites():
        assert_close(ours[site], theirs[site], msg=lambda m, site=site: f"{site}: {m}")


def test_the_model_inside_a_bridge_is_refused_in_favour_of_the_bridge():
    bridge = interp.load(tiny.build("gpt2"), backend="transformer_lens").module
    with pytest.raises(ValueError, match="the parts of this GPT2LMHeadModel belong to a TransformerLens bridge; load"):
        interp.load(bridge.original_model)
