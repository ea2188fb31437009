r"""Tiles: a function that is made for small pictures, applied to one of any size without a seam.

Tiles of one size lie `size - overlap` pixels apart, the last one flush with the border. What they say of a pixel is
blended by weights that fall to 0 towards each inner border of a tile and sum to 1. Pictures are (H, W, C).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.typing import Array


def starts(length: int, size: int, overlap: int) -> tuple[int, ...]:
    """Where the tiles of one axis begin, `min(i (size - overlap), length - size)`; everything static, in pixels.

    Multiplying all three by a scale multiplies the starts, so that tiles of two resolutions belong together.
    Raises ValueError where the tiles do not advance, or where a tile is longer than the axis.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"overlap is {overlap} and size {size}; give 0 <= overlap < size")
    if size > length:
        raise ValueError(f"size is {size}, but the picture has {length} pixels; pad the picture or take smaller tiles")
    count = -(-(length - size) // (size - overlap)) + 1
    return tuple(min(i * (size - overlap), length - size) for i in range(count))


def blend_weights(length: int, size: int, overlap: int, margin: int = 0) -> np.ndarray:
    r"""The (tiles, size) weights of one axis, float64; those that meet in a pixel sum to 1.

    A tile's raw weight is `r(d) r(d')` for the distances d, d' of the pixel's centre to its inner borders, with
    `r(d) = sin^2(pi/2 u)`, `u = (d - margin) / (overlap - 2 margin)` clipped to [0, 1]: what lies within `margin` of an
    inner border, where a network sees beyond its tile, has no say. The picture's own border is no inner border.

    Raises ValueError where `2 margin` is not below the overlap.
    """
    first = np.asarray(starts(length, size, overlap))
    if margin < 0 or (overlap or margin) and 2 * margin >= overlap:
        raise ValueError(f"margin is {margin} and overlap {overlap}; give 0 <= 2 margin < overlap")
    u = (np.arange(size) + 0.5 - margin) / max(overlap - 2 * margin, 1e-9)
    rise = np.sin(0.5 * np.pi * np.clip(u, 0, 1)) ** 2
    table = np.ones((len(first), size))
    table[1:] *= rise
    table[:-1] *= rise[::-1]
    places = first[:, None] + np.arange(size)
    total = np.zeros(length)
    np.add.at(total, places, table)
    return table / total[places]


def _corners(shape: tuple[int, ...], tile: tuple[int, ...], overlap: int) -> tuple[Array, Array]:
    """Tops and lefts of all tiles, row by row."""
    rows, columns = (starts(length, size, overlap * (size < length)) for length, size in zip(shape[:2], tile))
    return jnp.repeat(jnp.asarray(rows), len(columns)), jnp.tile(jnp.asarray(columns), len(rows))


def cut(x: Array, size: int, overlap: int) -> Array:
    """The tiles (N, h, w, C) of `x`, row by row; h and w are `size`, or the picture's side where that is shorter.

    `size` and `overlap` are static, in pixels; errors as of `starts`.
    """
    shape = (*(min(size, side) for side in x.shape[:2]), x.shape[2])
    tops, lefts = _corners(x.shape, shape, overlap)
    return jax.vmap(lambda top, left: jax.lax.dynamic_slice(x, (top, left, 0), shape))(tops, lefts)


def join(tiles: Array, shape: tuple[int, ...], overlap: int, margin: int = 0) -> Array:
    """The picture of `shape` (H, W, C) whose tiles are `tiles` (N, h, w, C), blended; `join(cut(x)) = x`.

    All but the tiles is static. Raises ValueError where their number does not fit the shape.
    """
    h, w = tiles.shape[1:3]
    tops, lefts = _corners(shape, (h, w), overlap)
    if len(tiles) != len(tops):
        raise ValueError(
            f"tiles holds {len(tiles)} of {h} x {w}; {shape[0]} x {shape[1]} needs {len(tops)}: check overlap"
        )
    several = [size < length for length, size in zip(shape[:2], (h, w))]  # where one tile covers an axis, none overlaps
    down, across = (blend_weights(n, m, overlap * s, margin * s) for n, m, s in zip(shape[:2], (h, w), several))
    shares = (np.repeat(down, len(across), 0), np.tile(across, (len(down), 1)))

    def add(picture: Array, now: tuple[Array, ...]) -> tuple[Array, None]:
        tile, top, left, rows, columns = now
        corner = (top, left, 0)
        share = (rows[:, None] * columns[None, :])[..., None]
        here = jax.lax.dynamic_slice(picture, corner, tile.shape)
        return jax.lax.dynamic_update_slice(picture, here + share * tile, corner), None

    shares = tuple(jnp.asarray(share, tiles.dtype) for share in shares)
    return jax.lax.scan(add, jnp.zeros(shape, tiles.dtype), (tiles, tops, lefts, *shares))[0]


def tiled(
    function: Callable[..., Array],
    size: int,
    overlap: int,
    margin: int = 0,
    scales: tuple[int, ...] = (1,),
    scale: int = 1,
    over: Callable[[Callable[..., Array], tuple[Array, ...]], Array] | None = None,
) -> Callable[..., Array]:
    r"""`function` of small pictures as one of pictures of any size: cut, applied tile by tile, joined.

    It equals `function` on the whole where `margin` covers the function's receptive field. Put inside a denoiser, not
    around a sampler, it leaves one state and one noise for the whole picture: tiles cannot drift apart, since they are
    blended at every step. Blending commutes with every preconditioning, which is linear in the network's output.

    Source: original; joining the denoisings of overlapping windows at every step is MultiDiffusion's (Bar-Tal et al.
    2023, arXiv:2302.08113, eq. 5). Differs: smooth weights, and a margin without any.

    Args:
      function: `(x_1, ..., x_K) -> y`, pictures of one field of view; y is `scale` times its finest grid.
      size, overlap, margin: pixels of that grid; static.
      scales: of x_1, ..., x_K, relative to the grid; static.
      over: `(function, stacks) -> stack` maps over the tiles; by default `lax.map`, one tile after the other.

    Raises ValueError where the pictures' sizes do not stand in the proportion of `scales`.
    """

    def each(function: Callable[..., Array], stacks: tuple[Array, ...]) -> Array:
        return jax.lax.map(lambda tiles: function(*tiles), stacks)

    def whole(*pictures: Any) -> Array:
        sides = {(x.shape[0] / k, x.shape[1] / k) for x, k in zip(pictures, scales, strict=True)}
        if len(sides) != 1:
            shapes = [x.shape for x in pictures]
            raise ValueError(f"pictures are {shapes}, in another proportion than scales {scales}; crop or pad them")
        stacks = tuple(cut(x, k * size, k * overlap) for x, k in zip(pictures, scales))
        tiles = (over or each)(function, stacks)
        height, width = (round(scale * side) for side in sides.pop())
        return join(tiles, (height, width, tiles.shape[-1]), scale * overlap, scale * margin)

    return whole
