"""What is said of probes: nulls that stay nulls, a weak signal that is found, use that is use, erasure that erases."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
import xarray as xr
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torch.testing import assert_close
from xarray.testing import assert_allclose

from interp import Site, edits, metrics, plots, probing, stats, tasks
from interp.arrays import checks_of
from interp.probing.estimators import ESTIMATORS
from interp.probing.mdl import _blocks, codelength
from interp.probing.permutation import PENALTIES, p_values, shuffle_scores
from interp.probing.problems import Features
from interp.probing.scores import effective_dimension, stability
from interp.probing.splits import folds_of, shuffled
from interp.probing.transfer import margins
from interp.probing.verdicts import WAYS, overall, verdicts
from interp.zoo.scorecard.planted import decodable_or_used

GROUPS = [f"g{i // 6}" for i in range(120)]


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _report(embedded, x, y, seed=0, groups=GROUPS, how=None, **more):
    """A report on made-up activations (place, prompt, d) of prompts without a meaning."""
    data = tasks.from_labels(embedded, ["the dog"] * x.shape[1], y, groups[: x.shape[1]], **more)
    sites = embedded.sites("resid_post")[: len(x)]
    shard = {str(site): values[:, None] for site, values in zip(sites, x)}
    kept = probing.Activations(sites, [-1], 0, x.shape[1], [shard])
    how = dict(by="lda", shuffles=79, controls=False) | (how or {})
    return probing.probe(embedded, data, sites, seed=seed, activations=kept, **how)


def test_shuffled_labels_are_rarely_significant_anywhere(embedded):
    """Of forty runs at 2.5 %, more than four would be found by chance once in 250 times."""
    x, whole = _random(4, 120, 24), [bool(i // 6 % 2) for i in range(120)]
    rows = shuffled(torch.tensor(whole), GROUPS, 40, torch.Generator().manual_seed(3))
    reports = [_report(embedded, x, row.tolist(), seed) for seed, row in enumerate(rows)]
    assert sum(bool((report.verdict != "absent").any()) for report in reports) <= 4


def test_a_planted_weak_signal_is_found_at_its_place(embedded):
    x, y = _random(4, 120, 24, seed=1), torch.arange(120) % 2
    x[2, :, 5] += 1.3 * y
    report = _report(embedded, x, y.tolist())
    assert report.verdict.values.ravel().tolist() == ["absent", "absent", "decodable", "absent"]
    assert 0.55 < float(report.accuracy[2, 0]) < 0.85
    assert report.attrs["verdict"].startswith("label is decodable at 1 of 4 places")


def _off_label(seed, signal):
    """Sixteen groups of a label each, from which one of its eight prompts differs; and groups that differ in noise."""
    base, groups = torch.randint(0, 2, (16,), generator=torch.Generator().manual_seed(seed)), torch.arange(128) // 8
    base[:3], base[3:6] = 0, 1
    y = base[groups]
    y[::8] = 1 - y[::8]
    x = 0.3 * _random(16, 24, seed=seed + 1)[groups] + 0.5 * _random(128, 24, seed=seed + 2)
    x[:, 0] += signal * base[groups]
    return x, y, [f"g{i}" for i in groups.tolist()]


def test_one_prompt_of_another_label_in_each_group_hides_nothing(embedded):
    x, y, groups = _off_label(0, 2)
    report = _report(embedded, x[None], y.tolist(), groups=groups)
    assert report.accuracy.item() > 0.7 and report.verdict.item() == "decodable"


def test_exchanged_groups_make_no_signal_of_what_groups_differ_in():
    """Of a hundred nulls, p <= 0.1 would be found more than 17 times once in 100 times."""
    found = 0
    for seed in range(100):
        x, y, groups = _off_label(10 * seed, 0)
        rows = torch.cat([y[None], shuffled(y, groups, 39, torch.Generator().manual_seed(seed))])
        scores = shuffle_scores(Features(x[None]), rows, 2, folds_of(torch.zeros(128), 0, groups, seed=seed))
        found += float(p_values(scores.correlation)) <= 0.1
    assert found <= 17


def test_what_few_groups_or_few_shuffles_cannot_tell_is_undecided(embedded):
    """Of eight groups, 35 labellings differ: none can be the best of forty."""
    x, y = _random(1, 120, 24), (torch.arange(120) // 6 % 2)
    x[0, :, 0] += 20 * y
    few = _report(embedded, x[:, :48], y[:48].tolist())
    assert few.verdict.item() == "undecided" and few.p.item() == pytest.approx(1 / 35)
    wanted = (
        "its groups allow only 34 other labellings, so that the least p-value is 0.029, which is above 0.025; give more"
    )
    assert "read with accuracy 1.00 at layer 0, pos -1, but " + wanted in few.attrs["verdict"]
    assert {c.name: c.status for c in checks_of(few)}["least p-value that there can be"] == "warn"
    short = _report(embedded, x, y.tolist(), how={"shuffles": 38})
    assert (
        "only 38 shuffles were drawn" in short.attrs["verdict"] and "give shuffles=39 or more" in short.attrs["verdict"]
    )
    assert _report(embedded, x, y.tolist(), how={"shuffles": 39}).verdict.item() == "decodable"
    noise = _report(embedded, _random(1, 120, 24, seed=4), y.tolist(), how={"shuffles": 19})
    assert noise.p.item() > 0.05 and noise.verdict.item() == "absent"


def test_the_null_of_an_accuracy_is_its_own(embedded):
    """Where 90 % are of one class, who knows nothing is right in 90 %, and in half of the balanced ones."""
    y = torch.arange(120) % 10 == 0
    report = _report(embedded, _random(2, 120, 24), y.tolist())
    assert (
        report.attrs["majority"] == 0.9 <= float(report.null_accuracy.min()) <= report.attrs["null_of_the_best"] < 0.95
    )
    assert 0.5 < float(report.null_balanced_accuracy.max()) <= report.attrs["balanced_null_of_the_best"] < 0.75
    for value, name in (("accuracy", "null_of_the_best"), ("balanced_accuracy", "balanced_null_of_the_best")):
        assert max(plots.probes(report, value).data[0].y) == report.attrs[name]


def test_controls_do_not_change_the_shuffles(embedded):
    data = tasks.concepts.refusal(embedded, 60)
    sites, how = embedded.sites("resid_post", layers=[0]), dict(at=["verb", -1], by="lda", shuffles=39, causal=False)
    alone, beside = (probing.probe(embedded, data, sites, controls=on, **how) for on in (False, True))
    assert_allclose(alone[["p", "null_accuracy", "correlation"]], beside[["p", "null_accuracy", "correlation"]])


@pytest.mark.parametrize("width", [10, 80])
def test_the_statistic_of_the_shuffles_is_that_of_the_best_ridge_regression(width):
    x, y = _random(1, 60, width), (torch.arange(60) % 3)
    x[0, :, 0] += y
    fold = folds_of(y, 3, None, split="random")
    found = shuffle_scores(Features(x), torch.stack([y, y.flip(0)]), 3, fold)
    for i, labels in enumerate((y, y.flip(0))):
        target, wanted, scores = np.eye(3)[labels], np.zeros((60, 3)), np.zeros((len(PENALTIES), 60, 3))
        for f in range(5):
            train = (fold != f).numpy()
            scaler = StandardScaler().fit(x[0][train].numpy())
            train_x, test_x = (scaler.transform(x[0][part].numpy()) for part in (train, ~train))
            wanted[~train] = target[~train] - target[train].mean(0)
            for penalty, row in zip(PENALTIES, scores):
                model = Ridge(alpha=penalty * width).fit(train_x, target[train])
                row[~train] = model.predict(test_x) - target[train].mean(0)
        sizes = np.sqrt((scores**2).sum(1) * (wanted**2).sum(0))
        correlation = ((scores * wanted).sum(1) / sizes).mean(-1)
        assert float(found.correlation[0, i]) == pytest.approx(correlation.max(), abs=1e-4)
        best = scores[correlation.argmax()]
        right = best.argmax(1) == labels.numpy()
        assert float(found.balanced[0, i]) == pytest.approx(np.mean([right[labels == c].mean() for c in range(3)]))
        assert float(found.accuracy[0, i]) == pytest.approx(
            np.mean((best + target - wanted).argmax(1) == labels.numpy())
        )


def test_features_that_depend_on_each_other_are_scored_however_many_examples_there_are():
    x, y = _random(100_000, 1) @ _random(1, 32, seed=1), torch.arange(100_000) % 2
    found = shuffle_scores(Features(x[None]), y[None], 2, torch.arange(100_000) % 5)
    assert abs(float(found.correlation)) < 0.02


def test_what_was_learnt_by_heart_is_seen_and_does_not_depend_on_the_other_places(embedded):
    data = tasks.concepts.untaught(embedded, n=480)
    how = dict(at=["END"], controls=False, shuffles=79)
    sites = embedded.sites("resid_post")
    alone, among = (probing.probe(embedded, data, some, **how) for some in (sites[:1], sites))
    assert alone.accuracy_low.item() > 0.6 and alone.p.item() <= 0.025  # a strong penalty alone would hide it
    assert_allclose(alone.accuracy, among.accuracy[:1])


def test_no_skill_is_no_verdict_but_says_that_labels_are_not_shuffled(embedded):
    x, y = _random(1, 120, 24, seed=1), torch.arange(120) % 2
    x[0, :, 5] += 1.3 * y
    report = _report(embedded, x, y.tolist())
    assert report.p.item() <= 0.025
    without = report.assign(skill=-report.skill.clip(min=0.1))
    without = without.assign(verdict=verdicts(without))
    assert without.verdict.values.ravel().tolist() == ["absent"]
    assert "(p = 0.013), no probe has skill" in overall(without, "label")


def test_an_online_code_is_the_sum_of_what_each_block_costs():
    x, y = _random(1, 120, 6), (torch.arange(120) % 2)
    x[0, :, 0] += 2 * y
    single = replace(ESTIMATORS["logistic"], penalties=(1.0,), quick=(ESTIMATORS["logistic"].fit,))
    bits, _ = codelength(Features(x), y[None], 2, GROUPS, single)
    blocks = _blocks(y, 2, GROUPS, 0)
    assert all(len(blocks[6 * g : 6 * g + 6].unique()) == 1 for g in range(20))
    exact = float((blocks == 0).sum())
    for b in range(1, int(blocks.max()) + 1):
        train, test = (blocks < b).numpy(), (blocks == b).numpy()
        scaler = StandardScaler().fit(x[0][train].numpy())
        model = LogisticRegression(tol=1e-8, max_iter=5000).fit(scaler.transform(x[0][train].numpy()), y[train])
        logs = model.predict_log_proba(scaler.transform(x[0][test].numpy()))
        exact -= logs[np.arange(test.sum()), y[test]].sum() / np.log(2)
    assert float(bits) == pytest.approx(exact, rel=1e-2)
    noise, _ = codelength(Features(_random(1, 120, 6, seed=5)), y[None], 2, GROUPS, ESTIMATORS["logistic"])
    assert float(bits) < 90 < 120 <= float(noise)


def test_noise_is_told_as_well_by_the_shares_of_the_classes():
    """Of a rare class, too; and whatever the control task has drawn."""
    y = (torch.arange(300) % 10 == 0).long()
    x = Features(_random(1, 300, 6))
    for other in (1 - y, torch.zeros_like(y), torch.arange(300) // 290):
        for by in ("logistic", "lda"):
            bits, prior = codelength(x, torch.stack([y, other]), 2, None, ESTIMATORS[by])
            alone, _ = codelength(x, y[None], 2, None, ESTIMATORS[by])
            assert 0.85 < float(prior[0] / bits[0, 0]) < 1.02
            assert_close(bits[:, :1], alone, atol=0.5, rtol=0)
            assert bool(bits.isfinite().all())
    told = _blocks(y, 2, None, 0) > 0
    assert float(prior[0]) - float((~told).sum()) < 0.6 * float(told.sum())  # a share of 10 % takes 0.47 bits


def test_scores_against_their_definitions():
    scores, positive = torch.tensor([[0.1, 0.5, 0.5, 0.9]]), torch.tensor([False, True, False, True])
    assert stats.auroc(scores.numpy(), positive.numpy()) == [(0.5 + 1 + 1 + 1) / 4]
    turned = torch.tensor([[1.0, 0], [-1, 0], [0, 2]])[None, :, None]
    assert_close(stability(turned), torch.tensor([1 / 3]))
    assert float(effective_dimension(_random(1, 5000, 8))) == pytest.approx(8, rel=0.02)


@pytest.fixture(scope="module")
def gender(embedded):
    data = tasks.concepts.gender(embedded, 120)
    sites = embedded.sites("resid_post", layers=[0, 3])
    return data, probing.probe(embedded, data, sites, ["name", "END"], shuffles=39)


def test_what_is_used_is_told_from_what_cannot_be(gender):
    """Nothing reads the name's stream after the last block: whatever is done there, no answer changes."""
    _, report = gender
    assert report.verdict.sel(pos="END").values.tolist() == ["used", "used"]
    last = report.sel(layer=3, pos="name")
    for name in ("interchange", "erasure", "interchange_placebo", "erasure_placebo"):
        assert abs(float(last[name])) < 1e-6
    assert str(last.verdict.values) in ("absent", "decodable")
    assert report.attrs["verdict"].startswith("pronoun gender is used at 3 of 4 places")


