r"""Blurs: correlation of every channel with one kernel, at a circular or a reflecting boundary.

    y[i] = sum_k kernel[k] x[i + k - c],    c = size // 2 in each axis

This is torch's "convolution", as DPS uses it: the picture of one point is the kernel turned by 180 degrees. For a
measured point-spread function pass `kernel[::-1, ::-1]`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffinv.fft import fft2, in_planes, irfft2, rfft2
from diffinv.operators import spectra
from diffinv.operators.arguments import (
    concrete,
    numbers,
    odd,
    picture_shape,
    require_key,
    require_number,
    require_one_of,
    static_number,
    whole_number,
)
from diffinv.operators.base import ClosedForm, LinearOperator, divide, real_scalar
from diffinv.typing import Array, Key, Measured, Sample, Scalar


@struct.dataclass
class CircularBlur(ClosedForm):
    """`y = F^{-1} (h F x)` with the transfer function `h` of a real kernel; build it with `blur`.

    `A A^T` has the eigenvalues `|h|^2`. In `pinv`, `project` and `solve` with damping 0 the frequencies with `|h| <=
    threshold max |h|` count as lost.

    Attributes:
      transfer: h, (H, W//2 + 1, 1).
      input_shape: (H, W, C); static.
      threshold: dimensionless; static.
    """

    transfer: Array
    input_shape: tuple[int, int, int] = struct.field(pytree_node=False)
    threshold: float = struct.field(pytree_node=False, default=1e-3)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        return self._filter(x, self.transfer)

    def adjoint(self, y: Measured) -> Sample:
        return self._filter(y, jnp.conj(self.transfer))

    def solve(self, v: Measured, damping: Scalar) -> Measured:
        damping = real_scalar(damping, self.transfer)
        kept = self._live | (damping > 0)
        gain = jnp.where(kept, jnp.abs(self.transfer) ** 2 + damping, 1.0)
        return self._filter(v, jnp.where(kept, 1 / gain, 0.0))

    def pinv(self, y: Measured) -> Sample:
        return self._filter(y, jnp.where(self._live, 1 / jnp.where(self._live, self.transfer, 1.0), 0.0))

    def project(self, y: Measured) -> Measured:
        return self._filter(y, self._live)

    def spectrum(self) -> spectra.Spectrum:
        size = jnp.where(self._live, jnp.abs(self.transfer), 0.0)
        phase = divide(jnp.where(self._live, self.transfer, 0.0), size)
        s = in_planes(lambda size: jnp.real(fft2(irfft2(size, self.input_shape[:2]))), size)
        lost = s <= 0.5 * max(self.threshold, 1e-6) * jnp.max(s)
        return spectra.circulant(jnp.where(lost, 0.0, s), lambda y: self._filter(y, jnp.conj(phase)))

    @property
    def _live(self) -> Array:
        size = jnp.abs(self.transfer)
        return size > self.threshold * jnp.max(size)

    def _filter(self, x: Array, gain: Array) -> Array:
        gain = jnp.moveaxis(gain, -1, 0)

        def filtered(planes: Array) -> Array:
            spectrum = rfft2(planes)
            return irfft2(spectrum * gain.astype(spectrum.dtype), self.input_shape[:2])

        return in_planes(filtered, x).astype(x.dtype)


@struct.dataclass
class ReflectBlur(LinearOperator):
    """Mirrors the picture about its border pixels, then correlates with the kernel; (H, W, C) -> (H, W, C).

    These are DPS's `ReflectionPad2d` and depthwise convolution, the latter by Fourier transform: for 61 x 61 on 256 x
    256 it is some thirty times as fast on a CPU. The mirroring spoils the closed form: the adjoint is by transposition
    and the rest by conjugate gradients, which for a strong blur stop early and so regularise.

    Attributes:
      kernel: (h, w), real.
      input_shape: (H, W, C); static.
    """

    kernel: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        height, width, _ = self.shape
        pads = [(n // 2, n - 1 - n // 2) for n in self.kernel.shape]
        mirrored = jnp.pad(x, (*pads, (0, 0)), mode="reflect")
        size = (mirrored.shape[0], mirrored.shape[1])
        transfer = jnp.conj(rfft2(_filled(self.kernel.astype(x.dtype), size)))
        seen = in_planes(lambda x: irfft2(rfft2(x) * transfer[None], size), mirrored)
        return seen[:height, :width].astype(x.dtype)


def transfer_function(kernel: Array, size: tuple[int, int]) -> Array:
    """The conjugate discrete Fourier transform (H, W//2 + 1) of a kernel centred at (h//2, w//2), on `size` (H, W)."""
    centred = jnp.roll(_filled(kernel, size), [-(k // 2) for k in kernel.shape], (0, 1))
    return jnp.conj(rfft2(centred))


def _filled(kernel: Array, size: tuple[int, int]) -> Array:
    return jnp.pad(kernel, [(0, n - k) for n, k in zip(size, kernel.shape, strict=True)])


def blur(
    shape: tuple[int, ...], kernel: Array, boundary: str = "circular", threshold: float = 1e-3
) -> CircularBlur | ReflectBlur:
    """Correlation with any real `kernel` (h, w), which is used as it is: not normalised.

    Source: reflect, Chung et al. 2023 (DPS), arXiv:2209.14687; circular with a threshold, Kawar et al. 2022 (DDRM),
    arXiv:2201.11793, whose code has 1e-3 in general and 3e-2 for blurs. Differs: the threshold leaves `A` alone.

    Args:
      shape: of one picture, (H, W, C); static.
      kernel: (h, w), dimensionless.
      boundary: "circular" (closed-form `solve`) or "reflect"; static.
      threshold: relative size of the transfer function under which a frequency is lost; static; circular only.

    Raises:
      ValueError: where the kernel is not a real, finite (h, w) that fits the picture (reflect: half of it under the
        side), or is all 0, the boundary has another name or the threshold is not in [0, 1).
    """
    shape, kernel = picture_shape(shape), numbers("kernel", kernel, 2, "(h, w), one for all channels")
    if 0 in kernel.shape or (concrete(kernel) and not np.any(np.asarray(kernel))):
        raise ValueError(f"kernel, {kernel.shape}, has nothing but zeros; nothing would be measured: give another")
    threshold = static_number("threshold", threshold, 0, 0.999999, instead="1e-3, say")
    require_one_of("boundary", boundary, "circular", "reflect")
    if any((k > n if boundary == "circular" else k // 2 >= n) for n, k in zip(shape, kernel.shape, strict=False)):
        raise ValueError(f"kernel has shape {kernel.shape}; it does not fit a picture {shape} ({boundary}): crop it")
    if boundary == "reflect":
        return ReflectBlur(kernel, shape)
    return CircularBlur(transfer_function(kernel, shape[:2])[:, :, None], shape, threshold)


def gaussian_kernel(size: int, std: Array | float) -> Array:
    """A Gaussian of deviation `std` (pixels; dynamic) on `size` x `size` pixels (static), with sum 1.

    Cut off at `4 std`, as `scipy.ndimage.gaussian_filter` of a point; cut at the border, too, where scipy would fold
    the rest back. Source: the kernel of Chung et al. 2023 (DPS), arXiv:2209.14687, with 61 and 3.
    Raises ValueError where the size is not odd, or a concrete std not positive.
    """
    size = odd("size", size)
    require_number("std", std, 0, instead="in pixels; identity(shape) is no blur", above=True)
    std = jnp.asarray(std, float)
    offset = (jnp.arange(size) - size // 2).astype(float)
    line = jnp.where(jnp.abs(offset) <= jnp.floor(4 * std + 0.5), jnp.exp(-0.5 * (offset / std) ** 2), 0.0)
    line = line / jnp.sum(line)
    return line[:, None] * line[None, :]


def _fitting_size(shape: tuple[int, ...], size: int | None) -> int:
    """The given size, or DPS's 61 cut to the largest odd one within the picture."""
    return min(61, (min(shape[:2]) - 1) // 2 * 2 + 1) if size is None else size


def gaussian_blur(
    shape: tuple[int, ...],
    size: int | None = None,
    std: Array | float = 3.0,
    boundary: str = "circular",
    threshold: float = 1e-3,
) -> CircularBlur | ReflectBlur:
    """Blur with `gaussian_kernel(size, std)`; `boundary="reflect"` with the defaults is DPS's task.

    Source: Chung et al. 2023 (DPS), arXiv:2209.14687; see `blur` for the boundaries and `threshold`. `size` is static;
    by default 61, or the largest odd size that fits a smaller picture. What a concrete `std` leaves at 0, beyond
    `4 std`, is not stored. Raises ValueError as `blur` and `gaussian_kernel` do.
    """
    shape = picture_shape(shape)
    size = odd("size", _fitting_size(shape, size))
    require_number("std", std, 0, instead="in pixels; identity(shape) is no blur", above=True)
    if concrete(std):
        size = min(size, 2 * int(min(4 * float(std) + 0.5, size)) + 1)
    kernel = gaussian_kernel(size, std)
    return blur(shape, kernel, boundary, threshold)


def motion_kernel(key: Key, size: int = 61, intensity: Array | float = 0.5, steps: int = 256) -> Array:
    r"""A random camera shake, (size, size), with sum 1 and its centre of mass in the middle.

    A point walks `steps` equal steps; its heading is a Brownian motion that turns by `2 pi intensity` (one deviation)
    over the whole walk. The path is scaled to reach from 0.5 to 1 times the kernel's half size and drawn bilinearly.

    Original: stands for the generator that DPS borrows, whose kernels have the same look but another law.

    Args:
      key: one kernel for each.
      size: odd; steps: both static.
      intensity: dynamic, dimensionless: 0 draws a straight line.

    Raises:
      ValueError: where the size is not odd and at least 3, or a concrete intensity is negative.
    """
    require_key(key)
    size, steps = odd("size", size, 3), whole_number("steps", steps)
    require_number("intensity", intensity, 0, instead="0 draws a straight line")
    start, turn, reach = jax.random.split(key, 3)
    turns = 2 * np.pi / np.sqrt(steps) * jnp.asarray(intensity, float) * jax.random.normal(turn, (steps,), float)
    heading = jax.random.uniform(start, (), float, maxval=2 * np.pi) + jnp.cumsum(turns)
    path = jnp.cumsum(jnp.stack((jnp.sin(heading), jnp.cos(heading))), 1)
    path = path - jnp.mean(path, 1, keepdims=True)
    half = (size - 1) / 2
    path = half + path * (half * jax.random.uniform(reach, (), float, minval=0.5) / jnp.max(jnp.abs(path)))
    hats = jnp.maximum(1 - jnp.abs(jnp.arange(size)[None, :, None].astype(float) - path[:, None, :]), 0.0)
    return jnp.matmul(hats[0], hats[1].T, precision="highest") / steps


def motion_blur(
    key: Key,
    shape: tuple[int, ...],
    size: int | None = None,
    intensity: Array | float = 0.5,
    boundary: str = "circular",
    threshold: float = 1e-3,
) -> CircularBlur | ReflectBlur:
    """Blur with a `motion_kernel` drawn from `key`; for a kernel of your own call `blur`.

    Original in its kernels; the task (61, intensity 0.5, reflect) is that of Chung et al. 2023 (DPS), arXiv:2209.14687.
    Arguments and errors as for `blur` and `motion_kernel`; `size` by default as for `gaussian_blur`.
    """
    shape = picture_shape(shape)
    return blur(shape, motion_kernel(key, _fitting_size(shape, size), intensity), boundary, threshold)
