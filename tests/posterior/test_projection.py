"""DDRM, DDNM+, RePaint and time travel: one step against the published update by NumPy, and what they leave exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv as di
from diffinv import operators, posterior, times
from posterior.published import (
    DIM,
    MATRIX,
    PINV,
    SIGMA,
    VH,
    S,
    U,
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

T, NEXT = 0.5, {"clear": 0.45, "mixed": 0.2, "noisy": 0.02}
KEY = jax.random.key(3)
SINGULAR, Y_BAR = np.append(S, [0, 0]), np.append(U.T @ Y / S, [0, 0])
WIDTH = np.append(SIGMA / S, [0, 0])


def ddrm_code(now, s, z, eta, eta_b, eta_c):
    """`functions/denoising.py` in its own VE form: everything over alpha, then scaled back."""
    a, sigma = levels(s)
    ratio, x0, eps = sigma / a, VH @ now.x0, VH @ now.eps
    out = np.zeros(DIM)
    for i in range(DIM):
        if SINGULAR[i] == 0:
            out[i] = x0[i] + np.sqrt(1 - eta_c**2) * ratio * eps[i] + eta_c * ratio * z[i]
        elif ratio < WIDTH[i]:
            pull = ((U.T @ Y)[i] - SINGULAR[i] * x0[i]) / SIGMA
            out[i] = x0[i] + np.sqrt(1 - eta**2) * ratio * pull + eta * ratio * z[i]
        else:
            left = np.sqrt(ratio**2 - eta_b**2 * WIDTH[i] ** 2)
            out[i] = (1 - eta_b) * x0[i] + eta_b * Y_BAR[i] + left * z[i]
    return a * VH.T @ out


def basis():
    """The library's V may differ from NumPy's in signs and in the null space: noise is compared through it."""
    _, m = problem()
    V = np.stack([np.asarray(m.operator.spectrum().synthesise(jnp.asarray(e))) for e in np.eye(DIM)], 1)
    return V


@pytest.mark.parametrize("s", NEXT.values(), ids=NEXT)
def test_ddrm_is_the_published_update(s):
    """Well measured, mixed and noisy coordinates, with three etas of their own."""
    prior, m = problem()
    x_s, info = step(posterior.ddrm(prior, m, eta=0.8, eta_b=0.9, eta_c=0.6), KEY, T, s)
    z = VH @ basis() @ normal(KEY, DIM)
    clear = levels(s)[1] / levels(s)[0] >= WIDTH[:3]
    assert {0.45: 3, 0.2: 2, 0.02: 0}[s] == clear.sum()
    assert_close(x_s, ddrm_code(at(T), s, z, 0.8, 0.9, 0.6))
    assert_close(info.residual, np.linalg.norm(Y - MATRIX @ at(T).x0))


def test_ddrm_starts_at_the_measurement_in_noise():
    prior, m = problem()
    for t in (1.0, 0.05):
        alpha, sigma = levels(t)
        z = VH @ basis() @ normal(KEY, DIM)
        left = np.sqrt(np.maximum(sigma**2 - (alpha * WIDTH) ** 2, 0))
        observed = (SINGULAR > 0) & (sigma > alpha * WIDTH)
        start = np.where(observed, alpha * Y_BAR + left * z, sigma * z)
        assert_close(posterior.ddrm(prior, m).init(KEY, t, None), VH.T @ start)
    np.testing.assert_array_equal(posterior.ddrm(prior, m).init(KEY, 1.0, jnp.asarray(X)), X)


def test_ddrm_meets_a_noiseless_measurement_and_its_ties_differ():
    """Every step of the paper's form ends on `y`; at s = 0 the code's strict comparison leaves the unseen's formula."""
    prior, m = problem(0.0)
    x, _ = step(posterior.ddrm(prior, m), KEY, T, 0.0)
    assert_close(MATRIX @ np.asarray(x), Y)
    x, _ = step(posterior.ddrm(prior, m, strict=True), KEY, T, 0.0)
    assert_close(x, at(T).x0)


@pytest.mark.parametrize("s", NEXT.values(), ids=NEXT)
def test_ddnm_plus_is_the_published_update(s):
    prior, m = problem()
    state = posterior.projection.TravelState(jnp.asarray(X), jnp.zeros(DIM))
    new, info = step(posterior.ddnm_plus(prior, m, 0.7), KEY, T, s, state)
    now, (a, sigma), z = at(T), levels(s), VH @ normal(KEY, DIM)
    share, added = np.ones(DIM), np.zeros(DIM)
    eps = VH @ now.eps
    for i in range(DIM):
        if SINGULAR[i] == 0:
            added[i] = sigma * (0.7 * z[i] + np.sqrt(1 - 0.49) * eps[i])
        elif sigma < a * WIDTH[i]:
            share[i] = SINGULAR[i] * sigma * np.sqrt(1 - 0.49) / (a * SIGMA)
            added[i] = sigma * 0.7 * z[i]
        else:
            added[i] = np.sqrt(sigma**2 - a**2 * WIDTH[i] ** 2) * z[i]
    pulled = now.x0 - VH.T @ (share * (VH @ PINV @ (MATRIX @ now.x0 - Y)))
    assert_close(new.x, a * pulled + VH.T @ added)
    assert_close(new.x0, now.x0)
    assert int(info.cost.nfe) == 1