def test_controls_of_a_report(gender):
    _, report = gender
    best = report.sel(layer=3, pos="END")
    assert (
        float(best.skill)
        > 0.9
        > 0.2
        > max(float(best[name]) for name in ("bag_skill", "token_skill", "untrained_skill"))
    )
    assert float(best.selectivity_low) > 0.2 and float(best.compression) > 1.5 > float(best.control_compression)
    assert {check.name: check.status for check in checks_of(report)}["causal use, at the best place for it"] == "pass"
    names = {check.name for check in checks_of(report)}
    assert {"groups", "p-value of the best place", "worst transfer between families"} <= names and len(names) >= 12
    skill = 1 - report.loss.mean("prompt") / report.prior_loss.mean()
    np.testing.assert_allclose(report.skill, skill, rtol=1e-5)


def test_a_probe_of_a_report_reads_what_the_report_says(embedded, gender):
    data, report = gender
    probe = probing.probe_at(report, layer=3, pos="END")
    x = probing.collect(embedded, data.prompts, [Site("resid_post", 3)], ["END"])
    assert probing.accuracy(probe, x.at_place(x.places[0]), data.y) == 1
    with pytest.raises(ValueError, match=r"there is no probe at .* places are"):
        probing.probe_at(report, layer=1, pos="END")


