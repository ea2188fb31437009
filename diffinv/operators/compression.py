r"""JPEG as a differentiable operator: colours, chroma subsampling, block DCT, rounding, and back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffinv.operators.arguments import picture_shape, require_number, require_one_of
from diffinv.operators.base import Operator
from diffinv.typing import Array, Measured, Sample

LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMINANCE = np.full((8, 8), 99)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]])


@struct.dataclass
class JPEG(Operator):
    """Encodes and decodes (H, W, 1) or (H, W, 3) in [-1, 1]; build it with `jpeg`.

    Attributes:
      tables: the quantisation steps of luma and chroma, in grey levels, (2, 8, 8).
      input_shape: of one picture; static.
      subsampling: by how much the sides of chroma are reduced; static.
      gradient: what the rounding has as its gradient; static.
    """

    tables: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)
    subsampling: int = struct.field(pytree_node=False, default=2)
    gradient: str = struct.field(pytree_node=False, default="straight")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        height, width, channels = self.shape
        levels = 127.5 * (x + 1) - 128
        if channels == 1:
            decoded = self._plane(levels[:, :, 0], 0)[:, :, None]
        else:
            ycc = jnp.einsum("hwc,dc->dhw", levels, jnp.asarray(YCBCR, x.dtype), precision="highest")
            planes = [self._plane(ycc[0], 0), self._chroma(ycc[1]), self._chroma(ycc[2])]
            inverse = jnp.asarray(np.linalg.inv(YCBCR), x.dtype)
            decoded = jnp.einsum("dhw,cd->hwc", jnp.stack(planes), inverse, precision="highest")
        return jnp.clip((decoded + 128) / 127.5 - 1, -1.0, 1.0)

    def _chroma(self, plane: Array) -> Array:
        """Through block means of `subsampling` pixels, and repetition on the way back."""
        factor, (height, width) = self.subsampling, plane.shape
        padded = _extended(plane, factor)
        rows, columns = (n // factor for n in padded.shape)
        small = self._plane(jnp.mean(padded.reshape(rows, factor, columns, factor), (1, 3)), 1)
        return jnp.repeat(jnp.repeat(small, factor, 0), factor, 1)[:height, :width]

    def _plane(self, plane: Array, table: int) -> Array:
        """The 8 x 8 blocks of one plane, quantised in the orthonormal DCT."""
        (height, width), padded = plane.shape, _extended(plane, 8)
        rows, columns = (n // 8 for n in padded.shape)
        step = self.tables[table].astype(plane.dtype)[None, :, None, :]
        wave = jnp.asarray(_dct_matrix(), plane.dtype)
        code = jnp.einsum("ui,aibj,vj->aubv", wave, padded.reshape(rows, 8, columns, 8), wave, precision="highest")
        code = _rounded(code / step, self.gradient) * step
        kept = jnp.einsum("ui,aubv,vj->aibj", wave, code, wave, precision="highest")
        return kept.reshape(padded.shape)[:height, :width]


def jpeg(shape: tuple[int, ...], quality: Array | int, subsampling: int = 2, gradient: str = "straight") -> JPEG:
    """What JPEG of `quality` leaves of a picture (H, W, 1) or (H, W, 3) in [-1, 1].

    Source: ITU-T T.81 (1992), Annex K's tables with the scaling of the Independent JPEG Group; colours of JFIF 1.02.
    Differs from libjpeg: nothing but the coefficients is rounded (not pixels, not YCbCr), and chroma comes back by
    repetition, where libjpeg smooths. The entropy coding loses nothing and is left out.

    Args:
      shape: of one picture; sides are extended to whole blocks by repeating the border. Static.
      quality: 1 to 100; dynamic.
      subsampling: of chroma in both directions: 2 (4:2:0) or 1 (4:4:4); static.
      gradient: of the rounding: "straight" is that of the identity (Bengio et al. 2013, arXiv:1308.3432), "cubic"
        replaces the rounding itself by `round(c) + (c - round(c))^3` (Shin and Song 2017); static.

    Raises:
      ValueError: where an argument is out of range.
    """
    shape = picture_shape(shape)
    if shape[2] not in (1, 3):
        raise ValueError(f"shape is {shape}; JPEG takes 1 channel (grey) or 3 (RGB): convert the picture")
    require_one_of("subsampling", subsampling, 1, 2)
    require_one_of("gradient", gradient, "straight", "cubic")
    return JPEG(jpeg_tables(quality), shape, subsampling, gradient)


def jpeg_tables(quality: Array | int) -> Array:
    """The steps (2, 8, 8) of luma and chroma for a `quality` of 1 to 100, whole numbers from 1 to 255.

    Source: ITU-T T.81, tables K.1 and K.2, scaled as in the Independent JPEG Group's library. Raises ValueError where a
    concrete quality is out of range.
    """
    require_number("quality", quality, 1, 100)
    quality = jnp.asarray(quality, float)
    percent = jnp.floor(jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality))
    base = jnp.asarray(np.stack((LUMINANCE, CHROMINANCE)), float)
    return jnp.clip(jnp.floor((base * percent + 50) / 100), 1.0, 255.0)


def _dct_matrix() -> np.ndarray:
    """The orthonormal DCT-II of 8 points, (frequency, place)."""
    angle = np.pi / 8 * np.arange(8)[:, None] * (np.arange(8) + 0.5)[None, :]
    return np.where(np.arange(8)[:, None] == 0, np.sqrt(1 / 8), 0.5 * np.cos(angle))


def _rounded(code: Array, gradient: str) -> Array:
    whole = jax.lax.stop_gradient(jnp.round(code))
    return code + jax.lax.stop_gradient(whole - code) if gradient == "straight" else whole + (code - whole) ** 3


def _extended(plane: Array, multiple: int) -> Array:
    return jnp.pad(plane, [(0, -n % multiple) for n in plane.shape], mode="edge")
