"""Operators on pixels: masks and grey values. All have a closed-form `solve`.

A picture is (H, W, C), a mask is 1 where a pixel is kept. Constructors take the static `shape` of one picture.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffinv.operators import spectra
from diffinv.operators.arguments import (
    mask_weights,
    numbers,
    picture_shape,
    require_key,
    require_number,
    sample_shape,
    whole_number,
)
from diffinv.operators.base import ClosedForm, divide, real_scalar
from diffinv.typing import Array, Key, Measured, Sample, Scalar


@struct.dataclass
class Identity(ClosedForm):
    """`y = x`: denoising.

    Attributes:
      input_shape: of one sample, any; static.
    """

    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        return x

    def adjoint(self, y: Measured) -> Sample:
        return y

    def solve(self, v: Measured, damping: Scalar) -> Measured:
        return divide(v, 1 + real_scalar(damping, v))

    def project(self, y: Measured) -> Measured:
        return y

    def spectrum(self) -> spectra.Spectrum:
        return spectra.pointwise(jnp.ones((1,) * len(self.shape)))


def identity(shape: tuple[int, ...]) -> Identity:
    """`y = x` for samples of `shape` (static)."""
    return Identity(sample_shape(shape))


@struct.dataclass
class Mask(ClosedForm):
    """`y = m x`, which is (H, W, C), 0 where nothing is observed.

    Attributes:
      mask: m, usually 0 or 1, (H, W, 1) or (H, W, C).
      input_shape: (H, W, C); static.
    """

    mask: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        return self.mask.astype(x.dtype) * x

    def adjoint(self, y: Measured) -> Sample:
        return self(y)

    def solve(self, v: Measured, damping: Scalar) -> Measured:
        return divide(v, self.mask.astype(v.dtype) ** 2 + real_scalar(damping, v))

    def project(self, y: Measured) -> Measured:
        return jnp.where(self.mask != 0, y, 0.0)

    def spectrum(self) -> spectra.Spectrum:
        return spectra.pointwise(self.mask)


def inpainting(shape: tuple[int, ...], mask: Array) -> Mask:
    """Keeps the pixels where `mask`, (H, W, 1) or (H, W, C), bool or float, is 1.

    The shape comes first. Other floating-point values are gains. Raises ValueError where the mask does not fit the
    picture's `shape`, or has values that are not finite or bytes (0 and 255).
    """
    shape, mask = picture_shape(shape), mask_weights("mask", mask)
    if mask.shape not in (shape, (*shape[:2], 1)):
        raise ValueError(f"mask has shape {mask.shape}; {shape} takes {(*shape[:2], 1)}: add the channel axis")
    return Mask(mask, shape)


def _box(shape: tuple[int, ...], top: Array | int, left: Array | int, size: int) -> Mask:
    rows = jnp.arange(shape[0])[:, None, None] - top
    columns = jnp.arange(shape[1])[None, :, None] - left
    hidden = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    return inpainting(shape, ~hidden)


def box_inpainting(shape: tuple[int, ...], top: int, left: int, size: int) -> Mask:
    """Hides the box of `size` x `size` pixels whose corner is (`top`, `left`).

    All static, in pixels. Raises ValueError where the box leaves the picture.
    """
    shape = picture_shape(shape)
    top, left, size = whole_number("top", top, 0), whole_number("left", left, 0), whole_number("size", size)
    if top + size > shape[0] or left + size > shape[1]:
        raise ValueError(f"top, left, size are {top}, {left}, {size}; the box must lie in {shape[:2]}: move it")
    return _box(shape, top, left, size)


def random_box_inpainting(key: Key, shape: tuple[int, ...], size: int = 128, margin: int = 16) -> Mask:
    """Hides a box of `size` x `size` pixels placed uniformly, at least `margin` pixels from the border.

    Source: `random_sq_bbox` of Chung et al. 2023, arXiv:2209.14687, margin 16; DAPS (arXiv:2407.01521) has margin 32.
    `size` and `margin` are static. Raises ValueError where the box has no place.
    """
    require_key(key)
    shape, size, margin = picture_shape(shape), whole_number("size", size), whole_number("margin", margin, 0)
    room = [n - 2 * margin - size for n in shape[:2]]
    if min(room) < 1:
        raise ValueError(f"size, margin are {size}, {margin}; need size + 2 margin < {min(shape[:2])}: shrink them")
    corner = margin + jax.random.randint(key, (2,), 0, jnp.asarray(room))
    return _box(shape, corner[0], corner[1], size)


def random_inpainting(key: Key, shape: tuple[int, ...], probability_masked: Array | float) -> Mask:
    """Hides exactly `floor(probability_masked H W)` pixels, in all channels, chosen without replacement.

    Source: `random` masks of Chung et al. 2023, arXiv:2209.14687. `probability_masked` is dynamic, dimensionless.
    Raises ValueError where a concrete one is not in [0, 1].
    """
    require_key(key)
    shape = picture_shape(shape)
    require_number("probability_masked", probability_masked, 0, 1, "give a fraction, 0.7 for 70 %")
    pixels = shape[0] * shape[1]
    hidden = jnp.floor(jnp.asarray(probability_masked, float) * pixels).astype(int)
    return inpainting(shape, (jax.random.permutation(key, pixels) >= hidden).reshape(*shape[:2], 1))


def freeform_inpainting(
    key: Key, shape: tuple[int, ...], strokes: int = 4, vertices: int = 6, width: float = 0.1, length: float = 0.25
) -> Mask:
    """Hides random brush strokes: polylines with a random start and a wandering heading.

    Original. `strokes`, and `vertices` of each, are static; `width` and `length` (dynamic), of a stroke and a segment,
    are fractions of the shorter side, of which each stroke and segment takes between a half and the whole. The defaults
    hide about a sixth of a square picture. Raises ValueError where `strokes` or `vertices` is under 1, or a concrete
    width or length is negative.
    """
    require_key(key)
    shape, strokes, vertices = (
        picture_shape(shape),
        whole_number("strokes", strokes),
        whole_number("vertices", vertices),
    )
    require_number("width", width, 0, instead="a fraction of the shorter side")
    require_number("length", length, 0, instead="a fraction of the shorter side")
    width, length = jnp.asarray(width, float), jnp.asarray(length, float)
    side = min(shape[:2])
    walk, brush = jax.random.split(key)
    points = _strokes(walk, shape, strokes, vertices, length * side)
    radius = 0.5 * width * side * jax.random.uniform(brush, (strokes,), float, minval=0.5)
    segments = (points[:, :-1].reshape(-1, 2), points[:, 1:].reshape(-1, 2), jnp.repeat(radius, vertices))
    grid = jnp.asarray(np.moveaxis(np.indices(shape[:2]), 0, -1) + 0.5, float)

    def paint(hidden: Array, segment: tuple[Array, Array, Array]) -> tuple[Array, None]:
        return hidden | (_distance(grid, segment[0], segment[1]) <= segment[2]), None

    hidden = jax.lax.scan(paint, jnp.zeros(shape[:2], bool), segments)[0]
    return inpainting(shape, ~hidden[:, :, None])


def _strokes(key: Key, shape: tuple[int, ...], strokes: int, vertices: int, length: Array) -> Array:
    """Corners (strokes, vertices + 1, 2) of random walks whose steps are half a length to a length."""
    start, aim, turn, reach = jax.random.split(key, 4)
    turns = jnp.cumsum(jax.random.normal(turn, (strokes, vertices), float), 1)
    heading = turns + jax.random.uniform(aim, (strokes, 1), float, maxval=2 * np.pi)
    steps = length * jax.random.uniform(reach, (strokes, vertices, 1), float, minval=0.5)
    first = jax.random.uniform(start, (strokes, 1, 2), float) * jnp.asarray(shape[:2], float).reshape(1, 1, 2)
    rest = first + jnp.cumsum(steps * jnp.stack((jnp.sin(heading), jnp.cos(heading)), -1), 1)
    return jnp.concatenate((first, rest), 1)


def _distance(grid: Array, a: Array, b: Array) -> Array:
    """From each point of the grid (H, W, 2) to the segment between `a` and `b`, (2,) each."""
    line, to_a = (b - a).reshape(1, 1, 2), grid - a.reshape(1, 1, 2)
    along = jnp.sum(to_a * line, -1, keepdims=True) / jnp.maximum(jnp.sum(line**2), 1e-12)
    return jnp.linalg.norm(to_a - jnp.clip(along, 0, 1) * line, axis=-1)


@struct.dataclass
class ChannelMean(ClosedForm):
    """`y = sum_c w_c x_c`, (H, W, C) -> (H, W, 1).

    Attributes:
      weights: w, (C,).
      input_shape: (H, W, C); static.
    """

    weights: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        return jnp.sum(self._row(x) * x, -1, keepdims=True)

    def adjoint(self, y: Measured) -> Sample:
        return self._row(y) * y

    def solve(self, v: Measured, damping: Scalar) -> Measured:
        return divide(v, jnp.sum(self.weights**2).astype(v.dtype) + real_scalar(damping, v))

    def project(self, y: Measured) -> Measured:
        return y

    def spectrum(self) -> spectra.Spectrum:
        return spectra.channels(self.weights)

    def _row(self, like: Array) -> Array:
        return self.weights.astype(like.dtype).reshape(1, 1, -1)


def grayscale(shape: tuple[int, ...], weights: tuple[float, ...] | Array | None = None) -> ChannelMean:
    """Colourisation: the grey value of each pixel, by default the mean of its channels.

    Source: Kawar et al. 2022 (DDRM), arXiv:2201.11793, and Wang et al. 2023 (DDNM), arXiv:2212.00490. `weights` (C,),
    dimensionless; (0.299, 0.587, 0.114) is BT.601's luma. Raises ValueError where there is not one for each channel.
    """
    shape = picture_shape(shape)
    weights = jnp.full(shape[2], 1 / shape[2], float) if weights is None else numbers("weights", weights)
    if weights.shape != shape[2:]:
        raise ValueError(f"weights have shape {weights.shape}; {shape} takes {shape[2:]}: one for each channel")
    return ChannelMean(weights, shape)
