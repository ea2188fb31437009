r"""A 1-D Levy process with Laplace increments, seen at a few places: exact denoiser, and a Gibbs sampler as reference.

The process is `x = u_1, u_1 + u_2, ...`. It is diffused in its increments u, which are independent: there the denoiser
is known in closed form, and "the process at some places" is a linear operator. The posterior is the same law.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffinv.process import Process
from diffinv.typing import Array, Time


@struct.dataclass
class LaplaceDenoiser:
    r"""Exact for independent `u ~ Laplace(scale)`. With `z = x_t / alpha`, `s = sigma / alpha` and `p = s^2 / scale`,

        E[u | z] = z - p tanh(l / 2),   l = log Phi((z - p) / s) - log Phi(-(z + p) / s) - 2 z / scale

    where l is the log odds of `u > 0`: both halves are normal laws shifted by -+p and cut at 0, and the cut's own terms
    cancel. For `alpha > 0` in float64: near the noisy end p is some thousand times the answer.
    """

    process: Process
    scale: float

    def __call__(self, x: Array, t: Time) -> Array:
        alpha = self.process.alpha(t)
        z, s = x / alpha, self.process.sigma(t) / alpha
        pull, log_cdf = s**2 / self.scale, jax.scipy.special.log_ndtr
        odds = log_cdf((z - pull) / s) - log_cdf(-(z + pull) / s) - 2 * z / self.scale
        return z - pull * jnp.tanh(odds / 2)


def gibbs(
    rng: np.random.Generator,
    A: np.ndarray,
    y: np.ndarray,
    sigma: float,
    scale: float,
    chains: int = 32,
    keep: int = 16,
    thin: int = 20,
    burn: int = 200,
) -> np.ndarray:
    """Posterior draws (rows, chains, keep * thin, d) of `y = A u + sigma n`, `u ~ Laplace(scale)`, many rows at once.

    A Laplace law is a normal one whose variance w is exponential of mean `2 scale^2`. In turn `1 / w` is inverse
    Gaussian given u, and u is drawn given w by one perturbed solve in y's space; every `thin`-th is nearly independent.

    Source: Park & Casella 2008, doi:10.1198/016214508000000337, section 2; the reference of arXiv:2509.12821 too.
    """
    rows, m, d = A.shape
    A, y = A[:, None], y[:, None, :, None]
    u, found = scale * rng.standard_normal((rows, chains, d)), np.empty((rows, chains, keep * thin, d))
    for i in range(-burn, keep * thin):
        w = 1 / rng.wald(1 / (scale * np.maximum(np.abs(u), 1e-4 * scale)), 1 / scale**2)
        z = np.sqrt(w) * rng.standard_normal(u.shape)
        AW = A * w[:, :, None]
        gap = y - A @ z[..., None] - sigma * rng.standard_normal((rows, chains, m, 1))
        inside = AW @ A.transpose(0, 1, 3, 2) + sigma**2 * np.eye(m)
        u = z + (AW.transpose(0, 1, 3, 2) @ np.linalg.solve(inside, gap))[..., 0]
        if i >= 0:
            found[:, :, i] = u
    return found
