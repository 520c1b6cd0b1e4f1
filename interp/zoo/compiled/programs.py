"""Programs to compile, each beside plain Python that says the same."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from interp.zoo.compiled.language import (
    aggregate,
    apply,
    count,
    indices,
    mean,
    nearest,
    select,
    tokens,
    where,
)
from interp.zoo.compiled.variables import Variable

Words = list[str]


@dataclass(frozen=True)
class Program:
    """What is to be computed at the last position of any prompt.

    Attributes:
        output: The variable whose values are the answers.
        length: How many words a prompt may have, its start not counted.
        answer: The same in plain Python: from the words of a prompt to the answer.
        draw: A random prompt that has an answer.
    """

    name: str
    alphabet: tuple[str, ...]
    length: int
    output: Variable
    answer: Callable[[Words], str]
    draw: Callable[[random.Random], Words]


_LETTERS = "abcd"


def reverse(most: int = 4) -> Program:
    """After a list and a colon, the list from its end, word by word: "a b c : c b" is followed by "a"."""
    words, place = tokens([*_LETTERS, ":"]), indices(2 * most)
    colon = aggregate("colon", where(words, lambda word: word == ":"), place)
    back = lambda here, colon: 2 * colon - 1 - here if 0 <= 2 * colon - 1 - here < colon else None
    target = apply("target", back, place, colon)
    output = aggregate("reversed", select(place, target, lambda key, query: key == query), words)
    answer = lambda given: given[given.index(":") - 1 :: -1][len(given) - given.index(":") - 1]
    return Program("reverse", words.values, 2 * most, output, answer, _listed(most, lambda xs: xs[::-1]))


def sort(most: int = 4) -> Program:
    """After a list and a colon, the list in order, word by word: "b a b : a b" is followed by "b", and all by "."."""
    words, place = tokens([*_LETTERS, ":"]), indices(2 * most + 1)
    colon = aggregate("colon", where(words, lambda word: word == ":"), place)
    same = select(words, words, lambda key, query: key == query)
    ever = count("ever", same, 2 * most)
    since = count("since", same & select(place, colon, lambda key, query: key > query), most)
    left = apply("left", lambda ever, since: ever > 2 * since, ever, since)
    larger = select(words, words, lambda key, query: key != ":" and (query == ":" or key > query))
    smallest = larger.preferring(words, [*reversed(_LETTERS)])
    following = aggregate("following", smallest, words, default=".")
    choose = lambda left, word, following: word if left and word != ":" else following
    output = apply("sorted", choose, left, words, following)

    def answer(given: Words) -> str:
        at = given.index(":")
        return [*sorted(given[:at]), "."][len(given) - at - 1]

    return Program("sort", words.values, 2 * most + 1, output, answer, _listed(most, lambda xs: [*sorted(xs), "."]))


def histogram(most: int = 6) -> Program:
    """How often the last word has come so far, itself counted."""
    words = tokens(_LETTERS)
    output = count("count", select(words, words, lambda key, query: key == query), most)
    return Program(
        "histogram", words.values, most, output, lambda given: str(given.count(given[-1])), _any(_LETTERS, most)
    )


def balance(most: int = 8) -> Program:
    """Are the brackets so far balanced? No bracket closes what was not opened, and none is open."""
    words = tokens("()")
    height = mean("height", where(words, lambda word: True), words, {"(": 1.0, ")": -1.0})
    side = nearest("side", height, {"below": -1 / most, "level": 0.0, "above": 1 / most})
    fallen = aggregate("fallen", where(side, lambda side: side == "below"), words, default="never")
    verdict = lambda side, fallen: "yes" if side == "level" and fallen == "never" else "no"
    output = apply("verdict", verdict, side, fallen)

    def answer(given: Words) -> str:
        text = "".join(given)
        while "()" in text:
            text = text.replace("()", "")
        return "no" if text else "yes"

    def draw(rng: random.Random) -> Words:
        words = rng.choices("()", k=rng.choice([2, 4, 6, 8][: most // 2]))
        return sorted(words) if rng.random() < 0.3 else words

    return Program("balance", words.values, most, output, answer, draw)


def share(most: int = 6) -> Program:
    """Which share of the words so far is "x"?"""
    words = tokens("xy")
    number = mean("mean", where(words, lambda word: True), words, {"x": 1.0})
    shares = {Fraction(part, whole) for whole in range(1, most + 1) for part in range(whole + 1)}
    output = nearest("share", number, {str(one): float(one) for one in shares})
    return Program(
        "share", words.values, most, output, lambda given: str(Fraction(given.count("x"), len(given))), _any("xy", most)
    )


def substitute(most: int = 6) -> Program:
    """The text with (?<=a)b replaced by c."""
    words, before = _with_previous(most)
    output = apply("edited", lambda word, last: "c" if last + word == "ab" else word, words, before)
    return _edit("substitute", output, words, most, lambda text: re.sub("(?<=a)b", "c", text))


def squeeze(most: int = 6) -> Program:
    """The text with every repetition of the character before crossed out: (?<=(.))\\1 is replaced by _."""
    words, before = _with_previous(most)
    output = apply("edited", lambda word, last: "_" if last == word else word, words, before)
    return _edit("squeeze", output, words, most, lambda text: re.sub(r"(?<=(.))\1", "_", text))


def first(most: int = 6) -> Program:
    """The text with the first a, and no other, replaced by b."""
    words = tokens(_LETTERS)
    found = count("found", where(words, lambda word: word == "a"), most)
    output = apply("edited", lambda word, found: "b" if word == "a" and found == 1 else word, words, found)
    return _edit("first", output, words, most, lambda text: re.sub("a", "b", text, count=1))


def comments(most: int = 8) -> Program:
    """The text with what stands in angle brackets crossed out, the brackets too, also before they are closed."""
    words, place = tokens("ab<>"), indices(most)
    earlier = select(place, place, lambda key, query: key < query)
    brackets = (earlier & where(words, lambda word: word in "<>")).preferring(place, place.values)
    last = aggregate("last bracket", brackets, words, default=">")
    output = apply("edited", lambda word, last: "_" if "<" in (word, last) else word, words, last)
    crossed = lambda text: re.sub("<[^>]*>?", lambda found: "_" * len(found[0]), text)
    return _edit("comments", output, words, most, crossed)


PROGRAMS: Mapping[str, Callable[..., Program]] = {
    "reverse": reverse, "sort": sort, "histogram": histogram, "balance": balance, "share": share,
    "substitute": substitute, "squeeze": squeeze, "first": first, "comments": comments,
}  # fmt: skip


def _with_previous(most: int) -> tuple[Variable, Variable]:
    """The words, and the word before each, "^" at the beginning."""
    words, place = tokens(_LETTERS), indices(most)
    one_back = select(place, place, lambda key, query: key == query - 1)
    return words, aggregate("previous", one_back, words, default="^")


def _edit(name: str, output: Variable, words: Variable, most: int, edit: Callable[[str], str]) -> Program:
    """A program whose answer is the last character of the text so far, once it is edited."""
    alphabet = tuple(map(str, words.values))
    return Program(name, alphabet, most, output, lambda given: edit("".join(given))[-1], _any(alphabet, most))


def _any(alphabet: Sequence[str], most: int) -> Callable[[random.Random], Words]:
    return lambda rng: rng.choices(alphabet, k=rng.randint(1, most))


def _listed(most: int, say: Callable[[Words], Words]) -> Callable[[random.Random], Words]:
    """A list, a colon, and the first part of what is to be said of the list."""

    def draw(rng: random.Random) -> Words:
        listed = rng.choices(_LETTERS, k=rng.randint(1, most))
        said = say(listed)
        return [*listed, ":", *said[: rng.randrange(len(said))]]

    return draw
