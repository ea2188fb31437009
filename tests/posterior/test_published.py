"""One step of each method against its published update, by NumPy with explicit Jacobians, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from oracle import Law, moment_errors

import diffinv as di
from diffinv import posterior
from diffinv.operators.base import Operator
from diffinv.operators.pixel import Mask
from diffinv.posterior import proximal, rewards
from diffinv.posterior.variational import MidpointState
from posterior.published import (
    COVARIANCE,
    DIM,
    MATRIX,
    MEAN,
    PINV,
    PROCESS,
    ROWS,
    SIGMA,
    X,
    Y,
    ancestral,
    assert_close,
    at,
    levels,
    normal,
    problem,
    step,
)

T, NEXT = 0.5, 0.35
KEY = jax.random.key(5)


def pulled(now):
    """`J^T A^T (y - A x0)`: minus half the gradient of the squared residual."""
    return now.J.T @ MATRIX.T @ (Y - MATRIX @ now.x0)


@pytest.mark.parametrize("convention", ["square", "norm"])
def test_mcg(convention):
    prior, m = problem()
    x, info = step(posterior.mcg(prior, m, 0.2, rewards.KNOWN[convention], eta=0.6), KEY, T, NEXT)
    draw, noise = jax.random.split(KEY)
    now, (a, sigma) = at(T), levels(NEXT)
    mean, c = ancestral(now, X, NEXT, 0.6)
    factor = {"square": 2.0, "norm": 1 / np.linalg.norm(Y - MATRIX @ now.x0)}[convention]
    moved = mean + c * normal(draw, DIM) + 0.2 * factor * pulled(now)
    y_s = a * Y + sigma * MATRIX @ normal(noise, DIM)
    assert_close(x, (np.eye(DIM) - PINV @ MATRIX) @ moved + PINV @ y_s)
    assert (int(info.cost.nfe), int(info.cost.vjps)) == (1, 1)


@pytest.mark.parametrize(("awd", "sigma_y"), [(False, SIGMA), (True, SIGMA), (True, 0.0)])
def test_pgdm(awd, sigma_y):
    """Algorithm 1 has `sqrt(abar_t) g`, the code `sqrt(abar_s abar_t) g`; noiseless, g is `J^T A^+ (y - A x0)`."""
    prior, m = problem(sigma_y)
    x, _ = step(posterior.pgdm(prior, m, 0.9, eta=0.5, awd=awd), KEY, T, NEXT)
    now = at(T)
    mean, c = ancestral(now, X, NEXT, 0.5)
    r2 = 1 - now.alpha**2
    if sigma_y:
        inverse = np.linalg.inv(MATRIX @ MATRIX.T + sigma_y**2 / r2 * np.eye(ROWS))
        g = now.J.T @ MATRIX.T @ inverse @ (Y - MATRIX @ now.x0)
    else:
        g = now.J.T @ (PINV @ Y - PINV @ MATRIX @ now.x0)
    scale = now.alpha * (levels(NEXT)[0] if awd else 1.0)
    assert_close(x, mean + c * normal(KEY, DIM) + 0.9 * scale * g)


def test_pgdm_starts_at_the_pseudo_inverse_and_clips_inside_the_graph():
    prior, m = problem()
    alpha, sigma = levels(1.0)
    assert_close(posterior.pgdm(prior, m).init(KEY, 1.0, None), alpha * PINV @ Y + sigma * normal(KEY, DIM))
    now = at(T)
    inside = np.abs(now.x0) <= 1
    assert 0 < inside.sum() < DIM
    clipped = np.clip(now.x0, -1, 1)
    inverse = np.linalg.inv(MATRIX @ MATRIX.T + SIGMA**2 / (1 - now.alpha**2) * np.eye(ROWS))
    g = (inside[:, None] * now.J).T @ MATRIX.T @ inverse @ (Y - MATRIX @ clipped)
    mean, _ = ancestral(now._replace(x0=clipped, eps=(X - now.alpha * clipped) / now.sigma), X, NEXT, 0.0)
    assert_close(step(posterior.pgdm(prior, m, clip=True), KEY, T, NEXT)[0], mean + now.alpha * g)


def test_pgdm_overwrites_what_a_mask_shows_in_the_form_of_the_code():
    """x0 is y where it is seen, the guidance moves the rest, and the network's own eps goes on."""
    prior, m = problem()
    mask, y = np.array([1.0, 0, 1, 0, 0]), np.array([0.4, 0, -0.7, 0, 0])
    m = m.replace(operator=Mask(jnp.asarray(mask), (DIM,)), y=jnp.asarray(y))
    x, _ = step(posterior.pgdm(prior, m, 0.9, awd=True), KEY, T, NEXT)
    now, (a, _) = at(T), levels(NEXT)
    g = (1 - mask) * (now.J.T @ ((y - mask * now.x0) / (1 + SIGMA**2 / (1 - now.alpha**2))))
    mean, _ = ancestral(now._replace(x0=np.where(mask, y, now.x0)), X, NEXT, 0.0)
    assert_close(x, mean + 0.9 * a * now.alpha * g)


