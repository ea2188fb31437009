r"""CTMSR's network: EDM's DDPM++ U-Net at the low resolution, with attention in windows and a nearest-neighbour head.

Source: You et al. 2025, arXiv:2503.20349, and its code `edm_unet_arch.py` (`EDMUNet` of type `SongUNet`). Differs: the
initial weights are Flax's, where it scales each block's second convolution by 1e-5; the head's last convolution starts
at zero where `residual` is set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from diffinv.nn import layers, song, srnet, swin
from diffinv.typing import Array


class CTMSRUNet(nn.Module):
    """`(x (s h, s w, C), condition (), low (h, w, C)) -> (s h, s w, C)` in float32, for one example.

    The published one, `CTMSRUNet(dropout=0.13)`, has 171.52 million weights. h and w are multiples of `window 2^(levels
    - 1)`; where a level is natively smaller than the window, its window is the level. All attributes are static.

    Attributes:
      resolution: native size of `low`, which names the modules and bounds the windows.
      channels: as in `unet.UNet`.
      multipliers: as in `unet.UNet`, whole numbers.
      blocks: as in `unet.UNet`.
      attention: levels' native sizes with attention, in every block on the way down and the last on the way up; the
        first block of the middle has it always. Published: all of them.
      heads: of the attention.
      window: side of a window of the attention.
      embed: width of the attention; 0 is `channels`.
      scale: s, a power of 2.
      out_channels: C.
      residual: add the cubic upsampling of `low` (published: no).
      cubic: the parameter of that upsampling, see `srnet.upsample_cubic`.
      dropout: acts where `apply` is given an rng named "dropout".
      dtype: as in `unet.UNet`.
      remat: as in `unet.UNet`.
      plain_conv: as in `unet.UNet`.
    """

    resolution: int = 64
    channels: int = 192
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 4
    attention: tuple[int, ...] = (64, 32, 16, 8)
    heads: int = 6
    window: int = 8
    embed: int = 0
    scale: int = 4
    out_channels: int = 3
    residual: bool = False
    cubic: float = srnet.TORCH
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False
    plain_conv: bool = False

    @nn.compact
    def __call__(self, x: Array, condition: Array, low: Array) -> Array:
        if x.shape[:2] != (self.scale * low.shape[0], self.scale * low.shape[1]):
            raise ValueError(f"x is {x.shape} and low {low.shape}; x must be {self.scale} times as high and as wide")
        embedding = self._embed(condition)
        h = jnp.concatenate([layers.space_to_depth(x, self.scale), low], -1).astype(self.dtype)
        h = self._conv(f"enc_{self._name(0)}_conv", self.channels)(h)
        skips = []
        for level, multiplier in enumerate(self.multipliers):
            name, width = f"enc_{self._name(level)}", self.channels * multiplier
            if level:
                h = self._block(f"{name}_down", h, embedding, h.shape[-1], 0.5)
            skips.append(h)
            for i in range(self.blocks):
                h = self._block(f"{name}_block{i}", h, embedding, width)
                h = self._attend(f"{name}_block{i}", h, level)
                skips.append(h)
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            name, width = f"dec_{self._name(level)}", self.channels * multiplier
            if level == len(self.multipliers) - 1:
                h = self._block(f"{name}_in0", h, embedding, width)
                h = self._attend(f"{name}_in0", h, level, always=True)
                h = self._block(f"{name}_in1", h, embedding, width)
            else:
                h = self._block(f"{name}_up", h, embedding, h.shape[-1], 2)
            for i in range(self.blocks + 1):
                h = self._block(f"{name}_block{i}", jnp.concatenate([h, skips.pop()], -1), embedding, width)
            h = self._attend(f"{name}_block{self.blocks}", h, level)
        return self._out(h, low)

    def _name(self, level: int) -> str:
        size = self.resolution >> level
        return f"{size}x{size}"

    def _conv(self, name: str, features: int, **options: Any) -> Callable[[Array], Array]:
        return layers.convolution(features, self.plain_conv, name=name, dtype=self.dtype, **options)

    def _block(self, name: str, h: Array, embedding: Array, features: int, factor: float = 1) -> Array:
        block = nn.remat(song.SongBlock) if self.remat else song.SongBlock
        options = {"dropout": self.dropout, "plain": self.plain_conv, "dtype": self.dtype, "name": name}
        return block(features, factor, **options)(h, embedding)

    def _attend(self, name: str, h: Array, level: int, always: bool = False) -> Array:
        size = self.resolution >> level
        if not (always or size in self.attention):
            return h
        layer = nn.remat(swin.SwinLayer) if self.remat else swin.SwinLayer
        options = {"plain": self.plain_conv, "dtype": self.dtype, "name": f"{name}_swin"}
        attend = layer(self.embed or self.channels, self.heads, min(self.window, size), **options)
        return attend(h) * math.sqrt(0.5)

    def _embed(self, condition: Array) -> Array:
        dense = lambda name: nn.Dense(4 * self.channels, name=name, dtype=self.dtype)
        cosines, sines = jnp.split(layers.time_embedding(condition, self.channels, shift=1), 2)
        h = jnp.concatenate([sines, cosines]).astype(self.dtype)
        return nn.silu(dense("map_layer1")(nn.silu(dense("map_layer0")(h))))

    def _out(self, h: Array, low: Array) -> Array:
        h = nn.silu(layers.GroupNorm(eps=1e-6, name=f"dec_{self._name(0)}_aux_norm")(h))
        h = self._conv(f"dec_{self._name(0)}_aux_conv", self.channels)(h)
        for i in range(self.scale.bit_length() - 1):
            h = nn.leaky_relu(self._conv(f"conv_up{i + 1}", self.channels)(layers.up(h)), 0.2)
        start = nn.initializers.zeros if self.residual else nn.initializers.lecun_normal()
        out = self._conv("conv_last", self.out_channels, kernel_init=start)(h).astype(jnp.float32)
        return out + srnet.upsample_cubic(low, self.scale, self.cubic).astype(jnp.float32) if self.residual else out
