"""Laws of noise: draws against their densities, gradients against differences, and what none of them gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import diffinv as di
from diffinv import noises, operators, posterior
from diffinv.posterior import rewards

KEY, COUNT = jax.random.key(0), 20_000
CLEAN = 0.3


def poisson_gaussian(y, clean, peak=12.0, read=0.8):
    k = np.arange(200)
    seen = np.atleast_1d(0.5 * peak * (y + 1))
    weights = stats.poisson.pmf(k, 0.5 * peak * (clean + 1))
    return np.sum(weights * stats.norm.pdf(seen[:, None], k, read), 1) * 0.5 * peak


CONTINUOUS = {
    "laplace": (noises.LaplaceNoise(0.2), lambda y, c: stats.laplace.pdf(y, c, 0.2)),
    "uniform": (noises.UniformNoise(0.4), lambda y, c: stats.uniform.pdf(y, c - 0.4, 0.8)),
    "gamma": (noises.GammaNoise(4.0), lambda y, c: stats.gamma.pdf(y + 1, 4.0, scale=(c + 1) / 4)),
    "poisson-gaussian": (noises.PoissonGaussianNoise(12.0, 0.8), poisson_gaussian),
    "rician": (noises.RicianNoise(0.5), lambda y, c: stats.rice.pdf(y + 1, (c + 1) / 0.5, scale=0.5)),
}
LOG_POISSON, SALT = noises.LogPoissonNoise(40.0, 0.5), noises.SaltAndPepperNoise(0.3, 0.1)
SMOOTH = {name: noise for name, (noise, _) in CONTINUOUS.items() if name != "uniform"}
SMOOTH |= {"log-poisson": LOG_POISSON, "salt and pepper": SALT}


def draws(noise):
    return np.asarray(noise.sample(KEY, jnp.full((COUNT,), CLEAN)))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_draws_have_the_density(name):
    """Frequencies in twenty bins, each within 4.5 of its deviations; the bins' shares by a fine sum."""
    noise, density = CONTINUOUS[name]
    y = draws(noise)
    edges = np.linspace(*np.quantile(y, [0.005, 0.995]), 21)
    found = np.histogram(y, edges)[0] / COUNT
    middles = (edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(200) + 0.5) / 200).ravel()
    share = density(middles, CLEAN).reshape(20, 200).mean(1) * np.diff(edges)
    assert np.all(np.abs(found - share) < 4.5 * np.sqrt(share / COUNT) + 2e-4)


def test_counts_of_transmission_have_their_frequencies():
    rate, k = 40 * np.exp(-0.5 * CLEAN), np.arange(20, 50)
    counts = np.rint(40 * np.exp(-0.5 * draws(LOG_POISSON)))
    found, share = (counts[:, None] == k).mean(0), stats.poisson.pmf(k, rate)
    assert np.all(np.abs(found - share) < 4.5 * np.sqrt(share / COUNT))


def test_what_is_lost_is_as_often_black_as_white():
    y = draws(SALT)
    for value in (-1, 1):
        assert abs((y == value).mean() - 0.15) < 4.5 * np.sqrt(0.15 * 0.85 / COUNT)
    kept = y[np.abs(y) != 1]
    assert abs(kept.mean() - CLEAN) < 4.5 * 0.1 / np.sqrt(len(kept))
    assert abs(kept.std() / 0.1 - 1) < 4.5 / np.sqrt(2 * len(kept))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_likelihoods_are_densities_up_to_a_constant(name):
    noise, density = CONTINUOUS[name]
    y, a, b = 0.35, 0.2, 0.5
    value = lambda clean: float(noise.log_likelihood(jnp.full((1,), y), jnp.full((1,), clean)))
    exact = np.log(density(y, a)) - np.log(density(y, b))
    np.testing.assert_allclose(value(a) - value(b), np.ravel(exact)[0], rtol=1e-9, atol=1e-12)


