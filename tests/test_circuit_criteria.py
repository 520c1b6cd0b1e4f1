"""Completeness, minimality and areas are what their definitions say; tests of circuits are calibrated."""

import numpy as np
import pytest
import torch
import xarray as xr
from wired import METRIC, model_of, pair

from interp import circuits, metrics, stats
from interp.arrays import checks_of
from interp.circuits import hypotheses
from interp.zoo import handset

KNOWN = [("embed", "L0H0.v"), ("L0H0", "logits")]
NAMES = [(one, other) for one in handset.NAMES[2:] for other in handset.NAMES if one != other]
PROMPTS = [[f"<bos> {pair[i]} and :" for pair in NAMES] for i in (0, 1)]
ANSWER = metrics.logit([1 + handset.NAMES.index(one) for one, _ in NAMES])


def some_circuit(graph, share: float = 0.3):
    kept = torch.rand(graph.precedes.shape, generator=torch.Generator().manual_seed(0)) < share
    return (kept & graph.precedes).float()


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_what_is_taken_away_is_ablated(family):
    model = model_of(family)
    given = model, *pair(model)
    graph = circuits.graph(model)
    circuit = some_circuit(graph)
    sets = {"some": circuit * some_circuit(graph, 0.5), "none": 0 * circuit}
    found = circuits.completeness(*given, circuit, METRIC, sets)
    ours = circuits.evaluate(*given, {name: circuit - mask for name, mask in sets.items()}, METRIC)["metric"]
    theirs = circuits.evaluate(*given, {name: graph.mask() - mask for name, mask in sets.items()}, METRIC)["metric"]
    np.testing.assert_allclose(found["circuit"].values, ours.values, atol=1e-10)
    np.testing.assert_allclose(found["model"].values, theirs.values, atol=1e-10)
    drawn = circuits.completeness(*given, graph.mask(), METRIC, draws=5)
    np.testing.assert_allclose(drawn["circuit"].values, drawn["model"].values, atol=1e-10)
    assert checks_of(drawn)[0].value < 1e-6 and list(drawn["set"].values[:2]) == ["nothing", "everything"]


def test_a_circuit_without_the_backup_is_incomplete():
    toy = handset.backup(repair=0.8)
    graph = circuits.graph(toy)
    mover = {"mover": graph.mask([("L0H0", "*")])}
    for circuit, error in ((graph.mask() - graph.mask([("L1H0", "logits")]), 0.8), (graph.mask(), 0.0)):
        found = circuits.completeness(toy, *PROMPTS, circuit, ANSWER, mover, ablation="zero")
        gap = float((found["model"] - found["circuit"]).mean())
        assert gap == pytest.approx(4 * error, abs=0.05)


def test_each_edge_is_taken_alone():
    model = model_of("llama")
    given = model, *pair(model)
    graph = circuits.graph(model)
    circuit = some_circuit(graph)
    found = circuits.minimality(*given, circuit, METRIC)
    assert int((~found.isnull()).sum()) == 2 * int(circuit.sum())
    edges = [(graph.writers[w], graph.readers[r]) for w, r in circuit.nonzero()[[0, 7, -1]].tolist()]
    sets = {"whole": circuit} | {"-".join(edge): circuit - graph.mask([edge]) for edge in edges}
    values = circuits.evaluate(*given, sets, METRIC)["metric"]
    empty = circuits.evaluate(*given, {"whole": circuit}, METRIC)["empty"]
    gain = float(abs((values.sel(circuit="whole") - empty).mean()))
    sizes = abs(found.mean("prompt").values[circuit.bool().numpy()]) / gain
    assert checks_of(found)[0].value == pytest.approx((sizes < 0.01).mean()) and ((sizes > 0.01) & (sizes < 0.5)).any()
    for writer, reader in edges:
        wanted = values.sel(circuit=f"{writer}-{reader}") - values.sel(circuit="whole")
        np.testing.assert_allclose(found.sel(writer=writer, reader=reader).values, wanted.values, atol=1e-10)


