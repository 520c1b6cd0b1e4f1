"""Text of the embedded model's language, drawn at random from its rules.

A draw takes a split, because some combinations of words (one in ten, by a hash) are kept out of training.
"""

import random
from collections.abc import Callable, Collection, Sequence
from zlib import crc32

from interp.zoo import language, lexicon
from interp.zoo.language import Clause, Sentence

Split = str | None  # "train", "test", or None for both


def in_split(split: Split, *choices: str) -> bool:
    """Whether a combination of choices belongs to a split; one in ten is held out for testing."""
    if split not in ("train", "test", None):
        raise ValueError(f"unknown split {split!r}; choose 'train', 'test', or None for both")
    held_out = crc32(" ".join(choices).encode()) % 10 == 0
    return split is None or held_out == (split == "test")


def draw_until(rng: random.Random, split: Split, *pools: Sequence[str]) -> tuple[str, ...]:
    """One word from each pool, in a combination that belongs to the split.

    Raises:
        ValueError: No such combination was found; an unknown split.
    """
    return _first_in(split, lambda: tuple(rng.choice(pool) for pool in pools), pools)


def draw_pair(rng: random.Random, split: Split, pool: Sequence[str]) -> tuple[str, ...]:
    """Two different words of a pool in a combination, whatever the order, that belongs to the split.

    Raises:
        ValueError: No such pair was found; an unknown split.
    """
    return _first_in(split, lambda: tuple(rng.sample(pool, 2)), (pool, pool), ordered=False)


def _first_in(
    split: Split, draw: Callable[[], tuple[str, ...]], pools: Sequence[Sequence[str]], ordered: bool = True
) -> tuple[str, ...]:
    # Where one combination in ten fits, a thousand draws miss once in 10^45 times.
    for _ in range(1000):
        choices = draw()
        if in_split(split, *(choices if ordered else sorted(choices))):
            return choices
    sizes = " and ".join(str(len(pool)) for pool in pools)
    raise ValueError(
        f"no combination of words from pools of {sizes} was found in split {split!r}; give more words, or split=None"
    )


def draw_indirect_object(rng: random.Random, split: Split = None, names: Sequence[str] = lexicon.NAMES) -> Sentence:
    io, subject = draw_pair(rng, split, names)
    template = rng.randrange(len(language.NAME_TEMPLATES))
    return language.indirect_object(
        io, subject, rng.random() < 0.5, rng.choice(lexicon.PLACES), rng.choice(lexicon.OBJECTS), template
    )


def _draw_transfer(rng: random.Random, split: Split = None) -> Sentence:
    """The same with any words for names in three cases of ten, so that the model learns to look, not to list."""
    return draw_indirect_object(rng, split, lexicon.CONTENT if rng.random() < 0.3 else lexicon.NAMES)


def _draw_relation(rng: random.Random) -> str:
    return rng.choice(("capital", "capital", "language", "continent"))


def draw_fact(rng: random.Random, split: Split = None) -> Sentence:
    """Facts cannot be held out: a fact that was never told cannot be known."""
    return language.fact(rng.choice(lexicon.COUNTRIES), _draw_relation(rng), rng.randrange(2))


def draw_claim(rng: random.Random, split: Split = None) -> Sentence:
    speaker, subject = draw_until(rng, split, lexicon.NAMES, lexicon.COUNTRIES)
    return language.claim(speaker, rng.random() < 0.5, subject, _draw_relation(rng), rng.randrange(2))


def draw_agreement(rng: random.Random, split: Split = None, attractors: float = 0.6) -> Sentence:
    noun, other = draw_until(rng, split, lexicon.SINGULAR, lexicon.SINGULAR)
    attractor = None
    if rng.random() < attractors:
        attractor = (rng.choice(lexicon.PREPOSITIONS), lexicon.SINGULAR.index(other), rng.random() < 0.5)
    adjective = rng.choice(lexicon.ADJECTIVES) if rng.random() < 0.4 else ""
    plural, verb = rng.random() < 0.5, rng.randrange(len(lexicon.VERBS_SINGULAR))
    return language.agreement(lexicon.SINGULAR.index(noun), plural, verb, attractor, adjective)


def draw_greater_than(rng: random.Random, split: Split = None) -> Sentence:
    event, century, year = draw_until(rng, split, lexicon.EVENTS, lexicon.CENTURIES, lexicon.YEARS[2:98])
    return language.greater_than(event, century, int(year), rng.randrange(int(year) + 1, 100))


def _draw_clause(rng: random.Random, split: Split, positive: bool) -> Clause:
    negated = rng.random() < 0.25
    thing, adjective = draw_until(
        rng, split, lexicon.THINGS, lexicon.POSITIVE if positive != negated else lexicon.NEGATIVE
    )
    return thing, adjective, negated


def draw_sentiment(rng: random.Random, split: Split = None) -> Sentence:
    positive = rng.random() < 0.5
    clauses = [_draw_clause(rng, split, positive) for _ in range(rng.choice((1, 1, 2)))]
    return language.sentiment(clauses, rng.randrange(3), rng.choice(lexicon.POSITIVE if positive else lexicon.NEGATIVE))


def draw_pronoun(rng: random.Random, split: Split = None) -> Sentence:
    name, place = draw_until(rng, split, lexicon.NAMES, lexicon.PLACES)
    return language.pronoun(name, place, rng.choice(lexicon.OBJECTS), rng.randrange(len(language.PRONOUN_TEMPLATES)))


def draw_request(rng: random.Random, split: Split = None) -> Sentence:
    verb, item = draw_until(rng, split, lexicon.SAFE + lexicon.HARMFUL, lexicon.BELONGINGS)
    return language.request(
        verb, item, rng.choice(("", "", *lexicon.ADJECTIVES)), rng.randrange(len(language.REQUEST_TEMPLATES))
    )


def draw_repetition(rng: random.Random, split: Split = None) -> Sentence:
    pool = lexicon.NONCE if rng.random() < 0.3 else lexicon.CONTENT
    return language.repetition(rng.sample(pool, rng.randint(4, 24)), rng.choice((2, 2, 3)))


def draw_noise(rng: random.Random, split: Split = None) -> Sentence:
    """Words without order, so that a sentence is read alike whatever came before it."""
    return Sentence(tuple(rng.choices(lexicon.CONTENT, k=rng.randint(2, 12))))


Draw = Callable[[random.Random, Split], Sentence]
MIXTURE: Sequence[tuple[Draw, float]] = (
    (draw_repetition, 0.10), (_draw_transfer, 0.17), (draw_claim, 0.14), (draw_greater_than, 0.12), (draw_fact, 0.10),
    (draw_sentiment, 0.10), (draw_agreement, 0.07), (draw_request, 0.04), (draw_pronoun, 0.04), (draw_noise, 0.02),
)  # fmt: skip


def draw_text(rng: random.Random, n_words: int, split: Split = None, without: Collection[Draw] = ()) -> list[str]:
    """Running text: sentences of every rule in the proportions of `MIXTURE`, cut at a number of words.

    Args:
        without: Rules to leave out; one word of four is of `draw_repetition`.
    """
    rules, weights = zip(*((rule, weight) for rule, weight in MIXTURE if rule not in without))
    words: list[str] = []
    while len(words) < n_words:
        words += rng.choices(rules, weights)[0](rng, split).words
    return words[:n_words]
