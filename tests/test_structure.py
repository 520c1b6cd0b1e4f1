"""Families without a row: what running a model finds must be what it is said to be, and nothing else is claimed."""

import pytest
import tiny
import torch
from conftest import assert_same, load
from torch.testing import assert_close
from wired import METRIC

import interp
from interp import Edit, Site, attribution, circuits, components, edits, weights
from interp.backends.families import FAMILIES
from interp.backends.structure import family_of

OTHERS = [name for name in tiny.OTHERS if name not in FAMILIES]
# Their values are narrower than their queries; one norm is used twice; a norm follows `z`; heads cannot be seen.
WITHOUT_EDGES = ("deepseek_v3", "bitnet", "codegen", "falcon", "minimax", "mamba")
IN_MODULES = ("gpt_neo", "gptj", "bloom")  # attention that is written out
PROMPTS = ["when Mary and John went to the store , John gave a drink to", "I love it"]


@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize("backend", ["huggingface", "nnsight"])
def test_identities(family, backend):
    report = interp.check(load(family, backend))
    assert report.holds, str(report)


@pytest.mark.parametrize("family", [*IN_MODULES, "granite", "cohere", "gemma3_text", "phi3", "qwen3_moe", "falcon"])
@pytest.mark.parametrize("backend", ["transformer_lens", "nnsight"])
def test_backends_agree(family, backend):
    assert_same(load(family, backend), load(family), PROMPTS, tolerance=5e-5)


@pytest.mark.parametrize("family", [*IN_MODULES, "gpt_oss", "granite", "deepseek_v3"])
def test_the_pattern_is_what_the_model_returns(family):
    module = tiny.build(family)
    module.set_attn_implementation("eager")
    model = interp.load(module, tokenizer=tiny.tokenizer())
    trace = model.run(PROMPTS, read=model.sites("pattern"))
    positions = {} if family == "bloom" else {"position_ids": trace.tokens.positions}
    with torch.no_grad():
        made = module(
            trace.tokens.ids, attention_mask=trace.tokens.mask, output_attentions=True, **positions
        ).attentions
    real = trace.tokens.mask.bool()
    for site, wanted in zip(model.sites("pattern"), made):
        assert_close(trace[site].transpose(1, 2)[real], wanted.transpose(1, 2)[real], atol=1e-6, rtol=0)


def test_heads_of_attention_that_is_written_out():
    least = {"gpt_neo": "qkvz", "gptj": "vz", "bloom": "z"}  # the second has a rotary embedding, the third one matrix
    assert all(set(kinds) <= set(load(family).editable) for family, kinds in least.items())
    assert family_of(tiny.build("gpt_neo")).reads.scaling == 1.0


@pytest.mark.parametrize("family", [family for family in OTHERS if family not in WITHOUT_EDGES])
def test_edges(family):
    model = load(family)
    clean = torch.randint(3, 30, (2, 7), generator=torch.Generator().manual_seed(0))
    corrupt = clean.clone()
    corrupt[:, 3:5] = clean[:, 3:5] % 29 + 1
    graph = circuits.graph(model)
    sets = {"none": 0 * graph.mask(), "all": graph.mask()}
    sets |= {writer: graph.mask([(writer, "*")]) for writer in graph.writers[1:]}
    found = circuits.patch_edges(model, clean, corrupt, sets, METRIC)
    source = model.run(clean, read=model.sites("z", "attn_out", "mlp_out"))
    high, low = METRIC(source), METRIC(model.run(corrupt))
    tolerance = 2e-5 * float((high - low).abs().max())
    wanted = {"none": 0 * low, "all": high - low}
    for writer in graph.writers[1:]:
        layer, _, head = writer.removeprefix("L").removeprefix("attn").removeprefix("mlp").partition("H")
        kind = "z" if head else "attn_out" if writer.startswith("attn") else "mlp_out"
        at = {"head": int(head)} if head else {}
        edit = edits.copy(source, Site(kind, int(layer)), **at)
        wanted[writer] = METRIC(model.run(corrupt, edits=[edit])) - low
    for name, value in wanted.items():
        assert_close(torch.tensor(found.sel(set=name).values), value, atol=tolerance, rtol=0, msg=name)


