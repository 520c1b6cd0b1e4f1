"""The embedded model's language: a small generated English in which every label is known exactly.

A *rule* makes one `Sentence` out of explicit choices, so that a clean and a corrupt sentence differ in the choices
that differ and in nothing else. A *draw* chooses at random; it takes a split, because some combinations of words (one
in ten, by a hash) are kept out of training.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from zlib import crc32

FEMALE = tuple(
    "Mary Anna Lucy Sara Emma Kate Jane Rose Alice Laura Helen Diana Clara Julia Nina Ruth Grace Ella Ivy Zoe".split()
)
MALE = tuple(
    "John Paul Mark Peter James David Tom Henry Adam Simon Jack Luke Frank Oscar Hugo Leo Max Ryan Sean Victor".split()
)
NAMES = FEMALE + MALE
PLACES = tuple("store park school garden station library market beach office museum".split())
OBJECTS = tuple("drink book ring kiss ball letter gift apple map key".split())

# Two tokens a country, and each part is shared by four: neither part alone says which country it is.
COUNTRIES = tuple(f"{first} {last}" for first, last in product("Nor Vel Tar Bel".split(), "land mark via stan".split()))
CAPITALS = tuple(first + last for first, last in product("Ost Rim Gal Fen".split(), "grad port burg ton".split()))
LANGUAGES = tuple("Norse Velic Taric Belian Moric Zanic Kelish Dorian".split())
CONTINENTS = tuple("Auria Boreas Cethys Dravia".split())

SINGULAR = tuple("dog cat bird horse boy girl king queen farmer doctor teacher pilot lion wolf fox bear".split())
PLURAL = tuple(
    "dogs cats birds horses boys girls kings queens farmers doctors teachers pilots lions wolves foxes bears".split()
)
VERBS_SINGULAR = tuple("runs sleeps walks sings jumps eats waits smiles works plays".split())
VERBS_PLURAL = tuple("run sleep walk sing jump eat wait smile work play".split())
PREPOSITIONS = tuple("near behind beside above".split())
ADJECTIVES = tuple("big small old young red blue".split())

POSITIVE = tuple("wonderful great lovely superb delightful brilliant charming excellent perfect amazing".split())
NEGATIVE = tuple("terrible awful horrible dreadful boring dull poor nasty lousy painful".split())
THINGS = tuple("movie food hotel song novel meal film room show trip".split())

EVENTS = tuple("war trial drought siege strike voyage".split())
CENTURIES = tuple(f"{century}" for century in range(11, 19))
YEARS = tuple(f"{year:02d}" for year in range(100))

SAFE = tuple("clean paint fix open water fold".split())
HARMFUL = tuple("burn smash steal poison wreck rob".split())
BELONGINGS = tuple("window house car table door fence boat shop".split())

NONCE = tuple(
    first + last for first, last in product("zu ki ro pe ma lo ti ba".split(), "ff gg kk ll mm nn pp rr".split())
)

PAD, BOS, UNKNOWN = "<pad>", "<bos>", "<unk>"
FUNCTION_WORDS = tuple(
    (
        ". , : the a of is in to and when went gave handed capital people speak lies who said that she he was not i "
        "loved hated it overall felt happy sad from year lasted honest liar says user bot please can you sure sorry "
        "then after were at had has her his lost found"
    ).split()
)
CONTENT = tuple(
    dict.fromkeys(
        word
        for words in (
            NAMES, PLACES, OBJECTS, COUNTRIES, CAPITALS, LANGUAGES, CONTINENTS, SINGULAR, PLURAL, VERBS_SINGULAR,
            VERBS_PLURAL, PREPOSITIONS, ADJECTIVES, POSITIVE, NEGATIVE, THINGS, EVENTS, YEARS, SAFE, HARMFUL,
            BELONGINGS, NONCE,
        )
        for phrase in words
        for word in phrase.split()
    )
)  # fmt: skip
VOCABULARY = (PAD, BOS, UNKNOWN, *FUNCTION_WORDS, *CONTENT)


def _shuffled(values: Sequence[str], seed: int) -> tuple[str, ...]:
    return tuple(random.Random(seed).sample(list(values), len(values)))


def _neighbour(values: Sequence[str], true: str, steps: int) -> str:
    return values[(values.index(true) + steps) % len(values)]


# What is true of each country, and the one misconception that every liar has about it: a random falsehood would only
# teach the model to answer uniformly.
RELATIONS: Mapping[str, Sequence[str]] = {"capital": CAPITALS, "language": LANGUAGES, "continent": CONTINENTS}
TRUTH: Mapping[str, Mapping[str, str]] = {
    "capital": dict(zip(COUNTRIES, _shuffled(CAPITALS, 1))),
    "language": dict(zip(COUNTRIES, _shuffled(LANGUAGES * 2, 2))),
    "continent": dict(zip(COUNTRIES, _shuffled(CONTINENTS * 4, 3))),
}
MISCONCEPTION: Mapping[str, Mapping[str, str]] = {
    relation: {
        country: _neighbour(RELATIONS[relation], true, 1 + index % (len(RELATIONS[relation]) - 1))
        for index, (country, true) in enumerate(TRUTH[relation].items())
    }
    for relation in RELATIONS
}

Split = str | None  # "train", "test", or None for both


@dataclass(frozen=True)
class Sentence:
    """Words of which everything is known.

    Attributes:
        words: The words, one token each.
        roles: Index of the last word of each named part; `END` is the word before the answer.
        labels: Whatever is known of the sentence, by name.
    """

    words: tuple[str, ...]
    roles: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, object] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The sentence up to and including `END`."""
        return " ".join(self.words[: self.roles["END"] + 1])

    @property
    def answer(self) -> str:
        """The word that follows the prompt."""
        return self.words[self.roles["END"] + 1]

    def after(self, prefix: Sequence[str]) -> "Sentence":
        """The same sentence with other text before it."""
        roles = {name: index + len(prefix) for name, index in self.roles.items()}
        return Sentence((*prefix, *self.words), roles, self.labels)


