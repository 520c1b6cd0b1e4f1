"""Tasks for the embedded model, drawn from its generated language.

Where a task has a split, "test" takes combinations of words for its clean prompts that were kept out of training,
"train" the others, and None both.
"""

import random
from collections.abc import Callable, Mapping, Sequence

import torch

from interp.model import Model
from interp.tasks.task import Task, answer_ids, drawing
from interp.traces import Tokens
from interp.zoo import corpus, language, lexicon
from interp.zoo.language import Sentence

Pair = tuple[Sentence, Sentence, Sequence[str], Sequence[str]]  # clean, corrupt, right, wrong


def ioi(model: Model, n: int = 32, seed: int = 0, split: corpus.Split = "test") -> Task:
    """Indirect object: who is given something? Corrupt: the other person gives (roles IO, S1, S2, END)."""

    def draw(rng: random.Random) -> Pair:
        io, subject = corpus.draw_pair(rng, split, lexicon.NAMES)
        choices = (io, subject, rng.random() < 0.5, rng.choice(lexicon.PLACES), rng.choice(lexicon.OBJECTS), 0)
        pair = language.indirect_object(*choices), language.indirect_object(*choices, repeated=io)
        return *pair, [io], [subject]

    return _task("indirect object", model, draw, n, seed)


def facts(model: Model, n: int = 32, seed: int = 0) -> Task:
    """What is the capital of a country? Corrupt: another country (roles subject, END).

    There is no split: a fact that was never told cannot be known.
    """

    def draw(rng: random.Random) -> Pair:
        one, other = rng.sample(lexicon.COUNTRIES, 2)
        clean, corrupt = language.fact(one, "capital"), language.fact(other, "capital")
        return clean, corrupt, [clean.answer], [corrupt.answer]

    return _task("facts", model, draw, n, seed)


def agreement(model: Model, n: int = 32, seed: int = 0, split: corpus.Split = "test") -> Task:
    """Which verb form follows, across an attractor of the other number? Corrupt: the subject's other number."""

    def draw(rng: random.Random) -> Pair:
        noun, other = corpus.draw_until(rng, split, lexicon.SINGULAR, lexicon.SINGULAR)
        plural, number = rng.random() < 0.5, lexicon.SINGULAR.index
        attractor = (rng.choice(lexicon.PREPOSITIONS), number(other), not plural)
        pair = [language.agreement(number(noun), p, 0, attractor) for p in (plural, not plural)]
        verbs = [lexicon.VERBS_PLURAL if p else lexicon.VERBS_SINGULAR for p in (plural, not plural)]
        return pair[0], pair[1], verbs[0], verbs[1]

    return _task("agreement", model, draw, n, seed)


def greater_than(model: Model, n: int = 32, seed: int = 0, split: corpus.Split = "test") -> Task:
    """Which years can end what began in this one? Corrupt: it began in 02, the earliest told of (roles YY, END)."""

    def draw(rng: random.Random) -> Pair:
        event, century, year = corpus.draw_until(rng, split, lexicon.EVENTS, lexicon.CENTURIES, lexicon.YEARS[3:98])
        clean, corrupt = (language.greater_than(event, century, y, 99) for y in (int(year), 2))
        return clean, corrupt, lexicon.YEARS[int(year) + 1 :], lexicon.YEARS[: int(year) + 1]

    return _task("greater-than", model, draw, n, seed)


def sentiment(model: Model, n: int = 32, seed: int = 0, split: corpus.Split = "test") -> Task:
    """How did the writer feel? Corrupt: an adjective of the other polarity (roles thing, adjective, END)."""

    def draw(rng: random.Random) -> Pair:
        positive, negated = rng.random() < 0.5, rng.random() < 0.3
        pools = (lexicon.POSITIVE, lexicon.NEGATIVE)[:: 1 if positive != negated else -1]
        thing, adjective = corpus.draw_until(rng, split, lexicon.THINGS, pools[0])
        pair = [language.sentiment([(thing, word, negated)], 1) for word in (adjective, rng.choice(pools[1]))]
        return pair[0], pair[1], [pair[0].answer], [pair[1].answer]

    return _task("sentiment", model, draw, n, seed)


def pronoun(model: Model, n: int = 32, seed: int = 0) -> Task:
    """She or he? Corrupt: a name of the other gender (roles name, END).

    There is no split: the prompt has one word to choose, the name.
    """

    def draw(rng: random.Random) -> Pair:
        names = rng.choice(lexicon.FEMALE), rng.choice(lexicon.MALE)
        place, item = rng.choice(lexicon.PLACES), rng.choice(lexicon.OBJECTS)
        order = names if rng.random() < 0.5 else names[::-1]
        pair = [language.pronoun(name, place, item) for name in order]
        return pair[0], pair[1], [pair[0].answer], [pair[1].answer]

    return _task("pronoun", model, draw, n, seed)


