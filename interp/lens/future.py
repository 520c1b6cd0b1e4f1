"""Future lens: what does a hidden state say of the tokens after the next one?

Pal et al. 2023 (arXiv:2311.04897): a linear map from the state at one token to the last stream some tokens later, here
by ridge regression. Text can be foreseen without any hidden state, so pairs of tokens are counted as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import count_of
from interp.components import last_stream
from interp.lens.moments import Moments
from interp.lens.rows import Rows, chunks, log_probs, streams
from interp.lens.skipgrams import Skipgrams
from interp.lens.tuned import Translator
from interp.model import Model, Prompts
from interp.progress import Progress, bar
from interp.sites import Site
from interp.traces import Tokens

# The final norm gives a mean of streams the size of one of them, so that what is decoded from it is too sure.
_SHARPNESS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_CALIBRATED = 64  # documents that decide on it


@dataclass(frozen=True)
class Reader:
    """A linear map into the stream that predicts a later token, and by how much to flatten what is decoded from it."""

    translator: Translator
    sharpness: float = 1.0

    def log_probs(self, model: Model, resid: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
        """What it foresees."""
        return (self.sharpness * log_probs(model, self.translator(resid))).log_softmax(-1)


Readers = Mapping[int, Mapping[Site, Reader]]


@dataclass(frozen=True)
class FutureLens:
    """Linear readers of later tokens.

    Attributes:
        maps: By how many tokens ahead, 1 for the next, and by site.
        skipgrams: By how many tokens ahead: pairs of tokens, counted in the same documents.
        fingerprint: Of the model.
    """

    maps: Readers
    skipgrams: Mapping[int, Skipgrams]
    fingerprint: str

    def __repr__(self) -> str:
        return f"FutureLens({max(self.maps)} tokens ahead, from {', '.join(map(str, self.sites))})"

    @property
    def sites(self) -> list[Site]:
        """Where hidden states are read."""
        return list(self.maps[1])


@torch.no_grad()
def fit_future(
    model: Model,
    documents: Prompts,
    ahead: int = 3,
    sites: Sequence[Site] | None = None,
    penalty: float = 1e-3,
    progress: Progress = None,
) -> FutureLens:
    """Fit readers of the next tokens, in closed form.

    Args:
        documents: Running text, one document a prompt.
        ahead: How many tokens to foresee.
        sites: Where hidden states are read; by default what leaves each block.
        penalty: Of the ridge regression, as a share of the variance of each coordinate.

    Raises:
        ValueError: What `check_documents` refuses.
    """
    tokens = model.tokens(documents)
    sites, last = list(sites) if sites else model.sites("resid_post"), last_stream(model)
    check_documents(model, tokens, ahead, sites)
    sums: dict[tuple[int, Site], Moments] = {}
    with bar(len(tokens), "documents", progress) as advance:
        for rows, held, _ in streams(model, tokens, [*sites, last]):
            for k in range(1, ahead + 1):
                now, then = apart(rows, k - 1)
                end = held[last][then].double()
                weight = 1 / (end**2).mean(-1).clamp(min=1e-30)
                for site in sites:
                    found = [Moments.of(held[site][now], end, weight)]
                    sums[k, site] = reduce(add, found if (k, site) not in sums else [sums[k, site], *found])
            advance(len(rows.tokens))
    maps = {k: {site: _reader(model, sums[k, site], penalty) for site in sites} for k in range(1, ahead + 1)}
    maps = _calibrated(model, tokens.rows(slice(_CALIBRATED)), maps)
    counted = {k: Skipgrams.of(tokens, k, model.shape.d_vocab) for k in maps}
    return FutureLens(maps, counted, model.fingerprint())


def apart(rows: Rows, k: int) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
    """Rows of one prompt that are k positions apart."""
    now = torch.arange(len(rows) - k, device=rows.prompt.device)
    now = now[rows.prompt[now] == rows.prompt[now + k]]
    return now, now + k


def _reader(model: Model, sums: Moments, penalty: float) -> Reader:
    """A plain linear map, as a translator, which says what to add."""
    matrix, bias = sums.ridge(penalty)
    dtype = torch.promote_types(model.dtype, torch.float32)
    return Reader(Translator((matrix - torch.eye(len(matrix)).to(matrix)).to(dtype), bias.to(dtype)))


def _calibrated(
    model: Model, tokens: Tokens, maps: Mapping[int, Mapping[Site, Reader]]
) -> dict[int, dict[Site, Reader]]:
    """The same readers, as sure as they should be of the tokens that come."""
    sites, sums = list(maps[1]), {(k, site): torch.zeros(len(_SHARPNESS)) for k in maps for site in maps[1]}
    for rows, held, _ in streams(model, tokens, sites):
        for k in maps:
            now, then = apart(rows, k)
            for chunk in chunks(len(now), model.shape.d_vocab):
                came = rows.ids[then[chunk], None]
                for site in sites:
                    plain = maps[k][site].log_probs(model, held[site][now[chunk]])
                    for i, sharpness in enumerate(_SHARPNESS):
                        sums[k, site][i] -= float((sharpness * plain).log_softmax(-1).gather(-1, came).sum())
    return {
        k: {site: replace(maps[k][site], sharpness=_SHARPNESS[int(sums[k, site].argmin())]) for site in sites}
        for k in maps
    }


def check_documents(model: Model, tokens: Tokens, ahead: int, sites: Sequence[Site]) -> None:
    """Refuse what nothing can be foreseen in.

    Raises:
        ValueError: Documents that are too short; a site that is not of the residual stream; a model whose output
            vocabulary is not that of its input.
    """
    count_of("ahead", ahead)
    if (shortest := int(tokens.mask.sum(-1).min())) <= ahead:
        raise ValueError(f"to foresee {ahead} tokens, every document must be longer; the shortest has {shortest}")
    if wrong := [site for site in sites if site.axes[-1] != "d_model"]:
        raise ValueError(f"a future lens reads the residual stream; {wrong[0]} has axes {', '.join(wrong[0].axes)}")
    width = model.unembed(torch.zeros(1, model.shape.d_model, device=model.device, dtype=model.dtype)).shape[-1]
    if width != model.shape.d_vocab:
        raise ValueError(
            f"{model.name} reads a vocabulary of {model.shape.d_vocab} and predicts one of {width}, so that what comes "
            "cannot be compared with what was foreseen"
        )
