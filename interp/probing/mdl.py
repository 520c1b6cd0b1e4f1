"""How many bits do the labels take, told one block after the other to someone who fits a probe to what was told so far?

Voita & Titov 2020 (arXiv:2003.12298). Blocks double; groups are told as wholes, so that no block is known beforehand.
"""

from math import log, log2

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from interp.probing.crossval import losses
from interp.probing.estimators import Estimator
from interp.probing.problems import Features, Problems
from interp.probing.splits import Groups, codes_of


@torch.no_grad()
def codelength(
    features: Features,
    y: Shaped[Tensor, "label example"],
    n_classes: int,
    groups: Groups,
    estimator: Estimator,
    seed: int = 0,
) -> Float[Tensor, "site label"]:
    """Bits of the online code of each labelling, at each site.

    The first block costs log2(classes) a label, and lasts until every class was told twice. For each of the others, the
    penalty is the one that would have told the blocks before it best.

    Raises:
        ValueError: Numbers instead of classes.
    """
    if not n_classes:
        raise ValueError("an online code is of classes; the labels are numbers")
    blocks = _blocks(y, n_classes, groups, seed)
    if int(blocks.max()) == 0:
        return features.x.new_full((len(features.x), len(y)), y.shape[1] * log2(n_classes))
    known = torch.stack([blocks < i for i in range(1, int(blocks.max()) + 1)])
    used, labels = known.repeat(len(y), 1), y.repeat_interleave(len(known), 0)
    grid = features.x.new_tensor(estimator.penalties)
    table, fits = [], None
    for penalty in grid:
        fits = estimator.quick[-1](features, Problems(labels, used, penalty.expand(1, len(labels)), n_classes), fits)
        loss = losses(fits(features.x), labels, n_classes).unflatten(1, (len(y), -1)) / log(2)
        table.append(torch.stack([loss[:, :, i, blocks == i + 1].sum(-1) for i in range(len(known))], -1))
    costs = torch.stack(table)
    before = costs.cumsum(-1) - costs
    before[..., 0] = (torch.arange(len(grid), device=before.device) - len(grid) // 2).abs()[:, None, None].to(before)
    told = costs.gather(0, before.argmin(0, keepdim=True))[0].sum(-1)
    return told + float((blocks == 0).sum()) * log2(n_classes)


def _blocks(y: Shaped[Tensor, "label example"], n_classes: int, groups: Groups, seed: int) -> Tensor:
    """The block of each example: 0 until every class was told twice, then about as many as all before."""
    units = codes_of(groups) if groups is not None else torch.arange(y.shape[1])
    order = torch.randperm(int(units.max()) + 1, generator=torch.Generator().manual_seed(seed))
    rank = order.argsort()[units]
    told = torch.zeros(y.shape[1], dtype=torch.bool)
    blocks, block, goal = torch.zeros(y.shape[1], dtype=torch.long), 0, y.shape[1] / 16
    labels = y.cpu()
    for unit in range(len(order)):
        if _ready(labels[:, told], n_classes, goal) if block == 0 else int(told.sum()) >= 2 * goal:
            block, goal = block + 1, float(told.sum())
        blocks[rank == unit] = block
        told = told | (rank == unit)
    return blocks.to(y.device)


def _ready(labels: Shaped[Tensor, "label told"], n_classes: int, goal: float) -> bool:
    counts = torch.stack([(labels == c).sum(-1) for c in range(n_classes)])
    return labels.shape[1] >= goal and bool((counts >= 2).all())
