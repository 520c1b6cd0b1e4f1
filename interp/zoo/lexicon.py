"""The words of the embedded model's language, and what is true in its world."""

import random
from collections.abc import Mapping, Sequence
from itertools import product

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
