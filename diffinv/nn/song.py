r"""The U-Nets of Song et al. 2021, DDPM++ and NCSN++, as EDM trains them.

Source: Song et al. 2021, arXiv:2011.13456, appendix H; hyperparameters of Karras et al. 2022, arXiv:2206.00364,
table 7 and `training/networks.py`. Module names are those of the public state dicts with dots as underscores
(`enc_16x16_block0/conv0/kernel`); 1x1 convolutions are dense layers. The embedding enters by addition before the second
norm, and residual sums are scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffinv.nn import layers
from diffinv.typing import Array


def resampling(size: int, taps: tuple[float, ...], factor: float, border: int) -> np.ndarray:
    """The matrix of a filter along one axis: (out, size), halving for `factor = 0.5`, doubling for `factor = 2`.

    Halving, `y_i = sum_k f_k x_{2 i + k - border}`; doubling, its transpose times 2; f are the taps over their sum, and
    beyond the border is 0. All arguments static. Source: Karras et al. 2019, arXiv:1812.04948 (filters of StyleGAN).
    """
    if factor == 2:
        return 2 * resampling(2 * size, taps, 0.5, border).T
    out = (size + 2 * border - len(taps)) // 2 + 1
    matrix = np.zeros((out, size), np.float32)
    for i, (k, tap) in ((i, kt) for i in range(out) for kt in enumerate(taps)):
        if 0 <= 2 * i + k - border < size:
            matrix[i, 2 * i + k - border] = tap / sum(taps)
    return matrix


def resample_by_taps(x: Array, taps: tuple[float, ...], factor: float, border: int | None = None) -> Array:
    """`x` (H, W, C) through the filter along both axes; see `resampling`."""
    border = (len(taps) - 1) // 2 if border is None else border
    rows, columns = (jnp.asarray(resampling(n, taps, factor, border), x.dtype) for n in x.shape[:2])
    return jnp.einsum("ih,jw,hwc->ijc", rows, columns, x)


class SongBlock(nn.Module):
    """norm, SiLU, (resample), conv, + embedding, norm, SiLU, dropout, conv; scaled sum with the skip; attention.

    All attributes are static.

    Attributes:
      features: output channels.
      factor: 1, or 2 and 0.5 to resample by `taps`; the skip is then projected too.
      attention: one head over all positions, (d, 3) order of qkv as (1, 3, d).
      taps: the resampling filter.
      scale: of both sums.
      eps: as in `unet.ResBlock`.
      dropout: as in `unet.ResBlock`.
      plain: as in `unet.ResBlock`.
      dtype: as in `unet.ResBlock`.
    """

    features: int
    factor: float = 1
    attention: bool = False
    taps: tuple[float, ...] = (1, 1)
    scale: float = math.sqrt(0.5)
    eps: float = 1e-6
    dropout: float = 0.0
    plain: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        norm = lambda name: layers.GroupNorm(eps=self.eps, name=name)
        conv = lambda name: layers.convolution(self.features, self.plain, name=name, dtype=self.dtype)
        dense = lambda name: nn.Dense(self.features, name=name, dtype=self.dtype)
        change = (lambda a: a) if self.factor == 1 else lambda a: resample_by_taps(a, self.taps, self.factor)
        h = conv("conv0")(change(nn.silu(norm("norm0")(x))))
        h = nn.silu(norm("norm1")(h + dense("affine")(embedding)[None, None]))
        h = conv("conv1")(nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(h))
        same = self.factor == 1 and x.shape[-1] == self.features
        h = (h + (x if same else dense("skip")(change(x)))) * self.scale
        return self._attend(h) if self.attention else h

    def _attend(self, x: Array) -> Array:
        height, width, channels = x.shape
        h = layers.GroupNorm(eps=self.eps, name="norm2")(x).reshape(height * width, channels)
        h = layers.attend(nn.Dense(3 * channels, name="qkv", dtype=self.dtype)(h), 1)
        h = nn.Dense(channels, name="proj", dtype=self.dtype)(h).reshape(x.shape)
        return (x + h) * self.scale


class Fourier(nn.Module):
    """`[cos(2 pi f t), sin(2 pi f t)]` at stored frequencies `f`, shape (size / 2,). Song et al. 2021.

    Attributes:
      size: of the result; static.
    """

    size: int

    @nn.compact
    def __call__(self, t: Array) -> Array:
        f = self.param("freqs", nn.initializers.normal(16.0), (self.size // 2,), jnp.float32)
        angles = 2 * jnp.pi * jnp.asarray(t).astype(jnp.float32) * jax.lax.stop_gradient(f)
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])


class SongUNet(nn.Module):
    """`(x (H, W, C_in), condition (), label=None) -> (H, W, out_channels)` in float32, for one example.

    All attributes are static.

    Attributes:
      resolution: native size, which names the modules and decides where attention is; other sizes run too.
      channels: as in `unet.UNet`.
      multipliers: as in `unet.UNet`, whole numbers.
      blocks: as in `unet.UNet`.
      attention: native resolutions with attention; on the way up after the last block alone.
      out_channels: of the result.
      noise_channels: multiplier of the embedding's width, 1 for DDPM++ and 2 for NCSN++.
      fourier: stored frequencies (NCSN++) in place of the geometric ones.
      residual: the encoder adds the downsampled input at every level (NCSN++).
      taps: resampling filter, (1, 1) for DDPM++ and (1, 3, 3, 1) for NCSN++.
      classes: number of labels, or None; without a label the network is unconditional.
      dropout: as in `unet.UNet`.
      dtype: as in `unet.UNet`.
      remat: as in `unet.UNet`.
      plain_conv: as in `unet.UNet`.
    """

    resolution: int = 32
    channels: int = 128
    multipliers: tuple[int, ...] = (2, 2, 2)
    blocks: int = 4
    attention: tuple[int, ...] = (16,)
    out_channels: int = 3
    noise_channels: int = 1
    fourier: bool = False
    residual: bool = False
    taps: tuple[float, ...] = (1, 1)
    classes: int | None = None
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False
    plain_conv: bool = False

    @nn.compact
    def __call__(self, x: Array, condition: Array, label: Array | None = None) -> Array:
        embedding = self._embed(condition, label)
        x = x.astype(self.dtype)
        h, skips, aux = self._conv(f"enc_{self._name(0)}_conv", self.channels)(x), [], x
        for level, multiplier in enumerate(self.multipliers):
            name, width = f"enc_{self._name(level)}", self.channels * multiplier
            if level:
                h = self._block(f"{name}_down", h.shape[-1], 0.5)(h, embedding)
                h = aux = self._residual(f"{name}_aux_residual", h, aux) if self.residual else h
            skips.append(h)
            for i in range(self.blocks):
                h = self._block(f"{name}_block{i}", width, attention=self._attends(level))(h, embedding)
                skips.append(h)
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            name, width = f"dec_{self._name(level)}", self.channels * multiplier
            if level == len(self.multipliers) - 1:
                h = self._block(f"{name}_in0", width, attention=True)(h, embedding)
                h = self._block(f"{name}_in1", width)(h, embedding)
            else:
                h = self._block(f"{name}_up", h.shape[-1], 2)(h, embedding)
            for i in range(self.blocks + 1):
                last = i == self.blocks and self._attends(level)
                h = jnp.concatenate([h, skips.pop()], -1)
                h = self._block(f"{name}_block{i}", width, attention=last)(h, embedding)
        h = nn.silu(layers.GroupNorm(eps=1e-6, name=f"dec_{self._name(0)}_aux_norm")(h))
        return self._conv(f"dec_{self._name(0)}_aux_conv", self.out_channels)(h).astype(jnp.float32)

    def _name(self, level: int) -> str:
        size = self.resolution >> level
        return f"{size}x{size}"

    def _attends(self, level: int) -> bool:
        return self.resolution >> level in self.attention

    def _conv(self, name: str, features: int) -> Callable[[Array], Array]:
        return layers.convolution(features, self.plain_conv, name=name, dtype=self.dtype)

    def _block(self, name: str, features: int, factor: float = 1, attention: bool = False) -> nn.Module:
        block = nn.remat(SongBlock) if self.remat else SongBlock
        options = {"dropout": self.dropout, "plain": self.plain_conv, "dtype": self.dtype, "name": name}
        return block(features, factor, attention, self.taps, **options)

    def _residual(self, name: str, h: Array, aux: Array) -> Array:
        """`(h + filter(conv(aux))) / sqrt(2)`: the convolution comes first, over a border that the filter needs."""
        pad, conv = 1 + (len(self.taps) - 1) // 2, layers.plain_conv if self.plain_conv else layers.conv
        options = {"padding": pad, "conv_general_dilated": conv, "dtype": self.dtype, "name": name}
        aux = resample_by_taps(nn.Conv(h.shape[-1], (3, 3), **options)(aux), self.taps, 0.5, border=0)
        return (h + aux) / math.sqrt(2)

    def _embed(self, condition: Array, label: Array | None) -> Array:
        size, width = self.noise_channels * self.channels, 4 * self.channels
        dense = lambda features, name: nn.Dense(features, name=name, dtype=self.dtype)
        angles = Fourier(size, name="map_noise") if self.fourier else lambda t: layers.time_embedding(t, size, shift=1)
        cosines, sines = jnp.split(angles(condition), 2)
        h = jnp.concatenate([sines, cosines]).astype(self.dtype)
        if self.classes is None and label is not None:
            raise ValueError(f"label is {label} for a network without labels; leave it out")
        if self.classes is not None:
            hot = jnp.zeros(self.classes) if label is None else jax.nn.one_hot(label, self.classes)
            h = h + dense(size, "map_label")(math.sqrt(self.classes) * hot.astype(self.dtype))
        h = nn.silu(dense(width, "map_layer0")(h))
        return nn.silu(dense(width, "map_layer1")(h))
