"""The ratio of a mean is 1, of an endpoint map 0: by algebra on whitened samples, and on draws of a Gaussian prior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import diffinv as di
from diffinv.metrics import denoising

VARIANCE = 0.3


def whitened(n, seed=0):
    """Samples and noise whose mean is 0 and whose second moments are exactly (VARIANCE, 1), without correlation."""
    cloud = np.random.default_rng(seed).standard_normal((n, 2))
    cloud -= cloud.mean(0)
    white = cloud @ np.linalg.inv(np.linalg.cholesky(cloud.T @ cloud / n)).T
    return np.sqrt(VARIANCE) * white[:, :1], white[:, 1:]


@pytest.mark.parametrize("sigma", [0.01, 0.5, 3.0, 80.0])
@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_linear_denoisers_of_a_gaussian(sigma, shift):
    """`D = m + g (x_t - m)`: `V - var D = v - g^2 (v + s^2)` and `MSE = (1 - g)^2 v + g^2 s^2`."""
    x0, eps = whitened(50)
    mean, end = VARIANCE / (VARIANCE + sigma**2), np.sqrt(VARIANCE / (VARIANCE + sigma**2))
    for g, expected in ((mean, 1.0), (end, 0.0)):
        found = denoising.mean_ratio(jnp.asarray(shift + x0), jnp.asarray(shift + g * (x0 + sigma * eps)))
        assert_allclose(found, expected, atol=1e-7)
    noisy = denoising.mean_ratio(jnp.asarray(x0), jnp.asarray(x0 + sigma * eps))
    assert_allclose(noisy, -1.0, atol=1e-7)  # what does nothing leaves all of the noise in


def test_a_mean_that_is_off_by_a_constant_is_found_out():
    x0, eps = whitened(50)
    g = VARIANCE / (VARIANCE + 1)
    found = denoising.mean_ratio(jnp.asarray(x0), jnp.asarray(g * (x0 + eps) + 1.0))
    assert_allclose(found, (VARIANCE * (1 - g) - 1) / (VARIANCE * (1 - g) + 1), rtol=1e-7)


def endpoint(prior):
    """The probability-flow ODE's end for N(m, v I): `m + (x - alpha m) sqrt(v / (alpha^2 v + sigma^2))`."""

    def to_the_end(x, t):
        alpha, sigma, law = prior.process.alpha(t), prior.process.sigma(t), prior.denoise
        return law.mean + (x - alpha * law.mean) * jnp.sqrt(law.variance / (alpha**2 * law.variance + sigma**2))

    return di.Prior(prior.process, to_the_end, prior.shape)


@pytest.mark.parametrize("name", ["EDM", "VP", "Flow"])
def test_the_exact_prior_and_its_endpoint_map_on_draws(name, key):
    """With `p = 1 / sqrt(1 + r^2)` N values deviate by `2 / (r sqrt N)`, and by `sqrt((1 + p) / (1 - p) / N)`."""
    process, shape, n = getattr(di.process, name)(), (16, 16, 1), 300
    law = di.gaussian_field(process, jnp.full(shape, 0.7), jnp.ones(shape))
    x0 = jax.vmap(law.denoise.sample)(jax.random.split(key, n))
    levels = np.array([0.5, 2.0, 20.0])
    times = jnp.stack([di.times.from_sigma(process, level) for level in levels])
    both = jax.jit(lambda key, law: [denoising.mean_ratios(key, each, x0, times) for each in (law, endpoint(law))])
    mean, end = both(jax.random.key(1), law)
    p, count = 1 / np.sqrt(1 + levels**2), x0.size
    assert np.all(np.abs(mean - 1) < 4 * 2 / (levels * np.sqrt(count)))
    assert np.all(np.abs(end) < 4 * np.sqrt((1 + p) / (1 - p) / count))


def test_what_does_not_fit_is_refused(key):
    law = di.gaussian_field(di.process.EDM(), jnp.zeros((2, 2, 1)), jnp.ones((2, 2, 1)))
    with pytest.raises(ValueError, match=r"x0 is \(3, 2, 2\); give samples \(n, 2, 2, 1\)"):
        denoising.mean_ratios(key, law, jnp.zeros((3, 2, 2)), jnp.ones(1))
    with pytest.raises(ValueError, match=r"denoised is \(2,\) and x0 is \(3,\)"):
        denoising.mean_ratio(jnp.zeros(3), jnp.zeros(2))


def test_only_ratios_far_from_1_are_warned_of(recwarn):
    denoising.warn_of_ratios([1.2, 0.8, 1.0], [80, 1, 0.1])
    assert not recwarn.list
    with pytest.warns(UserWarning, match="no posterior mean: .* is -1.8 at noise level 20"):
        denoising.warn_of_ratios([0.9, -1.8, 0.4], [80.0, 20.0, 5.0])
    with pytest.warns(UserWarning, match="is nan at noise level 2"):
        denoising.warn_of_ratios([1.0, np.nan], [1.0, 2.0])
    with pytest.warns(UserWarning, match="is 0.9 at noise level 80"):
        denoising.warn_of_ratios([0.9], [80.0], tolerance=0.05)