@pytest.mark.parametrize("reward", rewards.CLOUDS.values(), ids=str)
def test_lgd(reward):
    prior, m = problem()
    x, _ = step(posterior.lgd(prior, m, 0.05, draws=3, reward=reward), KEY, T, NEXT)
    draw, guess = jax.random.split(KEY)
    now = at(T)
    residuals = Y - (now.x0 + np.sqrt(1 - now.alpha**2) * normal(guess, 3, DIM)) @ MATRIX.T
    squares = (residuals**2).sum(1)
    if reward == rewards.cloud_norm:
        gradient = -now.J.T @ MATRIX.T @ residuals.mean(0) / np.sqrt(squares.sum())
    else:
        weights = np.exp(-0.5 * (squares - squares.min()) / SIGMA**2)
        gradient = -now.J.T @ MATRIX.T @ (weights / weights.sum() @ residuals) / SIGMA**2
    mean, c = ancestral(now, X, NEXT)
    assert_close(x, mean + c * normal(draw, DIM) - 0.05 * gradient)


@pytest.mark.parametrize("prox", proximal.KNOWN.values(), ids=str)
def test_diffpir(prox):
    prior, m = problem()
    x, info = step(posterior.diffpir(prior, m, 0.8, 0.3, prox), KEY, T, NEXT)
    now, (a, sigma) = at(T), levels(NEXT)
    rho = 0.8 * SIGMA**2 / ((1 - now.alpha**2) / now.alpha**2)
    if prox == proximal.closed:
        x0 = np.linalg.solve(MATRIX.T @ MATRIX + rho * np.eye(DIM), MATRIX.T @ Y + rho * now.x0)
    else:
        x0 = now.x0 + MATRIX.T @ (Y - MATRIX @ now.x0) / (1 + rho)
    eps = (X - now.alpha * x0) / now.sigma
    assert_close(x, a * x0 + sigma * (np.sqrt(0.7) * eps + np.sqrt(0.3) * normal(KEY, DIM)))
    assert_close(info.residual, np.linalg.norm(Y - MATRIX @ x0))


def adam(gradient, x, steps, lr, b1=0.9, b2=0.999):
    m, v = np.zeros_like(x), np.zeros_like(x)
    for k in range(1, steps + 1):
        g = gradient(x, k)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        x = x - lr * m / (1 - b1**k) / (np.sqrt(v / (1 - b2**k)) + 1e-8)
    return x


def test_sitcom():
    """Thirty-one evaluations; a sample whose misfit has fallen below the tolerance stands still."""
    prior, m = problem()
    a, sigma = levels(NEXT)

    def gradient(v, _):
        now = at(T, v)
        return -2 * pulled(now) + 2 * 0.3 * (v - X)

    x, info = step(posterior.sitcom(prior, m, 30, 0.02, 0.3), KEY, T, NEXT)
    assert_close(x, a * at(T, adam(gradient, X, 30, 0.02)).x0 + sigma * normal(KEY, DIM))
    assert (int(info.cost.nfe), int(info.cost.vjps)) == (31, 30)
    x, _ = step(posterior.sitcom(prior, m, 30, 0.02, tolerance=1e6), KEY, T, NEXT)
    assert_close(x, a * at(T).x0 + sigma * normal(KEY, DIM))


