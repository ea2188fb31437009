"""Clouds of weighted particles: where they start, and what a step tells of them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffinv.describe import described
from diffinv.linalg import norm
from diffinv.measurement import Measurement
from diffinv.posterior.core.resampling import effective_size, normalised
from diffinv.prior import Prior
from diffinv.typing import Array, Cost, Key, Time


@described
class Particles(NamedTuple):
    """A weighted cloud.

    Attributes:
      x: (N, *shape).
      log_weights: (N,), float32, up to a constant.
    """

    x: Array
    log_weights: Array


@described
class ParticleInfo(NamedTuple):
    """What a step tells.

    Attributes:
      cost: of all particles.
      residual: the weighted mean of the particles' `|y - A x0|`.
      effective_size: of the cloud, before resampling.
    """

    cost: Cost
    residual: Array
    effective_size: Array


def started(prior: Prior, key: Key, t: Time, x: Array | None, particles: int) -> Array:
    """N draws of the noisy end, or N copies of a given start."""
    if x is None:
        return jax.vmap(lambda k: prior.start(k, t))(jax.random.split(key, particles))
    return jnp.broadcast_to(x[None], (particles, *x.shape))


def told(cost: Cost, measurement: Measurement, x0: Array, log_weights: Array) -> ParticleInfo:
    """What a step tells of a cloud whose denoised means are `x0` (N, *shape), `cost` being one particle's."""
    residuals = jax.vmap(lambda x0: norm(measurement.residual(x0)))(x0)
    weights = jnp.exp(normalised(log_weights)).astype(residuals.dtype)
    total = cost.plus(calls=1).times(len(x0))
    return ParticleInfo(total, jnp.sum(weights * residuals), effective_size(log_weights))