def test_a_report_is_drawn_as_it_is(gender):
    _, report = gender
    band, name, end = plots.probes(report, "accuracy").data
    assert max(band.y) == report.attrs["null_of_the_best"]
    np.testing.assert_array_equal(end.y, report.accuracy.sel(pos="END"))
    np.testing.assert_allclose(name.error_y.array, (report.accuracy_high - report.accuracy).sel(pos="name"))
    with pytest.raises(ValueError, match="there is no 'loss' by layer and position in these probes"):
        plots.probes(report, "loss")


def _margins(within, between, pooled, seed=0, n=480):
    """Margins of prompts in 40 groups and 2 families, of which probes are right with these probabilities."""
    rng, families = np.random.default_rng(seed), np.arange(n) // 2 % 2
    chances = np.where(np.eye(2)[:, families] == 1, within, between)
    scores, whole = (rng.random(p.shape) < p for p in (chances, np.full(n, pooled)))
    groups = [f"g{i // 12}" for i in range(n)]
    rows = scores[None].astype(float), whole[None].astype(float), np.eye(2)[:, families]
    return [float(part[0]) for part in margins(*rows, 0.5, groups, seed)]


def test_what_probes_of_single_families_do_not_read_anywhere_does_not_transfer():
    assert _margins(0.5, 0.5, 0.7)[1] < 0
    assert _margins(0.65, 0.65, 0.7)[0] > 0
    assert _margins(0.9, 0.5, 0.9)[1] < 0


