"""MGDM: a step by NumPy, and the law of all its steps on a Gaussian where what it fits is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST

import diffinv as di
from diffinv import operators, posterior
from diffinv.posterior.variational import MixtureState
from posterior.published import DIM, MATRIX, PROCESS, SIGMA, X, Y, ancestral, assert_close, at, levels, normal, problem
from posterior.published import step as stepped

levels = functools.cache(levels)
KEY, ABOVE, T, NEXT = jax.random.key(5), 0.65, 0.5, 0.35


def adam(gradient, x, steps, lr):
    m, v = np.zeros_like(x), np.zeros_like(x)
    for k in range(1, steps + 1):
        g = gradient(x, k)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - lr * m / (1 - 0.9**k) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
    return x


def reverse(x, x0, t, s):
    now = at(t, x)
    return ancestral(now._replace(x0=x0, eps=(x - now.alpha * x0) / now.sigma), x, s)


def bridged(x, middle, t, s, low):
    """`p(x_s | x_low, x_t)` by its two precisions."""
    (a_l, s_l), (a_s, s_s), (a_t, s_t) = levels(low), levels(s), levels(t)
    up, on = a_s / a_l, a_t / a_s
    below, above = s_s**2 - up**2 * s_l**2, s_t**2 - on**2 * s_s**2
    variance = 1 / (1 / below + on**2 / above)
    return variance * (up * middle / below + on * x / above), np.sqrt(variance)


@pytest.mark.parametrize("threshold", [0.4, 0.6], ids=["drawn", "next"])
def test_a_step_is_its_formula(threshold):
    """With two sweeps: the second starts where the first left x_t and x_0."""
    prior, m = problem()
    state = MixtureState(jnp.asarray(X), jnp.asarray(0.7 * X + 0.2), jnp.asarray(ABOVE))
    sampler = posterior.mgdm(prior, m, 3, 0.05, 2, 2, threshold, 0.1)
    (x, x0, time), info = stepped(sampler, KEY, T, NEXT, state)
    start, drawing, gibbs = jax.random.split(KEY, 3)
    mean, std = reverse(X, 0.7 * X + 0.2, ABOVE, T)
    now, clean = mean + std * normal(start, DIM), 0.7 * X + 0.2
    u = float(jax.random.uniform(drawing, (), jnp.float64))
    tau = NEXT + (0.1 - NEXT) * u if threshold < T else NEXT
    for key in jax.random.split(gibbs, 2):
        fit, draw, chain, bridge = jax.random.split(key, 4)
        noises = [normal(jax.random.fold_in(fit, i), DIM) for i in range(3)]
        mean, std = reverse(now, clean, T, tau)

        def gradient(q, k, mean=mean, std=std, noises=noises):
            e = noises[k - 1]
            low = at(tau, q[0] + std * np.exp(q[1]) * e)
            back = -low.J.T @ MATRIX.T @ (Y - MATRIX @ low.x0) / SIGMA**2
            return np.stack([(q[0] - mean) / std**2 + back, np.exp(2 * q[1]) - 1 + back * std * np.exp(q[1]) * e])

        centre, w = adam(gradient, np.stack([mean, np.zeros(DIM)]), 3, 0.05)
        middle = centre + std * np.exp(w) * normal(draw, DIM)
        first, _ = jax.random.split(chain, 2)
        half, c = ancestral(at(tau, middle), middle, tau / 2)
        clean = at(tau / 2, half + c * normal(first, DIM)).x0
        mean, std = bridged(X, middle, ABOVE, T, tau)
        now = mean + std * normal(bridge, DIM)
    np.testing.assert_allclose(x, now, rtol=1e-7)
    np.testing.assert_allclose(x0, clean, rtol=1e-7)
    assert float(time) == T
    assert (int(info.cost.nfe), int(info.cost.vjps), int(info.cost.calls)) == (10, 6, 13)


def test_the_first_step_starts_at_the_denoised_mean_and_keeps_its_noise():
    prior, m = problem()
    sampler = posterior.mgdm(prior, m, 1, 0.0, denoise_steps=1, threshold=2.0)
    (x, x0, _), info = stepped(sampler, KEY, T, NEXT, sampler.init(KEY, T, jnp.asarray(X)))
    fit_key = jax.random.split(jax.random.split(jax.random.split(KEY, 3)[2], 1)[0], 4)[1]
    mean, std = ancestral(at(T), X, NEXT)
    assert_close(x, X)
    assert_close(x0, at(NEXT, mean + std * normal(fit_key, DIM)).x0)
    assert int(info.cost.nfe) == 3
    assert_close(sampler.final(KEY, MixtureState(x, x0, jnp.asarray(T))), x0)


def law_of(grid, denoise_steps, precision=0.0, y=0.0):
    """Mean and variance of x_0 for a prior N(0, 1), y = x + e with e of that precision, tau the next time, q exact.

    `x0(x_tau)` is `alpha x_tau`, so that q is `N(m, v)` with `1 / v = 1 / std^2 + alpha^2 precision`. All is affine in
    independent normals: a row holds a number's constant and its share of each.
    """
    one, *fresh = np.eye(2 + len(grid) * (denoise_steps + 3))
    draw = iter(fresh)

    def back(x, x0, t, s):
        (a, sigma), (a_s, sigma_s) = levels(t), levels(s)
        c = sigma_s * np.sqrt(1 - (a * sigma_s / (a_s * sigma)) ** 2)
        return a_s * x0 + np.sqrt(sigma_s**2 - c**2) / sigma * (x - a * x0), c

    x = levels(grid[0])[1] * next(draw)
    x0, above = levels(grid[0])[0] * x, x
    for r, t, s in zip([None, *grid], grid[:-1], grid[1:]):
        tau = s if s > 0 else 0.5 * t
        if r:
            above = x
            x = sum_of(back(x, x0, r, t), draw)
        (mean, std), a = back(x, x0, t, tau), levels(tau)[0]
        v = 1 / (1 / std**2 + a**2 * precision)
        middle = v * (mean / std**2 + a * precision * y * one) + np.sqrt(v) * next(draw)
        x0 = middle
        for high, low in zip(times := np.linspace(tau, 0, denoise_steps + 1), times[1:]):
            x0 = sum_of(back(x0, levels(high)[0] * x0, high, low), draw)
        if r:
            x = sum_of(bridged(above, middle, r, t, tau), draw)
    return x0[0], x0[1:] @ x0[1:]


def sum_of(law, draw):
    return law[0] + law[1] * next(draw)


def solved(y, precision, grid, draws, **options):
    prior = di.gaussian(PROCESS, jnp.zeros(1), jnp.eye(1))
    m = di.Measurement(operators.identity((1,)), jnp.asarray([y]), di.GaussianNoise(precision**-0.5))
    solver = di.as_solver(lambda m: posterior.mgdm(prior, m, threshold=2.0, **options), jnp.asarray(grid))
    x = jax.jit(jax.vmap(solver, (0, None)), compiler_options=FAST)(jax.random.split(KEY, draws), m).x
    return float(x.mean()), float(x.var())


def test_without_a_pull_it_keeps_the_prior():
    """By the recursion; with ever finer reverse chains N(0, 1), with one step of them what a mean leaves."""
    grid = np.linspace(1, 0, 6) ** 2
    mean, variance = law_of(grid, 3)
    found = solved(3.0, 1.0, grid, 1500, lr=0.0, iterations=1, denoise_steps=3)
    assert mean == 0 and abs(found[0]) < 4.5 * np.sqrt(variance / 1500)
    np.testing.assert_allclose(found[1], variance, rtol=4.5 * np.sqrt(2 / 1500))
    coarse, fine, finer = (law_of(np.linspace(1, 0, 20), steps)[1] for steps in (1, 20, 40))
    assert coarse < 0.65 and 0.93 < fine < finer < 1 and 1.7 < (1 - fine) / (1 - finer) < 2.2


def test_with_a_fit_it_has_the_law_of_its_mixture():
    """Adam's noise apart, which falls with its rate; and that is not the posterior's, N(1.2, 0.2), however fine."""
    grid, draws = np.linspace(1, 0, 6) ** 2, 500
    mean, variance = law_of(grid, 3, 4.0, 1.5)
    found = solved(1.5, 4.0, grid, draws, lr=0.01, iterations=150, denoise_steps=3)
    assert abs(found[0] - mean) < 4.5 * np.sqrt(variance / draws) < 0.15 * mean
    np.testing.assert_allclose(found[1], variance, rtol=4.5 * np.sqrt(2 / draws))
    np.testing.assert_allclose(law_of(np.linspace(1, 0, 101), 10, 4.0, 1.5), (1.27, 0.255), atol=0.005)
