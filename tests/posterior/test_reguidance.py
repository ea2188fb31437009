"""ReGuidance: the identity at rho = 0, closed forms on Gaussians and mixtures, and that it wraps everything."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from oracle import random_covariance, slope
from scipy.integrate import quad, solve_ivp

import diffinv as di
from diffinv import operators, posterior, samplers, times
from diffinv.posterior import rewards
from diffinv.posterior.core.guided import linearise
from posterior.methods import CORE, METHODS, MORE, SOLVERS


def ornstein_uhlenbeck(horizon):
    """`alpha = e^{-T t}`, `sigma^2 = 1 - alpha^2`: the clock of the papers' theory, up to the horizon T."""
    return di.process.VP(2 * horizon, 2 * horizon)


def given(x):
    """A solver that proposes x, whatever the measurement."""
    return lambda key, measurement, start=None: di.Solution(x, None)


def refine(prior, grid, rho, reward=rewards.square, sampler=samplers.heun):
    return di.as_solver(lambda m: sampler(posterior.dps_score(prior, m, rho, reward)), grid)


def observe_first(y, size):
    row = jnp.zeros((1, size)).at[0, 0].set(1.0)
    return di.Measurement(operators.dense(row), jnp.asarray([y]), di.GaussianNoise(0.1))


@pytest.mark.parametrize(("integrator", "order"), [(samplers.euler, 1), (samplers.heun, 2)])
def test_without_guidance_the_candidate_comes_back_at_the_integrators_order(integrator, order):
    """rho = 0. Heun's error is even in the step but for its ends, so that the round trip is between order 2 and 3.

    The first inversion time sets a floor of `sigma^2 / 2 C` (1e-6 here), under which nothing falls.
    """
    rng, process = np.random.default_rng(0), di.process.Flow()
    prior = di.gaussian(process, jnp.asarray(rng.standard_normal(4)), jnp.asarray(random_covariance(rng, 4)))
    candidate, measurement = jnp.asarray([2.0, -1.0, 0.5, 1.5]), observe_first(5.0, 4)
    counts, errors = (16, 64), []
    for steps in counts:
        grid = times.grid(steps)
        solver = posterior.reguidance(
            given(candidate), refine(prior, grid, 0.0, sampler=integrator), prior, grid, integrator=integrator
        )
        errors.append(float(jnp.abs(jax.jit(solver)(jax.random.key(0), measurement).x - candidate).max()))
    assert order - 0.3 < slope(counts, errors) < order + (0.3 if order == 1 else 1.3)


def test_the_first_inversion_time_sets_the_floor_without_guidance():
    """With a fine grid the error of rho = 0 is `x (1 - ...) ~ sigma_1^2 / (2 C)` of the first time alone."""
    process = di.process.Flow()
    prior = di.Prior(process, di.denoisers.GaussianDenoiser(process, jnp.zeros(1), jnp.asarray([0.25])), (1,))
    grid = times.grid(2000, power=3.0)
    errors = []
    for first in (0.02, 0.04):
        inversion = jnp.concatenate([jnp.asarray([first]), grid[::-1][grid[::-1] > first]])
        solver = posterior.reguidance(given(jnp.ones(1)), refine(prior, grid, 0.0), prior, grid, inversion)
        error = float(1 - jax.jit(solver)(jax.random.key(0), observe_first(5.0, 1)).x[0])
        alpha, variance = 1 - first, (1 - first) ** 2 * 0.25 + first**2
        assert error == pytest.approx(1 - alpha * np.sqrt(0.25 / variance), rel=1e-3)
        errors.append(error)
    assert errors[1] / errors[0] == pytest.approx(4, rel=0.1)


HORIZONS, RHOS = (0.25, 1.0, 3.0, 6.0), (0.0, 0.5, 2.0, 10.0, 40.0)
MEAN, STD, Y, CANDIDATE = 1.0, 0.5, 2.0, 0.3
TABLE = [
    [0.300000, 0.472842, 0.901483, 1.887166, 2.058471],
    [0.300000, 0.566630, 1.173696, 2.136114, 2.060504],
    [0.300000, 0.606879, 1.284961, 2.213680, 2.060697],
    [0.300000, 0.612151, 1.299455, 2.223492, 2.060719],
]


