"""What a future lens foresees, and how well, beside what counted pairs of tokens and the model itself say."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from interp.arrays import Check, attach, labelled
from interp.components import last_stream
from interp.lens.future import FutureLens, apart, check_documents
from interp.lens.rows import Rows, chunks, log_probs, streams, words
from interp.lens.tuned import check_lens
from interp.model import Model, Prompts
from interp.progress import Progress, bar
from interp.sites import Site


@torch.no_grad()
def foresight(model: Model, lens: FutureLens, documents: Prompts, progress: Progress = None) -> xr.Dataset:
    """How well later tokens are foreseen in documents that the lens was not fitted on.

    Returns:
        By (reader, ahead, prompt), means over the tokens of each document: `surprisal` (nats) of the token that came,
        `accuracy`, its being the likeliest, and `agreement`, the likeliest being what the model itself finds likeliest
        once it has read so far. Readers are the sites, "bigram" (the token that many positions before: counted pairs),
        "unigram", and "model", which has read all that came before. Check: the best site beats the bigram at each
        distance of two or more.

    Raises:
        ValueError: A lens of another model; documents that are too short.
    """
    check_lens(lens, model)
    tokens, last = model.tokens(documents), last_stream(model)
    check_documents(model, tokens, len(lens.maps), lens.sites)
    names = [*map(str, lens.sites), "bigram", "unigram", "model"]
    sums = torch.zeros(3, len(names), len(lens.maps), len(tokens), device=model.device)
    counts = torch.zeros(len(lens.maps), len(tokens), device=model.device)
    first = 0
    with bar(len(tokens), "documents", progress) as advance:
        for rows, held, _ in streams(model, tokens, [*lens.sites, last]):
            for k in lens.maps:
                for found, where in _foreseen(model, lens, k, rows, held):
                    counts[k - 1].index_add_(0, where + first, torch.ones_like(where, dtype=counts.dtype))
                    sums[:, :, k - 1].index_add_(2, where + first, found.to(sums))
            first += len(rows.tokens)
            advance(len(rows.tokens))
    coords: dict[str, Sequence[Any]] = {"reader": names, "ahead": list(lens.maps), "prompt": range(len(tokens))}
    arrays = {
        name: labelled(values, name, coords, model, method="future lens")
        for name, values in zip(("surprisal", "accuracy", "agreement"), sums / counts)
    }
    return xr.Dataset(arrays, attrs=arrays["surprisal"].attrs | attach([_beats_pairs(arrays["surprisal"])], {}))


@torch.no_grad()
def foresee(model: Model, lens: FutureLens, prompts: Prompts, at: int | str | None = None, top: int = 1) -> xr.Dataset:
    """The likeliest later tokens, as read from the hidden states of some prompts.

    Returns:
        `token` and `probability` by (site, ahead, top, pos, prompt), and the prompts' words, `input`, by (pos, prompt);
        without `pos` if one position was asked for.
    """
    check_lens(lens, model)
    tokens = model.tokens(prompts)
    rows = Rows.of(tokens, at)
    trace = model.run(tokens, read=lens.sites, last_only=True)
    likeliest = []
    for site in lens.sites:
        vectors = rows.take(trace[site])
        for maps in lens.maps.values():
            parts = [maps[site].log_probs(model, vectors[c]).topk(top) for c in chunks(len(rows), model.shape.d_vocab)]
            likeliest.append([torch.cat([getattr(part, name) for part in parts]).T for name in ("indices", "values")])
    ids, values = (torch.stack(side).unflatten(0, (len(lens.sites), -1)) for side in zip(*likeliest))
    where = rows.coords(model)
    axes: dict[str, Sequence[Any]] = {"site": list(map(str, lens.sites)), "ahead": list(lens.maps), "top": range(top)}
    probability = labelled(rows.spread(values.exp()), "probability", axes | where, model, method="future lens")
    texts = {
        "token": ([*axes, *where], words(model, rows.spread(ids, -1))),
        "input": (list(where), words(model, rows.spread(rows.ids, -1))),
    }
    return xr.Dataset({**texts, "probability": probability}, attrs=probability.attrs)


def _foreseen(
    model: Model, lens: FutureLens, k: int, rows: Rows, held: Mapping[Site, Tensor]
) -> Iterator[tuple[Float[Tensor, "measure reader row"], Int[Tensor, " row"]]]:
    """Surprisal, accuracy and agreement of each reader, k tokens ahead, and the prompt of each row."""
    last, pairs = last_stream(model), lens.skipgrams[k]
    now, then = apart(rows, k)
    for chunk in chunks(len(now), model.shape.d_vocab):
        here, there = now[chunk], then[chunk]
        came, token = rows.ids[there], rows.ids[here]
        final = log_probs(model, held[last][there - 1])
        own = final.argmax(-1)
        read = [lens.maps[k][site].log_probs(model, held[site][here]) for site in lens.sites]
        said = [(q.gather(-1, came[:, None])[:, 0], q.argmax(-1)) for q in (*read, final)]
        counted = pairs.log_prob(token, came), pairs.best[token]
        single = pairs.unigram[came].log(), pairs.unigram.argmax().expand_as(came)
        said[-1:-1] = [counted, single]
        yield (
            torch.stack([
                torch.stack([-log_prob, (best == came).to(log_prob), (best == own).to(log_prob)])
                for log_prob, best in said
            ], 1),
            rows.prompt[here],
        )  # fmt: skip


def _beats_pairs(surprisal: xr.DataArray) -> Check:
    """The check that hidden states know more of later tokens than the token does."""
    name, why = "least gain over counted pairs", "what a pair of tokens tells needs no hidden state"
    mean = surprisal.mean("prompt").sel(ahead=slice(2, None))
    if not mean.sizes["ahead"]:
        return Check(name, float("nan"), 0.0, "skipped", why, "arXiv:2311.04897")
    gain = float((mean.sel(reader="bigram") - mean.isel(reader=slice(0, -3)).min("reader")).min())
    return Check.above(name, gain, 0.0, why, "arXiv:2311.04897")
