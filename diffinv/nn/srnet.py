r"""A small residual network for super-resolution that computes at the low resolution, and cubic upsampling.

    F(x, c, low) = up(low) + depth_to_space(head(body(first(low) + noisy(space_to_depth(x)), c))),

with `head = noisy = 0` at first: an untrained network returns the cubic interpolation of `low`, bit by bit, and its
features begin without the noise, which otherwise silences them for good (measured: no progress in 4,000 steps).

Source: the shape of `SRNet` in CTMSR's code (You et al. 2025, arXiv:2503.20349): a noisy picture in pixel blocks beside
the raw low-resolution one, one resolution, pixel-shuffle head. Differs: blocks are those of EDSR (Lim et al. 2017,
arXiv:1707.02921: no norm) with the time as a scale and a shift in between.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffinv.nn import layers
from diffinv.typing import Array

MATLAB, TORCH = -0.5, -0.75
_zeros = nn.initializers.zeros


def _keys(d: np.ndarray, a: float) -> np.ndarray:
    """Keys's cubic kernel: 1 at 0, and 0 at the other integers."""
    d = np.abs(d)
    inner = (a + 2) * d**3 - (a + 3) * d**2 + 1
    outer = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, inner, np.where(d < 2, outer, 0.0))


def phases(scale: int, a: float) -> np.ndarray:
    """Weights (scale, 5) of the low samples -2 to 2 about a low sample, for each high sample within it; float64."""
    centres = (np.arange(scale) + 0.5) / scale - 0.5
    return _keys(centres[:, None] - np.arange(-2, 3)[None], a)


def _upsample_rows(x: Array, scale: int, a: float, mode: str) -> Array:
    height, *rest = x.shape
    padded = jnp.pad(x, ((2, 2), *((0, 0) for _ in rest)), mode)
    weights = phases(scale, a)
    fine = [sum(padded[k : k + height] * weights[p, k].item() for k in range(5)) for p in range(scale)]
    return jnp.stack(fine, 1).reshape(scale * height, *rest)


def upsample_cubic(x: Array, scale: int, a: float = MATLAB) -> Array:
    """(h, w, C) to (scale h, scale w, C) by Keys's cubic kernel of parameter `a`; both static.

    `a = -1/2` is MATLAB's `imresize` (mirrored border), any other value is torch's `interpolate(mode="bicubic",
    align_corners=False)` where it is -3/4 (border repeated). Source: Keys 1981, doi:10.1109/TASSP.1981.1163711.
    """
    mode = "symmetric" if a == MATLAB else "edge"
    rows = _upsample_rows(x, scale, a, mode)
    return _upsample_rows(rows.swapaxes(0, 1), scale, a, mode).swapaxes(0, 1)


class SRBlock(nn.Module):
    """`x + conv1(silu((1 + scale) conv0(x) + shift))`, with scale and shift from the embedding, 0 at first.

    Attributes:
      features: channels; static.
      plain: `lax`'s own convolution; static.
      dtype: of the computation; static.
    """

    features: int
    plain: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        options = {"plain": self.plain, "dtype": self.dtype}
        film = nn.Dense(2 * self.features, kernel_init=_zeros, dtype=self.dtype, name="film")
        scale, shift = jnp.split(film(embedding)[None, None], 2, -1)
        h = layers.convolution(self.features, name="conv0", **options)(x)
        damped = nn.initializers.variance_scaling(0.1, "fan_in", "truncated_normal")
        h = layers.convolution(self.features, name="conv1", kernel_init=damped, **options)(
            nn.silu(h * (1 + scale) + shift)
        )
        return x + h


class SRNet(nn.Module):
    """`(x (s h, s w, C), condition (), low (h, w, C)) -> (s h, s w, C)` in float32, for one example.

    Of 32 channels and 8 blocks it has 212 thousand weights. All attributes are static.

    Attributes:
      channels: the width.
      blocks: the depth.
      scale: s.
      out_channels: C of the result.
      residual: add `upsample_cubic(low)`; otherwise the network starts from zero.
      cubic: the upsampling's parameter, see `upsample_cubic`.
      time_scale: multiplies the condition, `log(sigma + 0.002) / 4`, before its embedding.
      dtype: of the computation; parameters and result are float32.
      plain_conv: `lax`'s own convolution, for training; see `layers.conv`.
    """

    channels: int = 32
    blocks: int = 8
    scale: int = 4
    out_channels: int = 3
    residual: bool = True
    cubic: float = MATLAB
    time_scale: float = 40.0
    dtype: Any = jnp.float32
    plain_conv: bool = False

    @nn.compact
    def __call__(self, x: Array, condition: Array, low: Array) -> Array:
        if x.shape[:2] != (self.scale * low.shape[0], self.scale * low.shape[1]):
            raise ValueError(f"x is {x.shape} and low {low.shape}; x must be {self.scale} times as high and as wide")
        options = {"plain": self.plain_conv, "dtype": self.dtype}
        embedding = self._embed(condition)
        noisy = layers.space_to_depth(x, self.scale).astype(self.dtype)
        h = layers.convolution(self.channels, name="first", **options)(low.astype(self.dtype))
        h = first = h + layers.convolution(self.channels, name="noisy", kernel_init=_zeros, **options)(noisy)
        for i in range(self.blocks):
            h = SRBlock(self.channels, name=f"block{i}", **options)(h, embedding)
        head = layers.convolution(self.out_channels * self.scale**2, name="head", kernel_init=_zeros, **options)
        out = layers.depth_to_space(head(h + first), self.scale).astype(jnp.float32)
        return out + upsample_cubic(low, self.scale, self.cubic).astype(jnp.float32) if self.residual else out

    def _embed(self, condition: Array) -> Array:
        h = layers.time_embedding(self.time_scale * jnp.asarray(condition), self.channels).astype(self.dtype)
        return nn.silu(nn.Dense(2 * self.channels, dtype=self.dtype, name="embed")(h))
