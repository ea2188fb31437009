"""How moment matching meets the covariance of y, as values: `tmpd(prior, measurement, moments.diagonal)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from diffinv.operators.base import divide
from diffinv.typing import Array

Spread = Callable[[Array], Array]


@dataclass(frozen=True)
class Moment:
    """A solution of `(A Cov A^H + variance I) u = r` or near it, for a real vector r: `moment(spread, r, variance)`.

    Attributes:
      solve: `(spread, r, variance) -> u`, where `spread(u)` is `A Cov A^H u`, one pullback.
      name: what it is called here.
      whole: whether it spreads every unit vector of y, or one vector alone.
    """

    solve: Callable[[Spread, Array, Array | float], Array]
    name: str
    whole: bool = True

    def __call__(self, spread: Spread, r: Array, variance: Array | float) -> Array:
        return self.solve(spread, r, variance)

    def __repr__(self) -> str:
        return f"moments.{self.name}"


def _exact(spread: Spread, r: Array, variance: Array | float) -> Array:
    C = jax.vmap(spread)(jnp.eye(r.size, dtype=r.dtype))
    unseen = jnp.where(jnp.diag(C) + variance > 0, 0.0, 1.0).astype(r.dtype)
    wide = jnp.float32 if jnp.finfo(r.dtype).bits < 32 else r.dtype  # LAPACK has no half precision
    matrix = (0.5 * (C + C.T) + jnp.diag(variance + unseen)).astype(wide)
    solved = jnp.linalg.solve(matrix, r.astype(wide))  # no Cholesky: a network's Jacobian may be indefinite
    return solved.astype(r.dtype)


def _entries(spread: Spread, r: Array, variance: Array | float) -> Array:
    entry = lambda e: jnp.sum(e * spread(e))
    return divide(r, jnp.maximum(jax.lax.map(entry, jnp.eye(r.size, dtype=r.dtype)), 0.0) + variance)


def _diagonal(spread: Spread, r: Array, variance: Array | float) -> Array:
    return divide(r, jnp.maximum(spread(jnp.ones_like(r)), 0.0) + variance)


exact = Moment(_exact, "exact")
"""The matrix itself, by a pullback for every number of y."""

entries = Moment(_entries, "entries")
"""Its diagonal alone, by as many."""

diagonal = Moment(_diagonal, "diagonal", whole=False)
"""Its row sums in place of the diagonal, by one pullback: for masks and other operators whose rows hardly overlap.
Negative row sums are cut at 0, and without much noise the guidance blows up."""

KNOWN = {moment.name: moment for moment in (exact, entries, diagonal)}
"""The three that TMPD's code has, by name."""
