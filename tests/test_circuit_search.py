"""Searches find the circuits of models whose circuits are known, and ACDC is its own one-by-one loop."""

import numpy as np
import pytest
import torch
from wired import METRIC, model_of, pair

from interp import circuits, metrics, tasks
from interp.circuits.pair import Pair
from interp.zoo import handset

NAMES = "<bos> Anna and :", "<bos> Tom and :"
KNOWN = [("embed", "L0H0.v"), ("L0H0", "logits")]  # of a mover whose backup does nothing


def one_by_one(exchange, threshold: float) -> torch.Tensor:
    """The edges that are kept, by a trial at a time."""
    graph = exchange.run.wiring.graph
    cost = lambda removed: float((exchange.values(removed[None]) - exchange.run.values).abs().mean())
    removed, now = torch.zeros(graph.precedes.shape), 0.0
    for reader in range(len(graph.readers) - 1, -1, -1):
        nodes = [w for w in range(len(graph.writers)) if graph.makes[reader, w]]
        dead = bool(nodes) and all(removed[w, r] == 1 for w in nodes for r in graph.precedes[w].nonzero()[:, 0])
        for writer in range(len(graph.writers) - 1, -1, -1):
            if not graph.precedes[writer, reader]:
                continue
            trial = removed.clone()
            trial[writer, reader] = 1
            if dead or cost(trial) - now < threshold:
                removed, now = trial, now if dead else cost(trial)
    return graph.mask() - removed


@pytest.mark.parametrize("family, threshold", [("gpt2", 0.01), ("llama", 0.1), ("gpt_neox", 0.03)])
def test_acdc_is_a_trial_at_a_time(family, threshold):
    model = model_of(family, **{"n_layer" if family == "gpt2" else "num_hidden_layers": 2})
    clean, corrupt = pair(model)
    found = circuits.acdc(model, clean, corrupt, threshold, METRIC)
    exchange = Pair.of(model, clean, corrupt, "noising").exchange(METRIC)
    kept = torch.from_numpy(found.values).nan_to_num()
    np.testing.assert_array_equal(kept, one_by_one(exchange, threshold))
    assert 0 < kept.sum() < circuits.graph(model).mask().sum() and found.attrs["edges"] == int(kept.sum())
    values = circuits.evaluate(model, clean, corrupt, {"found": found}, METRIC)
    distance = float(abs(values["metric"] - values["full"]).mean())
    assert distance == pytest.approx(found.attrs["distance"], abs=1e-6)


@pytest.mark.parametrize("metric", [None, metrics.logit(3)])
def test_acdc_finds_the_circuit_of_a_model_set_by_hand(metric):
    toy = handset.backup(repair=0.0)
    found = circuits.acdc(toy, *NAMES, 0.01, metric)
    np.testing.assert_array_equal(np.nan_to_num(found.values), circuits.graph(toy).mask(KNOWN))


def test_a_learned_mask_ranks_the_edges_of_the_circuit_first():
    toy = handset.backup(repair=0.0)
    found, again = (circuits.learn_mask(toy, *NAMES, steps=60, seed=1) for _ in "ab")
    graph = circuits.graph(toy)
    np.testing.assert_array_equal(circuits.select(graph, found, len(KNOWN)), graph.mask(KNOWN))
    assert bool((found.values[graph.mask(KNOWN).numpy() == 1] > 0.5).all())
    np.testing.assert_array_equal(again.values, found.values)


def test_more_penalty_leaves_fewer_edges():
    model = model_of("gpt2")
    given = model, *pair(model)
    little, much = (circuits.learn_mask(*given, penalty, steps=30, rate=0.3) for penalty in (0.1, 30.0))
    assert float((much > 0.5).sum()) < float((little > 0.5).sum())


def test_nothing_is_trained_but_the_mask():
    model = model_of("gpt2")
    before = model.fingerprint()
    circuits.learn_mask(model, *pair(model), steps=3)
    assert model.fingerprint() == before and all(p.grad is None for p in model.module.parameters())


ERRORS = {
    "no threshold": (
        lambda m, c, d: circuits.acdc(m, c, d, 0.0),
        "edges are removed up to a distance above 0; threshold=0.0 was given",
    ),
    "resampling": (
        lambda m, c, d: circuits.acdc(m, c, d, 0.1, ablation="resample"),
        "a search needs one thing that removed edges carry: corrupt, mean or zero, not resample",
    ),
    "nothing to keep": (
        lambda m, c, d: circuits.learn_mask(m, c, c),
        "without any edge the metric is that of the model: these prompts leave nothing to keep",
    ),
    "no steps": (
        lambda m, c, d: circuits.learn_mask(m, c, d, steps=0),
        "steps and samples from 1 on and a penalty above 0, not 0, 2 and 1.0",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_message(case):
    call, message = ERRORS[case]
    model = model_of("gpt2")
    with pytest.raises(ValueError) as caught:
        call(model, *pair(model))
    assert caught.value.args[0] == message


def test_a_mask_is_not_learnt_from_a_metric_without_a_gradient(embedded):
    task = tasks.ioi(embedded, n=2, seed=0)
    blind = metrics.Metric("blind", lambda logits: logits.detach()[:, 0])
    with pytest.raises(ValueError, match="blind has no gradient"):
        circuits.learn_mask(embedded, task.clean, task.corrupt, metric=blind, steps=2, progress=False)