def test_dcdp():
    prior, m = problem()
    x, info = step(posterior.dcdp(prior, m, 4, 0.05, 0.9, purify_steps=3), KEY, T, NEXT)
    clean, velocity = X.copy(), 0
    for _ in range(4):
        velocity = 0.9 * velocity - MATRIX.T @ (Y - MATRIX @ clean)
        clean = clean - 0.05 * velocity
    alpha, sigma = levels(T)
    x_t = alpha * clean + sigma * normal(KEY, DIM)
    for t, s in ((T, 2 * T / 3), (2 * T / 3, T / 3), (T / 3, 0.0)):
        now, (a_s, sigma_s) = at(t, x_t), levels(s)
        x_t = a_s * now.x0 + sigma_s * now.eps
    assert_close(x, x_t)
    assert int(info.cost.nfe) == 3
    assert_close(posterior.dcdp(prior, m).init(KEY, 1.0, None), np.zeros(DIM))
    assert_close(posterior.dcdp(prior, m).init(KEY, T, jnp.asarray(X)), X / alpha)


def test_dcdp_keeps_what_it_fitted_on_the_published_levels():
    """The last level is one step of a thousand: the residual is below the noise; a last level of 0.04 undoes it."""
    prior, m = problem(0.05)
    grids = jnp.stack([jnp.append(jnp.linspace(0.4, 0.001, 10), 0.0), jnp.linspace(0.4, 0.0, 11)])
    sampler = posterior.dcdp(prior, m, lr=0.1, purify_steps=5)
    run = jax.vmap(jax.vmap(lambda k, grid: di.sample(k, sampler, grid).x, (0, None)), (None, 0))
    residuals = Y - np.asarray(jax.jit(run)(jax.random.split(KEY, 40), grids)) @ MATRIX.T
    fitted, undone = np.linalg.norm(residuals, axis=-1).mean(1)
    assert fitted < 0.05 * ROWS**0.5 and undone > 4 * fitted


RATIO = {1.0: lambda r: r, 0.5: np.sqrt, 2.0: lambda r: r**2, 0.0: lambda r: 1.0}


@pytest.mark.parametrize(("power", "sums"), [(power, False) for power in RATIO] + [(0.0, True)])
def test_reddiff(power, sums):
    """Two steps, so that Adam's memory shows: betas (0.9, 0.99), the loss a mean over pixels or a sum."""
    prior, m = problem()
    sampler = posterior.reddiff(prior, m, 0.1, 0.25, power, sums)
    state = sampler.init(KEY, 1.0, None)
    assert_close(state.mean, PINV @ Y)
    keys, grid = jax.random.split(KEY), (T, NEXT)

    def gradient(mu, k):
        alpha, sigma = levels(grid[k - 1])
        e = normal(keys[k - 1], DIM)
        eps = at(grid[k - 1], alpha * mu + sigma * e).eps
        w = 0.25 * RATIO[power](sigma / alpha)
        if sums:
            return -2 * MATRIX.T @ (Y - MATRIX @ mu) + w * (eps - e)
        return -MATRIX.T @ (Y - MATRIX @ mu) / ROWS + w * (eps - e) / DIM

    for k, (t, s) in enumerate(((T, NEXT), (NEXT, 0.2))):
        state, info = step(sampler, keys[k], t, s, state)
    expected = adam(gradient, PINV @ Y, 2, 0.1, b2=0.99)
    np.testing.assert_allclose(state.mean, expected, rtol=1e-6)
    assert_close(info.residual, np.linalg.norm(Y - MATRIX @ np.asarray(state.mean)))


