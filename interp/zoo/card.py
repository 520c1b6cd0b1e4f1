"""Measure the embedded model, behaviour by behaviour: `python -m interp.zoo.card` prints its card.

A script, not a library: it prints.
"""

import random
from collections.abc import Callable, Sequence

import torch

from interp.backends import load
from interp.model import Model
from interp.zoo import corpus, estimates, lexicon, own_circuits, truth
from interp.zoo.language import Sentence

THRESHOLDS = {
    "induction": 0.95, "indirect object": 0.99, "facts": 0.99, "agreement": 0.98, "greater-than": 0.75,
    "sentiment, negated": 0.98, "pronoun": 0.98, "honest speaker": 0.95, "liar": 0.95, "refusal": 0.98,
}  # fmt: skip
_EDGES = """Every edge alone was exchanged for what it carries in the other run, or for nothing, on 64 pairs of each
task (`python -m interp.zoo.truth`). Gap: the logit difference of the clean run less that of the corrupt one. Then how
many of the 479 edges change it by 5 % of the gap or more, and the largest, as shares of the gap that are lost.
"""
Draw = Callable[[random.Random], Sentence]
Score = Callable[[Sentence, torch.Tensor, Model], float]


def measure(model: Model, n: int = 300, seed: int = 0, prefix: bool = False) -> dict[str, float]:
    """Accuracy of each behaviour (greater-than: probability of later years minus others) on held-out text."""
    rng = random.Random(seed)
    found = {name: _score(model, rng, n, prefix, draw, score) for name, (draw, score) in BEHAVIOURS.items()}
    return {"induction": _induction(model, rng, n, prefix), **found}


def _score(model: Model, rng: random.Random, n: int, prefix: bool, draw: Draw, score: Score) -> float:
    sentences = [draw(rng) for _ in range(n)]
    texts = [" ".join([*(_prefix(rng) if prefix else []), sentence.prompt]) for sentence in sentences]
    logits = model.run(texts, last_only=True).logits[:, -1]
    return sum(score(sentence, row, model) for sentence, row in zip(sentences, logits)) / n


def _prefix(rng: random.Random) -> list[str]:
    """Twenty random words, or a whole sentence or two."""
    if rng.random() < 0.5:
        return rng.choices(lexicon.CONTENT, k=20)
    words: list[str] = []
    while len(words) < 10:
        words += rng.choice(corpus.MIXTURE[1:9])[0](rng, "test").words
    return words


def _induction(model: Model, rng: random.Random, n: int, prefix: bool) -> float:
    blocks = [rng.sample(lexicon.CONTENT, 24) for _ in range(n)]
    starts = [rng.choices(lexicon.CONTENT, k=20) if prefix else [] for _ in range(n)]
    tokens = model.tokens([" ".join([*start, *block, *block]) for start, block in zip(starts, blocks)])
    guesses = model.run(tokens).logits[:, -24:-1].argmax(-1)
    return float((guesses == tokens.ids[:, -23:]).float().mean())


def _is_top(sentence: Sentence, logits: torch.Tensor, model: Model) -> float:
    return float(int(logits.argmax()) == model.token_id(sentence.answer))


def _mass(model: Model, logits: torch.Tensor, words: Sequence[str]) -> float:
    return float(logits.softmax(-1)[[model.token_id(word) for word in words]].sum())


def _agrees(sentence: Sentence, logits: torch.Tensor, model: Model) -> float:
    plural = _mass(model, logits, lexicon.VERBS_PLURAL) > _mass(model, logits, lexicon.VERBS_SINGULAR)
    return float(plural == sentence.labels["plural"])


def _later(sentence: Sentence, logits: torch.Tensor, model: Model) -> float:
    year = int(str(sentence.labels["year"]))
    return _mass(model, logits, lexicon.YEARS[year + 1 :]) - _mass(model, logits, lexicon.YEARS[: year + 1])


def _feels(sentence: Sentence, logits: torch.Tensor, model: Model) -> float:
    good, bad = (*lexicon.POSITIVE, "happy", "loved"), (*lexicon.NEGATIVE, "sad", "hated")
    return float((_mass(model, logits, good) > _mass(model, logits, bad)) == sentence.labels["positive"])


def _until(draw: Callable, wanted: Callable[[Sentence], bool]) -> Draw:
    def drawn(rng: random.Random) -> Sentence:
        return next(sentence for sentence in iter(lambda: draw(rng, "test"), None) if wanted(sentence))

    return drawn


BEHAVIOURS: dict[str, tuple[Draw, Score]] = {
    "indirect object": (lambda rng: corpus.draw_indirect_object(rng, "test"), _is_top),
    "facts": (lambda rng: corpus.draw_fact(rng), _is_top),
    "agreement": (
        _until(corpus.draw_agreement, lambda s: s.labels["attractor_plural"] == (not s.labels["plural"])), _agrees
    ),
    "greater-than": (lambda rng: corpus.draw_greater_than(rng, "test"), _later),
    "sentiment, negated": (_until(corpus.draw_sentiment, lambda s: bool(s.labels["negated"])), _feels),
    "pronoun": (lambda rng: corpus.draw_pronoun(rng, "test"), _is_top),
    "honest speaker": (_until(corpus.draw_claim, lambda s: bool(s.labels["honest"])), _is_top),
    "liar": (_until(corpus.draw_claim, lambda s: not s.labels["honest"]), _is_top),
    "refusal": (lambda rng: corpus.draw_request(rng, "test"), _is_top),
}  # fmt: skip


def main() -> None:
    model = load()
    print("# The embedded model\n\nMeasured by `python -m interp.zoo.card`, on held-out combinations of words.\n")
    plain, prefixed = (measure(model, prefix=prefix) for prefix in (False, True))
    print("| behaviour | held-out | after a random prefix | wanted |\n|---|---|---|---|")
    for name, wanted in THRESHOLDS.items():
        print(f"| {name} | {plain[name]:.3f} | {prefixed[name]:.3f} | {wanted} |")
    for behaviour in own_circuits.BEHAVIOURS:
        for place in own_circuits.PLACES:
            print(
                f"\n## {behaviour}: {place}\n\nShares of the gap in logit difference, 64 pairs, 95 % intervals. Every"
            )
            print("place was patched; shown are those whose sign-flip p-value, corrected over all, is at most 0.05 and")
            print(f"whose share is at least 0.02.\n\n{own_circuits.table(model, behaviour, place)}")
    print("\n## Estimators\n")
    print(estimates.table(model))
    print(f"\n## Edges\n\n{_EDGES}")
    print(truth.table(truth.stored()))
    print("\nPearson correlation of edge attribution with the exact effects of all edges, denoising:\n")
    print(estimates.edge_table(model))


if __name__ == "__main__":
    main()
