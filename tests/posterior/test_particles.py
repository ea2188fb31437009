"""Particle methods: consistent for the chain they say they sample, on Gaussians by closed form; weights and info.

Everything is affine, so the chain's own law of x_0 is Gaussian, and so is its posterior: NumPy computes both.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import gaussian_posterior

import diffinv as di
from diffinv import operators, posterior, sharding, times
from diffinv.posterior.core import resampling
from diffinv.posterior.core.clouds import Particles
from posterior.published import (
    COVARIANCE,
    DIM,
    MATRIX,
    MEAN,
    PROCESS,
    SIGMA,
    VH,
    S,
    U,
    X,
    Y,
    assert_close,
    at,
    levels,
    normal,
    problem,
    step,
)

pytestmark = pytest.mark.long

KEY, STEPS, RUNS, SIZE = jax.random.key(2), 10, 24, 1000
GRID = times.grid(STEPS, power=2.0)


def chain_law(kernel, grid=GRID):
    """The law of x_0 under `x_s ~ N(F x_t + b, C)`, from N(0, sigma_1^2)."""
    mean, covariance = np.zeros(DIM), levels(1.0)[1] ** 2 * np.eye(DIM)
    for t, s in zip(np.asarray(grid[:-1]), np.asarray(grid[1:])):
        F, b, C = kernel(float(t), float(s))
        mean, covariance = F @ mean + b, F @ covariance @ F.T + C
    return mean, covariance


def ancestral_kernel(t, s):
    """`q(x_s | x_t, x0(x_t))`: affine, by two probes of NumPy's own step."""
    (a, sigma), (a_s, sigma_s) = levels(t), levels(s)
    c2 = sigma_s**2 * (1 - (a / a_s * sigma_s / sigma) ** 2)
    keep = np.sqrt(sigma_s**2 - c2) / sigma
    run = lambda x: a_s * at(t, x).x0 + keep * (x - a * at(t, x).x0)
    b = run(np.zeros(DIM))
    return np.stack([run(e) - b for e in np.eye(DIM)], 1), b, c2 * np.eye(DIM)


def ddsmc_kernel(eta):
    """`N(x_s; a_s x0, sigma_s^2) N(x_t; (a / a_s) x_s, ..)^eta`, normalised, about the denoised mean."""

    def kernel(t, s):
        (a, sigma), (a_s, sigma_s) = levels(t), levels(s)
        if s == 0:
            return *affine(lambda x: at(t, x).x0), sigma**2 / (sigma**2 + a**2) * np.eye(DIM)
        step = sigma**2 - (a / a_s * sigma_s) ** 2
        precision = 1 / sigma_s**2 + eta * (a / a_s) ** 2 / step
        run = lambda x: (a_s * at(t, x).x0 / sigma_s**2 + eta * a / a_s * x / step) / precision
        return *affine(run), np.eye(DIM) / precision

    return kernel


def affine(run):
    """The matrix and the offset of an affine map."""
    b = run(np.zeros(DIM))
    return np.stack([run(e) - b for e in np.eye(DIM)], 1), b


METHODS = {
    "tds": (lambda prior, m: posterior.tds(prior, m, SIZE), ancestral_kernel),
    "tds sharp": (lambda prior, m: posterior.tds(prior, m, SIZE, threshold=1.0, spread=0.3), ancestral_kernel),
    "ddsmc": (lambda prior, m: posterior.ddsmc(prior, m, SIZE), ddsmc_kernel(0.5)),
    "ddsmc ancestral": (lambda prior, m: posterior.ddsmc(prior, m, SIZE, eta=1.0, threshold=0.5), ancestral_kernel),
    "ddsmc fresh": (lambda prior, m: posterior.ddsmc(prior, m, SIZE, eta=0.0), ddsmc_kernel(0.0)),
}


def cloud(sampler):
    """The sampler, returning all its particles with the weights that `final` draws by."""
    return sampler._replace(final=lambda key, state: state)


