"""How often tokens follow each other at a distance: what can be said of later tokens without any hidden state."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.traces import Tokens

_PRIORS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


@dataclass(frozen=True)
class Skipgrams:
    """Counted pairs of tokens some positions apart, smoothed towards the shares of single tokens.

    Attributes:
        unigram: The share of each token, one count added to each.
        pairs: Those that were seen, first * vocabulary + second, ascending.
        counts: How often each was.
        firsts: How often each token was the first of a pair.
        prior: How many counts the shares of single tokens stand for.
        best: The likeliest second token after each first.
    """

    unigram: Float[Tensor, " vocab"]
    pairs: Int[Tensor, " pair"]
    counts: Int[Tensor, " pair"]
    firsts: Int[Tensor, " vocab"]
    prior: float
    best: Int[Tensor, " vocab"]

    @classmethod
    def of(cls, tokens: Tokens, apart: int, d_vocab: int) -> "Skipgrams":
        """The pairs of tokens `apart` positions apart in some documents."""
        ids, mask = tokens.ids, tokens.mask.bool()
        seen = torch.bincount(ids[mask], minlength=d_vocab) + 1
        unigram = seen / seen.sum()
        both = mask[:, :-apart] & mask[:, apart:]
        pairs, counts = (ids[:, :-apart][both] * d_vocab + ids[:, apart:][both]).unique(return_counts=True)
        first, second = pairs // d_vocab, pairs % d_vocab
        firsts = torch.bincount(first, counts, d_vocab).long()
        prior = min(_PRIORS, key=lambda prior: _surprise(prior, counts, firsts[first], unigram[second]))
        score = counts + prior * unigram[second]
        order = score.argsort()
        rank = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
        top = order[torch.full_like(seen, 0).scatter_reduce(0, first, rank, "amax", include_self=False)]
        # Where no pair was seen, or none often enough, the commonest token is likeliest.
        known = (firsts > 0) & (score[top] >= prior * unigram.max())
        best = torch.where(known, second[top], unigram.argmax())
        return cls(unigram, pairs, counts, firsts, prior, best)

    def log_prob(self, first: Int[Tensor, " row"], second: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
        """The log probability of second tokens after first ones."""
        pair = first * len(self.unigram) + second
        place = torch.searchsorted(self.pairs, pair).clamp(max=len(self.pairs) - 1)
        count = torch.where(self.pairs[place] == pair, self.counts[place], 0)
        return ((count + self.prior * self.unigram[second]) / (self.firsts[first] + self.prior)).log()


def _surprise(prior: float, counts: Tensor, firsts: Tensor, share: Tensor) -> float:
    """How unlikely each pair is by all the others."""
    return -float((counts * ((counts - 1 + prior * share) / (firsts - 1 + prior)).log()).sum())
