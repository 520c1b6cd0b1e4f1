"""Verification measures what it says, and names what gradients cannot see."""

import numpy as np
import pytest
import torch
from wired import METRIC, model_of, pair

from interp import circuits, metrics
from interp.arrays import checks_of
from interp.zoo import handset


def test_exact_values_are_those_of_each_edge_alone():
    model = model_of("llama")
    clean, corrupt = pair(model)
    scores = circuits.eap(model, clean, corrupt, METRIC, direction="noising")
    found = circuits.verify(model, clean, corrupt, scores, METRIC, top=5, others=6, seed=1)
    alone = circuits.patch_each_edge(model, clean, corrupt, METRIC, direction="noising")
    tried = ~found["exact"].isnull()
    np.testing.assert_allclose(found["exact"].values[tried], alone.values[tried], atol=1e-10)
    best = circuits.select(circuits.graph(model), scores, 5)
    assert bool(tried.values[:, best.numpy() == 1].all()) and int(tried[0].sum()) >= 11
    graph = circuits.graph(model)
    sets = {"a": graph.mask([("L0H1", "*")]), "b": graph.mask([("*", "L1KV1.v")])}
    whole = circuits.patch_edges(model, clean, corrupt, sets, METRIC, direction="noising")
    exact = found.sel(by="exact")
    np.testing.assert_allclose(exact["leaving"].sel(writer="L0H1"), whole.sel(set="a"), atol=1e-10)
    np.testing.assert_allclose(exact["entering"].sel(reader="L1KV1.v"), whole.sel(set="b"), atol=1e-10)
    guess = found.sel(by="estimate")
    np.testing.assert_allclose(guess["leaving"].values, scores.sum("reader").values, atol=1e-10)


def test_a_saturated_head_is_named_and_its_edges_are_tried():
    """The mover of the toy attends so sharply that no gradient reaches what it attends to."""
    toy = handset.backup(repair=0.0)
    given = toy, "<bos> Anna and :", "<bos> and Anna :", metrics.logit(3)
    scores = circuits.eap(*given)
    edge = dict(writer="embed", reader="L0H0.k")
    assert abs(float(scores.sel(edge)[0])) < 1e-3
    found = circuits.verify(*given[:3], scores, given[3], top=0, others=2)
    (miss,) = [check for check in checks_of(found["estimate"]) if check.name == "worst miss of a node"]
    assert miss.status == "warn" and "→ L0H0.k" in miss.why
    assert abs(float(found["exact"].sel(edge)[0])) > 1
    graph, nodes = circuits.graph(toy), miss.why.partition("saturated nodes: ")[2].split(", ")
    named = (
        graph.mask([("*", node[2:]) if node.startswith("→ ") else (node[:-2], "*") for node in nodes]).bool().numpy()
    )
    tried = ~found["exact"].isel(prompt=0).isnull().values
    assert len(nodes) > 1 and tried[named].all() and tried.sum() <= named.sum() + 2


@pytest.mark.parametrize("n", [1, 3])
def test_scores_of_other_prompts_are_refused(n):
    model = model_of("gpt2")
    ids = torch.randint(1, 30, (n, 5), generator=torch.Generator().manual_seed(0))
    scores = circuits.eap(model, *pair(model), METRIC)
    with pytest.raises(ValueError, match=f"scores by prompt, writer and reader of the {n} prompts given are verified"):
        circuits.verify(model, ids, ids.flip(1), scores, METRIC)


def test_agreement_is_perfect_where_estimates_are_exact():
    model = model_of("gpt2")
    clean, corrupt = pair(model)
    exact = circuits.patch_each_edge(model, clean, corrupt, METRIC)
    rows = {check.name: check for check in checks_of(circuits.verify(model, clean, corrupt, exact, METRIC)["estimate"])}
    assert rows["Pearson correlation with exact"].value == pytest.approx(1) and rows["worst miss"].value < 1e-6
