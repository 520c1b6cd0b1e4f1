"""Tasks in English for pretrained models, made of words that are single tokens of the model at hand.

Indirect object: Wang et al. 2022 (arXiv:2211.00593). Greater-than: Hanna et al. 2023 (arXiv:2305.00586).
"""

import random
from collections.abc import Sequence

from interp.model import Model
from interp.tasks import Task, from_rows

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
    """Indirect object; the corrupt prompt lets the other person give."""
    names, places, objects = (single(model, words) for words in (NAMES, PLACES, OBJECTS))
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        a, b = rng.sample(names, 2)
        io, subject = (a, b) if rng.random() < 0.5 else (b, a)
        place, item = rng.choice(places), rng.choice(objects)
        texts = [f"When {a} and {b} went to the {place}, {who} gave a {item} to" for who in (subject, io)]
        rows.append(_row(texts, f" {io}", f" {subject}"))
    return from_rows(model, rows, "indirect object")


def facts(model: Model, n: int = 16, seed: int = 0) -> Task:
    """Capitals; the corrupt prompt asks for another country's."""
    countries = [c for c in single(model, list(CAPITALS)) if _is_one(model, f" {CAPITALS[c]}")]
    rng = random.Random(seed)
    pairs = [rng.sample(countries, 2) for _ in range(n)]
    rows = [
        _row([f"The capital of {c} is the city of" for c in pair], f" {CAPITALS[pair[0]]}", f" {CAPITALS[pair[1]]}")
        for pair in pairs
    ]
    return from_rows(model, rows, "facts")


def agreement(model: Model, n: int = 32, seed: int = 0) -> Task:
    """Number agreement across an attractor of the other number; the corrupt prompt changes the subject's."""
    nouns = [noun for noun in single(model, list(NOUNS)) if _is_one(model, f" {NOUNS[noun]}")]
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        noun, other = rng.sample(nouns, 2)
        forms = (noun, NOUNS[noun]) if rng.random() < 0.5 else (NOUNS[noun], noun)
        plural = forms[0] != noun
        attractor = other if plural else NOUNS[other]
        texts = [f"The {form} near the {attractor}" for form in forms]
        rows.append(_row(texts, *((" are", " is") if plural else (" is", " are"))))
    return from_rows(model, rows, "agreement")


def greater_than(model: Model, n: int = 32, seed: int = 0) -> Task:
    """A two-digit year later than the first; the corrupt prompt began in 01, and the wrong year lies before.

    Raises:
        ValueError: A tokenizer that does not split years into century and year.
    """
    years = [f"{year:02d}" for year in range(2, 98)]
    fit = [year for year in years if _is_one(model, year) and len(model.tokens(f"17{year}").ids[0]) <= 2 + model.bos]
    if len(fit) < 10:
        raise ValueError(f"{model.name} does not split years such as 1732 into 17 and 32; greater-than needs that")
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        at = rng.randrange(2, len(fit) - 2)
        event, century = rng.choice(EVENTS), rng.choice(("16", "17", "18"))
        texts = [f"The {event} lasted from the year {century}{y} to the year {century}" for y in (fit[at], "01")]
        rows.append(_row(texts, rng.choice(fit[at + 1 :]), rng.choice(fit[:at])))
    return from_rows(model, rows, "greater-than")


def _row(texts: Sequence[str], right: str, wrong: str) -> dict[str, str]:
    return {"clean": texts[0], "corrupt": texts[1], "right": right, "wrong": wrong}


def _is_one(model: Model, text: str) -> bool:
    try:
        model.token_id(text)
    except ValueError:
        return False
    return True
