"""Calibration on a Gaussian problem whose posterior is known: exact samples pass, narrow and shifted ones do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffinv.metrics import calibration as metrics

PROBLEMS, COUNT, NOISE = 400, 29, 0.7
LEVELS = np.arange(31) / 30


def problems(scale=1.0, shift=0.0, seed=0):
    """x ~ N(0, I) in three dimensions, y = x_1 + noise: (samples, truth, posterior mean, posterior deviations)."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((PROBLEMS, 3))
    y = truth[:, 0] + NOISE * rng.standard_normal(PROBLEMS)
    mean = np.zeros((PROBLEMS, 3))
    mean[:, 0] = y / (1 + NOISE**2)
    deviation = np.array([NOISE / np.sqrt(1 + NOISE**2), 1, 1])
    z = rng.standard_normal((PROBLEMS, COUNT, 3))
    return mean[:, None] + deviation * (scale * z + shift), truth, mean, deviation


def tarp(samples, truth, mean, deviation, seed=5):
    near = mean + deviation * np.random.default_rng(seed).standard_normal(mean.shape)
    return metrics.tarp_ranks(samples, truth, near, deviation)


def hpd(samples, truth, mean, deviation):
    density = lambda x, mean: -0.5 * np.sum(((x - mean) / deviation) ** 2, -1)
    return metrics.hpd_ranks(density(samples, mean[:, None]), density(truth, mean))


@pytest.mark.parametrize("ranks", [tarp, hpd])
def test_exact_samples_are_within_the_band_and_others_are_not(ranks):
    """Shifted ones lie, as wide ones do, further out than the truth: from the reference, and in the exact density."""
    low, high = metrics.coverage_band(PROBLEMS, LEVELS, 0.999)
    found = ranks(*problems())
    curve = metrics.coverage_curve(found, COUNT, LEVELS)
    assert (low <= curve).all() and (curve <= high).all()
    assert metrics.uniformity(found, COUNT) > 0.01
    for spoilt, side in (({"scale": 0.7}, -1), ({"scale": 1.4}, 1), ({"shift": 0.8}, 1)):
        found = ranks(*problems(**spoilt))
        curve = metrics.coverage_curve(found, COUNT, LEVELS)
        outside = curve[15] < low[15] if side < 0 else curve[15] > high[15]
        assert outside and metrics.uniformity(found, COUNT) < 1e-4, spoilt


def test_references_that_know_nothing_of_y_find_the_prior_calibrated():
    """The warning of the docstring: samples of the prior pass, unless the reference is near what y says."""
    samples, truth, mean, deviation = problems()
    prior = np.random.default_rng(8).standard_normal(samples.shape)
    anywhere = np.random.default_rng(9).standard_normal(truth.shape)
    assert metrics.uniformity(metrics.tarp_ranks(prior, truth, anywhere), COUNT) > 0.01
    assert metrics.uniformity(metrics.tarp_ranks(prior, truth, mean * [4, 1, 1]), COUNT) < 1e-4


def test_the_curve_of_uniform_ranks_is_the_diagonal_at_every_level():
    levels = np.linspace(0, 1, 47)
    found = np.tile(np.arange(COUNT + 1), 3)
    np.testing.assert_allclose(metrics.coverage_curve(found, COUNT, levels), levels, atol=1e-12)
    assert metrics.uniformity(found, COUNT) == 1


@pytest.mark.parametrize("problems_", [1, 7, 50])
def test_the_band_is_scipys_binomial_interval(problems_):
    low, high = metrics.coverage_band(problems_, LEVELS[1:-1], 0.9)
    expected = stats.binom.interval(0.9, problems_, LEVELS[1:-1])
    np.testing.assert_allclose([low, high], np.asarray(expected) / problems_)
    np.testing.assert_array_equal(metrics.coverage_band(problems_, [0.0, 1.0]), [[0, 1], [0, 1]])


