"""Super-resolution: means of blocks, and antialiased resampling of rows and columns as MATLAB does it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import struct

from diffinv.operators import spectra
from diffinv.operators.arguments import (
    picture_shape,
    size_of,
    whole_number,
)
from diffinv.operators.base import ClosedForm, divide, real_scalar
from diffinv.typing import Array, Measured, Sample, Scalar


@struct.dataclass
class AveragePool(ClosedForm):
    """`y` (H/f, W/f, C), the means of blocks of f x f pixels; `A A^T = I / f^2`.

    Attributes:
      input_shape: (H, W, C); static.
      factor: f; static.
    """

    input_shape: tuple[int, ...] = struct.field(pytree_node=False)
    factor: int = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        height, width, channels = self.shape
        f = self.factor
        return x.reshape(height // f, f, width // f, f, channels).mean((1, 3))

    def adjoint(self, y: Measured) -> Sample:
        return jnp.repeat(jnp.repeat(y, self.factor, 0), self.factor, 1) / self.factor**2

    def solve(self, v: Measured, damping: Scalar) -> Measured:
        return divide(v, 1 / self.factor**2 + real_scalar(damping, v))

    def project(self, y: Measured) -> Measured:
        return y

    def spectrum(self) -> spectra.Spectrum:
        return spectra.blocks(self.shape, self.factor)


def _checked_factor(shape: tuple[int, ...], factor: int) -> int:
    factor = whole_number("factor", factor)
    if shape[0] % factor or shape[1] % factor:
        raise ValueError(f"factor is {factor}; it must divide the picture's {shape[:2]}: crop it or change factor")
    return factor


def average_pool(shape: tuple[int, ...], factor: int) -> AveragePool:
    """Block-average super-resolution, (H, W, C) -> (H/f, W/f, C); `factor` is static.

    Source: the super-resolution of Kawar et al. 2022 (DDRM), arXiv:2201.11793.
    Raises ValueError where the factor does not divide the picture.
    """
    shape = picture_shape(shape)
    return AveragePool(shape, _checked_factor(shape, factor))


def resize_matrix(n: int, size: int, antialias: bool = True) -> np.ndarray:
    r"""The (size, n) weights of MATLAB's bicubic `imresize` along one axis, float64.

    Output i, at `u = (i + 1/2)/r - 1/2` with `r = size/n`, weighs input j by `k(q (u - j))`, normalised to sum 1, where
    `q = min(r, 1)` (antialias; else 1) and k is the cubic kernel with a = -1/2; outside, the signal is mirrored with
    its border sample repeated. Source: MATLAB `imresize`; its kernel: Keys 1981.
    """
    ratio = size / n
    squeeze = min(ratio, 1.0) if antialias else 1.0
    centres = ((np.arange(size) + 0.5) / ratio - 0.5)[:, None]
    taps = np.floor(centres - 2 / squeeze).astype(int) + np.arange(int(np.ceil(4 / squeeze)) + 2)[None]
    weights = _keys(squeeze * (centres - taps))
    mirrored = taps % (2 * n)
    matrix = np.zeros((size, n))
    np.add.at(matrix, (np.arange(size)[:, None], np.minimum(mirrored, 2 * n - 1 - mirrored)), weights)
    return matrix / matrix.sum(1, keepdims=True)


def _keys(d: np.ndarray) -> np.ndarray:
    d = np.abs(d)
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return np.where(d <= 1, near, np.where(d <= 2, far, 0.0))


def _separable(rows: Array, x: Array, columns: Array) -> Array:
    """`rows x columns^T` in every channel; the matrices take the dtype of `x`."""
    return jnp.einsum("ih,hwc,jw->ijc", rows.astype(x.dtype), x, columns.astype(x.dtype), precision="highest")


def imresize(x: Array, size: tuple[int, int], antialias: bool = True) -> Array:
    """Resizes (H, W, C) to (h, w, C) as MATLAB's bicubic `imresize` does, with antialiasing where it shrinks.

    Source: MATLAB `imresize(x, [h w])`; see `resize_matrix`. Nothing is clipped or rounded: MATLAB on 8-bit pictures
    resizes the rows first and rounds between the axes. `size` and `antialias` are static.
    Raises ValueError where x is not (H, W, C) of floating point, or the size is not positive.
    """
    size = size_of("size", size)
    if jnp.ndim(x) != 3 or not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise ValueError(f"x is {jnp.shape(x)} {jnp.result_type(x)}; it must be floating-point (H, W, C): convert it")
    rows, columns = (resize_matrix(n, m, antialias) for n, m in zip(x.shape[:2], size, strict=True))
    return _separable(jnp.asarray(rows, float), jnp.asarray(x), jnp.asarray(columns, float))


@struct.dataclass
class Resize(ClosedForm):
    """`y = R x C^T` in every channel, (H, W, C) -> (h, w, C); build it with `bicubic` or `resize`.

    `R R^T = U diag(r) U^T` and `C C^T = V diag(c) V^T`, so `A A^T + d I` has the eigenvalues `r_i c_j + d`.

    Attributes:
      rows: R, (h, H).
      columns: C, (w, W).
      row_basis: U, (h, h).
      column_basis: V, (w, w).
      row_gain: r, (h,).
      column_gain: c, (w,).
      input_shape: (H, W, C); static.
    """

    rows: Array
    columns: Array
    row_basis: Array
    column_basis: Array
    row_gain: Array
    column_gain: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        return _separable(self.rows, x, self.columns)

    def adjoint(self, y: Measured) -> Sample:
        return _separable(self.rows.T, y, self.columns.T)

    def solve(self, v: Measured, damping: Scalar) -> Measured:
        gain = self.row_gain[:, None, None] * self.column_gain[None, :, None]
        code = _separable(self.row_basis.T, v, self.column_basis.T)
        code = divide(code, gain.astype(v.dtype) + real_scalar(damping, v))
        return _separable(self.row_basis, code, self.column_basis)

    def project(self, y: Measured) -> Measured:
        live = (self.row_gain > 0)[:, None, None] & (self.column_gain > 0)[None, :, None]
        code = _separable(self.row_basis.T, y, self.column_basis.T)
        return _separable(self.row_basis, jnp.where(live, code, 0.0), self.column_basis)

    def spectrum(self) -> spectra.Spectrum:
        return spectra.separable(self.rows, self.columns)


def _left_spectrum(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors and eigenvalues of `M M^T` (m, m); singular values under `1e-6` of the largest count as 0."""
    basis, s, _ = np.linalg.svd(matrix)
    gain = np.zeros(len(matrix))
    gain[: len(s)] = np.where(s > 1e-6 * s[0], s, 0.0) ** 2
    return basis, gain


