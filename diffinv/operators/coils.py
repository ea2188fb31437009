r"""Cartesian magnetic resonance imaging, single coil and multicoil.

A picture is (H, W, 2): the real and the imaginary part of a complex one (see `as_complex`, `as_real`). The measurement
is complex k-space (coils, H, W), zero where it was not sampled:

    y_c = m F (S_c x),    F = fftshift fft2 ifftshift, orthonormal: the centre of k-space is the pixel (H//2, W//2)

`x` being real, `A^H y` is real, too: (H, W, 2), the adjoint under `Re <a, b>`. Where the picture itself is real,
(H, W, 1), as priors of magnitudes have it, `real_mri` measures it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffinv.fft import at_least_single, fft2, ifft2
from diffinv.operators import spectra
from diffinv.operators.arguments import (
    inexact,
    mask_weights,
    require_key,
    require_one_of,
    size_of,
    static_number,
    whole_number,
)
from diffinv.operators.base import (
    ClosedForm,
    Composed,
    LinearOperator,
    as_complex,
    as_real,
    divide,
    real_scalar,
)
from diffinv.typing import Array, Key, Measured, Sample, Scalar


def fft2c(z: Array) -> Array:
    """Centred orthonormal Fourier transform over the last two axes, complex picture to k-space."""
    return jnp.fft.fftshift(fft2(jnp.fft.ifftshift(z, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))


def ifft2c(k: Array) -> Array:
    """The inverse, and Hermitian adjoint, of `fft2c`."""
    return jnp.fft.fftshift(ifft2(jnp.fft.ifftshift(k, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))


@struct.dataclass
class SingleCoilMRI(ClosedForm):
    """`y = m F x`, (H, W, 2) -> (1, H, W) complex; `A A^H = m^2` in k-space.

    Attributes:
      mask: m, where k-space is sampled, (H, W).
      input_shape: (H, W, 2); static.
    """

    mask: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        k = fft2c(as_complex(x))
        return (self.mask.astype(k.dtype) * k)[None]

    def adjoint(self, y: Measured) -> Sample:
        return as_real(ifft2c(self.mask.astype(y.dtype) * y[0]))

    def solve(self, v: Measured, damping: Scalar) -> Measured:
        return divide(v, (self.mask.astype(v.real.dtype) ** 2 + real_scalar(damping, v))[None])

    def project(self, y: Measured) -> Measured:
        return jnp.where((self.mask != 0)[None], y, 0.0)


@struct.dataclass
class MultiCoilMRI(LinearOperator):
    """`y_c = m F (S_c x)`, (H, W, 2) -> (coils, H, W) complex.

    `solve`, `pinv` and `project` run conjugate gradients; the range is what some picture explains in all coils at once,
    a proper part of the sampled k-space.

    Attributes:
      mask: m, where k-space is sampled, (H, W).
      sensitivities: S_c, complex, (coils, H, W).
      input_shape: (H, W, 2); static.
    """

    mask: Array
    sensitivities: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        z = as_complex(x)
        k = fft2c(self.sensitivities.astype(z.dtype) * z[None])
        return self.mask.astype(k.dtype)[None] * k

    def adjoint(self, y: Measured) -> Sample:
        z = ifft2c(self.mask.astype(y.dtype)[None] * y)
        return as_real(jnp.sum(jnp.conj(self.sensitivities).astype(z.dtype) * z, 0))


def mri(mask: Array, sensitivities: Array | None = None) -> SingleCoilMRI | MultiCoilMRI:
    """Cartesian MRI of pictures (H, W, 2), single coil unless `sensitivities` are given.

    Source: Pruessmann et al. 1999 (SENSE), on the grid; (H, W, 2) as in InverseBench, arXiv:2503.11043.

    Args:
      mask: (H, W), bool or float, 1 where k-space is sampled, centred; see `cartesian_mask`.
      sensitivities: (coils, H, W) complex, dimensionless; usually with unit sum of squares over the coils.

    Raises:
      ValueError: where the mask is not (H, W), or the sensitivities are not complex (coils, H, W).
    """
    mask = mask_weights("mask", mask)
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {mask.shape}; it must be (H, W): broadcast the lines to the whole of k-space")
    shape = (*mask.shape, 2)
    if sensitivities is None:
        return SingleCoilMRI(mask, shape)
    sensitivities = inexact("sensitivities", sensitivities)
    if sensitivities.ndim != 3 or sensitivities.shape[1:] != mask.shape or not jnp.iscomplexobj(sensitivities):
        got, wanted = f"{sensitivities.shape} {sensitivities.dtype}", f"(coils, {mask.shape[0]}, {mask.shape[1]})"
        raise ValueError(f"sensitivities are {got}; a mask {mask.shape} takes complex {wanted}: crop or cast them")
    return MultiCoilMRI(mask, sensitivities, shape)


@struct.dataclass
class RealPicture(ClosedForm):
    """`(x, 0)`: a real picture (H, W, 1) as the complex one (H, W, 2) without an imaginary part.

    Attributes:
      input_shape: (H, W, 1); static.
    """

    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        return jnp.concatenate((x, jnp.zeros_like(x)), -1)

    def adjoint(self, y: Measured) -> Sample:
        return y[..., :1]

    def solve(self, v: Measured, damping: Scalar) -> Measured:
        return divide(v, jnp.asarray([[[1, 0]]], v.dtype) + real_scalar(damping, v))


@struct.dataclass
class RealMRI(ClosedForm):
    """`y = m F x` of a real picture, (H, W, 1) -> (1, H, W) complex.

    k-space of a real picture is conjugate at `k` and `-k`, and so is the range of `A` where both are sampled:

        A^H A = F^H w F,   A A^H = m H m,   w(k) = (m(k)^2 + m(-k)^2) / 2,   (H v)(k) = (v(k) + conj v(-k)) / 2

    w is even, so that the Hartley transform, which is real, has the singular vectors, and sqrt(w) the singular values.

    Attributes:
      mask: m, where k-space is sampled, (H, W).
      input_shape: (H, W, 1); static.
    """

    mask: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        k = fft2c(at_least_single(x)[..., 0])
        return (self.mask.astype(k.dtype) * k)[None]

    def adjoint(self, y: Measured) -> Sample:
        return ifft2c(self.mask.astype(y.dtype) * y[0]).real[..., None]

    def solve(self, v: Measured, damping: Scalar) -> Measured:
        w, damping = self._gain(v), real_scalar(damping, v)
        return self._both_ways(v, w * (w + damping)) + divide(v - self._both_ways(v, w), damping)

    def project(self, y: Measured) -> Measured:
        return self._both_ways(y, self._gain(y))

    def spectrum(self) -> spectra.Spectrum:
        s = jnp.fft.ifftshift(jnp.sqrt(self._gain(self.mask)))[..., None]
        seen = lambda y: divide(spectra.hartley(self.adjoint(y)), s.astype(y.real.dtype))
        return spectra.Spectrum(s, spectra.hartley, spectra.hartley, seen)

    def _gain(self, like: Array) -> Array:
        square = self.mask.astype(like.real.dtype) ** 2
        return (square + _opposite(square)) / 2

    def _both_ways(self, v: Array, gain: Array) -> Array:
        """`m H m v / gain` for an even gain, 0 where that is 0."""
        k = self.mask.astype(v.dtype) * v[0]
        return (self.mask.astype(v.dtype) * divide((k + jnp.conj(_opposite(k))) / 2, gain))[None]


def _opposite(k: Array) -> Array:
    """`k(-k)` of centred k-space (H, W)."""
    return jnp.fft.fftshift(jnp.roll(jnp.flip(jnp.fft.ifftshift(k)), (1, 1), (0, 1)))


def real_mri(mask: Array, sensitivities: Array | None = None) -> RealMRI | Composed:
    """Cartesian MRI of real pictures (H, W, 1): `mri` without an imaginary part, arguments and errors as there.

    One coil has a closed form (`RealMRI`, with a spectrum), for several all but the adjoint is by conjugate gradients.
    With coils from `estimated_coils` a scan's phase lies in these, and what is left of it makes no picture.
    Source: the conjugate symmetry is that of Margosian et al. 1986, "Faster MR imaging: imaging with half the data".
    """
    inner = mri(mask, sensitivities)
    shape = (*inner.shape[:2], 1)
    return RealMRI(inner.mask, shape) if sensitivities is None else Composed(inner, RealPicture(shape))


def cartesian_mask(
    key: Key, size: tuple[int, int], acceleration: int, acs: int, pattern: str = "random", axis: int = 1
) -> Array:
    """A mask (H, W) of whole k-space lines, 1 where sampled: a fully sampled centre and undersampled rest.

    Source: Zbontar et al. 2018 (fastMRI), arXiv:1811.08839. Differs: "random" takes exactly
    `floor(N / acceleration)` lines, the centre among them, where fastMRI flips a coin for each; "equispaced" is every
    `acceleration`-th line from a random offset, and the centre on top.

    Args:
      key: of the lines outside the centre.
      size: (H, W) of k-space. acceleration: the whole number by which lines are thinned. acs: lines in the centre (the
        autocalibration signal); fastMRI has 8 % of them at 4x, 4 % at 8x. axis: along which lines are counted, 0 or 1
        (1, as fastMRI, drops columns). All static.
      pattern: "random" or "equispaced"; static.

    Raises:
      ValueError: where an argument is out of range, or "random" has fewer lines than the centre.
    """
    require_key(key)
    size, axis = size_of("size", size), whole_number("axis", axis, 0, 1)
    lines = size[axis]
    acceleration, acs = whole_number("acceleration", acceleration), whole_number("acs", acs, 0, lines)
    require_one_of("pattern", pattern, "random", "equispaced")
    if pattern == "random" and lines // acceleration < acs:
        raise ValueError(f"acs is {acs}; {acceleration}x of {lines} lines takes {lines // acceleration}: lower one")
    index = jnp.arange(lines)
    first = lines // 2 - acs // 2
    centre = (index >= first) & (index < first + acs)
    if pattern == "equispaced":
        kept = centre | (index % acceleration == jax.random.randint(key, (), 0, acceleration))
    else:
        order = jnp.argsort(jnp.where(centre, -1.0, jax.random.uniform(key, (lines,), float)))
        kept = jnp.zeros(lines, bool).at[order[: lines // acceleration]].set(True)
    return jnp.broadcast_to(jnp.expand_dims(kept, 1 - axis), size).astype(float)


def simulated_coils(size: tuple[int, int], coils: int, width: float = 0.6) -> Array:
    """Smooth sensitivities (coils, H, W), complex, of unit sum of squares in each pixel.

    Coil c sits on the picture's inscribed ellipse at the angle `2 pi c / coils`, with a Gaussian profile of deviation
    `width` (of the half side) and a phase that winds once around the ring. Original. All static.
    Raises ValueError where the size is not (H, W), or coils or width is not positive.
    """
    size, coils = size_of("size", size), whole_number("coils", coils)
    width = static_number("width", width, 1e-2, 1e3, instead="of the half side")
    rows, columns = np.meshgrid(*(2 * (np.arange(n) + 0.5) / n - 1 for n in size), indexing="ij")
    angle = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    square = (rows - np.sin(angle)) ** 2 + (columns - np.cos(angle)) ** 2
    profile = np.exp(-0.5 * square / width**2 + 1j * (angle + rows * np.cos(angle) - columns * np.sin(angle)))
    return jnp.asarray(profile / np.sqrt(np.sum(np.abs(profile) ** 2, 0)), complex)


def estimated_coils(kspace: Array, acs: int) -> Array:
    """Sensitivities (coils, H, W) from the fully sampled `acs` x `acs` centre of `kspace` (coils, H, W).

    Each coil's picture at low resolution (Hann window), over the root sum of squares of all; so the picture's own
    low-resolution phase moves into the coils. Source: McKenzie et al. 2002, "Self-calibrating parallel imaging with
    automatic coil sensitivity extraction". `acs` is static.
    Raises ValueError where k-space is not complex (coils, H, W) or smaller than the centre.
    """
    if kspace.ndim != 3 or not jnp.iscomplexobj(kspace) or not 0 < acs <= min(kspace.shape[1:]):
        got = f"{kspace.shape} {kspace.dtype}, {acs}"
        raise ValueError(f"kspace, acs are {got}; give complex (coils, H, W) and 0 < acs <= min(H, W)")
    window = np.multiply.outer(*(_centred_hann(n, acs) for n in kspace.shape[1:]))
    z = ifft2c(jnp.asarray(window[None]).astype(kspace.dtype) * kspace)
    return divide(z, jnp.sqrt(jnp.sum(jnp.abs(z) ** 2, 0, keepdims=True)))


def _centred_hann(n: int, width: int) -> np.ndarray:
    """A Hann window of `width` positive values about `n // 2`, among `n`."""
    first = n // 2 - width // 2
    return np.pad(np.hanning(width + 2)[1:-1], (first, n - first - width))
