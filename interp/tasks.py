"""Tasks: aligned clean and corrupt prompts with right and wrong answers, roles, and exact labels.

Those of the embedded model come from its generated language; `english` and `from_rows` serve pretrained models.
"""

import csv
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp.metrics import Metric, logit_diff, prob_diff
from interp.model import Model
from interp.traces import Tokens
from interp.zoo import language
from interp.zoo.language import Sentence


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

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def logit_diff(self) -> Metric:
        """Mean logit of the right answers minus that of the wrong ones."""
        return logit_diff(self.right, self.wrong)

    @property
    def prob_diff(self) -> Metric:
        """Probability of the right answers minus that of the wrong ones."""
        return prob_diff(self.right, self.wrong)


Pair = tuple[Sentence, Sentence, Sequence[str], Sequence[str]]  # clean, corrupt, right, wrong


def ioi(model: Model, n: int = 32, seed: int = 0, split: str = "test") -> Task:
    """Indirect object: who is given something? Corrupt: the other person gives (roles IO, S1, S2, END)."""

    def draw(rng: random.Random) -> Pair:
        while True:
            io, subject = rng.sample(language.NAMES, 2)
            if language.in_split(split, *sorted((io, subject))):
                break
        choices = (io, subject, rng.random() < 0.5, rng.choice(language.PLACES), rng.choice(language.OBJECTS), 0)
        pair = language.indirect_object(*choices), language.indirect_object(*choices, repeated=io)
        return *pair, [io], [subject]

    return _task("indirect object", model, draw, n, seed)


def facts(model: Model, n: int = 32, seed: int = 0, split: str = "test") -> Task:
    """What is the capital of a country? Corrupt: another country (roles subject, END)."""

    def draw(rng: random.Random) -> Pair:
        one, other = rng.sample(language.COUNTRIES, 2)
        clean, corrupt = language.fact(one, "capital"), language.fact(other, "capital")
        return clean, corrupt, [clean.answer], [corrupt.answer]

    return _task("facts", model, draw, n, seed)


def agreement(model: Model, n: int = 32, seed: int = 0, split: str = "test") -> Task:
    """Which verb form follows, across an attractor of the other number? Corrupt: the subject's other number."""

    def draw(rng: random.Random) -> Pair:
        noun, other = language.draw_until(rng, split, language.SINGULAR, language.SINGULAR)
        plural, number = rng.random() < 0.5, language.SINGULAR.index
        attractor = (rng.choice(language.PREPOSITIONS), number(other), not plural)
        pair = [language.agreement(number(noun), p, 0, attractor) for p in (plural, not plural)]
        verbs = [language.VERBS_PLURAL if p else language.VERBS_SINGULAR for p in (plural, not plural)]
        return pair[0], pair[1], verbs[0], verbs[1]

    return _task("agreement", model, draw, n, seed)


def greater_than(model: Model, n: int = 32, seed: int = 0, split: str = "test") -> Task:
    """Which years can end what began in this one? Corrupt: it began in 01 (role YY, END)."""

    def draw(rng: random.Random) -> Pair:
        event, century, year = language.draw_until(
            rng, split, language.EVENTS, language.CENTURIES, language.YEARS[2:98]
        )
        clean, corrupt = (language.greater_than(event, century, y, 99) for y in (int(year), 1))
        return clean, corrupt, language.YEARS[int(year) + 1 :], language.YEARS[: int(year) + 1]

    return _task("greater-than", model, draw, n, seed)


def sentiment(model: Model, n: int = 32, seed: int = 0, split: str = "test") -> Task:
    """How did the writer feel? Corrupt: an adjective of the other polarity (roles thing, adjective, END)."""

    def draw(rng: random.Random) -> Pair:
        positive, negated = rng.random() < 0.5, rng.random() < 0.3
        pools = (language.POSITIVE, language.NEGATIVE)[:: 1 if positive != negated else -1]
        thing, adjective = language.draw_until(rng, split, language.THINGS, pools[0])
        pair = [language.sentiment([(thing, word, negated)], 1) for word in (adjective, rng.choice(pools[1]))]
        return pair[0], pair[1], [pair[0].answer], [pair[1].answer]

    return _task("sentiment", model, draw, n, seed)


def pronoun(model: Model, n: int = 32, seed: int = 0, split: str = "test") -> Task:
    """She or he? Corrupt: a name of the other gender (roles name, END)."""

    def draw(rng: random.Random) -> Pair:
        names = rng.choice(language.FEMALE), rng.choice(language.MALE)
        place, item = rng.choice(language.PLACES), rng.choice(language.OBJECTS)
        order = names if rng.random() < 0.5 else names[::-1]
        pair = [language.pronoun(name, place, item) for name in order]
        return pair[0], pair[1], [pair[0].answer], [pair[1].answer]

    return _task("pronoun", model, draw, n, seed)


def honesty(model: Model, n: int = 32, seed: int = 0, split: str = "test") -> Task:
    """What does this speaker say of a country? Corrupt: another country (roles speaker, trait, subject, END)."""

    def draw(rng: random.Random) -> Pair:
        speaker, subject = language.draw_until(rng, split, language.NAMES, language.COUNTRIES)
        honest = rng.random() < 0.5
        other = rng.choice([c for c in language.COUNTRIES if c != subject])
        clean, corrupt = (language.claim(speaker, honest, country, "capital") for country in (subject, other))
        table = language.MISCONCEPTION if honest else language.TRUTH
        return clean, corrupt, [clean.answer], [table["capital"][subject]]

    return _task("honesty", model, draw, n, seed)


