"""How well estimates agree with what they estimate."""

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from interp.arrays import Check
from interp.stats import spearman


def agreement(
    estimate: Float[Tensor, "*node prompt"], exact: Float[Tensor, "*node prompt"], others: Int[Tensor, " other"]
) -> list[Check]:
    """How well mean estimates agree with mean effects, over the nodes whose effect was measured.

    Args:
        others: Nodes that were not chosen for their estimate, by number.
    """
    guess, effect = (values.nanmean(-1).flatten().double().cpu().numpy() for values in (estimate, exact))
    known = ~np.isnan(effect)
    x, y = guess[known], effect[known]
    largest = max(float(abs(y).max()), 1e-12)
    x, y = (np.where(abs(values) < 1e-5 * largest, 0, values) for values in (x, y))  # rounding errors have no rank
    alike = bool(np.ptp(x) * np.ptp(y))
    pearson = float(np.corrcoef(x, y)[0, 1]) if alike else 0.0
    ranks = spearman(x, y) if alike and len(x) > 2 else pearson  # of two, both are the sign alone
    sample, miss = abs(effect[others.numpy()]), float(abs(x - y).max()) / largest
    where = "over the nodes patched exactly: those of the largest estimates and a random sample of the others"
    of_largest = f"largest error as a share of the largest effect, {where}"
    checks = [
        Check.at_least("Pearson correlation with exact", pearson, 0.6, where, "arXiv:2212.11870"),
        Check.at_least("rank correlation with exact", ranks, 0.6, where, "arXiv:2212.11870"),
        Check.at_most("worst miss", miss, 0.5, of_largest, "arXiv:2403.00745"),
    ]
    if 0 < len(sample) < len(x):
        share = float(sample.max()) / largest
        why = "largest effect in the random sample as a share of the largest of all; near 1, others are overlooked"
        checks.append(Check.at_most("overlooked effect", share, 0.5, why, "arXiv:2403.00745"))
    return checks
