"""The embedded model has small circuits, found on some words and kept on others."""

import numpy as np
import pytest

from interp import circuits, tasks

SHARE = 0.1


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", ["induction", "ioi", "greater_than"])
def test_a_tenth_of_the_edges_keeps_the_behaviour(embedded, behaviour):
    """On held-out combinations of words, and better than every random circuit of that size, connected or not."""
    make = tasks.EMBEDDED[behaviour]
    words = {} if behaviour == "induction" else {"split": "train"}  # its words are drawn anew anyway
    found_on, held_out = make(embedded, n=32, seed=0, **words), make(embedded, n=48, seed=1)
    graph = circuits.graph(embedded)
    n_edges = int(SHARE * int(graph.precedes.sum()))
    given = embedded, found_on.clean, found_on.corrupt, found_on.logit_diff
    scores = circuits.eap_ig(*given, steps=5, along="activations", direction="noising")
    sets = {"circuit": circuits.select(graph, scores, n_edges, "signed")}
    for connected in (False, True):
        drawn = circuits.random_circuits(graph, n_edges, 50, seed=1, connected=connected)
        sets |= {f"{name} {connected}": circuit for name, circuit in drawn.items()}
    found = circuits.evaluate(embedded, held_out.clean, held_out.corrupt, sets, held_out.logit_diff)
    share = circuits.faithfulness(found)
    mean = share["mean"].values
    assert found["edges"].values.max() <= SHARE * int(graph.precedes.sum()) and len(mean) == 101
    assert 0.9 <= mean[0] <= 1.1 and float(share["low"][0]) > 0.9 and np.nanmax(mean[1:]) < 0.5