def closed_form(horizon, rho):
    r"""For the prior N(m, s^2), `R = -(x - y)^2`, OU clock, `v_t = e^{-2t} s^2 + 1 - e^{-2t}`:

    I(t)  = rho s^4 / (1 - s^2) (1 / s^2 - 1 / v_t)
    x_out = m + (x_hat - m) e^{-I(T)} + s (y - m) int_0^T 2 rho e^{-t} s^2 v_t^{-3/2} e^{-I(t)} dt
    """
    v = lambda t: np.exp(-2 * t) * STD**2 + 1 - np.exp(-2 * t)
    forgot = lambda t: rho * STD**4 / (1 - STD**2) * (1 / STD**2 - 1 / v(t))
    pull = lambda t: 2 * rho * np.exp(-t) * STD**2 * v(t) ** -1.5 * np.exp(-forgot(t))
    integral = quad(pull, 0, horizon, epsabs=1e-12, limit=200)[0]
    return MEAN + (CANDIDATE - MEAN) * np.exp(-forgot(horizon)) + STD * (Y - MEAN) * integral


def test_the_closed_form_is_the_table():
    values = [[closed_form(horizon, rho) for rho in RHOS] for horizon in HORIZONS]
    np.testing.assert_allclose(values, TABLE, atol=2e-6)


def test_a_gaussian_gives_the_closed_form():
    """The whole table of horizons and rhos, to 1e-4; and the coordinate that is not observed stays where it was."""
    grid = times.grid(1000, power=3.0)

    def run(horizon, rho):
        process = ornstein_uhlenbeck(horizon)
        denoiser = di.denoisers.GaussianDenoiser(process, jnp.asarray([MEAN, -0.4]), jnp.asarray([STD**2, 0.6]))
        prior = di.Prior(process, denoiser, (2,))
        solver = posterior.reguidance(given(jnp.asarray([CANDIDATE, 1.7])), refine(prior, grid, rho), prior, grid)
        return solver(jax.random.key(0), observe_first(Y, 2)).x

    x = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(jnp.asarray(HORIZONS), jnp.asarray(RHOS))
    exact = [[closed_form(horizon, rho) for rho in RHOS] for horizon in HORIZONS]
    np.testing.assert_allclose(x[..., 0], exact, atol=1e-4)
    np.testing.assert_allclose(x[..., 1], 1.7, atol=1e-4)


def test_it_overshoots_and_residuals_are_not_monotone():
    """`x_out - y ~ (y - m) / (2 rho s^2)` at large rho: from above, because early guidance pulls through J < 1."""
    for rho in (100.0, 400.0):
        assert closed_form(6.0, rho) - Y == pytest.approx((Y - MEAN) / (2 * rho * STD**2), rel=0.1)
    residuals = [abs(closed_form(3.0, rho) - Y) for rho in (5.0, 10.0)]
    assert residuals[1] > residuals[0]


def test_a_shorter_horizon_is_a_grid_that_starts_later():
    """T < 1 by `times.grid(n, start=T)`: the OU clock at 3 up to t = 1/3 is the clock at 1, row two of the table."""
    process, grid = ornstein_uhlenbeck(3.0), times.grid(1000, start=1 / 3, power=3.0)
    prior = di.Prior(process, di.denoisers.GaussianDenoiser(process, jnp.asarray([MEAN]), jnp.asarray([STD**2])), (1,))
    solver = posterior.reguidance(given(jnp.asarray([CANDIDATE])), refine(prior, grid, 2.0), prior, grid)
    solution = jax.jit(solver)(jax.random.key(0), observe_first(Y, 1))
    assert float(solution.x[0]) == pytest.approx(closed_form(1.0, 2.0), abs=1e-4)
    v = np.exp(-2) * STD**2 + 1 - np.exp(-2)
    latent = np.exp(-1) * MEAN + np.sqrt(v) * (CANDIDATE - MEAN) / STD
    assert float(solution.info.latent[0]) == pytest.approx(latent, abs=1e-4)


MODES = np.array([[2.0, 2.0], [2.0, -2.0], [-2.0, 1.0], [-2.0, -1.0]])


def four_modes(process):
    return di.mixture(process, jnp.asarray(MODES), jnp.ones(4), jnp.full(4, 0.01))


def mixture_ode(horizon, candidate, rho):
    """The latent and the end of both ODEs, in the OU clock, by SciPy's stiff integrator and the mixture's own score."""

    def moments(x, t):
        alpha, variance = np.exp(-t), -np.expm1(-2 * t)
        spread = alpha**2 * 0.01 + variance
        logs = -0.5 * np.sum((x - alpha * MODES) ** 2, 1) / spread
        weights = np.exp(logs - logs.max())
        weights /= weights.sum()
        means = MODES + alpha * 0.01 / spread * (x - alpha * MODES)
        mu = weights @ means
        covariance = 0.01 * variance / spread * np.eye(2) + (weights * (means - mu).T) @ (means - mu)
        return mu, covariance * alpha / variance, weights @ (alpha * MODES - x) / spread

    def guided(tau, x):
        mu, J, score = moments(x, horizon - tau)
        return x + score - 2 * rho * J[0] * (mu[0] - 2.0)

    options = dict(method="LSODA", rtol=1e-9, atol=1e-11)
    latent = solve_ivp(lambda t, x: -x - moments(x, t)[2], (1e-8, horizon), candidate, **options).y[:, -1]
    return latent, solve_ivp(guided, (0, horizon - 1e-8), latent, **options).y[:, -1]