@pytest.mark.parametrize("family", WITHOUT_EDGES)
def test_edges_are_refused_where_it_is_not_seen_what_reads(family):
    with pytest.raises(ValueError, match="it is not known how"):
        circuits.graph(load(family))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2", "olmo2", "phi", "qwen3"])
def test_a_row_is_what_structure_finds(family, monkeypatch):
    row = FAMILIES[family]
    monkeypatch.delitem(FAMILIES, family)
    found = family_of(tiny.build(family))
    assert (found.embed, found.blocks, found.final_norm) == (row.embed, row.blocks, row.final_norm)
    assert found.reads == row.reads and not row.taps.items() - found.taps.items()


@pytest.mark.parametrize("family", IN_MODULES)
def test_rollout_needs_no_scores(family):
    found = attribution.rollout(load(family), PROMPTS)["rollout"]
    assert_close(torch.tensor(found.sum("key").values), torch.tensor(found.notnull().any("key").values).float())


def test_layers_that_are_built_differently():
    missing = load("deepseek_v3").missing  # the first MLP is dense, the others have experts
    assert missing["mlp_pre"] == missing["mlp_post"] == "the MLPs of different blocks are built differently"
    why = "not every block calls transformers' attention interface once"
    assert load("minimax").missing["z"] == why  # every other one is linear
    assert interp.load(tiny.build("diffllama")).missing["z"] == why  # calls it twice


def test_what_is_added_may_be_scaled():
    model = load("granite")
    trace = model.run(PROMPTS, read=model.sites("resid_pre", "attn_out", "resid_mid"))
    for i in range(model.shape.n_layers):
        pre, out, mid = (trace[Site(kind, i)] for kind in ("resid_pre", "attn_out", "resid_mid"))
        assert_close(pre + out, mid)
    module = model.module.model.layers[0].self_attn.o_proj
    held = []
    handle = module.register_forward_hook(lambda m, args, output: held.append(output))
    model.run(PROMPTS)
    handle.remove()
    assert_close(trace[Site("attn_out", 0)], 0.3 * held[0])
    embed = model.run(PROMPTS, read=[Site("embed")])[Site("embed")]
    assert_close(embed, model.module.model.embed_tokens(trace.tokens.ids) * 3.0)


@pytest.mark.parametrize("family", ["gpt_oss", "granite", "stablelm", "phi3"])
def test_scores_at_one_position_are_products_of_queries_and_keys(family):
    model, layer = load(family), 1
    found = weights.heads(model)
    x = torch.randn(1, 1, model.shape.d_model, generator=torch.Generator().manual_seed(0))
    x = (x - x.mean()) / x.std(correction=0)
    put = edits.put(Site("resid_pre", layer), x)
    score = model.run(torch.tensor([[5]]), read=[Site("scores", layer)], edits=[put])[Site("scores", layer)][0, :, 0, 0]
    q, k = (
        torch.einsum("hed,d->he", matrix[layer], x[0, 0]) + bias[layer]
        for matrix, bias in ((found.q, found.q_bias), (found.k, found.k_bias))
    )
    assert_close((q * k).sum(-1) * found.scaling[layer], score, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["stablelm", "granite", "gpt_neo"])
def test_half_precision_finds_the_same(family):
    whole, half = (family_of(tiny.build(family, dtype)) for dtype in (torch.float32, torch.bfloat16))
    assert half.taps == whole.taps and half.reads == whole.reads


def test_a_norm_that_is_used_twice_is_edited_once():
    model = load("nanochat")
    trace = model.run(PROMPTS, read=[Site("resid_final"), Site("resid_pre", 0)])
    again = model.run(PROMPTS, read=[Site("resid_pre", 0)], edits=[Edit(Site("resid_final"), lambda x: 2 * x + 1)])
    assert_close(again[Site("resid_pre", 0)], trace[Site("resid_pre", 0)])
    assert_close(again.logits, model.unembed(2 * trace[Site("resid_final")] + 1))


def test_values_may_be_narrower_than_queries_and_layers_differ():
    for model in (load("deepseek_v3"), interp.load(tiny.build("gemma4_unified_text", head_dim=8))):
        trace = model.run(torch.arange(6)[None] + 1, read=model.sites("q", "z", "attn_out"))
        matrices = components.output_matrices(model)
        for i in range(model.shape.n_layers):
            z, out = trace[Site("z", i)], trace[Site("attn_out", i)]
            if matrices is None:
                assert model.name.startswith("Gemma4")  # a norm stands between
            else:
                assert z.shape[-1] != trace[Site("q", i)].shape[-1]
                written = torch.einsum("bphd,hdm->bpm", z, matrices[i].weight) + matrices[i].bias
                assert_close(written, out, atol=1e-4, rtol=0)


