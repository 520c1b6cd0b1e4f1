"""Which tokens does a head attend to, by its weights, and what does it write where it finds one?

The QK and OV circuits of Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", between tokens.
"""

from collections import Counter
from collections.abc import Sequence

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import labelled
from interp.model import Model
from interp.weights.matrices import Heads, chosen_tokens, embedding, heads, unembedding

Ids = Sequence[int] | Tensor | None


def qk(model: Model, ids: Ids = None, n: int = 100, seed: int = 0, first_mlp: bool = False) -> xr.DataArray:
    """How much the token at a key adds to the score of a query's token, for every head.

    Both streams hold what tells the token from the others and nothing else, at unit variance. Each query's mean over
    the keys is taken away, for no softmax sees it.

    Args:
        ids: The tokens; by default n at random.
        first_mlp: What the first MLP makes of the tokens included: what heads of later layers read.

    Returns:
        Scores, as they enter the softmax, by (layer, head, query, key).

    Raises:
        ValueError: What `matrices.heads` and `matrices.chosen_tokens` raise.
    """
    found, tokens = heads(model), chosen_tokens(model, ids, n, seed)
    scores = token_scores(found, unit_variance(embedding(model, tokens, first_mlp)))
    words = labels(model, tokens)
    coords = {"layer": range(len(scores)), "head": range(scores.shape[1]), "query": words, "key": words}
    how = {"method": "QK circuit", "first_mlp": str(first_mlp), "left_out": found.left_out}
    return labelled(scores - scores.mean(-1, keepdim=True), "score", coords, model, **how)  # type: ignore[arg-type]


def ov(model: Model, ids: Ids = None, n: int = 100, seed: int = 0, first_mlp: bool = False) -> xr.DataArray:
    """How much each head that attends to a token adds to every token's logit, directly.

    The token's stream is as for `qk`; what is written is read through the unembedding at unit variance of the last
    stream. Each source's mean over the outputs is taken away, for no softmax sees it.

    Args:
        ids, first_mlp: As for `qk`.

    Returns:
        Logits by (layer, head, source, output).

    Raises:
        ValueError: What `qk` raises.
    """
    found, tokens = heads(model), chosen_tokens(model, ids, n, seed)
    logits = token_logits(found, unit_variance(embedding(model, tokens, first_mlp)), unembedding(model, tokens))
    words = labels(model, tokens)
    coords = {"layer": range(len(logits)), "head": range(logits.shape[1]), "source": words, "output": words}
    how = {"method": "OV circuit", "first_mlp": str(first_mlp), "left_out": found.left_out}
    return labelled(logits - logits.mean(-1, keepdim=True), "logit", coords, model, **how)  # type: ignore[arg-type]


def token_scores(
    found: Heads, queries: Float[Tensor, "query d_model"], keys: Float[Tensor, "key d_model"] | None = None
) -> Float[Tensor, "layer head query key"]:
    """Scores between streams; the keys are the same streams by default."""
    read = torch.einsum("lhed,td->lhte", found.q, queries) + found.q_bias[:, :, None]
    held = torch.einsum("lhed,td->lhte", found.k, queries if keys is None else keys) + found.k_bias[:, :, None]
    return torch.einsum("lhqe,lhke->lhqk", read, held) * found.scaling[:, None, None, None]


def token_logits(
    found: Heads, sources: Float[Tensor, "source d_model"], outputs: Float[Tensor, "output d_model"]
) -> Float[Tensor, "layer head source output"]:
    """What each head adds to logits where it attends to a stream; the value's bias, which is no token's, left out."""
    moved = torch.einsum("lhed,td->lhte", found.v, sources)
    return torch.einsum("lhte,lhed,od->lhto", moved, found.o, outputs)


def unit_variance(streams: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
    """Streams at unit variance; one that is zero stays so."""
    size = streams.square().mean(-1, keepdim=True).sqrt()
    return streams / size.clamp(min=torch.finfo(streams.dtype).tiny)


def labels(model: Model, tokens: Tensor) -> list[str]:
    """The text of each token, and its id where several have the same."""
    words = model.words(tokens.tolist())
    counts = Counter(words)
    return [word if counts[word] == 1 else f"{word} ({i})" for i, word in zip(tokens.tolist(), words)]
