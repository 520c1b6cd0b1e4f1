"""Donors: of a prompt's own kind, never itself, and each as often as any other."""

import pytest
import torch

from interp.donors import donors


@pytest.mark.parametrize("offered", [8, 3, 5])
def test_every_donor_is_used_before_one_is_used_twice(offered):
    found = donors(["a"] * 5, ["a"] * offered, 20, 0)
    for draw in found:
        counts = torch.bincount(draw, minlength=offered)
        assert counts.sum() == 5 and counts.max() - counts.min() <= 1
    assert len({tuple(draw.tolist()) for draw in found}) > 5


def test_donors_are_of_the_same_kind_and_not_the_prompt_itself():
    wanted, offered = list("aabbab"), list("bbaab")
    assert all(offered[j] == wanted[i] for draw in donors(wanted, offered, 9, 1) for i, j in enumerate(draw.tolist()))
    for draw in donors(wanted, None, 9, 1).tolist():
        assert sorted(draw) == list(range(6)) and all(i != j and wanted[i] == wanted[j] for i, j in enumerate(draw))
