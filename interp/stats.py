"""Uncertainty and nulls for labelled arrays, along their prompt axis; NaN is what was not measured."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
import xarray as xr
from jaxtyping import Float

_BLOCK = 1024  # cells whose resamples are held at a time


def summary(
    array: xr.DataArray, over: str = "prompt", level: float = 0.95, draws: int = 2000, flips: int = 1999, seed: int = 0
) -> xr.Dataset:
    """What to report of effects: how large, how sure, and whether more than chance among all cells.

    Args:
        level: Of the interval, and 1 minus the share of null results that may be called significant.
        draws, flips: Resamples for the interval, and for the p-values.

    Returns:
        A dataset of `mean`, `low`, `high` (see `interval`), `p` (see `sign_flip`, corrected over all cells),
        `significant` and `n`, the number of prompts measured in each cell; NaN where that is none.
    """
    table = interval(array, over, level, draws, seed)
    p = sign_flip(array, over, flips, seed)
    table = table.assign(p=p, significant=p <= 1 - level + 1e-12, n=array.count(over))
    return table.assign_attrs(flips=flips, test=f"signs flipped over {over}, largest of {int(p.count())} cells")


def interval(
    array: xr.DataArray,
    over: str = "prompt",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> xr.Dataset:
    """Mean over prompts with a percentile bootstrap interval (Efron & Tibshirani 1993).

    Args:
        clusters: What each prompt belongs to, if prompts of one cluster are alike: clusters are then drawn as wholes.

    Returns:
        A dataset of `mean`, `low` and `high` with the other axes of the array; of cells with fewer than two values, no
        bounds. What they are of is their `long_name`, as a figure shows it.
    """
    weights = _weights(array, over, draws, seed, clusters)
    ends = [(1 - level) / 2, (1 + level) / 2]
    bounds = np.concatenate([_quantiles(weights, block, ends) for block in _blocks(_flat(array, over))], axis=1)
    low, high = bounds
    of = array.attrs.get("long_name") if array.name == "mean" else array.name
    mean = array.mean(over).assign_attrs({"long_name": str(of)} if of else {})
    return _interval(mean, low, high, over, level=level, draws=draws, seed=seed)


def ratio(
    top: xr.DataArray,
    bottom: xr.DataArray,
    over: str = "prompt",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> xr.Dataset:
    """Ratio of two means over prompts with a percentile bootstrap interval, prompts drawn for both together.

    Args:
        clusters: As in `interval`.

    Returns:
        A dataset of `mean`, `low` and `high` with the other axes of the arrays, which they share; NaN where the
        interval of the lower mean contains zero, for there a ratio says nothing.
    """
    if top.dims != bottom.dims or top.shape != bottom.shape:
        raise ValueError(f"a ratio needs arrays of the same axes, not {dict(top.sizes)} and {dict(bottom.sizes)}")
    tops, bottoms = (
        _weights(array, over, draws, seed, clusters) @ _flat(array, over) / array.sizes[over] for array in (top, bottom)
    )
    ends = [(1 - level) / 2, (1 + level) / 2]
    least, most = np.quantile(bottoms, ends, axis=0)
    clear = least * most > 0
    bounds = np.quantile(tops / np.where(bottoms == 0, np.inf, bottoms), ends, axis=0)
    means = top.mean(over)
    mean = means.copy(data=means.values / np.where(clear.reshape(means.shape), bottom.mean(over).values, np.nan))
    low, high = (np.where(clear, bound, np.nan) for bound in bounds)
    return _interval(mean, low, high, over, level=level, draws=draws, seed=seed)


def of_means(
    function: Callable[..., np.ndarray],
    *arrays: xr.DataArray,
    over: str = "prompt",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A function of means over prompts and its percentile bootstrap interval, prompts drawn for all arrays together.

    Args:
        function: Of the means, each with the axes of its array but a first one for draws in place of the prompts; it
            keeps that axis.

    Returns:
        The value, its lower and its upper bound.
    """
    n = arrays[0].sizes[over]
    weights = np.concatenate([np.ones((1, n)), _weights(arrays[0], over, draws, seed)]) / n
    values = [array.transpose(over, ...).values.astype(float) for array in arrays]
    found = function(*(np.tensordot(weights, value, axes=(1, 0)) for value in values))
    low, high = np.quantile(found[1:], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.asarray(found[0]), np.asarray(low), np.asarray(high)


def _weights(
    array: xr.DataArray, over: str, draws: int, seed: int, clusters: Sequence[str] | None = None
) -> Float[np.ndarray, "draw prompt"]:
    """How often each prompt is drawn, with replacement; or each cluster, with all of its prompts."""
    n = array.sizes.get(over, 0)
    if clusters is not None and len(clusters) != n:
        raise ValueError(f"{n} values along {over!r} and {len(clusters)} clusters were given; one each is needed")
    which = np.arange(n) if clusters is None else np.unique(np.asarray(clusters, dtype=str), return_inverse=True)[1]
    units = int(which.max(initial=-1)) + 1
    if units < 2:
        kind = "values" if clusters is None else "clusters"
        raise ValueError(f"an interval needs at least two {kind} along {over!r}; the array has {dict(array.sizes)}")
    drawn = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=draws)
    return drawn.astype(float)[:, which]


