"""What a task is, and tasks from one's own rows or files."""

import csv
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from interp.answers import filled
from interp.arguments import count_of, names_of
from interp.metrics import Metric, logit_diff, prob_diff
from interp.model import Model
from interp.traces import Tokens

_NEEDED = "clean", "corrupt", "right", "wrong"
Chosen = Sequence[int] | Sequence[bool] | Tensor | np.ndarray | slice


@dataclass(frozen=True)
class Task:
    """Prompts in pairs that differ in what matters and in nothing else.

    Attributes:
        name: What is asked.
        clean, corrupt: Aligned token by token; their roles are named positions.
        right, wrong: Answer tokens of the clean prompts, (batch, n); -1 fills up unequal numbers.
        labels: What is known of each clean prompt, by name.
        texts: The clean and the corrupt prompts as text.
    """

    name: str
    clean: Tokens
    corrupt: Tokens
    right: Int[Tensor, "batch right"]
    wrong: Int[Tensor, "batch wrong"]
    labels: Mapping[str, Sequence[Any]]
    texts: tuple[Sequence[str], Sequence[str]]

    def __repr__(self) -> str:
        return f"Task({self.name}: {len(self)} pairs, clean {self.clean!r}; labels: {', '.join(self.labels) or 'none'})"

    def __len__(self) -> int:
        return len(self.clean)

    def rows(self, index: Chosen) -> "Task":
        """Some of the pairs, by number in the order given, or by a mask."""
        index = numbers_of(index, len(self))
        some = lambda values: [values[i] for i in index] if len(values) else []
        sides = self.clean.rows(index), self.corrupt.rows(index), self.right[index], self.wrong[index]
        labels = {name: some(values) for name, values in self.labels.items()}
        return Task(self.name, *sides, labels, (some(self.texts[0]), some(self.texts[1])))

    @property
    def logit_diff(self) -> Metric:
        """Mean logit of the right answers minus that of the wrong ones."""
        return logit_diff(self.right, self.wrong)

    @property
    def prob_diff(self) -> Metric:
        """Probability of the right answers minus that of the wrong ones."""
        return prob_diff(self.right, self.wrong)


def numbers_of(chosen: Chosen, n: int) -> list[int]:
    """Which of `n` prompts are chosen: by their numbers, or by a mask that says of each whether it is.

    Raises:
        ValueError: A mask of another length; numbers that there are not, or that are not whole.
    """
    values = (
        np.arange(n)[chosen]
        if isinstance(chosen, slice)
        else np.asarray(chosen.cpu() if isinstance(chosen, Tensor) else chosen)
    )
    if values.dtype == bool:
        if values.shape != (n,):
            raise ValueError(f"a mask of {len(values)} was given for {n} prompts; one value each is needed")
        return values.nonzero()[0].tolist()
    if values.size and (values.dtype.kind not in "iu" or values.ndim != 1):
        raise ValueError(f"prompts are chosen by whole numbers or by a mask, not by {chosen!r}")
    if wrong := [i for i in values.tolist() if not -n <= i < n]:
        raise ValueError(f"there is no prompt {wrong[0]}: there are {n}, numbered from 0 on")
    return values.tolist()


