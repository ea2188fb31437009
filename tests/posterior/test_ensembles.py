"""Ensemble Kalman methods: EnKG's update is a preconditioned gradient, EKI has the Gaussian posterior's law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from oracle import gaussian_posterior, moment_errors

import diffinv as di
from diffinv import operators, posterior, times
from diffinv.posterior.ensembles import Ensemble, _decoder
from posterior.published import COVARIANCE, DIM, MATRIX, MEAN, PROCESS, SIGMA, Y, assert_close, at, levels, problem

KEY = jax.random.key(1)
CLOUD = np.random.default_rng(2).standard_normal((9, DIM))


@pytest.mark.parametrize("updates", [1, 2])
def test_enkg_descends_along_its_covariance_and_then_follows_the_ode(updates):
    """With one ODE step x0 is the denoised mean, affine in x: statistics of the particles are exact derivatives."""
    prior, m = problem()
    sampler = posterior.enkg(prior, m, scale=0.7, particles=9, updates=updates, ode_steps=1)
    found, info = sampler.step(KEY, jnp.asarray(CLOUD), jnp.asarray(0.6), jnp.asarray(0.45))
    x, slope = CLOUD, at(0.6).J.T @ MATRIX.T
    for _ in range(updates):
        residuals = Y - np.stack([at(0.6, each).x0 for each in x]) @ MATRIX.T
        apart = x - x.mean(0)
        D = residuals @ (apart @ slope).T / len(x)
        covariance = apart.T @ apart / len(x)
        x = x + 0.7 / np.linalg.norm(D) * residuals @ slope.T @ covariance
    a_s, sigma_s = levels(0.45)
    assert_close(found, np.stack([a_s * now.x0 + sigma_s * now.eps for now in (at(0.6, each) for each in x)]))
    assert_close(info.residual, np.mean(np.linalg.norm(residuals, axis=1)))


def test_enkgs_bias_is_to_fit_the_noise_and_to_lose_its_spread():
    """Of a y that the prior gave: nearer to it than its noise, at a tenth of the posterior's deviation, or less."""
    prior, m = problem()
    rng = np.random.default_rng(0)
    y = MATRIX @ rng.multivariate_normal(MEAN, COVARIANCE) + SIGMA * rng.standard_normal(len(Y))
    sampler = di.record(posterior.enkg(prior, m.replace(y=jnp.asarray(y)), scale=1.0, particles=40, updates=1))
    run = jax.jit(lambda key: di.sample(key, sampler, times.grid(30, power=2.0)), compiler_options=FAST)
    x = np.asarray(run(KEY).info.state[-1])
    seen = MATRIX[:1] / np.linalg.norm(MATRIX[0])
    exact = gaussian_posterior(MEAN, COVARIANCE, MATRIX, y, SIGMA).covariance
    assert np.linalg.norm(y - MATRIX @ x.mean(0)) < 0.5 * SIGMA * np.sqrt(len(Y))
    assert np.std(x @ seen.T) < 0.1 * np.sqrt((seen @ exact @ seen.T).item())


GRID = jnp.asarray([1.0, 0.7, 0.65, 0.0])


def inverted(codes, particles, key=KEY, ode_steps=16, start=None):
    """All particles in the end, decoded."""
    prior, m = problem()
    sampler = posterior.eki(prior, m, particles, ode_steps, codes)

    def run(key):
        keys = jax.random.split(key, len(GRID))
        state = sampler.init(keys[0], GRID[0], start)
        for i in range(1, len(GRID)):
            state, _ = sampler.step(keys[i], state, GRID[i - 1], GRID[i])
        return _decoder(prior, ode_steps)(state.codes, state.start) if codes else state.codes

    return jax.jit(run, compiler_options=FAST)


