r"""Blur kernels: Gaussians, generalised Gaussians and plateaus, isotropic or not, and the circular low-pass filter.

A kernel of the dynamic, odd `side` lies in the middle of a static square of `size` pixels, with zeros about it and sum
1. With `q = x^T S^{-1} x`, `S = R diag(deviations^2) R^T` and R the rotation by `angle`, x to the right and y down:

    Gaussian `exp(-q / 2)`, generalised `exp(-q^beta / 2)`, plateau `1 / (1 + q^beta)`

    low-pass `w J_1(w r) / (2 pi r)` of cutoff w, `w^2 / (4 pi)` in the middle
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.degrade.settings import FAMILIES
from diffinv.typing import Array

SINC, NONE = len(FAMILIES), len(FAMILIES) + 1


def _offsets(size: int) -> Array:
    return jnp.arange(size).astype(float) - size // 2


def _framed(values: Array, side: Array | int) -> Array:
    """Zero outside the middle `side` x `side` pixels, and sum 1."""
    inside = jnp.abs(_offsets(len(values))) <= jnp.asarray(side, float) / 2
    kept = jnp.where(inside[:, None] & inside[None, :], values, 0.0)
    return kept / jnp.sum(kept)


def _quadratic(size: int, deviations: Array, angle: Array | float) -> Array:
    """`q` on the square: the squared coordinates along the kernel's own axes, in deviations."""
    y, x = _offsets(size)[:, None], _offsets(size)[None, :]
    cosine, sine = jnp.cos(jnp.asarray(angle, float)), jnp.sin(jnp.asarray(angle, float))
    deviations = jnp.asarray(deviations, float)
    return ((cosine * x + sine * y) / deviations[0]) ** 2 + ((cosine * y - sine * x) / deviations[1]) ** 2


def _power(q: Array, beta: Array | float) -> Array:
    return jnp.where(q > 0, jnp.where(q > 0, q, 1.0) ** jnp.asarray(beta, float), 0.0)


def generalised_gaussian(
    size: int, side: Array | int, deviations: Array, angle: Array | float = 0.0, beta: Array | float = 1.0
) -> Array:
    """`exp(-q^beta / 2)`, (size, size) with sum 1: a Gaussian at beta 1, else generalised. Only `size` is static.

    Source: Wang et al. 2021 (Real-ESRGAN), arXiv:2107.10833, section 3.1, as in BasicSR's degradations.
    """
    return _framed(jnp.exp(-0.5 * _power(_quadratic(size, deviations, angle), beta)), side)


def plateau(size: int, side: Array | int, deviations: Array, angle: Array | float, beta: Array | float) -> Array:
    """`1 / (1 + q^beta)`, (size, size) with sum 1. Source, and what is static, as for `generalised_gaussian`."""
    return _framed(1 / (1 + _power(_quadratic(size, deviations, angle), beta)), side)


def bessel_j1(z: Array) -> Array:
    r"""The Bessel function J_1 of real `z`, `|z| <= 100`: `(1/2pi) \int cos(a - z sin a) da` by the midpoint rule.

    Original in its use: the rule's error is that of aliasing, about `J_{4n-1}(z)` for n points in a quarter period, so
    that 48 points give rounding error alone. JAX has a recurrence from a fixed order, which is wrong for large z.
    """
    sine = jnp.asarray(np.sin(np.pi / 2 * (np.arange(48) + 0.5) / 48), z.dtype)
    wave = jnp.sin(z[..., None] * sine.reshape((1,) * z.ndim + (48,)))
    return jnp.einsum("...k,k->...", wave, sine, precision="highest") / 48


def sinc(size: int, side: Array | int, cutoff: Array | float) -> Array:
    """The ideal circular low-pass filter of `cutoff` (radians a pixel, at most pi), (size, size), cut off, with sum 1.

    Source: Wang et al. 2021 (Real-ESRGAN), arXiv:2107.10833, equation 6. Only `size` is static.
    """
    radius = jnp.hypot(_offsets(size)[:, None], _offsets(size)[None, :])
    cutoff, middle = jnp.asarray(cutoff, float), radius == 0
    apart = jnp.where(middle, 1.0, radius)
    values = cutoff * bessel_j1(cutoff * apart) / (2 * jnp.pi * apart)
    return _framed(jnp.where(middle, cutoff**2 / (4 * jnp.pi), values), side)


def kernel(size: int, family: Array, side: Array, deviations: Array, angle: Array, beta: Array, cutoff: Array) -> Array:
    """One kernel (size, size) of a dynamic `family`: its place in `FAMILIES`, `SINC`, or `NONE` for no blur.

    Takes a `draws.BlurDraw` after `size`. An isotropic one reads `deviations[0]` alone; a plain Gaussian has beta 1.
    """
    isotropic = (family % 2 == 0) & (family < SINC)
    deviations = jnp.where(isotropic, deviations[0], deviations)
    bell = generalised_gaussian(size, side, deviations, angle, jnp.where(family < 2, 1.0, beta))
    flat = plateau(size, side, deviations, angle, beta)
    point = jnp.zeros((size, size), bell.dtype).at[size // 2, size // 2].set(1.0)
    shapes = bell, flat, sinc(size, side, cutoff), point
    return jax.lax.select_n(jnp.asarray([0, 0, 0, 0, 1, 1, 2, 3])[family], *shapes)