def from_rows(
    model: Model,
    rows: Sequence[Mapping[str, Any]] | pd.DataFrame,
    name: str = "task",
    roles: str | Sequence[str] | None = None,
) -> Task:
    """A task from rows with `clean`, `corrupt`, `right` and `wrong`; every answer must be one token of the model.

    Args:
        rows: Mappings, or a table of pandas. Of each side there is one answer, or a list of them. Other columns are
            labels, None where a row has none.
        roles: Columns that say where the role of that name stands: a position, or a word of the clean prompt that is
            one token and occurs once; see `Model.tokens`.

    Raises:
        ValueError: No row, a missing column, an answer of several tokens, a right answer that is a wrong one too, a
            pair of different lengths, or a role that a prompt lacks; with its row.
    """
    if isinstance(rows, pd.DataFrame):
        rows = rows.astype(object).where(rows.notna(), None).to_dict("records")
    if not len(rows):
        raise ValueError(f"{name} has no rows; each pair takes one, with clean, corrupt, right and wrong")
    roles = names_of(roles or ())
    needed = [*_NEEDED, *roles]
    for i, row in enumerate(rows):
        if lost := ", ".join(sorted(key for key in needed if _is_absent(row.get(key)))):
            raise ValueError(f"{name}, row {i}: each row needs {_listed(needed)}; missing: {lost}")
        if spare := [row[key] for key in row if key is None]:  # where the csv module puts them
            raise ValueError(f"{name}, row {i}: it has more fields than there are columns: {spare[0]}")
    clean, corrupt = (model.tokens([row[side] for row in rows]) for side in ("clean", "corrupt"))
    for i, (a, b) in enumerate(zip(clean.mask.sum(-1).tolist(), corrupt.mask.sum(-1).tolist())):
        if a != b:
            raise ValueError(f"{name}, row {i}: clean has {a} tokens and corrupt {b}; they must be aligned")
    clean = model.tokens(clean, {role: [_place(row[role]) for row in rows] for role in roles})
    corrupt = replace(corrupt, roles=clean.roles)
    right, wrong = (_answers(model, rows, side, name) for side in ("right", "wrong"))
    for i, (a, b) in enumerate(zip(right, wrong)):
        if both := sorted({*a} & {*b}):
            raise ValueError(f"{name}, row {i}: {model.words(both)[0]!r} is a right and a wrong answer")
    columns = dict.fromkeys(key for row in rows for key in row if key not in needed)
    extra = {key: [row.get(key) for row in rows] for key in columns}
    said = lambda prompt: prompt if isinstance(prompt, str) else " ".join(model.words(list(prompt)))
    texts = [said(row["clean"]) for row in rows], [said(row["corrupt"]) for row in rows]
    return Task(name, clean, corrupt, answer_ids(right, model), answer_ids(wrong, model), extra, texts)


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _several(given: Any) -> list[Any]:
    """One answer, or a list of them."""
    return list(given) if isinstance(given, list | tuple) else [given]


def _is_absent(given: Any) -> bool:
    return given is None or (isinstance(given, list | tuple) and not given)


def _place(value: Any) -> Any:
    """A position, which a file gives as text."""
    return int(value) if isinstance(value, str) and value.strip().lstrip("-").isdigit() else value


def _answers(model: Model, rows: Sequence[Mapping[str, Any]], side: str, name: str) -> list[list[int]]:
    """The answers of each row as tokens; an error names the row."""
    found = []
    for i, row in enumerate(rows):
        try:
            found.append([model.token_id(answer) for answer in _several(row[side])])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}, row {i}, {side}: {error}") from None
    return found


def from_file(model: Model, path: str | Path, roles: Sequence[str] | None = None) -> Task:
    """A task from a CSV or JSONL file; see `from_rows`.

    Raises:
        ValueError: A line that is no JSON object; what `from_rows` raises.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; give a .csv or .jsonl with one pair a row")
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin a file with a mark of its encoding
        if path.suffix == ".csv":
            rows: list[Mapping[str, Any]] = list(csv.DictReader(file))
        elif path.suffix == ".jsonl":
            rows = [_object(line, f"{path.name}, line {i}") for i, line in enumerate(file, 1) if line.strip()]
        else:
            raise ValueError(f"{path.name}: a task is read from .csv or .jsonl, not {path.suffix or 'no suffix'!r}")
    return from_rows(model, rows, path.stem, roles)


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is no JSON: {error}") from None
    if not isinstance(row, Mapping):
        raise ValueError(f'{where} is a JSON {type(row).__name__}; each line is an object, such as {{"clean": ...}}')
    return row


def drawing(n: int, seed: int, least: int = 1) -> random.Random:
    """The random numbers of a task of n pairs.

    Raises:
        TypeError: Numbers that are not whole.
        ValueError: Fewer pairs than `least`; a negative seed, which Python takes for its opposite.
    """
    count_of("n", n, least)
    return random.Random(count_of("seed", seed, 0))


def answer_ids(answers: Sequence[Sequence[int]], model: Model) -> Int[Tensor, "batch answer"]:
    """Token ids of the answers to each prompt, filled up with -1 where some have fewer."""
    return torch.tensor(filled(answers), device=model.device)