def weighted_moments(m, state):
    """The self-normalised mean and second moment, with what the weights still owe paid."""
    log_weights = state.log_weights + jax.vmap(m.log_likelihood)(state.x).astype(jnp.float32)
    w = jnp.exp(resampling.normalised(log_weights)).astype(state.x.dtype)
    mean = w @ state.x
    return jnp.concatenate([mean, ((state.x * w[:, None]).T @ state.x).ravel()])


QUICK = ("tds", "ddsmc ancestral")


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in METHODS])
def test_the_particles_have_the_posterior_of_their_chain(name):
    """Mean and second moments over independent runs, within five standard errors of the closed form."""
    prior, m = problem()
    build, kernel = METHODS[name]
    run = lambda k: di.sample(k, cloud(build(prior, m)), GRID).x
    moments = np.asarray(jax.jit(jax.vmap(lambda k: weighted_moments(m, run(k))))(jax.random.split(KEY, RUNS)))
    law = gaussian_posterior(*chain_law(kernel), MATRIX, Y, SIGMA)
    exact = np.concatenate([law.mean, (law.covariance + np.outer(law.mean, law.mean)).ravel()])
    error = np.abs(moments.mean(0) - exact) / (moments.std(0, ddof=1) / np.sqrt(RUNS))
    assert error.max() < 5
    prior_law = gaussian_posterior(MEAN, COVARIANCE, MATRIX, Y, 10.0)
    assert np.abs(moments.mean(0)[:DIM] - prior_law.mean).max() > 0.3


def test_ddsmc_keeps_what_its_authors_code_keeps():
    """From noise 1 to 0.95 at eta 0.5 an unseen coordinate keeps 0.822 of x_t and 0.178 of x0, with variance 0.160;
    on a fine grid that of N(0, 1) ends at `1 / (2 - eta)`, which is right for eta = 1 alone.
    """
    prior = di.gaussian(di.process.EDM(), jnp.zeros(2), jnp.eye(2))
    m = di.Measurement(operators.dense(jnp.asarray([[1.0, 0.0]])), jnp.zeros(1), di.GaussianNoise(0.5))
    weight, noise = jnp.zeros(1, jnp.float32), jax.random.normal(jax.random.split(KEY)[1], (1, 2))[0, 1]

    def law(t, s, eta):
        sampler = posterior.ddsmc(prior, m, 1, eta)
        end = lambda x: sampler.step(KEY, Particles(jnp.asarray([[0.0, x]]), weight), t, s)[0].x[0, 1]
        return end(1.0) - end(0.0), end(0.0) / noise

    grid = np.append(np.geomspace(80.0, 1e-3, 1500), 0) / 80
    t, s = np.append(1 / 80, grid[:-1]), np.append(0.95 / 80, grid[1:])
    slopes, stds = jax.jit(jax.vmap(jax.vmap(law, (0, 0, None)), (None, None, 0)))(t, s, jnp.asarray([0.5, 1.0]))
    assert_close(slopes[0, 0], 0.95**2 / 2 / (0.95**2 / 2 + 0.0975) * 0.5 + 0.5)
    assert float(slopes[0, 0]) == pytest.approx(0.8223 + 0.1777 / 2, abs=1e-4)
    assert float(stds[0, 0] ** 2) == pytest.approx(0.1604, abs=1e-4)
    variance = 80.0**2 * np.ones(2)
    for slope, std in zip(np.asarray(slopes).T[1:], np.asarray(stds).T[1:], strict=True):
        variance = slope**2 * variance + std**2
    np.testing.assert_allclose(variance, [1 / 1.5, 1], rtol=0.02)


def singular(sigma):
    return np.append(S, [0, 0]), np.append(U.T @ Y / S, [0, 0]), np.append(sigma / S, [0, 0])


def aligned(code):
    """A code of the library's basis in NumPy's V."""
    _, m = problem()
    V = np.stack([np.asarray(m.operator.spectrum().synthesise(jnp.asarray(e))) for e in np.eye(DIM)], 1)
    return code @ (VH @ V).T


