r"""How far a prior's velocity is off at each noise level, and what a regulariser is worth there.

Levels are counted by rectified flow's clock `u = sigma / (alpha + sigma)`, which is the time under `Flow`: in
`x_t / (alpha + sigma) = (1 - u) x_0 + u e` the velocity is `e - x_0`, and it is off by `(x_0 - E[x_0 | x_t]) / u`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from diffinv.checks import require_count
from diffinv.prior import Prior
from diffinv.process import Process
from diffinv.times import from_sigma
from diffinv.typing import Array, Key, Time

LEAST = 1e-3
"""The clock at which an error at 0 is measured: there the velocity is the noise, which nobody knows."""


def clock(process: Process, t: Time) -> Array:
    """`sigma / (alpha + sigma)`, of an isotropic process; original."""
    return process.sigma(t) / (process.alpha(t) + process.sigma(t))


def clocked(process: Process, u: Array) -> Array:
    """The times at which an isotropic process has these clocks: `clock`'s inverse; original."""
    return from_sigma(process, u / jnp.maximum(1 - u, jnp.finfo(u.dtype).tiny))


def velocity_errors(key: Key, prior: Prior, x0: Array, count: int = 100) -> Array:
    """The mean square error of the velocity at `count` even clocks from 1 to 0, over clean samples and coordinates.

    Source: Erbach et al. 2025, arXiv:2506.02680, whose code has such an array, (100,), for each of its networks.

    Args:
      key: of the noise.
      prior: with an isotropic process.
      x0: (N, *shape), clean samples that the prior was not trained on.
      count: static, at least 2.

    Returns (count,). Raises ValueError for a count under 2.
    """
    require_count("count", count, 2)
    clocks = jnp.maximum(jnp.linspace(1, 0, count, dtype=x0.dtype), LEAST)
    times = clocked(prior.process, clocks).astype(x0.dtype)

    def error(k: Array, x0: Array, t: Array) -> Array:
        off = x0 - prior.denoise(prior.process.perturb(x0, t).sample(k), t)
        return jnp.mean((off / clock(prior.process, t)) ** 2)

    at = lambda k, t: jnp.mean(jax.vmap(error, (0, 0, None))(jax.random.split(k, len(x0)), x0, t))
    return jax.lax.map(lambda now: at(*now), (jax.random.split(key, count), times))


def calibrated(errors: Array | None, u: Array) -> Array:
    """The weight of a regulariser at the clock u: that of `1 / error`, of mean 1 over clocks, over its value at 0.

    Without errors it is `2 u`, which has mean 1 and is 0 at the data, too.

    Source: Erbach et al. 2025, arXiv:2506.02680, as their code reads, linear between its levels. Differs: `2 u`, and
    the nearest level there.
    """
    if errors is None:
        return 2 * u
    worth = 1 / (errors + 1e-7)
    worth = jnp.flip(worth) / jnp.mean(worth)
    even = jnp.linspace(0, 1, len(worth), dtype=worth.dtype)
    return jnp.interp(u.astype(worth.dtype), even, jnp.maximum(worth - worth[0], 0.0)).astype(u.dtype)
