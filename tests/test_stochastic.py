"""Churn, predictor-corrector and annealed Langevin: the papers' algorithms by hand on the same draws, and laws."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from registries import PROCESSES
from test_samplers import KEY, LATENT, MEAN, VARIANCE, diagonal, linear, many, march

from diffinv import process, samplers, times
from diffinv.denoisers.exact import GaussianDenoiser, gaussian
from diffinv.loop import sample
from diffinv.prior import Prior


def normal(key, shape=(3,)):
    return np.asarray(jax.random.normal(key, shape))


def score(alpha, sigma, x):
    return -(x - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)


@pytest.mark.parametrize("name", ["vp", "edm", "flow"])
def test_without_churn_it_is_heun(name):
    prior, t = diagonal(PROCESSES[name]), times.grid(8)
    x = prior.process.sigma(1.0) * jnp.asarray(LATENT)
    expected = march(samplers.heun(prior), t, x)
    assert_array_equal(march(samplers.churn(prior, 8, s_churn=0.0), t, x), expected)
    assert_array_equal(march(samplers.churn(prior, 8, s_tmin=1e4, s_tmax=1e5), t, x), expected)


SETTINGS = [(4.0, 0.05, 50.0, 1.003), (100.0, 0.0, np.inf, 1.0), (2.0, 0.5, 10.0, 1.1)]


@pytest.mark.parametrize("settings", SETTINGS)
def test_churn_is_karras_algorithm_2(settings):
    """Within EDM's levels, where no noise is beyond the last: 60 of 80 raised by sqrt 2 would be."""
    churn, low, high, inflation = settings
    prior, t = diagonal(process.EDM()), times.karras(8, sigma_max=50.0) * (50 / 80)
    D = lambda x, sigma: MEAN + VARIANCE / (VARIANCE + sigma**2) * (x - MEAN)
    x, sigmas = 50.0 * LATENT, 80 * np.asarray(t)
    for i, (now, then) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        gamma = min(churn / 8, np.sqrt(2) - 1) if low <= now <= high else 0.0
        hat = (1 + gamma) * now
        x = x + np.sqrt(hat**2 - now**2) * inflation * normal(jax.random.fold_in(KEY, i + 1))
        d = (x - D(x, hat)) / hat
        euler = x + (then - hat) * d
        x = euler if then == 0 else x + (then - hat) * 0.5 * (d + (euler - D(euler, then)) / then)
    found = sample(KEY, samplers.churn(prior, 8, *settings), t, jnp.asarray(50.0 * LATENT)).x
    assert_allclose(found, x, rtol=1e-9)


def test_churn_is_one_method_in_every_chart():
    """VP's `x / alpha` is EDM's x at the same ratios, draw by draw."""
    vp, edm = process.VP(), process.EDM()
    ratios = jnp.array([20.0, 7.0, 2.0, 0.6, 0.1])
    ends, x = [], jnp.asarray(LATENT)
    for forward in (vp, edm):
        t = times.from_sigma(forward, ratios)
        sampler = samplers.churn(diagonal(forward), 4, 2.0, 0.05, 50.0)
        ends.append(sample(KEY, sampler, t, forward.alpha(t[0]) * 20 * x).x / forward.alpha(t[-1]))
    assert_allclose(*ends, rtol=1e-8)


def test_churn_does_not_leave_the_process():
    """At its last level there is nowhere to go up to."""
    prior, x = diagonal(process.VE()), 50 * jnp.asarray(LATENT)
    sampler = samplers.churn(prior, 1, s_churn=10.0, s_tmax=np.inf)
    assert_allclose(march(sampler, jnp.array([1.0, 0.5]), x), march(samplers.heun(prior), jnp.array([1.0, 0.5]), x))