def pick(key, log_weights):
    w = np.exp(log_weights - log_weights.max())
    points = (np.arange(len(w)) + float(jax.random.uniform(key, (), jnp.float32))) / len(w)
    return np.minimum(np.searchsorted(np.cumsum(w / w.sum()), points, side="right"), len(w) - 1)


@pytest.mark.parametrize(("t", "s"), [(0.5, 0.45), (0.3, 0.2), (0.3, 0.14), (0.05, 0.02)])
def test_mcgdiff_is_the_published_step(t, s):
    """Weights, resampling and proposal by NumPy; a coordinate snaps to s where its tau is nearer to s than to t."""
    prior, m = problem()
    x = np.stack([X, X + 0.3, X - 0.5, 0.5 * X])
    sampler = posterior.mcgdiff(prior, m, 4, 0.01, 0.6)
    state, info = step(sampler, KEY, t, s, Particles(jnp.asarray(x), jnp.full(4, -np.log(4), jnp.float32)), True)
    (a, sigma), (a_s, sigma_s), (values, y_bar, width) = levels(t), levels(s), singular(SIGMA)
    c = 0.6 * sigma_s / sigma * np.sqrt(1 - a**2 / a_s**2) if s else 0.0
    means = np.stack([a_s * at(t, p).x0 + np.sqrt(sigma_s**2 - c**2) * at(t, p).eps for p in x]) @ VH.T
    tau = [np.abs(SIGMA**2 * al**2 - (1 - al**2) * values**2) for al in (a, a_s)]
    live = (values > 0) & ((sigma_s / a_s >= width) | ((sigma / a > width) & (tau[1] < tau[0])))
    var = lambda al: np.maximum(1 - al**2 * (1 + width**2), 0) + 0.01 * al**2 * (1 + width**2)
    log_w = np.zeros(4)
    for i in np.flatnonzero(live):
        log_w += -0.5 * (a_s * y_bar[i] - means[:, i]) ** 2 / (c**2 + var(a_s)[i])
        log_w -= -0.5 * ((x @ VH.T)[:, i] - a * y_bar[i]) ** 2 / var(a)[i]
    choose, noise = jax.random.split(KEY)
    means = means[pick(choose, log_w)]
    gain = np.where(live, c**2 / (c**2 + var(a_s)), 0)
    std = np.where(live, np.sqrt(gain * var(a_s)), c)
    expected = (means + gain * (a_s * y_bar - means) + std * aligned(normal(noise, 4, DIM))) @ VH
    np.testing.assert_allclose(state.x, expected, rtol=1e-6, atol=1e-8)
    w = np.exp(log_w - log_w.max())
    assert float(info.effective_size) == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-4)
    assert live.sum() == {0.45: 3, 0.2: 2, 0.14: 2, 0.02: 1}[s]


@pytest.mark.slow
def test_mcgdiff_reaches_the_posterior_of_one_noiseless_coordinate():
    """`x_1` seen exactly: the other follows its regression, in mean and variance, up to the grid's and kappa's bias."""
    prior = di.gaussian(PROCESS, jnp.zeros(2), jnp.asarray([[1.0, 0.8], [0.8, 1.0]]))
    m = di.Measurement(operators.dense(jnp.asarray([[1.0, 0.0]])), jnp.asarray([1.5]), di.GaussianNoise(0.0))
    sampler = posterior.mcgdiff(prior, m, 400, 1e-4)
    run = lambda k: di.sample(k, cloud(sampler), times.grid(80, power=2.0)).x.x
    x = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(KEY, 16))).reshape(-1, 2)
    assert abs(x[:, 0].mean() - 1.5) < 0.02 and x[:, 0].std() < 0.05
    assert abs(x[:, 1].mean() - 1.2) < 0.06
    assert abs(x[:, 1].var() - 0.36) < 0.06