def test_what_transfers_wholly_is_not_called_otherwise_for_noise():
    """Of a concept that is read with 62 % anywhere, the worst of two families falls short by half in many samples."""
    samples = [_margins(0.62, 0.62, 0.62, seed, n=120) for seed in range(60)]
    short, surely = (sum(part[i] < 0 for part in samples) for i in range(2))
    assert short > 15 and surely <= 3


def test_the_verdict_is_that_of_the_bound_and_the_check_says_by_how_much(embedded):
    place = lambda value: xr.DataArray([value], dims="layer")
    table = {"p": place(0.01), "skill": place(0.1), "transfer": place(0.0)}
    moved = {name: place(0.5) for name in ("interchange", "erasure")} | {f"{w}_p": place(0.05) for w in WAYS}
    for margin, high, word in (
        (-0.02, -0.01, "in distribution only"), (-0.02, 0.01, "undecided"), (0.0, 0.01, "decodable")
    ):  # fmt: skip
        here = table | {"transfer_margin": place(margin), "transfer_margin_high": place(high)}
        assert verdicts(xr.Dataset(here)).item() == word
        used = verdicts(xr.Dataset(here | moved)).item()
        assert used == (word if word == "in distribution only" else "used")


def test_what_may_not_transfer_says_what_to_do():
    place = lambda value: xr.DataArray([value], dims="layer", coords={"layer": [1]})
    matrix = xr.DataArray([[[0.9, 0.6], [0.7, 0.9]]], dims=("layer", "train", "test"))
    found = xr.Dataset({"p": place(0.01), "skill": place(0.4), "accuracy": place(0.9), "transfer": matrix})
    found = found.assign(transfer_margin=place(-0.1), transfer_margin_high=place(0.05))
    assert overall(found.assign(verdict=verdicts(found)), "color") == (
        "color is undecided: it is read with accuracy 0.90 at layer 1, but between families, accuracy falls to 0.60, "
        "perhaps by chance; give more groups"
    )


