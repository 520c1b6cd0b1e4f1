"""What is measured of steering is what plain runs give; on the embedded model, steering works and says where it does
not."""

import random
from functools import cache

import numpy as np
import pytest
import torch
from conftest import load
from scipy.stats import binomtest
from test_steering import PROMPTS, SITE, vector_of
from torch.testing import assert_close

import interp
from interp import Site, Tokens, metrics, steering, tasks
from interp.arrays import checks_of
from interp.resampling import bounds_of_shares
from interp.zoo import corpus

METRIC = metrics.logit_diff(4, 5)
DOSES = [-1.0, 0.0, 0.5, 1.0, 3.0]


def test_a_dose_response_is_that_of_single_runs(family):
    model = load(family)
    vector = vector_of(model)
    nulls = {"random": steering.random_like(vector, 2, seed=3)}
    found = steering.dose_response(model, PROMPTS, vector, METRIC, DOSES, nulls, unit="norm", where=None)
    for i, name in enumerate(("steered", "random 0", "random 1")):
        v = vector if i == 0 else nulls["random"][i - 1][0]
        for dose in DOSES:
            alone = METRIC(model.run(PROMPTS, edits=steering.steer(v, dose, unit="norm", where=None)))
            assert_close(torch.tensor(found.sel(vector=name, dose=dose).values), alone, atol=1e-4, rtol=1e-4)
    plain = METRIC(model.run(PROMPTS))
    assert_close(torch.tensor(found.sel(dose=0.0).values), plain.expand(3, -1), atol=1e-5, rtol=1e-5)


def test_random_vectors_have_the_length_and_not_the_direction():
    vectors = [vector_of(load("gpt2")), vector_of(load("gpt2"), Site("resid_post", 2))]
    for null in steering.random_like(vectors, 20):
        for one, other in zip(vectors, null):
            assert_close(one.writer.norm(), other.writer.norm())
            assert one.site == other.site and abs(float(one.unit @ other.unit)) < 0.7


def test_slopes_are_those_of_a_straight_line():
    model = load("gpt2")
    values = steering.dose_response(model, PROMPTS, vector_of(model), METRIC, DOSES)
    found = steering.slopes(values)
    for i in range(values.sizes["vector"]):
        wanted = np.polyfit(DOSES, values.values[i], 1)[0]
        assert np.allclose(found.slope.values[i], wanted, atol=1e-4)
        assert found.wrong_way.values[i] == (wanted < 0).mean()
        assert np.isclose(found["median"].values[i], np.median(wanted), atol=1e-4)


@pytest.mark.parametrize("k, n", [(0, 7), (3, 7), (7, 7), (50, 100)])
def test_the_interval_of_a_share_is_exact(k, n):
    wanted = binomtest(k, n).proportion_ci(0.95, method="exact")
    assert np.allclose(bounds_of_shares(k, n), (wanted.low, wanted.high))


@pytest.mark.parametrize("where", [None, slice(-1, None), slice(3, None)])
def test_side_effects_are_those_of_single_runs(where):
    model = load("llama")
    vector, tokens = vector_of(model), model.tokens(PROMPTS)
    found = steering.side_effects(model, PROMPTS, vector, [0.0, 1.0], where=where)
    base = model.run(PROMPTS).logits.log_softmax(-1)
    steered = model.run(PROMPTS, edits=steering.steer(vector, 1.0, where=where)).logits.log_softmax(-1)
    kl, width = (base.exp() * (base - steered)).sum(-1), tokens.ids.shape[1]
    columns = range(width)[slice(None) if where is None else where]
    for i in range(3):
        inside = [c for c in columns if tokens.mask[i, c]]
        assert_close(float(found.kl.sel(dose=1.0)[i]), float(kl[i, inside].mean()), atol=1e-5, rtol=1e-4)
        nexts = [c for c in inside if c + 1 < width]
        for logits, value in ((steered, found.loss.sel(dose=1.0)[i]), (base, found.loss_before[i])):
            words = -logits[i, nexts].gather(-1, tokens.ids[i, [c + 1 for c in nexts], None])
            assert_close(float(value), float(words.mean()), atol=1e-5, rtol=1e-4, equal_nan=True)
    assert float(abs(found.kl.sel(dose=0.0)).max()) < 1e-6
    assert_close(found.loss.sel(dose=0.0).values, found.loss_before.values, atol=1e-5, rtol=0, equal_nan=True)


