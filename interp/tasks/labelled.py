"""Prompts with labels: what a probe is to read, what must not be split, and what the model says if it uses it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.nn.functional import pad

from interp.answers import filled
from interp.model import Model, Prompts
from interp.tasks.task import Chosen, numbers_of
from interp.traces import Tokens

Label = bool | int | float | str
# For each class, the word or words that follow if a prompt is of it; ids, where a model has no tokenizer.
Answers = Mapping[Label, str | int | Sequence[str | int]]


@dataclass(frozen=True)
class Labelled:
    """Prompts of which something is known.

    Attributes:
        name: What is known.
        prompts: Their roles are positions at which a probe may read.
        labels: One for each prompt: classes (bool, int, str) or numbers (float).
        groups: What must not be both learnt from and tested on, such as the word that decides the label; None if the
            prompts are independent.
        families: Kinds of prompt, such as templates, between which a concept should transfer; None if there is one.
        answers: Tokens that follow a prompt of each class; -1 fills up unequal numbers. None if that is not known.
    """

    name: str
    prompts: Tokens
    labels: Sequence[Label]
    groups: Sequence[str] | None = None
    families: Sequence[str] | None = None
    answers: Int[Tensor, "batch class answer"] | None = None

    def __repr__(self) -> str:
        classes = [repr(label) for label in self.classes]
        known = ", ".join(classes if len(classes) <= 6 else [*classes[:5], f"… ({len(classes)})"]) or "numbers"
        return f"Labelled({self.name}, known of {self.prompts!r}; labels: {known})"

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def classes(self) -> list[Label]:
        """The classes in order; none if the labels are numbers."""
        return [] if any(isinstance(label, float) for label in self.labels) else sorted(set(self.labels), key=_order)

    @cached_property
    def y(self) -> Shaped[Tensor, " batch"]:
        """The class of each prompt as a number from 0 on; or the numbers."""
        numbers = {label: i for i, label in enumerate(self.classes)}
        return torch.tensor([numbers[label] if numbers else float(label) for label in self.labels])

    def rows(self, index: Chosen) -> "Labelled":
        """Some of the prompts, by number in the order given, or by a mask."""
        chosen = numbers_of(index, len(self))
        pick = lambda names: None if names is None else [names[i] for i in chosen]
        answers = None if self.answers is None else self.answers[chosen]
        return replace(
            self, prompts=self.prompts.rows(chosen), labels=[self.labels[i] for i in chosen],
            groups=pick(self.groups), families=pick(self.families), answers=answers,
        )  # fmt: skip

    def family(self, name: str) -> "Labelled":
        """The prompts of one family."""
        if self.families is None or name not in self.families:
            known = ", ".join(sorted(set(self.families or ()))) or "none"
            raise ValueError(f"{self.name} has no family {name!r}; its families: {known}")
        return self.rows([i for i, family in enumerate(self.families) if family == name])


def from_labels(
    model: Model,
    prompts: Prompts,
    labels: Iterable[Any],
    groups: Iterable[Any] | None = None,
    families: Iterable[Any] | None = None,
    answers: Answers | Sequence[Answers] | None = None,
    name: str = "label",
) -> Labelled:
    """Labelled prompts for any model.

    Args:
        labels: Classes (bool, int, str) or numbers (float), in a list, an array or a tensor.
        groups, families: See `Labelled`. Without groups, prompts of the same tokens are one.
        answers: What follows a prompt of each class, for all prompts or for each: `{True: " happy", False: " sad"}`.
            Every answer must be one token of the model.

    Raises:
        ValueError: Labels, groups, families or answers that are not one for each prompt, or missing (None, NaN); labels
            of a single class; a class without an answer; an answer of several tokens.
    """
    tokens = model.tokens(prompts)
    known = _plain(labels, "label")
    groups = None if groups is None else list(map(str, _plain(groups, "group")))
    families = None if families is None else list(map(str, _plain(families, "family")))
    given = {"labels": known, "groups": groups, "families": families}
    each = [answers] * len(tokens) if isinstance(answers, Mapping) else answers
    for what, values in {**given, "answers": each}.items():
        if values is not None and len(values) != len(tokens):
            raise ValueError(f"{len(tokens)} prompts and {len(values)} {what} were given; one each is needed")
    if groups is None and len(set(alike := _alike(tokens))) < len(tokens):
        groups = alike
    found = Labelled(name, tokens, known, groups, families)
    if len(set(known)) < 2:
        raise ValueError(f"a probe needs labels of at least two classes, not {sorted(set(known), key=_order)}")
    if each is None:
        return found
    return replace(found, answers=_ids(model, each, found.classes))


def joined(model: Model, sets: Mapping[str, Labelled], name: str = "") -> Labelled:
    """Several sets of prompts with the same classes as one, each a family: does a probe of one hold in the others?

    Roles are kept that all have, and answers if all have them; groups of different sets are different, unless they have
    the same name. Where only some sets have groups, prompts of the others are groups by themselves.

    Raises:
        ValueError: Sets whose classes differ.
    """
    parts = list(sets.values())
    if len({str(part.classes) for part in parts}) != 1:
        raise ValueError(f"sets are joined that have the same classes, not {[part.classes for part in parts]}")
    width = max(part.prompts.ids.shape[1] for part in parts)
    ids, mask = (
        torch.cat([pad(getattr(part.prompts, key), (width - part.prompts.ids.shape[1], 0)) for part in parts])
        for key in ("ids", "mask")
    )
    shared = set.intersection(*(set(part.prompts.roles) for part in parts))
    roles = {
        role: torch.cat([p.prompts.roles[role] + width - p.prompts.ids.shape[1] for p in parts])
        for role in sorted(shared)
    }
    answers = [part.answers for part in parts if part.answers is not None]
    most = max((some.shape[-1] for some in answers), default=0)
    merged = [pad(some, (0, most - some.shape[-1]), value=-1) for some in answers]
    tokens = model.tokens(Tokens(ids, mask, roles))
    return Labelled(
        name or ", ".join(sets),
        tokens,
        [label for part in parts for label in part.labels],
        _groups(parts, tokens),
        [family for family, part in sets.items() for _ in range(len(part))],
        torch.cat(merged) if len(merged) == len(parts) else None,
    )


def _ids(model: Model, answers: Sequence[Answers], classes: Sequence[Label]) -> Int[Tensor, "batch class answer"]:
    rows = []
    for i, known in enumerate(answers):
        if missing := [label for label in classes if label not in known]:
            raise ValueError(f"prompt {i}: no answer was given for {missing}; each class needs one, or several")
        texts = [(some,) if isinstance(some := known[label], str | int) else tuple(some) for label in classes]
        rows += [[model.token_id(text) for text in some] for some in texts]
    return torch.tensor(filled(rows), device=model.device).unflatten(0, (-1, len(classes)))


def _groups(parts: Sequence[Labelled], tokens: Tokens) -> list[str] | None:
    """The groups of several sets as one; identical prompts of those without are one."""
    own = _alike(tokens)
    if all(part.groups is None for part in parts):
        return own if len(set(own)) < len(own) else None
    start = 0
    for part in parts:
        if part.groups is not None:
            own[start : start + len(part)] = part.groups
        start += len(part)
    return own


def _plain(values: Iterable[Any], what: str) -> list[Any]:
    """Values as Python has them, of which none is missing."""
    found = values.tolist() if hasattr(values, "tolist") else list(values)
    found = [value.item() if hasattr(value, "item") else value for value in found]
    if missing := [i for i, value in enumerate(found) if value is None or value != value]:
        raise ValueError(f"prompt {missing[0]} has no {what}: it is {found[missing[0]]}; leave such prompts out")
    return found


def _alike(tokens: Tokens) -> list[str]:
    """A group for each prompt, the same for prompts of the same tokens."""
    return ["tokens " + " ".join(map(str, row)) for row in tokens.unpadded]


def _order(label: Label) -> tuple[bool, float, str]:
    return (True, 0.0, label) if isinstance(label, str) else (False, float(label), "")
