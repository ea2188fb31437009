r"""Resizing as PyTorch's `interpolate` does it, without antialiasing, to sizes that are known only at run time.

A picture of dynamic size lies in the upper left of a static *canvas*. Its axes are resized by dense matrices, in which
the rows beyond the new size repeat the last one: what a canvas holds beyond the picture is its repeated border.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from diffinv.describe import brief
from diffinv.linalg import added
from diffinv.operators.arguments import require_one_of, size_of
from diffinv.typing import Array

MODES = ("area", "bilinear", "bicubic")


def _area(i: Array, j: Array, n: Array, m: Array) -> Array:
    """Equal weights from `floor(i n/m)` to `ceil((i + 1) n/m)`, the latter left out: adaptive averaging."""
    first, end = (i * n) // m, -((-(i + 1) * n) // m)
    return jnp.where((j >= first) & (j < end), 1.0 / (end - first).astype(float), 0.0)


def _bilinear(u: Array, j: Array, n: Array) -> Array:
    u = jnp.clip(u, 0.0, (n - 1).astype(float))
    return jnp.maximum(1 - jnp.abs(u - j.astype(float)), 0.0)


def _cubic(d: Array) -> Array:
    """The cubic convolution kernel with a = -3/4."""
    near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3
    return jnp.where(d <= 1, near, jnp.where(d < 2, far, 0.0))


def _bicubic(u: Array, j: Array, n: Array) -> Array:
    """Four taps about `u`; those beyond the border fall on the border."""
    taps = [jnp.floor(u) + k for k in (-1.0, 0.0, 1.0, 2.0)]
    placed = [(jnp.clip(tap.astype(int), 0, n - 1) == j, _cubic(jnp.abs(u - tap))) for tap in taps]
    return added(jnp.where(here, weight, 0.0) for here, weight in placed)


def resizing_matrix(
    mode: Array | int, n: Array | int, m: Array | int, pitch: Array | float, size: tuple[int, int]
) -> Array:
    """The weights `size` = (M, N), static, that resize `n` <= N samples to `m` <= M.

    Output i samples the input at `u = pitch (i + 1/2) - 1/2`; rows from m on repeat row m - 1.

    Args:
      mode: dynamic, the place in `MODES`: the adaptive mean (which has no use for the pitch), bilinear, bicubic with
        a = -3/4; n, m: dynamic, at least 1.
      pitch: dynamic: `n / m` where torch is given a size, `1 / scale` where it is given a scale.
    """
    n, m = jnp.asarray(n, int), jnp.asarray(m, int)
    i, j = jnp.minimum(jnp.arange(size[0]), m - 1)[:, None], jnp.arange(size[1])[None, :]
    u = jnp.asarray(pitch, float) * (i.astype(float) + 0.5) - 0.5
    return jax.lax.select_n(jnp.asarray(mode, jnp.int32), _area(i, j, n, m), _bilinear(u, j, n), _bicubic(u, j, n))


def resized(canvas: Array, size: Array, new: Array, pitch: Array, mode: Array | int, shape: tuple[int, ...]) -> Array:
    """The picture of `size` (2,) on a canvas (H, W, C), resized to `new` (2,) on one of `shape` (static).

    `pitch` (2,) and `mode` as for `resizing_matrix`. Nothing is clipped: bicubic interpolation overshoots.
    """
    places = zip(size, new, pitch, shape, canvas.shape[:2], strict=True)
    rows, columns = (resizing_matrix(mode, n, m, p, (M, N)).astype(canvas.dtype) for n, m, p, M, N in places)
    return jnp.einsum("ih,hwc,jw->ijc", rows, canvas, columns, precision="highest")


def interpolate(image: Array, size: tuple[int, int], mode: str = "bicubic") -> Array:
    """Resizes (H, W, C) to `size` as PyTorch's `interpolate(image, size=size, mode=mode)` does.

    Source: PyTorch's documentation of `torch.nn.functional.interpolate`: bicubic has a = -3/4 and, unlike MATLAB's and
    `jax.image.resize`'s, no antialiasing; area is the adaptive mean. `size` and `mode` are static. Nothing is clipped.
    Raises ValueError where the mode has another name or the size is not positive.
    """
    require_one_of("mode", mode, *MODES)
    size = size_of("size", size)
    if getattr(image, "ndim", 0) != 3 or not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"image is {brief(image)}; give floats (H, W, C): data.to_unit(pixels)")
    old, new = jnp.asarray(image.shape[:2]), jnp.asarray(size)
    return resized(image, old, new, old.astype(float) / new.astype(float), MODES.index(mode), tuple(size))


def extended(canvas: Array, size: Array, shape: tuple[int, ...]) -> Array:
    """The picture of `size` on a canvas of `shape` (static) that repeats its border to the right and below."""
    rows, columns = (jnp.minimum(jnp.arange(n), m - 1) for n, m in zip(shape, size, strict=True))
    return canvas[rows][:, columns]


def reflected(canvas: Array, size: Array, margin: int) -> Array:
    """`margin` pixels (static) more on all sides: the picture of `size` (2,), mirrored about its own border pixels."""

    def places(n: int, m: Array) -> Array:
        period = jnp.maximum(2 * m - 2, 1)
        place = (jnp.arange(n + 2 * margin) - margin) % period
        return jnp.minimum(place, period - place)

    rows, columns = (places(n, m) for n, m in zip(canvas.shape[:2], size, strict=True))
    return canvas[rows][:, columns]
