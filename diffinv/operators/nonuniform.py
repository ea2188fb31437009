r"""Fourier transforms at any points, directly or gridded, and non-Cartesian magnetic resonance imaging.

    F z (k) = sum_rc z[r, c] exp(-2 pi i (k_0 (r - H//2) / H + k_1 (c - W//2) / W)) / sqrt(H W)

`k` in cycles per field of view: at whole numbers this is `fft2c`, whose centre is `k = 0`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.scipy.special import i0

from diffinv.operators.arguments import inexact, numbers, size_of, static_number, whole_number
from diffinv.operators.base import LinearOperator, as_complex
from diffinv.operators.coils import fft2c
from diffinv.typing import Array, Measured, Sample


def nudft(z: Array, points: Array) -> Array:
    """`F z` of complex pictures (..., H, W) at `points` (K, 2), (..., K): exact, in `K H W` operations.

    Original: the definition, one axis after the other.
    """
    return summed(z, *waves(z.shape[-2:], points))


def nufft(z: Array, points: Array, width: int = 6) -> Array:
    r"""`F z` by a transform on a grid of twice the side and `width` x `width` interpolation: (..., H, W) -> (..., K).

    Source: Beatty, Nishimura, Pauly 2005 (Kaiser-Bessel kernel, their eq. 5 for its shape). `width` is static; the
    relative error falls tenfold for each unit or so: 4e-3 at 3, 1e-5 at 6, 1e-11 at 12.
    """
    return _interpolated(z, *_neighbourhoods(z.shape[-2:], points, width))


def waves(size: tuple[int, ...], points: Array) -> tuple[Array, Array]:
    """`exp(-2 pi i k (j - n//2) / n) / sqrt n` for both axes, (K, H) and (K, W): what `summed` takes."""
    rows, columns = (_waves(points[:, i], n) for i, n in enumerate(size))
    return rows, columns


def summed(z: Array, rows: Array, columns: Array) -> Array:
    """`sum_rc rows[k, r] columns[k, c] z[r, c]` of complex (..., H, W), (..., K)."""
    half = jnp.einsum("...rc,kc->...rk", z, columns.astype(z.dtype), precision="highest")
    return jnp.einsum("...rk,kr->...k", half, rows.astype(z.dtype), precision="highest")


def _waves(k: Array, n: int) -> Array:
    turns = k[:, None] * jnp.asarray((np.arange(n) - n // 2) / n, k.dtype)[None, :]
    angle = -2 * np.pi * (turns - jnp.round(turns))
    return jax.lax.complex(jnp.cos(angle), jnp.sin(angle)) * math.sqrt(1 / n)


def _neighbourhoods(size: tuple[int, ...], points: Array, width: int) -> tuple[Array, Array, Array, Array, Array]:
    """The roll-off (H, W) that the kernel will cause, and for each axis the near grid points and their weights."""
    beta = math.pi * math.sqrt((width / 2 * 1.5) ** 2 - 0.8)
    fall = np.multiply.outer(*(_kernel_transform(n, width, beta) for n in size))
    (near, weights), (beside, shares) = (_neighbours(points[:, i], n, width, beta) for i, n in enumerate(size))
    return jnp.asarray(fall, points.dtype), near, weights, beside, shares


def _interpolated(z: Array, fall: Array, near: Array, weights: Array, beside: Array, shares: Array) -> Array:
    pads = [(0, 0)] * (z.ndim - 2) + [(n - n // 2, n // 2) for n in fall.shape]
    flat = z / jnp.expand_dims(fall, tuple(range(z.ndim - 2))).astype(z.dtype)
    spectrum = 2 * fft2c(jnp.pad(flat, pads))
    patches = spectrum[..., near.astype(int)[:, :, None], beside.astype(int)[:, None, :]]
    weights, shares = weights.astype(z.dtype), shares.astype(z.dtype)
    return jnp.einsum("...kab,ka,kb->...k", patches, weights, shares, precision="highest")


def _kernel_transform(n: int, width: int, beta: float) -> np.ndarray:
    """Of `I0(beta sqrt(1 - (2 u / width)^2)) / width`, at the pixels of a picture on a grid of `2 n`."""
    root = np.sqrt(beta**2 - (np.pi * width * (np.arange(n) - n // 2) / (2 * n)) ** 2)
    return np.sinh(root) / root


def _neighbours(k: Array, n: int, width: int, beta: float) -> tuple[Array, Array]:
    """Indices (K, width) into the grid of `2 n`, periodic, and the kernel's weights there."""
    place = 2 * k
    first = jnp.ceil(place - width / 2)
    index = first[:, None] + jnp.arange(width).astype(k.dtype)[None, :]
    inside = jnp.maximum(1 - (2 * (index - place[:, None]) / width) ** 2, 0.0)
    return (index.astype(int) + n) % (2 * n), i0(beta * jnp.sqrt(inside)) / width


