"""Estimates beside what they estimate: each check passes and warns where it should."""

import pytest
import torch

from interp.agreement import agreement

EXACT = torch.tensor([10.0, 8, 6, 4, 2, 1])
NAMES = ["Pearson correlation with exact", "rank correlation with exact", "worst miss", "overlooked effect"]
CASES = {
    "the same": (EXACT, [4, 5], ["pass"] * 4),
    "one far off, the order kept": (torch.tensor([40.0, 8, 6, 4, 2, 1]), [4, 5], ["pass", "pass", "warn", "pass"]),
    "backwards": (EXACT.flip(0), [4, 5], ["warn", "warn", "warn", "pass"]),
    "large ones among the others": (EXACT, [0, 5], ["pass", "pass", "pass", "warn"]),
    "an order of no meaning for sizes": (
        torch.tensor([100.0, 1, 2, 3, 4, 5]),
        [4, 5],
        ["pass", "warn", "warn", "pass"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_checks_pass_and_warn(case):
    estimate, others, wanted = CASES[case]
    checks = agreement(estimate[:, None], EXACT[:, None], torch.tensor(others))
    assert [check.name for check in checks] == NAMES and [check.status for check in checks] == wanted


def test_nothing_is_overlooked_where_nothing_or_everything_was_drawn():
    for others in ([], range(6)):
        checks = agreement(EXACT[:, None], EXACT[:, None], torch.tensor(list(others), dtype=torch.long))
        assert [check.name for check in checks] == NAMES[:3]


def test_of_two_nodes_the_sign_is_the_correlation_and_of_equal_ones_there_is_none():
    for estimate, wanted in (([1.0, 2], 1), ([2.0, 1], -1), ([1.0, 1], 0)):
        checks = agreement(torch.tensor(estimate)[:, None], torch.tensor([3.0, 5])[:, None], torch.tensor([1]))
        assert [check.value for check in checks[:2]] == [pytest.approx(wanted)] * 2
