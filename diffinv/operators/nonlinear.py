r"""Nonlinear operators on pictures (H, W, C) in [-1, 1]: magnitudes, tone curves, rounding.

All are differentiable, by a stated stand-in where the truth has no useful derivative.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.fft import in_planes
from diffinv.operators.arguments import (
    concrete,
    odd,
    picture_shape,
    require_key,
    require_number,
    require_one_of,
    sample_shape,
    static_number,
    whole_number,
)
from diffinv.operators.base import LinearOperator, Operator, real_scalar
from diffinv.operators.coils import fft2c
from diffinv.operators.fourier import blur, motion_kernel
from diffinv.typing import Array, Key, Measured, Sample


@struct.dataclass
class PhaseRetrieval(Operator):
    """`y = |F P v(x)|`, (H, W, C) -> (H + 2p, W + 2q, C) magnitudes; build it with `phase_retrieval`.

    Attributes:
      input_shape: (H, W, C); static.
      padding: (p, q), the zeros on either side; static.
      unit_range: whether `v` takes [-1, 1] to [0, 1]; static.
    """

    input_shape: tuple[int, ...] = struct.field(pytree_node=False)
    padding: tuple[int, int] = struct.field(pytree_node=False)
    unit_range: bool = struct.field(pytree_node=False, default=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        values = 0.5 * (x + 1) if self.unit_range else x
        padded = jnp.pad(values, (*((p, p) for p in self.padding), (0, 0)))
        return in_planes(lambda planes: jnp.abs(fft2c(planes)), padded).astype(x.dtype)


def phase_retrieval(
    shape: tuple[int, ...], oversample: float = 2.0, padding: str = "eighths", unit_range: bool = False
) -> PhaseRetrieval:
    """Magnitudes of the centred orthonormal Fourier transform of each channel, after padding with zeros.

    Source: Chung et al. 2023 (DPS), arXiv:2209.14687: "eighths", values in [-1, 1] as they are; Zhang et al. 2025
    (DAPS), arXiv:2407.01521, maps them to [0, 1] first (`unit_range=True`). Padding is with the value 0 in both, which
    is mid-grey for the one and black for the other.

    Args:
      shape: of one picture, (H, W, C). oversample: at least 1 ("factor") or 0 ("eighths"). All static.
      padding: "eighths" pads every border by `int(oversample / 8 * side)`, as both papers' code does: 64 of 256 pixels
        for 2.0, so 1.5 times the side; "factor" makes the side `oversample` times as large, the textbook's meaning.
      unit_range: whether [-1, 1] is mapped to [0, 1] first.

    Raises:
      ValueError: where the padding has another name or the oversampling is too small.
    """
    shape = picture_shape(shape)
    require_one_of("padding", padding, "eighths", "factor")
    oversample = static_number("oversample", oversample, 1 if padding == "factor" else 0, 64, instead="2.0, say")
    share = oversample / 8 if padding == "eighths" else (oversample - 1) / 2
    return PhaseRetrieval(shape, (int(share * shape[0]), int(share * shape[1])), unit_range)


@struct.dataclass
class HighDynamicRange(Operator):
    """`y = clip(gain x, -1, 1)`; build it with `high_dynamic_range`.

    Attributes:
      gain: dimensionless.
      input_shape: of one sample; static.
    """

    gain: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        return jnp.clip(real_scalar(self.gain, x) * x, -1.0, 1.0)


def high_dynamic_range(shape: tuple[int, ...], gain: Array | float = 2.0) -> HighDynamicRange:
    """HDR reconstruction: `y = clip(gain x, -1, 1)`; no gradient where it clips.

    Source: Zhang et al. 2025 (DAPS), arXiv:2407.01521, with 2. `gain` is dynamic and dimensionless. Raises ValueError
    where a concrete gain is not positive.
    """
    require_number("gain", gain, 0, above=True)
    return HighDynamicRange(jnp.asarray(gain, float), picture_shape(shape))


@struct.dataclass
class Affine(Operator):
    """`y = gain x + offset`; build it with `low_light` or `intensity`.

    Attributes:
      gain: a scalar.
      offset: a scalar.
      input_shape: of one sample; static.
    """

    gain: Array
    offset: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        return real_scalar(self.gain, x) * x + real_scalar(self.offset, x)


def low_light(shape: tuple[int, ...], exposure: Array | float) -> Affine:
    """A short exposure: `(y + 1) / 2 = exposure (x + 1) / 2`, to be measured with `PoissonNoise`.

    With `PoissonNoise(peak)` a pixel of the value 1 gives `exposure peak` photons on average. `exposure`, a share in
    (0, 1], is dynamic. Raises ValueError where a concrete one is not.
    """
    require_number("exposure", exposure, 0, 1, "a share: 0.1 for 10 %", above=True)
    exposure = jnp.asarray(exposure, float)
    return Affine(exposure, exposure - 1, sample_shape(shape))


def intensity(shape: tuple[int, ...], peak: Array | float = 1.0) -> Affine:
    """`peak (x + 1) / 2`: [-1, 1] to non-negative intensities, in the units of `peak` (dynamic).

    The first link of a `compose` for physics that needs light or density. Raises ValueError where a concrete peak is
    not positive.
    """
    require_number("peak", peak, 0, above=True)
    half = 0.5 * jnp.asarray(peak, float)
    return Affine(half, half, sample_shape(shape))


@struct.dataclass
class NonlinearBlur(Operator):
    """`y = log(k * exp(c x)) / c`: a blur of light under a logarithmic response; build it with `nonlinear_blur`.

    Attributes:
      linear: the blur by the kernel k.
      contrast: c, dimensionless.
    """

    linear: LinearOperator
    contrast: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.linear.shape

    def __call__(self, x: Sample) -> Measured:
        contrast = real_scalar(self.contrast, x)
        brightest = jax.lax.stop_gradient(jnp.max(contrast * x))
        light = self.linear(jnp.exp(contrast * x - brightest))
        return (jnp.log(jnp.maximum(light, 1e-6)) + brightest) / contrast


def nonlinear_blur(
    key: Key, shape: tuple[int, ...], contrast: Array | float = 2.5, size: int | None = None, std: float = 1.0
) -> NonlinearBlur:
    r"""Motion blur of the light `exp(c x)`, seen through the camera's response `log / c`: highlights leave streaks.

        y = log(k * exp(c x)) / c

    Constants are kept; `c -> 0` is the linear blur `k * x`, `c -> inf` a dilation along the path. For a Gaussian `k` it
    solves the viscous Hamilton-Jacobi equation `u_s = u_xx / 2 + c |u_x|^2 / 2` (Cole-Hopf).

    It stands for the nonlinear deblurring of DPS and DAPS, whose blur is a trained network (bkse, Tran et al.
    2021): another operator, so their tables do not apply. The kernel is a `motion_kernel` smoothed by a Gaussian, and
    is drawn once, here, where DPS draws a new one in every call. Light below `1e-6` of the picture's brightest is cut.

    Args:
      key: of the path.
      shape: of one picture; size: of the kernel, odd, by default the largest up to 61 that fits. Both static.
      contrast: c, dynamic, not 0; negative for shadows instead of highlights. Dimensionless.
      std: of the smoothing, in pixels; static.

    Raises:
      ValueError: where a concrete contrast is 0, std is not positive, or as `motion_kernel` and `blur`.
    """
    require_key(key)
    shape = picture_shape(shape)
    require_number("contrast", contrast)
    if concrete(contrast) and contrast == 0:
        raise ValueError(f"contrast is {contrast}; at 0 the blur is linear: use motion_blur")
    std = static_number("std", std, 0, math.inf, instead="in pixels", above=True)
    size = min(61, (min(shape[:2]) - 1) // 2 * 2 + 1) if size is None else odd("size", size, 3)
    index = jnp.arange(size).astype(float)
    spread = jnp.exp(-0.5 * ((index[:, None] - index[None, :]) / std) ** 2)
    smooth = jnp.einsum("ij,jk,kl->il", spread, motion_kernel(key, size), spread, precision="highest")
    return NonlinearBlur(blur(shape, smooth / jnp.sum(smooth), "reflect"), jnp.asarray(contrast, float))


@struct.dataclass
class Quantised(Operator):
    """`y`: `x` clipped to [-1, 1] and rounded to the nearest of equidistant values; build it with `quantisation`.

    Attributes:
      levels: how many values there are.
      input_shape: of one sample; static.
    """

    levels: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        half = 0.5 * (real_scalar(self.levels, x) - 1)
        clipped = jnp.clip(x, -1.0, 1.0)
        return clipped + jax.lax.stop_gradient(jnp.round((clipped + 1) * half) / half - 1 - clipped)


def quantisation(shape: tuple[int, ...], levels: Array | int = 16) -> Quantised:
    """Rounding to `levels` equidistant values from -1 to 1, both included: 256 is 8 bits, 2 is one bit.

    The gradient is that of the clipping alone, straight through the rounding. Source: Bengio et al. 2013,
    arXiv:1308.3432, for the gradient. `levels` is dynamic. Raises ValueError where a concrete one is not a whole number
    of at least 2.
    """
    if concrete(levels):
        levels = whole_number("levels", levels, 2, 2**24)
    return Quantised(jnp.asarray(levels, float), sample_shape(shape))