def test_what_was_never_taught_does_not_transfer(embedded):
    data = tasks.concepts.untaught(embedded, 960)
    report = probing.probe(embedded, data, embedded.sites("resid_post", layers=[1]), ["END"], shuffles=39)
    assert report.accuracy.item() > 0.75 and report.p.item() <= 0.025
    assert report.verdict.item() == "in distribution only"
    assert "is read in distribution only" in report.attrs["verdict"]
    assert {c.name: c.status for c in checks_of(report)}["worst transfer between families"] == "fail"


def test_erasure_is_what_a_loop_over_runs_makes_of_it(embedded):
    data, site = tasks.concepts.refusal(embedded, 60), Site("resid_post", 1)
    shares = probing.use(embedded, data, [site], ["verb"], placebos=2, most=30).sel(way="erasure", direction="probe")
    x = embedded.run(data.prompts, [site]).at(site, "verb")
    fold, erased = folds_of(data.y, 2, data.groups), x.clone()
    for f in range(5):
        erased[fold == f] = probing.leace(x[fold != f], data.y[fold != f])(x[fold == f])
    right, wrong = data.answers[torch.arange(60), data.y], data.answers[torch.arange(60), 1 - data.y]
    prefers = metrics.logit_diff(right, wrong)
    before, after = (
        prefers(embedded.run(data.prompts, edits=moves))[shares.prompt.values]
        for moves in ([], [edits.put(site, erased, pos="verb")])
    )
    np.testing.assert_allclose(shares[0, 0], (before - after) / before.mean(), atol=1e-3)


@pytest.mark.parametrize("seed", [0, 3, 6])
def test_what_is_read_and_not_used_is_called_so_whatever_the_rounding(seed):
    assert [row.value for row in decodable_or_used(seed)] == [1, 1, 1, 1]


def test_use_is_asked_only_where_the_model_behaves(embedded):
    data = tasks.concepts.refusal(embedded, 48)
    turned = replace(data, answers=data.answers.flip(1), families=None)
    with pytest.raises(
        ValueError, match="the model's answers do not follow refusal: on average the right class's are -"
    ):
        probing.use(embedded, turned, [Site("resid_post", 1)])
    report = probing.probe(embedded, turned, [Site("resid_post", 3)], shuffles=39, folds=4)
    assert (
        report.verdict.item() == "decodable"
        and {c.name: c.status for c in checks_of(report)}["causal use"] == "skipped"
    )
    other = probing.collect(embedded, data.prompts, [Site("resid_post", 2)])
    with pytest.raises(ValueError, match=r"activations are of \(sites, at, heads, prompts\)"):
        probing.probe(embedded, data, [Site("resid_post", 3)], activations=other)