def test_blocks_that_do_not_return_a_tensor_are_named():
    module = tiny.build("openai-gpt", n_layer=2, n_head=2, n_embd=16)
    with pytest.raises(
        ValueError, match="block 0 of OpenAIGPTLMHeadModel does not take and return its residual stream"
    ):
        interp.load(module)


def test_a_model_in_train_mode_is_looked_at_without_dropout_and_left_in_it():
    module = tiny.build("gpt_neo", resid_dropout=0.5, embed_dropout=0.5, attention_dropout=0.5).train()
    module.lm_head.eval()
    assert family_of(module).taps == family_of(tiny.build("gpt_neo")).taps
    assert module.training and module.transformer.drop.training and not module.lm_head.training
    with pytest.raises(RuntimeError, match="in train mode"):
        interp.load(module, tokenizer=tiny.tokenizer()).run(PROMPTS)


def test_a_model_without_weights_cannot_be_looked_at():
    module = tiny.build("stablelm").to("meta")
    with pytest.raises(ValueError, match="found by running it, and its weights are not here"):
        family_of(module)


def test_a_model_is_looked_at_once():
    module = tiny.build("stablelm")
    found, calls = family_of(module), []
    module.register_forward_hook(lambda *args: calls.append(1))
    assert family_of(module) is found and not calls


def test_neurons_are_claimed_only_where_the_last_matrix_makes_what_the_mlp_returns():
    mixture = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16)
    model = interp.load(tiny.build("qwen2_moe", num_key_value_heads=2, **mixture))
    assert "mlp_out" in model.editable and "as in mixtures of experts" in model.missing["mlp_post"]
    assert {"mlp_pre", "mlp_post"} <= set(load("bloom").editable)  # whose MLP returns the stream with it


@pytest.mark.parametrize("family", ["roberta", "data2vec-text"])
def test_positions_are_numbered_as_the_model_does_it(family):
    module = tiny.build(family, is_decoder=True)
    model, ids = interp.load(module), torch.randint(2, 30, (2, 7), generator=torch.Generator().manual_seed(0))
    assert_close(model.run(ids).logits, module(ids).logits)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    assert_close(model.run((ids, mask)).logits[0, 3:], model.run(ids[0, 3:]).logits[0])


def test_the_stream_before_a_norm_that_is_not_there():
    model = interp.load(tiny.build("opt", do_layer_norm_before=False))
    assert interp.check(model).holds
    bridge = interp.load(tiny.build("opt", word_embed_proj_dim=16), backend="transformer_lens")
    assert interp.check(bridge).holds


def test_a_bridge_that_cannot_run_or_computes_something_else_is_refused():
    with pytest.raises(ValueError, match=r"bridge cannot run this OPTForCausalLM .* take backend='huggingface'"):
        interp.load(tiny.build("opt", do_layer_norm_before=False), backend="transformer_lens")
    with pytest.raises(ValueError, match="does not compute what this GPT2LMHeadModel does: its logits differ by"):
        interp.load(tiny.build("gpt2", scale_attn_weights=False), backend="transformer_lens")


def test_a_norm_that_is_used_twice_is_not_the_last_stream_on_a_bridge():
    module, ids = tiny.build("nanochat"), torch.tensor([[3, 4, 5, 6]])
    bridge = interp.load(module, backend="transformer_lens")
    edited = bridge.run(ids, edits=[edits.zero(Site("resid_final"), pos=1)]).logits
    assert_close(edited[:, [0, 2, 3]], bridge.run(ids).logits[:, [0, 2, 3]], atol=1e-5, rtol=0)


def test_padding_is_refused_where_the_model_does_not_hide_it():
    model = interp.load(tiny.build("rwkv", hidden_size=32, num_hidden_layers=3, attention_hidden_size=32))
    with pytest.raises(ValueError, match="does not hide padding on huggingface"):
        model.run((torch.tensor([[0, 1, 2]]), torch.tensor([[0, 1, 1]])))
    report = interp.check(model)
    assert not report.holds and "padding does not matter" in str(report)
