"""The probability-flow ODE from data to noise: latents, round trips, divergences and likelihoods in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from numpy.testing import assert_allclose
from registries import PROCESSES
from test_samplers import KEY, LATENT, MEAN, diagonal, linear, march, on_the_path, spread

from diffinv import process, samplers, times
from diffinv.denoisers.exact import mixture


@pytest.mark.parametrize(("method", "order"), [(samplers.euler, 1), (samplers.heun, 2)])
def test_inversion_reaches_the_latent(method, order):
    prior, steps, errors = diagonal(process.Flow()), [16, 32, 64], []
    integrator, start = method(prior), on_the_path(prior.process, 0.05)
    for n in steps:
        up = linear(0.05, 1.0)(n)
        errors.append(np.linalg.norm(march(integrator, up, start) - LATENT))
    assert abs(oracle.slope(steps, errors) - order) < 0.15, errors
    assert_allclose(samplers.invert(prior, start / 0.95, up, method), march(integrator, up, start), rtol=1e-11)


@pytest.mark.parametrize(("method", "order"), [(samplers.euler, 1), (samplers.heun, 3)])
def test_inversion_and_sampling_give_the_picture_back(method, order):
    """On a mixture, away from the ridge between its modes. On the way back Heun's leading error, of local order 3, has
    the other sign and cancels: the round trip gains an order, as for every method of even order."""
    prior, x = mixture(process.Flow(), jnp.array([MEAN, -MEAN]), jnp.ones(2), jnp.array([0.2, 0.3])), 1.3 * MEAN
    steps, errors, integrator = [16, 32, 64], [], method(prior)
    for n in steps:
        up = linear(0.05, 1.0)(n)
        back = march(integrator, up[::-1], march(integrator, up, jnp.asarray(0.95 * x)))
        errors.append(np.linalg.norm(back - 0.95 * x))
    assert abs(oracle.slope(steps, errors) - order) < 0.15, errors


@pytest.mark.slow
def test_a_grid_from_noise_to_data_is_no_inversion():
    """Over it `invert` would return a sample, and the likelihood a number."""
    prior, x = diagonal(process.VP()), jnp.ones(diagonal(process.VP()).shape)
    for grid in (times.grid(4), times.grid(4)[:-1], times.grid(4)[::-1]):
        for inverse in (samplers.invert, samplers.log_likelihood):
            with pytest.raises(ValueError, match=r"times run from .* use times.ascending"):
                inverse(prior, x, grid)
    assert np.isnan(jax.jit(lambda t: samplers.invert(prior, x, t))(times.grid(4)[:-1])).all()
    assert np.isnan(jax.jit(lambda t: samplers.log_likelihood(prior, x, t))(times.grid(4)[:-1]).log_prob)


def test_divergence_is_the_trace_of_the_jacobian():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3)))
    f = lambda x: jnp.sin(x @ x.T) @ x
    trace = jnp.trace(jax.jacfwd(f)(x).reshape(6, 6))
    assert_allclose(samplers.divergence(f, x), trace, rtol=1e-12)
    estimates = jax.vmap(lambda k: samplers.divergence(f, x, k))(jax.random.split(KEY, 2000))
    assert abs(estimates.mean() - trace) < 4.5 * estimates.std() / np.sqrt(2000)
    averaged = jax.vmap(lambda k: samplers.divergence(f, x, k, probes=16))(jax.random.split(KEY, 200))
    assert abs(averaged.std() / estimates.std() - 0.25) < 0.06


def likelihood_error(prior, x, log_density, grid, key=None):
    """Against the density of `alpha x` at the first time; `log_density(x, t)` is exact at both ends."""
    result = samplers.log_likelihood(prior, x, grid, lambda z: log_density(z, grid[-1]), key)
    return float(result.log_prob - log_density(prior.process.alpha(grid[0]) * x, grid[0])), result


def normal_density(process):
    def log_density(x, t):
        z = (x - process.alpha(t) * MEAN) / spread(process, t)
        return -0.5 * jnp.sum(z**2) - np.sum(np.log(spread(process, t))) - 1.5 * np.log(2 * np.pi)

    return log_density


MIXTURE = (jnp.array([[1.0, 0.0], [-1.0, 0.5]]), jnp.array([0.3, 0.7]), jnp.array([0.3, 0.2]))


@pytest.mark.parametrize(("name", "grid"), [("vp", linear(0.02, 1.0)), ("edm", lambda n: times.karras(n + 1)[-2::-1])])
def test_gaussian_likelihood_converges_at_second_order(name, grid):
    prior, steps = diagonal(PROCESSES[name]), [32, 64, 128]
    x = jnp.array([0.6, -1.0, 0.5])
    errors = [abs(likelihood_error(prior, x, normal_density(prior.process), grid(n))[0]) for n in steps]
    assert abs(oracle.slope(steps, errors) - 2) < 0.2 and errors[-1] < 0.01, errors


def test_mixture_likelihood_converges_at_second_order():
    prior, steps = mixture(process.Flow(), *MIXTURE), [32, 64, 128]
    x = jnp.array([0.1, -0.4])
    errors = [abs(likelihood_error(prior, x, prior.denoise.log_prob, linear(0.02, 1.0)(n))[0]) for n in steps]
    assert abs(oracle.slope(steps, errors) - 2) < 0.2 and errors[-1] < 0.01, errors


def test_likelihood_ends_in_a_normal_where_the_signal_is_gone():
    """The default terminal density, and the latent it is taken at."""
    prior, grid = diagonal(process.Flow()), linear(0.02, 1.0)(200)
    x = (on_the_path(prior.process, 0.02)) / 0.98
    result = samplers.log_likelihood(prior, x, grid)
    assert_allclose(result.latent, LATENT, atol=1e-4)
    assert_allclose(result.log_prob, normal_density(prior.process)(0.98 * x, 0.02), atol=1e-3)


def test_hutchinson_is_unbiased():
    """On the same grid its mean is the exact divergence's likelihood; the means are correlated, so it varies."""
    prior, grid = mixture(process.Flow(), *MIXTURE), linear(0.02, 1.0)(32)
    x = jnp.array([0.3, 0.3])
    exact = likelihood_error(prior, x, prior.denoise.log_prob, grid)[1].log_prob
    estimate = lambda k: samplers.log_likelihood(prior, x, grid, lambda z: prior.denoise.log_prob(z, 1.0), k).log_prob
    estimates = np.asarray(jax.jit(jax.vmap(estimate))(jax.random.split(KEY, 1000)))
    assert estimates.std() > 1e-3
    assert abs(estimates.mean() - exact) < 4.5 * estimates.std() / np.sqrt(1000)
