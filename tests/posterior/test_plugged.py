"""Plug-and-play ADMM and RED: fixed points in closed form under Gaussian priors, and the algorithms by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import gaussian_posterior, random_covariance

import diffinv as di
from diffinv import operators, posterior, times
from diffinv.posterior import proximal

KEY, DIM, SIGMA = jax.random.key(0), 6, 0.4
PROCESSES = {"VP": di.process.VP(), "EDM": di.process.EDM(), "Flow": di.process.Flow()}


def problem(process):
    """A Gaussian prior, three orthonormal rows, a measurement; mean, covariance, matrix and y for the oracle."""
    rng = np.random.default_rng(5)
    m, C = rng.standard_normal(DIM), random_covariance(rng, DIM)
    A = np.linalg.qr(rng.standard_normal((DIM, 3)))[0].T
    prior = di.gaussian(process, jnp.asarray(m), jnp.asarray(C))
    measurement = di.measure(KEY, operators.dense(jnp.asarray(A)), prior.denoise.sample(KEY), SIGMA)
    return prior, measurement, (m, C, A, np.asarray(measurement.y))


def solved(method, prior, measurement, steps, x=None, start=1.0, **options):
    solver = di.as_solver(lambda m: method(prior, m, **options), times.grid(steps, start))
    return jax.jit(solver)(KEY, measurement, x)


@pytest.mark.parametrize("prox", [proximal.closed, proximal.gradient])
@pytest.mark.parametrize(("level", "lam"), [(0.3, 1.0), (1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("process", PROCESSES)
def test_the_fixed_point_of_pnp_admm_is_a_posterior_mean(process, level, lam, prox):
    """At every level, of a prior with lam times the precision: `A^T (A x - y) / sigma^2 + lam C^-1 (x - m) = 0`.

    A step of descent in the place of the minimiser has the same fixed point: there the minimiser stands still.
    """
    prior, measurement, (m, C, A, y) = problem(PROCESSES[process])
    exact = gaussian_posterior(m, C / lam, A, y, SIGMA).mean
    found = solved(posterior.pnp_admm, prior, measurement, 4000, level=level, lam=lam, prox=prox).x
    np.testing.assert_allclose(found, exact, atol=1e-6)


@pytest.mark.parametrize(("level", "lam"), [(0.3, 1.0), (1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("process", PROCESSES)
def test_the_fixed_point_of_red_is_that_of_the_noisy_prior(process, level, lam):
    """The posterior mean, and mode, of `N(m, (C + level^2 I) / lam)`."""
    prior, measurement, (m, C, A, y) = problem(PROCESSES[process])
    exact = gaussian_posterior(m, (C + level**2 * np.eye(DIM)) / lam, A, y, SIGMA).mean
    for prox in (proximal.closed, proximal.gradient):
        found = solved(posterior.red, prior, measurement, 4000, level=level, lam=lam, prox=prox).x
        np.testing.assert_allclose(found, exact, atol=1e-6)


@pytest.mark.parametrize("method", ["pnp_admm", "red"])
def test_three_steps_by_hand(method):
    prior, measurement, (m, C, A, y) = problem(di.process.VP())
    level, lam = 0.5, 1.3
    D = lambda z: m + C @ np.linalg.solve(C + level**2 * np.eye(DIM), z - m)
    rho = lam * SIGMA**2 / level**2
    prox = lambda z: np.linalg.solve(A.T @ A + rho * np.eye(DIM), A.T @ y + rho * z)
    x = v = u = np.zeros(DIM)
    for _ in range(3):
        if method == "red":
            x = v = prox(D(x))
        else:
            x = prox(v - u)
            v = D(x + u)
            u = u + x - v
    found = solved(getattr(posterior, method), prior, measurement, 3, level=level, lam=lam)
    np.testing.assert_allclose(found.x, v, rtol=1e-9)
    np.testing.assert_allclose(found.info.residual[-1], np.linalg.norm(y - A @ v), rtol=1e-9)
    assert found.info.cost.nfe.tolist() == [1, 1, 1]


@pytest.mark.parametrize("method", [posterior.pnp_admm, posterior.red])
def test_a_start_is_where_it_begins_and_changes_nothing_in_the_end(method):
    prior, measurement, _ = problem(di.process.VP())
    starts = (None, 3 * jax.random.normal(KEY, (DIM,)))
    once = [solved(method, prior, measurement, 1, x, 0.3, level=0.5).x for x in starts]
    assert np.abs(once[0] - once[1]).max() > 0.1
    ends = [solved(method, prior, measurement, 3000, x, 0.3, level=0.5).x for x in starts]
    np.testing.assert_allclose(*ends, atol=1e-6)


@pytest.mark.parametrize(("method", "width"), [("pnp_admm", 0.01), ("red", 0.01 + 0.09)])
def test_of_two_far_modes_it_stays_with_one(method, width):
    """There both are what they are of that mode alone, RED with the level's noise on it."""
    means, y = np.array([[1.0, 1.0], [-1.0, -1.0]]), np.array([0.4, 0.3])
    prior = di.mixture(di.process.EDM(), jnp.asarray(means), jnp.ones(2), jnp.array([0.01, 0.01]))
    measurement = di.Measurement(operators.identity((2,)), jnp.asarray(y), di.GaussianNoise(0.5))
    found = solved(getattr(posterior, method), prior, measurement, 2000, level=0.3).x
    np.testing.assert_allclose(found, (y / 0.25 + means[0] / width) / (1 / 0.25 + 1 / width), atol=1e-4)


@pytest.mark.parametrize("method", ["pnp_admm", "red"])
def test_refusals(method):
    prior, measurement, _ = problem(di.process.VP())
    with pytest.raises(TypeError, match="prox is 'closed'; give a value, not a name: posterior.proximal.closed"):
        getattr(posterior, method)(prior, measurement, prox="closed")
    blurring = di.process.Blurring(di.process.dct_frequencies(3, 3))
    field = di.gaussian_field(di.process.VP(), jnp.zeros((3, 3, 1)), jnp.ones((3, 3, 1)))
    spectral = di.Prior(blurring, di.denoisers.GaussianDenoiser(blurring, jnp.zeros(1), jnp.ones(1)), field.shape)
    m = di.measure(KEY, operators.identity((3, 3, 1)), jnp.zeros((3, 3, 1)), 0.1)
    with pytest.raises(ValueError, match=f"{method} needs an isotropic one"):
        getattr(posterior, method)(spectral, m)
