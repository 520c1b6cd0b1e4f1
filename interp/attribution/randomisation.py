"""Does an attribution depend on what the model has learned? The model randomisation test.

Adebayo et al. 2018 (arXiv:1810.03292): what stays the same when the weights are drawn anew says nothing of the model.
They give no threshold; here the yardstick is how alike the attributions of several random models are: a model that is
no less like them than they are like each other has shown nothing, unless none is like another.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, labelled
from interp.model import Model
from interp.randomised import redrawn
from interp.stats import rank_correlation

_SOURCE = "arXiv:1810.03292"
_BLIND = 0.7
_UNLIKE = 0.3  # a size of rank correlation that says next to nothing; of fifteen parts, 0.21 is chance


def reinitialised(model: Model, seed: int = 0, top: int | None = None) -> Model:
    """A copy of a model with weights drawn anew; the model itself is left alone.

    Every weight matrix, bias and norm is drawn from a normal distribution with the mean and the spread that it had; in
    `probing.untrained`, matrices alone are.

    Args:
        top: How many blocks, from the last one down, to draw anew; None draws everything, embeddings included.

    Raises:
        ValueError: A number of blocks that the model does not have, or a backend that does not tell its blocks; a model
            that cannot be copied here, such as one on a server.
    """

    def chosen(twin: Model) -> Iterable[Tensor]:
        if top is None:
            return twin.module.parameters()
        blocks = twin.blocks
        if not 1 <= top <= len(blocks):
            has = f"{len(blocks) or 'none'} that can be told apart"
            raise ValueError(
                f"top={top} blocks of {model.name} ({model.backend}), which has {has}; leave top out for all"
            )
        return (weight for block in blocks[len(blocks) - top :] for weight in block.parameters())

    return redrawn(model, seed, chosen)


def randomisation(
    model: Model,
    attribute: Callable[[Model], xr.DataArray],
    draws: int = 5,
    cascade: bool = False,
    seed: int = 0,
) -> xr.Dataset:
    """How alike the attributions of the model and of copies with random weights rank the parts.

    Args:
        attribute: Gives attributions with an axis `prompt` for a model, such as
            `lambda m: attribution.saliency(m, task.clean, site, task.logit_diff)`.
        draws: Random copies.
        cascade: Also draw only the upper blocks anew, one more of them at a time.

    Returns:
        `trained` by (reset, draw, prompt), the rank correlation of the model's with a copy's, and `random` by (pair,
        prompt), that of two copies' that are all random. Checks say whether the size of the former, mean over draws and
        prompts, is lower than one more random copy's would be in 95 % of cases, or low in itself; and whether random
        models are not all alike.

    Raises:
        ValueError: Fewer than two copies; with `cascade`, what `reinitialised` raises.
    """
    if draws < 2:
        raise ValueError(f"random copies are compared with each other, so that it takes two; draws={draws} was given")
    own = attribute(model)
    resets: list[int | None] = [*range(1, model.shape.n_layers + 1)] if cascade else []
    copies = [[attribute(reinitialised(model, seed + i, top)) for i in range(draws)] for top in [*resets, None]]
    trained = np.array([[rank_correlation(own, other).values for other in level] for level in copies])
    pairs = np.array([rank_correlation(a, b).values for a, b in combinations(copies[-1], 2)])
    coords: dict[str, Sequence[Any]] = {
        "reset": [*(f"top {top}" for top in resets), "all"], "draw": range(draws), "pair": range(len(pairs)),
        "prompt": own["prompt"].values.tolist(),
    }  # fmt: skip
    how = {"method": "model randomisation", "of": own.attrs.get("method", own.name or "attribution"), "seed": seed}
    checks = _checks(trained[-1], pairs)
    found = {
        name: labelled(torch.from_numpy(values), name, {axis: coords[axis] for axis in axes}, model, checks, **how)
        for name, values, axes in (
            ("trained", trained, ("reset", "draw", "prompt")), ("random", pairs, ("pair", "prompt"))
        )
    }  # fmt: skip
    return xr.Dataset(found, attrs=found["trained"].attrs)


def _checks(trained: np.ndarray, pairs: np.ndarray) -> list[Check]:
    """Does the attribution depend on the weights at all, and is the model less like random ones than they are?"""
    value, among = (float(np.nanmean(np.abs(x))) for x in (trained, pairs))
    # Where weights do not matter, the model is no more unlike than copies are to each other.
    most = min(_BLIND, max(_UNLIKE, _least(np.nanmean(np.abs(pairs), axis=1), len(trained))))
    why = (
        "mean size of the rank correlation between attributions of the model and of copies with random weights; the "
        f"threshold is the lower 95 % bound of that of one more random copy, {_UNLIKE} at least and {_BLIND} at most"
    )
    blind = "mean size of the rank correlation between two random copies: near 1, the weights do not matter"
    return [
        Check.at_most("like a random model", value, most, why, _SOURCE),
        Check.at_most("random models alike", among, _BLIND, blind, _SOURCE),
    ]


def _least(pairs: Float[np.ndarray, " pair"], n: int) -> float:
    """The lower bound of how alike one more random copy is to n random copies, in 95 % of cases; none of fewer than 4.

    Each copy's mean with the others is a draw of what the bound is for. They spread less than independent draws, by
    (n - 2) / (n - 1), as each has a part in the means of all others.
    """
    from scipy.stats import t

    if n < 4:
        return 0.0
    table = np.full((n, n), np.nan)
    for (i, j), value in zip(combinations(range(n), 2), pairs):
        table[i, j] = table[j, i] = value
    means = np.nanmean(table, axis=1)
    spread = means.std(ddof=1) * (n - 1) / (n - 2) * np.sqrt(1 + 1 / n)
    return float(means.mean() - t.ppf(0.95, n - 1) * spread)
