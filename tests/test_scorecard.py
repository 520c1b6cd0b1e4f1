"""The scorecard in its small form: what is promised holds, and a wrong claim would show."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from interp import stats, tasks
from interp.zoo import estimates, scorecard
from interp.zoo.handset import copying
from interp.zoo.scorecard import edges
from interp.zoo.scorecard.score import SMALL


@pytest.mark.parametrize("section", ["edges", "planted", "concepts", "sums"])
def test_what_is_wanted_holds(embedded, section):
    rows = list(scorecard.SECTIONS[section](embedded, SMALL, 0))
    failed = [row for row in rows if row.status == "fail"]
    assert rows and not failed
    assert scorecard.as_array(rows, embedded).sizes["row"] == len(rows)
    assert all(row.method in scorecard.as_text(rows) for row in rows)


def test_a_wrong_claim_shows():
    made = copying()
    wrong = replace(made, edges={"corrupt": frozenset({("embed", "L0H1.k")}), "zero": made.edges["zero"]})
    exact = {name: edges.FINDERS[name] for name in ("EAP", "ACDC")}
    found = {(row.method, row.measure): row for row in edges.rows(wrong, 0, exact)}
    assert found["exact, corrupt", "edges wrong"].value == 3 and found["exact, zero", "edges wrong"].status == "pass"
    assert found["ACDC", "AUROC"].status == "fail"


def test_the_area_counts_ties_by_half():
    truth = np.array([True, False, True, False])
    assert stats.auroc(np.array([3.0, 1.0, 2.0, 0.0]), truth) == 1
    assert stats.auroc(np.array([1.0, 1.0, 1.0, 1.0]), truth) == 0.5
    assert stats.auroc(np.array([0.0, 1.0, 1.0, 2.0]), truth) == 0.125
    assert np.isnan(stats.auroc(np.ones(4), truth | True))


def test_correlations_stand_in_one_order_and_say_of_how_many_pairs_they_are(embedded):
    assert tuple(estimates._of_task(embedded, tasks.facts(embedded, 2), "z", ["head"])) == estimates.COLUMNS
    docs, columns = Path(__file__).parents[1] / "docs", " | ".join(estimates.COLUMNS)
    card, page = ((docs / name).read_text() for name in ("model_card.md", "scorecard.md"))
    assert f"over nodes of `z`, 32 pairs, seed 0:\n\n| task | nodes | {columns} |" in card
    assert f"| correlation with exact effects of heads, 64 pairs, seed 0 | {columns} |" in page
