"""DAPS++: both of its starts by hand, and the law of all its steps on a Gaussian, by recursion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from oracle import Law, moment_errors

import diffinv as di
from diffinv import operators, posterior, times
from posterior.published import (
    DIM,
    MATRIX,
    PROCESS,
    SIGMA,
    X,
    Y,
    at,
    levels,
    normal,
    problem,
    step,
)

KEY, T, NEXT = jax.random.key(5), 0.5, 0.35


def eps(v, s):
    """The noise seen in `v = x_0 + s e`."""
    t = float(times.from_sigma(PROCESS, jnp.asarray(s)))
    return at(t, levels(t)[0] * v).eps


def walked(key, x0, iterations, lr):
    """Langevin on the likelihood alone."""
    eta = lr * SIGMA**2
    for k in jax.random.split(key, iterations):
        x0 = x0 + eta * MATRIX.T @ (Y - MATRIX @ x0) / SIGMA**2 + np.sqrt(2 * eta) * normal(k, DIM)
    return x0


@pytest.mark.parametrize("noisy", [True, False])
def test_a_step_is_its_formula(noisy):
    """Above the threshold the denoised mean; below it one step of fourth order, by the textbook's tableau."""
    prior, m = problem()
    alpha, sigma = levels(T)
    level = sigma / alpha
    switch = (0.99 if noisy else 1.01) * level / SIGMA
    x, info = step(posterior.dapspp(prior, m, 3, 0.1, switch, 0.05), KEY, T, NEXT)
    if noisy:
        x0 = at(T).x0
    else:
        v, h, middle = X / alpha, level - 0.05, (level + 0.05) / 2
        k1 = at(T).eps
        k2 = eps(v - h / 2 * k1, middle)
        k3 = eps(v - h / 2 * k2, middle)
        x0 = v - h / 6 * (k1 + 2 * k2 + 2 * k3 + eps(v - h * k3, 0.05))
    walk, noise = jax.random.split(KEY)
    x0, (a, s) = walked(walk, x0, 3, 0.1), levels(NEXT)
    np.testing.assert_allclose(x, a * x0 + s * normal(noise, DIM), rtol=1e-7)
    np.testing.assert_allclose(info.residual, np.linalg.norm(Y - MATRIX @ x0), rtol=1e-7)
    assert (int(info.cost.nfe), int(info.cost.vjps), int(info.cost.calls)) == (1 if noisy else 4, 0, 7)


def test_the_chain_is_that_of_daps_without_its_anchor():
    """DAPS with one step of its ODE and an inner law as wide as a float allows draws the same."""
    prior, m = problem()
    ours, _ = step(posterior.dapspp(prior, m, 4, 0.1, 0.0), KEY, T, NEXT)
    level = levels(T)[1] / levels(T)[0]
    chain = di.posterior.chains.langevin(4, 0.1)
    theirs, _ = step(posterior.daps(prior, m, 1, chain, sigma_end=1e-9, spread=1e12), KEY, T, NEXT)
    assert level > 0.5
    np.testing.assert_allclose(ours, theirs, atol=1e-7)


def law_of(grid, iterations, lr, switch, end):
    """Mean and covariance of two coordinates, the first of which is seen with y = 1; the prior is N(0, 1)."""
    (mean, variance), seen = (np.zeros(2), np.ones(2) * levels(grid[0])[1] ** 2), np.array([1.0, 0.0])
    for t, s in zip(grid[:-1], grid[1:]):
        (a, sigma), (a_s, sigma_s) = levels(t), levels(s)
        level = sigma / a
        slope = lambda s: s / (1 + s**2)  # eps = slope v
        if level > switch * SIGMA:
            start = a / (a**2 + sigma**2)
        else:
            h, k1 = level - min(level, end), slope(level)
            k2 = slope(level - h / 2) * (1 - h / 2 * k1)
            k3 = slope(level - h / 2) * (1 - h / 2 * k2)
            start = (1 - h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(level - h) * (1 - h * k3))) / a
        mean, variance = start * mean, start**2 * variance
        for _ in range(iterations):
            mean = mean + lr * seen * (1.0 - mean)
            variance = (1 - lr * seen) ** 2 * variance + 2 * lr * SIGMA**2
        mean, variance = a_s * mean, a_s**2 * variance + sigma_s**2
    return Law(mean, np.diag(variance))


def test_its_law_and_its_biases():
    """By recursion; what is seen is y within its noise, what is not carries the last walk's."""
    grid = np.linspace(1, 0, 9) ** 2
    prior = di.gaussian(PROCESS, jnp.zeros(2), jnp.eye(2))
    m = di.Measurement(operators.dense(jnp.asarray([[1.0, 0.0]])), jnp.ones(1), di.GaussianNoise(SIGMA))
    solver = di.as_solver(lambda m: posterior.dapspp(prior, m, 4, 0.5, 3.0, 0.01), jnp.asarray(grid))
    x = np.asarray(jax.jit(jax.vmap(solver, (0, None)), compiler_options=FAST)(jax.random.split(KEY, 4000), m).x)
    law = law_of(grid, 4, 0.5, 3.0, 0.01)
    assert max(moment_errors(x, law)) < 4.5
    fine = law_of(np.linspace(1, 0, 400) ** 2, 60, 0.02, 10.0, 1e-3)
    np.testing.assert_allclose(fine.covariance[0, 0], SIGMA**2 / (1 - 0.01), rtol=0.2)
    assert fine.mean[0] > 0.99 > 1 / (1 + SIGMA**2), "the posterior's mean is shrunk, this is not"
    assert fine.covariance[1, 1] > 2 * 60 * 0.02 * SIGMA**2
