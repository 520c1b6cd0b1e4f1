"""Generated text is the same whether keys are kept or not, padded or not, batched or alone, on every backend."""

import pytest
import tiny
import torch
from conftest import load
from torch.testing import assert_close
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

import interp
from interp import Edit, Site, Tokens, edits, generate
from interp.columns import addressed
from interp.generation import Sampling, continuations

PROMPTS = ["when Mary and John went to the store , John gave a drink to", "I love it"]
STEP = torch.randn(32, generator=torch.Generator().manual_seed(0))
WHERE = {"last of the prompt": -1, "from there on": slice(-1, None), "generated": "generated", "prompt": "prompt",
         "all": slice(None), "chosen": [15, 17, -1]}  # fmt: skip


def push(at, site: Site = Site("resid_post", 1)) -> Edit:
    return edits.add(site, STEP, pos=at)


def test_steered_text_is_the_same_cached_or_not_batched_or_alone(family, backend):
    model = load(family, backend)
    force = [push(slice(-1, None)), push("generated", Site("attn_out", 2))]
    kept, again = (continuations(model, PROMPTS, 4, force, cached=cached) for cached in (True, False))
    assert kept.how["cached"] and not again.how["cached"]
    assert torch.equal(kept.tokens.ids, again.tokens.ids)
    assert_close(kept.log_probs, again.log_probs, atol=1e-5, rtol=1e-5)
    short = continuations(model, PROMPTS[1], 4, force)
    assert short.texts == kept.texts[1:]
    assert_close(short.log_probs, kept.log_probs[1:], atol=1e-5, rtol=1e-5)


def test_greedy_text_is_that_of_transformers(family):
    module = tiny.build(family)
    ids = torch.tensor([[3, 4, 6, 7, 8]])
    with torch.no_grad():
        wanted = module.generate(input_ids=ids, max_new_tokens=8, min_new_tokens=8, do_sample=False, pad_token_id=0)
    forbidden = Edit(Site("embed"), lambda x: x)  # nothing
    found = continuations(interp.load(module), ids, 8, [forbidden])
    if not bool((found.tokens.ids == 1).any()):  # transformers keeps itself from ending, which is token 1
        assert torch.equal(found.tokens.ids, wanted)


@pytest.mark.parametrize("at", WHERE)
def test_positions_are_absolute(at):
    """Against runs of the text so far, in which every steered position is spelled out."""
    model, where = load("llama"), WHERE[at]
    found = continuations(model, PROMPTS, 5, [push(where)])
    width = model.tokens(PROMPTS).ids.shape[1]
    whole = range(width + 5)
    given = {"generated": whole[width:], "prompt": whole[:width], -1: [width - 1]}
    spelled = given[where] if isinstance(where, str | int) else None
    if isinstance(where, slice):
        spelled = whole[width - 1 :] if where.start else whole
    elif isinstance(where, list):
        spelled = [15, 17, width - 1]
    again = continuations(model, PROMPTS, 5, [push(where)], cached=False)
    assert torch.equal(found.tokens.ids, again.tokens.ids)
    for step in range(5):
        ids, mask = found.tokens.ids[:, : width + step], found.tokens.mask[:, : width + step]
        now = [column for column in spelled if column < width + step]
        logits = model.run((ids, mask), edits=[push(now)] if now else []).logits[:, -1].log_softmax(-1)
        chosen = found.tokens.ids[:, width + step]
        assert torch.equal(logits.argmax(-1), chosen)
        assert_close(found.log_probs[:, step], logits.gather(-1, chosen[:, None])[:, 0], atol=1e-5, rtol=1e-5)


def test_a_role_stays_where_it_is_in_its_prompt():
    model = load("gpt2")
    tokens = model.tokens(PROMPTS)
    tokens = Tokens(tokens.ids, tokens.mask, {"first": tokens.mask.argmax(-1)})
    kept, again = (continuations(model, tokens, 4, [push("first")], cached=cached) for cached in (True, False))
    assert_close(kept.log_probs, again.log_probs, atol=1e-5, rtol=1e-5)
    short = continuations(model, PROMPTS[1], 4, [push(0)])  # alone, its first token is the first of all
    assert_close(kept.log_probs[1:], short.log_probs, atol=1e-5, rtol=1e-5)


