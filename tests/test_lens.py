"""What layers, parts and heads are decoded to, against the model's own modules."""

import numpy as np
import pytest
import tiny
import torch
from conftest import load
from torch.testing import assert_close

import interp
from interp import Site, lens, metrics, tasks
from interp.arrays import checks_of
from interp.lens import rows
from interp.lens.judging import last_is_the_model
from interp.lens.tuned import Translator, TunedLens

PROMPTS = ["when Mary and John went to the store", "Anna gave a drink to"]
N_VOCAB = len(tiny.WORDS)


def _status(array, part: str) -> str:
    return next(check.status for check in checks_of(array) if part in check.name)


def test_the_last_layer_is_the_model_on_every_family_and_backend(family, backend):
    model = load(family, backend)
    found = lens.decode(model, PROMPTS)
    logits = model.run(PROMPTS).logits
    assert _status(found, "last layer") == "pass"
    last = found.isel(layer=-1)
    assert float(last.kl.max()) < 1e-5
    for i, mask in enumerate(model.tokens(PROMPTS).mask.bool()):
        assert list(last.token.isel(top=0, prompt=i).values[mask]) == model.words(logits[i, mask].argmax(-1).tolist())
        best = logits[i, mask].softmax(-1).max(-1).values
        np.testing.assert_allclose(last.probability.isel(top=0, prompt=i).values[mask], best, rtol=1e-4)


def test_every_number_is_that_of_the_decoded_distribution(embedded):
    task = tasks.ioi(embedded, n=3)
    found = lens.decode(embedded, task.clean, answer=task.right, top=4).isel(layer=1)
    trace = embedded.run(task.clean, read=[Site("resid_post", 1)])
    decoded = torch.distributions.Categorical(logits=embedded.unembed(trace[Site("resid_post", 1)]))
    final = torch.distributions.Categorical(logits=trace.logits)
    by_hand = {"entropy": decoded.entropy(), "kl": torch.distributions.kl_divergence(final, decoded)}
    by_hand["answer_probability"] = decoded.probs.gather(-1, task.right[:, None].expand(-1, 15, -1))[..., 0]
    order = decoded.probs.argsort(-1, descending=True)
    by_hand["answer_rank"] = 1 + (decoded.probs > by_hand["answer_probability"][..., None]).sum(-1).float()
    for name, values in by_hand.items():
        np.testing.assert_allclose(found[name], values.detach().T, rtol=1e-3, atol=1e-5)
    words = [embedded.words(ids) for ids in order[:, -1, :4].tolist()]
    assert found.token.isel(pos=-1).values.T.tolist() == words


def test_skill_and_bias_are_those_of_the_whole_distributions(embedded):
    prompts = tasks.facts(embedded, n=8).clean
    found = lens.decode(embedded, prompts)
    trace = embedded.run(prompts, read=embedded.sites("resid_post"))
    kl = lambda p, q: (p * (p.log() - q.log())).sum(-1)
    p = trace.logits.detach().double().softmax(-1).flatten(0, 1)
    for layer in range(4):
        q = embedded.unembed(trace[Site("resid_post", layer)]).detach().double().softmax(-1).flatten(0, 1)
        skill = 1 - kl(p, q).mean() / kl(p, p.mean(0)).mean()
        assert float(found.skill[layer]) == pytest.approx(float(skill), abs=1e-4)
        assert float(found.bias[layer]) == pytest.approx(float(kl(p.mean(0), q.mean(0))), abs=1e-4)


def test_a_lens_that_ignores_the_prompt_has_no_skill(embedded):
    width = embedded.shape.d_model
    noise = torch.randn(width, generator=torch.Generator().manual_seed(0))
    blind = Translator(-torch.eye(width), noise)
    found = lens.decode(
        embedded,
        tasks.ioi(embedded, n=4).clean,
        by=TunedLens(dict.fromkeys(embedded.sites("resid_post")[:3], blind), embedded.fingerprint()),
    )
    assert bool((found.skill[:3] <= 0).all()) and float(found.skill[3]) == pytest.approx(1, abs=1e-5)
    assert _status(found, "skill") == "warn"


def test_one_row_has_no_constant_to_be_compared_with(embedded):
    found = lens.decode(embedded, "the dog", at=-1)
    assert bool(found.skill.isnull().all()) and _status(found, "skill") == "skipped"


def test_a_forgotten_cap_is_noticed(monkeypatch):
    model = load("gemma2")
    head = model.module.get_output_embeddings()
    monkeypatch.setattr(model, "unembed", lambda resid: head(model.module.model.norm(resid)))
    assert _status(lens.decode(model, PROMPTS), "last layer") == "fail"
    assert _status(lens.logit_lens(model, PROMPTS, metrics.logit(4)), "last layer") == "fail"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_precision_follows_the_model(dtype):
    for family in ("gpt2", "gemma2"):
        found = lens.decode(load(family, dtype=dtype), PROMPTS)
        assert _status(found, "last layer") == "pass"
        assert found.kl.dtype == (np.float64 if dtype == torch.float64 else np.float32)


