r"""Compressed sensing: few random mixtures of all pixels."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.linalg import dct_hw, idct_hw
from diffinv.operators import spectra
from diffinv.operators.arguments import picture_shape, require_key, require_one_of, sample_shape, static_number
from diffinv.operators.base import ClosedForm, Dense, dense, divide, real_scalar
from diffinv.typing import Array, Key, Measured, Sample, Scalar


@struct.dataclass
class Subsampled(ClosedForm):
    """`y = m T (r x)`: random signs, an orthonormal transform T, then a mask.

    `y` is (H, W, C), 0 where nothing is observed; `A A^T = m^2`.

    Attributes:
      mask: m, (H, W, 1).
      signs: r, 1 or -1, (H, W, 1).
      input_shape: (H, W, C); static.
      transform: T, "dct" or "hadamard"; static.
    """

    mask: Array
    signs: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)
    transform: str = struct.field(pytree_node=False, default="dct")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        return self.mask.astype(x.dtype) * self._analyse(x)

    def adjoint(self, y: Measured) -> Sample:
        return self._synthesise(self.mask.astype(y.dtype) * y)

    def solve(self, v: Measured, damping: Scalar) -> Measured:
        return divide(v, self.mask.astype(v.dtype) ** 2 + real_scalar(damping, v))

    def project(self, y: Measured) -> Measured:
        return jnp.where(self.mask != 0, y, 0.0)

    def spectrum(self) -> spectra.Spectrum:
        parts = spectra.pointwise(self.mask)
        return parts._replace(analyse=self._analyse, synthesise=self._synthesise)

    def _analyse(self, x: Array) -> Array:
        forward = dct_hw if self.transform == "dct" else hadamard
        return forward(self.signs.astype(x.dtype) * x)

    def _synthesise(self, code: Array) -> Array:
        back = idct_hw if self.transform == "dct" else hadamard
        return self.signs.astype(code.dtype) * back(code)


def compressed_sensing(key: Key, shape: tuple[int, ...], fraction: float, transform: str = "hadamard") -> Subsampled:
    """Exactly `floor(fraction H W)` random coefficients of the sign-scrambled picture, the same in all channels.

    Source: Do, Gan, Nguyen, Tran 2012, "Fast and efficient compressive sensing using structurally random matrices".
    Differs: a dropped coefficient is a 0 in `y`, as a hidden pixel is; rows keep the norm 1.

    Args:
      key: of signs and coefficients; another key, the same shapes.
      shape: of one picture, (H, W, C); static. "hadamard" needs powers of two.
      fraction: of the coefficients that are kept, in (0, 1]; static.
      transform: "hadamard" or "dct" (two-dimensional); static.

    Raises:
      ValueError: where an argument is out of range.
    """
    require_key(key)
    shape = picture_shape(shape)
    _check_fraction(fraction, shape)
    require_one_of("transform", transform, "hadamard", "dct")
    if transform == "hadamard":
        _check_powers(shape[:2])
    pixels = shape[0] * shape[1]
    chosen, signed = jax.random.split(key)
    order = jax.random.permutation(chosen, pixels)[: int(fraction * pixels)]
    mask = jnp.zeros(pixels, float).at[order].set(1.0).reshape(*shape[:2], 1)
    return Subsampled(mask, jax.random.rademacher(signed, (*shape[:2], 1), float), shape, transform)


def gaussian_sensing(key: Key, shape: tuple[int, ...], fraction: float) -> Dense:
    """`floor(fraction n)` mixtures of all `n` numbers of a sample, with independent weights `N(0, 1/m)`.

    Source: Candes and Tao 2006, "Near-optimal signal recovery from random projections". The matrix (m, n) and its
    decomposition are stored, so it is for small pictures: `compressed_sensing` has no matrix. `shape`, any, and
    `fraction`, in (0, 1], are static. Raises ValueError where the fraction leaves nothing.
    """
    require_key(key)
    shape = sample_shape(shape)
    size = math.prod(shape)
    _check_fraction(fraction, (size,))
    rows = int(fraction * size)
    return dense(jax.random.normal(key, (rows, size), float) / math.sqrt(rows), shape)


def hadamard(x: Array) -> Array:
    """The orthonormal Walsh-Hadamard transform over the first two axes, powers of two; its own inverse.

    In natural (Sylvester) order: `H_2n = [[H_n, H_n], [H_n, -H_n]] / sqrt 2`. Source: Sylvester 1867. Raises ValueError
    where a side is not a power of two.
    """
    _check_powers(x.shape[:2])
    return _butterflies(_butterflies(x).swapaxes(0, 1)).swapaxes(0, 1)


def _butterflies(x: Array) -> Array:
    """Along the first axis, one bit of the index at a time."""
    n, rest = x.shape[0], x.shape[1:]
    half = 1
    while half < n:
        pair = x.reshape(n // (2 * half), 2, half, *rest)
        x = jnp.stack((pair[:, 0] + pair[:, 1], pair[:, 0] - pair[:, 1]), 1).reshape(n, *rest)
        half *= 2
    return x / jnp.sqrt(jnp.asarray(n, x.dtype))


def _check_powers(sides: tuple[int, ...]) -> None:
    if any(n & (n - 1) for n in sides):
        raise ValueError(f"sides are {sides}; Hadamard needs powers of two: crop, or use transform='dct'")


def _check_fraction(fraction: float, shape: tuple[int, ...]) -> None:
    static_number("fraction", fraction, 0, 1, instead="0.5 for 50 %", above=True)
    if int(fraction * math.prod(shape[:2])) < 1:
        raise ValueError(f"fraction is {fraction}; it must keep at least one number of {shape} and be at most 1")