def test_reddiff_finds_the_posterior_mean():
    """`x_0 ~ N(m, c I)`, one level with `w` const: at the fixed point the data's force balances the expected pull.

    `E[mu - x0] = (1 - alpha G)(mu - m)`, so that mu solves a linear system, which for the sum form, lam = 2 sigma_y^2
    and `G` at that level is a MAP estimate.
    """
    prior, m = problem()
    grid = jnp.full(3001, T)
    sampler = posterior.reddiff(prior, m, 0.003, 0.5, 0.0, True)
    means = jax.jit(lambda k: di.sample(k, di.record(sampler), grid).info.state.mean)(KEY)
    now = at(T)
    pull = 0.5 * now.alpha / now.sigma * (np.eye(DIM) - now.alpha * now.J)
    fixed = np.linalg.solve(2 * MATRIX.T @ MATRIX + pull, 2 * MATRIX.T @ Y + pull @ MEAN)
    np.testing.assert_allclose(np.asarray(means[1000:]).mean(0), fixed, atol=0.02)
    assert np.abs(fixed - PINV @ Y).max() > 0.1


def test_mgps():
    """The Gaussian at the midpoint is fitted from the last x0's, and the bridge to x_s is the forward process's."""
    prior, m = problem()
    last = 0.7 * X + 0.2
    start = MidpointState(jnp.asarray(X), jnp.asarray(last), jnp.int32(10))
    (x, _, state), info = step(posterior.mgps(prior, m, 3, 0.05, 0.4), KEY, T, NEXT, start)
    low, now = 0.4 * NEXT, at(T)
    fit, draw, bridge = jax.random.split(KEY, 3)
    noises = [normal(jax.random.fold_in(fit, i), DIM) for i in range(3)]
    mean, std = ancestral(now, X, low)
    before, _ = ancestral(now._replace(x0=last, eps=(X - now.alpha * last) / now.sigma), X, low)

    def gradient(q, k):
        e = noises[k - 1]
        at_low = at(low, q[0] + std * np.exp(q[1]) * e)
        back = -pulled(at_low) / SIGMA**2
        return np.stack([(q[0] - mean) / std**2 + back, np.exp(2 * q[1]) - 1 + back * std * np.exp(q[1]) * e])

    centre, log_std = adam(gradient, np.stack([before, np.zeros(DIM)]), 3, 0.05)
    x_low = centre + std * np.exp(log_std) * normal(draw, DIM)
    (a_l, s_l), (a_s, s_s), (a_t, s_t) = levels(low), levels(NEXT), levels(T)
    up, on = a_s / a_l, a_t / a_s
    below, above = s_s**2 - up**2 * s_l**2, s_t**2 - on**2 * s_s**2
    variance = 1 / (1 / below + on**2 / above)
    assert_close(x, variance * (up * x_low / below + on * X / above) + np.sqrt(variance) * normal(bridge, DIM))
    assert (int(info.cost.nfe), int(info.cost.vjps), int(state)) == (5, 3, 11)
    early = jax.eval_shape(posterior.mgps(prior, m).init, KEY, 1.0, None)
    assert early.x.shape == (DIM,) and early.steps.dtype == jnp.int32


