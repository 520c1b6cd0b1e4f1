"""Who is honest and what is true; how activations lie in their space: against independent computations."""

import numpy as np
import pytest
import tiny
import torch
from test_experiments import asked
from tiny import save_english

from experiments import superposition, truth_and_honesty
from experiments.lab import geometry
from interp import Site, edits, english, tasks, weights


@pytest.fixture(scope="module")
def honest():
    return truth_and_honesty.run(truth_and_honesty.Config(n=160, shuffles=59))


def test_what_is_read_of_honesty_and_of_an_untaught_truth_agrees_with_scikit_learn(honest, embedded):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score

    for concept, make in (("honesty", tasks.concepts.honesty), ("truth", tasks.concepts.untaught)):
        data = make(embedded, 160, 0)
        x = embedded.run(data.prompts, Site("resid_post", 3))[Site("resid_post", 3)][:, -1].numpy()
        y, halves = data.y.numpy(), np.array(data.families)
        plain = [LogisticRegression(C=c, max_iter=2000) for c in (0.01, 0.1, 1)]
        x = (x - x.mean(0)) / x.std(0)
        here = honest[concept].sel(layer=3, pos="END")
        folds: dict = dict(groups=data.groups, cv=GroupKFold(5))
        theirs = [cross_val_score(probe, x, y, **folds).mean() for probe in plain]
        assert min(theirs) - 0.08 < float(here["accuracy"]) < max(theirs) + 0.08
        for train in here["train"].values:
            for test in set(here["test"].values) - {train}:
                fitted = [probe.fit(x[halves == train], y[halves == train]) for probe in plain]
                theirs = [probe.score(x[halves == test], y[halves == test]) for probe in fitted]
                ours = float(here["transfer"].sel(train=train, test=test))
                assert min(theirs) - 0.1 < ours < max(theirs) + 0.1


def test_honesty_is_used_and_an_untaught_truth_is_absent(embedded):
    honest = truth_and_honesty.run(truth_and_honesty.Config(n=960, shuffles=59))
    found, said = truth_and_honesty.numbers(honest), truth_and_honesty.answer(honest)
    assert (
        said.startswith("Used: who is honest")
        and "Absent, but for what is learnt by heart: what is true, of claims" in said
    )
    assert found["honesty_accuracy"] > 0.95 and found["honesty_transfer_accuracy"] > 0.9
    assert found["truth_transfer_accuracy"] < 0.65 and np.isnan(found["truth_interchange"])
    data = tasks.concepts.honesty(embedded, 160, 0)
    site = Site("resid_post", int(truth_and_honesty._best(honest["honesty"])["layer"]))
    x = embedded.run(data.prompts, site)[site][:, -1]
    y = data.y.bool()
    shift = (x[~y].mean(0) - x[y].mean(0)) * torch.where(y, 1.0, -1.0)[:, None]
    rows, (lie, truth) = torch.arange(160), data.answers[..., 0].T
    margins = []
    for made in ([], [edits.add(site, shift, pos=-1)]):
        logits = embedded.run(data.prompts, edits=made).logits[:, -1]
        margin = logits[rows, truth] - logits[rows, lie]
        margins.append(torch.where(y, margin, -margin).mean())
    moved = float(margins[0] - margins[1]) / (2 * float(margins[0]))
    assert found["honesty_interchange"] == pytest.approx(moved, abs=0.15) and moved > 0.15, "moved to the other's mean"
    assert set(truth_and_honesty.draw(honest)) == {
        "honesty", "truth", "kinds", "use", "layers",
    }  # fmt: skip
    with pytest.raises(ValueError, match="takes no data="):
        truth_and_honesty.inputs(truth_and_honesty.Config(data="mine.csv"))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_model_that_knows_neither_is_told_so(tmp_path, family):
    with pytest.raises(
        ValueError, match=r"claims are in the embedded language or in English, and .* knows neither: only"
    ):
        truth_and_honesty.inputs(truth_and_honesty.Config(model=tiny.save(family, tmp_path / "speechless")))
    with pytest.raises(ValueError, match=r"no texts are shipped for .*; give a text on each line by data=FILE"):
        superposition.inputs(superposition.Config(model=str(tmp_path / "speechless")))
    model = save_english(family, tmp_path)
    arrays = truth_and_honesty.run(truth_and_honesty.Config(n=80, shuffles=39, model=model))
    said, shown = truth_and_honesty.answer(arrays), truth_and_honesty.draw(arrays)
    assert "Used" not in said and len(shown["layers"]) == 6
    arrays, found, said, shown = asked(superposition, model=model, draws=19)
    assert found["dimensions_neurons"] > 1 and np.isfinite(list(found.values())).all() and len(shown) == 4