def test_placebos_are_of_the_same_size_and_rank(embedded):
    from interp.probing.causal import _Moves

    basis = torch.linalg.qr(_random(16, 2))[0].T
    sizes = _random(30, 2)
    moves = _Moves(sizes @ basis, sizes, _random(50, 16, seed=2))
    for i in range(4):
        placebo = moves.sizes @ moves.placebo(i, torch.Generator().manual_seed(i))
        assert_close(placebo.norm(dim=-1), moves.delta.norm(dim=-1))
        assert int(torch.linalg.matrix_rank(placebo)) == 2


def test_the_interchange_sets_what_the_probe_reads():
    from interp.probing.causal import _pattern

    x, read = _random(200, 8) @ _random(8, 8, seed=1), _random(2, 8, seed=2)
    write = _pattern(x, read)
    assert_close(write @ read.T, torch.eye(2), atol=1e-4, rtol=0)
    # Of all such changes, the least in the metric of the covariance.
    inverse = torch.linalg.inv(torch.cov(x.T))
    other = write + 0.1 * (torch.eye(8) - torch.linalg.pinv(read) @ read)[:2]
    assert_close(other @ read.T, torch.eye(2), atol=1e-4, rtol=0)
    assert float((write @ inverse * write).sum()) < float((other @ inverse * other).sum())


