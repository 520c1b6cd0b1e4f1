"""Resampling: how often what is drawn, and the bounds that come of it; see `stats` for what it is for.

Bounds are percentiles of the bootstrap (Efron & Tibshirani 1993), stretched about the estimate by how much they are too
narrow for n values: the t quantile over the normal one, times the root of n / (n - 1) (Hesterberg 2015,
arXiv:1411.5279, who moves the levels instead; those end at the extreme values, which is too near where values are few).
Of normal values, 95 % are then 95 % from three values on; of skewed ones, less.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

FEWEST_NULLS = 19  # that a p-value of 0.05 takes: one in twenty is what is tested


def units_of(
    values: Float[np.ndarray, "prompt cell"], over: str, clusters: Sequence[str] | None
) -> Int[np.ndarray, " prompt"]:
    """The number of what each prompt belongs to: itself, or a cluster."""
    n = len(values)
    if clusters is not None and len(clusters) != n:
        raise ValueError(f"{n} values along {over!r} and {len(clusters)} clusters were given; one each is needed")
    return np.arange(n) if clusters is None else np.unique(np.asarray(clusters, dtype=str), return_inverse=True)[1]


def weights_of(
    array: xr.DataArray, over: str, draws: int, seed: int, clusters: Sequence[str] | None = None
) -> Float[np.ndarray, "draw prompt"]:
    """How often each prompt is drawn, with replacement; or each cluster, with all of its prompts."""
    which = units_of(np.empty((array.sizes.get(over, 0), 0)), over, clusters)
    units = int(which.max(initial=-1)) + 1
    if units < 2:
        kind = "values" if clusters is None else "clusters"
        raise ValueError(f"an interval needs at least two {kind} along {over!r}; the array has {dict(array.sizes)}")
    drawn = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=draws)
    return drawn.astype(float)[:, which]


def ends_of(level: float) -> list[float]:
    return [(1 - level) / 2, (1 + level) / 2]


def stretched(found: np.ndarray, bounds: np.ndarray, units: int | np.ndarray, level: float) -> np.ndarray:
    """Bounds as far from what was found as they should be for so many values, or clusters; two or more."""
    from scipy.stats import norm, t

    up = (1 + level) / 2
    return found + (bounds - found) * t.ppf(up, units - 1) / norm.ppf(up) * np.sqrt(units / (units - 1))


def bounds_of_shares(k: ArrayLike, n: ArrayLike, level: float = 0.95) -> Float[np.ndarray, "end *cell"]:
    """Intervals of shares of which k of n were seen, exact for every n (Clopper & Pearson 1934)."""
    from scipy.stats import beta

    k, n = np.asarray(k), np.asarray(n)
    low, high = beta.ppf((1 - level) / 2, k, n - k + 1), beta.ppf((1 + level) / 2, k + 1, n - k)
    return np.stack([np.where(k == 0, 0.0, low), np.where(k == n, 1.0, high)])


def sums_of(
    values: Float[np.ndarray, "prompt cell"], which: Int[np.ndarray, " prompt"]
) -> Float[np.ndarray, "unit cell"]:
    """Sums over the prompts of each unit that are measured; NaN where none is."""
    order = np.argsort(which, kind="stable")
    starts = np.flatnonzero(np.diff(which[order], prepend=-1))
    sums, counts = (np.add.reduceat(x[order], starts) for x in (np.nan_to_num(values), np.isfinite(values).astype(int)))
    return np.where(counts > 0, sums, np.nan)


def bounds_of_means(
    weights: Float[np.ndarray, "draw prompt"],
    values: Float[np.ndarray, "prompt cell"],
    which: Int[np.ndarray, " prompt"],
    level: float,
) -> Float[np.ndarray, "end cell"]:
    """The interval of the means of resampled prompts, those left out that a cell lacks."""
    measured = np.isfinite(values)
    units = np.isfinite(sums_of(values, which)).sum(0)
    counts = weights @ measured
    with np.errstate(invalid="ignore", divide="ignore"):
        means = weights @ np.nan_to_num(values) / counts
        found = np.nan_to_num(values).sum(0) / measured.sum(0)
    several = units >= 2
    bounds = np.full((2, values.shape[1]), np.nan)
    whole = several & (counts > 0).all(0)  # the usual case, for which NumPy has a fast way
    bounds[:, whole] = np.quantile(means[:, whole], ends_of(level), axis=0)
    if (sparse := several & ~whole).any():
        bounds[:, sparse] = np.nanquantile(means[:, sparse], ends_of(level), axis=0)
    return stretched(found, bounds, np.maximum(units, 2), level)


def signs_of(n: int, draws: int, seed: int) -> Float[np.ndarray, "flip prompt"]:
    """Sign flips of n prompts, the first of which flips none: that is how the observed result counts as one of them."""
    if 2**n <= draws + 1:
        return np.array(list(product([1.0, -1.0], repeat=n)))
    drawn = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, n))
    return np.concatenate([np.ones((1, n)), drawn])
