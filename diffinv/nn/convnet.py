r"""A U-Net for pictures of any size: convolutions and norms of one pixel alone, so that a crop is treated as the whole.

Nothing in it looks at the picture as a whole: no attention, and no statistics over positions. What it makes of a
pixel depends on the pixels within `reach` of it, and not on where the picture ends beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from diffinv.nn import layers
from diffinv.typing import Array


class PixelNorm(nn.Module):
    """`gamma (1 + scale) x / rms(x) + shift`, the root mean square over the channels of each pixel, in float32.

    Source: Zhang & Sennrich 2019, arXiv:1910.07467; per pixel as in Karras et al. 2018, arXiv:1710.10196; FiLM as in
    `layers.GroupNorm`.
    """

    @nn.compact
    def __call__(self, x: Array, film: Sequence[Array] | None = None) -> Array:
        gamma = self.param("gain", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        h = x.astype(jnp.float32)
        h = h * lax.rsqrt(jnp.mean(h**2, -1, keepdims=True) + 1e-6) * gamma[None, None]
        if film is not None:
            scale, shift = (f.astype(jnp.float32) for f in film)
            h = h * (1 + scale)[None, None] + shift[None, None]
        return h.astype(x.dtype)


class ConvBlock(nn.Module):
    """`x + conv(silu(film(norm(conv(silu(norm(x)))))))`; the last convolution starts at zero.

    All attributes are static.

    Attributes:
      features: channels in and out.
      plain: use `lax`'s own convolution, for training and forward mode.
      dtype: of the computation; parameters are float32.
    """

    features: int
    plain: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        conv = lambda name, **kw: layers.convolution(self.features, self.plain, name=name, dtype=self.dtype, **kw)
        film = nn.Dense(2 * self.features, name="film", dtype=self.dtype)(embedding)
        h = conv("conv_in")(nn.silu(PixelNorm(name="norm_in")(x)))
        h = nn.silu(PixelNorm(name="norm_out")(h, jnp.split(film, 2)))
        return x + conv("conv_out", kernel_init=nn.initializers.zeros)(h)


class ConvUNet(nn.Module):
    """`(x (H, W, C_in), condition ()) -> (H, W, out_channels)` in float32, for one example of any size.

    H and W are multiples of `patch 2^(levels - 1)`. Levels shrink by means of 2 x 2 and grow by repetition; the way up
    adds what the way down kept. All attributes are static.

    Source: original; FFDNet's patches of 2 x 2 (Zhang et al. 2018, arXiv:1710.04026) on DRUNet's plan (Zhang et al.
    2021, arXiv:2008.13751), with the noise level told to every block.

    Attributes:
      channels: the width, before the multipliers.
      multipliers: the width of level i is `int(channels * multipliers[i])`.
      blocks: residual blocks a level on the way down, and as many on the way up.
      out_channels: of the result.
      patch: space-to-depth in, depth-to-space out.
      time_scale: multiplies the condition before the embedding.
      dtype: of the computation; parameters and output are float32.
      remat: recompute each block in the backward pass.
      plain_conv: `lax`'s own convolution, for training and forward mode; see `layers.conv`.
    """

    channels: int = 64
    multipliers: tuple[float, ...] = (1, 1.5, 2)
    blocks: int = 2
    out_channels: int = 3
    patch: int = 2
    time_scale: float = 40.0
    dtype: Any = jnp.float32
    remat: bool = False
    plain_conv: bool = False

    def reach(self) -> int:
        """Pixels: beyond so many to each side, nothing changes a pixel's result."""
        coarsest = 2 ** (len(self.multipliers) - 1)
        levels = sum(4 * self.blocks * 2**level for level in range(len(self.multipliers)))
        return self.patch * (levels + 2 + coarsest)

    @nn.compact
    def __call__(self, x: Array, condition: Array) -> Array:
        widths = [int(self.channels * m) for m in self.multipliers]
        embedding = self._embed(condition)
        conv = lambda width, name, **kw: layers.convolution(width, self.plain_conv, name=name, dtype=self.dtype, **kw)
        dense = lambda width, name: nn.Dense(width, name=name, dtype=self.dtype)
        h = conv(widths[0], "first")(layers.space_to_depth(x, self.patch).astype(self.dtype))
        kept = []
        for level, width in enumerate(widths):
            h = dense(width, f"down{level}")(layers.down(h)) if level else h
            h = self._blocks(f"down{level}", h, embedding, width)
            kept.append(h)
        for level, width in reversed(list(enumerate(widths))):
            h = kept[level] if level == len(widths) - 1 else kept[level] + dense(width, f"up{level}")(layers.up(h))
            h = self._blocks(f"up{level}", h, embedding, width)
        h = nn.silu(PixelNorm(name="norm_last")(h))
        h = conv(self.out_channels * self.patch**2, "last", kernel_init=nn.initializers.zeros)(h)
        return layers.depth_to_space(h, self.patch).astype(jnp.float32)

    def _embed(self, condition: Array) -> Array:
        h = layers.time_embedding(self.time_scale * jnp.asarray(condition), self.channels).astype(self.dtype)
        h = nn.silu(nn.Dense(2 * self.channels, name="embed0", dtype=self.dtype)(h))
        return nn.silu(nn.Dense(2 * self.channels, name="embed1", dtype=self.dtype)(h))

    def _blocks(self, name: str, h: Array, embedding: Array, width: int) -> Array:
        block = nn.remat(ConvBlock) if self.remat else ConvBlock
        for i in range(self.blocks):
            h = block(width, self.plain_conv, self.dtype, name=f"{name}_{i}")(h, embedding)
        return h
