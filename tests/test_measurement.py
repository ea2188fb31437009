"""Measurements: the laws of their noise, where it lives, and likelihoods with their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm, poisson

from diffinv.measurement import GaussianNoise, Measurement, PoissonNoise, measure, require_linear
from diffinv.operators.base import Operator, dense

COUNT = 20_000
CLEAN = jnp.array([-1.0, -0.5, 0.0, 0.7, 1.0])


def draws(noise, clean, key, count=COUNT):
    return np.asarray(jax.vmap(lambda k: noise.sample(k, clean))(jax.random.split(key, count)))


def assert_moments(y, mean, variance, fourth):
    """Within 4.5 standard errors; `fourth` is the central fourth moment, which sets the variance's."""
    assert np.all(np.abs(y.mean(0) - mean) <= 4.5 * np.sqrt(variance / len(y)) + 1e-12)
    assert np.all(np.abs(y.var(0) - variance) <= 4.5 * np.sqrt((fourth - variance**2) / len(y)) + 1e-12)


def test_gaussian_noise_has_its_sigma(key):
    y = draws(GaussianNoise(0.3), CLEAN, key)
    assert_moments(y, CLEAN, 0.09 * np.ones(5), 3 * 0.09**2 * np.ones(5))
    off = np.corrcoef(y.T) - np.eye(5)
    assert np.abs(off).max() < 4.5 / np.sqrt(COUNT)


@pytest.mark.parametrize("sigma", [0.3, jnp.float64(0.3)])
def test_complex_noise_has_sigma_in_each_part(sigma, key):
    y = draws(GaussianNoise(sigma), jnp.zeros(2, complex) + 1j, key)
    parts = np.concatenate([y.real, y.imag], 1)
    assert_moments(parts, np.array([0, 0, 1, 1]), 0.09 * np.ones(4), 3 * 0.09**2 * np.ones(4))
    assert np.abs(np.corrcoef(parts.T) - np.eye(4)).max() < 4.5 / np.sqrt(COUNT)


def test_poisson_noise_has_the_mean_and_variance_of_counts(key):
    """`E y = A x`, `Var y = 2 (A x + 1) / peak`: counts `k` of mean and variance `peak (A x + 1) / 2`."""
    y, peak = draws(PoissonNoise(40.0), CLEAN[1:], key), 40.0
    rate = np.asarray(peak * (CLEAN[1:] + 1) / 2)
    assert_moments(y, CLEAN[1:], (2 / peak) ** 2 * rate, (2 / peak) ** 4 * (rate + 3 * rate**2))
    counts = (y + 1) * peak / 2
    assert_allclose(counts, np.rint(counts), atol=1e-9)
    below = draws(PoissonNoise(40.0), jnp.array([-1.0, -3.0]), key, 2000)
    assert np.all(below >= -1) and below.mean() < -0.999