def test_fps_is_the_published_step():
    prior, m = problem()
    x, c, (t, s) = np.stack([X, X + 0.3, X - 0.5]), 0.8, (0.5, 0.4)
    (a, sigma), (a_s, sigma_s) = levels(t), levels(s)
    values = np.append(S, [0, 0])
    y_key, choose, noise = jax.random.split(KEY, 3)
    y_t = np.array([0.3, -0.4, 0.2])
    rotate = np.stack([np.asarray(m.operator.spectrum().observe(jnp.asarray(u))) for u in U.T[:3]])  # signs of our U
    state = posterior.particles.FilteringState(
        Particles(jnp.asarray(x), jnp.full(3, -np.log(3), jnp.float32)), jnp.asarray(rotate.T @ (U.T @ y_t))
    )
    new, _ = step(posterior.fps(prior, m, 3, c), KEY, t, s, state, True)
    white = aligned(normal(y_key, DIM))
    y_s = a_s * Y + np.sqrt(1 - c) * sigma_s / sigma * (y_t - a * Y)
    y_s = y_s + np.sqrt(c) * sigma_s * MATRIX @ VH.T @ white
    means = np.stack([a_s * at(t, p).x0 + np.sqrt(1 - c) * sigma_s * at(t, p).eps for p in x])
    C = c * sigma_s**2
    S_y = C * MATRIX @ MATRIX.T + (a_s * SIGMA) ** 2 * np.eye(3)
    gaps = y_s - means @ MATRIX.T
    log_w = -0.5 * np.einsum("ni,ij,nj->n", gaps, np.linalg.inv(S_y), gaps)
    index = pick(choose, log_w)
    gain = C * MATRIX.T @ np.linalg.inv(S_y)
    std = np.sqrt(C - C**2 * values**2 / (C * values**2 + (a_s * SIGMA) ** 2))
    moved = (means + gaps @ gain.T)[index] + (std * aligned(normal(noise, 3, DIM))) @ VH
    np.testing.assert_allclose(new.particles.x, moved, rtol=1e-6, atol=1e-8)
    assert_close(rotate @ np.asarray(new.y), U.T @ y_s)


def test_weights_are_float32_and_the_effective_size_is_told():
    prior, m = problem()
    for method in (posterior.tds, posterior.ddsmc, posterior.mcgdiff, posterior.fps):
        sampler = method(prior, m, 8)
        state = jax.eval_shape(sampler.init, KEY, 1.0, None)
        state, info = jax.eval_shape(sampler.step, KEY, state, 1.0, 0.5)
        weights = {leaf.dtype for leaf in jax.tree.leaves(state) if leaf.shape == (8,)}
        assert weights == {jnp.dtype("float32")} and info.effective_size.shape == ()
        assert jax.eval_shape(sampler.final, KEY, state).shape == (DIM,)


def test_a_given_start_is_where_every_particle_starts():
    prior, m = problem()
    state = posterior.tds(prior, m, 3).init(KEY, 0.5, jnp.asarray(X))
    np.testing.assert_array_equal(state.x, np.stack([X] * 3))


def test_particles_that_all_die_are_flagged():
    """A measurement so far off that a weight overflows: the guard freezes the sample and says when."""
    prior, m = problem()
    far = m.replace(y=m.y * 1e200)
    solver = di.as_solver(lambda m: di.guard(posterior.tds(prior, m, 4)), times.grid(4))
    solution = jax.jit(solver)(KEY, far)
    assert not solution.info.alive.all() and jnp.isfinite(solution.x).all()
    assert int(di.first_bad_step(solution.info.alive)) >= 0


def test_particles_spread_over_devices_are_those_of_one():
    """A step of 16 particles, two on each of eight devices, resampled across them."""
    prior, m = problem()
    sampler = posterior.tds(prior, m, 16, threshold=1.0)
    state = sampler.init(KEY, 1.0, None)
    run = jax.jit(lambda state: sampler.step(KEY, state, 0.8, 0.6))
    split = jax.device_put(state, sharding.split(sharding.mesh()))
    assert len(split.x.sharding.device_set) == 8
    for one, other in zip(jax.tree.leaves(run(state)), jax.tree.leaves(run(split)), strict=True):
        within = 2e-6 if one.dtype == jnp.float32 else 1e-6 if one.ndim == 0 else 1e-9
        np.testing.assert_allclose(one, other, rtol=within, atol=within)
