r"""Attention in windows, as Swin Transformer has it, within a convolutional network: one layer of CTMSR's U-Net.

Source: Liu et al. 2021, arXiv:2103.14030; the form with 1x1 embeddings, GroupNorm and a closing 3x3 convolution is that
of ResShift's and CTMSR's code (after SwinIR, arXiv:2108.10257). Of depth 1 and so never shifted, as in CTMSR.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffinv.nn import layers
from diffinv.typing import Array


def windows(x: Array, size: int) -> Array:
    """(H, W, C) to (windows, size size, C), row by row; `size` is static.

    Raises ValueError where it does not divide H and W.
    """
    height, width, channels = x.shape
    if height % size or width % size:
        raise ValueError(
            f"x is {x.shape}; its height and width must be divisible by the window, {size}: pad the picture"
        )
    blocks = x.reshape(height // size, size, width // size, size, channels).swapaxes(1, 2)
    return blocks.reshape(-1, size * size, channels)


def merged(x: Array, height: int, width: int) -> Array:
    """The inverse of `windows`: (windows, size size, C) to (height, width, C), both static."""
    size, channels = int(np.sqrt(x.shape[1])), x.shape[2]
    blocks = x.reshape(height // size, width // size, size, size, channels).swapaxes(1, 2)
    return blocks.reshape(height, width, channels)


def relative_index(size: int) -> np.ndarray:
    """(size size, size size): which of the (2 size - 1)^2 displacements leads from one position to the other."""
    rows, columns = (a.ravel() for a in np.mgrid[:size, :size])
    difference = lambda a: a[:, None] - a[None] + size - 1
    return difference(rows) * (2 * size - 1) + difference(columns)


class WindowAttention(nn.Module):
    """`proj(softmax(q k^T / sqrt(d) + bias) v)` within each window of (n, T, C), `bias` by relative position.

    Attributes:
      heads: of the attention; static.
      size: side of a window, T = size size; static.
      dtype: of the computation; static.
    """

    heads: int
    size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        count, length, channels = x.shape
        if channels % self.heads:
            raise ValueError(f"heads is {self.heads}, which does not divide the {channels} channels; choose a divisor")
        qkv = nn.Dense(3 * channels, name="qkv", dtype=self.dtype)(x)
        q, k, v = jnp.moveaxis(qkv.reshape(count, length, 3, self.heads, -1), 2, 0)
        shape = ((2 * self.size - 1) ** 2, self.heads)
        table = self.param("bias", nn.initializers.truncated_normal(0.02), shape, jnp.float32)
        logits = jnp.einsum("nthd,nshd->nhts", q * (channels // self.heads) ** -0.5, k).astype(jnp.float32)
        logits = logits + jnp.moveaxis(table[relative_index(self.size)], -1, 0)[None]
        weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
        out = jnp.einsum("nhts,nshd->nthd", weights, v).reshape(x.shape)
        return nn.Dense(channels, name="proj", dtype=self.dtype)(out)


class SwinLayer(nn.Module):
    """`x + conv(unembed(block(embed(x))))` for one picture (H, W, C); the block is attention, then a two-layer map.

    Attributes:
      features: width inside; static.
      heads: of the attention; static.
      window: side of a window, which must divide H and W; static.
      ratio: width of the two-layer map over `features`; static.
      plain: as in `song.SongBlock`; static.
      dtype: as in `song.SongBlock`; static.
    """

    features: int
    heads: int
    window: int = 8
    ratio: int = 4
    plain: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        height, width, channels = x.shape
        dense = lambda features, name: nn.Dense(features, name=name, dtype=self.dtype)
        norm = lambda name: layers.GroupNorm(name=name)
        h = dense(self.features, "embed")(x)
        inside = windows(norm("norm1")(h), self.window)
        attention = WindowAttention(self.heads, self.window, self.dtype, name="attention")
        h = h + merged(attention(inside), height, width)
        h = h + dense(self.features, "fc2")(
            nn.gelu(dense(self.ratio * self.features, "fc1")(norm("norm2")(h)), approximate=False)
        )
        h = dense(channels, "unembed")(h)
        return x + layers.convolution(channels, self.plain, name="conv", dtype=self.dtype)(h)
