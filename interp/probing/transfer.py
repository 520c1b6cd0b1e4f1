"""Does a probe of one family of prompts hold in the others?

Marks & Tegmark 2023 (arXiv:2310.06824).
"""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.probing.measure import By, Plan
from interp.probing.splits import Groups
from interp.stats import of_means

KEPT = 0.5  # the share of the advantage within families that is to be kept between them
_LEVEL = 0.025  # one-sided, as half of the usual 5 %
_BLOCK = 2**15  # numbers of which means are resampled at once


@dataclass(frozen=True)
class Transfer:
    """How a probe of each family does in each.

    Attributes:
        matrix: The accuracy, or R^2.
        away: The mean over the probes of the other families.
        margin: How far the worst of two different families is above half of the advantage over chance that probes have
            within their families, or probes of all families, if that is more.
        margin_high: Its upper bound at 97.5 %, corrected for the number of pairs of which it is the worst.
    """

    matrix: Float[Tensor, "place train test"]
    away: Float[Tensor, "place prompt"]
    margin: Float[Tensor, " place"]
    margin_high: Float[Tensor, " place"]


def transfer(found: By, plan: Plan, chance: float) -> Transfer:
    """How probes do between families, with a bootstrap of groups."""
    member = torch.stack([torch.tensor([f == name for f in plan.data.families or ()]) for name in plan.families])
    scores, pooled = (found["transfer"], found["right"]) if plan.n_classes else (found["transfer"], found["loss"])
    if not plan.n_classes:  # shares of the variance within the prompt's family
        variance = torch.stack([plan.data.y[inside].double().var(correction=0) for inside in member])
        spread = (variance @ member.double()).to(scores)
        scores, pooled = 1 - scores / spread, 1 - pooled / spread
    foreign = member.logical_not().to(scores)
    values = scores.double().cpu().numpy(), pooled.double().cpu().numpy(), member.double().numpy()
    margin, high = margins(*values, chance, plan.data.groups, plan.seed)
    matrix = torch.tensor(_divided(values[0] @ values[2].T, values[2].sum(-1)))
    return Transfer(matrix, (scores * foreign).sum(1) / foreign.sum(0), torch.tensor(margin), torch.tensor(high))


def margins(
    scores: Float[np.ndarray, "place train prompt"],
    pooled: Float[np.ndarray, "place prompt"],
    member: Float[np.ndarray, "test prompt"],
    chance: float,
    groups: Groups,
    seed: int,
) -> tuple[Float[np.ndarray, " place"], Float[np.ndarray, " place"]]:
    """The margin of `Transfer` and its upper bound.

    Args:
        scores: Of each family's probe for each prompt, such that their mean is the accuracy, or R^2.
        pooled: The same of the probe of all families.
        member: 1 where a prompt is of a family.
    """
    own = np.eye(len(member), dtype=bool)

    def kept(products: np.ndarray, shares: np.ndarray, whole: np.ndarray) -> np.ndarray:
        matrix = _divided(products, shares[:, None, None])
        within = np.maximum(matrix[..., own].mean(-1), whole)  # one family has fewer prompts, and may gain nothing
        apart = matrix[..., ~own] - chance - KEPT * (within - chance)[..., None]
        return np.where(np.isnan(apart), np.inf, apart)  # of a family that was not drawn, nothing is known

    level, parts = 1 - 2 * _LEVEL / int((~own).sum()), []
    for some in np.array_split(np.arange(len(scores)), -(-scores.size * len(member) // _BLOCK)):
        products = xr.DataArray(scores[some][:, :, None] * member, dims=("place", "train", "test", "prompt"))
        rest = xr.DataArray(member, dims=("test", "prompt")), xr.DataArray(pooled[some], dims=("place", "prompt"))
        parts.append(of_means(kept, products, *rest, level=level, seed=seed, clusters=groups))
    margin, _, high = (np.concatenate(part).min(-1) for part in zip(*parts))
    return margin, high


def _divided(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(np.broadcast(top, bottom).shape, np.nan), where=bottom > 0)
