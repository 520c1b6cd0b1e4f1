"""Vectors: what is planted is found. Steering: what is asked for is done, there and nowhere else."""

import pytest
import tiny
import torch
from conftest import load
from sklearn.decomposition import PCA
from torch import nn
from torch.testing import assert_close

import interp
from interp import Edit, Site, Tokens, edits, generate, metrics, randomised, steering, tasks
from interp.arrays import checks_of
from interp.generation import continuations
from interp.steering import estimators
from interp.steering.concept import concept_of
from interp.steering.vector import check_place
from interp.sweep import sweep

PROMPTS = ["when Mary and John went to the store , John gave a drink to", "I love it", "you hate it and went"]
WITH = ["I love it", "Mary and John love it", "you love the store and", "Anna love a drink", "when you love it"]
WITHOUT = ["I hate it", "Mary and John hate it", "you hate the store and", "Anna hate a drink", "when you hate it"]
SITE = Site("resid_post", 1)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return abs(float(torch.cosine_similarity(a.double(), b.double(), dim=0)))


def check(checked, name: str) -> interp.arrays.Check:
    return next(row for row in checked if row.name.startswith(name))


def vector_of(model: interp.Model, site: Site = SITE, **more) -> steering.Vector:
    return steering.extract(model, steering.contrast_pairs(model, "love", WITH, WITHOUT), site, **more)


