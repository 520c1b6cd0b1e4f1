"""Uncertainty and nulls for labelled arrays, along their prompt axis; NaN is what was not measured."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from interp.arguments import check_labelled_array
from interp.arrays import in_order_of
from interp.resampling import (
    bounds_of_means,
    bounds_of_shares,
    ends_of,
    signs_of,
    stretched,
    sums_of,
    units_of,
    weights_of,
)

FEWEST = 8  # values that an interval takes to be judged by: of fewer, whether they are skewed cannot be seen
_BLOCK = 1024  # cells whose resamples are held at a time


def summary(
    array: xr.DataArray,
    over: str = "prompt",
    level: float = 0.95,
    draws: int = 2000,
    flips: int = 1999,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> xr.Dataset:
    """What to report of effects: how large, how sure, and whether more than chance among all cells.

    Args:
        level: Of the interval, and 1 minus the share of null results that may be called significant.
        draws, flips: Resamples for the interval, and for the p-values.
        clusters: As in `interval`; the signs of whole clusters are flipped then.

    Returns:
        A dataset of `mean`, `low`, `high` (see `interval`), `p` (see `sign_flip`, corrected over all cells),
        `significant` and `n`, the number of prompts measured in each cell; NaN where that is none.
    """
    table = interval(array, over, level, draws, seed, clusters)
    p = sign_flip(array, over, flips, seed, clusters=clusters)
    table = table.assign(p=p, significant=p <= 1 - level + 1e-12, n=array.count(over))
    units = over if clusters is None else f"clusters of {over}s"
    return table.assign_attrs(flips=flips, test=f"signs flipped over {units}, largest of {int(p.count())} cells")


def interval(
    array: xr.DataArray,
    over: str = "prompt",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> xr.Dataset:
    """Mean over prompts with a bootstrap interval, percentiles stretched for small samples (see `resampling`).

    Shares, of an array of booleans or of nothing but 0 and 1 with a 1 somewhere, have that of Clopper & Pearson 1934
    instead: six right of six are no certainty. Of clustered ones that is for those that are all or none alone, of as
    many as there are clusters; the others' ends at 0 and 1.

    Args:
        clusters: What each prompt belongs to, if prompts of one cluster are alike: clusters are then drawn as wholes.

    Returns:
        A dataset of `mean`, `low` and `high` with the other axes of the array; of cells with fewer than two values, or
        two clusters, no bounds. What they are of is their `long_name`, as a figure shows it.
    """
    check_labelled_array(array)
    weights, values, how = weights_of(array, over, draws, seed, clusters), _flat(array, over), "bootstrap"
    which, found = units_of(values, over, clusters), set(np.unique(values[np.isfinite(values)]))
    shares = array.dtype == bool or found in ({1.0}, {0.0, 1.0})
    if shares and clusters is None:
        n = np.isfinite(values).sum(0)
        low, high = np.where(n >= 2, bounds_of_shares(np.nansum(values, 0), n, level), np.nan)
        how = "Clopper-Pearson"
    else:
        ends = np.concatenate([bounds_of_means(weights, block, which, level) for block in _blocks(values)], axis=1)
        if shares:
            n, share = np.isfinite(sums_of(values, which)).sum(0), array.mean(over).values.flatten()
            sure = (n >= 2) & np.isin(share, (0.0, 1.0))
            ends = np.where(sure, bounds_of_shares(np.where(sure, share, 0) * n, n, level), ends.clip(0, 1))
        low, high = ends
    how = f"{how} over {over}"
    of = array.attrs.get("long_name") if array.name == "mean" else array.name
    mean = array.mean(over).assign_attrs({"long_name": str(of)} if of else {})
    return _interval(mean, low, high, over, level=level, draws=draws, seed=seed, interval=how)


def ratio(
    top: xr.DataArray,
    bottom: xr.DataArray,
    over: str = "prompt",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> xr.Dataset:
    """Ratio of two means over prompts with a bootstrap interval as in `interval`, prompts drawn for both together.

    Args:
        clusters: As in `interval`.

    Returns:
        A dataset of `mean`, `low` and `high` with the other axes of the arrays, which they share; of the prompts that
        both have. NaN where the percentiles of the lower mean contain zero, for there a ratio says nothing.
    """
    if top.dims != bottom.dims or top.shape != bottom.shape:
        raise ValueError(f"a ratio needs arrays of the same axes, not {dict(top.sizes)} and {dict(bottom.sizes)}")
    bottom = in_order_of(bottom, top)
    units = int(units_of(_flat(top, over), over, clusters).max()) + 1
    both = top.notnull() & bottom.notnull()
    top, bottom = top.where(both), bottom.where(both)
    weights = weights_of(top, over, draws, seed, clusters)
    tops, bottoms = (weights @ np.nan_to_num(_flat(array, over)) for array in (top, bottom))
    least, most = np.quantile(bottoms, ends_of(level), axis=0)
    clear = least * most > 0
    means, below = top.mean(over), np.where(clear, bottom.mean(over).values.flatten(), np.nan)
    mean = means.copy(data=(means.values.flatten() / below).reshape(means.shape))
    bounds = np.quantile(tops / np.where(bottoms == 0, np.inf, bottoms), ends_of(level), axis=0)
    low, high = np.where(clear, stretched(mean.values.flatten(), bounds, units, level), np.nan)
    return _interval(mean, low, high, over, level=level, draws=draws, seed=seed)


def of_means(
    function: Callable[..., np.ndarray],
    *arrays: xr.DataArray,
    over: str = "prompt",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A function of means over prompts and its interval as in `interval`, prompts drawn for all arrays together.

    Args:
        function: Of the means, each with the axes of its array but a first one for draws in place of the prompts; it
            keeps that axis.
        clusters: As in `interval`.

    Returns:
        The value, its lower and its upper bound.
    """
    n = arrays[0].sizes[over]
    weights = np.concatenate([np.ones((1, n)), weights_of(arrays[0], over, draws, seed, clusters)]) / n
    n_units = n if clusters is None else len(set(clusters))
    values = [array.transpose(over, ...).values.astype(float) for array in arrays]
    found = function(*(np.tensordot(weights, value, axes=(1, 0)) for value in values))
    low, high = stretched(np.asarray(found[0]), np.quantile(found[1:], ends_of(level), axis=0), n_units, level)
    return np.asarray(found[0]), np.asarray(low), np.asarray(high)


