"""Which heads read what which earlier heads write?

Composition scores of Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits": the Frobenius norm of the
product of two heads' matrices over the product of their norms, by queries, keys and values.
"""

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, attach, labelled
from interp.directions import rotation
from interp.model import Model
from interp.weights.matrices import Heads, heads

KINDS = ("q", "k", "v")


@torch.no_grad()
def composition(model: Model, draws: int = 20, seed: int = 0) -> xr.Dataset:
    """How much of what each head reads is written by each head of an earlier layer.

    The null keeps the singular values of all matrices and turns what is written by a random rotation, the same for all
    heads.

    Args:
        draws: Rotations that the null is taken from.

    Returns:
        `score`, from 0 to 1, by (kind, writer, reader), NaN where the writer is not in an earlier layer; `chance`, its
        mean under the null; `high`, by kind: what the largest scores of all pairs, in all kinds together, stay below in
        95 % of the draws. A head that writes or reads nothing has no score.

    Raises:
        ValueError: What `matrices.heads` raises; a model of one layer; fewer than two draws.
    """
    found = heads(model)
    if len(found.q) < 2:
        raise ValueError(f"{model.name} has one layer, and no head reads what another writes; give a deeper model")
    if draws < 2:
        raise ValueError(f"the null needs at least two draws; draws={draws} was given")
    scores, generator = _scores(found, found.o), torch.Generator().manual_seed(seed)
    null = torch.stack([_scores(found, found.o @ rotation(found.o, generator)) for _ in range(draws)])
    largest = null.nan_to_num(-1).flatten(2).amax(-1)  # of a kind without any score, below all
    middle, spread = largest.mean(0), largest.std(0)  # kinds differ in size, and any of them may be the highest
    high = middle + spread * ((largest - middle) / spread.clamp(min=1e-12)).amax(-1).quantile(0.95)
    names = found.names
    coords = {"kind": KINDS, "writer": names, "reader": names}
    above = int((scores.nan_to_num(-1) > high[:, None, None]).sum())
    why = "pairs whose score is above what the largest of all stay below in 95 % of the random rotations"
    check = Check.at_least("pairs beyond chance", above, 1, why, "Elhage et al. 2021")
    how = {"method": "composition", "null": "random rotations", "draws": draws, "left_out": found.left_out}
    score = labelled(scores, "composition score", coords, model)
    parts = {
        "score": score,
        "chance": score.copy(data=null.mean(0).cpu().numpy()),
        "high": xr.DataArray(high.where(high >= 0, torch.nan).cpu().numpy(), dims="kind"),
    }
    return xr.Dataset(parts, attrs=score.attrs | attach([check], how))


def _scores(found: Heads, o: Float[Tensor, "layer head d_head d_model"]) -> Float[Tensor, "3 writer reader"]:
    """Scores of all pairs; a matrix of low rank enters by its two factors, the outer one made triangular."""
    n_heads = found.q.shape[1]
    q, k, v = (part.flatten(0, 1) for part in (found.q, found.k, found.v))
    write, read = o.flatten(0, 1), _triangle(v)
    size = (_triangle(write) @ read.mT).norm(dim=(1, 2))  # of o^T v
    both = (_triangle(q) @ _triangle(k).mT).norm(dim=(1, 2))  # of q^T k
    scores = q.new_full((len(KINDS), len(q), len(q)), float("nan"))
    for kind, (outer, inner, own) in enumerate(((k, q, both), (q, k, both), (found.o.flatten(0, 1), v, size))):
        outer = _triangle(outer)
        for first in range(n_heads, len(q), n_heads):
            readers = slice(first, first + n_heads)
            middle = torch.einsum("red,wfd->wref", inner[readers], write[:first])  # what is read of what is written
            product = torch.einsum("rae,wref,wbf->wrab", outer[readers], middle, read[:first]).norm(dim=(2, 3))
            scores[kind, :first, readers] = product / (size[:first, None] * own[readers])
    return scores


def _triangle(matrices: Float[Tensor, "head d_head d_model"]) -> Float[Tensor, "head small d_head"]:
    """R of each transpose's QR factors: products with it have the norm of products with the transpose."""
    return torch.linalg.qr(matrices.mT, mode="r").R