@pytest.mark.parametrize("codes", [True, False])
def test_eki_has_the_posteriors_law_on_an_uneven_grid(codes):
    """The law that 16 Euler steps decode to is the prior's but for a few per cent, which the posterior is made of."""
    prior, _ = problem()
    b, M = (np.asarray(part) for part in decoded_law(prior))
    law = gaussian_posterior(b, M @ M.T, MATRIX, Y, SIGMA)
    mean_error, covariance_error = moment_errors(np.asarray(inverted(codes, 800)(KEY)), law)
    assert mean_error < 4 and covariance_error < 4.5


def decoded_law(prior, ode_steps=16):
    """(b, M) of the affine decoder `z -> M z + b` of codes z ~ N(0, I) (alpha(1) is all but 0)."""
    ends = _decoder(prior, ode_steps)(jnp.asarray(np.concatenate([np.zeros((1, DIM)), np.eye(DIM)])), 1.0)
    return ends[0], (ends[1:] - ends[:1]).T * levels(1.0)[1]


def test_eki_of_few_particles_has_too_little_variance():
    few = np.asarray(jax.vmap(inverted(False, 8, ode_steps=4))(jax.random.split(KEY, 100)))
    law = gaussian_posterior(MEAN, COVARIANCE, MATRIX, Y, SIGMA)
    assert np.mean([np.trace(np.cov(x.T)) for x in few]) < 0.85 * np.trace(law.covariance)


def test_eki_of_a_complex_measurement_is_that_of_its_two_parts():
    prior, m = problem()
    rows = MATRIX + 1j * MATRIX[::-1]
    y = Y + 2j * Y[::-1]
    parts = [(rows, y), (np.concatenate([rows.real, rows.imag]), np.concatenate([y.real, y.imag]))]
    cloud, found = jnp.asarray(CLOUD), []
    for A, y in parts:
        m = m.replace(operator=operators.dense(jnp.asarray(A)), y=jnp.asarray(y))
        sampler = posterior.eki(prior, m, len(CLOUD), codes=False)
        found.append(sampler.step(KEY, Ensemble(cloud, jnp.asarray(1.0)), jnp.asarray(1.0), jnp.asarray(0.4)))
    assert_close(found[0][0].codes, found[1][0].codes)
    assert_close(found[0][1].residual, found[1][1].residual)


def test_a_given_start_is_spread_before_it_is_moved():
    """Copies of one start would have no differences to move along."""
    prior, m = problem()
    start = jnp.full(DIM, 0.3)
    for sampler in (posterior.enkg(prior, m, particles=400), posterior.eki(prior, m, particles=400)):
        state = sampler.init(KEY, jnp.asarray(0.4), start)
        cloud = np.asarray(state.codes if isinstance(state, Ensemble) else state)
        alpha, sigma = levels(0.4)
        np.testing.assert_allclose(cloud.mean(0), alpha * at(0.4, np.full(DIM, 0.3)).x0, atol=4 * sigma / 20)
        np.testing.assert_allclose(cloud.std(0), sigma, rtol=0.2)


def test_what_does_not_fit_is_named():
    prior, m = problem()
    for method in (posterior.enkg, posterior.eki):
        with pytest.raises(ValueError, match="particles is 1; it must be a whole number, at least 2"):
            method(prior, m, particles=1)
        with pytest.raises(ValueError, match="ode_steps is 0"):
            method(prior, m, ode_steps=0)
    with pytest.raises(ValueError, match="iterations is 0"):
        posterior.eki(prior, m, iterations=0)
    with pytest.raises(ValueError, match="updates is 0"):
        posterior.enkg(prior, m, updates=0)
    with pytest.raises(TypeError, match="codes is 'x'; give True or False"):
        posterior.eki(prior, m, codes="x")
    with pytest.raises(ValueError, match="eki: sigma_y is 0.0, and it divides by it; give one above 0, or use enkg"):
        posterior.eki(prior, m.replace(noise=di.GaussianNoise(0.0)))
    assert PROCESS == prior.process