def resize(shape: tuple[int, ...], size: tuple[int, int], antialias: bool = True) -> Resize:
    """`imresize` of pictures of `shape` to `size` as an operator, up or down in each axis.

    Source: MATLAB `imresize`; see `resize_matrix`. All static. Raises ValueError where the size is not positive.
    """
    shape, size = picture_shape(shape), size_of("size", size)
    rows, columns = (resize_matrix(n, m, antialias) for n, m in zip(shape[:2], size, strict=True))
    (row_basis, row_gain), (column_basis, column_gain) = _left_spectrum(rows), _left_spectrum(columns)
    parts = (rows, columns, row_basis, column_basis, row_gain, column_gain)
    R, C, U, V, r, c = (jnp.asarray(part, float) for part in parts)
    return Resize(R, C, U, V, r, c, shape)


def bicubic(shape: tuple[int, ...], factor: int) -> Resize:
    """Bicubic super-resolution, (H, W, C) -> (H/f, W/f, C): MATLAB's antialiased `imresize`; `factor` is static.

    Source: as `resize_matrix`; the "bicubic" of Set5, Set14, DIV2K. DPS's `Resizer` has the same kernel.
    Raises ValueError where the factor does not divide the picture.
    """
    shape = picture_shape(shape)
    factor = _checked_factor(shape, factor)
    return resize(shape, (shape[0] // factor, shape[1] // factor))