def test_a_prefix_stands_before_each_prompt_and_roles_move_along():
    model = load("gpt2")
    tokens = model.tokens(PROMPTS)
    tokens = Tokens(tokens.ids, tokens.mask, {"second": tokens.mask.argmax(-1) + 1})
    found = steering.prefixed(model, tokens, "so she went")
    wanted = model.tokens([f"so she went {prompt}" for prompt in PROMPTS])
    assert torch.equal(found.ids, wanted.ids) and torch.equal(found.mask, wanted.mask)
    rows = torch.arange(3)
    assert torch.equal(found.ids[rows, found.role("second")], tokens.ids[rows, tokens.role("second")])


def test_a_prefix_comes_after_the_beginning_of_sequence():
    model = interp.load(load("gpt2").module, tokenizer=load("gpt2").tokenizer, bos=True)
    assert torch.equal(
        steering.prefixed(model, PROMPTS, "so she").ids, model.tokens([f"so she {prompt}" for prompt in PROMPTS]).ids
    )


def test_specificity_is_a_table_of_changes():
    model = load("gpt2")
    settings = {"love": steering.Setting(vector_of(model), 2.0), "other": steering.Setting(vector_of(model), -1.0)}
    targets = {"love": (PROMPTS, METRIC), "short": (PROMPTS[:2], metrics.logit(7))}
    found = steering.specificity(model, settings, targets)
    for i, setting in enumerate(settings.values()):
        for j, (prompts, metric) in enumerate(targets.values()):
            change = metric(model.run(prompts, edits=setting.edits)) - metric(model.run(prompts))
            assert_close(torch.tensor(found.values[i, j, : len(prompts)]), change, atol=1e-5, rtol=1e-4)
    assert np.isnan(found.values[:, 1, 2]).all()


def test_a_choice_keeps_its_budget_and_says_when_it_cannot():
    model = load("gpt2")
    vector = vector_of(model)
    metric = metrics.Metric("shifted", lambda logits: logits[:, 4] - logits[:, 5] - 3)
    choose = lambda budget: steering.tune(
        model, {"v": vector, "w": vector.reversed()}, PROMPTS, metric, PROMPTS, [0.2, 1.0, 4.0], budget
    )
    tuned = choose(0.5)
    assert float(tuned.table.kl_high.sel(candidate=tuned.name, dose=tuned.setting.dose)) <= 0.5
    allowed = tuned.table.flipped.where(tuned.table.kl_high <= 0.5)
    assert float(tuned.table.flipped.sel(candidate=tuned.name, dose=tuned.setting.dose)) == float(allowed.max())
    with pytest.raises(ValueError, match="no dose stays within a KL divergence of 1e-09"):
        choose(1e-9)
    each = [steering.side_effects(model, PROMPTS, v, [0.2, 1.0, 4.0])["kl"] for v in (vector, vector.reversed())]
    np.testing.assert_allclose(tuned.table.kl, [kl.mean("prompt") for kl in each], rtol=1e-5)
    with pytest.raises(ValueError, match="candidates are vectors by name"):
        steering.tune(model, {}, PROMPTS, metric, PROMPTS, [1.0])
    with pytest.raises(ValueError, match="above zero in all prompts already"):
        metric = metrics.Metric("high", lambda logits: logits[:, 4] + 100)
        steering.evaluate(model, tuned.setting, PROMPTS, metric)