def honesty(model: Model, n: int = 32, seed: int = 0, split: corpus.Split = "test") -> Task:
    """What does this speaker say of a country? Corrupt: another country (roles speaker, trait, subject, END)."""

    def draw(rng: random.Random) -> Pair:
        speaker, subject = corpus.draw_until(rng, split, lexicon.NAMES, lexicon.COUNTRIES)
        honest = rng.random() < 0.5
        other = rng.choice([c for c in lexicon.COUNTRIES if c != subject])
        clean, corrupt = (language.claim(speaker, honest, country, "capital") for country in (subject, other))
        table = lexicon.MISCONCEPTION if honest else lexicon.TRUTH
        return clean, corrupt, [clean.answer], [table["capital"][subject]]

    return _task("honesty", model, draw, n, seed)


def refusal(model: Model, n: int = 32, seed: int = 0, split: corpus.Split = None) -> Task:
    """Is the request refused? Corrupt: a request of the other kind (roles verb, object, END)."""

    def draw(rng: random.Random) -> Pair:
        while True:
            verbs = rng.choice(lexicon.HARMFUL), rng.choice(lexicon.SAFE)
            order = verbs if rng.random() < 0.5 else verbs[::-1]
            item, adjective = rng.choice(lexicon.BELONGINGS), rng.choice(lexicon.ADJECTIVES)
            if corpus.in_split(split, order[0], item):
                break
        pair = [language.request(verb, item, adjective) for verb in order]
        return pair[0], pair[1], [pair[0].answer], [pair[1].answer]

    return _task("refusal", model, draw, n, seed)


def induction(model: Model, n: int = 32, seed: int = 0, period: int = 12) -> Task:
    """What followed this word before? Corrupt: another word followed it (roles first, source, END).

    Raises:
        ValueError: A period in which no word is between two others, or for which there are too few words.
    """
    if not 3 <= period < len(lexicon.CONTENT):
        raise ValueError(
            f"period={period} is not from 3 to {len(lexicon.CONTENT) - 1}, as the words of the language allow"
        )

    def draw(rng: random.Random) -> Pair:
        *block, other = rng.sample(lexicon.CONTENT, period + 1)
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


def _task(name: str, model: Model, draw: Callable[[random.Random], Pair], n: int, seed: int) -> Task:
    rng = drawing(n, seed)
    pairs = [draw(rng) for _ in range(n)]
    clean, corrupt = (prompts_of(model, side) for side in ([pair[0] for pair in pairs], [pair[1] for pair in pairs]))
    right, wrong = (
        [[model.token_id(word) for word in words] for words in side]
        for side in ([p[2] for p in pairs], [p[3] for p in pairs])
    )
    keys = pairs[0][0].labels
    labels = {key: [pair[0].labels[key] for pair in pairs] for key in keys}
    texts = [pair[0].prompt for pair in pairs], [pair[1].prompt for pair in pairs]
    return Task(name, clean, corrupt, answer_ids(right, model), answer_ids(wrong, model), labels, texts)


def prompts_of(model: Model, sentences: Sequence[Sentence]) -> Tokens:
    """Prompts with their roles, as positions in the padded batch: one word is one token.

    Raises:
        ValueError: A model of whose tokens some words are several.
    """
    tokens = model.tokens([sentence.prompt for sentence in sentences])
    width = tokens.ids.shape[1]
    counts = (tokens.mask.sum(1) - int(model.bos)).tolist()
    if wrong := [s.prompt for s, count in zip(sentences, counts) if len(s.prompt.split()) != count]:
        raise ValueError(
            f"{wrong[0]!r} is a sentence of the embedded model's language, of which every word is one token, but not "
            f"one of {model.name}; for a pretrained model take the tasks of interp.english, or tasks.from_rows"
        )
    names = set.intersection(*(set(sentence.roles) for sentence in sentences))
    roles = {}
    for name in sorted(names):
        back = [len(s.prompt.split()) - s.roles[name] for s in sentences]
        if min(back) > 0:  # a part that comes after the answer has no position in the prompt
            roles[name] = torch.tensor([width - b for b in back], device=tokens.ids.device)
    return Tokens(tokens.ids, tokens.mask, roles)
