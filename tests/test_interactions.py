"""Interactions of pairs, against the loop by hand and a model with a known circuit."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from interp import components, edits, interactions, metrics, tasks
from interp.zoo import handset


def test_pairs_equal_the_loop_by_hand(embedded):
    task = tasks.ioi(embedded, n=4)
    make = partial(edits.mean, embedded.run(task.corrupt, read=embedded.sites("z")))
    made = {name: edit for name, edit in components.each(embedded, make).items() if name in ("L1H1", "L2H2", "L3H0")}
    found = interactions.pairs(embedded, task.clean, made, task.logit_diff)
    effect = lambda *names: task.logit_diff(embedded.run(task.clean, edits=[made[name] for name in names]))
    for first, second in (("L1H1", "L2H2"), ("L3H0", "L2H2"), ("L3H0", "L1H1")):
        wanted = effect(first, second) - effect(first) - effect(second) + effect()
        for a, b in ((first, second), (second, first)):
            assert_close(torch.tensor(found.sel(first=a, second=b).values), wanted, atol=1e-4, rtol=1e-4)
    assert float(abs(found).max()) > 0.5
    assert bool(np.isnan(found.values[range(3), range(3)]).all())


def test_the_pair_of_mover_and_backup_is_found_and_no_other(backend):
    model = handset.backup(repair=0.8, strength=4.0, backend=backend)
    prompts, metric = ["<bos> Anna and :", "<bos> Tom and :"], metrics.logit([3, 4])
    found = interactions.pairs(model, prompts, components.each(model, edits.zero), metric).mean("prompt")
    wanted = np.zeros((4, 4))
    wanted[0, 2] = wanted[2, 0] = -0.8 * 4.0  # both lose 4; the mover alone 0.8, the backup alone nothing
    wanted[range(4), range(4)] = np.nan
    np.testing.assert_allclose(found, wanted, atol=0.01)


def test_heads_in_series_interact_the_other_way():
    """An edit of what a head reads and an edit of the head: once the first is in force, the second costs nothing."""
    model = handset.backup(repair=0.0)
    made = {"mover": edits.zero(model.sites("z")[0], head=0), "values": edits.zero(model.sites("v")[0], head=0)}
    found = interactions.pairs(model, ["<bos> Anna and :"], made, metrics.logit(3))
    np.testing.assert_allclose(found.sel(first="mover", second="values"), 4.0, atol=0.01)


def test_chosen_pairs_alone_are_measured(embedded):
    task = tasks.ioi(embedded, n=2)
    made = components.each(embedded, edits.zero)
    every = interactions.pairs(embedded, task.clean, made, task.logit_diff)
    some = interactions.pairs(embedded, task.clean, made, task.logit_diff, chosen=[("L3H2", "L2H3")])
    assert int(some.notnull().sum()) == 4
    np.testing.assert_allclose(some.sel(first="L2H3", second="L3H2"), every.sel(first="L2H3", second="L3H2"), atol=1e-4)
    for wrong in (("L3H2", "L3H2"), ("L3H2", "L9H9")):
        with pytest.raises(ValueError, match="a pair is of two different edits among"):
            interactions.pairs(embedded, task.clean, made, task.logit_diff, chosen=[wrong])