def test_uniformity_is_scipys_chi_squared():
    found = np.random.default_rng(1).binomial(9, 0.5, 100)
    seen = np.bincount(found // 2, minlength=5)
    assert metrics.uniformity(found, 9, 5) == pytest.approx(stats.chisquare(seen).pvalue)


def test_the_gap_of_exact_samples_is_zero_for_any_count_and_of_others_its_closed_form():
    """A shift of every coordinate by `a` deviations adds `a^2 tr C` to an error of `tr C`."""
    for count in (2, COUNT):
        samples, truth, mean, _ = problems()
        value, half = metrics.mmse_gap(samples[:, :count], truth, mean)
        assert abs(value) < half < 1
    samples, truth, mean, _ = problems(shift=0.8)
    value, half = metrics.mmse_gap(samples, truth, mean)
    assert abs(value - 10 * np.log10(1 + 0.8**2)) < half < 0.5
    samples = np.stack([mean, mean], 1)
    assert metrics.mmse_gap(samples, truth, mean) == (0, 0)


def normal(seed, n=200, scale=1.0, shift=0.0):
    return shift + scale * np.random.default_rng(seed).standard_normal((n, 2))


def test_steins_kernel_is_what_automatic_differentiation_gives():
    x, width = normal(0, 5), 1.3
    score = lambda a: -a * jnp.asarray([1.0, 0.5]) + jnp.sin(a)
    kernel = lambda a, b: (1 + jnp.sum((a - b) ** 2) / width**2) ** -0.5

    def stein(a, b):
        crossed = jnp.trace(jax.jacfwd(jax.grad(kernel, 1), 0)(a, b))
        slopes = score(a) @ jax.grad(kernel, 1)(a, b) + score(b) @ jax.grad(kernel, 0)(a, b)
        return score(a) @ score(b) * kernel(a, b) + slopes + crossed

    values = jax.vmap(jax.vmap(stein, (None, 0)), (0, None))(jnp.asarray(x), jnp.asarray(x))
    found = metrics.stein_discrepancy(x, jax.vmap(score)(jnp.asarray(x)), width)
    np.testing.assert_allclose(found, (values.mean(), jnp.trace(values) / 25), rtol=1e-10)


def test_exact_samples_are_at_the_floor_and_others_above():
    floor = [metrics.stein_discrepancy(x, -x) for x in map(normal, range(8))]
    ratio = np.mean([value / floor for value, floor in floor])
    assert 0.6 < ratio < 1.5  # the mean of the rest is 0
    for spoilt in ({"scale": 0.6}, {"scale": 1.5}, {"shift": 0.6}):
        x = normal(0, **spoilt)
        value, floor = metrics.stein_discrepancy(x, -x)
        assert value > 3 * floor


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (lambda: metrics.tarp_ranks(np.zeros((2, 3)), 0, 0), r"samples is \(2, 3\); give \(problems, n, d\)"),
        (lambda: metrics.tarp_ranks(np.zeros((2, 3, 1)), np.zeros((2, 2)), np.zeros((2, 1))), r"truth is \(2, 2\)"),
        (lambda: metrics.tarp_ranks(np.zeros((1, 2, 1)), [[0]], [[0]], 0.0), "scale is 0.0"),
        (lambda: metrics.hpd_ranks(np.zeros(3), 0.0), "give log densities"),
        (lambda: metrics.coverage_curve([4], 3, [0.5]), "ranks from 0 to count = 3"),
        (lambda: metrics.coverage_band(0, [0.5]), "problems is 0"),
        (lambda: metrics.uniformity([0], 0), "at least 1 sample"),
        (lambda: metrics.mmse_gap(np.zeros((2, 1, 1)), np.zeros((2, 1)), np.zeros((2, 1))), "2 samples of each"),
        (lambda: metrics.stein_discrepancy(np.zeros((3, 1)), np.zeros(3)), r"scores \(3,\)"),
        (lambda: metrics.stein_discrepancy(np.zeros((3, 1)), np.zeros((3, 1))), "width is 0.0"),
    ],
)
def test_what_does_not_fit_is_named(give, words):
    with pytest.raises(ValueError, match=words):
        give()