@struct.dataclass
class NonCartesianMRI(LinearOperator):
    """`y_c = F (S_c x)`, (H, W, 2) -> (coils, K) complex; build it with `non_cartesian_mri`.

    Attributes:
      plan: what F needs at its points, computed once: waves where `exact`, else neighbours and weights.
      sensitivities: S_c, complex, (coils, H, W).
      input_shape: (H, W, 2); static.
      exact: whether F is the sum itself, not its approximation by a fast transform; static.
    """

    plan: tuple[Array, ...]
    sensitivities: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)
    exact: bool = struct.field(pytree_node=False, default=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        z = as_complex(x)
        z = self.sensitivities.astype(z.dtype) * z[None]
        return (summed if self.exact else _interpolated)(z, *self.plan)


def non_cartesian_mri(
    size: tuple[int, int], points: Array, sensitivities: Array | None = None, width: int | None = 6
) -> NonCartesianMRI:
    """MRI along any trajectory of pictures (H, W, 2), their real and imaginary part.

    Source: Pruessmann et al. 2001, "Advances in sensitivity encoding with arbitrary k-space trajectories".

    Args:
      size: (H, W); static.
      points: (K, 2) in cycles per field of view, from -H/2 to H/2 and -W/2 to W/2; dynamic. See `radial`, `spiral`.
      sensitivities: (coils, H, W) complex; one coil of 1 by default.
      width: of the interpolation, see `nufft`; None is the exact sum, which stores K (H + W) numbers. Static.

    Raises:
      ValueError: where a shape does not fit, or the width is under 2.
    """
    points, size = numbers("points", points, 2, "(K, 2), cycles per field of view"), size_of("size", size)
    if points.shape[1] != 2:
        raise ValueError(f"size, points have {size}, {points.shape}; they must be (H, W) and (K, 2): reshape them")
    width = None if width is None else whole_number("width", width, 2, 2 * min(size))
    coils = jnp.ones((1, *size), complex) if sensitivities is None else inexact("sensitivities", sensitivities)
    if coils.ndim != 3 or coils.shape[1:] != size or not jnp.iscomplexobj(coils):
        raise ValueError(f"sensitivities are {coils.shape} {coils.dtype}; they must be complex (coils, *{size})")
    plan = waves(size, points) if width is None else _neighbourhoods(size, points, width)
    return NonCartesianMRI(plan, coils, (*size, 2), width is None)


def radial(spokes: int, samples: int, size: tuple[int, int]) -> Array:
    """Points (spokes samples, 2) of diameters through the centre of k-space, turned by the golden angle.

    Source: Winkelmann et al. 2007 (111.25 degrees). All static. Raises ValueError where a number is not positive.
    """
    spokes, samples, size = whole_number("spokes", spokes), whole_number("samples", samples), size_of("size", size)
    angle = np.pi * (np.sqrt(5) - 1) / 2 * np.arange(spokes)[:, None]
    along = ((np.arange(samples) - samples // 2) / samples)[None, :]
    return jnp.asarray(np.stack((size[0] * along * np.sin(angle), size[1] * along * np.cos(angle)), -1).reshape(-1, 2))


def spiral(samples: int, turns: float, size: tuple[int, int]) -> Array:
    """Points (samples, 2) of an Archimedean spiral from the centre of k-space to its border.

    All static; `turns` dimensionless. Raises ValueError where a number is not positive.
    """
    samples, size = whole_number("samples", samples, most=2**24), size_of("size", size)
    turns = static_number("turns", turns, 0, above=True)
    radius = np.sqrt(np.arange(samples) / samples)
    z = 0.5 * radius * np.exp(2j * np.pi * turns * radius)
    return jnp.asarray(np.stack((size[0] * z.imag, size[1] * z.real), -1))