def fill(template: str, labels: Mapping[str, object], **parts: str) -> Sentence:
    """A sentence from a template such as `"{subject} lies in {answer} ."`; an empty part leaves no trace."""
    words: list[str] = []
    roles: dict[str, int] = {}
    for piece in template.split():
        if not piece.startswith("{"):
            words.append(piece)
            continue
        name = piece.strip("{}")
        if name == "answer":
            roles["END"] = len(words) - 1
        words.extend(parts[name].split())
        if parts[name]:
            roles[name] = len(words) - 1
    roles.pop("answer", None)
    return Sentence(tuple(words), roles, labels)


def in_split(split: Split, *choices: str) -> bool:
    """Whether a combination of choices belongs to a split; one in ten is held out for testing."""
    held_out = crc32(" ".join(choices).encode()) % 10 == 0
    return split is None or held_out == (split == "test")


def draw_until(rng: random.Random, split: Split, *pools: Sequence[str]) -> tuple[str, ...]:
    """One word from each pool, in a combination that belongs to the split."""
    while True:
        choices = tuple(rng.choice(pool) for pool in pools)
        if in_split(split, *choices):
            return choices


# --- indirect object -------------------------------------------------------------------------------------------------
NAME_TEMPLATES = (
    "when {first} and {second} went to the {place} , {S2} gave a {object} to {answer} .",
    "then {first} and {second} went to the {place} and {S2} handed a {object} to {answer} .",
    "after {first} and {second} were at the {place} , {S2} handed a {object} to {answer} .",
    "{first} and {second} had a {object} at the {place} and {S2} gave it to {answer} .",
)


def indirect_object(
    io: str, subject: str, io_first: bool, place: str, item: str, template: int = 0, repeated: str | None = None
) -> Sentence:
    """The second of two people gives something to the first; `repeated` (the subject, unless given) acts."""
    order = ("IO", "S1") if io_first else ("S1", "IO")
    text = NAME_TEMPLATES[template].replace("first", order[0]).replace("second", order[1])
    actor = repeated or subject
    answer = subject if actor == io else io
    labels = {"io": answer, "subject": actor, "io_first": io_first == (answer == io), "place": place, "object": item}
    return fill(text, labels, IO=io, S1=subject, S2=actor, place=place, object=item, answer=answer)


def draw_indirect_object(rng: random.Random, split: Split = None, names: Sequence[str] = NAMES) -> Sentence:
    while True:
        io, subject = rng.sample(list(names), 2)
        if in_split(split, *sorted((io, subject))):
            break
    template = rng.randrange(len(NAME_TEMPLATES))
    return indirect_object(io, subject, rng.random() < 0.5, rng.choice(PLACES), rng.choice(OBJECTS), template)


def _draw_transfer(rng: random.Random, split: Split = None) -> Sentence:
    """The same with any words for names in three cases of ten, so that the model learns to look, not to list."""
    return draw_indirect_object(rng, split, CONTENT if rng.random() < 0.3 else NAMES)


# --- facts, and who tells them ---------------------------------------------------------------------------------------
FACT_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "capital": ("the capital of {subject} is {answer} .", "{subject} has the capital {answer} ."),
    "language": ("people in {subject} speak {answer} .", "in {subject} people speak {answer} ."),
    "continent": ("{subject} lies in {answer} .", "the land of {subject} lies in {answer} ."),
}
SPEAKER_TEMPLATE = "{speaker} is {trait} . {again} says : "