def test_an_edge_that_carries_nothing_is_not_needed():
    toy = handset.backup(repair=0.0)
    circuit = circuits.graph(toy).mask([*KNOWN, ("L0H1", "logits")])
    found = circuits.minimality(toy, *PROMPTS, circuit, ANSWER)
    assert checks_of(found)[0].value == pytest.approx(1 / 3)


@pytest.mark.parametrize("rank", ["absolute", "signed"])
def test_areas_are_sums_of_trapezoids(rank):
    model = model_of("llama")  # of which the signed circuits do more than the model
    given = model, *pair(model)
    graph = circuits.graph(model)
    scores = circuits.eap(*given, METRIC)
    shares = (0.01, 0.05, 0.2, 0.6, 1.0)
    found = circuits.areas(*given, scores, METRIC, rank, shares=shares)
    total, under, away, before = int(graph.precedes.sum()), 0.0, 0.0, None
    for share in shares:
        circuit = circuits.select(graph, scores, int(share * total), rank)
        values = circuits.evaluate(*given, {"c": circuit}, METRIC)
        f = float((values["metric"][0] - values["empty"]).mean() / (values["full"] - values["empty"]).mean())
        assert float(found["faithfulness"].sel(share=share, bound="mean")) == pytest.approx(f, abs=1e-6)
        if before is not None:
            under += (share - before[0]) * (f + before[1]) / 2
            away += (share - before[0]) * (abs(1 - f) + abs(1 - before[1])) / 2
        before = share, f
    assert (rank == "signed") == (float(found["faithfulness"].sel(bound="mean").max()) > 1.1)
    assert float(found["cpr"].sel(bound="mean")) == pytest.approx(under, abs=1e-6)
    assert float(found["cmd"].sel(bound="mean")) == pytest.approx(away, abs=1e-6)
    assert bool((found.sel(bound="low") <= found.sel(bound="high")).cpr) and found.attrs["rank"] == rank


@pytest.mark.parametrize("ablation", ["corrupt", "resample"])
def test_resampled_prompts_are_as_many_as_asked_for_and_recorded(ablation):
    model = model_of("gpt2")
    clean, corrupt = pair(model)
    clean, corrupt = (
        model.tokens(
            (torch.cat([some.ids[:1], some.ids[:1].flip(1), (some.ids[:1] + 3) % 30]), torch.ones(3, 7).long())
        )
        for some in (clean, corrupt)
    )
    given = model, clean, corrupt
    graph = circuits.graph(model)
    circuit, scores = some_circuit(graph), circuits.eap(*given, METRIC)
    values = {}
    for n in (1, 3):
        exact = circuits.evaluate(*given, {"c": circuit}, METRIC, ablation, resamples=n)
        options = dict(ablation=ablation, resamples=n)
        found = [
            circuits.completeness(*given, circuit, METRIC, {"none": 0 * circuit}, **options),
            circuits.minimality(*given, circuit, METRIC, **options),
            circuits.areas(*given, scores, METRIC, shares=[0.3, 1.0], draws=10, **options),
            circuits.hypothesis_tests(*given, circuit, METRIC, draws=10, **options),
        ]
        assert [some.attrs.get("resamples") for some in [exact, *found]] == [n if ablation == "resample" else None] * 5
        np.testing.assert_allclose(found[0]["circuit"].values[0], exact["metric"].values[0], atol=1e-10)
        values[n] = [some.values for some in (exact["metric"], found[1], found[2]["cpr"], found[3]["knocked_out"])]
    same = [np.allclose(one, three, equal_nan=True, atol=1e-9) for one, three in zip(values[1], values[3])]
    assert same == [ablation == "corrupt"] * 4


