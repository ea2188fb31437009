r"""From (H, W, C) in [-1, 1] to (H / scale, W / scale, C): MATLAB's bicubic, and the random degradation of Real-ESRGAN.

    blur -> resize -> noise -> JPEG  [-> blur -> resize -> noise]  -> resize, sinc and JPEG in either order -> 8 bits

Sizes drawn at random are numbers on a canvas of the largest size: every stage reads the picture's own border.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from diffinv.degrade import kernels, resizing
from diffinv.degrade.draws import BlurDraw, Draw, draw
from diffinv.degrade.noise import either_noise
from diffinv.degrade.settings import Settings, resshift_train
from diffinv.operators.arguments import numbers, require_key, whole_number
from diffinv.operators.compression import jpeg
from diffinv.operators.fourier import ReflectBlur
from diffinv.operators.resizing import imresize
from diffinv.typing import Array, Key


def quantise(image: Array) -> Array:
    """Clipped to [-1, 1] and rounded to the 256 levels of 8 bits, of any shape; its gradient is 0."""
    return jnp.round(127.5 * (jnp.clip(image, -1.0, 1.0) + 1)) / 127.5 - 1


def _small(image: Array, scale: int) -> tuple[int, int]:
    """The low-resolution size, or ValueError."""
    shape, dtype = getattr(image, "shape", "?"), getattr(image, "dtype", type(image).__name__)
    if getattr(image, "ndim", 0) != 3 or image.shape[2] not in (1, 3) or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"image is {shape} {dtype}; give floats (H, W, 1 or 3): data.to_unit(pixels)")
    scale = whole_number("scale", scale)
    numbers("image", image)
    height, width, _ = image.shape
    if height % scale or width % scale or not height * width:
        raise ValueError(f"scale is {scale}; it must divide the picture's {(height, width)}: crop it")
    return height // scale, width // scale


def matlab_bicubic(image: Array, scale: int, rounded: bool = False) -> Array:
    """MATLAB's antialiased bicubic `imresize(image, 1/scale)`, (H, W, C) -> (H/scale, W/scale, C).

    It is the degradation of Set5, Set14 and DIV2K. Source: as `operators.imresize`.

    Args:
      image: (H, W, C) in [-1, 1].
      scale: of the sides; static.
      rounded: whether the result is brought to 8 bits; otherwise it may overshoot [-1, 1]; static.

    Raises ValueError where the scale does not divide the picture.
    """
    small = imresize(image, _small(image, scale))
    return quantise(small) if rounded else small


def blurred(canvas: Array, size: Array, blur: BlurDraw, side: int) -> Array:
    """Correlation with the drawn kernel, at most `side` pixels (static) wide, at the reflecting border of `size` (2,).

    What the canvas (H, W, C) holds beyond the picture is of no use afterwards.
    """
    margin = side // 2
    wide = resizing.reflected(canvas, size, margin)
    out = ReflectBlur(kernels.kernel(side, *blur), wide.shape)(wide)
    return out[margin : margin + canvas.shape[0], margin : margin + canvas.shape[1]]


def compressed(canvas: Array, size: Array, quality: Array) -> Array:
    """JPEG of the picture of `size` (2,), whose last units of 16 x 16 repeat the border; clipped before.

    Source: as `operators.jpeg`. Differs from the published DiffJPEG: that one fills with black, does not round the
    quantisation tables, and divides by 0 at quality 100.
    """
    height, width, channels = canvas.shape
    units = -(-height // 16) * 16, -(-width // 16) * 16
    whole = resizing.extended(jnp.clip(canvas, -1.0, 1.0), size, units)
    return jpeg((*units, channels), quality)(whole)[:height, :width]


def _scaled(size: tuple[int, ...], scale: Array, room: tuple[int, ...]) -> Array:
    return jnp.clip(jnp.floor(scale * jnp.asarray(size, float)).astype(int), 1, jnp.asarray(room))


def _canvas(size: tuple[int, ...], settings: Settings, scale: int) -> tuple[int, ...]:
    """The largest size of any stage."""
    first, second = settings.first.resize.scale[1], settings.second.resize.scale[1]
    return tuple(max(int(n * max(first, 1.0)), int(n / scale * max(second, 1.0))) for n in size)


def degrade(
    key: Key, image: Array, scale: int, draw: Draw, settings: Settings = resshift_train, rounded: bool = True
) -> Array:
    """The degradation `draw` of a picture, with noise from `key`; see `realesrgan`.

    `settings` say how much room to keep: the largest kernels and scales.
    """
    small, image = _small(image, scale), jnp.asarray(image)
    shape, size = _canvas(image.shape[:2], settings, scale), jnp.asarray(image.shape[:2])
    one, two = jax.random.split(key)
    new, pitch = _scaled(image.shape[:2], draw.first.resize.scale, shape), jnp.full(2, 1 / draw.first.resize.scale)
    x = blurred(image, size, draw.first.blur, settings.first.blur.sides[1])
    x = resizing.resized(x, size, new, pitch, draw.first.resize.mode, shape)
    x, size = compressed(either_noise(one, x, *draw.first.noise), new, draw.first.quality), new
    if settings.second_order:
        again, new = _second(two, x, size, small, draw, settings)
        x, size = jnp.where(draw.second_order, again, x), jnp.where(draw.second_order, new, size)
    x = jnp.where(draw.resize_first, x, compressed(x, size, draw.second.quality))
    new = jnp.asarray(small)
    x = resizing.resized(x, size, new, size / new, draw.mode, small)
    x = blurred(x, new, draw.sinc, settings.sinc_sides[1])
    x = jnp.where(draw.resize_first, compressed(x, new, draw.second.quality), x)
    return quantise(x) if rounded else x


def _second(
    key: Key, x: Array, size: Array, small: tuple[int, int], draw: Draw, settings: Settings
) -> tuple[Array, Array]:
    """The second stage to about the final size, on its own canvas, and back on that of the first; with the size."""
    stage, resize = draw.second, settings.second.resize
    shape = tuple(int(n * max(resize.scale[1], 1.0)) for n in small)
    new = _scaled(small, stage.resize.scale, shape)
    y = blurred(x, size, stage.blur, settings.second.blur.sides[1])
    y = resizing.resized(y, size, new, size / new, stage.resize.mode, shape)
    return resizing.extended(either_noise(key, y, *stage.noise), new, x.shape[:2]), new


def realesrgan(
    key: Key, image: Array, scale: int = 4, settings: Settings = resshift_train, rounded: bool = True
) -> Array:
    """A low-resolution picture as a camera, a network and two encoders may have left it, at random.

    Source: Wang et al. 2021 (Real-ESRGAN), arXiv:2107.10833; in the variant and with the numbers of ResShift (Yue et
    al. 2023, arXiv:2307.12348), which SinSR and CTMSR have, too: `settings` are `resshift_train`, its milder
    `resshift_test`, or `stock`. Differs: every example has its own draw (see `draws.draw`) and JPEG is that of
    `compressed`. CTMSR's network input is this picture, but it upsamples the unrounded one (`rounded=False`).

    Args:
      key: gives the draw and the noise: the same key, the same result.
      image: (H, W, 1) or (H, W, 3) in [-1, 1].
      scale: static; settings: static and hashable; rounded: to 8 bits, static.

    Returns:
      (H / scale, W / scale, C); in [-1, 1] where rounded, else as it comes from the sinc filter.

    Raises:
      ValueError: where the picture is of another form, or not finite, or the scale does not divide it.
    """
    require_key(key)
    drawn, noise = jax.random.split(key)
    return degrade(noise, image, scale, draw(drawn, settings), settings, rounded)
