"""Tune a lens: ridge regression in closed form, then steps down the divergence from the model's own predictions."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arguments import count_of
from interp.components import last_stream
from interp.lens.comparing import Judged, Translators, judge
from interp.lens.moments import Moments
from interp.lens.rows import chunks, divergence, log_probs, streams
from interp.lens.tuned import Translator, TunedLens, identity, tuned_sites
from interp.model import Model, Prompts
from interp.progress import Progress, bar
from interp.sites import Site
from interp.traces import Tokens

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, float("inf"))  # the last leaves nothing but a bias
_LOOKS = 5  # how often the held-out documents are looked at on the way down
_HELD = 2**29  # bytes of streams that are kept from one step to the next


def tune(
    model: Model,
    documents: Prompts,
    sites: Sequence[Site] | None = None,
    steps: int = 500,
    rate: float = 0.15,
    rows: int = 1024,
    held_out: float = 0.15,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> TunedLens:
    """Translators that bring each layer's prediction as near to the model's own as an affine map can.

    Each starts from what is best on held-out documents: nothing, a bias, or a ridge regression of the last stream, in
    which tokens are weighted by the final norm's scale. Then come steps of Adam on the KL divergence of the model's own
    predictions from the decoded ones; what was best on held-out documents is kept.

    Args:
        documents: Running text such as the model was trained on, one document a prompt.
        sites: Streams to translate; by default what leaves each block but the last.
        steps: Of Adam; with 0 the closed form is all.
        rate: Of its first step, in standard deviations of output for one of input; it falls to zero.
        rows: Tokens a step.
        held_out: The share of documents that choose, and another such share that the result is measured on.
        groups: What must not be split, where several prompts are of one document; by default prompts that are the same.

    Returns:
        A lens whose `made` tells how, and the KL divergence (nats a token) of logit lens, tuned lens and best constant
        distribution at each site, on documents that had no part in tuning it.

    Raises:
        ValueError: Too few documents for three parts; a site that is not of the residual stream.
    """
    count_of("steps", steps, 0)
    count_of("rows", rows)
    tokens, sites = model.tokens(documents), tuned_sites(model, sites)
    train, choose, test = _split(tokens, groups, held_out, seed)
    starts = _starts(model, train, sites)
    none = identity(model, sites)
    best = _Best(model, choose, sites)
    best.offer([none.translators, *({s: starts[s].ridge(penalty) for s in sites} for penalty in PENALTIES)])
    descents = {site: _Descent(best.found[site], starts[site]) for site in sites}
    with bar(steps, "steps", progress) as advance:
        for step, held in zip(range(steps), _batches(model, train, sites, rows, seed)):
            _step(model, descents, held, rate * (1 - step / steps))
            if (step + 1) % max(1, steps // _LOOKS) == 0 or step + 1 == steps:
                best.offer([{site: descent.translator for site, descent in descents.items()}])
            advance(1)
    judged = judge(model, test, [{}, best.found], sites)
    how: dict[str, Any] = {
        "method": "tuned lens",
        "model": model.name,
        "backend": model.backend,
        "precision": str(model.dtype),
    }
    how |= {"steps": steps, "rate": rate, "rows": rows, "seed": seed}
    how |= {"documents": [len(part) for part in (train, choose, test)], "held out": _table(judged, sites)}
    return TunedLens(dict(best.found), none.fingerprint, how | {"last layer equals the model": judged.last.status})


@dataclass(frozen=True)
class _Start:
    """What a site's translator starts from.

    Attributes:
        moments: Of the stream, and of what the later blocks add to it.
        scale: Of the last stream, in the tokens that count.
        dtype: Of the translator.
    """

    moments: Moments
    scale: float
    dtype: torch.dtype

    def ridge(self, penalty: float) -> Translator:
        """The translator of least squared error."""
        weight, bias = self.moments.ridge(penalty)
        return Translator(weight.to(self.dtype), bias.to(self.dtype))


class _Best:
    """The best translator of each site so far, by held-out documents."""

    def __init__(self, model: Model, documents: Tokens, sites: Sequence[Site]) -> None:
        self.model, self.documents, self.sites = model, documents, sites
        self.found: dict[Site, Translator] = {}
        self._least = dict.fromkeys(sites, float("inf"))

    def offer(self, candidates: Sequence[Translators]) -> None:
        """Keep those that are better."""
        judged = judge(self.model, self.documents, candidates, self.sites).mean
        for candidate, divergences in zip(candidates, judged.tolist()):
            for site, kl in zip(self.sites, divergences):
                if kl < self._least[site]:
                    self._least[site], self.found[site] = kl, candidate[site]


class _Descent:
    """A translator on its way down: its start, and a correction in standard deviations of input and output."""

    def __init__(self, start: Translator, by: _Start) -> None:
        moments, self.start, self.scale = by.moments, start, by.scale
        spread = moments.covariance.diagonal().clamp(min=0).sqrt()
        width = len(spread)
        self.mean = moments.mean.to(by.dtype)
        # A coordinate that never varies must not be blown up; the root keeps steps alike whatever the width.
        self.spread = (spread.clamp(min=1e-3 * float(spread.mean())) * width**0.5).to(by.dtype)
        self.weight, self.bias = (torch.zeros_like(x).requires_grad_() for x in (start.weight, start.bias))
        self.optimizer = torch.optim.Adam([self.weight, self.bias], betas=(0.9, 0.98))

    def __call__(self, resid: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        scaled = (resid.to(self.weight) - self.mean) / self.spread
        return self.start(resid) + self.scale * (scaled @ self.weight + self.bias)

    @property
    def translator(self) -> Translator:
        """The whole as one affine map."""
        weight = self.scale * self.weight.detach() / self.spread[:, None]
        bias = self.scale * self.bias.detach() - self.mean @ weight
        return Translator(self.start.weight + weight, self.start.bias + bias)


def _step(model: Model, descents: Mapping[Site, _Descent], held: Mapping[Site, Tensor], rate: float) -> None:
    """One step of each translator on the same tokens."""
    last = held[last_stream(model)]
    for descent in descents.values():
        descent.optimizer.zero_grad()
        descent.optimizer.param_groups[0]["lr"] = rate
    for chunk in chunks(len(last), model.shape.d_vocab):
        with torch.no_grad():
            final = log_probs(model, last[chunk])
        for site, descent in descents.items():
            with torch.enable_grad():
                loss = divergence(final, log_probs(model, descent(held[site][chunk]))).sum() / len(last)
            grads = torch.autograd.grad(loss, [descent.weight, descent.bias])  # the model's own stay as they are
            for parameter, grad in zip((descent.weight, descent.bias), grads):
                parameter.grad = grad if parameter.grad is None else parameter.grad + grad
    for descent in descents.values():
        descent.optimizer.step()


@torch.no_grad()
def _starts(model: Model, train: Tokens, sites: Sequence[Site]) -> dict[Site, _Start]:
    """The sums of every site, tokens weighted as the final norm scales them, so that long vectors count no more."""
    last = last_stream(model)
    found: dict[Site, Moments] = {}
    n = 0
    for _, held, _ in streams(model, train, [*sites, last]):
        end = held[last].double()
        weight = 1 / (end**2).mean(-1).clamp(min=1e-30)
        n += len(end)
        for site in sites:
            moments = Moments.of(held[site], end - held[site].double(), weight)
            found[site] = found[site] + moments if site in found else moments
    dtype = torch.promote_types(model.dtype, torch.float32)
    return {site: _Start(moments, float((n / moments.weight) ** 0.5), dtype) for site, moments in found.items()}


Held = Mapping[Site, Float[Tensor, "row d_model"]]


def _batches(model: Model, train: Tokens, sites: Sequence[Site], rows: int, seed: int) -> Iterator[Held]:
    """Tokens of the documents in random order, again and again."""
    generator = torch.Generator().manual_seed(seed)
    for pool in _pools(model, train, [*sites, last_stream(model)], generator):
        n = len(next(iter(pool.values())))
        size, shuffled = min(rows, n), torch.randperm(n, generator=generator).to(model.device)
        for start in range(0, n - size + 1, size):
            yield {site: x[shuffled[start : start + size]] for site, x in pool.items()}


def _pools(model: Model, train: Tokens, wanted: Sequence[Site], generator: torch.Generator) -> Iterator[Held]:
    """Streams of all documents, if they fit into memory; else of some at a time, which are run again each time."""
    if int(train.mask.sum()) * len(wanted) * model.shape.d_model * model.dtype.itemsize <= _HELD:
        parts = [held for _, held, _ in streams(model, train, wanted)]
        whole = {site: torch.cat([part[site] for part in parts]) for site in wanted}
        while True:
            yield whole
    while True:
        order = torch.randperm(len(train), generator=generator).to(model.device)
        for _, held, _ in streams(model, train.rows(order), wanted, size=64):
            yield held


def _split(
    tokens: Tokens, groups: Sequence[Hashable] | None, held_out: float, seed: int
) -> tuple[Tokens, Tokens, Tokens]:
    """Documents to fit to, to choose by and to measure on, no group in two of them."""
    groups = tokens.unpadded if groups is None else groups  # what is said twice is one document
    if len(groups) != len(tokens):
        raise ValueError(f"{len(groups)} groups for {len(tokens)} documents were given; each document is in one")
    names = list(dict.fromkeys(groups))
    size = round(held_out * len(names))
    if not 0 < held_out < 0.5 or size < 1 or len(names) - 2 * size < 2:
        raise ValueError(
            f"{len(names)} documents with held_out={held_out} do not make three parts; give more documents of running "
            "text, or a share between 0 and 0.5"
        )
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    part = {names[i]: 1 if k < size else 2 if k < 2 * size else 0 for k, i in enumerate(order)}
    train, choose, test = ([i for i, group in enumerate(groups) if part[group] == k] for k in range(3))
    return tokens.rows(train), tokens.rows(choose), tokens.rows(test)


def _table(judged: Judged, sites: Sequence[Site]) -> dict[str, Any]:
    """What was measured, as plain values."""
    rows = zip(sites, *judged.mean.tolist())
    return {str(s): {"logit lens": a, "tuned lens": b, "constant": judged.marginals.constant} for s, a, b in rows}