def test_likelihoods_of_counts_and_of_what_is_lost():
    y = -np.log(30 / 40) / 0.5
    exact = [stats.poisson.logpmf(30, 40 * np.exp(-0.5 * clean)) for clean in (0.2, 0.5)]
    found = [float(LOG_POISSON.log_likelihood(jnp.full((1,), y), jnp.full((1,), clean))) for clean in (0.2, 0.5)]
    np.testing.assert_allclose(found[0] - found[1], exact[0] - exact[1], rtol=1e-10)
    seen = SALT.log_likelihood(jnp.array([-1.0, 1.0, 0.4]), jnp.array([0.3, 0.2, 0.5]))
    np.testing.assert_allclose(seen, -0.5, rtol=1e-12)
    assert CONTINUOUS["uniform"][0].log_likelihood(jnp.array([0.9]), jnp.array([0.3])) == -jnp.inf


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_differences(name):
    noise = SMOOTH[name]
    clean = jnp.array([-0.4, 0.1, 0.6])
    y, way = noise.sample(KEY, clean), jnp.array([0.5, -1.0, 0.7])
    value = lambda clean: noise.log_likelihood(y, clean)
    difference = (value(clean + 1e-6 * way) - value(clean - 1e-6 * way)) / 2e-6
    np.testing.assert_allclose(jnp.vdot(jax.grad(value)(clean), way), difference, rtol=1e-6)


@pytest.mark.parametrize("name", ["laplace", "uniform", "poisson-gaussian"])
def test_sigma_is_the_deviation(name):
    noise = CONTINUOUS[name][0]
    y = np.asarray(noise.sample(KEY, jnp.zeros(COUNT)))
    assert abs(y.std() / float(noise.sigma) - 1) < 0.04


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", [*SMOOTH, "uniform"])
def test_precision_is_kept(name, dtype):
    noise = SMOOTH.get(name) or CONTINUOUS[name][0]
    clean = jnp.zeros((2, 3), dtype)
    y = noise.sample(KEY, clean)
    assert y.dtype == noise.log_likelihood(y, clean).dtype == dtype


def problem(noise, y):
    prior = di.gaussian(di.process.VP(), jnp.zeros(3), jnp.eye(3))
    return prior, di.Measurement(operators.identity((3,)), jnp.asarray(y), noise)


@pytest.mark.parametrize("name", ["gamma", "log-poisson", "salt and pepper"])
def test_a_law_without_a_deviation_is_refused_where_gaussian_noise_is_assumed(name):
    prior, m = problem(SMOOTH[name], [0.1, 0.2, 0.3])
    with pytest.raises(TypeError, match=f"noise {type(SMOOTH[name]).__name__} has no sigma"):
        posterior.diffpir(prior, m)
    solver = di.as_solver(lambda m: posterior.dps(prior, m, 0.01, rewards.likelihood), di.times.grid(5))
    assert jnp.isfinite(solver(KEY, m).x).all()


@pytest.mark.parametrize("noise", [noises.GammaNoise(4.0), noises.RicianNoise(0.2), di.PoissonNoise(10.0)])
def test_negative_counts_are_refused(noise):
    prior, m = problem(noise, [0.1, -1.5, 0.3])
    with pytest.raises(ValueError, match=rf"dps: y has 1 values below -1, which {type(noise).__name__} never gives"):
        posterior.dps(prior, m)
    run = jax.jit(lambda m: di.as_solver(lambda m: posterior.dps(prior, m), di.times.grid(3))(KEY, m).x)
    assert jnp.isnan(run(m)).all()
    start = lambda m: jax.jit(lambda x: posterior.dps(prior, m).init(KEY, 1.0, x))
    known, fine = start(m), start(m.replace(y=abs(m.y)))
    with pytest.raises(ValueError, match="y has 1 values below -1"):  # a y that jit was not given is known to it
        known(jnp.zeros(3))
    assert jnp.isfinite(fine(jnp.zeros(3))).all()


@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_measured_is_what_its_law_may_give(compiled):
    """Noise is projected onto the range of a blur that loses frequencies, and counts stay counts."""
    blur = di.operators.gaussian_blur((16, 16, 1), 7, 2.0, threshold=0.1)
    noise = di.PoissonNoise(4.0)
    take = lambda key: di.measure(key, blur, jnp.full((16, 16, 1), -0.97), noise=noise).y
    y = (jax.jit(take) if compiled else take)(jax.random.key(0))
    plain = noise.sample(jax.random.key(0), blur(jnp.full((16, 16, 1), -0.97)))
    assert (blur.project(plain) < -1.01).any(), "the projection alone leaves the law"
    assert np.isfinite(y).all() and noise.support(y).all()
