"""The (1, 8) instance of MCGDiff's Gaussian mixture, frozen, and what another repository published on it.

benchopts_inverse_problem_diffusion_prior (its results of 2024-03-15): 25 components, one measurement of eight
coordinates; max-sliced W2 over 100 projections between 1,000 samples and 10,000 exact ones; 100 steps, eta 0.6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

import diffinv as di
from diffinv import operators, posterior
from diffinv.posterior.core.resampling import multinomial
from diffinv.process import Process
from diffinv.typing import Array
from experiments.lab.problems import Law
from experiments.lab.problems import posterior as bayes

A = np.array([-0.0162335224, -0.0112689389, -0.0524619594, -0.0180465467, 0.00344864791, -0.0268270802, 0.0588665605,
              0.0361273028])  # fmt: skip
Y, SIGMA = -0.294557095, np.sqrt(2.28184144e-05)
WEIGHTS = np.array([
    0.1335943, 0.0001889311, 0.0002136632, 0.001198763, 0.007806381, 0.09655908, 0.002979425, 0.04470519, 0.2248138,
    0.00609618, 0.01616783, 0.0151707, 0.03193386, 0.03879303, 0.03626112, 0.02471925, 0.001834018, 0.01924471,
    0.1051885, 0.02795353, 0.1102808, 0.001233759, 4.069213e-05, 8.078725e-05, 0.05294165,
])  # fmt: skip
MEANS = np.array([[-8 * i, -8 * j] * 4 for i in range(-2, 3) for j in range(-2, 3)], float)
SAMPLES, REFERENCE, STEPS = 1000, 10_000, 100


@struct.dataclass
class Table(Process):
    """The benchmark's decreasing betas, `linspace(0.02, 1e-4, 999)`: `abar = cumprod([1, 1 - beta])`, at k / 999."""

    log_abar: Array

    def log_alpha(self, t):
        grid = jnp.linspace(0.0, 1.0, len(self.log_abar), dtype=self.log_abar.dtype)
        return 0.5 * jnp.interp(jnp.asarray(t, self.log_abar.dtype), grid, self.log_abar)

    def log_sigma(self, t):
        return 0.5 * jnp.log(-jnp.expm1(2 * self.log_alpha(t)))


def table(dtype=jnp.float32) -> Table:
    """The schedule."""
    beta = np.linspace(0.02, 1e-4, 999)
    return Table(jnp.asarray(np.concatenate([[0.0], np.cumsum(np.log1p(-beta))]), dtype))


@struct.dataclass
class UnitMixture:
    """`E[x_0 | x_t] = alpha x + sigma^2 sum_k r_k m_k`: unit covariances under VP, as the benchmark's score."""

    process: Table
    means: Array
    log_weights: Array

    def __call__(self, x, t):
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        logits = self.log_weights + alpha * jnp.dot(x, self.means.T) - 0.5 * alpha**2 * jnp.sum(self.means**2, 1)
        r = jnp.exp(logits - jax.lax.stop_gradient(jnp.max(logits)))
        return alpha * x + sigma**2 * jnp.dot(r, self.means) / jnp.sum(r)


def instance(dtype=jnp.float32):
    """(prior, measurement, time grid)."""
    process = table(dtype)
    denoise = UnitMixture(process, jnp.asarray(MEANS, dtype), jnp.asarray(np.log(WEIGHTS), dtype))
    prior = di.Prior(process, denoise, (8,))
    operator = operators.dense(jnp.asarray(A[None], dtype))
    measurement = di.Measurement(operator, jnp.asarray([Y], dtype), di.GaussianNoise(jnp.asarray(SIGMA, dtype)))
    grid = jnp.asarray(np.linspace(999, 0, STEPS + 1).round() / 999, dtype)
    return prior, measurement, grid


def exact(rng: np.random.Generator, count: int, y: float = Y) -> np.ndarray:
    """Posterior samples (count, 8)."""
    prior = Law(WEIGHTS / WEIGHTS.sum(), MEANS, np.broadcast_to(np.eye(8), (25, 8, 8)))
    return bayes(prior, A[None], np.array([y]), SIGMA).sample(rng, count)


def another(rng: np.random.Generator, count: int, dtype=jnp.float32) -> tuple[di.Measurement, np.ndarray]:
    """A measurement of another draw from the prior, and posterior samples (count, 8)."""
    y = float(A @ unconditional(rng, 1)[0] + SIGMA * rng.standard_normal())
    return instance(dtype)[1].replace(y=jnp.asarray([y], dtype)), exact(rng, count, y)


def unconditional(rng: np.random.Generator, count: int) -> np.ndarray:
    """Prior samples (count, 8)."""
    return MEANS[rng.choice(25, count, p=WEIGHTS / WEIGHTS.sum())] + rng.standard_normal((count, 8))


def buggy_dps(prior, measurement, zeta=1.0, eta=0.6):
    """The benchmark's DPS with its wrong coefficients: `sqrt(abar_t)` where `sqrt(abar_t / abar_s)`, `_s` belong."""
    process = prior.process

    def step(key, x, t, s):
        def distance(x):
            x0 = prior.denoise(x, t)
            r = measurement.residual(x0)
            return jnp.sum(r**2), (x0, jnp.sqrt(jnp.sum(r**2)))

        (_, (x0, size)), gradient = jax.value_and_grad(distance, has_aux=True)(x)
        abar, abar_s = process.alpha(t) ** 2, process.alpha(s) ** 2
        noise = eta * jnp.sqrt((1 - abar_s) / (1 - abar) * (1 - abar / abar_s))
        mean = jnp.sqrt(abar) * ((1 - abar_s) * x + (1 - abar / abar_s) * x0) / (1 - abar)
        x_s = mean - zeta / size * gradient + noise * jax.random.normal(key, x.shape, x.dtype)
        return x_s, di.StepInfo(di.Cost(1, 1, 2))

    return di.markov(prior, step)


class Row(NamedTuple):
    """A method, the smallest and the largest value that was published of it, and the seeds whose mean is compared."""

    method: Callable[[di.Prior, di.Measurement], di.Sampler]
    least: float
    most: float
    seeds: int


ROWS = {
    "ddrm": Row(lambda prior, m: posterior.ddrm(prior, m, 0.85, 1.0, 1.0), 26.9, 33.1, 4),
    "buggy dps": Row(buggy_dps, 23.1, 29.2, 4),
    "mcgdiff 32": Row(lambda prior, m: posterior.mcgdiff(prior, m, 32, 1e-6, 0.6, multinomial), 18.0, 23.8, 4),
    "mcgdiff 128": Row(lambda prior, m: posterior.mcgdiff(prior, m, 128, 1e-6, 0.6, multinomial), 4.7, 5.82, 4),
    "mcgdiff 32 systematic": Row(lambda prior, m: posterior.mcgdiff(prior, m, 32, 1e-6, 0.6), 2.5, 6.0, 2),
}
"""The last is ours."""