# --- on the embedded model -------------------------------------------------------------------------------------------
CONCEPTS = {
    "sentiment": ("positive", "adjective", "draw_sentiment", "resid_post", ("happy", "sad")),
    "pronoun": ("female", "name", "draw_pronoun", "resid_post", ("she", "he")),
    "honesty": ("honest", "speaker", "draw_claim", "attn_out", None),
}


def neutral(avoided: str, n: int, seed: int) -> list[str]:
    """Text of the other rules, cut anywhere."""
    rng, texts = random.Random(seed), []
    rules, weights = zip(*[(rule, weight) for rule, weight in corpus.MIXTURE if rule.__name__ != avoided])
    for _ in range(n):
        words: list[str] = []
        while len(words) < 24:
            words += rng.choices(rules, weights)[0](rng, None).words
        texts.append(" ".join(words[: rng.randint(8, 24)]))
    return texts


def drawn(model: interp.Model, name: str, n: int, seed: int, split: str) -> tasks.Task:
    """A task from a split; pronouns have none."""
    return tasks.EMBEDDED[name](model, n, seed, **({} if name == "pronoun" else {"split": split}))


@cache
def learned(name: str, n: int = 256) -> tuple[interp.Model, steering.Concept]:
    model = interp.load()
    label, role, *_ = CONCEPTS[name]
    task = drawn(model, name, n, 1, "train")
    words = model.words(task.clean.ids[torch.arange(n), task.clean.roles[role]].tolist())
    return model, steering.labelled_set(model, name, task.clean, task.labels[label], words)


def lacking(model: interp.Model, name: str, n: int, seed: int, split: str) -> tuple[Tokens, metrics.Metric]:
    """Prompts without the concept, and a metric that is above zero with it."""
    label, _, _, _, words = CONCEPTS[name]
    task = drawn(model, name, n, seed, split)
    rows = [i for i, has in enumerate(task.labels[label]) if not has]
    if words is None:
        return task.clean.rows(rows), metrics.logit_diff(task.wrong[rows], task.right[rows])
    return task.clean.rows(rows), metrics.logit_diff(*map(model.token_id, words))


@pytest.mark.parametrize("name", CONCEPTS)
def test_steering_flips_held_out_prompts_at_little_cost(name):
    model, concept = learned(name)
    avoided, kind = CONCEPTS[name][2:4]
    sites = model.sites(kind)
    candidates = {str(v.site): v for v in steering.extract_each(model, concept, sites)}
    chosen_by = lacking(model, name, 64, 2, "train")
    tuned = steering.tune(model, candidates, *chosen_by, neutral(avoided, 256, 5), [0.6, 0.7, 0.8, 0.9, 1.0])
    nulls = {"random": steering.random_like(tuned.setting.vectors, 40)}
    nulls["permuted"] = steering.permuted_like(model, concept, tuned.setting.vectors, 20)
    found = steering.evaluate(
        model, tuned.setting, *lacking(model, name, 128, 3, "test"), neutral(avoided, 256, 6), nulls
    )
    assert float(found.flipped.sel(way="steered")) >= 0.8
    assert float(found.kl.mean()) <= 0.1
    of_nulls = found.flipped.values[[str(way).startswith("random") for way in found.way.values]]
    assert of_nulls.mean() < 0.1 and np.quantile(of_nulls, 0.95) < 0.1
    assert found.attrs["verdict"] == "reads the concept, and steers it"


