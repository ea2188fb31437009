"""Distances and calibration of samples: closed forms, scipy, and laws that are known."""

import numpy as np
import pytest
from scipy import stats

from diffinv.metrics import posterior as metrics


def cloud(n, d=3, shift=0.0, scale=1.0, seed=0):
    return shift + scale * np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize(("n", "m"), [(50, 50), (40, 100), (7, 11)])
def test_one_dimensional_w1_is_scipys(n, m):
    """In one dimension every direction is plus or minus the axis."""
    x, y = cloud(n, 1), cloud(m, 1, 0.5, 2.0, seed=1)
    expected = stats.wasserstein_distance(x[:, 0], y[:, 0])
    np.testing.assert_allclose(metrics.sliced_wasserstein(x, y), expected, rtol=1e-9)
    np.testing.assert_allclose(metrics.max_sliced_wasserstein(x, y, p=1), expected, rtol=1e-9)


@pytest.mark.parametrize("p", [1, 2])
def test_a_shift_moves_each_direction_by_its_projection(p):
    """`W_p(theta^T x, theta^T (x + v)) = |theta^T v|`: on the sphere its mean is |v| / 2, its square's |v|^2 / 3."""
    x, v = cloud(60), np.array([3.0, 0.0, 4.0])
    found = metrics.sliced_wasserstein(x, x + v, p, projections=20_000)
    np.testing.assert_allclose(found, {1: 2.5, 2: 5 / np.sqrt(3)}[p], rtol=0.02)
    np.testing.assert_allclose(metrics.max_sliced_wasserstein(x, x + v, p, projections=20_000), 5.0, rtol=0.01)


def test_equal_clouds_are_at_distance_zero_and_repeats_change_nothing():
    x, y = cloud(20), cloud(30, shift=1.0, seed=2)
    assert metrics.sliced_wasserstein(x, x[::-1]) == 0
    once = metrics.sliced_wasserstein(x, y, 2)
    np.testing.assert_allclose(metrics.sliced_wasserstein(np.repeat(x, 3, 0), y, 2), once, rtol=1e-12)


def test_moment_errors():
    samples = np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 3.0], [2.0, -3.0]])
    covariance = np.diag([2 / 3, 6.0])
    assert metrics.mean_error(samples, [2.0, 0.0], covariance) == 0
    np.testing.assert_allclose(metrics.mean_error(samples, [2.0, 2.0], [1.0, 3.0]), 1.0)
    np.testing.assert_allclose(metrics.covariance_error(samples, covariance), 0, atol=1e-12)
    np.testing.assert_allclose(metrics.covariance_error(samples, 2 * np.diag(covariance)), 0.5)


@pytest.mark.parametrize(("scale", "low", "high"), [(1.0, 0.48, 0.52), (0.5, 0.2, 0.32), (2.0, 0.78, 0.87)])
def test_coverage_of_a_normal(scale, low, high):
    """Samples too narrow cover too little: `P(|z| < 0.674 scale)` is 0.264, 0.5 and 0.823."""
    truth = np.random.default_rng(3).standard_normal(20_000)
    samples = scale * np.random.default_rng(4).standard_normal((400, 1)) @ np.ones((1, 20_000))
    assert low < metrics.coverage(samples, truth, 0.5) < high


@pytest.mark.parametrize(("count", "level"), [(9, 0.8), (19, 0.9), (9, 0.5)])
def test_few_samples_of_the_right_law_cover_their_level(count, level):
    """The truth is as likely in each of the `count + 1` gaps; a gap is cut by interpolation, exact for the uniform."""
    draws = np.random.default_rng(3).uniform(size=(count + 1, 200_000))
    found = metrics.coverage(draws[1:], draws[0], level)
    assert abs(found - level) < 4.5 * np.sqrt(level * (1 - level) / 200_000)


@pytest.mark.parametrize("count", [3, 20, 63])
def test_a_bin_expects_the_ranks_that_it_holds(count):
    """Each rank as often as any other is no deviation at all, whether or not 8 divides their number."""
    histogram, ratio = metrics.rank_histogram(np.tile(np.arange(count + 1), 50), count)
    assert histogram.sum() == 50 * (count + 1) and ratio < 1e-20


def test_ranks_are_uniform_for_the_right_law_and_not_for_a_narrow_one():
    """The chi-squared ratio of 8 bins has mean 1 and deviation `sqrt(2 / 7)`."""
    draws = np.random.default_rng(5).standard_normal((400, 64))
    truth = np.random.default_rng(6).standard_normal(400)
    ratio = {}
    for scale in (1.0, 0.6):
        found = [metrics.ranks(scale * each[:63, None], each_truth[None]) for each, each_truth in zip(draws, truth)]
        histogram, ratio[scale] = metrics.rank_histogram(found, 63)
        assert histogram.sum() == 400
    assert ratio[1.0] < 1 + 5 * np.sqrt(2 / 7) and ratio[0.6] > 5


def test_interval_leaves_out_what_is_not_finite():
    mean, half = metrics.interval([1.0, 3.0, np.nan])
    np.testing.assert_allclose([mean, half], [2.0, 1.96])
    assert np.isnan(metrics.interval([np.nan, 1.0])).all()


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: metrics.sliced_wasserstein(np.zeros(3), np.zeros((3, 1))), r"x is \(3,\)"),
        (lambda: metrics.sliced_wasserstein(np.zeros((3, 2)), np.zeros((3, 1))), "one space"),
        (lambda: metrics.coverage(np.zeros((3, 1)), [0.0], 1.5), "level is 1.5"),
    ],
)
def test_bad_input_is_named(call, word):
    with pytest.raises(ValueError, match=word):
        call()