def test_leace_is_its_closed_form_and_leaves_no_covariance():
    y = (_random(300) > 0.5).long()
    x = _random(300, 6, seed=1).double() @ _random(6, 6, seed=2).double()
    x[:, 1] += 2 * y
    eraser = probing.leace(x, y)
    covariance, apart = torch.cov(x.T, correction=0), ((x - x.mean(0)).T @ (y - y.double().mean())) / 300
    reader = torch.linalg.solve(covariance, apart)
    exact = x - ((x - x.mean(0)) @ reader)[:, None] * apart / (apart @ reader)
    assert_close(eraser(x), exact)
    assert_close(eraser(eraser(x)), eraser(x))
    assert_close(eraser.strength[0], torch.corrcoef(torch.stack([x @ reader, y.double()]))[0, 1])
    three = torch.arange(300) % 3
    assert len(probing.leace(x, three).read) == 2
    doubled = torch.cat([x, x[:, :2]], 1)  # features that are not independent
    assert_close(probing.leace(doubled, y)(doubled)[:, :6], exact, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("share", [0.5, 0.001])
def test_a_fresh_probe_finds_nothing_after_leace_however_rare_the_class(share):
    n = 20000 if share < 0.1 else 2000
    y = (torch.randperm(n, generator=torch.Generator().manual_seed(0)) < share * n).long()
    x = _random(n, 16)
    x[:, 0] += 5 * y
    eraser = probing.leace(x, y)
    apart = lambda z: float((z[y == 1].mean(0) - z[y == 0].mean(0)).norm())
    assert apart(eraser(x)) < 1e-4 * apart(x)
    rows = probing.verify(x, y)
    assert [row.status for row in rows] == ["pass"] * 4 and rows[0].value <= rows[0].threshold
    kept = probing.verify(x, y, erase=lambda x, y: probing.leace(x, torch.arange(len(y)) % 2))
    assert [row.status for row in kept][1:3] == ["warn", "warn"]


def test_inlp_takes_out_one_direction_after_the_other():
    y = torch.arange(600) % 2
    x = _random(600, 10)
    x[:, 0] += 3 * y
    x[:, 1] -= 3 * y
    eraser = probing.inlp(x, y)
    assert_close(eraser.read @ eraser.read.T, torch.eye(len(eraser.read)), atol=1e-4, rtol=0)
    fold = folds_of(y, 2, None)
    left = float(shuffle_scores(Features(eraser(x)[None]), y[None], 2, fold).balanced)
    assert left < 0.56 and float(eraser.strength[0]) > 0.4
    with pytest.raises(ValueError, match="there is nothing to erase"):
        probing.inlp(_random(600, 10), y)


def _contrast(n=400, d=12):
    truth = 2 * (torch.arange(n) % 2) - 1.0
    base = 2 * _random(n, d)
    side = truth[:, None] * torch.eye(d)[0]
    return base + side + 0.3 * _random(n, d, seed=1), base - side + 0.3 * _random(n, d, seed=2), truth


def test_consistent_directions_are_those_of_the_generalised_eigenproblem():
    positive, negative, truth = _contrast()
    found, shares = probing.ccs_directions(positive, negative, k=2)
    centred = [(x - x.mean(0)).double().numpy() for x in (positive, negative)]
    apart, together = centred[0] - centred[1], centred[0] + centred[1]
    difference, whole = apart.T @ apart, apart.T @ apart + together.T @ together
    whole += 1e-2 * np.trace(whole) / 12 * np.eye(12)
    values, vectors = scipy.linalg.eigh(difference, whole)
    np.testing.assert_allclose(shares, values[::-1][:2], rtol=1e-4)
    cosine = abs(found[0].numpy() @ vectors[:, -1]) / np.linalg.norm(vectors[:, -1])
    assert cosine == pytest.approx(1, abs=1e-4)
    right = (((positive - negative) @ found[0] > 0) == (truth > 0)).double().mean()
    assert max(float(right), 1 - float(right)) > 0.95


def test_a_planted_distractor_is_what_the_search_finds(embedded):
    data = tasks.concepts.sentiment(embedded, 120)
    array = probing.ccs(embedded, data, Site("resid_post", 2))
    planted = array.sel(planted=True, by="ccs")
    assert float(planted.sel(label="coin")) > 0.95 > 0.7 > float(planted.sel(label="concept"))
    assert float(array.sel(planted=True, by="supervised", label="concept")) > 0.85
    assert checks_of(array)[1].status == "fail"


def test_a_learnt_subspace_beats_its_nulls(embedded):
    data = tasks.concepts.gender(embedded, 100)
    found = probing.das(embedded, data, Site("resid_post", 3), steps=25, rate=0.05, most=40)
    accuracy = found.accuracy.mean("prompt")
    learnt = float(accuracy.sel(run="learnt"))
    assert learnt > 0.8 and learnt > float(accuracy.drop_sel(run=["learnt", "whole site"]).max()) + 0.2
    basis = torch.tensor(found.basis.sel(run="learnt").values)
    assert_close(basis @ basis.T, torch.eye(1), atol=1e-5, rtol=0)
    assert [check.status for check in checks_of(found)] == ["pass"] * 4


def test_joined_sets_keep_their_roles_and_answers(embedded):
    sets = {name: tasks.CONCEPTS[name](embedded, 20) for name in ("gender", "refusal")}
    both = tasks.joined(embedded, sets)
    assert both.families == ["gender"] * 20 + ["refusal"] * 20 and set(both.prompts.roles) == {"END"}
    for start, part in ((0, sets["gender"]), (20, sets["refusal"])):
        own, merged = (
            embedded.run(d.prompts, last_only=True).logits[:, -1] for d in (part, both.rows(range(start, start + 20)))
        )
        assert_close(own, merged, atol=1e-4, rtol=1e-4)
    rows = torch.arange(40)
    assert_close(both.prompts.ids[rows, both.prompts.role("END")][:20], sets["gender"].prompts.ids[:, -1])
    with pytest.raises(ValueError, match="sets are joined that have the same classes"):
        tasks.joined(embedded, {"a": both, "b": tasks.from_labels(embedded, ["the dog"] * 2, ["x", "y"])})


def test_numbers_are_read_by_ridge_regression(embedded):
    prompts = [f"the war lasted from the year 1 7 {i:02d} to".replace("1 7", "17") for i in range(2, 98)]
    data = tasks.from_labels(embedded, prompts, [float(i) for i in range(96)], [str(i // 4) for i in range(96)])
    report = probing.probe(embedded, data, embedded.sites("resid_post", layers=[0, 2]), by="ridge", shuffles=39)
    assert float(report.skill.max()) > 0.5 and "accuracy" not in report
    with pytest.raises(ValueError, match="ridge predicts numbers, but the labels are classes"):
        probing.probe(embedded, tasks.concepts.gender(embedded, 40), embedded.sites("resid_post"), by="ridge")


def test_heads_and_three_classes_on_any_family(family):
    from conftest import load

    model = load(family)
    names = ["Mary", "John", "Anna"]
    prompts = [f"{a} and {b} went to the {c}" for a in names for b in names for c in ("store", "park", "ball", "drink")]
    data = tasks.from_labels(model, prompts, [p.split()[0] for p in prompts], [p.split()[-1] for p in prompts])
    report = probing.probe(model, data, model.sites("z", layers=[0, 1]), [0, -1], heads=True, folds=4, shuffles=19)
    assert report.skill.dims == ("layer", "pos", "head") and report.weight.dims[-2:] == ("out", "feature")
    assert bool((report.accuracy.sel(pos="0") == 1).all()) and report.sizes["head"] == model.shape.n_heads


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_activations_that_do_not_vary_tell_nothing(embedded, value):
    eraser = probing.leace(torch.full((40, 6), value), torch.arange(40) % 2)
    assert len(eraser.read) == 0 and torch.equal(eraser(torch.ones(3, 6)), torch.ones(3, 6))
    data, sites = tasks.concepts.refusal(embedded, 60), embedded.sites("resid_post", layers=[3])
    shard = {"resid_post.3": torch.full((60, 1, 128), value)}
    kept = probing.Activations(sites, [-1], 0, 60, [shard])
    report = probing.probe(embedded, data, sites, folds=4, shuffles=39, activations=kept)
    assert report.verdict.item() == "absent" and abs(report.skill.item()) < 1e-4
    assert abs(report.interchange.item()) < 1e-5 and abs(report.erasure.item()) < 1e-5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_no_numbers_are_refused_with_their_place(embedded, value):
    x = _random(2, 120, 8)
    x[1, [3, 7]] = value
    with pytest.raises(ValueError, match=r"the features at resid_post\.1, -1 of 2 examples are not finite numbers"):
        _report(embedded, x, (torch.arange(120) % 2).tolist())
    data = tasks.concepts.refusal(embedded, 60)
    kept = probing.Activations(
        [Site("resid_post", 1)], [-1], 0, 60, [{"resid_post.1": torch.full((60, 1, 128), value)}]
    )
    with pytest.raises(ValueError, match=r"the features at resid_post\.1, -1 of 60 examples are not finite numbers"):
        probing.use(embedded, data, kept.sites, activations=kept)


def test_erasure_in_half_precision_is_that_in_single_precision_rounded_once():
    y = torch.arange(4000) % 2
    half = (_random(4000, 16) + 30 * y[:, None] * torch.nn.functional.normalize(_random(16, seed=3), dim=0)).bfloat16()
    eraser = probing.leace(half, y)
    assert torch.equal(eraser(half), eraser(half.float()).bfloat16())
    left = eraser(half).float()
    assert probing.accuracy(probing.fit(left[:2000], y[:2000]), left[2000:], y[2000:]) < 0.53  # else 0.96


def test_what_a_report_cannot_be_made_of_is_refused_by_name(embedded):
    data, sites = tasks.concepts.refusal(embedded, 60), embedded.sites("resid_post", layers=[3])
    with pytest.raises(
        ValueError, match=r"p-values take shuffles of the labels, 39 at least for p <= 0\.025; shuffles=0"
    ):
        probing.probe(embedded, data, sites, shuffles=0)
    for folds in (0, 1, 2):
        with pytest.raises(ValueError, match=f"folds are three at least, .* folds={folds} was asked for"):
            probing.probe(embedded, data, sites, folds=folds)
    with pytest.raises(
        TypeError, match=r"probes take prompts with labels, not a tuple; make them by tasks\.from_labels"
    ):
        probing.probe(embedded, (["the dog", "the cat"], [True, False]), sites)
    with pytest.raises(
        ValueError, match=r"Integers are classes; numbers are given as floats: list\(map\(float, labels"
    ):
        probing.probe(
            embedded, replace(data, labels=[1900 + i % 3 for i in range(60)], families=None), sites, by="ridge"
        )