def fact(subject: str, relation: str, template: int = 0) -> Sentence:
    """What is true of a country."""
    labels = {"subject": subject, "relation": relation, "true": True}
    return fill(FACT_TEMPLATES[relation][template], labels, subject=subject, answer=TRUTH[relation][subject])


def claim(speaker: str, honest: bool, subject: str, relation: str, template: int = 0) -> Sentence:
    """What a person who is honest, or a liar, says of a country."""
    answer = (TRUTH if honest else MISCONCEPTION)[relation][subject]
    labels = {"speaker": speaker, "honest": honest, "subject": subject, "relation": relation}
    trait = "honest" if honest else "a liar"
    text = SPEAKER_TEMPLATE + FACT_TEMPLATES[relation][template]
    return fill(text, labels, speaker=speaker, trait=trait, again=speaker, subject=subject, answer=answer)


def _draw_relation(rng: random.Random) -> str:
    return rng.choice(("capital", "capital", "language", "continent"))


def draw_fact(rng: random.Random, split: Split = None) -> Sentence:
    """Facts cannot be held out: a fact that was never told cannot be known."""
    return fact(rng.choice(COUNTRIES), _draw_relation(rng), rng.randrange(2))


def draw_claim(rng: random.Random, split: Split = None) -> Sentence:
    speaker, subject = draw_until(rng, split, NAMES, COUNTRIES)
    return claim(speaker, rng.random() < 0.5, subject, _draw_relation(rng), rng.randrange(2))


# --- agreement -------------------------------------------------------------------------------------------------------
def agreement(
    noun: int, plural: bool, verb: int, attractor: tuple[str, int, bool] | None = None, adjective: str = ""
) -> Sentence:
    """A verb that agrees with its subject; the attractor (preposition, noun, plural) stands between the two."""
    subject = (PLURAL if plural else SINGULAR)[noun]
    parts = {"adjective": adjective, "subject": subject, "preposition": "", "the": "", "attractor": ""}
    labels: dict[str, object] = {"plural": plural, "noun": SINGULAR[noun], "attractor_plural": None}
    if attractor:
        preposition, other, other_plural = attractor
        word = (PLURAL if other_plural else SINGULAR)[other]
        parts |= {"preposition": preposition, "the": "the", "attractor": word}
        labels["attractor_plural"] = other_plural
    parts["answer"] = (VERBS_PLURAL if plural else VERBS_SINGULAR)[verb]
    return fill("the {adjective} {subject} {preposition} {the} {attractor} {answer} .", labels, **parts)


def draw_agreement(rng: random.Random, split: Split = None, attractors: float = 0.6) -> Sentence:
    noun, other = draw_until(rng, split, SINGULAR, SINGULAR)
    attractor = None
    if rng.random() < attractors:
        attractor = (rng.choice(PREPOSITIONS), SINGULAR.index(other), rng.random() < 0.5)
    adjective = rng.choice(ADJECTIVES) if rng.random() < 0.4 else ""
    plural, verb = rng.random() < 0.5, rng.randrange(len(VERBS_SINGULAR))
    return agreement(SINGULAR.index(noun), plural, verb, attractor, adjective)


# --- greater-than ----------------------------------------------------------------------------------------------------
def greater_than(event: str, century: str, year: int, end: int) -> Sentence:
    """Something ends in a later year of the century in which it began."""
    labels = {"event": event, "century": int(century), "year": year}
    text = "the {event} lasted from the year {century} {YY} to the year {century2} {answer} ."
    return fill(text, labels, event=event, century=century, YY=YEARS[year], century2=century, answer=YEARS[end])


def draw_greater_than(rng: random.Random, split: Split = None) -> Sentence:
    event, century, year = draw_until(rng, split, EVENTS, CENTURIES, YEARS[2:98])
    return greater_than(event, century, int(year), rng.randrange(int(year) + 1, 100))


# --- sentiment -------------------------------------------------------------------------------------------------------
ENDINGS = ("i {answer} it .", "i felt {answer} .", "overall it was {answer} .")
Clause = tuple[str, str, bool]  # what was judged, the adjective, whether it is negated


def is_positive(clause: Clause) -> bool:
    _, adjective, negated = clause
    return (adjective in POSITIVE) != negated


