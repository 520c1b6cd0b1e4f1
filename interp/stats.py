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
    low, high = _bounds(_bootstrap(array, over, draws, seed), level)
    return _interval(array.mean(over), low, high, level=level, draws=draws, seed=seed, over=over)


def ratio(
    top: xr.DataArray,
    bottom: xr.DataArray,
    over: str = "prompt",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Ratio of two means over prompts with a percentile bootstrap interval, prompts drawn for both together.

    Returns:
        A dataset of `mean`, `low` and `high` with the other axes of the arrays, which they share; NaN where the
        interval of the lower mean contains zero, for there a ratio says nothing.
    """
    if top.dims != bottom.dims or top.shape != bottom.shape:
        raise ValueError(f"a ratio needs arrays of the same axes, not {dict(top.sizes)} and {dict(bottom.sizes)}")
    tops, bottoms = (_bootstrap(array, over, draws, seed) for array in (top, bottom))
    least, most = _bounds(bottoms, level)
    clear = least * most > 0
    low, high = _bounds(tops / np.where(bottoms == 0, np.inf, bottoms), level)
    means = top.mean(over)
    mean = means.copy(data=means.values / np.where(clear, bottom.mean(over).values, np.nan))
    low, high = (np.where(clear, bound, np.nan) for bound in (low, high))
    return _interval(mean, low, high, level=level, draws=draws, seed=seed, over=over)


def _bootstrap(array: xr.DataArray, over: str, draws: int, seed: int) -> np.ndarray:
    """Means over prompts drawn with replacement, (draw, *others)."""
    if over not in array.dims or array.sizes[over] < 2:
        raise ValueError(f"an interval needs at least two values along {over!r}; the array has {dict(array.sizes)}")
    values = array.transpose(over, ...).values
    n = len(values)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws) / n
    return np.tensordot(weights, values, axes=1)


def _bounds(means: np.ndarray, level: float) -> np.ndarray:
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)


def _interval(mean: xr.DataArray, low: np.ndarray, high: np.ndarray, over: str, **how: float) -> xr.Dataset:
    parts = {"mean": mean, "low": mean.copy(data=low), "high": mean.copy(data=high)}
    return xr.Dataset(parts, attrs={**how, "interval": f"bootstrap over {over}"})


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
