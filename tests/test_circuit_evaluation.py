"""Circuits keep and lose what an independent computation says; selection finds what sorting finds."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch.testing import assert_close
from wired import EXACT, METRIC, model_of, pair

from interp import Site, circuits, edits, metrics, stats
from interp.arrays import checks_of
from interp.circuits import Rule
from interp.circuits.ablations import ABLATIONS, ablated
from interp.donors import donors
from interp.zoo import handset

FAMILIES = ("gpt2", "llama", "gpt_neox")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return model_of(request.param)


def many(model):
    """Four prompts of one length and four others, with padding in none."""
    generator = torch.Generator().manual_seed(3)
    return [model.tokens(torch.randint(1, 30, (4, 6), generator=generator)) for _ in range(2)]


def some_circuit(graph, share: float = 0.3, seed: int = 0):
    kept = torch.rand(graph.precedes.shape, generator=torch.Generator().manual_seed(seed)) < share
    return (kept & graph.precedes).float()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", EXACT)
def test_all_edges_are_the_clean_run_and_none_the_corrupt_one(family, dtype):
    model = model_of(family, dtype)
    clean, corrupt = pair(model)
    graph = circuits.graph(model)
    sets = {"all": graph.mask(), "none": 0 * graph.mask(), "some": some_circuit(graph)}
    found = circuits.evaluate(model, clean, corrupt, sets, METRIC)
    high, low = (METRIC(model.run(tokens)).to(torch.float64) for tokens in (clean, corrupt))
    tolerance = dict(atol=EXACT[dtype] * float((high - low).abs().max()), rtol=0)
    for name, value in {"all": high, "none": low}.items():
        assert_close(torch.tensor(found["metric"].sel(circuit=name).values).double(), value, **tolerance)
    assert_close(torch.tensor(found["full"].values).double(), high, **tolerance)
    assert_close(torch.tensor(found["empty"].values).double(), low, **tolerance)
    one = circuits.evaluate(model, clean, corrupt, {"some": sets["some"]}, METRIC)["metric"].values[0]
    assert_close(torch.tensor(one), torch.tensor(found["metric"].sel(circuit="some").values), **tolerance)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_all_and_none_of_the_edges_under_every_ablation(model, ablation):
    graph = circuits.graph(model)
    clean, corrupt = many(model)
    sets = {"all": graph.mask(), "none": 0 * graph.mask(), "some": some_circuit(graph)}
    found = circuits.evaluate(model, clean, corrupt, sets, METRIC, ablation)
    np.testing.assert_allclose(found["metric"].sel(circuit="all"), METRIC(model.run(clean)), atol=1e-10)
    np.testing.assert_allclose(found["metric"].sel(circuit="none"), found["empty"], atol=1e-10)
    assert found["edges"].values.tolist() == [int(graph.precedes.sum()), 0, int(sets["some"].sum())]


def test_zeros_and_means_are_those_of_ablated_sites(model):
    """A node whose edges are all ablated, and everything ablated, beside edits of the sites."""
    clean, corrupt = many(model)
    graph, head = circuits.graph(model), Site("z", 1)
    sets = {"without L1H2": graph.mask() - graph.mask([("L1H2", "*")])}
    source = model.run(corrupt, read=[head])
    for ablation, edit in {"zero": edits.zero(head, head=2), "mean": edits.mean(source, head, head=2)}.items():
        found = circuits.evaluate(model, clean, corrupt, sets, METRIC, ablation)
        wanted = METRIC(model.run(clean, edits=[edit]))
        assert_close(torch.tensor(found["metric"].values[0]), wanted, atol=1e-10, rtol=0)
    nothing = [edits.zero(Site("resid_pre", 0)), *map(edits.zero, model.sites("z", "mlp_out"))]
    found = circuits.evaluate(model, clean, corrupt, sets, METRIC, "zero")
    assert_close(torch.tensor(found["empty"].values), METRIC(model.run(clean, edits=nothing)), atol=1e-9, rtol=0)


def test_resampling_is_the_mean_over_donors(model):
    clean, corrupt = many(model)
    graph, head = circuits.graph(model), Site("z", 0)
    sets = {"without L0H1": graph.mask() - graph.mask([("L0H1", "*")])}
    found = circuits.evaluate(model, clean, corrupt, sets, METRIC, "resample", resamples=2, seed=5)
    rows = [exchange.others[0, :, 0] for exchange in ablated(model, clean, corrupt, METRIC, "resample", 2, 5)]
    embedded = ablated(model, clean, corrupt, METRIC, "corrupt")[0].others[0, :, 0]
    wanted = []
    for row in rows:
        chosen = [int((embedded - one).abs().sum((1, 2)).argmin()) for one in row]
        assert sorted(chosen) == [0, 1, 2, 3] and all(i != j for i, j in enumerate(chosen))
        source = model.run(corrupt.rows(chosen), read=[head])
        wanted.append(METRIC(model.run(clean, edits=[edits.copy(source, head, head=1)])))
    assert_close(torch.tensor(found["metric"].values[0]), torch.stack(wanted).mean(0), atol=1e-10, rtol=0)


def test_resampled_edges_also_carry_what_stands_before_the_first_difference():
    """Clean and corrupt differ at the last position alone, but prompts differ from each other everywhere."""
    model = model_of("gpt2")
    clean, _ = many(model)
    ids = clean.ids.clone()
    ids[:, -1] = ids[:, -1] % 29 + 1
    corrupt, head, graph = model.tokens((ids, torch.ones_like(ids))), Site("z", 0), circuits.graph(model)
    sets = {"without L0H1": graph.mask() - graph.mask([("L0H1", "*")])}
    found = circuits.evaluate(model, clean, corrupt, sets, METRIC, "resample", 1, 2)
    (draw,) = donors([0] * 4, None, 1, 2)
    source = model.run(corrupt.rows(draw.tolist()), read=[head])
    wanted = METRIC(model.run(clean, edits=[edits.copy(source, head, head=1)]))
    assert_close(torch.tensor(found["metric"].values[0]), wanted, atol=1e-10, rtol=0)


def test_a_mean_leaves_padding_out():
    model = model_of("gpt2")
    clean, corrupt = pair(model)
    (exchange,) = ablated(model, clean, corrupt, METRIC, "mean")
    first = ablated(model, clean, corrupt, METRIC, "corrupt")[0].others[0]
    assert_close(exchange.others[0, 1, :, 0], first[0, :, 0])
    assert_close(exchange.others[0, 0, :, 3], first[:, :, 3].mean(0))


def test_faithfulness_is_a_ratio_of_means():
    values = {"metric": ("circuit", [[1.0, 3.0]]), "full": (2.0, 4.0), "empty": (0.0, 1.0)}
    dims = {"metric": ("circuit", "prompt"), "full": ("prompt",), "empty": ("prompt",)}
    found = xr.Dataset(
        {name: (dims[name], np.array(values[name][1] if name == "metric" else values[name])) for name in values},
        coords={"circuit": ["c"]},
    )
    assert float(circuits.faithfulness(found)["mean"][0]) == pytest.approx((2.0 - 0.5) / (3.0 - 0.5))
    assert set(circuits.faithfulness(found)) == set(stats.interval(found["metric"]))


def test_what_pruning_removes_changes_nothing(model):
    clean, corrupt = pair(model)
    graph = circuits.graph(model)
    sets = {f"{name} {i}": circuit for i in range(8) for name, circuit in _pruned(graph, i)}
    found = circuits.evaluate(model, clean, corrupt, sets, METRIC)["metric"].values.reshape(8, 2, -1)
    np.testing.assert_allclose(found[:, 0], found[:, 1], atol=1e-10)
    assert np.ptp(found[:, 0]) > 1e-3 and all(sets[f"pruned {i}"].sum() < sets[f"whole {i}"].sum() for i in range(8))


def _pruned(graph, seed: int):
    circuit = some_circuit(graph, 0.12, seed)
    return ("whole", circuit), ("pruned", circuits.prune(graph, circuit))


@pytest.mark.parametrize("rank", ["absolute", "signed"])
def test_the_best_edges_are_those_of_a_sorted_list(rank):
    graph = circuits.graph(model_of("llama"))
    scores = torch.randn(graph.precedes.shape, generator=torch.Generator().manual_seed(0))
    scores = scores.masked_fill(~graph.precedes, torch.nan)
    chosen = circuits.select(graph, scores, 9, rank)
    values = (scores.abs() if rank == "absolute" else scores)[graph.precedes]
    assert chosen.sum() == 9 and not chosen[~graph.precedes].any()
    assert_close(
        scores.abs()[chosen == 1] if rank == "absolute" else scores[chosen == 1],
        (scores.abs() if rank == "absolute" else scores)[chosen == 1],
    )
    assert set((scores.abs() if rank == "absolute" else scores)[chosen == 1].tolist()) == set(
        values.topk(9)[0].tolist()
    )


def test_noising_scores_help_where_they_are_negative():
    model = model_of("gpt2")
    clean, corrupt = pair(model)
    graph = circuits.graph(model)
    found = circuits.eap(model, clean, corrupt, METRIC, direction="noising")
    best = circuits.select(graph, found, 5, "signed")
    mean = torch.from_numpy(found.mean("prompt").values)
    assert mean[best == 1].max() <= mean[graph.precedes].sort()[0][4]


def test_noising_scores_whose_sign_was_changed_are_warned_about():
    model = handset.induction()
    task = model.task
    found = circuits.eap(model.model, task.clean, task.corrupt, task.logit_diff, direction="noising")
    graph = circuits.graph(model.model)
    best = circuits.select(graph, found, 5, "signed")
    with pytest.warns(UserWarning, match="if their sign was changed, take scores.drop_attrs()"):
        circuits.select(graph, -found, 5, "signed")
    assert torch.equal(circuits.select(graph, (-found).drop_attrs(), 5, "signed"), best)


def test_connected_circuits_have_no_edge_that_leads_nowhere():
    graph = circuits.graph(model_of("gpt_neox"))
    scores = torch.rand(graph.precedes.shape, generator=torch.Generator().manual_seed(1))
    grown = circuits.select(graph, scores, 12, connected=True)
    assert grown.sum() == 12
    useful = circuits.prune(graph, torch.maximum(grown, graph.mask([("embed", "*")])))
    assert bool((useful[grown == 1] == 1).all())


def test_random_circuits_have_the_size_asked_for():
    graph = circuits.graph(model_of("qwen2"))
    for connected in (False, True):
        found = circuits.random_circuits(graph, 20, draws=30, seed=2, connected=connected)
        assert {int(circuit.sum()) for circuit in found.values()} == {20} and len(found) == 30
        assert not any(circuit[~graph.precedes].any() for circuit in found.values())
        lost = [20 - int(circuits.prune(graph, circuit).sum()) for circuit in found.values()]
        assert max(lost) == 0 if connected else sum(lost) > 30


def test_edges_that_every_prompt_ranks_alike_are_stable():
    model = model_of("gpt2")
    clean, corrupt = pair(model)
    graph, scores = circuits.graph(model), circuits.eap(model, clean, corrupt, METRIC)
    same = scores.copy(data=np.broadcast_to(scores.values[:1], scores.shape))
    found = circuits.stability(graph, same, 10)
    assert checks_of(found)[0].value == 1 and set(np.unique(found.values[graph.precedes.numpy()])) == {0, 1}
    assert float(found.sum()) == 10 and found.attrs["model"] == scores.attrs["model"]
    noise = scores.copy(data=np.random.default_rng(0).normal(size=scores.shape))
    assert checks_of(circuits.stability(graph, noise, 10))[0].status == "warn"


def test_masks_by_name_are_put_in_order():
    model = model_of("llama")
    clean, corrupt = pair(model)
    graph = circuits.graph(model)
    circuit = some_circuit(graph)
    coords = {"writer": list(graph.writers), "reader": list(graph.readers)}
    named = xr.DataArray(circuit, coords=coords, dims=list(coords))[::-1, ::-1].T
    found = circuits.evaluate(model, clean, corrupt, {"by name": named, "by place": circuit}, METRIC)["metric"]
    np.testing.assert_array_equal(*found.values)


@pytest.mark.parametrize("form", ["list", "boolean", "integers", "NumPy"])
def test_a_set_of_edges_is_the_same_in_every_form(form):
    model = model_of("gpt2")
    given, graph = (model, *pair(model)), circuits.graph(model)
    edges = [("embed", "*"), ("L0H0", "L1H*.q"), ("mlp*", "logits")]
    mask = graph.mask(edges)
    same = {"list": edges, "boolean": mask.bool(), "integers": mask.long(), "NumPy": mask.numpy()}[form]
    for run in (
        lambda some: circuits.evaluate(*given, some, METRIC)["metric"],
        lambda some: circuits.patch_edges(*given, some, METRIC),
        lambda some: circuits.patch_each_edge(*given, METRIC, some),
        lambda some: circuits.minimality(*given, some, METRIC),
        lambda some: circuits.completeness(*given, some, METRIC, {"all": some})["circuit"],
        lambda some: circuits.hypothesis_tests(*given, some, METRIC, draws=10)["knocked_out"],
    ):
        np.testing.assert_array_equal(run(same), run(mask))
    assert torch.equal(circuits.prune(graph, same), circuits.prune(graph, mask))
    assert circuits.to_json(graph, same) == circuits.to_json(graph, mask)


def test_one_circuit_needs_no_name():
    model = model_of("gpt2")
    given, circuit = (model, *pair(model)), some_circuit(circuits.graph(model))
    for run in (circuits.evaluate, circuits.patch_edges):
        assert run(*given, circuit, METRIC).identical(run(*given, {"circuit": circuit}, METRIC))


def test_a_share_of_the_edges_is_a_number_of_them():
    graph = circuits.graph(model_of("gpt2"))  # of 262 edges
    scores = torch.randn(graph.precedes.shape, generator=torch.Generator().manual_seed(0)) * graph.precedes
    for share, number in ((0.1, 26), (0.5, 131), (1.0, 262), (np.float64(0.5), 131)):
        assert torch.equal(circuits.select(graph, scores, share), circuits.select(graph, scores, number))
        for one, other in zip(*(circuits.random_circuits(graph, n, 3).values() for n in (share, number))):
            assert torch.equal(one, other) and int(one.sum()) == number


ERRORS = {
    "half an edge": (
        lambda model, sets: circuits.select(circuits.graph(model), sets["all"], 1.5),
        "a circuit has a whole number of edges, or a share of all from 0.0 to 1.0, not 1.5",
    ),
    "no pair": (
        lambda model, sets: circuits.evaluate(model, "the", "the", {"mine": ["L0H0"]}, METRIC),
        "'mine' should be a mask by (writer, reader), or a list of edges such as ('L0H1', 'L1H0.q'); str 'L0H0' is "
        "neither",
    ),
    "unknown ablation": (
        lambda model, sets: circuits.evaluate(model, "the", "the", sets, METRIC, "noise"),
        "unknown ablation 'noise'; choose from corrupt, mean, zero, resample",
    ),
    "one prompt to resample": (
        lambda model, sets: circuits.evaluate(model, "the store", "the park", sets, METRIC, "resample"),
        "resampling needs other prompts of 2 tokens; the reference has none",
    ),
    "too many edges": (
        lambda model, sets: circuits.select(circuits.graph(model), sets["all"], 10**6),
        "a circuit of 1000000 edges was asked for; 262 edges have scores",
    ),
    "unknown rank": (
        lambda model, sets: circuits.select(circuits.graph(model), sets["all"], 1, "best"),
        "unknown rank 'best'; choose from absolute, signed",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_message(case):
    call, message = ERRORS[case]
    model = model_of("gpt2")
    with pytest.raises(ValueError) as caught:
        call(model, {"all": circuits.graph(model).mask()})
    assert caught.value.args[0] == message


@pytest.fixture(scope="module")
def undefined():
    """A hand-set model, and a metric that is defined in its runs and not in what circuits make of them."""
    made = handset.induction(n=8)
    right, wrong, n = made.task.right[:, 0], made.task.wrong[:, 0], torch.arange(8)
    metric = metrics.Metric("log", lambda logits: ((logits[n, right] - logits[n, wrong]).abs() - 1).log())
    return made, metric


METHODS = {
    "evaluate": lambda given, half, metric: circuits.evaluate(*given, half, metric, "zero"),
    "minimality": lambda given, half, metric: circuits.minimality(*given, half, metric, "zero"),
    "completeness": lambda given, half, metric: circuits.completeness(*given, half, metric, ablation="zero"),
    "hypothesis_tests": lambda given, half, metric: circuits.hypothesis_tests(
        *given, half, metric, draws=10, ablation="zero"
    ),
    "acdc": lambda given, half, metric: circuits.acdc(*given, threshold=0.1, metric=metric, ablation="zero"),
    "scrub": lambda given, half, metric: circuits.scrub(
        *given[:2], {"half": [*"abababab"]}, {"mine": Rule([("*", "*")], "half")}, metric
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_number_is_no_verdict(undefined, method):
    made, metric = undefined
    half = circuits.graph(made.model).mask([("embed", "*")])
    with pytest.raises(ValueError, match="log is not a number in"):
        METHODS[method]((made.model, made.task.clean, made.task.corrupt), half, metric)


@pytest.mark.parametrize("wrong, said", [(np.inf, "not finite"), (-0.5, "a circuit is 1 on its edges and 0 elsewhere")])
def test_what_is_no_circuit_is_refused_in_every_form(model, wrong, said):
    graph, (clean, corrupt) = circuits.graph(model), pair(model)
    tensor = graph.mask()
    tensor[0, 0] = wrong
    array = xr.DataArray(tensor.numpy(), coords={"writer": list(graph.writers), "reader": list(graph.readers)})
    for mask in (tensor, tensor.numpy(), array):
        with pytest.raises(ValueError, match=said):
            circuits.evaluate(model, clean, corrupt, mask, METRIC)
    if wrong == np.inf:
        with pytest.raises(ValueError, match=said):
            circuits.to_json(graph, array)


def test_a_labelled_array_of_truth_values_is_a_circuit(model):
    graph, (clean, corrupt) = circuits.graph(model), pair(model)
    mask = some_circuit(graph)
    array = xr.DataArray(mask.bool().numpy(), coords={"writer": list(graph.writers), "reader": list(graph.readers)})
    found = (circuits.evaluate(model, clean, corrupt, one, METRIC)["metric"].values for one in (mask, array, array * 1))
    first, *others = found
    for other in others:
        np.testing.assert_array_equal(other, first)
    assert torch.equal(circuits.select(graph, array, int(mask.sum())), mask)


def test_what_an_edge_of_a_circuit_loses_ranks_it_as_noising_does():
    made = handset.induction(n=8)
    graph, given = circuits.graph(made.model), (made.model, made.task.clean, made.task.corrupt)
    lost = circuits.minimality(*given, graph.mask(), made.metric)
    best = circuits.select(graph, lost, len(made.edges["corrupt"]), rank="signed")
    assert torch.equal(best, made.mask("corrupt"))


def test_stability_of_one_prompt_or_of_no_edges_is_not_tested(model):
    graph, given = circuits.graph(model), (model, *pair(model))
    scores = circuits.eap(*given, METRIC)
    for some, n in ((scores[:1], 5), (scores, 0)):
        assert checks_of(circuits.stability(graph, some, n))[0].status == "skipped"
    with pytest.raises(ValueError, match="scores by prompt are needed"):
        circuits.stability(graph, scores.mean("prompt"), 5)


@pytest.mark.parametrize("wrong", [{"epsilon": 0.6}, {"quantile": 2}, {"level": 2}])
def test_tests_of_a_circuit_refuse_chances_that_are_none(model, wrong):
    with pytest.raises(ValueError, match="epsilon lies from 0 to below 1/2"):
        circuits.hypothesis_tests(model, *pair(model), circuits.graph(model).mask([("embed", "*")]), METRIC, **wrong)