def test_churn_has_the_law_of_the_data():
    """Mean and full covariance."""
    rng = np.random.default_rng(0)
    law = oracle.Law(rng.standard_normal(4), oracle.random_covariance(rng, 4))
    prior = gaussian(process.VP(), jnp.asarray(law.mean), jnp.asarray(law.covariance))
    method = lambda prior: samplers.churn(prior, 200, 20.0, 0.01, 10.0, 1.0)
    assert max(oracle.moment_errors(many(prior, method, times.grid(200, power=1.5)), law)) < 4.5


def corrected_law(forward, t, snr, corrections):
    """Mean and variance of the chain on `diagonal`, for so many coordinates that the two norms are their means."""
    alpha, sigma = np.asarray(forward.alpha(t)), np.asarray(forward.sigma(t))
    mean, variance = np.zeros(3), np.full(3, sigma[0] ** 2)
    for i in range(len(t) - 1):
        a = alpha[i] / alpha[i + 1]
        kappa, spread, at = sigma[i] ** 2 - a**2 * sigma[i + 1] ** 2, alpha[i] ** 2 * VARIANCE + sigma[i] ** 2, alpha[i]
        for _ in range(corrections):
            eps = 2 * (a * snr) ** 2 / np.mean((variance + (mean - at * MEAN) ** 2) / spread**2)
            mean, variance = mean - eps / spread * (mean - at * MEAN), (1 - eps / spread) ** 2 * variance + 2 * eps
        if t[i + 1] == 0:
            gain = at * VARIANCE / spread
            return MEAN + gain * (mean - at * MEAN), gain**2 * variance
        shift, slope = kappa / spread, 2 - a - kappa / spread
        mean, variance = slope * mean + shift * at * MEAN, slope**2 * variance + kappa


@pytest.mark.parametrize("corrections", [0, 2])
@pytest.mark.parametrize("name", ["vp", "ve"])
def test_predictor_corrector_has_the_law_of_its_chain(name, corrections):
    """On 3000 coordinates, of three kinds."""
    forward, t = PROCESSES[name], times.grid(8)
    tiled = [jnp.tile(jnp.asarray(value), (1000, 1)) for value in (MEAN, VARIANCE)]
    prior = Prior(forward, GaussianDenoiser(forward, *tiled), (1000, 3))
    x = many(prior, lambda prior: samplers.predictor_corrector(prior, 0.16, corrections), t, 16).reshape(-1, 3)
    mean, variance = corrected_law(forward, t, 0.16, corrections)
    assert max(oracle.moment_errors(x, oracle.Law(mean, np.diag(variance)))) < 4.5


@pytest.mark.parametrize("corrections", [0, 1, 2])
@pytest.mark.parametrize("name", ["ddpm", "ve"])
def test_predictor_corrector_is_songs(name, corrections):
    """Algorithms 5 (VP, by its betas) and 4 (VE, by its levels), on the same draws."""
    forward, t = PROCESSES[name], jnp.array([0.5, 0.499, 0.498, 0.0])
    alpha, sigma = np.asarray(forward.alpha(t)), np.asarray(forward.sigma(t))
    x = start = alpha[0] * MEAN + sigma[0] * LATENT
    for i in range(3):
        predict, *correct = jax.random.split(jax.random.fold_in(KEY, i + 1), corrections + 1)
        beta = 1 - alpha[i] ** 2 / alpha[i + 1] ** 2
        for k in correct:
            g, z = score(alpha[i], sigma[i], x), normal(k)
            eps = 2 * (1 - beta) * (0.16 * np.linalg.norm(z) / np.linalg.norm(g)) ** 2
            x = x + eps * g + np.sqrt(2 * eps) * z
        g, z = score(alpha[i], sigma[i], x), normal(predict)
        if i == 2:
            x = (x + sigma[i] ** 2 * g) / alpha[i]
        elif name == "ve":
            step = sigma[i] ** 2 - sigma[i + 1] ** 2
            x = x + step * g + np.sqrt(step) * z
        else:
            x = (2 - np.sqrt(1 - beta)) * x + beta * g + np.sqrt(beta) * z
    sampler = samplers.predictor_corrector(diagonal(forward), 0.16, corrections)
    assert_allclose(sample(KEY, sampler, t, jnp.asarray(start)).x, x, rtol=1e-8)