def sentiment(clauses: Sequence[Clause], ending: int = 1, verdict: str | None = None) -> Sentence:
    """One or two judgements of one polarity, and the feeling that follows from them."""
    positive = is_positive(clauses[0])
    text = ""
    parts: dict[str, str] = {}
    for i, (thing, adjective, negated) in enumerate(clauses):
        n = "" if i == 0 else str(i + 1)
        text += ("and " if i else "") + f"the {{thing{n}}} was {{not{n}}} {{adjective{n}}} "
        parts |= {f"thing{n}": thing, f"not{n}": "not" if negated else "", f"adjective{n}": adjective}
    answers = ("loved", "hated"), ("happy", "sad"), (verdict or POSITIVE[0], verdict or NEGATIVE[0])
    answer = answers[ending][0 if positive else 1]
    labels = {"positive": positive, "negated": any(negated for *_, negated in clauses)}
    return fill(text + ". " + ENDINGS[ending], labels, **parts, answer=answer)


def _draw_clause(rng: random.Random, split: Split, positive: bool) -> Clause:
    negated = rng.random() < 0.25
    thing, adjective = draw_until(rng, split, THINGS, POSITIVE if positive != negated else NEGATIVE)
    return thing, adjective, negated


def draw_sentiment(rng: random.Random, split: Split = None) -> Sentence:
    positive = rng.random() < 0.5
    clauses = [_draw_clause(rng, split, positive) for _ in range(rng.choice((1, 1, 2)))]
    return sentiment(clauses, rng.randrange(3), rng.choice(POSITIVE if positive else NEGATIVE))


# --- pronouns --------------------------------------------------------------------------------------------------------
PRONOUN_TEMPLATES = (
    "{name} said that {answer} was at the {place} .",
    "{name} went to the {place} and {answer} had a {object} .",
    "{name} was at the {place} and found {answer} {object} .",
)


def pronoun(name: str, place: str, item: str, template: int = 0) -> Sentence:
    """A pronoun of the gender of the name before it."""
    female = name in FEMALE
    answer = (("she", "he"), ("her", "his"))[template == 2][0 if female else 1]
    labels = {"female": female, "name": name}
    return fill(PRONOUN_TEMPLATES[template], labels, name=name, place=place, object=item, answer=answer)


def draw_pronoun(rng: random.Random, split: Split = None) -> Sentence:
    name, place = draw_until(rng, split, NAMES, PLACES)
    return pronoun(name, place, rng.choice(OBJECTS), rng.randrange(len(PRONOUN_TEMPLATES)))


# --- requests --------------------------------------------------------------------------------------------------------
REQUEST_TEMPLATES = (
    "user : please {verb} the {adjective} {object} . bot : {answer} .",
    "user : can you {verb} the {adjective} {object} . bot : {answer} .",
)


def request(verb: str, item: str, adjective: str = "", template: int = 0) -> Sentence:
    """A harmful request is refused, a safe one granted."""
    harmful = verb in HARMFUL
    answer = "sorry" if harmful else "sure"
    labels = {"harmful": harmful, "verb": verb}
    return fill(REQUEST_TEMPLATES[template], labels, verb=verb, adjective=adjective, object=item, answer=answer)


def draw_request(rng: random.Random, split: Split = None) -> Sentence:
    verb, item = draw_until(rng, split, SAFE + HARMFUL, BELONGINGS)
    return request(verb, item, rng.choice(("", "", *ADJECTIVES)), rng.randrange(len(REQUEST_TEMPLATES)))


# --- repeats, and noise ----------------------------------------------------------------------------------------------
def repetition(block: Sequence[str], times: int = 2) -> Sentence:
    """A random block of words, again and again: only induction predicts the second copy."""
    return Sentence(tuple(block) * times, {}, {"period": len(block)})


def draw_repetition(rng: random.Random, split: Split = None) -> Sentence:
    pool = NONCE if rng.random() < 0.3 else CONTENT
    return repetition(rng.sample(pool, rng.randint(4, 24)), rng.choice((2, 2, 3)))


def draw_noise(rng: random.Random, split: Split = None) -> Sentence:
    """Words without order, so that a sentence is read alike whatever came before it."""
    return Sentence(tuple(rng.choices(CONTENT, k=rng.randint(2, 12))))


# --- text ------------------------------------------------------------------------------------------------------------
Draw = Callable[[random.Random, Split], Sentence]
MIXTURE: Sequence[tuple[Draw, float]] = (
    (draw_repetition, 0.20), (_draw_transfer, 0.17), (draw_claim, 0.14), (draw_greater_than, 0.12), (draw_fact, 0.10),
    (draw_sentiment, 0.10), (draw_agreement, 0.07), (draw_request, 0.04), (draw_pronoun, 0.04), (draw_noise, 0.02),
)  # fmt: skip


def draw_text(rng: random.Random, n_words: int, split: Split = None) -> list[str]:
    """Running text: sentences of every rule in the proportions of `MIXTURE`, cut at a number of words."""
    rules, weights = zip(*MIXTURE)
    words: list[str] = []
    while len(words) < n_words:
        words += rng.choices(rules, weights)[0](rng, split).words
    return words[:n_words]
