"""FLAIR: a step by NumPy, its calibration on a Gaussian in closed form, and the law that it ends with there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST

import diffinv as di
from diffinv import operators, posterior
from diffinv.posterior import calibration
from diffinv.posterior.splitting import FlairState
from posterior.published import DIM, MATRIX, PINV, PROCESS, X, Y, assert_close, at, levels, normal, problem, step

KEY, T, NEXT, FLOW = jax.random.key(5), 0.6, 0.45, di.process.Flow()
ERRORS = np.array([0.7, 0.3, 0.25, 0.5, 1.1])  # at the clocks 1, 3/4, 1/2, 1/4 and 0


def worth(u):
    """Erbach et al.'s weights of those errors, between their levels."""
    w = 1 / (ERRORS + 1e-7)
    w = w / w.mean()
    return np.interp(u, np.linspace(0, 1, 5), np.maximum(w - w[-1], 0)[::-1])


@pytest.mark.parametrize(("process", "errors"), [(FLOW, None), (FLOW, ERRORS), (PROCESS, ERRORS)])
def test_a_step_is_its_formula(process, errors):
    """Under a flow in its authors' words, by velocities; the descent stops as soon as the noise is reached."""
    prior, m = problem(process=process)
    state = FlairState(jnp.asarray(X), jnp.asarray(0.5 * X - 0.1))
    given = None if errors is None else jnp.asarray(errors)
    fits = [posterior.flair(prior, m, 0.4, given, 0.9, 3, 0.05, tolerance) for tolerance in (0.0, 1e9)]
    ((mean, noise), info), ((still, _), _) = (step(sampler, KEY, T, NEXT, state) for sampler in fits)
    alpha, sigma = levels(T, process)
    u = sigma / (alpha + sigma)
    a, lam = 0.9 * (1 - u), 0.4 * (2 * u if errors is None else worth(u))
    e = a * (0.5 * X - 0.1) + np.sqrt(1 - a**2) * normal(KEY, DIM)
    now = at(T, alpha * X + sigma * e, process)
    if process == FLOW:
        assert u == pytest.approx(T)
        x_t = (1 - T) * X + T * e
        v = (x_t - now.x0) / T
        mu = X - lam * (v - (e - X))
        assert_close(noise, x_t + (1 - T) * v)
    else:
        mu = X - lam / u * (X - now.x0)
        assert_close(noise, now.eps)
    assert_close(still, mu)
    for _ in range(3):
        mu = mu + 0.05 * lam * MATRIX.T @ (Y - MATRIX @ mu)
    assert_close(mean, mu)
    assert_close(info.residual, np.linalg.norm(Y - MATRIX @ mu))
    assert (int(info.cost.nfe), int(info.cost.vjps), int(info.cost.calls)) == (1, 0, 7)


def test_it_starts_at_the_pseudoinverse():
    prior, m = problem()
    sampler = posterior.flair(prior, m)
    assert_close(sampler.init(KEY, T, None).mean, PINV @ Y)
    assert_close(sampler.init(KEY, T, jnp.asarray(X)).mean, X / levels(T)[0])
    bent = m.replace(operator=operators.function(lambda x: x[:3] ** 3, (DIM,)))
    assert_close(posterior.flair(prior, bent).init(KEY, T, None).mean, np.zeros(DIM))


@pytest.mark.parametrize("process", [FLOW, PROCESS], ids=["flow", "vp"])
def test_velocity_errors_of_a_gaussian_are_known(process):
    """`c / ((1 - u)^2 c + u^2)` for N(0, c), whatever the process; clocks and times are each other's inverse."""
    c, n = 0.3, 5
    prior = di.gaussian(process, jnp.zeros(2), c * jnp.eye(2))
    x0 = jnp.sqrt(c) * jax.random.normal(KEY, (4000, 2))
    found = np.asarray(jax.jit(lambda k, x0: calibration.velocity_errors(k, prior, x0, n))(KEY, x0))
    u = np.array([float(calibration.clock(process, jnp.asarray(1.0))), 0.75, 0.5, 0.25, 1e-3])
    np.testing.assert_allclose(found, c / ((1 - u) ** 2 * c + u**2), rtol=5 * np.sqrt(2 / 8000))
    back = calibration.clock(process, calibration.clocked(process, jnp.asarray(u[1:])))
    np.testing.assert_allclose(back, u[1:], rtol=1e-6)


