"""Intervals and permutation tests against exhaustive and independent computations."""

import itertools

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from interp import stats


def _array(values: np.ndarray) -> xr.DataArray:
    coords = {"prompt": range(values.shape[0]), "cell": range(values.shape[1])}
    return xr.DataArray(values, dims=("prompt", "cell"), coords=coords)


def _noise(n: int, cells: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, cells))


def test_few_prompts_are_flipped_in_every_way():
    values = _noise(7, 5) + 0.5
    t = lambda v: np.abs(v.sum(0)) / np.sqrt((v**2).sum(0))
    null = [t(np.array(signs)[:, None] * values).max() for signs in itertools.product([1, -1], repeat=7)]
    expected = [np.mean([m >= x - 1e-12 for m in null]) for x in t(values)]
    np.testing.assert_allclose(stats.sign_flip(_array(values)), expected, atol=1e-12)


def test_one_cell_is_the_permutation_test_of_scipy():
    values = _noise(9, 1) + 0.4
    wanted = scipy.stats.permutation_test((values[:, 0],), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert float(stats.sign_flip(_array(values))[0]) == pytest.approx(wanted.pvalue)


def test_drawn_flips_come_close_to_all_flips():
    array = _array(_noise(10, 6) + 0.3)
    np.testing.assert_allclose(stats.sign_flip(array, draws=1000), stats.sign_flip(array, draws=1023), atol=0.05)


def test_a_missing_cell_changes_nothing_for_the_others():
    values = _noise(12, 4) + 0.3
    wanted = stats.summary(_array(values))
    table = stats.summary(_array(np.concatenate([values, np.full((12, 1), np.nan)], 1)))
    for name in wanted:
        np.testing.assert_array_equal(table[name][:4], wanted[name], err_msg=name)
    assert np.isnan(table[["mean", "low", "high", "p"]].isel(cell=4).to_array()).all()
    assert not table.significant[4] and table.n[4] == 0


def test_a_missing_prompt_is_left_out_of_its_cell():
    values = _noise(12, 1) + 1
    values[8:] = np.nan
    table, alone = stats.summary(_array(values)), stats.summary(_array(values[:8]))
    assert float(table["mean"][0]) == pytest.approx(float(alone["mean"][0])) and int(table.n[0]) == 8
    assert float(table.p[0]) == pytest.approx(float(alone.p[0]), abs=0.02)
    assert float(table.high[0] - table.low[0]) == pytest.approx(float(alone.high[0] - alone.low[0]), rel=0.15)


def test_an_interval_of_many_cells_is_that_of_each():
    array = _array(_noise(20, 2500))
    alone = stats.interval(array.isel(cell=[2000]))
    np.testing.assert_allclose(stats.interval(array).isel(cell=[2000]).to_array(), alone.to_array())


def test_intervals_cover_the_mean():
    table = stats.interval(_array(_noise(50, 2000)))
    assert ((table.low <= 0) & (table.high >= 0)).mean() == pytest.approx(0.94, abs=0.02)


@pytest.mark.parametrize("n", [3, 5, 8, 12])
def test_intervals_of_few_values_cover_the_mean_as_often_as_they_say(n):
    """Percentiles of the bootstrap alone do so in 75, 85, 89 and 90 of 100 cases."""
    draw = np.random.default_rng(n)
    covers = lambda table, true: float(((table.low <= true) & (table.high >= true)).mean())
    assert covers(stats.interval(_array(draw.normal(size=(n, 2000)))), 0) == pytest.approx(0.95, abs=0.02)
    ends = scipy.stats.t.interval(0.95, n - 1, scale=n**-0.5)
    found = stats.interval(_array(scipy.stats.norm.ppf((np.arange(n) + 0.5) / n)[:, None]))
    assert float(found.high[0]) == pytest.approx(ends[1], rel=0.25)  # of a sample as normal as can be

    labels = np.repeat(np.arange(n), 4).astype(str).tolist()
    alike = np.repeat(draw.normal(size=(n, 2000)), 4, 0) + 0.5 * draw.normal(size=(4 * n, 2000))
    assert covers(stats.interval(_array(alike), clusters=labels), 0) == pytest.approx(0.95, abs=0.02)
    below = _array(10 + draw.normal(size=alike.shape))
    assert covers(stats.ratio(_array(alike + 10), below, clusters=labels), 1) == pytest.approx(0.95, abs=0.02)


def test_a_cell_that_few_prompts_have_is_as_wide_as_theirs():
    values = _noise(12, 1)
    values[4:] = np.nan
    table, alone = stats.interval(_array(values)), stats.interval(_array(values[:4]))
    assert float(table.high[0] - table.low[0]) == pytest.approx(float(alone.high[0] - alone.low[0]), rel=0.3)
    assert np.isnan(stats.interval(_array(values), clusters=[*"aaaabbbbcccc"]).low[0])  # one cluster alone has it


def test_six_right_of_six_are_no_certainty():
    shares = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 0, 0.0]])
    table = stats.interval(_array(shares))
    for i, k in enumerate((6, 4, 0)):
        wanted = scipy.stats.binomtest(k, 6).proportion_ci(0.95, method="exact")
        assert (float(table.low[i]), float(table.high[i])) == pytest.approx(tuple(wanted))
    assert float(stats.interval(_array(shares[:, :1])).low[0]) < 0.6
    assert float(stats.interval(_array(shares[:, 2:])).high[0]) == 0  # nothing but zeros may be no shares at all
    assert stats.interval(_array(shares[:, 2:] > 0)).high[0] == table.high[2]  # unless they are booleans


