r"""Weighted particles: normalised log weights, effective sample size and resampling.

Weights are logarithms in float32, whatever the particles are; all of it is sums and comparisons along the one particle
axis, so that particles may be spread over devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffinv.typing import Array, Key

Scheme = Callable[[Key, Array], Array]


def normalised(log_weights: Array) -> Array:
    """`log_weights` (N,) in float32, less their log-sum-exp. NaN where none is finite or one is NaN or +inf."""
    log_weights = log_weights.astype(jnp.float32)
    return log_weights - jax.nn.logsumexp(log_weights)


def effective_size(log_weights: Array) -> Array:
    """`(sum w)^2 / sum w^2` of (N,): from 1, one particle has it all, to N.

    Source: Kong, Liu & Wong 1994.
    """
    return jnp.exp(-jax.nn.logsumexp(2 * normalised(log_weights)))


def equal_weights(size: int) -> Array:
    """Equal log weights (N,) in float32."""
    return jnp.full(size, -jnp.log(float(size)), jnp.float32)


def pick(key: Key, log_weights: Array, particles: Array) -> Array:
    """One of the particles (N, ...), by its weight."""
    return particles[jax.random.categorical(key, normalised(log_weights))]


def systematic(key: Key, log_weights: Array) -> Array:
    """Indices (N,), int32, increasing: particle i comes `floor(N w_i)` or `ceil(N w_i)` times, `N w_i` on average.

    Source: Kitagawa 1996, one uniform number for all: `#{k: (k + u) / N < w_1 + ... + w_i}` up to particle i.
    """
    size = len(log_weights)
    heights = size * jnp.cumsum(jnp.exp(normalised(log_weights)))
    upto = jnp.clip(jnp.ceil(heights - jax.random.uniform(key, (), jnp.float32)), 0, size).astype(jnp.int32)
    starts = jnp.where(jnp.diff(upto, prepend=0) > 0, jnp.concatenate([jnp.zeros(1, jnp.int32), upto[:-1]]), size)
    first = jnp.zeros(size, jnp.int32).at[starts].max(jnp.arange(size, dtype=jnp.int32), mode="drop")
    return jax.lax.cummax(first)


def multinomial(key: Key, log_weights: Array) -> Array:
    """Indices (N,), int32: N independent draws. Noisier than `systematic`. Source: Gordon, Salmond & Smith 1993."""
    size = len(log_weights)
    heights = jnp.cumsum(jnp.exp(normalised(log_weights)))
    points = jax.random.uniform(key, (size,), jnp.float32) * heights[-1]
    return jnp.minimum(jnp.searchsorted(heights, points, side="right"), size - 1).astype(jnp.int32)


def resampled(
    key: Key, log_weights: Array, particles: Any, threshold: float = 1.0, scheme: Scheme = systematic
) -> tuple[Array, Any]:
    """The weights and the particles (N, ...) after resampling where the effective size is at most `threshold N`.

    Resampled particles have equal weights `-log N`; others keep theirs, normalised. `threshold` 1 always resamples, 0
    never does. `scheme` (static): `systematic`, `multinomial` or one's own. Source: Kong, Liu & Wong 1994.
    """
    size = len(log_weights)
    due = effective_size(log_weights) <= threshold * size if threshold < 1 else jnp.isfinite(jnp.max(log_weights))
    index = jnp.where(due, scheme(key, log_weights), jnp.arange(size, dtype=jnp.int32))
    even = jnp.full(size, -jnp.log(float(size)), jnp.float32)
    kept = normalised(log_weights)
    return jnp.where(due, even + 0 * kept, kept), jax.tree.map(lambda leaf: leaf[index], particles)