def test_calibration_is_that_of_the_published_code():
    """At its own levels; of mean 1 before the shift, at 0 nothing, and never below it."""
    even = np.linspace(0, 1, 5)
    found = np.asarray(calibration.calibrated(jnp.asarray(ERRORS), jnp.asarray(even)))
    assert_close(found, worth(even))
    assert found[0] == 0 and (found >= 0).all() and found.argmax() == 2
    assert_close(calibration.calibrated(None, jnp.asarray(even)), 2 * even)
    rising = calibration.calibrated(jnp.asarray(ERRORS[::-1].copy()), jnp.asarray(even))
    assert (np.asarray(rising) >= 0).all() and float(rising[-1]) == 0


def law_of(grid, weight, iterations, lr, y, seen):
    """Mean and variance of what it ends with, for N(0, 1) and `y = x + e`, or where nothing is seen; no early stop.

    A row holds a number's constant and its share of each normal that was drawn.
    """
    one, *fresh = np.eye(2 + len(grid))
    draw = iter(fresh)
    mean, noise = (y if seen else 0.0) * one, next(draw)
    for t in grid[:-1]:
        a, lam = 1 - t, weight * 2 * t
        x = (1 - t) * mean + t * (a * noise + np.sqrt(1 - a**2) * next(draw))
        x0 = (1 - t) / ((1 - t) ** 2 + t**2) * x
        noise = (x - (1 - t) * x0) / t
        mean = mean - lam / t * (mean - x0)
        keep = (1 - lr * lam * seen) ** iterations
        mean = keep * mean + (1 - keep) * (y if seen else 0.0) * one
    return mean[0], mean[1:] @ mean[1:]


def test_the_law_that_it_ends_with():
    """Of a seen and of an unseen coordinate, by the affine recursion; what the published times leave is no draw."""
    prior = di.gaussian(FLOW, jnp.zeros(2), jnp.eye(2))
    m = di.Measurement(operators.dense(jnp.asarray([[1.0, 0.0]])), jnp.asarray([1.5]), di.GaussianNoise(0.5))
    grid = np.append(np.linspace(1, 0.18, 12)[1:-1], 0.0)
    solver = di.as_solver(lambda m: posterior.flair(prior, m, 0.4, None, 1.0, 2, 0.1, 0.0), jnp.asarray(grid))
    x = np.asarray(jax.jit(jax.vmap(solver, (0, None)), compiler_options=FAST)(jax.random.split(KEY, 4000), m).x)
    for i, seen in enumerate((True, False)):
        mean, variance = law_of(grid, 0.4, 2, 0.1, 1.5, seen)
        assert abs(x[:, i].mean() - mean) < 4.5 * np.sqrt(variance / 4000)
        np.testing.assert_allclose(x[:, i].var(), variance, rtol=4.5 * np.sqrt(2 / 4000))
    published = np.append(np.linspace(1, 0.18, 52)[1:-1], 0.0)
    mean, variance = law_of(published, 0.5, 15, 1.0, 1.5, True)
    assert mean == pytest.approx(1.5, abs=1e-3) and variance < 3e-5, "the posterior is N(1.2, 0.2)"
    assert law_of(published, 0.5, 15, 1.0, 1.5, False)[1] == pytest.approx(0.768, abs=1e-3)


def test_what_does_not_fit_is_named():
    prior, m = problem()
    with pytest.raises(ValueError, match=r"errors has shape \(2, 2\); give \(n,\), as of calibration"):
        posterior.flair(prior, m, errors=jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="count is 1; it must be a whole number"):
        calibration.velocity_errors(KEY, prior, jnp.ones((3, DIM)), 1)
