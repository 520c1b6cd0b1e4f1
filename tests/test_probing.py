"""Probes: solvers against scikit-learn, no leakage, honest nulls."""

import numpy as np
import pytest
import torch
from conftest import load
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torch.testing import assert_close

from interp import Site, edits, probing, tasks
from interp.probing import logistic
from interp.probing.crossval import out_of_fold, prior_loss
from interp.probing.estimators import ESTIMATORS, estimator_of
from interp.probing.problems import Features, Problems, gram, log_probs
from interp.probing.splits import folds_of, shuffled, without

RNG = torch.Generator()


@pytest.fixture(autouse=True)
def from_the_start():
    """Each test draws the same numbers, whichever ran before it."""
    RNG.manual_seed(0)


def _random(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=RNG, dtype=dtype)


def _cases(n, d, n_classes):
    """Two sites, two labellings, each fitted on some of the examples: features of any scale and offset."""
    x = _random(2, n, d) * torch.logspace(-2, 2, d, dtype=torch.float64) + 100 * _random(d)
    y = torch.randint(0, n_classes, (2, n), generator=RNG)
    y[:, :n_classes] = torch.arange(n_classes)
    x[:, :, 0] += y[0] * 0.01
    used = torch.rand(2, n, generator=RNG) < 0.7
    used[:, :n_classes] = True
    return Features(x), y, used