def test_padding_is_left_blank(embedded):
    texts = ["when Mary and John went to the store", "the dog"]
    found = lens.decode(embedded, texts)
    mask = embedded.tokens(texts).mask.bool().T.numpy()
    np.testing.assert_array_equal(np.isfinite(found.kl), np.broadcast_to(mask, found.kl.shape))
    np.testing.assert_array_equal(found.token.isel(top=0, layer=0) != "", mask)
    alone = lens.decode(embedded, texts[1:])
    np.testing.assert_allclose(found.kl.isel(prompt=1)[:, -3:], alone.kl.isel(prompt=0), atol=1e-5)
    assert found.input.isel(prompt=1)[-3:].values.tolist() == ["<bos>", "the", "dog"]


def test_a_few_rows_at_a_time_give_the_same(embedded, monkeypatch):
    task = tasks.ioi(embedded, n=3)
    whole = lens.decode(embedded, task.clean, answer=task.right)
    monkeypatch.setattr(rows, "_BYTES", 7 * 4 * embedded.shape.d_vocab)
    parts = lens.decode(embedded, task.clean, answer=task.right)
    for name in ("kl", "answer_rank", "skill", "bias", "probability"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-4, atol=1e-5)


def test_one_position_is_that_of_all(embedded):
    task = tasks.ioi(embedded, n=4)
    everywhere = lens.decode(embedded, task.clean)
    for at in (-1, "S2"):
        position = -1 if at == -1 else int(task.clean.roles["S2"][0])
        np.testing.assert_allclose(
            lens.decode(embedded, task.clean, at=at).kl, everywhere.kl.isel(pos=position), atol=1e-5
        )


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_heads_are_decoded_by_their_part_of_the_output_matrix(name, backend):
    model, module = load(name, backend), tiny.build(name)
    found = lens.decode(model, PROMPTS, "z", top=N_VOCAB, at=-1)
    z = model.run(PROMPTS, read=[Site("z", 1)])[Site("z", 1)][:, -1, 2]
    matrix = (
        module.transformer.h[1].attn.c_proj.weight
        if name == "gpt2"
        else module.model.layers[1].self_attn.o_proj.weight.T
    )
    logits = model.unembed(z @ matrix[16:24])
    words = np.array([model.words(ids) for ids in logits.argsort(-1, descending=True).tolist()]).T
    assert (found.token.sel(layer=1, head=2).values == words).mean() > 0.95  # near ties may swap


def test_parts_that_are_added_are_decoded_alone(embedded):
    prompts = tasks.ioi(embedded, n=2).clean
    for kind in ("embed", "attn_out", "mlp_out", "resid_pre", "resid_mid", "resid_final"):
        site = embedded.sites(kind)[-1]
        logits = embedded.unembed(embedded.run(prompts, read=[site])[site])
        found = lens.decode(embedded, prompts, kind)
        found = found.isel(layer=-1) if "layer" in found.dims else found
        assert found.token.isel(top=0, prompt=1).values.tolist() == embedded.words(logits[1].argmax(-1).tolist())


def test_a_metric_of_each_layer_is_that_of_its_logits(embedded):
    task = tasks.ioi(embedded, n=8)
    values = lens.logit_lens(embedded, task.clean, task.logit_diff)
    site = Site("resid_post", 1)
    decoded = embedded.unembed(embedded.run(task.clean, read=[site])[site][:, -1])
    assert_close(torch.tensor(values[1].values), task.logit_diff.of(decoded), atol=1e-4, rtol=1e-4)
    assert_close(torch.tensor(values[-1].values), task.logit_diff(embedded.run(task.clean)), atol=1e-4, rtol=1e-4)
    heads = lens.logit_lens(embedded, task.clean, task.logit_diff, "z")
    assert heads.dims == ("layer", "head", "prompt") and _status(heads, "last layer") == "pass"


def test_without_a_tokenizer_tokens_are_their_numbers():
    model = interp.load(tiny.build("gpt2"))
    ids = torch.tensor([[5, 6, 7]])
    found = lens.decode(model, ids)
    assert found.token.isel(layer=-1, top=0, prompt=0).values.tolist() == [
        str(i) for i in model.run(ids).logits[0].argmax(-1).tolist()
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: lens.decode(m, PROMPTS, "mlp_post"),
            "a lens decodes the residual stream and what is added to it; mlp_post has axes batch, pos, neuron",
        ),
        (
            lambda m: lens.decode(m, PROMPTS, "z"),
            "the heads of Gemma2ForCausalLM cannot be told apart: a norm stands between them and the stream; decode "
            "kind='attn_out'",
        ),
        (lambda m: lens.decode(m, PROMPTS, top=0), f"top is a number of tokens from 1 to {N_VOCAB}, not 0"),
        (
            lambda m: lens.decode(m, PROMPTS, at=0),
            "position 0 is padding in prompts [1]; count from the end, or use a role",
        ),
        (
            lambda m: lens.decode(m, PROMPTS, answer=99),
            f"token 99 is outside the model's output vocabulary of {N_VOCAB}",
        ),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError) as caught:
        call(load("gemma2"))
    assert caught.value.args[0] == message


def test_the_last_layer_is_held_to_what_its_precision_allows():
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    off = logits + 1e-3
    assert last_is_the_model(off, logits).status == "fail"
    check = last_is_the_model(off.half(), logits.half())
    assert (check.status, check.threshold) == ("pass", 1e-2)
