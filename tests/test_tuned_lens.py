"""Tuned lenses: the closed form, the descent, their files, and what they are worth on other text."""

import random

import numpy as np
import pytest
import tiny
import torch
from conftest import load
from torch.testing import assert_close

import interp
from interp import Site, lens, stats
from interp.arrays import checks_of
from interp.lens.moments import Moments
from interp.lens.tuned import Translator, TunedLens
from interp.zoo import corpus

PROMPTS = ["when Mary and John went to the store", "Anna gave a drink to"]


def texts(n: int, seed: int, words: int = 60) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(corpus.draw_text(rng, words)) for _ in range(n)]


def numbers(n: int, seed: int = 0) -> torch.Tensor:
    """Documents for random models."""
    return torch.randint(3, len(tiny.WORDS), (n, 12), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def tuned(embedded) -> TunedLens:
    return lens.tune(embedded, texts(160, 0), steps=60, rate=0.3, rows=512)


def test_the_identity_is_the_logit_lens(family, backend):
    model = load(family, backend)
    plain, same = lens.decode(model, PROMPTS), lens.decode(model, PROMPTS, by=lens.identity(model))
    for name in ("kl", "entropy", "probability"):
        np.testing.assert_array_equal(plain[name], same[name])


def test_a_ridge_without_penalty_is_least_squares():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 5, generator=generator), torch.randn(200, 3, generator=generator)
    weight = torch.rand(200, generator=generator)
    parts = [Moments.of(x[i : i + 50], y[i : i + 50], weight[i : i + 50]) for i in range(0, 200, 50)]
    matrix, bias = (parts[0] + parts[1] + parts[2] + parts[3]).ridge(0)
    root = weight.double().sqrt()[:, None]
    wanted = torch.linalg.lstsq(torch.cat([x, torch.ones(200, 1)], 1).double() * root, y.double() * root).solution
    assert_close(torch.cat([matrix, bias[None]]), wanted)


