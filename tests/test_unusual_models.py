"""Models of which a trial on a few tokens does not tell all, and modules that are not what they seem."""

import copy

import pytest
import tiny
import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

import interp
from interp import Site, circuits, edits, metrics, patching
from interp.generation import continuations
from interp.sweep import sweep

METRIC = metrics.Metric("difference", lambda logits: logits[:, 3] - logits[:, 7])
HEADS = dict(num_attention_heads=4, num_key_value_heads=2, head_dim=8, hidden_size=32, intermediate_size=48)


def made(family: str, **changes):
    """A random model of a family, with three layers unless told otherwise."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=41, num_hidden_layers=3, bos_token_id=1, eos_token_id=1, pad_token_id=0) | HEADS | changes
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.25) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def ids_of(n: int, width: int):
    return torch.randint(1, 41, (n, width), generator=torch.Generator().manual_seed(0))


def assert_swept_as_alone(model: interp.Model, ids: torch.Tensor, cells: list) -> None:
    loop = torch.stack([METRIC(model.run(ids, edits=cell)) for cell in cells])
    torch.testing.assert_close(sweep(model, ids, cells, [METRIC]).values[0], loop, atol=1e-5, rtol=1e-5)


def test_queries_that_are_scaled_by_place_are_not_packed():
    sizes = dict(intermediate_size_mlp=48, moe_layers=[], no_rope_layers=[1, 1, 0], floor_scale=32, attn_scale=1.0)
    model = interp.load(made("llama4_text", **sizes))
    assert_swept_as_alone(model, ids_of(4, 13), [[edits.scale(Site("z", 0), 0.5 + i / 10)] for i in range(4)])


def long_rope() -> interp.Model:
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    rope |= {"original_max_position_embeddings": 10, "factor": 6.4}
    sizes = dict(max_position_embeddings=64, original_max_position_embeddings=10, rope_parameters=rope)
    return interp.load(made("phi3", **sizes))


def test_keys_are_not_kept_where_rotary_embeddings_change_on_the_way():
    model = long_rope()
    for seed in range(5):
        ids = torch.randint(1, 41, (1, 8), generator=torch.Generator().manual_seed(seed))
        found, wanted = (continuations(model, ids, 8, cached=cached) for cached in (None, False))
        assert found.tokens.ids.equal(wanted.tokens.ids) and "other rotary embeddings beyond 10" in found.how["keys"]
    assert continuations(model, ids[:, :4], 4).how["keys"] == "kept"
    with pytest.raises(ValueError, match=r"keys cannot be kept here: .* other rotary embeddings"):
        continuations(model, ids, 8, cached=True)


def test_prompts_of_two_rotary_embeddings_are_not_run_together():
    model = long_rope()
    with pytest.raises(ValueError, match=r"for prompts of more than 10 tokens, .* run them apart"):
        model.run([list(range(1, 14)), list(range(5, 10))])
    together = model.run([list(range(1, 14)), list(range(1, 13))]).logits[1, -1]
    torch.testing.assert_close(together, model.run([list(range(1, 13))]).logits[0, -1], atol=1e-4, rtol=1e-4)


def test_attention_that_chooses_keys_by_an_index_is_not_looked_into():
    sizes = dict(num_key_value_heads=4, moe_intermediate_size=16, q_lora_rank=24, kv_lora_rank=16)
    sizes |= dict(qk_rope_head_dim=8, v_head_dim=12, qk_nope_head_dim=8, n_routed_experts=4, num_experts_per_tok=2)
    sizes |= dict(n_group=1, topk_group=1, index_head_dim=16, index_n_heads=2, first_k_dense_replace=3, index_topk=8)
    module = made("deepseek_v32", **sizes)
    model, ids = interp.load(module), ids_of(2, 14)
    assert {"q", "k", "v", "z", "pattern"}.isdisjoint(model.editable) and "by an index" in model.missing["z"]
    read = model.run(ids, read=model.sites())
    torch.testing.assert_close(read.logits, module(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


def test_positions_that_are_cut_off_early_are_kept():
    sizes = dict(
        vocab_size_per_layer_input=41, hidden_size_per_layer_input=8, global_head_dim=8, num_kv_shared_layers=2
    )
    sizes |= dict(num_hidden_layers=4, sliding_window=16, layer_types=["sliding_attention", "full_attention"] * 2)
    model, ids = interp.load(made("gemma4_text", **sizes)), torch.arange(1, 7)[None]
    for pos in (0, 2, -1):
        edit = edits.scale(Site("resid_pre", 3), 0.3, pos=pos)
        few, all_of_them = (METRIC(model.run(ids, edits=edit, last_only=last_only)) for last_only in (True, False))
        torch.testing.assert_close(few, all_of_them)
    assert model.run(ids, Site("resid_post", 3), last_only=True)[Site("resid_post", 3)].shape == (1, 6, 32)
    effect = patching.patch(model, ids, ids.flip(1), model.sites("resid_post"), METRIC, over=["pos"])
    assert effect.isel(layer=-1, pos=-1).item() == pytest.approx(1.0, abs=1e-4)


def test_what_was_tried_is_tried_again_when_hooks_are_others():
    module = tiny.build("gpt2")
    model, ids = interp.load(module), ids_of(2, 6) % 30
    cells = [[edits.scale(Site("resid_pre", 0), 0.3, pos=p)] for p in (-1, -2)]
    assert_swept_as_alone(model, ids, cells)
    vector = 2 * torch.randn(32, generator=torch.Generator().manual_seed(0))

    def steer(part, args, output):
        stream = (output[0] if isinstance(output, tuple) else output).clone()
        stream[:, -1] += vector
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    handle = module.transformer.h[1].register_forward_hook(steer)
    assert_swept_as_alone(model, ids, cells)
    handle.remove()
    assert_swept_as_alone(model, ids, cells)


def test_edges_do_not_pass_over_somebodys_hooks():
    module = tiny.build("gpt2")
    handle = module.transformer.h[0].attn.c_attn.register_forward_hook(lambda part, args, output: output + 1)
    with pytest.raises(ValueError, match="a Conv1D has hooks of somebody's own, which edges would leave out"):
        circuits.graph(interp.load(module))
    handle.remove()
    assert circuits.graph(interp.load(module)).n_layers == 3


def test_modules_that_are_not_one_for_each_layer_are_refused():
    shared, short = tiny.build("gpt2"), tiny.build("gpt2")
    shared.transformer.h[2].mlp = shared.transformer.h[0].mlp
    short.transformer.h = short.transformer.h[:2].eval()
    for module, said in (
        (shared, "blocks 0 and 2 .* share a GPT2MLP"),
        (short, "2 blocks, and its configuration says 3"),
    ):
        for backend in ("huggingface", "nnsight"):
            with pytest.raises(ValueError, match=said):
                interp.load(module, backend=backend)
    shared.transformer.h[2].mlp = copy.deepcopy(shared.transformer.h[0].mlp)
    short.config.num_hidden_layers = 2
    assert interp.check(interp.load(shared)).holds and interp.check(interp.load(short)).holds


@pytest.mark.parametrize("family", ["llama", "stablelm"])
def test_attention_of_somebodys_own_is_not_taken_for_a_softmax(family):
    def cold(module, query, key, value, mask, scaling=None, **more):
        return sdpa_attention_forward(module, query, key, value, mask, scaling=2 * scaling, **more)

    AttentionInterface.register("cold", cold)
    AttentionMaskInterface.register("cold", sdpa_mask)
    module = made(family)
    module.set_attn_implementation("cold")
    model, ids = interp.load(module), ids_of(1, 9)
    assert {"scores", "pattern"} <= {*model.missing} and interp.check(model).holds
    read = model.run(ids, read=model.sites("z"))
    torch.testing.assert_close(read.logits, module(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


def test_a_compiled_model_is_run_as_it_was_before():
    module = tiny.build("gpt2")
    wrapped = interp.load(torch.compile(module, backend="eager"))
    prompts = [[1, 2, 3, 4], [5, 6]]
    assert torch.equal(wrapped.run(prompts).logits, interp.load(module).run(prompts).logits)
    module.compile(backend="eager")
    with pytest.raises(ValueError, match="compiled in place, and what is compiled has no place for hooks"):
        interp.load(module)


def test_a_hook_in_the_place_of_another_is_tried_anew():
    module = tiny.build("gpt2")
    model, site, metric = interp.load(module), interp.Site("resid_pre", 1), metrics.logit(3)
    tokens = torch.randint(2, 30, (2, 6), generator=torch.Generator().manual_seed(0))
    block = module.transformer.h[1]
    block.register_forward_hook(lambda part, args, output: None)
    sweep(model, tokens, [[edits.zero(site, pos=-1)]], [metric])
    block._forward_hooks.clear()
    block.register_forward_hook(lambda part, args, output: output + output.mean(1, keepdim=True))
    edit = edits.zero(site, pos=-1)
    torch.testing.assert_close(
        sweep(model, tokens, [[edit]], [metric]).values[0, 0], metric(model.run(tokens, edits=edit))
    )


def test_a_trial_that_runs_out_of_memory_says_nothing_of_the_model(monkeypatch):
    model, tokens = interp.load(tiny.build("gpt2")), torch.randint(2, 30, (2, 6))

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("none left")

    call = lambda: sweep(model, tokens, [[edits.zero(interp.Site("z", 1))]], [metrics.logit(3)])
    with monkeypatch.context() as patched:
        patched.setattr("interp.replay.record", full)
        with pytest.raises(torch.OutOfMemoryError):
            call()
    assert call().engine.startswith("rows born")
