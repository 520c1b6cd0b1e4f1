"""What is known of the zoo: its stored truth is what patching finds, and estimators are held to what is known."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from interp import Site, circuits, edits, tasks
from interp.zoo import compiled, handset, known, truth

MAKERS = {
    **handset.HANDSET,
    **{name: lambda make=make: compiled.known(make()) for name, make in compiled.PROGRAMS.items()},
}


def auroc(scores: np.ndarray, wanted: np.ndarray) -> float:
    """How often an edge that matters has the larger score of the two, ties half."""
    pairs = np.sign(scores[wanted][:, None] - scores[~wanted])
    return float((pairs + 1).mean() / 2)


@pytest.mark.parametrize("name", MAKERS)
def test_integrated_gradients_rank_the_edges_that_matter_first(name):
    made = MAKERS[name]()
    given = made.model, made.task.clean, made.task.corrupt, made.metric
    there = circuits.graph(made.model).precedes.numpy()
    wanted = made.mask("corrupt").numpy()[there] > 0
    scores = circuits.eap_ig(*given, steps=5, direction="noising")
    assert auroc(abs(scores).mean("prompt").values[there], wanted) >= 0.95


def test_a_saturated_step_has_no_gradient_and_is_found_by_patching():
    made = MAKERS["share"]()
    given = made.model, made.task.clean, made.task.corrupt, made.metric
    guess = abs(circuits.eap(*given, direction="noising")).max("prompt").sel(writer="L0H0", reader="mlp0")
    exact = abs(known.effects(made, "corrupt")).max("prompt").sel(writer="L0H0", reader="mlp0")
    assert float(guess) < 1e-6 and float(exact) == pytest.approx(20, abs=1e-3)


def test_the_truth_is_of_these_weights_and_complete(embedded):
    found, graph = truth.stored(), circuits.graph(embedded)
    assert found.attrs["weights"] == embedded.fingerprint() and truth.STORED.stat().st_size < 10**6
    assert list(found["task"].values) == list(tasks.EMBEDDED)
    assert found["edge"].writer.values.tolist() == list(graph.writers)
    assert found["edge"].reader.values.tolist() == list(graph.readers)
    for name in ("edge", "edge_error"):
        there = np.isfinite(found[name].values)
        assert bool((there == graph.precedes.numpy()).all())
    gap = found["clean"] - found["corrupt"]
    assert float(gap.min()) > 5
    for way, sign in (("denoising", 1), ("noising", -1)):  # all that enters, or all that leaves, is the whole gap
        for name, at in (("out", dict(writer="embed")), ("into", dict(reader="logits"))):
            np.testing.assert_allclose(found[name].sel(intervention=way, **at), sign * gap, rtol=1e-4)


@pytest.mark.parametrize("name", ["ioi", "sentiment"])
def test_the_truth_is_what_patching_finds(embedded, name):
    found = truth.stored().sel(task=name)
    task = tasks.EMBEDDED[name](embedded, found.attrs["pairs"], found.attrs["seed"])
    metric, names = task.logit_diff, circuits.graph(embedded)
    edges = [("L0H3", "L1H1.q"), ("embed", "L0H3.k"), ("L3H2", "logits"), ("mlp1", "mlp3")]
    sets = {" ".join(edge): names.mask([edge]) for edge in edges} | {"into": names.mask([("*", "mlp0")])}
    for way in ("denoising", "noising"):
        again = circuits.patch_edges(embedded, task.clean, task.corrupt, sets, metric, way).mean("prompt")
        for (writer, reader), value in zip(edges, again.values):
            stored = found["edge"].sel(intervention=way, writer=writer, reader=reader)
            assert float(stored) == pytest.approx(float(value), abs=1e-4)
        assert float(found["into"].sel(intervention=way, reader="mlp0")) == pytest.approx(float(again[-1]), abs=1e-4)
    clean, corrupt = (embedded.run(some, read=[Site("z", 1)]) for some in (task.clean, task.corrupt))
    assert float(found["clean"]) == pytest.approx(float(metric(clean).mean()), abs=1e-4)
    head = edits.copy(corrupt, Site("z", 1), head=1)
    for way, edit in (("noising", head), ("zero", edits.zero(Site("z", 1), head=1))):
        change = metric(embedded.run(task.clean, edits=[edit])) - metric(clean)
        stored = found.sel(intervention=way, writer="L1H1")
        assert float(stored["out"]) == pytest.approx(float(change.mean()), abs=1e-4)
        assert float(stored["out_error"]) == pytest.approx(float(change.std()) / 8, abs=1e-4)


def test_measuring_a_known_model_gives_its_known_effects():
    made = handset.induction(n=6)
    found = truth.measure(made.model, made.task)
    for ablation, way in (("corrupt", "noising"), ("zero", "zero")):
        exact = known.effects(made, ablation).mean("prompt")
        assert_close(
            torch.tensor(found["edge"].sel(intervention=way).values), torch.tensor(exact.values), equal_nan=True
        )
    assert "| toy | 20.00 | 5 | 5 | 7 |" in truth.table(found.expand_dims(task=["toy"]))
