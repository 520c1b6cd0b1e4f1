"""Splits and shuffles that respect groups: what must not be on both sides, and what may be exchanged."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from interp.tasks import Labelled

Groups = Sequence[str] | None
_TRIES = 20  # for each shuffle wanted: of few that there are, the last is rarely drawn


def check_labelled(data: object) -> None:
    """Refuse what is not prompts with labels.

    Raises:
        TypeError: That.
    """
    if not isinstance(data, Labelled):
        raise TypeError(
            f"probes take prompts with labels, not a {type(data).__name__}; make them by "
            f"tasks.from_labels(model, prompts, labels, groups), or take one of tasks.CONCEPTS"
        )


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
        ValueError: A random split although groups are known; fewer than three groups or folds; a class that would be
            missing when two folds are left out.
    """
    if n_folds < 3:
        raise ValueError(f"folds are three at least, since two are left out at a time; folds={n_folds} was asked for")
    if split not in ("group", "random"):
        raise ValueError(f"unknown split {split!r}; choose group or random")
    if split == "random" and groups is not None:
        raise ValueError(
            f"a random split is refused: {len(set(groups))} groups are known, and what is learnt of one would be "
            f"tested on it (prompts that are alike are a group); split by group, or give examples that are independent"
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

    Each group gets the labels of another, in any order: where all of a group has one label, of another such group; else
    of one that has several and is of about its size, some of them if that is larger, and some twice if it is smaller.

    Returns:
        No two shuffles alike, and none like the labels, up to the names of classes, which no score depends on. Fewer
        than `n` if there are no more.
    """
    y, rows = y.cpu(), list[Tensor]()
    known, strata = {_partition(y)}, [] if groups is None else _strata(y, groups)
    for _ in range(_TRIES * n):
        if len(rows) == n:
            break
        row = _exchanged(y, strata, generator) if strata else y[torch.randperm(len(y), generator=generator)]
        if (key := _partition(row)) not in known:
            known.add(key)
            rows.append(row)
    return torch.stack(rows) if rows else y.new_empty(0, len(y))


def _strata(y: Shaped[Tensor, " example"], groups: Sequence[str]) -> list[list[Int[Tensor, "_"]]]:
    """The examples of each group, of groups that may exchange their labels.

    Shares of the classes depend on size: of two examples with several labels, it is a half. So large groups do not get
    those of small ones, or they would differ less than groups do, and shuffles would be too alike.
    """
    units = codes_of(groups)
    members = [(units == unit).nonzero().flatten() for unit in range(int(units.max()) + 1)]
    whole = [index for index in members if len(y[index].unique()) == 1]
    strata = [whole] if whole else []
    for index in sorted((index for index in members if len(y[index].unique()) > 1), key=len):
        if strata and strata[-1] is not whole and len(index) <= 2 * len(strata[-1][0]):
            strata[-1].append(index)
        else:
            strata.append([index])
    return strata


def _exchanged(
    y: Shaped[Tensor, " example"], strata: Sequence[Sequence[Int[Tensor, "_"]]], generator: torch.Generator
) -> Shaped[Tensor, " example"]:
    """Labels of which each group has got those of another of its stratum."""
    row = y.clone()
    for stratum in strata:
        for index, other in zip(stratum, torch.randperm(len(stratum), generator=generator).tolist()):
            source = stratum[other]
            order = torch.randperm(len(source), generator=generator)
            if (lacking := len(index) - len(source)) > 0:
                order = torch.cat([order, torch.randint(len(source), (lacking,), generator=generator)])
            row[index] = y[source[order[: len(index)]]]
    return row


def _partition(y: Shaped[Tensor, " example"]) -> bytes:
    """The same for labels that differ in the names of classes alone; of numbers, these."""
    if y.is_floating_point():
        return y.numpy().tobytes()
    _, first, which = np.unique(y.numpy(), return_index=True, return_inverse=True)
    return first.argsort().argsort()[which].tobytes()
