r"""Singular value decompositions `A = U diag(s) V^T` as functions, for methods that work coordinate by coordinate.

V is square and real, so that white noise stays white; an operator builds its own by `spectrum()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from diffinv.describe import described
from diffinv.fft import dct2, fft2, idct2, in_planes
from diffinv.typing import Array


@described
class Spectrum(NamedTuple):
    """`A = U diag(s) V^T`; codes are `V^T x`, of any one shape.

    Attributes:
      s: singular values `>= 0`, 0 on the null space (and where the operator counts a small one as lost); broadcasts
        against a code.
      analyse: `V^T x`, an isometry.
      synthesise: `V c`, an isometry.
      observe: `U^T y`, in the shape of a code: 0 where `s` is 0.
    """

    s: Array
    analyse: Callable[[Array], Array]
    synthesise: Callable[[Array], Array]
    observe: Callable[[Array], Array]


def pointwise(gain: Array) -> Spectrum:
    """Of `y = gain x`: its size, and its sign on the left."""

    def same(x: Array) -> Array:
        return x

    return Spectrum(jnp.abs(gain), same, same, lambda y: jnp.sign(gain).astype(y.dtype) * y)


def matrix(u: Array, s: Array, vh: Array, shape: tuple[int, ...]) -> Spectrum:
    """Of a matrix on flattened samples of `shape` by its thin decomposition, V completed to a square; y is (m,)."""
    rank, size = vh.shape
    basis = jnp.concatenate([vh.T, jnp.linalg.qr(vh.T, mode="complete")[0][:, rank:]], 1)
    left = jnp.pad(jnp.where(s > 0, u, 0.0), ((0, 0), (0, size - rank)))
    return Spectrum(
        jnp.pad(s, (0, size - rank)),
        lambda x: _dot(basis.T, x.ravel()),
        lambda c: _dot(basis, c).reshape(shape),
        lambda y: _dot(left.T, y.ravel()),
    )


def blocks(shape: tuple[int, ...], factor: int) -> Spectrum:
    """Of block means: the orthonormal DCT of every block, (H/f, f, W/f, f, C), whose first coefficient is f means."""
    height, width, channels = shape
    split = (height // factor, factor, width // factor, factor, channels)
    first = jnp.zeros((1, factor, 1, factor, 1)).at[:, 0, :, 0].set(1.0)
    return Spectrum(
        first / factor,
        lambda x: _within(dct2, x.reshape(split)),
        lambda c: _within(idct2, c).reshape(shape),
        lambda y: first.astype(y.dtype) * y[:, None, :, None],
    )


def _within(transform: Callable[[Array], Array], code: Array) -> Array:
    """`transform` of the blocks of (H/f, f, W/f, f, C)."""
    return jnp.transpose(transform(jnp.transpose(code, (0, 2, 4, 1, 3))), (0, 3, 1, 4, 2))


def channels(weights: Array) -> Spectrum:
    """Of `sum_c w_c x_c`: a reflection of the channels that takes the first axis to the weights' direction."""
    first = jnp.zeros_like(weights).at[0].set(1.0)
    size = jnp.sqrt(jnp.sum(weights**2))
    normal = weights / size - first
    square = jnp.sum(normal**2)
    turn = jnp.where(square > 0, 2 / jnp.where(square > 0, square, 1.0), 0.0)
    mirror = jnp.eye(len(first), dtype=first.dtype) - turn * jnp.outer(normal, normal)
    row = first.reshape(1, 1, -1)

    def reflect(x: Array) -> Array:
        return jnp.einsum("hwc,cd->hwd", x, mirror.astype(x.dtype), precision="highest")

    return Spectrum(size * row, reflect, reflect, lambda y: row.astype(y.dtype) * y)


def separable(rows: Array, columns: Array) -> Spectrum:
    """Of `R x C^T` in every channel: the products of both decompositions."""
    (u, s, vh), (p, c, qh) = _whole(rows), _whole(columns)
    seen = s[:, None, None] * c[None, :, None]
    return Spectrum(
        seen,
        lambda x: _sides(vh, x, qh),
        lambda code: _sides(vh.T, code, qh.T),
        lambda y: jnp.where(seen > 0, _sides(u.T, y, p.T), 0.0),
    )


def circulant(gain: Array, left: Callable[[Array], Array]) -> Spectrum:
    """Of a circular filter `h = phase |h|` with the even `gain = |h|` (H, W, 1): the Hartley transform.

    `left` is the filter with the conjugate phase: `A = phase V |h| V^T`.
    """
    return Spectrum(gain, hartley, hartley, lambda y: hartley(left(y)))


def hartley(x: Array) -> Array:
    """The orthonormal discrete Hartley transform of every channel of (H, W, C): real, symmetric, its own inverse."""
    spectrum = in_planes(lambda planes: fft2(planes, norm="ortho"), x)
    return (spectrum.real - spectrum.imag).astype(x.dtype)


def _whole(matrix: Array) -> tuple[Array, Array, Array]:
    """Of (m, n): `u` (m, n) and `s` (n,), both 0 beyond the rank, and `vh` (n, n)."""
    u, s, vh = jnp.linalg.svd(matrix)
    rest = len(vh) - len(s)
    s = jnp.where(s > 1e-6 * s[0], s, 0.0)
    return jnp.pad(u[:, : len(s)], ((0, 0), (0, rest))), jnp.pad(s, (0, rest)), vh


def _sides(rows: Array, x: Array, columns: Array) -> Array:
    return jnp.einsum("ih,hwc,jw->ijc", rows.astype(x.dtype), x, columns.astype(x.dtype), precision="highest")


def _dot(a: Array, b: Array) -> Array:
    return jnp.dot(a.astype(b.dtype), b, precision="highest")
