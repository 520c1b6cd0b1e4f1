"""Which heads look, by their weights alone, like previous-token, duplicate-token, induction or copying heads?

Each is asked how often the right key, or output, outranks another one, in the head's own QK or OV circuit (Elhage et
al. 2021): 1 is always, 0.5 is chance. The induction score looks through the output of one earlier head (K-composition).
"""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from interp.arrays import Check, attach, labelled
from interp.model import Model
from interp.sites import Site
from interp.weights.matrices import Heads, chosen_tokens, embedding, heads, unembedding
from interp.weights.tokens import Ids, token_logits, token_scores, unit_variance

DETECTORS = ("previous token", "duplicate token", "induction", "copying")


@torch.no_grad()
def detect(model: Model, ids: Ids = None, n: int = 128, draws: int = 50, seed: int = 0) -> xr.Dataset:
    """How much each head's weights look like those of four kinds of head: the share of comparisons won.

    * previous token: at each position, the key before against every earlier key and its own, by positions alone. NaN
      where positions are not added to the embedding (rotary models): see `behaviour`.
    * duplicate token: for each token at the query, the same token at the key against every other.
    * induction: the same, where what is at the key was written by one earlier head that had attended to that token; of
      the earlier heads, the best (`through`).
    * copying: for each token attended to, its own logit against every other's.

    Tokens are taken as they enter the first block, and with what the first MLP makes of them; of the two scores, the
    larger counts. The null exchanges tokens, or positions, at random.

    Args:
        ids: The tokens; by default n at random.
        draws: Random exchanges that the null is taken from.

    Returns:
        `score` by (detector, layer, head); `high` by detector: what the largest of all heads stays below in 95 % of the
        exchanges; `through`, the earlier head's name, by (layer, head). A check for each detector says whether its null
        is at 0.5, as it must be.

    Raises:
        ValueError: What `matrices.heads` and `matrices.chosen_tokens` raise.
    """
    found, tokens = heads(model), chosen_tokens(model, ids, n, seed)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.arange(len(tokens)), *(torch.randperm(len(tokens), generator=generator) for _ in range(draws))]
    targets = torch.stack(orders).to(model.device)
    sides = [unit_variance(embedding(model, tokens, first_mlp)) for first_mlp in (False, True)]
    outputs = unembedding(model, tokens)
    same = [_won(ranks(token_scores(found, side)), targets) for side in sides]
    copied = [_won(ranks(token_logits(found, side, outputs)), targets) for side in sides]
    (one, by_one), (other, by_other) = (_through_earlier(found, side, targets) for side in sides)
    through = torch.where(one[0] >= other[0], by_one, by_other)
    every = [_previous(model, found, tokens, draws, generator)]
    every += [torch.maximum(*same), torch.maximum(one, other), torch.maximum(*copied)]
    return _dataset(model, found, torch.stack(every), through)


Won = Float[Tensor, "draw layer head"]  # the score itself, then those under the null


def ranks(scores: Float[Tensor, "*head row n"]) -> Float[Tensor, "*head row n"]:
    """The share of the others in its row that each score is larger than, ties half; infinite ones do not count."""
    ordered = scores.sort(dim=-1).values.contiguous()
    below = torch.searchsorted(ordered, scores.contiguous())
    upto = torch.searchsorted(ordered, scores.contiguous(), right=True)
    others = scores.isfinite().sum(-1, keepdim=True) - 1
    return (below + upto - 1).to(scores) / (2 * others)


def _won(ranks: Float[Tensor, "layer head row n"], targets: Int[Tensor, "draw row"]) -> Won:
    """The mean rank of each row's target."""
    rows = torch.arange(ranks.shape[-2], device=ranks.device)
    return ranks[..., rows, targets].mean(-1).movedim(-1, 0)


def _through_earlier(found: Heads, streams: Tensor, targets: Tensor) -> tuple[Won, Float[Tensor, "layer head"]]:
    """The best score over earlier heads whose output, where they attended to a token, is the key; and which that is."""
    n_layers, n_heads = found.q.shape[:2]
    best = streams.new_full((len(targets), n_layers, n_heads), 0.5)
    which = streams.new_full((n_layers, n_heads), float("nan"))
    moved = torch.einsum("lhed,td->lhte", found.v, streams)
    written = torch.einsum("lhte,lhed->lhtd", moved, found.o).flatten(0, 1)
    for layer in range(1, n_layers):
        readers = found.layer(layer)
        for writer in range(layer * n_heads):
            won = _won(ranks(token_scores(readers, streams, unit_variance(written[writer]))), targets)[:, 0]
            which[layer] = torch.where(won[0] > best[0, layer], float(writer), which[layer])
            best[:, layer] = torch.maximum(best[:, layer], won)
    return best, which


def _previous(model: Model, found: Heads, tokens: Tensor, draws: int, generator: torch.Generator) -> Won:
    """How often the key before outscores another, on streams that hold a position and the mean token."""
    length, site = min(model.shape.n_context or 64, 64), Site("resid_pre", 0)
    streams = model.run(tokens[:16, None].repeat(1, length), site)[site].to(found.q).mean(0)
    if bool((streams - streams[0]).abs().amax() <= 1e-5 * streams.abs().amax()):
        return found.q.new_full((1 + draws, *found.q.shape[:2]), float("nan"))
    scores = token_scores(found, unit_variance(streams - streams.mean(-1, keepdim=True)))[..., 1:, :]
    later = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(2)
    before = torch.arange(length - 1)
    chosen = [(torch.rand(length - 1, generator=generator) * (before + 2)).long() for _ in range(draws)]
    targets = torch.stack([before, *chosen]).to(scores.device)
    return _won(ranks(scores.masked_fill(later, float("inf"))), targets)


def _dataset(model: Model, found: Heads, won: Float[Tensor, "detector draw layer head"], through: Tensor) -> xr.Dataset:
    n_layers, n_heads = found.q.shape[:2]
    coords = {"detector": DETECTORS, "layer": range(n_layers), "head": range(n_heads)}
    score = labelled(won[:, 0], "share of comparisons won", coords, model)  # type: ignore[arg-type]
    null = won[:, 1:].mean((1, 2, 3))
    checks = [_calibrated(name, float(value)) for name, value in zip(DETECTORS, null)]
    high = won[:, 1:].amax((2, 3)).quantile(0.95, dim=1).cpu().numpy()
    names = np.array([*found.names, ""])
    which = through.nan_to_num(len(names) - 1).long().cpu().numpy()
    parts = {
        "score": score,
        "high": xr.DataArray(high, dims="detector"),
        "through": xr.DataArray(names[which], dims=("layer", "head")),
    }
    how = {"method": "detectors from weights", "draws": won.shape[1] - 1, "left_out": found.left_out}
    return xr.Dataset(parts, attrs=score.attrs | attach(checks, how))


def _calibrated(name: str, value: float) -> Check:
    """Is chance where it should be? The best of several earlier heads is above it by choice."""
    status = "skipped" if np.isnan(value) else "pass" if abs(value - 0.5) <= 0.1 else "warn"
    return Check(f"null of {name}", value, 0.5, status, "mean over heads with tokens or positions exchanged at random")