def test_a_candidate_on_the_wrong_side_is_carried_to_the_mode_of_its_own_sign():
    """From (-1.6, 1.3), y = 2 on the first coordinate, rho = 500: to (2, 2), never (2, -2), and mirrored below.

    Both ODEs agree with SciPy's; the residual lies in 1e-3..1e-2 (at T = 1 just under) and grows with the horizon.
    """
    grid, horizons = times.grid(4000, power=4.0), (1.0, 2.0, 3.0)

    def run(horizon, candidate):
        prior = four_modes(ornstein_uhlenbeck(horizon))
        solver = posterior.reguidance(given(candidate), refine(prior, grid, 500.0), prior, grid)
        return solver(jax.random.key(0), observe_first(2.0, 2))

    candidates = jnp.asarray([[-1.6, 1.3], [-1.6, -1.3]])
    solution = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(jnp.asarray(horizons), candidates)
    x = np.asarray(solution.x)
    for i, horizon in enumerate(horizons):
        latent, end = mixture_ode(horizon, np.asarray(candidates[0]), 500.0)
        np.testing.assert_allclose(solution.info.latent[i, 0], latent, atol=1e-4)
        np.testing.assert_allclose(x[i, 0], end, atol=3e-3)
    np.testing.assert_allclose(x[:, 1], x[:, 0] * np.array([1.0, -1.0]), rtol=1e-6)
    assert np.abs(x[:, 0] - MODES[0]).max() < 0.35
    residual = np.abs(x[:, 0, 0] - 2)
    assert (residual > 9e-4).all() and (residual < 1e-2).all()
    assert (np.diff(residual) > 0).all()


