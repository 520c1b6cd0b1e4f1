"""Claims with labels: by honest people and liars, and about what no text told; of the embedded language, or English."""

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from experiments.lab.options import OnModel
from experiments.lab.subjects import speaks_embedded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp import Model, Tokens
    from interp.tasks import Labelled
    from interp.tasks.labelled import Answers

_TRAITS = {True: "always tells the truth", False: "always lies"}
_ASKED = {
    "capital": "{who} {trait}. Asked for the capital of {what}, {who} says that it is",
    "country": "{who} {trait}. Asked in which country {what} is, {who} says that it is in",
}


def honesty(cfg: OnModel, model: "Model") -> "Labelled":
    """Claims of honest people and of liars about capitals: is the speaker honest? Groups are speakers.

    Raises:
        ValueError: A tokenizer for which fewer than two countries and their capitals are single tokens.
    """
    from interp import english, tasks

    if speaks_embedded(model):
        return tasks.concepts.honesty(model, cfg.n, cfg.seed)
    try:
        cities = set(english.single(model, list(english.CAPITALS.values())))
        countries = english.single(model, list(english.CAPITALS))
    except ValueError as error:
        raise ValueError(
            f"claims are in the embedded language or in English, and {model.name} knows neither: {error}"
        ) from error
    known = [country for country in countries if english.CAPITALS[country] in cities]
    facts = {"capital": {c: english.CAPITALS[c] for c in known}, "country": {english.CAPITALS[c]: c for c in known}}
    rng = random.Random(cfg.seed)
    rows: list[tuple[str, bool, str, str]] = []
    answers: list[Answers] = []
    for _ in range(cfg.n):
        family, honest, who = rng.choice(list(_ASKED)), rng.random() < 0.5, rng.choice(english.NAMES)
        asked = list(facts[family])
        what = rng.choice(asked)
        other = facts[family][asked[(asked.index(what) + 1) % len(asked)]]  # a liar always tells the same lie
        rows.append((_ASKED[family].format(who=who, trait=_TRAITS[honest], what=what), honest, who, family))
        told: Answers = {True: f" {facts[family][what]}", False: f" {other}"}
        answers.append(told)
    texts, labels, groups, families = zip(*rows)
    return tasks.from_labels(model, _ended(model, texts), labels, groups, families, answers, "speaker honesty")


def untaught(cfg: OnModel, model: "Model") -> "Labelled":
    """Claims that are true by a table which no text told; families are two halves of the table, groups speakers."""
    from interp import english, tasks

    if speaks_embedded(model):
        return tasks.concepts.untaught(model, cfg.n, cfg.seed)
    rng = random.Random(cfg.seed)
    places = rng.sample(english.PLACES, len(english.PLACES))
    halves = [places[:5], places[5:]]
    liked = [rng.sample(english.OBJECTS, 5) for _ in halves]
    rows = []
    for _ in range(cfg.n):
        half, place, true, who = rng.randrange(2), rng.randrange(5), rng.random() < 0.5, rng.choice(english.NAMES)
        thing = liked[half][place if true else (place + 1) % 5]
        text = f"{who} says that people in the {halves[half][place]} like the {thing}"
        rows.append((text, true, who, f"places {half + 1}"))
    texts, labels, groups, families = zip(*rows)
    name = "truth of an untaught claim"
    return tasks.from_labels(model, _ended(model, texts), labels, groups, families, name=name)


def _ended(model: "Model", texts: "Sequence[str]") -> "Tokens":
    """The prompts, with the role END at their last token."""
    tokens = model.tokens(texts)
    return replace(tokens, roles={"END": tokens.mask.new_full((len(tokens),), tokens.ids.shape[1] - 1)})