def test_a_role_that_is_counted_from_the_end_stays_where_it_is():
    model = load("gpt2")
    tokens = model.tokens(PROMPTS)
    tokens = Tokens(tokens.ids, tokens.mask, {"last": torch.full((len(tokens),), -1)})
    kept, again = (continuations(model, tokens, 4, [push("last")], cached=cached) for cached in (True, False))
    assert_close(kept.log_probs, again.log_probs, atol=1e-5, rtol=1e-5)


def test_what_was_generated_is_known_in_a_run():
    """The log probabilities of a continuation are those of one run over it."""
    model = load("qwen2")
    force = [push("generated"), push("prompt", Site("resid_pre", 1))]
    found = continuations(model, PROMPTS, 5, force)
    width = found.tokens.ids.shape[1] - 5
    trace = model.run(found.tokens, edits=force)
    log_probs = trace.logits[:, width - 1 : -1].log_softmax(-1)
    chosen = log_probs.gather(-1, found.tokens.ids[:, width:, None])[..., 0]
    assert_close(chosen, found.log_probs, atol=1e-5, rtol=1e-5)


def test_edits_that_select_nothing_so_far_are_left_out():
    model = load("gpt2")
    tokens = model.tokens(PROMPTS[1])
    later = [push("generated"), push(3), push(slice(3, None)), push([4, 5])]
    assert addressed(later, tokens) == []
    grown = tokens.append(torch.tensor([3])).append(torch.tensor([4]))
    assert [edit.at["pos"] for edit in addressed(later[:2], grown)] == ["generated", 3]
    assert [torch.as_tensor(edit.at["pos"]).tolist() for edit in addressed(later[3:], grown)] == [[4]]
    assert [edit.at["pos"] for edit in addressed([push(-1), push(slice(-2, None))], grown)] == [2, slice(1, 5, None)]
    assert [edit.at["pos"] for edit in addressed([push(-1), push(4), push(slice(-1, None))], grown, 4)] == [
        0,
        slice(0, 1, None),
    ]


def test_edits_inside_attention_are_run_without_kept_keys():
    model = load("llama")
    force = [edits.zero(Site("pattern", 1), head=2, key=-2), edits.scale(Site("v", 1), 2.0, pos=-1)]
    found = continuations(model, PROMPTS, 4, force)
    assert found.how["keys"].startswith("not kept: pattern.1 is edited inside attention")
    width = model.tokens(PROMPTS).ids.shape[1]
    spelled = [edits.zero(Site("pattern", 1), head=2, key=width - 2), edits.scale(Site("v", 1), 2.0, pos=width - 1)]
    for step in range(4):
        tokens = found.tokens.ids[:, : width + step], found.tokens.mask[:, : width + step]
        logits = model.run(tokens, edits=spelled).logits[:, -1].log_softmax(-1)
        assert_close(logits.max(-1).values, found.log_probs[:, step])


def test_a_model_without_a_cache_says_so():
    class Deaf(type(load("gpt2"))):  # type: ignore[misc]
        def new_cache(self):
            return None

    model = load("gpt2")
    deaf = Deaf(model.module, model.tokenizer, "deaf", model.bos)
    found = continuations(deaf, PROMPTS, 4, [push("generated")])
    assert found.how["keys"] == "not kept: huggingface has no cache for this model"
    assert found.texts == continuations(model, PROMPTS, 4, [push("generated")]).texts


def test_a_wrong_cache_is_found_out():
    class Forgetful(type(load("gpt2"))):  # type: ignore[misc]
        def forward(self, tokens, visits, last_only, cache=None):
            logits = super().forward(tokens, visits, last_only, cache)
            if cache is not None:
                cache.store.layers[0].keys.zero_()
            return logits

    model = load("gpt2")
    forgetful = Forgetful(model.module, model.tokenizer, "forgetful", model.bos)
    assert continuations(forgetful, PROMPTS, 2).how["keys"] == "not kept: forgetful gives other logits with one"


SAMPLED = Sampling(temperature=0.8, top_k=12, top_p=0.9, seed=5)


def test_sampled_rows_do_not_depend_on_the_others():
    model = load("gpt_neox")
    force = [push("generated")]
    both = continuations(model, PROMPTS, 6, force, SAMPLED)
    assert both.texts == continuations(model, PROMPTS, 6, force, SAMPLED, cached=False).texts
    assert both.texts == continuations(model, PROMPTS[::-1], 6, force, SAMPLED).texts[::-1]
    assert both.texts == [continuations(model, prompt, 6, force, SAMPLED).texts[0] for prompt in PROMPTS]


