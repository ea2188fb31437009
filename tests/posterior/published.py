"""What the tests of published updates share: a Gaussian prior whose denoiser is affine, and one step of a sampler.

`x0 = m + G (x - alpha m)` with `G = alpha C (alpha^2 C + sigma^2)^{-1}`, so that `J = dx0/dx_t = G` is known to NumPy.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from oracle import random_covariance

import diffinv as di
from diffinv import operators

DIM, ROWS, SIGMA = 5, 3, 0.3
RNG = np.random.default_rng(4)
MEAN, COVARIANCE = RNG.standard_normal(DIM), random_covariance(RNG, DIM)
MATRIX = RNG.standard_normal((ROWS, DIM)) * np.array([[2.0], [1.0], [0.3]])
Y, X = RNG.standard_normal(ROWS), RNG.standard_normal(DIM)
U, S, VH = np.linalg.svd(MATRIX)
PINV = np.linalg.pinv(MATRIX)
PROCESS = di.process.VP()


def problem(sigma=SIGMA, process=PROCESS):
    prior = di.gaussian(process, jnp.asarray(MEAN), jnp.asarray(COVARIANCE))
    return prior, di.Measurement(operators.dense(jnp.asarray(MATRIX)), jnp.asarray(Y), di.GaussianNoise(sigma))


class At(NamedTuple):
    """What the published formulae name at one time: alpha, sigma, the denoised mean, its Jacobian and the noise."""

    alpha: float
    sigma: float
    x0: np.ndarray
    J: np.ndarray
    eps: np.ndarray


def at(t, x=X, process=PROCESS):
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    J = alpha * COVARIANCE @ np.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * np.eye(DIM))
    x0 = MEAN + J @ (x - alpha * MEAN)
    return At(alpha, sigma, x0, J, (x - alpha * x0) / sigma)


def levels(s, process=PROCESS):
    return float(process.alpha(s)), float(process.sigma(s))


def ancestral(now, x, s, eta=1.0):
    """Mean and deviation of DDIM's step with VP's coefficients, by the abar of the papers."""
    a_s, _ = levels(s)
    abar, abar_s = now.alpha**2, a_s**2
    c = eta * np.sqrt((1 - abar_s) / (1 - abar) * (1 - abar / abar_s))
    return a_s * now.x0 + np.sqrt(1 - abar_s - c**2) * now.eps, c


def normal(key, *shape):
    return np.asarray(jax.random.normal(key, shape, jnp.float64))


def step(sampler, key, t, s, state=None, compiled=False):
    """One step in float64; the state is `X` unless given. Returns the new state and the info."""
    state = jnp.asarray(X) if state is None else state
    run = jax.jit(sampler.step) if compiled else sampler.step
    return run(key, state, jnp.asarray(t), jnp.asarray(s))


def assert_close(a, b):
    assert np.shape(a) == np.shape(b)
    np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