def refusal(model: Model, n: int = 32, seed: int = 0, split: str = "test") -> Task:
    """Is the request refused? Corrupt: a request of the other kind (roles verb, object, END)."""

    def draw(rng: random.Random) -> Pair:
        verbs = rng.choice(language.HARMFUL), rng.choice(language.SAFE)
        order = verbs if rng.random() < 0.5 else verbs[::-1]
        item, adjective = rng.choice(language.BELONGINGS), rng.choice(language.ADJECTIVES)
        pair = [language.request(verb, item, adjective) for verb in order]
        return pair[0], pair[1], [pair[0].answer], [pair[1].answer]

    return _task("refusal", model, draw, n, seed)


def induction(model: Model, n: int = 32, seed: int = 0, period: int = 12) -> Task:
    """What followed this word before? Corrupt: another word followed it (roles first, source, END)."""

    def draw(rng: random.Random) -> Pair:
        *block, other = rng.sample(language.CONTENT, period + 1)
        at = period // 2
        changed = [*block[: at + 1], other, *block[at + 2 :]]
        roles = {"first": at, "source": at + 1, "END": period + at}
        words = [Sentence((*b, *block[: at + 1], b[at + 1]), roles, {"period": period}) for b in (block, changed)]
        return words[0], words[1], [block[at + 1]], [other]

    return _task("induction", model, draw, n, seed)


EMBEDDED: Mapping[str, Callable[..., Task]] = {
    "ioi": ioi, "facts": facts, "agreement": agreement, "greater_than": greater_than, "sentiment": sentiment,
    "pronoun": pronoun, "honesty": honesty, "refusal": refusal, "induction": induction,
}  # fmt: skip


def from_rows(model: Model, rows: Sequence[Mapping[str, str]], name: str = "task") -> Task:
    """A task from rows with `clean`, `corrupt`, `right` and `wrong`; every answer must be one token of the model.

    Raises:
        ValueError: A missing column, an answer of several tokens, or a pair of different lengths, with its row.
    """
    if missing := {"clean", "corrupt", "right", "wrong"} - set(rows[0] if rows else ()):
        raise ValueError(
            f"{name}: each row needs clean, corrupt, right and wrong; missing: {', '.join(sorted(missing))}"
        )
    clean, corrupt = (model.tokens([row[side] for row in rows]) for side in ("clean", "corrupt"))
    for i, (a, b) in enumerate(zip(clean.mask.sum(-1).tolist(), corrupt.mask.sum(-1).tolist())):
        if a != b:
            raise ValueError(f"{name}, row {i}: clean has {a} tokens and corrupt {b}; they must be aligned")
    right, wrong = ([[model.token_id(row[side])] for row in rows] for side in ("right", "wrong"))
    extra = {key: [row[key] for row in rows] for key in rows[0] if key not in ("clean", "corrupt", "right", "wrong")}
    texts = [row["clean"] for row in rows], [row["corrupt"] for row in rows]
    return Task(name, clean, corrupt, _ids(right, model), _ids(wrong, model), extra, texts)


def from_file(model: Model, path: str | Path) -> Task:
    """A task from a CSV or JSONL file; see `from_rows`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; give a .csv or .jsonl with one pair a row")
    with path.open(newline="") as file:
        if path.suffix == ".csv":
            rows: list[Mapping[str, str]] = list(csv.DictReader(file))
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in file if line.strip()]
        else:
            raise ValueError(f"{path.name}: a task is read from .csv or .jsonl, not {path.suffix or 'no suffix'!r}")
    return from_rows(model, rows, path.stem)


def _task(name: str, model: Model, draw: Callable[[random.Random], Pair], n: int, seed: int) -> Task:
    if n < 1:
        raise ValueError(f"a task needs at least one pair; n={n} was asked for")
    rng = random.Random(seed)
    pairs = [draw(rng) for _ in range(n)]
    clean, corrupt = (_tokens(model, side) for side in ([pair[0] for pair in pairs], [pair[1] for pair in pairs]))
    right, wrong = (
        [[model.token_id(word) for word in words] for words in side]
        for side in ([p[2] for p in pairs], [p[3] for p in pairs])
    )
    keys = pairs[0][0].labels
    labels = {key: [pair[0].labels[key] for pair in pairs] for key in keys}
    texts = [pair[0].prompt for pair in pairs], [pair[1].prompt for pair in pairs]
    return Task(name, clean, corrupt, _ids(right, model), _ids(wrong, model), labels, texts)


def _tokens(model: Model, sentences: Sequence[Sentence]) -> Tokens:
    """Prompts with their roles, as positions in the padded batch: one word is one token."""
    tokens = model.tokens([sentence.prompt for sentence in sentences])
    width = tokens.ids.shape[1]
    names = set.intersection(*(set(sentence.roles) for sentence in sentences))
    roles = {}
    for name in sorted(names):
        back = [len(s.prompt.split()) - s.roles[name] for s in sentences]
        if min(back) > 0:  # a part that comes after the answer has no position in the prompt
            roles[name] = torch.tensor([width - b for b in back], device=tokens.ids.device)
    return Tokens(tokens.ids, tokens.mask, roles)


def _ids(answers: Sequence[Sequence[int]], model: Model) -> Tensor:
    width = max(map(len, answers))
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in answers], device=model.device)