def test_a_function_of_means_has_the_interval_of_the_mean():
    rng = np.random.default_rng(0)
    top, bottom = (xr.DataArray(rng.normal(size=(9, 4)) + shift, dims=("prompt", "cell")) for shift in (0, 5))
    value, low, high = stats.of_means(lambda mean: mean, top)
    wanted = stats.interval(top)
    np.testing.assert_allclose([value, low, high], [wanted["mean"], wanted["low"], wanted["high"]])
    value, low, high = stats.of_means(lambda one, two: one / two, top, bottom)
    wanted = stats.ratio(top, bottom)
    np.testing.assert_allclose([value, low, high], [wanted["mean"], wanted["low"], wanted["high"]])


def test_the_circuit_of_a_model_set_by_hand_passes():
    toy = handset.backup(repair=0.0)
    graph = circuits.graph(toy)
    tested = lambda edges: circuits.hypothesis_tests(
        toy, *PROMPTS, graph.mask(edges), ANSWER, draws=60, quantile=0.7
    )  # a circuit of two edges is not rare among random ones
    found = tested(KNOWN)
    assert {check.name: check.status for check in checks_of(found)} == dict.fromkeys(hypotheses.TESTS, "pass")
    assert float(found["knocked_out"].min()) > 1
    more = tested([*KNOWN, ("L0H1", "logits")])
    assert not bool(more["holds"].sel(test="minimality")) and float(more["knocked_out"].min()) == 0
    less = tested([("L0H1", "logits")])
    assert not bool(less["holds"].sel(test=["sufficiency", "partial necessity"]).any())


def test_equivalence_is_the_binomial_test():
    assert hypotheses._equivalence(np.ones(20), 0.1) == pytest.approx(0.6**20 + 0.4**20)
    assert hypotheses._equivalence(np.array([1.0, -1.0] * 10), 0.1) == pytest.approx(1)
    assert hypotheses._equivalence(np.zeros(20), 0.1) == pytest.approx(1)


def test_independence_is_rejected_as_often_as_it_should_be():
    rng = np.random.default_rng(0)
    p = [hypotheses._independence(*rng.normal(size=(2, 16)), 99, seed) for seed in range(300)]
    assert np.mean(np.array(p) <= 0.05) < 0.09 and 0.4 < np.mean(p) < 0.6
    x = rng.normal(size=24)
    assert hypotheses._independence(x, x**2, 199, 0) < 0.05  # not a correlation: a dependence


def test_random_edges_are_less_than_random_as_seldom_as_it_should_be():
    rng = np.random.default_rng(1)
    edges, null = rng.normal(size=2000), rng.normal(size=100)
    p = hypotheses._less_than_random(edges, null, 0.9)
    best = edges > np.quantile(null, 0.93)
    assert np.mean(p[best] < 0.05) < 0.05 and np.mean(p[~best] < 0.05) > 0.8
    assert hypotheses._better(np.ones(100), 0.9) == pytest.approx(0.9**100)


ERRORS = {
    "edges that the circuit lacks": (
        lambda m, given, g: circuits.completeness(*given, g.mask(KNOWN), METRIC, {"all": g.mask()}),
        "the set 'all' has edges that the circuit lacks; only edges of the circuit are taken away",
    ),
    "no edge": (
        lambda m, given, g: circuits.minimality(*given, 0 * g.mask(), METRIC),
        "edges of a circuit by (writer, reader) are tried; 0 of (16, 40)",
    ),
    "shares": (
        lambda m, given, g: circuits.areas(*given, g.mask(), METRIC, shares=[0.5, 0.1]),
        "shares of all edges rise from above 0 to at most 1; [0.5, 0.1] do not",
    ),
    "few draws": (
        lambda m, given, g: circuits.hypothesis_tests(*given, g.mask(KNOWN), METRIC, draws=5),
        "a p-value needs at least ten draws; draws=5 was given",
    ),
    "all edges": (
        lambda m, given, g: circuits.hypothesis_tests(*given, g.mask(), METRIC),
        "a circuit of some edges is tested, by (writer, reader); this has 262 edges",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_message(case):
    call, message = ERRORS[case]
    model = model_of("gpt2")
    with pytest.raises(ValueError) as caught:
        call(model, (model, *pair(model)), circuits.graph(model))
    assert caught.value.args[0] == message