def test_what_reads_well_and_steers_nothing_is_reported_as_such(embedded):
    """The word that makes a request harmful is read best where it stands; by layer 2, the model has read it."""
    learn, test = (tasks.refusal(embedded, 192, seed, split) for seed, split in ((1, "train"), (2, "test")))
    words = embedded.words(learn.clean.ids[torch.arange(192), learn.clean.roles["verb"]].tolist())
    concept = steering.labelled_set(embedded, "refusal", learn.clean, learn.labels["harmful"], words)
    prompts = test.clean.rows([i for i, harmful in enumerate(test.labels["harmful"]) if not harmful])
    metric = metrics.logit_diff(embedded.token_id("sorry"), embedded.token_id("sure"))
    verdicts = {}
    for layer, at in ((2, "verb"), (2, -1)):
        # Of twelve verbs, so that three of each kind are held out.
        vector = steering.extract(embedded, concept, Site("resid_post", layer), at, held_out=0.6)
        found = steering.evaluate(embedded, steering.Setting(vector, where=at), prompts, metric)
        verdicts[at] = found.attrs["verdict"]
        assert checks_of(found)[0].value == float(found.flipped.sel(way="steered"))
    assert verdicts == {"verb": "reads the concept, but does not steer it", -1: "reads the concept, and steers it"}


def test_a_random_vector_is_not_said_to_steer(embedded):
    model, concept = learned("sentiment")
    vector = steering.random_like(steering.extract(model, concept, Site("resid_post", 2)), 1, seed=99)[0]
    found = steering.evaluate(embedded, steering.Setting(vector), *lacking(embedded, "sentiment", 64, 3, "test"))
    assert "does not steer" in found.attrs["verdict"]


def test_steering_without_enough_nulls_is_not_tested(embedded):
    """Five nulls can give no p-value of 0.05, and none at all give none; neither makes steering good or bad."""
    model, concept = learned("sentiment")
    vector = steering.extract(model, concept, Site("resid_post", 2))
    given = lacking(embedded, "sentiment", 64, 3, "test")
    few = {"random": steering.random_like(vector, 5), "random b": steering.random_like(vector, 19, seed=1)}
    for nulls in ({}, few, {"random": []}):
        found = steering.evaluate(embedded, steering.Setting(vector), *given, nulls=nulls)
        assert found.attrs["verdict"] == "reads the concept, but whether it steers was not tested"
        rows = {row.name: row for row in checks_of(found) if row.name.startswith("effect against")}
        assert set(rows) == {f"effect against {name} vectors" for name in nulls}
        assert rows == {} or rows["effect against random vectors"].status == "skipped"
    found = steering.evaluate(embedded, steering.Setting(vector), *given, nulls=few)
    (row,) = [row for row in checks_of(found) if row.name == "effect against random b vectors"]
    assert row.status == "pass" and row.value == 1 / 20
    found = steering.evaluate(embedded, steering.Setting(vector, dose=-1.0), *given, nulls={})
    assert found.attrs["verdict"] == "reads the concept, but does not steer it"  # whatever nulls would do


def test_kinds_of_nulls_are_told_apart_by_more_than_how_their_names_begin():
    model = load("gpt2")
    vector = vector_of(model)
    nulls = {"random": steering.random_like(vector, 19), "random b": [vector] * 19}
    rows = checks_of(steering.dose_response(model, PROMPTS, vector, METRIC, DOSES, nulls))
    mean = {name: rows[i] for i, name in enumerate(nulls)}
    assert mean["random b"].value == 1.0
    wanted = steering.dose_response(model, PROMPTS, vector, METRIC, DOSES, {"random": nulls["random"]})
    assert mean["random"].value == checks_of(wanted)[0].value


def test_vectors_are_taken_as_settings_of_one_dose():
    model = load("gpt2")
    vector = vector_of(model)
    metric = metrics.Metric("shifted", lambda logits: logits[:, 4] - logits[:, 5] - 3)
    wanted = steering.evaluate(model, steering.Setting(vector, 1.0), PROMPTS, metric)
    for given in (vector, [vector]):
        assert steering.evaluate(model, given, PROMPTS, metric).equals(wanted)
    targets = {"love": (PROMPTS, METRIC)}
    found = steering.specificity(model, {"love": vector}, targets)
    assert found.equals(steering.specificity(model, {"love": steering.Setting(vector)}, targets))