# --- extraction ------------------------------------------------------------------------------------------------------
def planted(
    signal: float, n: int = 256, d: int = 768, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pairs that differ by noise with a power-law spectrum and by the same signal; and its direction."""
    draw = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(d, d, generator=draw))[0]
    scale = (torch.arange(d) + 1.0) ** -0.5 * 3
    direction = nn.functional.normalize(torch.randn(d, generator=draw), dim=0)
    negative = torch.randn(n, d, generator=draw) * scale @ basis
    return torch.randn(n, d, generator=draw) * scale @ basis + signal * direction, negative, direction


def test_the_mean_difference_finds_what_centred_components_subtract():
    positive, negative, direction = planted(4.0)
    assert cosine(estimators.mean_difference(positive, negative), direction) >= 0.95
    ordered = torch.from_numpy(PCA(n_components=1).fit((positive - negative).numpy()).components_[0])
    assert cosine(ordered, direction) < 0.1
    assert cosine(estimators.pca_ordered(positive, negative), ordered) > 0.999
    positive, negative, direction = planted(8.0)
    assert cosine(estimators.pca_ordered(positive, negative), direction) < 0.1
    assert cosine(estimators.pca(positive, negative), direction) > 0.9  # alternating signs keep the concept
    assert cosine(estimators.svd(positive, negative), direction) > 0.9


def test_components_lose_a_weak_signal_at_once_where_the_mean_difference_does_not():
    positive, negative, direction = planted(1.0)
    assert cosine(estimators.pca(positive, negative), direction) < 0.1
    assert cosine(estimators.mean_difference(positive, negative), direction) > 0.5


def test_a_good_reader_is_not_a_good_writer():
    """Along the noise the classes overlap; a reader avoids it, and so turns away from what was added."""
    draw = torch.Generator().manual_seed(0)
    d, n = 64, 400
    scale = torch.where(torch.arange(d) < 4, 8.0, 0.5)
    direction = torch.zeros(d)
    direction[0], direction[4:] = 0.8, 0.6 / (d - 4) ** 0.5
    noise = lambda: torch.randn(n, d, generator=draw) * scale
    fit, test = (noise() + 2 * direction, noise()), (noise() + 2 * direction, noise())
    writer, reader = estimators.mean_difference(*fit), estimators.lda(*fit)
    scores = [estimators.auroc(*(side @ v for side in test)) for v in (writer, reader)]
    assert scores[1] > 0.9 > 0.75 > scores[0]
    assert cosine(writer, direction) > cosine(reader, direction) + 0.1
    exact = torch.cat([fit[0] - fit[0].mean(0), fit[1] - fit[1].mean(0)]).T.cov()
    assert cosine(reader, torch.linalg.solve(exact, writer)) > 0.99


def wordlist(n: int = 80, signal: float = 3.0, d: int = 32) -> tuple[interp.Model, torch.Tensor]:
    """A model whose first n words carry a planted direction in their embedding, unlike the next n."""
    module = tiny.build("gpt2", vocab_size=2 * n)
    direction = nn.functional.normalize(torch.randn(d, generator=torch.Generator().manual_seed(3)), dim=0)
    with torch.no_grad():
        module.transformer.wte.weight.copy_(torch.randn(2 * n, d, generator=torch.Generator().manual_seed(4)))
        module.transformer.wte.weight[:n] += signal * direction
    return interp.load(module), direction


@pytest.mark.parametrize("method", ["mean_difference", "svd", "lda", "logistic"])
def test_a_planted_direction_is_extracted(method):
    model, direction = wordlist(signal=5.0)
    words = torch.arange(160)[:, None]
    concept = steering.contrast_pairs(model, "planted", words[:80], words[80:])
    vector = steering.extract(model, concept, Site("embed"), method=method)
    assert cosine(vector.writer, direction) > (0.95 if method in ("mean_difference", "svd") else 0.6)
    assert float(vector.writer @ direction) > 0
    assert check(vector.checks, "held-out AUROC of the writer").value > 0.95
    assert_close(
        vector.norm, float(model.run(words, read=Site("embed"))[Site("embed")].norm(dim=-1).mean()), rtol=0.2, atol=0
    )
    assert abs(vector.sigma - 1) < 0.3  # the noise of the embedding


def test_the_components_that_subtract_the_concept_say_so():
    model, direction = wordlist(signal=5.0)
    words = torch.arange(160)[:, None]
    concept = steering.contrast_pairs(model, "planted", words[:80], words[80:])
    vector = steering.extract(model, concept, Site("embed"), method="pca_ordered")
    assert cosine(vector.writer, direction) < 0.5
    for name in ("mean difference along the component", "stability of the writer"):
        assert check(vector.checks, name).status == "warn"


def test_exchanging_the_sides_reverses_the_vector():
    model = load("gpt2")
    there = vector_of(model)
    back = steering.extract(model, steering.contrast_pairs(model, "hate", WITHOUT, WITH), SITE)
    for a, b in ((there, back), (there.reversed(), there.reversed().reversed())):
        assert_close(a.writer, -b.writer) and assert_close(a.reader, -b.reader)
    x = torch.randn(4, 32)
    assert_close(there.reversed().read(x), -there.read(x))


def test_mixed_lengths_do_not_matter(family):
    model = load(family)
    vector = vector_of(model, held_out=0.2)
    fit, _ = steering.contrast_pairs(model, "love", WITH, WITHOUT).split(0.2)
    alone = [[model.run(row[keep][None], read=[SITE])[SITE][0, -1] for row, keep in zip(side.ids, side.mask.bool())]
             for side in (fit.positive, fit.negative)]  # fmt: skip
    gap = torch.stack(alone[0]).mean(0) - torch.stack(alone[1]).mean(0)
    assert_close(vector.writer, gap, atol=1e-4, rtol=1e-4)


def test_one_pair_gives_the_difference_and_promises_nothing():
    model = load("llama")
    vector = steering.extract(
        model, steering.contrast_pairs(model, "love", WITH[0], WITHOUT[0]), SITE, method="mean_difference"
    )
    ends = [model.run(text, read=[SITE])[SITE][0, -1] for text in (WITH[0], WITHOUT[0])]
    assert_close(vector.writer, ends[0] - ends[1], atol=1e-5, rtol=1e-5)
    assert all(row.status == "skipped" for row in vector.checks)
    assert vector.how["tested_on"] == "none"
    with pytest.raises(ValueError, match=r"the sigma at resid_post\.1 is not known of this vector"):
        steering.steer(vector, 1.0, unit="sigma")


def test_noise_is_not_said_to_be_read():
    """Of embeddings that are nothing but noise; of a few pairs no outcome could be told from chance."""
    model, _ = wordlist(signal=0.0)
    for pairs in (3, 10, 20):
        found = []
        for seed in range(40):
            words = torch.randperm(160, generator=torch.Generator().manual_seed(seed))[: 2 * pairs, None]
            concept = steering.contrast_pairs(model, "nothing", words[:pairs], words[pairs:])
            vector = steering.extract(model, concept, Site("embed"), reader="mean_difference", seed=seed)
            found.append(check(vector.checks, "held-out AUROC of the reader").status)
        assert found.count("pass") <= 5, pairs  # of 40, where 2 are expected: more in a case of a hundred
        assert (found.count("skipped") == 40) == (pairs < 9)


def test_reading_is_judged_by_groups_and_not_by_prompts():
    """Twelve prompts in four groups tell no more than four: two against two can always come out in order."""
    positive, negative = torch.arange(6) + 10.0, torch.arange(6.0)
    assert estimators.p_of_separation(positive, negative) == pytest.approx(1 / 924)
    two = ["a", "a", "a", "b", "b", "b"]
    assert estimators.means_of(positive, two).tolist() == [11.0, 14.0]
    p = estimators.p_of_separation(*(estimators.means_of(side, two) for side in (positive, negative)))
    assert p != p
    assert estimators.p_of_separation(torch.zeros(6), torch.zeros(6)) > 0.5


def test_no_group_is_on_both_sides_of_a_split():
    model = load("gpt2")
    groups = ["a", "a", "b", "c", "c", "d", "d", "e", "f", "f"]
    concept = steering.labelled_set(model, "love", [*WITH, *WITHOUT], [True] * 5 + [False] * 5, groups)
    for seed in range(5):
        fit, test = concept.split(0.4, seed)
        sides = [{*part.groups[0], *part.groups[1]} for part in (fit, test)]
        assert not sides[0] & sides[1] and sides[0] | sides[1] == set(groups)
        assert len(fit.positive) + len(test.positive) == 5


def test_a_head_is_steered_alone():
    model = load("qwen2")
    vector = vector_of(model, Site("z", 1), head=2)
    assert vector.writer.shape == (8,)
    base, steered = (
        model.run(PROMPTS, read=[Site("z", 1)], edits=e)[Site("z", 1)] for e in ([], steering.steer(vector, 2.0))
    )
    moved = steered - base
    assert_close(moved[:, -1, 2], (2 * vector.writer).expand(3, -1), atol=1e-5, rtol=1e-4)
    moved[:, -1, 2] = 0
    assert not bool(moved.any())


def test_a_scan_finds_where_a_direction_is_planted():
    model, _ = wordlist()
    ids = torch.stack([torch.arange(160), torch.arange(160).flip(0) % 3 + 5], 1)  # the first word tells, the second not
    concept = steering.contrast_pairs(model, "planted", ids[:80], ids[80:])
    found = steering.scan(model, concept, [Site("embed"), Site("resid_pre", 0)], [0, 1], permutations=40)
    assert float(found.sel(position="0").min()) > 0.9 and float(found.sel(position="1").max()) < 0.8
    assert checks_of(found)[0].value <= 0.05


def test_a_scan_of_nothing_is_significant_as_often_as_it_should_be():
    model, _ = wordlist(signal=0.0)
    words, significant = torch.arange(160)[:, None], 0
    for seed in range(40):
        order = torch.randperm(160, generator=torch.Generator().manual_seed(seed))
        concept = steering.contrast_pairs(model, "nothing", words[order[:80]], words[order[80:]])
        found = steering.scan(model, concept, [Site("embed"), Site("resid_pre", 0)], permutations=19, seed=seed)
        significant += checks_of(found)[0].value <= 0.05
    assert significant <= 6  # of 40, where 2 are expected: more in three cases of a thousand


def test_projections_are_those_of_the_reader():
    model = load("gpt2")
    vector = vector_of(model)
    found = steering.projections(model, PROMPTS, vector)
    trace = model.run(PROMPTS, read=[SITE])
    wanted = (trace[SITE] @ vector.reader - vector.threshold).masked_fill(trace.tokens.mask == 0, torch.nan)
    assert_close(torch.tensor(found.values[0]), wanted, equal_nan=True)


def test_exchanged_labels_lose_the_concept():
    model, direction = wordlist(signal=5.0)
    words = torch.arange(160)[:, None]
    pairs = steering.contrast_pairs(model, "planted", words[:80], words[80:])
    singles = steering.labelled_set(model, "planted", words, [True] * 80 + [False] * 80)
    whole = steering.labelled_set(
        model, "planted", words, [True] * 80 + [False] * 80, [str(i // 8) for i in range(160)]
    )
    for concept in (pairs, singles, whole):
        vector = steering.extract(model, concept, Site("embed"))
        nulls = steering.permuted_like(model, concept, vector, 40)
        along = torch.stack([null[0].writer @ direction for null in nulls])
        assert along.abs().mean() < 0.45 * float(vector.writer @ direction)
        assert abs(float((along > 0).float().mean()) - 0.5) < 0.3


# --- application -----------------------------------------------------------------------------------------------------
def linear_model() -> interp.Model:
    """Blocks that write nothing and no final norm: logits are the unembedded stream."""
    module = tiny.build("gpt2", torch.float64)
    module.transformer.ln_f = nn.Identity()
    for block in module.transformer.h:
        for matrix in (block.attn.c_proj, block.mlp.c_proj):
            nn.init.zeros_(matrix.weight), nn.init.zeros_(matrix.bias)
    return interp.load(module.eval(), tokenizer=tiny.tokenizer())


@pytest.mark.parametrize("site", [Site("resid_pre", 0), Site("attn_out", 1), Site("resid_post", 2)])
def test_on_a_linear_model_the_logits_move_by_the_unembedded_vector(site):
    model = linear_model()
    vector = steering.Vector.of(site, torch.randn(32, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    for dose in (-1.5, 0.5, 3.0):
        moved = model.run(PROMPTS, edits=steering.steer(vector, dose, where=None)).logits - model.run(PROMPTS).logits
        wanted = dose * model.module.lm_head.weight @ vector.writer
        assert_close(moved, wanted.expand_as(moved), atol=1e-10, rtol=1e-10)


def test_what_is_added_at_a_site_is_read_there_and_nowhere_else(family, backend):
    model = load(family, backend)
    vector = vector_of(load(family))
    base, steered = (model.run(PROMPTS, read=[SITE], edits=e)[SITE] for e in ([], steering.steer(vector, 1.5)))
    assert_close((steered - base)[:, -1], (1.5 * vector.writer).expand(3, -1), atol=1e-4, rtol=1e-4)
    assert torch.equal(steered[:, :-1], base[:, :-1])


def test_ablation_leaves_no_projection_at_any_site(family):
    model, draw = load(family), torch.Generator().manual_seed(2)
    sites = model.sites("resid_pre", "attn_out", "mlp_out", "resid_post")[1:]
    vectors = [steering.Vector.of(site, torch.randn(32, generator=draw)) for site in sites]
    trace = model.run(PROMPTS, read=sites, edits=steering.steer(vectors, 1.0, "ablate", where=None))
    for vector in vectors:
        held = trace[vector.site].double()
        assert float((held @ vector.unit.double()).abs().max()) <= 1e-6 * max(1.0, float(held.norm(dim=-1).max()))


@pytest.mark.parametrize("op", steering.OPERATORS)
def test_a_dose_that_changes_nothing_changes_no_bit(embedded, op):
    vector = vector_from(embedded)
    neutral = {"add": 0.0, "scale": 1.0, "ablate": 0.0, "rotate": 0.0}
    if op in neutral:
        assert steering.steer(vector, neutral[op], op) == []
        with steering.applied(embedded, vector, neutral[op], op=op) as steered:
            prompts = ["the movie was awful . i felt", "the food was not great . overall it was"]
            assert torch.equal(steered.run(prompts).logits, embedded.run(prompts).logits)
            assert generate(steered, prompts, 4) == generate(embedded, prompts, 4)
    else:
        assert len(steering.steer(vector, 0.0, op)) == 1


def vector_from(model: interp.Model, site: Site = Site("resid_post", 2)) -> steering.Vector:
    task = tasks.sentiment(model, 64, 1, "train")
    return steering.extract(model, steering.labelled_set(model, "mood", task.clean, task.labels["positive"]), site)


def test_operators_do_what_they_say():
    model = load("gpt2", dtype=torch.float64)
    vector = vector_of(model)
    unit, last = vector.unit, lambda e: model.run(PROMPTS, read=[SITE], edits=e)[SITE][:, -1]
    base = last([])
    level = base @ unit
    steer = lambda *more, **options: last(steering.steer(vector, *more, **options))
    assert_close(steer(2.0, unit="sigma") - base, (2 * vector.sigma * unit).expand(3, -1))
    assert_close(
        (steer(0.5, unit="norm") - base).norm(dim=-1), torch.full((3,), 0.5 * vector.norm, dtype=torch.float64)
    )
    assert_close(steer(1.0) @ unit - level, torch.full((3,), float(vector.writer.norm()), dtype=torch.float64))
    assert_close(steer(-0.5, "scale") @ unit, -0.5 * level)
    assert_close(steer(0.0, "scale"), steer(1.0, "ablate"))
    assert_close(steer(0.25, "ablate") @ unit, 0.75 * level)
    middle = vector.centre
    assert_close(steer(0.5, "clamp") @ unit, torch.full_like(level, middle + 0.5 * float(vector.writer.norm())))
    assert_close(steer(0.0, "cap") @ unit, level.clamp(max=middle))
    for op, dose in (("scale", -0.5), ("ablate", 1.0), ("clamp", 0.5), ("cap", 0.0)):  # nothing but the projection
        moved = steer(dose, op) - base
        assert_close(moved - (moved @ unit)[:, None] * unit, torch.zeros_like(moved))
    turned = steer(40.0, "rotate")
    assert_close(turned.norm(dim=-1), base.norm(dim=-1))
    assert_close(nn.functional.cosine_similarity(turned, base), torch.full_like(level, 40.0).deg2rad().cos())
    assert bool((turned @ unit > level).all())
    twice = last(steering.steer(vector, 15.0, "rotate") + steering.steer(vector, 25.0, "rotate"))
    assert_close(twice, turned)


def test_the_mean_of_one_class_is_taken_to_that_of_the_other():
    model = load("gpt2")
    concept = steering.contrast_pairs(model, "love", WITH, WITHOUT)
    fit, _ = concept.split(0.3)
    vector = steering.extract(model, concept, SITE)
    steered = model.run(fit.negative, read=[SITE], edits=steering.steer(vector)).at(SITE, -1).mean(0)
    assert_close(steered, model.run(fit.positive, read=[SITE]).at(SITE, -1).mean(0), atol=1e-5, rtol=1e-5)
    put = model.run(fit.negative, read=[SITE], edits=steering.steer(vector, 0.5, "clamp")).at(SITE, -1) @ vector.unit
    wanted = (model.run(fit.positive, read=[SITE]).at(SITE, -1) @ vector.unit).mean()
    assert_close(put, wanted.expand_as(put), atol=1e-5, rtol=1e-5)


def test_a_condition_holds_prompt_by_prompt_and_token_by_token():
    model = load("qwen3")
    vector = vector_of(model)
    reading = vector.read(model.run(PROMPTS, read=[SITE])[SITE])
    cut = float(reading[:, -1].sort().values[1:].mean()) + vector.threshold
    base = model.run(PROMPTS, read=[SITE])[SITE]
    for above in (True, False):
        when = steering.Condition(vector, -1, cut, above)
        moved = model.run(PROMPTS, read=[SITE], edits=steering.steer(vector, 1.0, where=None, when=when))[SITE] - base
        wanted = (base[:, -1] @ vector.reader > cut) == above
        assert (moved.abs().amax((1, 2)) > 1e-3).tolist() == wanted.tolist()
        when = steering.Condition(vector, "token", cut, above)
        moved = model.run(PROMPTS, read=[SITE], edits=steering.steer(vector, 1.0, where=None, when=when))[SITE] - base
        assert torch.equal(moved.abs().amax(-1) > 1e-3, (base @ vector.reader > cut) == above)


def test_a_condition_on_the_prompt_holds_for_all_that_is_generated():
    model = load("llama")
    vector, below = vector_of(model, Site("resid_post", 2)), vector_of(model, Site("resid_pre", 1))
    last = model.run(PROMPTS, read=[below.site]).at(below.site, -1) @ below.reader
    when = steering.Condition(below, -1, float(last.sort().values[1:].mean()))
    force = steering.steer(vector, 4.0, when=when)
    kept, again = (continuations(model, PROMPTS, 5, force, cached=cached) for cached in (True, False))
    assert kept.how["cached"] and torch.equal(kept.tokens.ids, again.tokens.ids)
    assert_close(kept.log_probs, again.log_probs, atol=1e-5, rtol=1e-5)
    free, forced = continuations(model, PROMPTS, 5), continuations(model, PROMPTS, 5, steering.steer(vector, 4.0))
    wanted = torch.where((last > when.cut)[:, None], forced.log_probs, free.log_probs)
    assert_close(kept.log_probs, wanted, atol=1e-5, rtol=1e-5)
    metric = metrics.logit_diff(4, 5)
    swept = sweep(model, PROMPTS, [force, steering.steer(vector, -2.0, when=when), []], [metric]).values[0]
    alone = [metric(model.run(PROMPTS, edits=e)) for e in (force, steering.steer(vector, -2.0, when=when), [])]
    assert_close(swept, torch.stack(alone), atol=1e-4, rtol=1e-4)


# --- a steered model -------------------------------------------------------------------------------------------------
def test_a_steered_model_is_the_model_under_edits(family, backend):
    model = load(family, backend)
    vector = steering.Vector.of(SITE, torch.randn(32, generator=torch.Generator().manual_seed(1)))
    force = steering.steer(vector, 2.0)
    other = edits.zero(Site("attn_out", 2), pos=-1)
    with steering.applied(model, vector, 2.0) as steered:
        assert_close(steered.run(PROMPTS, edits=[other]).logits, model.run(PROMPTS, edits=[*force, other]).logits)
        assert generate(steered, PROMPTS, 3) == generate(model, PROMPTS, 3, force)
        assert continuations(steered, PROMPTS, 2).how["cached"]


def test_a_steered_model_generates_as_its_edits_would():
    """With roles, which the trial of a cache has not, and under edits of keys, which cannot be kept then."""
    model = load("gpt2")
    tokens = model.tokens(PROMPTS)
    tokens = Tokens(tokens.ids, tokens.mask, {"first": tokens.mask.argmax(-1)})
    for site, more, kept in ((SITE, {}, True), (Site("v", 1), {"head": 1}, False)):
        vector = steering.Vector.of(site, torch.randn(8 if more else 32), **more)
        force = steering.steer(vector, 3.0, where="first")
        with steering.applied(model, vector, 3.0, where="first") as steered:
            found = continuations(steered, tokens, 4)
        wanted = continuations(model, tokens, 4, force, cached=False)
        assert found.how["cached"] is kept
        assert torch.equal(found.tokens.ids, wanted.tokens.ids)
        assert_close(found.log_probs, wanted.log_probs, atol=1e-5, rtol=1e-5)


def test_a_steered_model_has_the_weights_of_the_model(backend):
    model = load("gpt2", backend)
    with steering.applied(model, vector_of(model)) as steered:
        assert steered.fingerprint() == model.fingerprint()
        with pytest.raises(ValueError, match="draw the model itself anew, and steer that"):
            randomised.redrawn(steered, 0, lambda twin: twin.module.parameters())


def test_every_method_works_on_a_steered_model():
    model = load("gpt2")
    vector = vector_of(model)
    metric, cells = metrics.logit_diff(4, 5), [[edits.zero(Site("z", 2), head=h)] for h in range(4)]
    with steering.applied(model, vector, 2.0, where=None) as steered:
        found = sweep(steered, PROMPTS, cells, [metric]).values
        with steering.applied(steered, vector, -2.0, where=None) as back:
            assert_close(back.run(PROMPTS).logits, model.run(PROMPTS).logits, atol=1e-4, rtol=1e-4)
    force = steering.steer(vector, 2.0, where=None)
    assert_close(found, sweep(model, PROMPTS, [force + cell for cell in cells], [metric]).values, atol=1e-5, rtol=1e-4)


def test_steering_ends_with_its_block_and_leaves_the_model_alone():
    model = load("gpt2")
    before = model.run(PROMPTS).logits
    with pytest.raises(KeyError), steering.applied(model, vector_of(model)) as steered:
        raise KeyError
    assert torch.equal(model.run(PROMPTS).logits, before)
    with pytest.raises(RuntimeError, match="was used after its with block; steering ends there"):
        steered.run(PROMPTS)


def test_a_preview_shows_the_tokens_that_are_steered():
    model = load("gpt2")
    vector = vector_of(model)
    tokens = model.tokens(PROMPTS)
    tokens = Tokens(tokens.ids, tokens.mask, {"first": tokens.mask.argmax(-1)})
    rows = torch.arange(3)
    expected = torch.zeros(tokens.ids.shape).masked_fill(tokens.mask == 0, torch.nan)
    for where, columns in (("first", tokens.role("first")), (-1, torch.tensor([-1, -1, -1]))):
        shown = torch.tensor(steering.preview(model, tokens, steering.steer(vector, where=where)).values[0])
        wanted = expected.clone()
        wanted[rows, columns] = 1
        assert_close((shown > 0).float() + 0 * shown, wanted, equal_nan=True)
    shown = steering.preview(model, tokens, steering.steer(vector), 2)
    assert shown.sizes["pos"] == tokens.ids.shape[1] + 2 and bool((shown[..., -2:] == float("inf")).all())
    held = steering.Condition(vector, -1, 1e6)
    assert float(steering.preview(model, tokens, steering.steer(vector, when=held)).max()) == 0


E2 = torch.ones(32)
BAD = {
    "method": (
        lambda m: vector_of(m, method="umap"),
        "unknown method 'umap'; choose from mean_difference, lda, logistic, svd, pca, pca_ordered",
    ),
    "components of no pairs": (
        lambda m: steering.extract(m, steering.labelled_set(m, "love", WITH, [1, 0, 1, 0, 1]), SITE, method="pca"),
        "'pca' needs several pairs; make them by contrast_pairs, or use 'mean_difference'",
    ),
    "uneven pairs": (
        lambda m: steering.contrast_pairs(m, "love", WITH, WITHOUT[:2]),
        "pairs need as many prompts on both sides, not 5 and 2; use labelled_set for others",
    ),
    "one class": (
        lambda m: steering.labelled_set(m, "love", WITH, [True] * 5),
        "a concept needs prompts that have it and prompts that lack it; all labels are True",
    ),
    "labels that are words": (
        lambda m: steering.labelled_set(m, "love", WITH, ["pos", "neg", "pos", "neg", "neg"]),
        "labels say which prompts have 'love', by True and False or 1 and 0, not by 'pos'; "
        "give [label == the one that has it for label in labels]",
    ),
    "labels of two signs": (
        lambda m: steering.labelled_set(m, "love", WITH, torch.tensor([1, -1, 1, 1, -1])),
        "labels say which prompts have 'love', by True and False or 1 and 0, not by -1; "
        "give [label == the one that has it for label in labels]",
    ),
    "a concept that is none": (
        lambda m: concept_of(WITH),
        "a concept is made by steering.contrast_pairs or steering.labelled_set, not of list",
    ),
    "sites for one": (
        lambda m: check_place(m.sites("resid_post"), None),
        "a vector is of one Site, not of list; for several sites use extract_each",
    ),
    "all heads": (
        lambda m: vector_of(m, Site("z", 1)),
        "a steering vector of z.1 needs head=, the one to steer",
    ),
    "a scan of heads": (
        lambda m: steering.scan(m, steering.contrast_pairs(m, "love", WITH, WITHOUT), [Site("z", 1)]),
        "a steering vector of z.1 needs head=, the one to steer",
    ),
    "no midpoint": (
        lambda m: steering.steer(steering.Vector.of(SITE, E2), 0.5, "clamp", "gap"),
        "the midpoint of the classes at resid_post.1 is not known of this vector; extract it from prompts, or give "
        "mean= and norm= by dataclasses.replace",
    ),
    "no threshold": (
        lambda m: steering.steer(vector_of(m), when=steering.Condition(steering.Vector.of(SITE, E2))),
        "the threshold at resid_post.1 is not known of this vector; give threshold=",
    ),
    "no difference": (
        lambda m: steering.extract(m, steering.contrast_pairs(m, "love", WITH, WITH), SITE),
        "the classes do not differ at resid_post.1, position -1; choose another site or position",
    ),
    "operator": (
        lambda m: steering.steer(vector_of(m), op="multiply"),
        "unknown operator 'multiply'; choose from add, scale, ablate, clamp, cap, rotate",
    ),
    "unit": (
        lambda m: steering.steer(vector_of(m), unit="metres"),
        "unknown unit 'metres'; choose from gap, sigma, norm",
    ),
    "no vector": (
        lambda m: steering.steer([]),
        "no steering vector was given; give one, or several for several layers",
    ),
    "a tensor": (
        lambda m: steering.steer([E2]),
        "a steering vector is a steering.Vector, not Tensor; make one by steering.extract, or of a tensor by "
        "steering.Vector.of(site, tensor)",
    ),
    "no head": (
        lambda m: steering.Vector.of(Site("z", 1), torch.ones(8)),
        "a steering vector of z.1 needs head=, the one to steer",
    ),
    "a head too many": (
        lambda m: steering.Vector.of(SITE, E2, head=1),
        "a steering vector of resid_post.1 has no heads; leave head= out",
    ),
    "no positions": (
        lambda m: steering.Vector.of(Site("pattern", 1), E2),
        "pattern.1 has no positions to steer; its axes are batch, head, query, key; use the stream, or z",
    ),
    "another width": (
        lambda m: m.run(PROMPTS, edits=steering.steer(steering.Vector.of(SITE, torch.ones(5)))),
        "a vector of 5 entries does not fit the selected part of resid_post.1, (3, 1, 32)",
    ),
    "condition too late": (
        lambda m: steering.steer(vector_of(m), when=steering.Condition(vector_of(m, Site("resid_post", 2)))),
        "a condition at resid_post.2 comes too late to steer resid_post.1; read it there or below",
    ),
    "condition elsewhere": (
        lambda m: steering.steer(vector_of(m), when=steering.Condition(vector_of(m, Site("resid_post", 0)), "token")),
        "a condition on each token is read where it is steered, at resid_post.1, not at resid_post.0",
    ),
    "edits with options": (
        lambda m: steering.applied(m, [edits.zero(SITE)], 2.0).__enter__(),
        "edits have their dose and options already; give edits alone, or vectors with options",
    ),
    "nothing to hold out": (
        lambda m: steering.scan(m, steering.contrast_pairs(m, "love", WITH[0], WITHOUT[0]), [SITE]),
        "nothing of 'love' can be held out; give more pairs, or prompts of more groups",
    ),
}  # fmt: skip


def test_labelled_prompts_are_a_concept(embedded):
    task = tasks.sentiment(embedded, 32, 1, "train")
    words = [str(i // 2) for i in range(32)]
    given = tasks.from_labels(embedded, task.clean, task.labels["positive"], words, name="mood")
    concept = steering.labelled_set(embedded, "mood", task.clean, task.labels["positive"], words)
    site = Site("resid_post", 2)
    one, other = (steering.extract(embedded, kind, site) for kind in (given, concept))
    assert torch.equal(one.writer, other.writer) and one.how["data"] == other.how["data"]
    assert torch.equal(
        steering.permuted_like(embedded, given, one, 1)[0][0].writer,
        steering.permuted_like(embedded, concept, one, 1)[0][0].writer,
    )
    with pytest.raises(TypeError, match=r"not of Task; of 'sentiment', say what is known: steering\.labelled_set"):
        concept_of(task)
    numbers = tasks.from_labels(embedded, task.clean, [float(i) for i in range(32)])
    with pytest.raises(ValueError, match=r"by True and False or 1 and 0, not by 2\.0"):
        steering.extract(embedded, numbers, site)


@pytest.mark.parametrize("case", BAD)
def test_message(case):
    call, message = BAD[case]
    with pytest.raises((ValueError, TypeError)) as caught:
        call(load("gpt2"))
    assert str(caught.value) == message


def test_an_edit_that_is_not_steering_is_taken_too():
    model = load("gpt2")
    off = Edit(Site("mlp_out", 0), torch.zeros_like)
    with steering.applied(model, [off]) as steered:
        assert torch.equal(steered.run(PROMPTS).logits, model.run(PROMPTS, edits=[off]).logits)
