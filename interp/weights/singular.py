"""Along which directions does a head move most, and what do they mean in tokens?

Singular vectors of the OV matrix, read through the embedding and the unembedding, as Millidge & Black 2022, "The
singular value decompositions of transformer weight matrices are highly interpretable".
"""

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, attach, labelled
from interp.graph import head_name
from interp.model import Model
from interp.weights.matrices import embedding, heads, unembedding
from interp.weights.tokens import labels, unit_variance


@torch.no_grad()
def singular_vectors(
    model: Model, layer: int, head: int, k: int = 8, first_mlp: bool = False, draws: int = 200, seed: int = 0
) -> xr.Dataset:
    """The largest singular values of a head's OV matrix, and what their vectors read and write, token by token.

    Args:
        k: How many; no more than the head is wide.
        first_mlp: Tokens with what the first MLP makes of them, as later layers read them.
        draws: Random directions that the null is taken from.

    Returns:
        `value` by direction; `reads`, each token's share along the vector that is read, and `writes`, what the vector
        that is written adds to each logit (mean over tokens zero), by (direction, token). Signs, which are free
        together, are such that the largest logit is positive. The check says how many of the directions single out
        tokens: whose largest logit is more standard deviations off than that of 95 % of random directions.

    Raises:
        ValueError: A head that the model does not have; what `matrices.heads` raises.
    """
    found, shape = heads(model), model.shape
    if not (0 <= layer < shape.n_layers and 0 <= head < shape.n_heads):
        raise ValueError(
            f"{head_name(layer, head)} is out of range: {model.name} has layers 0 to {shape.n_layers - 1} and heads "
            f"0 to {shape.n_heads - 1}"
        )
    left, values, right = svd(found.v[layer, head], found.o[layer, head])
    k = min(k, len(values))
    embedded, read = unit_variance(embedding(model, first_mlp=first_mlp)), unembedding(model)
    written = right[:k] @ (read - read.mean(0)).T
    sign = written.gather(1, written.abs().argmax(1, keepdim=True)).sign()
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(draws, read.shape[1], generator=generator).to(read) @ (read - read.mean(0)).T
    coords = {"direction": range(k), "token": labels(model, torch.arange(shape.d_vocab))}
    reads = labelled(sign * (left[:k] @ embedded.T), "share", coords, model)
    writes = labelled(sign * written, "logit", coords, model)
    how = {"method": "singular vectors of OV", "layer": layer, "head": head, "left_out": found.left_out}
    value = reads[:, 0].drop_vars("token").copy(data=values[:k].cpu().numpy())
    checks = [_peaked(written, random)]
    return xr.Dataset({"value": value, "reads": reads, "writes": writes}, attrs=reads.attrs | attach(checks, how))


def svd(
    v: Float[Tensor, "d_head d_model"], o: Float[Tensor, "d_head d_model"]
) -> tuple[Float[Tensor, "k d_model"], Float[Tensor, " k"], Float[Tensor, "k d_model"]]:
    """What is read, how much it is multiplied by, and what is written, of the matrix v^T o: from its two factors."""
    (q_v, r_v), (q_o, r_o) = (torch.linalg.qr(part.T) for part in (v, o))
    left, values, right = torch.linalg.svd(r_v @ r_o.T)
    return (q_v @ left).T, values, right @ q_o.T


def _peaked(written: Float[Tensor, "k token"], random: Float[Tensor, "draw token"]) -> Check:
    peak = lambda logits: logits.abs().amax(1) / logits.std(1)
    least = peak(random).quantile(1 - 0.05 / len(written))
    share = float((peak(written) > least).float().mean())
    why = "share of directions that single out tokens more than the best of as many random ones does, in 95 % of cases"
    return Check.above("singles out tokens", share, 0.0, why, "Millidge & Black 2022")
