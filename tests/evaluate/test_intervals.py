import numpy as np
import pytest

from grm_jax.evaluate.intervals import bootstrap_interval, paired_difference
from grm_jax.keys import generator


def test_the_interval_covers_a_bernoulli_mean_at_about_its_level():
    """500 studies of 200 items: coverage of a 95% interval within 0.92..0.98 (three standard errors and the known
    slight optimism of the percentile bootstrap)."""
    rng = generator("test", "coverage")
    covered = 0
    for study in range(500):
        interval = bootstrap_interval(rng.random(200) < 0.7, seed=study, resamples=1000)
        covered += interval.low <= 0.7 <= interval.high
    assert 0.92 < covered / 500 < 0.98


def test_the_interval_of_many_distinct_values_agrees_with_plain_resampling():
    """Also crosses the memory bound: 2,000 distinct values x 4,000 resamples are drawn in two parts."""
    rng = generator("test", "plain")
    values = rng.normal(5, 2, size=2000)
    interval = bootstrap_interval(values, seed=0, resamples=4000)
    means = values[rng.integers(0, 2000, size=(4000, 2000))].mean(axis=1)
    np.testing.assert_allclose((interval.low, interval.high), np.quantile(means, (0.025, 0.975)), atol=0.008)
    assert interval.mean == values.mean()


def test_a_higher_level_is_wider_and_a_constant_has_no_width():
    values = np.arange(50) % 2
    narrow, wide = (bootstrap_interval(values, seed=0, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < 0.5 < narrow.high < wide.high
    constant = bootstrap_interval([0.25] * 9, seed=0)
    assert (constant.mean, constant.low, constant.high, constant.count) == (0.25, 0.25, 0.25, 9)


def test_the_seed_decides_the_interval():
    values = generator("test", "seed").normal(size=40)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_a_paired_difference_sees_what_unpaired_intervals_hide():
    rng = generator("test", "pairs")
    base = (rng.random(400) < 0.6).astype(float)
    better = np.where(np.arange(400) % 20 == 0, 1.0, base)  # a gain on few items, nowhere a loss
    gain = paired_difference(better, base, seed=0)
    assert gain.mean == (better - base).mean() > 0
    assert gain.low > 0
    assert bootstrap_interval(base, seed=0).high > bootstrap_interval(better, seed=0).low
    reverse = paired_difference(base, better, seed=0)
    assert reverse.mean == -gain.mean


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval([], seed=0)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([1.0], [1.0, 0.0], seed=0)