def test_copies_of_a_prompt_and_other_seeds_give_other_texts():
    model = load("gpt2")
    copies = generate(model, [PROMPTS[0]] * 8, 6, temperature=1.0, seed=5)
    assert len(set(copies)) == 8
    assert generate(model, PROMPTS[0], 6, temperature=1.0, seed=5) == copies[:1]
    assert generate(model, PROMPTS[0], 6, temperature=1.0, seed=6) != copies[:1]


@pytest.mark.parametrize("top_k, top_p", [(None, None), (5, None), (None, 0.7), (6, 0.8)])
def test_tokens_are_drawn_with_the_probabilities_of_transformers(top_k, top_p):
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(1)) * 2
    warped = TemperatureLogitsWarper(0.7)(None, logits)
    if top_k:
        warped = TopKLogitsWarper(top_k)(None, warped)
    if top_k and top_p:  # ours asks for top_p of all probabilities, transformers' of those that top_k left
        warped = warped.masked_fill(TopPLogitsWarper(top_p)(None, logits / 0.7).isinf(), -torch.inf)
    elif top_p:
        warped = TopPLogitsWarper(top_p)(None, warped)
    n = 20_000
    draws = (torch.arange(n, dtype=torch.float64) + 0.5) / n  # as even as random numbers would be on average
    tokens = Sampling(0.7, top_k, top_p).choose(logits.expand(n, -1), draws)
    assert_close(tokens.bincount(minlength=12) / n, warped.softmax(-1)[0], atol=2e-4, rtol=0)


def test_the_ends_of_the_range_of_a_draw_are_tokens_that_may_be_drawn():
    logits = torch.tensor([[0.0, 3.0, 2.0, -1.0]]).expand(2, -1)
    assert Sampling(1.0, top_k=2).choose(logits, torch.tensor([0.0, 1.0])).tolist() == [1, 2]


def test_generation_stops_where_it_is_told(embedded):
    prompts = ["when Mary and John went to the store , John gave a drink to", "Mary said that"]
    free = continuations(embedded, prompts, 12)
    stop = embedded.token_id(".")
    found = continuations(embedded, prompts, 12, stop=[stop])
    for row, n, text, whole in zip(found.tokens.ids, found.lengths.tolist(), found.texts, free.texts):
        ids = row[-found.log_probs.shape[1] :][:n].tolist()
        assert ids.index(stop) == n - 1 and text.endswith(".") and whole.startswith(text)
    assert found.log_probs.shape[1] == int(found.lengths.max()) < 12


def test_the_model_is_left_as_it_was(backend):
    model = load("gemma2", backend)
    before = model.run(PROMPTS).logits
    state = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    generate(model, PROMPTS, 3, [push("generated")])
    assert torch.equal(model.run(PROMPTS).logits, before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.module.state_dict().items())


MESSAGES = {
    "too long": (
        lambda m: generate(m, "I love it", 63),
        "a prompt of 3 tokens and 63 more do not fit the model's context of 64",
    ),
    "edit out of reach": (
        lambda m: generate(m, "I love it", 3, [push(5)]),
        "edit of resid_post.1 at {'pos': 5} selects none of the 5 positions that will be run",
    ),
    "cache inside attention": (
        lambda m: continuations(m, "I love it", 3, [edits.zero(Site("z", 1)), edits.zero(Site("k", 1))], cached=True),
        "keys cannot be kept here: k.1 is edited inside attention, where each step sees the keys of all tokens again; "
        "leave cached= out, or pass cached=False",
    ),
    "temperature": (
        lambda m: generate(m, "I love it", 3, temperature=-1.0),
        "a temperature is a number from 0 on, not -1.0; 0 takes the likeliest token",
    ),
    "top_k": (lambda m: Sampling(1.0, top_k=0), "top_k is at least 1, not 0"),
    "top_p": (lambda m: Sampling(1.0, top_p=1.5), "top_p is above 0 and at most 1, not 1.5"),
    "role": (
        lambda m: generate(m, "I love it", 3, [push("S2")]),
        "these prompts have no role 'S2'; their roles: none",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_message(case):
    call, message = MESSAGES[case]
    with pytest.raises(ValueError) as caught:
        call(load("gpt2"))
    assert str(caught.value) == message
