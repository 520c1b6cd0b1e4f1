"""Ways to a direction, from activations with a concept and without it.

Difference of means: Marks & Tegmark 2023 (arXiv:2310.06824), Rimsky et al. 2023 (arXiv:2312.06681). Linear discriminant
with shrunken covariance: Ledoit & Wolf 2004. Principal components of contrast pairs: Zou et al. 2023
(arXiv:2310.01405).
"""

from collections.abc import Callable, Sequence
from math import comb

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp import stats

Estimator = Callable[[Tensor, Tensor], Tensor]


def mean_difference(positive: Float[Tensor, "n d"], negative: Float[Tensor, "m d"]) -> Float[Tensor, " d"]:
    """The mean with the concept minus that without."""
    return positive.mean(0) - negative.mean(0)


def lda(positive: Float[Tensor, "n d"], negative: Float[Tensor, "m d"]) -> Float[Tensor, " d"]:
    """The difference of means, whitened by the covariance within the classes: what tells them apart best."""
    from sklearn.covariance import ledoit_wolf

    within = torch.cat([positive - positive.mean(0), negative - negative.mean(0)]).double().cpu()
    if not bool(within.any()):  # one example on each side
        return mean_difference(positive, negative)
    covariance = torch.from_numpy(ledoit_wolf(within.numpy(), assume_centered=True)[0])
    gap = mean_difference(positive, negative)
    return torch.linalg.solve(covariance, gap.double().cpu()).to(gap)


def logistic(positive: Float[Tensor, "n d"], negative: Float[Tensor, "m d"]) -> Float[Tensor, " d"]:
    """The weights of a logistic regression on standardised features, in the site's own units."""
    from sklearn.linear_model import LogisticRegression

    x = torch.cat([positive, negative]).double().cpu()
    scale = x.std(0).clamp(min=1e-6 * float(x.std().clamp(min=1e-30)))
    labels = [1] * len(positive) + [0] * len(negative)
    weights = LogisticRegression(max_iter=1000).fit((x / scale).numpy(), labels).coef_[0]
    return (torch.from_numpy(weights) / scale).to(positive)


def svd(positive: Float[Tensor, "n d"], negative: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """The first right singular vector of the pairs' differences, which are not centred."""
    return _first(positive - negative)


def pca(positive: Float[Tensor, "n d"], negative: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """The first principal component of the pairs' differences, every other one of opposite sign (arXiv:2310.01405).

    The signs keep the concept out of the mean that is subtracted. Of a weak concept, the first component is the
    largest of whatever else differs between the prompts.
    """
    signs = 1 - 2 * (torch.arange(len(positive), device=positive.device) % 2).to(positive)
    differences = (positive - negative) * signs[:, None]
    return _first(differences - differences.mean(0))


def pca_ordered(positive: Float[Tensor, "n d"], negative: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """The same without the signs, a default elsewhere: the mean that is subtracted is the concept itself."""
    differences = positive - negative
    return _first(differences - differences.mean(0))


def _first(rows: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    return torch.linalg.svd(rows, full_matrices=False)[2][0]


METHODS: dict[str, Estimator] = {
    "mean_difference": mean_difference, "lda": lda, "logistic": logistic, "svd": svd, "pca": pca,
    "pca_ordered": pca_ordered,
}  # fmt: skip
OF_PAIRS = frozenset({"svd", "pca", "pca_ordered"})


def auroc(positive: Float[Tensor, " n"], negative: Float[Tensor, " m"]) -> float:
    """How often a positive reading is above a negative one; a tie counts half."""
    both = torch.cat([positive, negative]).double().cpu().numpy()
    return float(stats.auroc(both, np.arange(len(both)) < len(positive)))


def p_of_separation(positive: Float[Tensor, " n"], negative: Float[Tensor, " m"]) -> float:
    """One-sided p-value that positive readings are above negative ones (Mann & Whitney 1947).

    NaN where there are too few of them for any outcome to reach 0.05.
    """
    from scipy.stats import mannwhitneyu

    n, m = len(positive), len(negative)
    if 1 / comb(n + m, n) > 0.05:
        return float("nan")
    # The exact distribution knows no ties; rounding the statistic down makes it careful there.
    sides = (positive.double().cpu().numpy(), negative.double().cpu().numpy())
    return float(mannwhitneyu(*sides, alternative="greater", method="exact" if min(n, m) <= 8 else "asymptotic").pvalue)


def means_of(readings: Float[Tensor, " n"], groups: Sequence[str]) -> Float[Tensor, " group"]:
    """The mean reading of each group."""
    return torch.stack([readings[[g == name for g in groups]].mean() for name in dict.fromkeys(groups)])


def cut(positive: Float[Tensor, " n"], negative: Float[Tensor, " m"]) -> float:
    """The threshold that parts readings best: the largest difference of the shares above it (Youden 1950)."""
    values = torch.cat([positive, negative]).sort().values
    cuts = (values[1:] + values[:-1]) / 2
    gain = (positive > cuts[:, None]).double().mean(-1) - (negative > cuts[:, None]).double().mean(-1)
    best = (gain == gain.max()).nonzero().flatten()
    return float(cuts[best[len(best) // 2]])


def stability(estimator: Estimator, positive: Tensor, negative: Tensor, paired: bool, seed: int) -> float:
    """Mean cosine of the directions of two random halves, each with the sign that writes the concept; five times."""
    generator, cosines = torch.Generator().manual_seed(seed), []
    if min(len(positive), len(negative)) < 4:
        return float("nan")
    for _ in range(5):
        rows = torch.randperm(len(positive), generator=generator)
        others = rows if paired else torch.randperm(len(negative), generator=generator)
        halves = [
            _oriented(estimator, positive[a.to(positive.device)], negative[b.to(negative.device)])
            for a, b in zip(rows.tensor_split(2), others.tensor_split(2))
        ]
        cosines.append(float(torch.cosine_similarity(halves[0], halves[1], dim=0)))
    return sum(cosines) / len(cosines)


def _oriented(estimator: Estimator, positive: Tensor, negative: Tensor) -> Tensor:
    """A direction from the negative examples to the positive."""
    direction = estimator(positive, negative)
    return direction if (positive.mean(0) - negative.mean(0)) @ direction >= 0 else -direction


def agreement(positive: Float[Tensor, "n d"], negative: Float[Tensor, "n d"]) -> float:
    """Mean cosine between the differences of two pairs (Braun et al. 2025, arXiv:2505.22637)."""
    unit = torch.nn.functional.normalize(positive - negative, dim=-1)
    n = len(unit)
    return float(((unit.sum(0) ** 2).sum() - n) / (n * (n - 1))) if n > 1 else float("nan")
