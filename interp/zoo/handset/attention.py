"""Heads that attend by what a position holds: induction, copying, detection of duplicates; no MLP does anything."""

import random
from collections.abc import Hashable
from itertools import pairwise

from interp.graph import Edge
from interp.model import Model
from interp.zoo.handset.blank import BOS, Blank, Writes
from interp.zoo.known import Draw, Known, pairs

WORDS = tuple("abcdefgh")
_SHARP = 20.0  # between the best key and the next: what is left for the others is a billionth
_GAIN = 10.0


def induction(n: int = 16, seed: int = 0, length: int = 5, backend: str | None = None) -> Known:
    """What followed the last word when it came before? Two layers of two heads.

    * L0H0, the previous-token head: each position attends to the one before and writes its word as `previous`.
    * L1H0, the induction head: a word attends to where it is `previous` and writes the word there as the answer; where
      there is no such place, it attends to the start, which holds no word.
    * L0H1 and L1H1 attend to all words alike and write what they find where nothing reads it.

    Prompts are some words, all different, and one of them again; in the corrupt run, others. The previous-token head's
    queries and keys are positions, the same in both runs: they matter under zero ablation alone. The start is a key of
    the induction head, from `embed`, that never matters on these prompts.

    Raises:
        ValueError: Fewer words than two, or more than there are.
    """
    if not 2 <= length <= len(WORDS):
        raise ValueError(f"induction is over 2 to {len(WORDS)} different words, not over {length}")
    places = _places(length + 3)
    features = [*_each("word"), *_each("previous"), *_each("answer"), *_each("unread"), *places, "start"]
    blank = Blank.of(features, WORDS, n_layers=2, n_heads=2, d_head=length + 3, n_context=length + 3)
    _words(blank)
    blank.head(0, 0, [({b: 1.0}, {a: 1.0}, _SHARP) for a, b in pairwise(places)], _from("word", "previous"))
    match = [({a: 1.0}, {b: 1.0}, 2 * _SHARP) for a, b in zip(_each("word"), _each("previous"))]
    blank.head(1, 0, match, _from("word", "answer", _GAIN), always=[{"start": _SHARP}])
    for layer in (0, 1):
        blank.head(layer, 1, [], _from("word", "unread"))

    def draw(rng: random.Random) -> tuple[str, str]:
        words = rng.sample(WORDS, length)
        at = rng.randrange(length - 1)
        return " ".join([BOS, *words, words[at]]), words[at + 1]

    shared = {("embed", "L0H0.v"), ("L0H0", "L1H0.k"), ("embed", "L1H0.q"), ("embed", "L1H0.v"), ("L1H0", "logits")}
    positions = {("embed", "L0H0.q"), ("embed", "L0H0.k")}
    return _known("induction", blank.model(backend), draw, n, seed, shared, positions)


def copying(n: int = 16, seed: int = 0, backend: str | None = None) -> Known:
    """What was the first word? One layer of two heads.

    * L0H0 attends to the first position after the start, from everywhere, and writes the word there as the answer.
    * L0H1 attends to all words alike and writes what it finds where nothing reads it.

    The query is a bias: no edge into it matters. Keys are positions, which matter under zero ablation alone.
    """
    blank = Blank.of([*_each("word"), *_each("answer"), *_each("unread"), *_places(8), "start"], WORDS, 1, 2)
    _words(blank)
    blank.head(0, 0, [], _from("word", "answer", _GAIN), always=[{("place", 1): _SHARP}])
    blank.head(0, 1, [], _from("word", "unread"))

    def draw(rng: random.Random) -> tuple[str, str]:
        words = rng.choices(WORDS, k=5)
        return " ".join([BOS, *words]), words[0]

    shared = {("embed", "L0H0.v"), ("L0H0", "logits")}
    return _known("copying", blank.model(backend), draw, n, seed, shared, {("embed", "L0H0.k")})


def duplicates(n: int = 16, seed: int = 0, backend: str | None = None) -> Known:
    """Did the last word come before? One layer of two heads; the answer is yes or no.

    * L0H0 attends to the same word at another position, or else to the start. It writes `seen` where it finds a word,
      `new` where it finds the start.
    * L0H1 attends to all words alike and writes what it finds where nothing reads it.

    Its values are the same in both runs, and matter under zero ablation alone.
    """
    places = _places(8)
    features = [*_each("word"), *_each("unread"), *places, "start", "is word", "seen", "new"]
    blank = Blank.of(features, [*WORDS, "yes", "no"], 1, 2, d_head=len(WORDS) + len(places) + 1)
    _words(blank)
    same = [({word: 1.0}, {word: 1.0}, 2 * _SHARP) for word in _each("word")]
    itself = [({place: 1.0}, {place: 1.0}, -4 * _SHARP) for place in places]
    blank.head(
        0, 0, [*same, *itself], [({"is word": 1.0}, {"seen": _GAIN}), ({"start": 1.0}, {"new": _GAIN})],
        always=[{"start": _SHARP}],
    )  # fmt: skip
    blank.head(0, 1, [], _from("word", "unread"))
    blank.unembed("yes", {"seen": 1.0})
    blank.unembed("no", {"new": 1.0})

    def draw(rng: random.Random) -> tuple[str, str]:
        words = rng.choices(WORDS, k=5)
        return " ".join([BOS, *words]), "yes" if words[-1] in words[:-1] else "no"

    shared = {("embed", "L0H0.q"), ("embed", "L0H0.k"), ("L0H0", "logits")}
    return _known("duplicates", blank.model(backend), draw, n, seed, shared, {("embed", "L0H0.v")})


def _each(kind: str) -> list[Hashable]:
    return [(kind, word) for word in WORDS]


def _places(n: int) -> list[Hashable]:
    return [("place", i) for i in range(n)]


def _words(blank: Blank) -> None:
    """Embed words and positions, and unembed answers."""
    known = set(blank.features)
    blank.embed(BOS, {"start": 1.0})
    for word in WORDS:
        blank.embed(word, {("word", word): 1.0} | ({"is word": 1.0} if "is word" in known else {}))
        if ("answer", word) in known:
            blank.unembed(word, {("answer", word): 1.0})
    for feature in blank.features:
        if isinstance(feature, tuple) and feature[0] == "place":
            blank.place(feature[1], {feature: 1.0})


def _from(kind: str, to: str, amount: float = 1.0) -> Writes:
    """Write to one subspace what another holds."""
    return [({one: 1.0}, {other: amount}) for one, other in zip(_each(kind), _each(to))]


def _known(
    name: str,
    model: Model,
    draw: Draw,
    n: int,
    seed: int,
    shared: set[Edge],
    zero: set[Edge],
) -> Known:
    """A task of pairs with different answers, and the edges that matter under both ablations or under zero alone."""
    edges = {"corrupt": frozenset(shared), "zero": frozenset(shared | zero)}
    return Known(name, model, pairs(name, model, draw, n, seed), edges)
