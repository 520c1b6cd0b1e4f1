"""The scorecard in its small form: what is promised holds, and a wrong claim would show."""

from dataclasses import replace

import numpy as np
import pytest

from interp.zoo import scorecard
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
    assert edges.auroc(np.array([3.0, 1.0, 2.0, 0.0]), truth) == 1
    assert edges.auroc(np.array([1.0, 1.0, 1.0, 1.0]), truth) == 0.5
    assert edges.auroc(np.array([0.0, 1.0, 1.0, 2.0]), truth) == 0.125
    assert np.isnan(edges.auroc(np.ones(4), truth | True))