def test_one_dose_has_no_slope():
    model = load("gpt2")
    vector = vector_of(model)
    for doses in ([1.0], [1.0, 1.0]):
        rows = checks_of(steering.dose_response(model, PROMPTS, vector, METRIC, doses))
        assert [row.status for row in rows] == ["skipped", "skipped"]
    rows = checks_of(steering.dose_response(model, PROMPTS, vector, METRIC, DOSES))
    assert all(row.status != "skipped" for row in rows)


def test_prompting_is_a_baseline(embedded):
    model, concept = learned("sentiment")
    vector = steering.extract(model, concept, Site("resid_post", 2))
    prompts, metric = lacking(embedded, "sentiment", 64, 3, "test")
    found = steering.evaluate(embedded, steering.Setting(vector), prompts, metric, prefix="the movie was great .")
    prompted = metric(embedded.run(steering.prefixed(embedded, prompts, "the movie was great .")))
    assert_close(torch.tensor(found.metric.sel(way="prompted").values), prompted)
    means = found.metric.mean("prompt")
    effects = {way: float(means.sel(way=way) - means.sel(way="unsteered")) for way in ("steered", "prompted")}
    (row,) = [row for row in checks_of(found) if row.name == "effect over prompting"]
    assert_close(row.value, effects["steered"] / effects["prompted"], atol=1e-4, rtol=1e-4)


def test_a_vector_of_too_few_doses_has_no_slopes():
    model = load("gpt2")
    values = steering.dose_response(model, PROMPTS, vector_of(model, SITE), METRIC, [0.0, 1.0])
    with pytest.raises(ValueError, match="slopes need five doses or more, not 2"):
        steering.slopes(values)


def test_vectors_of_labels_at_random_seldom_beat_the_default_nulls(embedded):
    """Of sixty at 1 in 21, more than seven would be found by chance once in 120 times; of isotropic vectors, 25 are."""
    pool, use = tasks.sentiment(embedded, n=96, split="train"), tasks.sentiment(embedded, n=16, split="test").clean
    metric = metrics.logit_diff(embedded.token_id("happy"), embedded.token_id("sad"))
    draw, found = np.random.default_rng(0), {"varied": 0, "permuted": 0}
    for seed in range(60):
        prompts = pool.clean.rows(draw.permutation(96)[:40].tolist())
        concept = steering.labelled_set(embedded, "noise", prompts, [True] * 20 + [False] * 20)
        vector = steering.extract(embedded, concept, Site("resid_post", 2), seed=seed)
        nulls = {
            "varied": steering.varied_like(embedded, use, vector, seed=seed),
            "permuted": steering.permuted_like(embedded, concept, vector, seed=seed),
        }
        response = steering.dose_response(embedded, use, vector, metric, [0.0, 1.0], nulls)
        for check in checks_of(response)[:2]:
            found[check.name.split()[2]] += check.value <= 0.05
    assert max(found.values()) <= 7, found


def test_varied_vectors_have_the_length_and_the_span_of_the_prompts(embedded):
    prompts = tasks.sentiment(embedded, n=12).clean
    vector = steering.Vector.of(SITE, torch.randn(128, generator=torch.Generator().manual_seed(0)))
    held = embedded.run(prompts, read=[SITE]).at(SITE, -1)
    made = torch.stack([v.writer for (v,) in steering.varied_like(embedded, prompts, vector, 5)])
    assert_close(made.norm(dim=-1), vector.writer.norm().expand(5))
    basis = torch.linalg.svd(held - held.mean(0), full_matrices=False)[2][:11]
    assert_close(made @ basis.T @ basis, made, atol=1e-3, rtol=1e-3)
    few, wanted = steering.varied_like(embedded, prompts.rows([0, 1]), vector, 2), steering.random_like(vector, 2)
    assert all(torch.equal(a.writer, b.writer) for (a,), (b,) in zip(few, wanted))
