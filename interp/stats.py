"""Uncertainty and nulls for labelled arrays, along their prompt axis."""

import numpy as np
import xarray as xr


def interval(
    array: xr.DataArray, over: str = "prompt", level: float = 0.95, draws: int = 2000, seed: int = 0
) -> xr.Dataset:
    """Mean over prompts with a percentile bootstrap interval (Efron & Tibshirani 1993).

    Returns:
        A dataset of `mean`, `low` and `high` with the other axes of the array.
    """
    if over not in array.dims or array.sizes[over] < 2:
        raise ValueError(f"an interval needs at least two values along {over!r}; the array has {dict(array.sizes)}")
    values = array.transpose(over, ...).values
    rng = np.random.default_rng(seed)
    n = len(values)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=draws) / n
    means = np.tensordot(weights, values, axes=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    mean = array.mean(over)
    bounds = {"low": low, "high": high}
    return xr.Dataset(
        {"mean": mean} | {name: mean.copy(data=data) for name, data in bounds.items()},
        attrs={"level": level, "draws": draws, "seed": seed, "interval": f"bootstrap over {over}"},
    )


def sign_flip(array: xr.DataArray, over: str = "prompt", draws: int = 999, seed: int = 0) -> xr.DataArray:
    """p-values that the mean over prompts is zero, corrected over all cells by the maximum statistic.

    Signs of whole prompts are flipped at random (Nichols & Holmes 2002); each cell is scaled by its own spread.
    """
    values = array.transpose(over, ...).values.astype(float)
    n = len(values)
    flat = values.reshape(n, -1)
    scale = np.sqrt((flat**2).mean(0) / n)
    scale[scale == 0] = np.inf
    observed = np.abs(flat.mean(0)) / scale
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, n))
    largest = (np.abs(signs @ flat / n) / scale).max(1)
    p = (1 + (largest[:, None] >= observed - 1e-12).sum(0)) / (1 + draws)
    mean = array.mean(over)
    return mean.copy(data=p.reshape(mean.shape)).rename("p")
