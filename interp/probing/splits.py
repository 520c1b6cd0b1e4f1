"""Splits and shuffles that respect groups: what must not be on both sides, and what may be exchanged."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

Groups = Sequence[str] | None


def codes_of(names: Sequence[object]) -> Int[Tensor, " example"]:
    """Names as numbers from 0 on, in sorted order."""
    known = {name: i for i, name in enumerate(sorted(set(names), key=str))}
    return torch.tensor([known[name] for name in names])


def folds_of(
    y: Shaped[Tensor, " example"], n_classes: int, groups: Groups, n_folds: int = 5, seed: int = 0, split: str = "group"
) -> Int[Tensor, " example"]:
    """The fold of each example: groups are kept whole, and classes spread as evenly as that allows.

    Args:
        n_classes: 0 if `y` is numbers.
        groups: What must not be both learnt from and tested on, such as the word that decides the label.
        split: "group", or "random" where no groups are known.

    Raises:
        ValueError: A random split although groups are known; fewer than three groups; a class that would be missing
            when two folds are left out.
    """
    if split not in ("group", "random"):
        raise ValueError(f"unknown split {split!r}; choose group or random")
    if split == "random" and groups is not None:
        raise ValueError(
            f"a random split is refused: {len(set(groups))} groups are known, and what is learnt of one would be "
            f"tested on it; split by group, or give examples without groups if they are truly independent"
        )
    units = codes_of(groups) if groups is not None else torch.arange(len(y))
    n_units = int(units.max()) + 1
    if n_units < 3:
        raise ValueError(f"folds need at least three groups, not {n_units}; give a finer grouping")
    n_folds = min(n_folds, n_units)
    kinds = torch.nn.functional.one_hot(y.cpu().long(), n_classes) if n_classes else torch.ones(len(y), 1).long()
    counts = torch.zeros(n_units, kinds.shape[1]).index_add(0, units, kinds.float())
    fold = _spread(counts, n_folds, torch.Generator().manual_seed(seed))[units]
    check_classes(fold, y, n_classes)
    return fold


def _spread(counts: Float[Tensor, "unit kind"], n_folds: int, generator: torch.Generator) -> Int[Tensor, " unit"]:
    """Each unit, the largest first, to the fold that has least of what it brings."""
    order = torch.randperm(len(counts), generator=generator)
    order = order[counts[order].sum(1).argsort(descending=True, stable=True)]
    share = counts / counts.sum(0).clamp(min=1)
    filled = torch.zeros(n_folds, counts.shape[1])
    fold = torch.empty(len(counts), dtype=torch.long)
    for unit in order.tolist():
        fold[unit] = int((filled @ share[unit] + 1e-9 * filled.sum(1)).argmin())
        filled[fold[unit]] += share[unit]
    return fold


def check_classes(
    fold: Int[Tensor, " example"], y: Shaped[Tensor, " example"], n_classes: int, what: str = "all prompts"
) -> None:
    """Refuse examples of which some class is missing once two folds are left out.

    Raises:
        ValueError: That; `what` names the examples.
    """
    for kind in range(n_classes):
        if len(fold[y.cpu() == kind].unique()) < 3:
            raise ValueError(
                f"of {what}, class {kind} of {n_classes} is in two folds at most, so that nothing is left to learn it "
                f"from; give more groups of every class"
            )


def without(fold: Int[Tensor, " example"], left_out: Sequence[Sequence[int]]) -> Bool[Tensor, "set example"]:
    """The examples that remain when some folds are left out, for several choices of these."""
    return torch.stack([~torch.isin(fold, torch.tensor(some, device=fold.device)) for some in left_out])


def shuffled(
    y: Shaped[Tensor, " example"], groups: Groups, n: int, generator: torch.Generator
) -> Shaped[Tensor, "shuffle example"]:
    """Labels shuffled as they may be if they say nothing of the examples.

    Where all of a group has one label, labels are exchanged between such groups, as wholes; inside of every other group
    its examples exchange theirs.
    """
    y = y.cpu()
    if groups is None:
        return torch.stack([y[torch.randperm(len(y), generator=generator)] for _ in range(n)])
    units = codes_of(groups)
    members = [(units == unit).nonzero().flatten() for unit in range(int(units.max()) + 1)]
    whole = [index for index in members if bool((y[index] == y[index[0]]).all())]
    mixed = [index for index in members if not bool((y[index] == y[index[0]]).all())]
    rows = y.repeat(n, 1)
    for row in rows:
        order = torch.randperm(len(whole), generator=generator).tolist()
        for index, other in zip(whole, order):
            row[index] = y[whole[other][0]]
        for index in mixed:
            row[index] = y[index[torch.randperm(len(index), generator=generator)]]
    return rows