@pytest.mark.parametrize("process", [di.process.VP(), di.process.EDM(), di.process.Flow()])
def test_the_guiding_gradient_of_a_mixture_is_the_closed_form(process):
    """`grad_x |A mu - y|^2 = 2 J^T A^T (A mu - y)` with `J = Cov(x_0 | x_t) alpha / sigma^2`; `linearise` gives Cov."""
    prior, y, A = four_modes(process), 0.5, np.array([[1.0, 0.3]])
    measurement = di.Measurement(operators.dense(jnp.asarray(A)), jnp.asarray([y]), di.GaussianNoise(0.1))

    @jax.jit
    def library(x, t):
        prediction, apply_covariance = linearise(prior, x, t)
        step = lambda zeta: posterior.dps(prior, measurement, zeta, rewards.square).step(
            jax.random.key(0), x, t, 0.5 * t
        )[0]
        guided = posterior.dps_score(prior, measurement, 0.7).denoise(x, t)
        return prediction.x0, jax.vmap(apply_covariance)(jnp.eye(2)), guided, step(0.0) - step(1.0)

    for t, x in ((0.1, [0.2, 0.4]), (0.5, [0.3, -0.2]), (0.9, [1.0, 1.0])):
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        x = sigma * np.asarray(x)
        spread = alpha**2 * 0.01 + sigma**2
        logs = -0.5 * np.sum((x - alpha * MODES) ** 2, 1) / spread
        weights = np.exp(logs - logs.max())
        weights /= weights.sum()
        means = MODES + alpha * 0.01 / spread * (x - alpha * MODES)
        mu = weights @ means
        covariance = 0.01 * sigma**2 / spread * np.eye(2) + (weights * (means - mu).T) @ (means - mu)
        gradient = 2 * covariance * alpha / sigma**2 @ A.T @ (A @ mu - y)
        x0, columns, guided, dps_move = library(jnp.asarray(x), t)
        np.testing.assert_allclose(x0, mu, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(columns, covariance, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(guided, mu - 0.7 * sigma**2 / alpha * gradient, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(dps_move, gradient, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", rewards.KNOWN)
def test_the_rewards_differ_by_their_known_factors(name):
    """Against "square": the norm's gradient is `1 / (2 |r|)` of it, the likelihood's `1 / (2 sigma_y^2)`."""
    prior, x = four_modes(di.process.VP()), jnp.asarray([0.3, 0.8])
    measurement = observe_first(2.0, 2)
    x0 = prior.denoise(x, 0.5)
    guided = lambda kind: posterior.dps_score(prior, measurement, 1.0, rewards.KNOWN[kind])
    pull = lambda kind: jax.jit(lambda x: guided(kind).denoise(x, 0.5))(x) - x0
    r = float(jnp.linalg.norm(measurement.residual(x0)))
    factor = {"square": 1.0, "norm": 1 / (2 * r), "likelihood": 1 / (2 * 0.1**2)}[name]
    np.testing.assert_allclose(pull(name), factor * pull("square"), rtol=1e-9)


def wrapped_problem():
    rng = np.random.default_rng(0)
    prior = di.gaussian(di.process.VP(), jnp.asarray(rng.standard_normal(6)), jnp.asarray(random_covariance(rng, 6)))
    rows = jnp.asarray(np.linalg.qr(rng.standard_normal((6, 3)))[0].T)
    return prior, di.measure(jax.random.key(1), operators.dense(rows), prior.denoise.sample(jax.random.key(2)), 0.3)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n[6:] in MORE else ()) for n in SOLVERS])
def test_it_wraps_every_solver_of_the_registry(name):
    """No special case, not for another wrapper either: shapes and the infos of all stages, by abstract tracing."""
    prior, measurement = wrapped_problem()
    grid = times.grid(6)
    solver = posterior.reguidance(SOLVERS[name](prior, grid), refine(prior, grid, 1.0), prior, grid)
    solution = jax.eval_shape(solver, jax.random.key(0), measurement)
    proposal = jax.eval_shape(SOLVERS[name](prior, grid), jax.random.key(0), measurement)
    assert solution.x.shape == solution.info.candidate.shape == solution.info.latent.shape == prior.shape
    assert jax.tree.structure(solution.info.proposal) == jax.tree.structure(proposal.info)
    assert solution.info.refinement.cost.nfe.shape == (6,)


@functools.cache
def latent_and_refined():
    """Both later stages by hand, in one program for the proposals of all methods."""
    (prior, _), grid = wrapped_problem(), times.grid(6)

    def run(key, measurement, rho, candidate):
        latent = samplers.invert(prior, candidate, times.ascending(grid))
        return latent, refine(prior, grid, rho)(key, measurement, latent)

    return jax.jit(run, compiler_options=FAST)


RUN = [pytest.param(n, marks=() if n == "dps norm" else pytest.mark.slow) for n in CORE]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_its_stages_are_the_solvers_own(name):
    """Candidate, latent and result are what each stage gives alone; under vmap over measurements and rho, as alone."""
    prior, measurement = wrapped_problem()
    grid = times.grid(6)

    def run(key, measurement, rho):
        return SOLVERS[f"reguidance {name}"](prior, grid, rho)(key, measurement)

    propose = jax.jit(di.as_solver(lambda m: METHODS[name](prior, m), grid), compiler_options=FAST)

    keys, rhos = jax.random.split(jax.random.key(4), 2), jnp.asarray([0.2, 1.0])
    measurements = jax.tree.map(lambda a: jnp.stack([jnp.asarray(a), jnp.asarray(a) * 1.1]), measurement)
    solution = jax.jit(jax.vmap(run), compiler_options=FAST)(keys, measurements, rhos)
    key, measurement, rho = jax.tree.map(lambda a: a[1], (keys, measurements, rhos))
    first, second = jax.random.split(key)
    candidate = propose(first, measurement)
    latent, refined = latent_and_refined()(second, measurement, rho, candidate.x)
    for one, other in (
        (solution.info.candidate[1], candidate.x),
        (solution.info.latent[1], latent),
        (solution.x[1], refined.x),
    ):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    assert np.isfinite(solution.x).all()
    np.testing.assert_array_equal(solution.info.cost.nfe, 2 * 6)
    np.testing.assert_array_equal(solution.info.refinement.cost.nfe.sum(1), 2 * 6 - 1)
    assert solution.info.cost.vjps.sum() == 0


def test_euler_inversion_costs_half(key):
    prior, measurement = wrapped_problem()
    grid = times.grid(5)
    for integrator, calls in ((samplers.euler, 5), (samplers.heun, 10)):
        stay = lambda key, measurement, x: di.Solution(x, None)
        solver = posterior.reguidance(given(jnp.zeros(6)), stay, prior, grid, integrator=integrator)
        assert int(solver(key, measurement).info.cost.nfe) == calls