def test_no_scale_of_a_coordinate_matters_to_a_ridge():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 5, generator=generator), torch.randn(200, 3, generator=generator)
    scale = torch.tensor([1e-3, 1.0, 1e3, 1.0, 7.0])
    (matrix, bias), (other, same) = (Moments.of(x * s, y).ridge(0.1) for s in (torch.ones(5), scale))
    assert_close(other * scale[:, None].double(), matrix, rtol=1e-3, atol=1e-6)
    assert_close(same, bias, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_where_the_later_blocks_are_affine_the_closed_form_is_the_model(family):
    """Blocks replaced by one affine map each: no more is to be learnt, and a bias alone is not enough."""
    module = tiny.build(family)
    generator = torch.Generator().manual_seed(0)
    matrix, shift = torch.randn(32, 32, generator=generator) / 10, torch.randn(32, generator=generator)
    layers = module.get_submodule({"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}.get(family, "model.layers"))

    def affine(block, args, output):
        changed = args[0] + args[0] @ matrix + shift
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    for block in layers[1:]:
        block.register_forward_hook(affine)
    model = interp.load(module, tokenizer=tiny.tokenizer())
    found = lens.tune(model, numbers(80), steps=0)
    kl = lens.compare(model, {"tuned": found}, numbers(10, seed=1)).kl.mean("prompt")
    assert float(kl.sel(lens="tuned").max()) < 1e-5 < 1e-2 < float(kl.sel(lens="logit lens").min())


def test_tuning_works_on_every_backend_and_leaves_the_model_alone(backend):
    for name in ("gpt2", "llama", "gpt_neox", "gemma2"):
        model = load(name, backend)
        before = model.fingerprint()
        found = lens.tune(model, numbers(80), steps=40, rate=0.2, rows=128)
        assert found.made["last layer equals the model"] == "pass"
        for row in found.made["held out"].values():
            assert row["tuned lens"] < 0.9 * row["logit lens"] and row["tuned lens"] < row["constant"]
        assert model.fingerprint() == before
        assert all(parameter.grad is None for parameter in model.module.parameters())


def test_descent_beats_the_closed_form_and_both_beat_the_logit_lens(embedded, tuned):
    closed = lens.tune(embedded, texts(160, 0), steps=0)
    found = lens.compare(embedded, {"closed": closed, "tuned": tuned}, texts(64, 1))
    kl = found.kl
    assert bool((kl.sel(lens="tuned").mean("prompt") < 0.95 * kl.sel(lens="closed").mean("prompt")).all())
    gain = stats.interval(kl.sel(lens="logit lens") - kl.sel(lens="tuned"))
    assert bool((gain["low"] > 0).all())
    assert bool((kl.sel(lens="tuned").mean("prompt") <= 0.5 * kl.sel(lens="logit lens").mean("prompt")).all())
    assert bool((found.bias.sel(lens="tuned") < 0.2 * found.bias.sel(lens="logit lens")).all())
    assert bool((found.agreement.sel(lens="tuned") >= found.agreement.sel(lens="logit lens")).mean() > 0.9)


def test_where_the_answer_is_not_copied_four_tenths_of_the_divergence_are_left_at_most(embedded, tuned):
    """Text that repeats words is predicted by heads of later layers: there no affine map can help."""
    rng = random.Random(9)
    documents = [" ".join(corpus.draw_text(rng, 60, without=[corpus.draw_repetition])) for _ in range(64)]
    kl = lens.compare(embedded, {"tuned": tuned}, documents).kl.mean("prompt")
    assert bool((kl.sel(lens="tuned") <= 0.4 * kl.sel(lens="logit lens")).all())


def test_comparison_is_that_of_whole_distributions(embedded, tuned):
    documents = texts(3, 5, words=20)
    found = lens.compare(embedded, {"tuned": tuned}, documents)
    trace = embedded.run(documents, read=[Site("resid_post", 1)])
    p = trace.logits.detach().double().softmax(-1)
    q = embedded.unembed(tuned[Site("resid_post", 1)](trace[Site("resid_post", 1)])).detach().double().softmax(-1)
    kl = lambda p, q: (p * (p.log() - q.log())).sum(-1)
    cell = found.sel(lens="tuned", site="resid_post.1")
    np.testing.assert_allclose(cell.kl, kl(p, q).mean(1).detach(), rtol=1e-3)
    mean = p.mean((0, 1))
    np.testing.assert_allclose(found.constant, kl(p, mean).mean(1).detach(), rtol=1e-3)
    assert float(cell.skill) == pytest.approx(1 - float(kl(p, q).mean() / kl(p, mean).mean()), abs=1e-3)
    assert float(cell.bias) == pytest.approx(float(kl(mean, q.mean((0, 1)))), abs=1e-3)
    np.testing.assert_allclose(cell.agreement, (p.argmax(-1) == q.argmax(-1)).double().mean(1), atol=1e-6)


def test_each_document_has_its_own_row(embedded, tuned):
    documents = texts(20, 5, words=12)
    many, one = (lens.compare(embedded, {"tuned": tuned}, some) for some in (documents, documents[18:19]))
    for name in ("kl", "agreement"):
        np.testing.assert_allclose(many[name].isel(prompt=18), one[name].isel(prompt=0), atol=1e-4)


def test_the_same_seed_gives_the_same_lens(embedded):
    documents = texts(30, 0)
    one, two = (lens.tune(embedded, documents, steps=4, rows=256) for _ in range(2))
    for site in one.translators:
        assert torch.equal(one[site].weight, two[site].weight)


def test_progress_is_told_until_all_is_done(embedded):
    seen: dict[str, list[tuple[int, int]]] = {"tune": [], "compare": [], "decode": []}
    documents = texts(20, 0, 20)
    found = lens.tune(embedded, documents, steps=3, rows=64, progress=lambda *at: seen["tune"].append(at))
    lens.compare(embedded, {"tuned": found}, documents, progress=lambda *at: seen["compare"].append(at))
    lens.decode(embedded, documents, progress=lambda *at: seen["decode"].append(at))
    assert seen["tune"] == [(1, 3), (2, 3), (3, 3)] and seen["compare"][-1] == (20, 20)
    assert seen["decode"][-1] == (20 * 21, 20 * 21)


def test_no_group_is_in_two_parts(embedded):
    from interp.lens import tuning

    parts = tuning._split(embedded.tokens(texts(40, 0, 8)), [i // 4 for i in range(40)], 0.2, 0)
    rows = [{tuple(row) for row in part.ids.tolist()} for part in parts]
    everything = [tuple(row) for row in embedded.tokens(texts(40, 0, 8)).ids.tolist()]
    where = [next(k for k, part in enumerate(rows) if row in part) for row in everything]
    assert all(len(set(where[i : i + 4])) == 1 for i in range(0, 40, 4)) and sorted(map(len, rows)) == [8, 8, 24]


def test_what_is_said_twice_is_in_one_part(embedded):
    from interp.lens import tuning

    parts = tuning._split(embedded.tokens(texts(10, 0, 8) * 3), None, 0.2, 0)
    rows = [{tuple(row) for row in part.ids.tolist()} for part in parts]
    assert [len(part) for part in parts] == [18, 6, 6] and sum(map(len, rows)) == len(set.union(*rows)) == 10
    with pytest.raises(ValueError, match=r"2 documents with held_out=0\.15 do not make three parts"):
        lens.tune(embedded, texts(2, 0) * 8)


def test_a_file_gives_the_lens_back_and_says_how_it_was_made(embedded, tuned, tmp_path):
    tuned.save(tmp_path / "tuned.safetensors")
    again = lens.load(tmp_path / "tuned.safetensors", interp.load())
    assert again.made == tuned.made and again.made["seed"] == 0 and again.fingerprint == embedded.fingerprint()
    for site, translator in tuned.translators.items():
        assert torch.equal(again[site].weight, translator.weight) and torch.equal(again[site].bias, translator.bias)
    lens.identity(embedded).save(tmp_path / "nothing.safetensors")  # its translators are one
    assert not lens.load(tmp_path / "nothing.safetensors", embedded)[Site("resid_post", 0)].weight.any()


def test_a_lens_tuned_on_one_backend_is_the_same_on_the_others(backend, tmp_path):
    for name in ("gpt2", "gemma2"):
        lens.tune(load(name), numbers(60), steps=4, rows=128).save(tmp_path / "tuned.safetensors")
        model = load(name, backend)
        found = lens.decode(model, PROMPTS, by=lens.load(tmp_path / "tuned.safetensors", model))
        wanted = lens.decode(load(name), PROMPTS, by=lens.load(tmp_path / "tuned.safetensors", load(name)))
        np.testing.assert_allclose(found.kl, wanted.kl, atol=1e-4, rtol=1e-3)


def test_a_lens_of_other_weights_is_refused(embedded, tuned, tmp_path):
    path = tmp_path / "tuned.safetensors"
    tuned.save(path)
    other = interp.load()
    with torch.no_grad():
        other.module.transformer.h[3].mlp.c_fc.weight[0, 0] += 1e-3  # not the unembedding: any weight counts
    for call in (
        lambda: lens.load(path, other),
        lambda: lens.decode(other, "the dog", by=tuned),
        lambda: lens.compare(other, {"tuned": tuned}, ["the dog"]),
    ):
        with pytest.raises(ValueError, match=f"this lens belongs to a model with weights {tuned.fingerprint}, but"):
            call()
    moved = lens.load(path, other, transfer=True)
    assert moved.made["transferred from"] == tuned.fingerprint
    lens.decode(other, "the dog", by=moved)


def test_a_lens_belongs_to_the_weights_as_they_are_now(tuned):
    """Weights that change in place after a lens was used leave that lens behind, also where no version is counted."""
    model = interp.load()
    lens.decode(model, "the dog", by=tuned)
    model.module.transformer.h[3].mlp.c_fc.weight.data[0, 0] += 1e-3
    with pytest.raises(ValueError, match="this lens belongs to a model with weights"):
        lens.decode(model, "the dog", by=tuned)
    lens.decode(model, "the dog", by=lens.identity(model))


def test_a_blind_lens_is_warned_about(embedded):
    noise = torch.randn(128, generator=torch.Generator().manual_seed(0))
    blind = Translator(-torch.eye(128), noise)
    found = TunedLens(dict.fromkeys(embedded.sites("resid_post")[:3], blind), embedded.fingerprint())
    status = {check.name: check.status for check in checks_of(lens.compare(embedded, {"blind": found}, texts(4, 0)))}
    assert status.pop("last layer equals the model") == "pass" and "warn" in status.values()


def test_messages(embedded, tuned, tmp_path):
    (tmp_path / "other.safetensors").write_bytes(b"")
    cases = {
        "this tuned lens has no translator for resid_mid.0": lambda: lens.decode(
            embedded, "the dog", "resid_mid", by=tuned
        ),
        "documents with held_out=0.15 do not make three parts": lambda: lens.tune(embedded, texts(3, 0)),
        "2 groups for 10 documents were given": lambda: lens.tune(embedded, texts(10, 0), groups=[0, 1]),
        "a tuned lens translates the residual stream; z.0 has axes": lambda: lens.tune(
            embedded, texts(10, 0), sites=embedded.sites("z")
        ),
        "there is no file": lambda: lens.load(tmp_path / "none", embedded),
        "other.safetensors is no tuned lens": lambda: lens.load(tmp_path / "other.safetensors", embedded),
        "a tuned lens needs a stream before the last": lambda: lens.identity(
            embedded, sites=[Site("resid_post", embedded.shape.n_layers - 1)]
        ),
        "compare needs lenses of the same sites": lambda: lens.compare(embedded, {}, "the dog"),
    }
    for message, call in cases.items():
        with pytest.raises((ValueError, KeyError, FileNotFoundError), match=message.replace("(", r"\(")):
            call()