def test_annealed_langevin_is_song_algorithm_1():
    """`alpha_i = epsilon sigma_i^2 / sigma_L^2`, here with a last level of 0.1, then the denoised mean."""
    forward, sigmas = process.VE(), np.array([10.0, 3.0, 1.0, 0.3, 0.1])
    t = jnp.append(times.from_sigma(forward, jnp.asarray(sigmas)), 0.0)
    x = start = 10.0 * LATENT
    for i, sigma in enumerate(sigmas):
        size = 0.002 * sigma**2 / 0.1**2
        for k in jax.random.split(jax.random.fold_in(KEY, i + 1), 3):
            x = x + 0.5 * size * score(1.0, sigma, x) + np.sqrt(size) * normal(k)
    x = x + 0.1**2 * score(1.0, 0.1, x)
    sampler = samplers.annealed_langevin(diagonal(forward), 0.2, 3)
    assert_allclose(sample(KEY, sampler, t, jnp.asarray(start)).x, x, rtol=1e-9)


def langevin_law(forward, t, delta, steps):
    """The linear recursion of mean and variance on `diagonal`, started in `N(0, sigma^2)`."""
    mean, variance = np.zeros(3), np.full(3, float(forward.sigma(t[0])) ** 2)
    for now in np.asarray(t[:-1]):
        alpha, sigma = float(forward.alpha(now)), float(forward.sigma(now))
        shrink = 0.5 * delta * sigma**2 / (alpha**2 * VARIANCE + sigma**2)
        for _ in range(steps):
            mean, variance = mean - shrink * (mean - alpha * MEAN), (1 - shrink) ** 2 * variance + delta * sigma**2
    gain = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
    return oracle.Law(MEAN + gain * (mean - alpha * MEAN), np.diag(gain**2 * variance))


@pytest.mark.parametrize("name", ["vp", "flow", "ve"])
def test_annealed_langevin_has_the_law_of_its_chain(name):
    """On processes whose signal shrinks as well, which the paper's do not."""
    prior, t = diagonal(PROCESSES[name]), times.grid(8)
    x = many(prior, lambda prior: samplers.annealed_langevin(prior, 0.5, 4), t)
    assert max(oracle.moment_errors(x, langevin_law(prior.process, t, 0.5, 4))) < 4.5


@pytest.mark.parametrize(
    "sampler", [lambda p: samplers.churn(p, 5, 50.0), samplers.predictor_corrector, samplers.annealed_langevin]
)
def test_a_repeated_time_changes_nothing(sampler):
    prior, x = diagonal(process.VE()), jnp.asarray(LATENT)
    assert_array_equal(march(sampler(prior), jnp.array([0.4, 0.4]), x), x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: samplers.churn(p, 0), "steps is 0; give the number of steps"),
        (lambda p: samplers.predictor_corrector(p, corrections=-1), "corrections is -1; give a whole number from 0"),
        (lambda p: samplers.annealed_langevin(p, steps=0), "steps is 0; give the Langevin steps"),
    ],
)
def test_refusals(build, message):
    with pytest.raises(ValueError, match=message):
        build(diagonal(process.VP()))


def test_hyperparameters_may_be_swept():
    prior, t = diagonal(process.VP()), linear(1.0, 0.05)(5)
    for build, values in [
        (lambda v: samplers.churn(prior, 5, s_churn=v), jnp.array([0.0, 1.0, 9.0])),
        (lambda v: samplers.predictor_corrector(prior, v), jnp.array([0.0, 0.1])),
        (lambda v: samplers.annealed_langevin(prior, v), jnp.array([0.0, 0.1])),
    ]:
        run = lambda v, build=build: sample(KEY, build(v), t).x
        assert_allclose(jax.jit(jax.vmap(run))(values), jnp.stack([run(v) for v in values]), rtol=1e-9)