def _interval(mean: xr.DataArray, low: np.ndarray, high: np.ndarray, over: str, **how: float | str) -> xr.Dataset:
    bounds = {"low": low, "high": high}
    parts = {"mean": mean} | {name: mean.copy(data=bound.reshape(mean.shape)) for name, bound in bounds.items()}
    return xr.Dataset(parts, attrs={"interval": f"bootstrap over {over}"} | how)


def sign_flip(
    array: xr.DataArray,
    over: str = "prompt",
    draws: int = 999,
    seed: int = 0,
    floor: float = 1e-5,
    clusters: Sequence[str] | None = None,
) -> xr.DataArray:
    """p-values that effects are symmetric about zero, corrected over all cells by the maximum statistic.

    Signs of whole prompts are flipped at random (Nichols & Holmes 2002), or in all ways if these are no more than the
    draws. The statistic of a cell is its sum over its root sum of squares, which no flip changes. Five prompts or
    fewer cannot give p <= 0.05.

    Args:
        floor: Cells whose root mean square is below this share of the largest count as zero (p = 1): rounding errors
            are tiny, but they need not change sign.
        clusters: What each prompt belongs to, if prompts of one cluster are alike: a cluster's signs flip together, and
            its sum counts as one value.
    """
    check_labelled_array(array)
    values = _flat(array, over)
    values = values if clusters is None else sums_of(values, units_of(values, over, clusters))
    n = len(values)
    filled = np.nan_to_num(values)
    size = np.sqrt((filled**2).sum(0))
    rms = size / np.sqrt(np.maximum(np.isfinite(values).sum(0), 1))
    tested = rms > floor * rms.max(initial=0)
    scaled = filled[:, tested] / size[tested]
    signs = signs_of(n, draws, seed)
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
    if a.dims != b.dims or a.shape != b.shape:
        raise ValueError(f"a correlation needs arrays of the same axes, not {dict(a.sizes)} and {dict(b.sizes)}")
    found = [spearman(x, y) for x, y in zip(_flat(a, over), _flat(in_order_of(b, a), over))]
    return xr.DataArray(found, dims=(over,), coords={over: a[over].values}, name="rank correlation")


def auroc(scores: Float[np.ndarray, "*rest n"], positive: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "*rest"]:
    """The chance that a positive one scores above another, ties by half; NaN where one of them is missing."""
    from scipy.stats import rankdata

    n, others = int(positive.sum()), int((~positive).sum())
    above = rankdata(scores, axis=-1)[..., positive].sum(-1) - n * (n + 1) / 2
    return np.asarray(above / (n * others) if n * others else np.full(scores.shape[:-1], np.nan))


def spearman(x: Float[np.ndarray, " cell"], y: Float[np.ndarray, " cell"]) -> float:
    """Spearman's rank correlation of two rows of numbers, with the gaps of `rank_correlation`."""
    from scipy.stats import rankdata

    known = np.isfinite(x) & np.isfinite(y)
    ranks = np.array([rankdata(side[known]) for side in (x, y)])
    there = known.sum() > 2 and bool((np.ptp(ranks, axis=1) > 0).all())
    return float(np.corrcoef(ranks)[0, 1]) if there else float("nan")


def _flat(array: xr.DataArray, over: str) -> Float[np.ndarray, "prompt cell"]:
    return array.transpose(over, ...).values.astype(float).reshape(array.sizes[over], -1)


def _blocks(values: Float[np.ndarray, "prompt cell"]) -> Iterator[Float[np.ndarray, "prompt cell"]]:
    for start in range(0, max(values.shape[1], 1), _BLOCK):
        yield values[:, start : start + _BLOCK]