def _scaled(x, used):
    return StandardScaler().fit(x[used].numpy()).transform(x.numpy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_discriminants_of_features_that_do_not_vary_within_classes_are_finite_and_point_to_the_difference(dtype):
    means = _random(2, 6, dtype=dtype)
    probe = probing.fit(means.repeat_interleave(10, 0), [0] * 10 + [1] * 10, by="lda")
    assert probe.weight.abs().max() < 1 / torch.finfo(dtype).eps ** 2 and torch.isfinite(probe.bias).all()
    assert (probe(means) > 0).tolist() == [False, True]


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("n, d", [(120, 12), (40, 60)])
@pytest.mark.parametrize("by", ["logistic", "lda"])
def test_batched_probes_are_those_of_scikit_learn(by, n, d, n_classes):
    features, y, used = _cases(n, d, n_classes)
    penalty = torch.tensor([[0.3, 0.8]], dtype=torch.float64)
    found = log_probs(ESTIMATORS[by].fit(features, Problems(y, used, penalty, n_classes))(features.x))
    for site in range(2):
        for i in range(2):
            theirs = LogisticRegression(C=1 / float(penalty[0, i]), tol=1e-10, max_iter=10**5)
            if by == "lda":
                theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=float(penalty[0, i]))
            x = _scaled(features.x[site], used[i])
            theirs.fit(x[used[i]], y[i][used[i]])
            np.testing.assert_allclose(found[site, i], theirs.predict_log_proba(x), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("n, d", [(150, 140), (140, 140), (140, 150)])
def test_products_are_those_of_features_unless_there_are_fewer_examples(n, d):
    x, root = torch.randn(2, n, d, dtype=torch.float64), torch.rand(2, n, dtype=torch.float64)
    weighed = x * root[..., None]
    torch.testing.assert_close(gram(x, root), weighed @ weighed.mT if n < d else weighed.mT @ weighed)


def test_ridge_is_that_of_scikit_learn():
    for n, d in ((120, 12), (40, 60)):
        features, _, used = _cases(n, d, 2)
        y, penalty = _random(2, n), torch.tensor([[0.5, 20.0]], dtype=torch.float64)
        found = ESTIMATORS["ridge"].fit(features, Problems(y, used, penalty, 0))(features.x)
        for i in range(2):
            x = _scaled(features.x[1], used[i])
            theirs = Ridge(alpha=float(penalty[0, i])).fit(x[used[i]], y[i][used[i]])
            np.testing.assert_allclose(found[1, i, :, 0], theirs.predict(x), atol=1e-6)


def test_mass_mean_points_along_the_difference_of_means_and_says_log_odds():
    x = torch.cat([_random(30000, 5), _random(10000, 5) + 1.5])
    y = (torch.arange(40000) >= 30000).long()
    probe = probing.fit(x, y, by="mass_mean")
    apart = x[30000:].mean(0) - x[:30000].mean(0)
    assert_close(probe.direction / probe.direction.norm(), apart / apart.norm())
    # Of Gaussian classes with unit covariance, log odds are linear, with these coefficients.
    assert_close(probe.direction, torch.full((5,), 1.5).double(), atol=0.06, rtol=0)
    assert float(probe.bias) == pytest.approx(-5 * 1.5**2 / 2 + np.log(1 / 3), abs=0.3)


def test_a_start_and_company_do_not_move_the_optimum():
    features, y, used = _cases(100, 10, 2)
    strong, weak = (torch.full((1, 2), p, dtype=torch.float64) for p in (100.0, 0.5))
    first = ESTIMATORS["logistic"].fit(features, Problems(y, used, strong, 2))
    problems = Problems(y, used, weak, 2)
    alone = ESTIMATORS["logistic"].fit(features, problems)
    assert_close(
        ESTIMATORS["logistic"].fit(features, problems, first)(features.x), alone(features.x), atol=1e-3, rtol=0
    )
    both = Problems(y.repeat(2, 1), used.repeat(2, 1), torch.cat([strong, weak], 1), 2)
    assert_close(ESTIMATORS["logistic"].fit(features, both)(features.x)[:, 2:], alone(features.x), atol=1e-3, rtol=0)


def test_nothing_of_a_fold_reaches_what_predicts_it():
    """Turn a whole fold's labels, or move one of its examples far away: what predicts the rest of it is the same."""
    y = (torch.arange(90) % 2)[None]
    x = _random(1, 90, 8)
    x[0, :, 0] += 3 * y[0]
    fold = folds_of(y[0], 2, [str(i // 4) for i in range(90)])
    first = out_of_fold(Features(x), y, 2, fold, ESTIMATORS["logistic"])
    for f in range(5):
        inside, turned, moved = fold == f, y.clone(), x.clone()
        turned[:, inside] = 1 - y[:, inside]
        moved[:, inside.nonzero()[0]] = 1e3
        rest = inside.clone()
        rest[inside.nonzero()[0]] = False
        for features, labels, same in ((x, turned, inside), (moved, y, rest)):
            second = out_of_fold(Features(features), labels, 2, fold, ESTIMATORS["logistic"])
            assert_close(first.penalty[..., f], second.penalty[..., f])
            assert_close(first.outputs[:, :, same], second.outputs[:, :, same], atol=1e-3, rtol=1e-3)
            assert not torch.allclose(first.outputs[:, :, ~inside], second.outputs[:, :, ~inside], atol=1e-2)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_sites_that_are_fitted_some_at_a_time_are_fitted_alike(monkeypatch, n_classes):
    x, y = _random(5, 60, 7), (torch.arange(120) % n_classes).view(2, 60)
    x[3, :, 0] += y[0]
    fold = folds_of(y[0], n_classes, None, n_folds=3, split="random")
    whole = out_of_fold(Features(x), y, n_classes, fold, ESTIMATORS["logistic"])
    monkeypatch.setattr("interp.probing.problems._CACHE", 2 * x[0].nbytes)
    apart = out_of_fold(Features(x), y, n_classes, fold, ESTIMATORS["logistic"])
    assert len(Features(x).parts) == 3
    assert_close(whole.penalty, apart.penalty)
    assert_close(whole.outputs, apart.outputs, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("n, d", [(50, 6), (8, 12)])
def test_the_sharpened_curvature_is_the_hessian(n, d):
    """One problem, two classes: the inverse times a vector solves with the Hessian that autograd finds."""
    features, y = Features(_random(1, n, d).double()), (torch.arange(n) % 2)[None]
    problems = Problems(y, torch.ones(1, n, dtype=torch.bool), torch.tensor([[0.7]]), 2)
    objective = logistic._objective(features, problems)
    theta = 0.3 * _random(1, 1, 1, d + 1).double()
    theta.requires_grad_()
    bowl = lambda t: objective.value(t, objective.outputs(t)).sum()
    hessian = torch.autograd.functional.hessian(bowl, theta).view(d + 1, d + 1)[:d, :d]
    with torch.no_grad():
        sharp = objective.sharpened(objective.at(theta, objective.outputs(theta)))
        gradient = _random(1, 1, 1, d + 1).double()
        solved = sharp.curvature.solve(gradient, sharp.penalty)
    assert_close(solved[0, 0, 0, :d], torch.linalg.solve(hessian, gradient[0, 0, 0, :d]))


def test_nested_cross_validation_is_that_of_loops_over_scikit_learn():
    x = _random(1, 90, 6)
    y = (x[0, :, 0] + 0.5 * x[0, :, 1] + _random(90) > 0).long()[None]
    fold = folds_of(y[0], 2, None, n_folds=3, split="random")
    held = out_of_fold(Features(x), y, 2, fold, ESTIMATORS["logistic"])
    for f in range(3):
        table = {}
        for penalty in ESTIMATORS["logistic"].penalties:
            table[penalty] = 0.0
            for g in {0, 1, 2} - {f}:
                train, test = (fold != f) & (fold != g), fold == g
                z = _scaled(x[0], train)
                model = LogisticRegression(C=1 / penalty, max_iter=1000).fit(z[train], y[0][train])
                table[penalty] -= model.predict_log_proba(z[test])[np.arange(int(test.sum())), y[0][test]].sum()
        chosen = float(held.penalty[0, 0, f])
        assert table[chosen] <= 1.001 * min(table.values()), "another may be as good"
        z = _scaled(x[0], fold != f)
        model = LogisticRegression(C=1 / chosen, tol=1e-8, max_iter=1000)
        model.fit(z[fold != f], y[0][fold != f])
        np.testing.assert_allclose(
            held.outputs[0, 0, fold == f, 0], model.decision_function(z[fold == f]), atol=1e-2, rtol=1e-2
        )


def test_estimators_of_scikit_learn_drop_in():
    features, y, used = _cases(120, 12, 2)
    problems = Problems(y, used, torch.ones(1, 2, dtype=torch.float64), 2)
    theirs = estimator_of(LogisticRegression(C=1.0, tol=1e-10, max_iter=10**5), 2).fit(features, problems)
    ours = ESTIMATORS["logistic"].fit(features, problems)
    assert_close(theirs(features.x), ours(features.x), atol=2e-3, rtol=1e-3)
    assert_close(theirs.weight, ours.weight, atol=1e-3, rtol=1e-2)
    from sklearn.neighbors import KNeighborsClassifier

    held = out_of_fold(features, y, 2, folds_of(y[0], 2, None, split="random"), estimator_of(KNeighborsClassifier(), 2))
    assert bool(held.outputs.isfinite().all()) and bool(held.weight.isnan().all())


def test_groups_stay_whole_and_a_random_split_of_them_is_refused():
    groups = [f"g{i % 13}" for i in range(100)]
    y = torch.randint(0, 2, (100,), generator=RNG)
    fold = folds_of(y, 2, groups)
    assert all(len({int(f) for f, g in zip(fold, groups) if g == group}) == 1 for group in groups)
    shares = [float(y[fold == f].double().mean()) for f in range(5)]
    assert max(shares) - min(shares) < 0.4 and {int(f) for f in fold} == set(range(5))
    with pytest.raises(ValueError, match="a random split is refused: 13 groups are known"):
        folds_of(y, 2, groups, split="random")
    with pytest.raises(ValueError, match="folds need at least three groups, not 2"):
        folds_of(y, 2, ["a", "b"] * 50)
    with pytest.raises(ValueError, match="of all prompts, class 1 of 2 is in two folds at most"):
        folds_of((torch.arange(100) < 8).long(), 2, [str(i // 4) for i in range(100)])


def test_shuffles_exchange_what_is_exchangeable():
    groups = [str(i // 5) for i in range(100)]
    whole = (torch.arange(100) // 5) % 2
    for row in shuffled(whole, groups, 20, torch.Generator().manual_seed(0)):
        assert all(len(row[5 * g : 5 * g + 5].unique()) == 1 for g in range(20)) and int(row.sum()) == 50
    mixed = torch.arange(100) % 5
    rows = shuffled(mixed, groups, 20, torch.Generator().manual_seed(0))
    assert bool((rows.view(20, 20, 5).sort(-1).values == torch.arange(5)).all()) and not bool((rows == mixed).all())


def test_shuffles_are_those_that_there_are():
    """Four of eight groups: 70 ways, and 35 up to the names of the classes, one of which is the labels' own."""
    groups, y = [str(i // 3) for i in range(24)], (torch.arange(24) >= 12).long()
    rows = shuffled(y, groups, 199, torch.Generator().manual_seed(0))
    known = {tuple(sorted([tuple(row.tolist()), tuple((1 - row).tolist())])) for row in [y, *rows]}
    assert len(rows) == 34 and len(known) == 35
    assert len(shuffled(y, groups, 20, torch.Generator().manual_seed(0))) == 20


def test_mixed_groups_exchange_their_shares():
    """What groups differ in is shuffled, too, between groups of about one size."""
    sizes = [4, 6, 9, 10] * 6
    groups = [str(g) for g, size in enumerate(sizes) for _ in range(size)]
    y = torch.cat([torch.tensor([1 - g // 4 % 2, *[g // 4 % 2] * (size - 1)]) for g, size in enumerate(sizes)])
    rows = shuffled(y, groups, 200, torch.Generator().manual_seed(0)).double()
    shares = torch.stack([part.mean(1) for part in rows.split(sizes, 1)])
    assert_close(shares.mean(1), torch.full((24,), 0.5).double(), atol=0.1, rtol=0)
    assert bool((shares.std(1) > 0.2).all())


def test_the_prior_loss_is_the_entropy_of_the_other_folds():
    y = torch.tensor([[0, 1, 1, 1, 0, 1]])
    fold = torch.tensor([0, 0, 1, 1, 2, 2])
    # Half an example is added to each class.
    counts = {0: (1, 3), 1: (2, 2), 2: (1, 3)}
    exact = [-np.log((counts[f][c] + 0.5) / 5) for c, f in zip(y[0].tolist(), fold.tolist())]
    np.testing.assert_allclose(prior_loss(y, 2, fold)[0], exact)
    assert without(fold, [[0, 1]]).tolist() == [[False] * 4 + [True] * 2]


def test_a_probe_gives_directions_that_edits_accept(embedded):
    data = tasks.concepts.sentiment(embedded, 60)
    kept = probing.collect(embedded, data.prompts, [Site("resid_post", 2)])
    (place,) = kept.places
    x = kept.at_place(place)
    probe = probing.fit(x, data.y)
    assert probing.accuracy(probe, x, data.y) == 1
    edited = embedded.run(data.prompts, [place.site], [edits.remove(place.site, probe.direction, pos=-1)])
    assert float((edited[place.site][:, -1] @ probe.direction).abs().max()) < 1e-3
    three = probing.fit(x, torch.arange(60) % 3)
    assert_close(three.basis @ three.basis.T, torch.eye(2), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="a probe of 3 classes has no single direction; take its basis"):
        _ = three.direction


def test_one_probe_takes_labels_in_any_form_and_estimators_of_numbers():
    x = _random(60, 4)
    y = (x[:, 0] > 0).long()
    exact = probing.fit(x, y)
    for same in (y.numpy(), y.tolist(), y.bool(), [bool(v) for v in y]):
        assert_close(probing.fit(x, same).weight, exact.weight)
    numbers = probing.fit(x, x[:, 1].numpy(), by=Ridge(alpha=1.0))
    assert_close(numbers.weight, probing.fit(x, x[:, 1], by="ridge").weight)
    assert probing.fit(x, y, by=LogisticRegression()).weight.shape == (1, 4)
    with pytest.raises(ValueError, match=r"60 examples and labels of shape \(59,\) were given; one each is needed"):
        probing.fit(x, y.tolist()[1:])


def test_activations_are_those_of_one_run_in_memory_and_on_disk(embedded, tmp_path):
    data = tasks.concepts.honesty(embedded, 20)
    sites, at = embedded.sites("z"), ["trait", -1]
    trace = embedded.run(data.prompts, sites)
    kept = probing.collect(embedded, data.prompts, sites, at, heads=True, batch=6)
    disk = probing.collect(embedded, data.prompts, sites, at, heads=True, batch=6, folder=tmp_path / "a", budget=60_000)
    again = probing.load(tmp_path / "a")
    assert len(list((tmp_path / "a").glob("*.safetensors"))) > 1
    assert [str(place) for place in again.places] == [str(place) for place in kept.places] and len(kept.places) == 32
    for place in kept.places[::5]:
        exact = trace.at(place.site, place.at)[:, place.head]
        for found in (kept, disk, again):
            assert_close(found.at_place(place), exact, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="give folder= to keep them on disk, or fewer sites"):
        probing.collect(embedded, data.prompts, sites, at, budget=1000)
    with pytest.raises(ValueError, match="is not empty; give another folder, or load"):
        probing.collect(embedded, data.prompts, sites, at, folder=tmp_path / "a")


def test_an_untrained_copy_leaves_the_model_alone(backend):
    from interp.probing.controls import untrained

    model = load("gpt2", backend)
    before, ids = model.fingerprint(), torch.tensor([[4, 5, 6, 7]])
    logits = model.run(ids).logits
    copied = untrained(model, seed=1)
    assert model.fingerprint() == before != copied.fingerprint()
    assert torch.equal(model.run(ids).logits, logits) and not torch.allclose(copied.run(ids).logits, logits)
    assert copied.backend == model.backend
    for name, parameter in copied.module.named_parameters():
        own = dict(model.module.named_parameters())[name]
        assert (parameter.std() / own.std() - 1).abs() < 0.2 if own.ndim > 1 else torch.equal(parameter, own)


def test_a_class_that_no_example_of_a_part_has_leaves_the_others_as_they_are():
    features, y, used = _cases(60, 5, 2)
    penalty = torch.tensor([[0.3, 0.8]], dtype=torch.float64)
    for by in ("lda", "mass_mean"):
        two, three = (
            log_probs(ESTIMATORS[by].fit(features, Problems(y, used, penalty, n))(features.x)) for n in (2, 3)
        )
        assert bool(three.isfinite().all())
        assert_close(three[..., :2].log_softmax(-1), two)
        assert float(three[..., 2].exp().max()) < 0.5