@pytest.mark.parametrize("noise", [GaussianNoise(0.1), PoissonNoise(30.0)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_noise_keeps_the_precision_and_its_level_is_dynamic(noise, dtype, key):
    clean = CLEAN.astype(dtype)
    assert noise.sample(key, clean).dtype == dtype
    assert noise.log_likelihood(clean, 0.5 * clean).dtype == dtype
    levels = jax.tree.map(lambda level: level * jnp.array([1.0, 4.0], dtype), noise)
    y = jax.vmap(lambda noise: noise.sample(key, clean))(levels)
    assert y.dtype == dtype and jnp.any(y[0] != y[1])


def low_rank(key):
    """Rank 2 of 4 measurements: half of the measurement space is out of the range."""
    factor, other = np.random.default_rng(0).standard_normal((2, 4, 2))
    return dense(factor @ other.T, (2, 2))


def test_noise_lives_in_the_range(key):
    A, x = low_rank(key), jnp.ones((2, 2))
    measurement = measure(key, A, x, sigma=0.5)
    noise = measurement.y - A(x)
    assert jnp.linalg.norm(noise) > 0.1
    assert_allclose(A.project(measurement.y), measurement.y, atol=1e-10)
    assert_allclose(A(A.pinv(noise)), noise, atol=1e-10)
    raw = GaussianNoise(0.5).sample(key, A(x))
    assert_allclose(measurement.y, A.project(raw), atol=1e-10)
    assert jnp.linalg.norm(raw - A.project(raw)) > 0.1


def test_without_noise_the_residual_vanishes(key):
    A, x = low_rank(key), jnp.asarray(np.random.default_rng(1).standard_normal((2, 2)))
    assert_allclose(measure(key, A, x).residual(x), np.zeros(4), atol=1e-12)


def test_another_law_can_be_given(key):
    A = dense(np.eye(4), (2, 2))
    measurement = measure(key, A, jnp.zeros((2, 2)), noise=PoissonNoise(8.0))
    assert_allclose((measurement.y + 1) * 4, np.rint((measurement.y + 1) * 4), atol=1e-9)
    assert_allclose(measurement.sigma, 0.5)
    assert measure(key, A, jnp.zeros((2, 2)), 0.2).sigma == 0.2


def test_the_deviation_of_poisson_noise_is_that_of_mid_grey(key):
    measurement = Measurement(None, None, PoissonNoise(40.0))
    y = draws(PoissonNoise(40.0), jnp.zeros(1), key)
    assert abs(y.std() / measurement.sigma - 1) < 4.5 * np.sqrt((2 + 1 / 20) / 4 / COUNT)


def test_log_likelihoods_are_the_densities_up_to_a_constant():
    y, a, b = jnp.array([0.2, -0.4]), jnp.array([0.1, 0.0]), jnp.array([-0.3, 0.6])
    difference = lambda noise: noise.log_likelihood(y, a) - noise.log_likelihood(y, b)
    exact = norm.logpdf(y, a, 0.3).sum() - norm.logpdf(y, b, 0.3).sum()
    assert_allclose(difference(GaussianNoise(0.3)), exact, rtol=1e-10)
    rate = lambda clean: np.asarray(20 * (clean + 1) / 2)
    counts = np.rint(rate(y))
    exact = poisson.logpmf(counts, rate(a)).sum() - poisson.logpmf(counts, rate(b)).sum()
    assert_allclose(difference(PoissonNoise(20.0)), exact, rtol=1e-10)


def test_log_likelihood_gradients_in_closed_form():
    """`A^T (y - A x) / sigma^2`, and `A^T (k / rate - 1) peak / 2` for counts."""
    rng = np.random.default_rng(0)
    M, x, y = rng.uniform(0, 0.2, (3, 4)), rng.uniform(-0.5, 0.5, 4), rng.uniform(-0.5, 0.5, 3)
    A, gradient = dense(M), jax.grad(lambda x, noise: Measurement(A, jnp.asarray(y), noise).log_likelihood(x))
    assert_allclose(gradient(jnp.asarray(x), GaussianNoise(0.3)), M.T @ (y - M @ x) / 0.09, rtol=1e-9)
    peak = 50.0
    rate, counts = peak * (M @ x + 1) / 2, peak * (y + 1) / 2
    assert_allclose(gradient(jnp.asarray(x), PoissonNoise(peak)), M.T @ (counts / rate - 1) * peak / 2, rtol=1e-9)


def test_a_complex_log_likelihood_counts_both_parts():
    y, clean = jnp.array([1.0 + 2.0j]), jnp.array([0.5 + 1.0j])
    assert_allclose(GaussianNoise(0.5).log_likelihood(y, clean), -0.5 * (0.25 + 1.0) / 0.25)


@pytest.mark.parametrize("peak", [10.0, jnp.nan, -5.0, 0.0])
def test_counts_of_no_rate_are_no_numbers(peak, key):
    """JAX's own draw of an undefined rate is -1 or 0: a number like any other."""
    y = PoissonNoise(jnp.asarray(peak)).sample(key, jnp.asarray([jnp.nan, jnp.inf, 0.3]))
    assert_array_equal(jnp.isnan(y), [True, True, not peak > 0])


def test_measuring_is_reproducible_and_vmaps(key):
    """One example is the rule; measurements, operator included, are vmapped from outside."""
    A, pictures = low_rank(key), jnp.asarray(np.random.default_rng(2).standard_normal((3, 2, 2)))
    keys = jax.random.split(key, 3)
    together = jax.vmap(lambda k, x: measure(k, A, x, 0.1))(keys, pictures)
    for i in range(3):
        assert_allclose(together.y[i], measure(keys[i], A, pictures[i], 0.1).y, atol=1e-12)
    assert_allclose(jax.vmap(lambda m, x: m.residual(x))(together, pictures), together.y - jax.vmap(A)(pictures))
    assert_array_equal(measure(keys[0], A, pictures[0], 0.1).y, measure(keys[0], A, pictures[0], 0.1).y)


class Square(Operator):
    """Not linear."""

    shape = (2,)

    def __call__(self, x):
        return x**2


def test_mistakes_are_named(key):
    with pytest.raises(ValueError, match=r"x has shape \(4,\); Dense takes \(2, 2\)"):
        measure(key, low_rank(key), jnp.ones(4))
    nonlinear = measure(key, Square(), jnp.ones(2), 0.1)
    with pytest.raises(TypeError, match="operator Square is not linear; ddnm needs adjoint and solve: use dps"):
        require_linear(nonlinear, "ddnm")
    linear = measure(key, low_rank(key), jnp.ones((2, 2)))
    assert require_linear(linear, "ddnm") is linear.operator


def test_a_noise_without_a_deviation_says_so():
    class Odd:
        pass

    with pytest.raises(TypeError, match="noise Odd has no sigma; give it one"):
        _ = Measurement(dense(jnp.eye(2)), jnp.zeros(2), Odd()).sigma
