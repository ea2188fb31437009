"""Matrix-free linear algebra on arrays of any shape, complex-correct; and the orthonormal DCT."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp

from diffinv.fft import dct2, idct2
from diffinv.typing import Array, Key

LOST = 1e18
"""A number whose square is no float32 any more: norms of what holds one overflow."""


def inner(a: Array, b: Array) -> Array:
    """`Re <a, b>` over all coordinates: a real scalar."""
    return jnp.sum(jnp.real(jnp.conj(a) * b))


def norm(x: Array) -> Array:
    """The 2-norm over all coordinates, with gradient 0 at 0 (where `jnp.linalg.norm` gives NaN); NaN stays NaN."""
    square = inner(x, x)
    return jnp.where(square == 0, 0.0, jnp.sqrt(jnp.where(square == 0, 1.0, square)))


def square_distances(x: Array, centres: Array, scale: Array | float, spread: Array) -> Array:
    """`|x - scale c_k|^2` for K centres (K, *shape), to be divided by `spread` (K,): shape (K,).

    The distances come from one matrix product. At little noise its rounding would be seen in the quotient; there they
    come from the differences themselves. Which of the two is used depends on `scale` and `spread` alone, so that vmap
    over x keeps the choice.
    """
    flat, eps = centres.reshape(len(centres), -1), jnp.finfo(x.dtype).eps
    norms = scale**2 * jnp.sum(flat**2, axis=1)

    def product() -> Array:
        cross = jnp.dot(x.ravel(), flat.T, precision="highest")  # in this order: vmap then keeps examples in rows
        return jnp.sum(x**2) - 2 * scale * cross + norms

    def differences() -> Array:
        return jnp.sum((x.ravel()[None] - scale * flat) ** 2, axis=1)

    seen = float(eps) * jnp.max(norms) > (1e-3 + 4 * float(eps) * x.size) * jnp.min(spread)
    return jax.lax.cond(seen, differences, product)


def added(parts: Iterable[Array]) -> Array:
    """The sum of at least one array; `sum` of none would be a Python 0."""
    return functools.reduce(operator.add, parts)


def _times(a: Array, x: Array) -> Array:
    """A real scalar times a real or complex array."""
    return a.astype(x.dtype) * x


def cg(matrix: Callable[[Array], Array], b: Array, iterations: int, tolerance: float = 0.0) -> Array:
    """Solves `M u = b` for a Hermitian positive semi-definite `M` by conjugate gradients from 0.

    The number of `iterations` is fixed (static), so that the result can be differentiated and vmapped. A system whose
    residual has fallen below `tolerance |b|` changes no more. A value that is not finite gives NaN.

    Source: Hestenes & Stiefel 1952.
    """
    whole = inner(b, b)
    floor = (jnp.maximum(tolerance, 4 * jnp.finfo(b.dtype).eps) ** 2) * jnp.where(jnp.isfinite(whole), whole, jnp.nan)

    def step(state: tuple, _: None) -> tuple[tuple, None]:
        u, r, p, rr = state
        mp = matrix(p)
        curvature = inner(p, mp)
        live = ~(rr <= floor) & ~(curvature <= 0)  # NaN lives on, and is the result
        a = jnp.where(live, rr / jnp.where(live, curvature, 1.0), 0.0)
        u, r_next = u + _times(a, p), r - _times(a, mp)
        rr_next = inner(r_next, r_next)
        p_next = r_next + _times(jnp.where(live, rr_next / jnp.where(live, rr, 1.0), 0.0), p)
        return jax.tree.map(lambda new, old: jnp.where(live, new, old), (u, r_next, p_next, rr_next), state), None

    return jax.lax.scan(step, (jnp.zeros_like(b), b, b, whole), None, iterations)[0][0]


def spectral_norm(matrix: Callable[[Array], Array], x: Array, iterations: int = 32) -> Array:
    """The largest eigenvalue of a Hermitian positive semi-definite `matrix`, by power iteration from `x`.

    The result is a lower bound, which converges at a rate given by the spectral gap; `iterations` is static.
    """

    def step(v: Array, _: None) -> tuple[Array, Array]:
        w = matrix(v)
        return _times(1 / jnp.maximum(norm(w), jnp.finfo(w.dtype).tiny), w), inner(v, w)

    return jax.lax.scan(step, _times(1 / norm(x), x), None, iterations)[1][-1]


def rademacher(key: Key, x: Array) -> Array:
    """A probe of random signs, of the shape and dtype of `x` (Hutchinson 1990)."""
    return jax.random.rademacher(key, x.shape, x.dtype)


def _leading(transform: Callable[[Array], Array], x: Array) -> Array:
    return jnp.moveaxis(transform(jnp.moveaxis(x, (0, 1), (-2, -1))), (-2, -1), (0, 1))


def dct_hw(x: Array) -> Array:
    """Orthonormal DCT-II over the first two axes of (H, W, ...)."""
    return _leading(dct2, x)


def idct_hw(x: Array) -> Array:
    """The inverse, and transpose, of `dct_hw`."""
    return _leading(idct2, x)