def test_mgps_fits_a_second_time_at_the_data_end():
    """From `threshold` on: by NumPy from the first fit's draw, with the score held at each draw."""
    prior, m = problem()
    start = MidpointState(jnp.asarray(X), jnp.asarray(X), jnp.int32(10))
    fits = [posterior.mgps(prior, m, 2, 0.05, 0.4, threshold=threshold) for threshold in (2.0, 0.5)]
    ((_, clean, _), once), ((x, x0, _), twice) = (step(sampler, KEY, T, NEXT, start) for sampler in fits)
    low, end = 0.4 * NEXT, 1e-3
    (a_l, s_l), (a_e, s_e), (a_s, s_s), (a_t, s_t) = (levels(t) for t in (low, end, NEXT, T))
    G = at(low).J
    middle = a_l * MEAN + np.linalg.solve(G, np.asarray(clean) - MEAN)
    ratio, noise = a_l / a_e, s_l**2 - (a_l / a_e * s_e) ** 2
    mean, std = ancestral(at(low, middle), middle, end)
    fit, draw = jax.random.split(jax.random.fold_in(KEY, 1))
    noises = [normal(jax.random.fold_in(fit, i), DIM) for i in range(2)]

    def gradient(q, k):
        spread = std * np.exp(q[1]) * noises[k - 1]
        x1 = q[0] + spread
        force = (x1 - a_e * at(end, x1).x0) / s_e**2 - MATRIX.T @ (Y - MATRIX @ x1) / SIGMA**2
        wide = (ratio * std * np.exp(q[1])) ** 2 / noise
        return np.stack([force - ratio * (middle - ratio * q[0]) / noise, force * spread + wide - 1])

    centre, w = adam(gradient, np.stack([mean, np.zeros(DIM)]), 2, 0.05)
    x1 = centre + std * np.exp(w) * normal(draw, DIM)
    np.testing.assert_allclose(x0, x1, rtol=1e-6)
    up, on = a_s / a_e, a_t / a_s
    below, above = s_s**2 - up**2 * s_e**2, s_t**2 - on**2 * s_s**2
    variance = 1 / (1 / below + on**2 / above)
    z = normal(jax.random.split(KEY, 3)[2], DIM)
    np.testing.assert_allclose(x, variance * (up * x1 / below + on * X / above) + np.sqrt(variance) * z, rtol=1e-6)
    assert [int(info.cost.nfe) for info in (once, twice)] == [4, 6] and int(twice.cost.vjps) == 2


def test_mgps_ends_on_the_denoised_mean():
    prior, m = problem()
    sampler = posterior.mgps(prior, m, 2, 0.0, early=1, first=3)
    (x, *_), info = step(sampler, KEY, T, 0.0, sampler.init(KEY, T, jnp.asarray(X)))
    now = at(T)
    mean, std = ancestral(now, X, T / 2)
    x_low = mean + std * normal(jax.random.split(KEY, 3)[1], DIM)
    assert_close(x, at(T / 2, x_low).x0)
    assert int(info.cost.nfe) == 3


@struct.dataclass
class Cubic(Operator):
    """A nonlinear operator."""

    @property
    def shape(self):
        return (DIM,)

    def __call__(self, x):
        return x[:ROWS] ** 3


def test_methods_without_linear_algebra_take_any_operator():
    """And say what they cannot do without it: see the battery for the rest."""
    prior, m = problem()
    bent = m.replace(operator=Cubic())
    x0 = at(T).x0
    x, _ = step(posterior.diffpir(prior, bent, 1.0, 0.0, proximal.gradient), KEY, T, NEXT)
    rho = SIGMA**2 * levels(T)[0] ** 2 / levels(T)[1] ** 2
    moved = x0 + np.append(3 * x0[:ROWS] ** 2 * (Y - x0[:ROWS] ** 3), [0, 0]) / (1 + rho)
    assert_close(x, levels(NEXT)[0] * moved + levels(NEXT)[1] * (X - levels(T)[0] * moved) / levels(T)[1])
    assert_close(posterior.reddiff(prior, bent).init(KEY, 1.0, None).mean, np.zeros(DIM))
    for method in (posterior.sitcom, posterior.dcdp, posterior.reddiff, posterior.lgd, posterior.mgps, posterior.tds):
        sampler = method(prior, bent)
        state = jax.eval_shape(sampler.init, KEY, 1.0, None)
        assert jax.eval_shape(sampler.step, KEY, state, 1.0, 0.5)[1].residual.shape == ()