@pytest.mark.parametrize("s", [0.45, 0.02])
def test_ddnm_plus_scalar_is_the_simplified_form(s):
    prior, m = problem()
    state = posterior.projection.TravelState(jnp.asarray(X), jnp.zeros(DIM))
    x = step(posterior.ddnm_plus(prior, m, 0.7, spectral=False), KEY, T, s, state)[0].x
    now, (a, sigma) = at(T), levels(s)
    lam = 1.0 if sigma >= a * SIGMA else sigma / (a * SIGMA)
    gamma = np.sqrt(max(sigma**2 - (a * SIGMA) ** 2, 0))
    noise = 0.7 * normal(KEY, DIM) + np.sqrt(1 - 0.49) * now.eps
    assert_close(x, a * (now.x0 - lam * PINV @ (MATRIX @ now.x0 - Y)) + gamma * noise)


def test_ddnm_plus_without_noise_is_ddnm():
    prior, m = problem(0.0)
    state = posterior.projection.TravelState(jnp.asarray(X), jnp.zeros(DIM))
    now, (a, sigma) = at(T), levels(0.3)
    noise = 0.85 * normal(KEY, DIM) + np.sqrt(1 - 0.85**2) * now.eps
    for spectral in (True, False):
        x = step(posterior.ddnm_plus(prior, m, spectral=spectral), KEY, T, 0.3, state)[0].x
        assert_close(x, a * (now.x0 - PINV @ (MATRIX @ now.x0 - Y)) + sigma * noise)


def test_travel_goes_back_as_the_official_schedule_does():
    """`get_schedule_jump` of DDNM and RePaint, its upward runs drawn together into one jump."""

    def official(steps, length, repeat):
        jumps, levels, t = dict.fromkeys(range(0, steps - length, length), repeat - 1), [], steps
        while t >= 1:
            t -= 1
            levels.append(t)
            if jumps.get(t, 0) > 0:
                jumps[t] -= 1
                t += length
                levels.append(t)
        return np.array([*levels, -1])

    for steps, length, repeat in ((12, 3, 2), (20, 10, 10)):
        grid = np.asarray(posterior.travel(times.grid(steps), length, repeat))
        expected = (official(steps, length, repeat) + 1) / steps
        np.testing.assert_allclose(grid, expected, atol=1e-6)
    assert len(posterior.travel(times.grid(9), 3, 1)) == 10
    for bad in ({"length": 0}, {"repeat": 0}, {"repeat": 1.5}):
        with pytest.raises(ValueError, match="must be a whole number, at least 1"):
            posterior.travel(times.grid(9), **bad)


def test_going_up_adds_the_noise_of_each_method():
    """DDNM starts again from its last x0; RePaint from x_t by the forward kernel; neither evaluates the network."""
    prior, m = problem()
    z, (a, sigma), (a_t, sigma_t) = normal(KEY, DIM), levels(0.6), levels(T)
    state = posterior.projection.TravelState(jnp.asarray(X), jnp.arange(5.0))
    new, info = step(posterior.ddnm_plus(prior, m), KEY, T, 0.6, state)
    assert_close(new.x, a * np.arange(5.0) + sigma * z)
    assert int(info.cost.nfe) == 0
    x, info = step(posterior.repaint(prior, m), KEY, T, 0.6)
    std = np.sqrt(sigma**2 - (a / a_t * sigma_t) ** 2)
    assert_close(x, a / a_t * X + std * normal(jax.random.split(KEY)[1], DIM))
    assert int(info.cost.nfe) == 0


def test_repaint_is_the_published_update_on_a_mask():
    """`m (sqrt(abar) y + sqrt(1 - abar) z) + (1 - m) x'`."""
    prior, _ = problem()
    prior = prior.replace(shape=(DIM,))
    mask = np.diag([1.0, 0, 1, 0, 0])[[0, 2]]
    m = di.Measurement(operators.dense(jnp.asarray(mask)), jnp.asarray([0.3, -2.0]), di.GaussianNoise(0.0))
    x, _ = step(posterior.repaint(prior, m), KEY, T, 0.3)
    draw, noise = jax.random.split(KEY)
    (mean, c), (a, sigma), z = ancestral(at(T), X, 0.3), levels(0.3), normal(noise, DIM)
    expected = mean + c * normal(draw, DIM)
    expected[[0, 2]] = a * np.array([0.3, -2.0]) + sigma * z[[0, 2]]
    assert_close(x, expected)


@pytest.mark.slow
def test_time_travel_brings_repaint_nearer_to_the_posterior():
    """Two correlated coordinates, one seen: without resampling the other's mean falls short of its regression."""
    prior = di.gaussian(di.process.VP(), jnp.zeros(2), jnp.asarray([[1.0, 0.9], [0.9, 1.0]]))
    m = di.Measurement(operators.dense(jnp.asarray([[1.0, 0.0]])), jnp.asarray([2.0]), di.GaussianNoise(0.0))

    def mean(grid):
        run = jax.jit(jax.vmap(lambda k: di.sample(k, posterior.repaint(prior, m), grid).x[1]))
        return float(run(jax.random.split(KEY, 1500)).mean())

    plain, travelled = mean(times.grid(50)), mean(posterior.travel(times.grid(50), 5, 8))
    assert abs(travelled - 1.8) < 0.4 * abs(plain - 1.8)
