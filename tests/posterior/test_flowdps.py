"""FlowDPS by hand under its own flow and another process, and what its bias is on a Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST

import diffinv as di
from diffinv import operators, posterior
from diffinv.posterior import rewards
from posterior.published import DIM, MATRIX, PROCESS, X, Y, assert_close, at, levels, normal, problem, step

KEY, T, NEXT, FLOW = jax.random.key(5), 0.6, 0.45, di.process.Flow()


@pytest.mark.parametrize("process", [FLOW, PROCESS], ids=["flow", "vp"])
def test_flowdps_is_its_formula(process):
    """Under a flow, in its authors' words: z1 = x + (1 - t) v, z = z0 + s (noise - z0)."""
    prior, m = problem(process=process)
    x_s, info = step(posterior.flowdps(prior, m, 0.3, 2), KEY, T, NEXT)
    now, (a_s, sigma_s), z = at(T, X, process), levels(NEXT, process), normal(KEY, DIM)
    drawn = now.x0
    for _ in range(2):
        residual = Y - MATRIX @ drawn
        drawn = drawn + 0.3 * MATRIX.T @ residual / np.linalg.norm(residual)
    u, u_s = now.sigma / (now.alpha + now.sigma), sigma_s / (a_s + sigma_s)
    fitted = (1 - u) * now.x0 + u * drawn
    if process == FLOW:
        assert (u, u_s) == pytest.approx((T, NEXT))
        v = (X - now.x0) / T
        noise = np.sqrt(NEXT) * (X + (1 - T) * v) + np.sqrt(1 - NEXT) * z
        assert_close(x_s, fitted + NEXT * (noise - fitted))
    else:
        assert_close(x_s, a_s * fitted + sigma_s * (np.sqrt(u_s) * now.eps + np.sqrt(1 - u_s) * z))
    assert_close(info.residual, np.linalg.norm(Y - MATRIX @ fitted))


def test_its_bias_on_a_gaussian_is_too_little_variance():
    """Of N(0, 1) and no pull each step is `x_s = c x_t + d z`: by that recursion 28 % of the variance is left out.

    A mean stands in the place of x_0, and fresh noise in that of what x_t still knew of it.
    """
    prior = di.gaussian(FLOW, jnp.zeros(1), jnp.eye(1))
    m = di.Measurement(operators.identity((1,)), jnp.asarray([4.0]), di.GaussianNoise(0.5))
    grid, variance = np.linspace(1, 0, 41), 1.0
    for t, s in zip(grid[:-1], grid[1:]):
        g = (1 - t) / ((1 - t) ** 2 + t**2)
        eps = (1 - (1 - t) * g) / t
        variance = ((1 - s) * g + s * np.sqrt(s) * eps) ** 2 * variance + s**2 * (1 - s)
    solver = di.as_solver(lambda m: posterior.flowdps(prior, m, 0.0), jnp.asarray(grid))
    x = np.asarray(jax.jit(jax.vmap(solver, (0, None)), compiler_options=FAST)(jax.random.split(KEY, 4000), m).x)
    assert abs(x.mean()) < 4.5 * np.sqrt(variance / 4000)
    np.testing.assert_allclose(x.var(), variance, rtol=4.5 * np.sqrt(2 / 4000))
    assert 0.71 < variance < 0.72


def test_what_does_not_fit_is_named():
    prior, m = problem()
    with pytest.raises(ValueError, match="iterations is 0; it must be a whole number"):
        posterior.flowdps(prior, m, iterations=0)
    with pytest.raises(TypeError, match="reward is 'norm'; give a value, not a name: posterior.rewards.norm"):
        posterior.flowdps(prior, m, reward="norm")
    with pytest.raises(ValueError, match="sigma_y is 0.0"):
        posterior.flowdps(prior, m.replace(noise=di.GaussianNoise(0.0)), reward=rewards.likelihood)