def test_whole_clusters_are_flipped():
    """Prompts said again are no new evidence: p-values are those of one prompt of each."""
    values, labels = _noise(9, 4) + 0.5, np.repeat(np.arange(9), 5).astype(str)
    order = np.random.default_rng(1).permutation(45)
    again = _array(np.repeat(values, 5, 0)[order])
    np.testing.assert_allclose(stats.sign_flip(again, clusters=labels[order].tolist()), stats.sign_flip(_array(values)))
    table = stats.summary(again, clusters=labels[order].tolist())
    np.testing.assert_allclose(table.p, stats.sign_flip(_array(values), draws=1999))
    assert (stats.sign_flip(again) <= table.p).all() and float(stats.sign_flip(again).min()) < 0.01
    with pytest.raises(ValueError, match="45 values along 'prompt' and 2 clusters"):
        stats.summary(again, clusters=["a", "b"])


def test_clusters_of_noise_have_a_star_in_one_case_of_twenty():
    labels = np.repeat(np.arange(8), 4).astype(str).tolist()
    stars, naive = 0, 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        array = _array(np.repeat(draw.normal(size=(8, 3)), 4, 0) + 0.3 * draw.normal(size=(32, 3)))
        stars += bool((stats.sign_flip(array, clusters=labels) <= 0.05).any())
        naive += bool((stats.sign_flip(array) <= 0.05).any())
    assert stars <= 18 and naive > 60  # 10 are expected: more than 18 in a case of a hundred


def test_rounding_errors_are_no_effect():
    values = np.concatenate([_noise(20, 3) + 1, np.full((20, 1), 1e-8)], 1)
    assert float(stats.sign_flip(_array(values))[3]) == 1
    assert float(stats.sign_flip(_array(values), floor=0)[3]) < 0.05


def test_nothing_but_zeros_is_nothing():
    assert (stats.sign_flip(_array(np.zeros((8, 3)))) == 1).all()


def test_at_most_one_null_in_twenty_has_a_star():
    stars = [bool((stats.sign_flip(_array(_noise(16, 40, seed)), draws=399) <= 0.05).any()) for seed in range(400)]
    assert scipy.stats.binomtest(sum(stars), 400, 0.05).pvalue > 0.01


def test_thousands_of_cells():
    values = _noise(32, 20_000)
    values[:, 7] += 3
    table = stats.summary(_array(values))
    assert bool(table.significant[7]) and int(table.significant.sum()) == 1


def test_rank_correlation_is_scipys_where_it_can_be_said():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, size=(2, 30)).astype(float)  # with ties
    assert stats.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    gaps = np.where(np.arange(30) % 5 == 0, np.nan, x)
    assert stats.spearman(gaps, y) == pytest.approx(scipy.stats.spearmanr(gaps, y, nan_policy="omit").statistic)
    assert np.isnan([stats.spearman(x, 0 * y), stats.spearman(x[:2], y[:2]), stats.spearman(x * np.nan, y)]).all()
    rows = [xr.DataArray(np.stack([one, one[::-1]]), dims=("prompt", "cell")) for one in (x, y)]
    np.testing.assert_allclose(stats.rank_correlation(*rows), 2 * [stats.spearman(x, y)])


def test_arrays_are_compared_label_by_label():
    values = np.random.default_rng(0).uniform(1, 2, (6, 5))
    array = xr.DataArray(values, dims=("prompt", "head"), coords={"prompt": range(6), "head": list("abcde")})
    turned = array.isel(head=slice(None, None, -1))
    np.testing.assert_allclose(stats.rank_correlation(array, turned), 1)
    np.testing.assert_allclose(stats.ratio(array, turned)["mean"], 1)
    other = turned.assign_coords(head=list("vwxyz"))  # other labels are paired as they stand
    np.testing.assert_allclose(
        stats.rank_correlation(array, other), stats.rank_correlation(array, turned.drop_vars("head"))
    )


def test_a_ratio_is_of_the_prompts_that_both_have():
    bottom = _array(np.arange(1.0, 9)[:, None])
    top = 2 * bottom
    top[3] = np.nan
    table = stats.ratio(top, bottom)
    assert float(table["low"][0]) == pytest.approx(2) and float(table["mean"][0]) == pytest.approx(2)


def test_shares_in_clusters_are_shares():
    """Of 14 of 16 the stretched percentiles would lie above 1; of 14 of 14 they would have no width."""
    right = _array(np.array([1.0] * 14 + [0, 0])[:, None])
    assert float(stats.interval(right, clusters=list("aabbccddeeffgghh"))["high"][0]) == 1
    table = stats.interval(_array(np.ones((14, 1))), clusters=list("aaaaaaabbbbbbb"))
    exact = stats.interval(_array(np.ones((2, 1))))
    assert (float(table["low"][0]), float(table["high"][0])) == (float(exact["low"][0]), 1)
