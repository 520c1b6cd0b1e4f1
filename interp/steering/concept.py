"""What a steering vector is learned from: prompts that have something, and prompts that lack it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.model import Model, Prompts
from interp.tasks import Labelled, Task
from interp.traces import Tokens


@dataclass(frozen=True)
class Concept:
    """Prompts on both sides of a concept; made by `contrast_pairs` or `labelled_set`.

    Attributes:
        name: What the positive prompts have.
        positive, negative: The prompts.
        groups: What must not be on both sides of a split, for the positive and for the negative prompts.
        paired: Whether the prompts of each pair differ in the concept alone.
    """

    name: str
    positive: Tokens
    negative: Tokens
    groups: tuple[Sequence[str], Sequence[str]]
    paired: bool

    def __repr__(self) -> str:
        how = "pairs" if self.paired else "not in pairs"
        return f"Concept({self.name}: {len(self.positive)} positive and {len(self.negative)} negative prompts, {how})"

    def split(self, held_out: float = 0.3, seed: int = 0) -> "tuple[Concept, Concept | None]":
        """What to fit on, and what to hold out: whole groups, with prompts of both sides in each part.

        The second is None where no split leaves prompts of both sides in both parts, as with a single pair.
        """
        names = sorted({*self.groups[0], *self.groups[1]})
        generator = torch.Generator().manual_seed(seed)
        for _ in range(100 if len(names) > 1 else 0):
            order = [names[i] for i in torch.randperm(len(names), generator=generator)]
            chosen = set(order[: min(max(1, round(held_out * len(names))), len(names) - 1)])
            parts = self._part(chosen, False), self._part(chosen, True)
            if all(len(part.positive) and len(part.negative) for part in parts):
                return parts
        return self, None

    def _part(self, chosen: set[str], inside: bool) -> "Concept":
        rows = [[i for i, group in enumerate(side) if (group in chosen) is inside] for side in self.groups]
        groups = [side[i] for i in rows[0]] if (side := self.groups[0]) else [], [self.groups[1][i] for i in rows[1]]
        index = [torch.tensor(side, dtype=torch.long, device=self.positive.ids.device) for side in rows]
        return Concept(self.name, self.positive.rows(index[0]), self.negative.rows(index[1]), groups, self.paired)

    @property
    def fingerprint(self) -> str:
        """A hash of all prompts, with their roles: sixteen hexadecimal digits."""
        digest = hashlib.sha256(self.name.encode())
        for tokens in (self.positive, self.negative):
            for row, keep in zip(tokens.ids.cpu(), tokens.mask.cpu().bool()):
                digest.update(repr(row[keep].tolist()).encode())
            for role in sorted(tokens.roles):
                back = tokens.ids.shape[1] - tokens.roles[role]  # what padding does not change
                digest.update(f"{role} {back.tolist()}".encode())
        return digest.hexdigest()[:16]


def contrast_pairs(
    model: Model, name: str, positive: Prompts, negative: Prompts, groups: Sequence[str] | None = None
) -> Concept:
    """A concept from pairs that differ in it alone; one pair will do, but nothing can then be held out.

    Args:
        groups: The group of each pair, such as its template; by default each pair is its own.

    Raises:
        ValueError: Unequal numbers of prompts, or of groups.
    """
    one, other = model.tokens(positive), model.tokens(negative)
    if len(one) != len(other):
        raise ValueError(
            f"pairs need as many prompts on both sides, not {len(one)} and {len(other)}; use labelled_set for others"
        )
    names = [str(i) for i in range(len(one))] if groups is None else [str(group) for group in groups]
    if len(names) != len(one):
        raise ValueError(f"{len(one)} pairs and {len(names)} groups were given; each pair needs one")
    return Concept(name, one, other, (names, names), True)


def labelled_set(
    model: Model, name: str, prompts: Prompts, labels: Sequence[bool] | Tensor, groups: Sequence[str] | None = None
) -> Concept:
    """A concept from prompts of which each has it or lacks it.

    Args:
        labels: Which prompts have it, True or 1, and which do not, False or 0.
        groups: The group of each prompt, such as its template or the word that decides; by default each is its own.

    Raises:
        ValueError: Unequal numbers of prompts, labels and groups; labels of one kind only, or of other kinds.
    """
    return _of_labels(name, model.tokens(prompts), labels, groups)


def concept_of(given: Any) -> Concept:
    """What is given as a concept: one, or prompts labelled True and False, or 1 and 0, by `tasks.from_labels`.

    Raises:
        TypeError: Anything else.
        ValueError: Other labels.
    """
    if isinstance(given, Concept):
        return given
    if isinstance(given, Labelled):
        return _of_labels(given.name, given.prompts, given.labels, given.groups)
    hint = ""
    if isinstance(given, Task):
        hint = (
            f"; of {given.name!r}, say what is known: steering.labelled_set(model, name, task.clean, task.labels[...])"
        )
    raise TypeError(
        f"a concept is made by steering.contrast_pairs or steering.labelled_set, not of {type(given).__name__}{hint}"
    )


def _of_labels(
    name: str, tokens: Tokens, labels: Sequence[Any] | Tensor, groups: Sequence[str] | None = None
) -> Concept:
    listed = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else list(labels)
    if other := [label for label in listed if isinstance(label, str) or label not in (0, 1)]:
        raise ValueError(
            f"labels say which prompts have {name!r}, by True and False or 1 and 0, not by {other[0]!r}; "
            "give [label == the one that has it for label in labels]"
        )
    has = [bool(label) for label in listed]
    names = [str(i) for i in range(len(tokens))] if groups is None else [str(group) for group in groups]
    if not len(tokens) == len(has) == len(names):
        raise ValueError(
            f"{len(tokens)} prompts, {len(has)} labels and {len(names)} groups were given; one each is needed"
        )
    if len(set(has)) != 2:
        raise ValueError(f"a concept needs prompts that have it and prompts that lack it; all labels are {has[0]}")
    sides = [[i for i, label in enumerate(has) if label is side] for side in (True, False)]
    rows = [tokens.rows(torch.tensor(side, device=tokens.ids.device)) for side in sides]
    groups_ = [names[i] for i in sides[0]], [names[i] for i in sides[1]]
    return Concept(name, rows[0], rows[1], groups_, False)


def exchange_of(
    concept: Concept, generator: torch.Generator
) -> Callable[[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]:
    """A random exchange of labels, as a function of what belongs to the positive and to the negative examples.

    Pairs change sides, all of a group together. Of other examples, the labels of whole groups are exchanged or, where
    groups have examples on both sides, those of single examples.
    """
    names = [*concept.groups[0], *concept.groups[1]]
    if concept.paired:
        swaps = {name: bool(torch.rand(1, generator=generator) < 0.5) for name in dict.fromkeys(concept.groups[0])}
        swap = torch.tensor([swaps[name] for name in concept.groups[0]])
        index = torch.arange(len(swap))
        first, second = index + len(swap) * swap, index + len(swap) * ~swap
    else:
        has = torch.tensor([True] * len(concept.groups[0]) + [False] * len(concept.groups[1]))
        labels = _relabelled(names, has, generator)
        first, second = labels.nonzero().flatten(), (~labels).nonzero().flatten()

    def exchange(sides: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        whole = torch.cat(sides)
        return whole[first.to(whole.device)], whole[second.to(whole.device)]

    return exchange


def _relabelled(names: Sequence[str], has: Tensor, generator: torch.Generator) -> Tensor:
    """Labels exchanged between groups or, where groups have both, between examples.

    Within such groups they must stay free to leave: else most of what tells the groups apart would survive.
    """
    groups: dict[str, list[bool]] = {}
    for name, label in zip(names, has.tolist(), strict=True):
        groups.setdefault(name, []).append(label)
    if any(len(set(labels)) == 2 for labels in groups.values()):
        return has[torch.randperm(len(has), generator=generator)]
    order, labels = torch.randperm(len(groups), generator=generator).tolist(), [own[0] for own in groups.values()]
    exchanged = {name: labels[other] for name, other in zip(groups, order)}
    return torch.tensor([exchanged[name] for name in names])