def _interval(mean: xr.DataArray, low: np.ndarray, high: np.ndarray, over: str, **how: float) -> xr.Dataset:
    bounds = {"low": low, "high": high}
    parts = {"mean": mean} | {name: mean.copy(data=bound.reshape(mean.shape)) for name, bound in bounds.items()}
    return xr.Dataset(parts, attrs={**how, "interval": f"bootstrap over {over}"})


def sign_flip(
    array: xr.DataArray, over: str = "prompt", draws: int = 999, seed: int = 0, floor: float = 1e-5
) -> xr.DataArray:
    """p-values that effects are symmetric about zero, corrected over all cells by the maximum statistic.

    Signs of whole prompts are flipped at random (Nichols & Holmes 2002), or in all ways if these are no more than the
    draws. The statistic of a cell is its sum over its root sum of squares, which no flip changes. Five prompts or
    fewer cannot give p <= 0.05.

    Args:
        floor: Cells whose root mean square is below this share of the largest count as zero (p = 1): rounding errors
            are tiny, but they need not change sign.
    """
    values = _flat(array, over)
    n = len(values)
    filled = np.nan_to_num(values)
    size = np.sqrt((filled**2).sum(0))
    rms = size / np.sqrt(np.maximum(np.isfinite(values).sum(0), 1))
    tested = rms > floor * rms.max(initial=0)
    scaled = filled[:, tested] / size[tested]
    signs = _signs(n, draws, seed)
    largest = np.zeros(len(signs))
    for block in _blocks(scaled):
        np.maximum(largest, np.abs(signs @ block).max(1, initial=0), out=largest)
    largest.sort()
    observed = np.abs(scaled.sum(0))
    exceeding = len(signs) - np.searchsorted(largest, observed * (1 - 1e-9), side="left")
    p = np.ones(values.shape[1])
    p[tested] = exceeding / len(signs)
    p[np.isnan(values).all(0)] = np.nan
    mean = array.mean(over)
    return mean.copy(data=p.reshape(mean.shape)).rename("p")


def rank_correlation(a: xr.DataArray, b: xr.DataArray, over: str = "prompt") -> xr.DataArray:
    """Spearman's rank correlation of two arrays of the same axes, for each prompt over all other cells.

    Cells that either lacks are left out; NaN where fewer than three are left, or where one side is constant.
    """
    from scipy.stats import rankdata

    if a.dims != b.dims or a.shape != b.shape:
        raise ValueError(f"a correlation needs arrays of the same axes, not {dict(a.sizes)} and {dict(b.sizes)}")
    found = np.full(a.sizes[over], np.nan)
    for i, (x, y) in enumerate(zip(_flat(a, over), _flat(b, over))):
        known = np.isfinite(x) & np.isfinite(y)
        ranks = np.array([rankdata(side[known]) for side in (x, y)])
        if known.sum() > 2 and (np.ptp(ranks, axis=1) > 0).all():
            found[i] = np.corrcoef(ranks)[0, 1]
    return xr.DataArray(found, dims=(over,), coords={over: a[over].values}, name="rank correlation")


def _signs(n: int, draws: int, seed: int) -> Float[np.ndarray, "flip prompt"]:
    """Sign flips of n prompts, the first of which flips none: that is how the observed result counts as one of them."""
    if 2**n <= draws + 1:
        return np.array(list(product([1.0, -1.0], repeat=n)))
    drawn = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, n))
    return np.concatenate([np.ones((1, n)), drawn])


def _quantiles(
    weights: Float[np.ndarray, "draw prompt"], values: Float[np.ndarray, "prompt cell"], ends: list[float]
) -> Float[np.ndarray, "end cell"]:
    """Quantiles of the means of resampled prompts, those left out that a cell lacks."""
    measured = np.isfinite(values)
    counts = weights @ measured
    with np.errstate(invalid="ignore", divide="ignore"):
        means = weights @ np.nan_to_num(values) / counts
    several = measured.sum(0) >= 2
    bounds = np.full((len(ends), values.shape[1]), np.nan)
    whole = several & (counts > 0).all(0)  # the usual case, for which NumPy has a fast way
    bounds[:, whole] = np.quantile(means[:, whole], ends, axis=0)
    if (sparse := several & ~whole).any():
        bounds[:, sparse] = np.nanquantile(means[:, sparse], ends, axis=0)
    return bounds


def _flat(array: xr.DataArray, over: str) -> Float[np.ndarray, "prompt cell"]:
    return array.transpose(over, ...).values.astype(float).reshape(array.sizes[over], -1)


def _blocks(values: Float[np.ndarray, "prompt cell"]) -> Iterator[Float[np.ndarray, "prompt cell"]]:
    for start in range(0, max(values.shape[1], 1), _BLOCK):
        yield values[:, start : start + _BLOCK]