def gibbs_law(rounds, t, steps, sigma_end):
    """Mean and covariance of x after `rounds` from 0: `z | x` by conjugacy, then ancestral steps along EDM's grid."""
    r, eye = levels(t)[1] / levels(t)[0], np.eye(DIM)
    ramp = np.arange(steps) / (steps - 1)
    sigmas = (r ** (1 / 7) + ramp * (sigma_end ** (1 / 7) - r ** (1 / 7))) ** 7
    grid = jnp.append(di.times.from_sigma(PROCESS, jnp.asarray(sigmas)), 0.0)
    scales = np.stack([jax.vmap(PROCESS.alpha)(grid), jax.vmap(PROCESS.sigma)(grid)], 1)
    gain = MATRIX.T @ np.linalg.inv(MATRIX @ MATRIX.T + SIGMA**2 / r**2 * np.eye(ROWS))
    moves = [(eye - gain @ MATRIX, gain @ Y, r**2 * (eye - gain @ MATRIX)), (scales[0, 0] * eye, 0.0, 0.0)]
    for (a, sigma), (a_s, sigma_s) in zip(scales[:-1], scales[1:]):
        J = a * COVARIANCE @ np.linalg.inv(a**2 * COVARIANCE + sigma**2 * eye)
        c2 = sigma_s**2 * (1 - (a * sigma_s / (a_s * sigma)) ** 2)
        keep = np.sqrt(sigma_s**2 - c2) / sigma
        share = a_s - keep * a
        moves.append((share * J + keep * eye, share * (MEAN - a * J @ MEAN), c2 * eye))
    mean, covariance = np.zeros(DIM), np.zeros((DIM, DIM))
    for F, b, C in moves * rounds:
        mean, covariance = F @ mean + b, F @ covariance @ F.T + C
    return Law(mean, covariance)


@pytest.mark.slow
def test_pnpdm_has_the_law_of_its_two_draws():
    """4,000 chains of ten rounds against NumPy's recursion; with fine steps that law is the coupled posterior's.

    The coupled posterior is that of a measurement with noise `sigma_y^2 I + rho^2 A A^T`.
    """
    prior, m = problem()
    t = float(di.times.from_sigma(PROCESS, jnp.asarray(1.0)))
    sampler = posterior.pnpdm(prior, m, 10)
    run = jax.jit(jax.vmap(lambda k: di.sample(k, sampler, jnp.full(11, t)).x))
    x = np.asarray(run(jax.random.split(KEY, 4000)))
    assert max(moment_errors(x, gibbs_law(10, t, 10, 0.002))) < 5
    noise = SIGMA**2 * np.eye(ROWS) + MATRIX @ MATRIX.T
    gain = COVARIANCE @ MATRIX.T @ np.linalg.inv(MATRIX @ COVARIANCE @ MATRIX.T + noise)
    fine = gibbs_law(30, t, 1000, 0.002)
    np.testing.assert_allclose(fine.mean, MEAN + gain @ (Y - MATRIX @ MEAN), atol=0.01)
    np.testing.assert_allclose(fine.covariance, COVARIANCE - gain @ MATRIX @ COVARIANCE, atol=0.01)


def test_pnpdm_draws_z_then_runs_the_reverse_chain():
    """One round by hand: the conjugate draw, and two ancestral steps from `alpha_t z`."""
    prior, m = problem()
    x, info = step(posterior.pnpdm(prior, m, 2, sigma_end=0.1), KEY, T, NEXT)
    chain, reverse = jax.random.split(KEY)
    alpha, sigma = levels(T)
    draw, noise = jax.random.split(chain)
    r = sigma / alpha
    z = X + r * normal(draw, DIM)
    gap = Y + SIGMA * normal(noise, ROWS) - MATRIX @ z
    z = z + MATRIX.T @ np.linalg.solve(MATRIX @ MATRIX.T + SIGMA**2 / r**2 * np.eye(ROWS), gap)
    end = float(di.times.from_sigma(PROCESS, jnp.asarray(0.1)))
    keys = jax.random.split(reverse, 2)
    mean, c = ancestral(at(T, alpha * z), alpha * z, end)
    np.testing.assert_allclose(x, at(end, mean + c * normal(keys[0], DIM)).x0, rtol=1e-6)
    assert int(info.cost.nfe) == 2
