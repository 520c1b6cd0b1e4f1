"""Labelled prompts of the embedded model's language: five concepts that it has, and one that it cannot have."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from interp.model import Model
from interp.tasks.embedded import prompts_of
from interp.tasks.labelled import Answers, Labelled, from_labels
from interp.tasks.task import drawing
from interp.zoo import language, lexicon
from interp.zoo.language import Sentence

Example = tuple[Sentence, bool, str, str, Answers]  # with its label, group, family, and what follows


def sentiment(model: Model, n: int = 400, seed: int = 0) -> Labelled:
    """Was it good? Half of the judgements are negated, so that the adjective alone does not tell.

    Groups are adjectives, families the endings "i" and "i felt" (roles thing, adjective, END).
    """
    endings: Sequence[tuple[str, Answers]] = (
        ("i", {True: "loved", False: "hated"}),
        ("i felt", {True: "happy", False: "sad"}),
    )

    def draw(rng: random.Random) -> Example:
        adjective, ending = rng.choice(lexicon.POSITIVE + lexicon.NEGATIVE), rng.randrange(2)
        sentence = language.sentiment([(rng.choice(lexicon.THINGS), adjective, rng.random() < 0.5)], ending)
        return sentence, bool(sentence.labels["positive"]), adjective, *endings[ending]

    return _drawn("sentiment", model, draw, n, seed)


def honesty(model: Model, n: int = 400, seed: int = 0) -> Labelled:
    """Is the speaker honest? Groups are speakers, families relations (roles speaker, trait, subject, END)."""

    def draw(rng: random.Random) -> Example:
        speaker, country, honest = rng.choice(lexicon.NAMES), rng.choice(lexicon.COUNTRIES), rng.random() < 0.5
        relation = rng.choice(list(lexicon.RELATIONS))
        answers: Answers = {True: lexicon.TRUTH[relation][country], False: lexicon.MISCONCEPTION[relation][country]}
        return language.claim(speaker, honest, country, relation), honest, speaker, relation, answers

    return _drawn("speaker honesty", model, draw, n, seed)


def number(model: Model, n: int = 400, seed: int = 0) -> Labelled:
    """Is the subject plural? Groups are nouns; families "alone" and "attractor" (roles subject, END)."""

    def draw(rng: random.Random) -> Example:
        noun, plural = rng.randrange(len(lexicon.SINGULAR)), rng.random() < 0.5
        attractor = None
        if between := rng.random() < 0.5:
            others = [i for i in range(len(lexicon.SINGULAR)) if i != noun]
            attractor = rng.choice(lexicon.PREPOSITIONS), rng.choice(others), rng.random() < 0.5
        sentence = language.agreement(noun, plural, 0, attractor, "" if between else rng.choice(lexicon.ADJECTIVES))
        answers: Answers = {True: lexicon.VERBS_PLURAL, False: lexicon.VERBS_SINGULAR}
        return sentence, plural, lexicon.SINGULAR[noun], "attractor" if between else "alone", answers

    return _drawn("grammatical number", model, draw, n, seed)


def gender(model: Model, n: int = 400, seed: int = 0) -> Labelled:
    """Is a woman spoken of? Groups are names; families "said" and "went" (roles name, END)."""

    def draw(rng: random.Random) -> Example:
        name, template = rng.choice(lexicon.NAMES), rng.randrange(2)
        sentence = language.pronoun(name, rng.choice(lexicon.PLACES), rng.choice(lexicon.OBJECTS), template)
        return sentence, name in lexicon.FEMALE, name, ("said", "went")[template], {True: "she", False: "he"}

    return _drawn("pronoun gender", model, draw, n, seed)


def refusal(model: Model, n: int = 400, seed: int = 0) -> Labelled:
    """Is the request harmful? Groups are verbs; families "please" and "can you" (roles verb, object, END)."""

    def draw(rng: random.Random) -> Example:
        verb, item = rng.choice(lexicon.SAFE + lexicon.HARMFUL), rng.choice(lexicon.BELONGINGS)
        template, adjective = rng.randrange(2), rng.choice(("", *lexicon.ADJECTIVES))
        family = ("please", "can you")[template]
        sentence = language.request(verb, item, adjective, template)
        return sentence, verb in lexicon.HARMFUL, verb, family, {True: "sorry", False: "sure"}

    return _drawn("refusal", model, draw, n, seed)


def untaught(model: Model, n: int = 400, seed: int = 0) -> Labelled:
    """Is the claim true? Of claims that no text was ever about: the model cannot know.

    "John says : people in park speak Velic", for places instead of countries. What is true is decided by a table that
    the model has never seen: each place has one language that is spoken there and one that is not, which is that of
    another place. Groups are speakers; families are two halves of the places (roles speaker, subject, END). So a probe
    may learn by heart which pairs are true, and will know nothing of other places.
    """
    rng = random.Random(seed)
    places = rng.sample(lexicon.PLACES, len(lexicon.PLACES))
    halves = {place: half for half, some in enumerate((places[:5], places[5:])) for place in some}
    spoken = {place: language for some in (places[:5], places[5:]) for place, language in zip(some, _five(rng))}
    other = {place: spoken[_next(place, places, half)] for place, half in halves.items()}

    def draw(rng: random.Random) -> Example:
        place, true, speaker = rng.choice(places), rng.random() < 0.5, rng.choice(lexicon.NAMES)
        answer = (spoken if true else other)[place]
        words = {"speaker": speaker, "subject": place, "last": answer}
        sentence = language.fill("{speaker} says : people in {subject} speak {last} {answer}", {}, **words, answer=".")
        return sentence, true, speaker, f"places {halves[place] + 1}", {}

    return replace(_drawn("truth of an untaught claim", model, draw, n, seed), answers=None)


CONCEPTS: Mapping[str, Callable[..., Labelled]] = {
    "sentiment": sentiment, "honesty": honesty, "number": number, "gender": gender, "refusal": refusal,
    "untaught": untaught,
}  # fmt: skip


def _five(rng: random.Random) -> Sequence[str]:
    return rng.sample(lexicon.LANGUAGES, 5)


def _next(place: str, places: Sequence[str], half: int) -> str:
    some = places[:5] if half == 0 else places[5:]
    return some[(some.index(place) + 1) % len(some)]


def _drawn(name: str, model: Model, draw: Callable[[random.Random], Example], n: int, seed: int) -> Labelled:
    rng = drawing(n, seed, least=2)
    sentences, labels, groups, families, answers = zip(*(draw(rng) for _ in range(n)))
    known = None if not answers[0] else answers
    return from_labels(model, prompts_of(model, sentences), labels, groups, families, known, name)
