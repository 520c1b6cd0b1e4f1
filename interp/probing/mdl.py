"""How many bits do the labels take, told one block after the other to someone who fits a probe to what was told so far?

Voita & Titov 2020 (arXiv:2003.12298). Blocks double; groups are told as wholes, so that no block is known beforehand.
"""

from math import log, log2

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import one_hot

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
) -> tuple[Float[Tensor, "site label"], Float[Tensor, " label"]]:
    """Bits of the online code of each labelling, at each site; and of one that knows the shares of the classes alone.

    The first block costs log2(classes) a label, and lasts until every class of the first labelling was told twice. For
    each of the others, the penalty is the one that would have told the blocks before it best. Of another labelling,
    shares tell the blocks that come before each of its classes was told twice.

    Raises:
        ValueError: Numbers instead of classes.
    """
    if not n_classes:
        raise ValueError("an online code is of classes; the labels are numbers")
    blocks = _blocks(y[0], n_classes, groups, seed)
    start = float((blocks == 0).sum()) * log2(n_classes)
    if int(blocks.max()) == 0:
        return features.x.new_full((len(features.x), len(y)), start), features.x.new_full((len(y),), start)
    known = torch.stack([blocks < i for i in range(1, int(blocks.max()) + 1)])
    told = lambda loss: torch.stack([loss[..., i, blocks == i + 1].sum(-1) for i in range(len(known))], -1) / log(2)
    counts = torch.einsum("lnc,bn->lbc", one_hot(y.long(), n_classes).double(), known.double())
    shares = ((counts + 0.5) / (counts + 0.5).sum(-1, keepdim=True)).log()
    prior = told(-shares.gather(-1, y.long()[:, None].expand(-1, len(known), -1))).to(features.x)
    used, labels = known.repeat(len(y), 1), y.repeat_interleave(len(known), 0)
    grid = features.x.new_tensor(estimator.penalties)
    table, fits = [], None
    for penalty in grid:
        fits = estimator.quick[-1](features, Problems(labels, used, penalty.expand(1, len(labels)), n_classes), fits)
        costs = told(losses(fits(features.x), labels, n_classes).unflatten(1, (len(y), -1)))
        table.append(torch.where((counts >= 2).all(-1), costs, prior))
    costs = torch.stack(table)
    before = costs.cumsum(-1) - costs
    before[..., 0] = (torch.arange(len(grid), device=before.device) - len(grid) // 2).abs()[:, None, None].to(before)
    return costs.gather(0, before.argmin(0, keepdim=True))[0].sum(-1) + start, prior.sum(-1) + start


def _blocks(y: Shaped[Tensor, " example"], n_classes: int, groups: Groups, seed: int) -> Int[Tensor, " example"]:
    """The block of each example: 0 until every class was told twice, then about as many as all before."""
    units = codes_of(groups) if groups is not None else torch.arange(len(y))
    order = torch.randperm(int(units.max()) + 1, generator=torch.Generator().manual_seed(seed))
    rank = order.argsort()[units]
    told = torch.zeros(len(y), dtype=torch.bool)
    blocks, block, goal = torch.zeros(len(y), dtype=torch.long), 0, len(y) / 16
    labels = y.cpu()
    for unit in range(len(order)):
        if _ready(labels[told], n_classes, goal) if block == 0 else int(told.sum()) >= 2 * goal:
            block, goal = block + 1, float(told.sum())
        blocks[rank == unit] = block
        told = told | (rank == unit)
    return blocks.to(y.device)


def _ready(labels: Shaped[Tensor, " told"], n_classes: int, goal: float) -> bool:
    return len(labels) >= goal and bool((torch.bincount(labels.long(), minlength=n_classes) >= 2).all())