def test_english_claims_have_the_labels_that_they_say(tmp_path):
    cfg = truth_and_honesty.Config(n=200, model=save_english("gpt2", tmp_path))
    model, honest, untold = truth_and_honesty.inputs(cfg)
    spell = lambda tokens: [
        "".join(model.tokenizer.convert_ids_to_tokens(ids[mask.bool()].tolist())).replace("Ġ", " ")
        for ids, mask in zip(tokens.ids, tokens.mask)
    ]
    words = spell(untold.prompts)
    pairs = {text.split(" says")[1]: label for text, label in zip(words, untold.labels)}
    told = [(text.split(" says")[1], label) for text, label in zip(words, untold.labels)]
    assert all(pairs[claim] == label for claim, label in told) and len(pairs) == 20, "each claim is true or false"
    things = {label: sorted(claim.split()[-1] for claim in pairs if pairs[claim] is label) for label in (True, False)}
    assert things[True] == things[False], "no thing gives the label away"
    lies, truths = honest.answers[..., 0].T
    for text, lie, truth, label in zip(spell(honest.prompts), lies, truths, honest.labels):
        right, wrong = (model.tokenizer.convert_ids_to_tokens(int(token)).strip("Ġ") for token in (truth, lie))
        facts = {**english.CAPITALS, **{city: country for country, city in english.CAPITALS.items()}}
        assert any(facts[what] == right and facts[what] != wrong for what in facts if what in text)
        assert label is ("always tells the truth" in text)


def test_dimensions_of_a_planted_subspace():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 7, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64))[0]
    text = torch.arange(4000) // 8
    wide = (x - x.mean(0)) @ basis[:7]
    found, low, high, _ = geometry.dimensions(wide, text, 0)
    assert low < 7 < high and found == pytest.approx(7, rel=0.02), "as many as were planted, in any basis"
    alike = x[::8].repeat_interleave(8, dim=0) @ basis[:7]
    found, low, high, _ = geometry.dimensions((alike - alike.mean(0))[:480], text[:480], 0)
    assert low < 7 < high, "tokens of one text that are alike do not make it look narrower"
    own = geometry.dimensions(torch.randn(4000, 40, generator=generator) * torch.arange(1, 41), text, 0)
    squares = torch.arange(1, 41.0) ** 2
    assert own[[0, 3]].tolist() == pytest.approx([float(squares.sum() ** 2 / (squares**2).sum())] * 2, rel=0.05)


def test_features_that_share_dimensions():
    assert torch.allclose(geometry.own(torch.eye(5) * 3), torch.ones(5)), "orthogonal: one dimension each"
    assert torch.allclose(geometry.own(torch.eye(4).repeat(2, 1)), torch.full((8,), 0.5)), "pairs: half of one each"
    angle = torch.arange(5) * 2 * torch.pi / 5
    pentagon = torch.stack([angle.cos(), angle.sin()], dim=1)
    assert torch.allclose(geometry.own(pentagon), torch.full((5,), 2 / 5)), "five in a plane, as well as can be"


def test_superposition(embedded):
    from scipy.stats import kurtosis

    arrays, found, said, shown = asked(superposition, draws=19, features=200)
    cfg = superposition.Config(n=12, draws=19, features=200)
    _, tokens = superposition.inputs(cfg)
    site = Site("mlp_post", 2)
    x = embedded.run(tokens, site)[site][:, 1:24].numpy().astype(float)
    about = (x - x.mean((0, 1))).reshape(-1, x.shape[-1])
    by_hand = kurtosis(about, axis=1, fisher=False).reshape(12, 23).mean(1)
    np.testing.assert_allclose(arrays["kurtosis"].sel(kind="neurons", layer=2), by_hand, rtol=1e-4)
    for kind, width in (("residual stream", 128), ("neurons", 512)):
        chance = 3 * (width - 1) / (width + 1)  # of a direction at random, whatever the activations
        np.testing.assert_allclose(arrays["rotated"].sel(kind=kind).mean("rotation"), chance, atol=0.05)
    site = Site("resid_post", 3)
    stream = embedded.run(tokens, site)[site][:, 1:24].flatten(0, 1)
    variance = torch.linalg.svdvals(stream - stream.mean(0)) ** 2
    np.testing.assert_allclose(arrays["spectrum"].sel(layer=3), variance / variance.sum(), atol=1e-5)
    naive = float(variance.sum() ** 2 / (variance**2).sum())
    assert naive < found["dimensions_stream"] < 1.5 * naive, "pairs within a text are left out"
    assert found["share_unembedding"] == pytest.approx(float(arrays["features"].sel(set="unembedding").mean()))
    assert f"{found['dimensions_stream']:.2f}" in said and "Coordinates matter in the neurons" in said
    lengths = weights.unembedding(embedded, torch.tensor(arrays["features"]["feature"].values))
    squares = (lengths - lengths.mean(0)).square().sum(-1)
    random = squares / (
        squares + (squares.sum() - squares) / 128
    )  # directions at random share 1 / 128 of their squares
    table = arrays["feature_table"].sel(set="unembedding")
    assert float(table["random"]) == pytest.approx(float(random.mean()), rel=0.02) and float(table["best"]) == 128 / 200
    assert set(shown) == {"dimensions", "spectrum", "basis", "features"}


def test_texts_of_ones_own(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("the dog runs .\n\n" * 3)
    cfg = superposition.Config(data=str(file), n=3)
    _, tokens = superposition.inputs(cfg)
    assert len(tokens) == 3
    with pytest.raises(ValueError, match=r"of draws=9 at random, none can show p ≤ 0\.05; give 19 or more"):
        superposition.inputs(superposition.Config(draws=9))
    with pytest.raises(ValueError, match=r"has 3 texts, one on a line, and n=4 were asked for; give n=3"):
        superposition.inputs(superposition.Config(data=str(file), n=4))
    with pytest.raises(ValueError, match=r"there is no file 'none\.txt'; give one with a text on each line"):
        superposition.inputs(superposition.Config(data="none.txt", n=4))
