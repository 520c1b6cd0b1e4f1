"""Tasks in English for pretrained models, made of words that are single tokens of the model at hand.

Indirect object: Wang et al. 2022 (arXiv:2211.00593). Greater-than: Hanna et al. 2023 (arXiv:2305.00586).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from interp.model import Model
from interp.tasks import Task, from_rows
from interp.tasks.task import drawing

NAMES = tuple(
    "Mary John Tom James Anna Kate Paul Mark Peter David Sarah Emma Alice Jack Henry Simon Laura Helen Frank".split()
)
PLACES = tuple("store park school garden station library market beach office museum".split())
OBJECTS = tuple("drink book ring kiss ball letter gift apple map key".split())
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Russia": "Moscow",
    "England": "London", "Egypt": "Cairo", "Ireland": "Dublin", "Greece": "Athens", "Austria": "Vienna",
    "Portugal": "Lisbon", "Poland": "Warsaw", "China": "Beijing", "Cuba": "Havana", "Sweden": "Stockholm",
}  # fmt: skip
NOUNS = {
    "boy": "boys", "girl": "girls", "king": "kings", "doctor": "doctors", "teacher": "teachers", "dog": "dogs",
    "pilot": "pilots", "farmer": "farmers", "cat": "cats", "bird": "birds",
}  # fmt: skip
EVENTS = tuple("war trial drought siege strike voyage".split())

# Clean and corrupt text; right and wrong answers; which word of the text has a role; labels.
Row = tuple[Sequence[str], Sequence[str], Sequence[str], Mapping[str, int], Mapping[str, Any]]


def single(model: Model, words: Sequence[str], least: int = 2) -> list[str]:
    """The words that are one token of the model when a space stands before them.

    Raises:
        ValueError: Fewer than `least` are; the message names those that are not.
    """
    fit = [word for word in words if _is_one(model, f" {word}")]
    if len(fit) < least:
        lost = ", ".join(word for word in words if word not in fit)
        raise ValueError(f"only {len(fit)} of {len(words)} words are single tokens of {model.name}; not: {lost}")
    return fit


def ioi(model: Model, n: int = 32, seed: int = 0) -> Task:
    """Indirect object; the corrupt prompt lets the other person give (roles IO, S1, S2, place, object, END)."""
    names, places, objects = (single(model, words) for words in (NAMES, PLACES, OBJECTS))
    rng = drawing(n, seed)

    def draw() -> Row:
        a, b = rng.sample(names, 2)
        io, subject = (a, b) if rng.random() < 0.5 else (b, a)
        place, item = rng.choice(places), rng.choice(objects)
        texts = [f"When {a} and {b} went to the {place}, {who} gave a {item} to" for who in (subject, io)]
        roles = {"IO": 1 if io == a else 3, "S1": 3 if io == a else 1, "S2": 8, "place": 7, "object": 11}
        labels = {"io": io, "subject": subject, "io_first": io == a, "place": place, "object": item}
        return texts, [f" {io}"], [f" {subject}"], roles, labels

    return _task("indirect object", model, draw, n)


def facts(model: Model, n: int = 16, seed: int = 0) -> Task:
    """Capitals; the corrupt prompt asks for another country's (roles subject, END)."""
    countries = [c for c in single(model, list(CAPITALS)) if _is_one(model, f" {CAPITALS[c]}")]
    rng = drawing(n, seed)

    def draw() -> Row:
        pair = rng.sample(countries, 2)
        texts = [f"The capital of {country} is the city of" for country in pair]
        right, wrong = ([f" {CAPITALS[country]}"] for country in pair)
        return texts, right, wrong, {"subject": 3}, {"subject": pair[0]}

    return _task("facts", model, draw, n)


def agreement(model: Model, n: int = 32, seed: int = 0) -> Task:
    """Number agreement across an attractor of the other number; the corrupt prompt changes the subject's.

    Roles subject, attractor and END.
    """
    nouns = [noun for noun in single(model, list(NOUNS)) if _is_one(model, f" {NOUNS[noun]}")]
    rng = drawing(n, seed)

    def draw() -> Row:
        noun, other = rng.sample(nouns, 2)
        plural = rng.random() >= 0.5
        forms = (NOUNS[noun], noun) if plural else (noun, NOUNS[noun])
        texts = [f"The {form} near the {other if plural else NOUNS[other]}" for form in forms]
        right, wrong = ([" are"], [" is"]) if plural else ([" is"], [" are"])
        labels = {"plural": plural, "noun": noun, "attractor_plural": not plural}
        return texts, right, wrong, {"subject": 1, "attractor": 4}, labels

    return _task("agreement", model, draw, n)


def greater_than(model: Model, n: int = 32, seed: int = 0) -> Task:
    """All later two-digit years against the first and all before it; the corrupt prompt began in 01 (roles YY, END).

    Raises:
        ValueError: A tokenizer that does not split years into century and year.
    """
    years = [f"{year:02d}" for year in range(2, 98)]
    fit = [year for year in years if _is_one(model, year) and len(model.tokens(f"17{year}").ids[0]) <= 2 + model.bos]
    if len(fit) < 10:
        raise ValueError(f"{model.name} does not split years such as 1732 into 17 and 32; greater-than needs that")
    rng = drawing(n, seed)

    def draw() -> Row:
        at = rng.randrange(2, len(fit) - 2)
        event, century = rng.choice(EVENTS), rng.choice(("16", "17", "18"))
        texts = [f"The {event} lasted from the year {century}{y} to the year {century}" for y in (fit[at], "01")]
        labels = {"event": event, "century": int(century), "year": int(fit[at])}
        return texts, fit[at + 1 :], fit[: at + 1], {"YY": 6}, labels

    return _task("greater-than", model, draw, n)


def _task(name: str, model: Model, draw: Callable[[], Row], n: int) -> Task:
    """A task of n rows, with the last token of each word that has a role, and of each prompt, by name."""
    rows = [draw() for _ in range(n)]
    sides = [
        {"clean": texts[0], "corrupt": texts[1], "right": right, "wrong": wrong, **labels}
        for texts, right, wrong, _, labels in rows
    ]
    task = from_rows(model, sides, name)
    places = {role: [_place(model, texts[0], words[role]) for texts, _, _, words, _ in rows] for role in rows[0][3]}
    clean = model.tokens(task.clean, {**places, "END": -1})
    return replace(task, clean=clean, corrupt=replace(task.corrupt, roles=clean.roles))


def _place(model: Model, text: str, word: int) -> int:
    """The position of the last token of a word, found by the length of what goes before its end."""
    before = " ".join(text.split()[: word + 1]).rstrip(",")
    return model.tokens(before).ids.shape[1] - 1


def _is_one(model: Model, text: str) -> bool:
    try:
        model.token_id(text)
    except ValueError:
        return False
    return True
