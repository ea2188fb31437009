r"""The autoencoder of latent diffusion (Rombach et al. 2022, arXiv:2112.10752), exactly, and small ones.

Module names are those of diffusers' `AutoencoderKL` with dots as underscores (`decoder/up_blocks_0_resnets_2/conv1`),
so that its state dict maps on by name. 1x1 convolutions are dense layers: kernels (C_in, C_out).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from diffinv.nn import layers, unet
from diffinv.typing import Array

LOG_VARIANCE = (-30.0, 20.0)
"""Between which the encoder's log variance is clipped."""


class PlainBlock(nn.Module):
    """norm, SiLU, conv, twice, on a skip that is projected where the widths differ; no embedding.

    The second convolution starts at zero, as a diffusion network's does, so that a new network is shallow.

    All attributes are static.

    Attributes:
      features: output channels.
      groups: of the norms.
      eps: of the norms.
      plain: use `lax`'s own convolution (training and forward mode).
      dtype: of the computation; parameters are float32.
    """

    features: int
    groups: int = 32
    eps: float = 1e-6
    plain: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = x
        for i in (1, 2):
            h = nn.silu(layers.GroupNorm(self.groups, self.eps, 1, name=f"norm{i}")(h))
            start = {"kernel_init": nn.initializers.zeros} if i == 2 else {}
            h = layers.convolution(self.features, self.plain, name=f"conv{i}", dtype=self.dtype, **start)(h)
        if x.shape[-1] != self.features:
            x = nn.Dense(self.features, name="conv_shortcut", dtype=self.dtype)(x)
        return x + h


class _Half(nn.Module):
    """What encoder and decoder share; attributes as in `AutoencoderKL`."""

    widths: tuple[int, ...]
    blocks: int
    out_channels: int
    groups: int
    eps: float
    attention: bool
    plain: bool
    dtype: Any

    def _conv(self, features: int, name: str) -> Any:
        return layers.convolution(features, self.plain, name=name, dtype=self.dtype)

    def _resnets(self, h: Array, block: str, width: int, count: int) -> Array:
        for i in range(count):
            options = {"plain": self.plain, "dtype": self.dtype, "name": f"{block}_resnets_{i}"}
            h = PlainBlock(width, self.groups, self.eps, **options)(h)
        return h

    def _middle(self, h: Array) -> Array:
        """A block, attention of one head over all positions, a block."""
        res = lambda i: PlainBlock(
            h.shape[-1], self.groups, self.eps, self.plain, self.dtype, name=f"mid_block_resnets_{i}"
        )
        h = res(0)(h)
        if self.attention:
            options: dict[str, Any] = {"legacy": False, "groups": self.groups, "eps": self.eps, "dtype": self.dtype}
            h = unet.AttentionBlock(**options, smallest=1, heads=1, name="mid_block_attentions_0")(h)
        return res(1)(h)

    def _out(self, h: Array) -> Array:
        h = nn.silu(layers.GroupNorm(self.groups, self.eps, 1, name="conv_norm_out")(h))
        return self._conv(self.out_channels, "conv_out")(h)


class Encoder(_Half):
    """(H, W, C) to (H / f, W / f, out_channels), f = 2^(levels - 1)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = self._conv(self.widths[0], "conv_in")(x)
        for level, width in enumerate(self.widths):
            name = f"down_blocks_{level}"
            h = self._resnets(h, name, width, self.blocks)
            if level < len(self.widths) - 1:
                h = unet.Downsample(True, self.plain, self.dtype, name=f"{name}_downsamplers_0")(h)
        return self._out(self._middle(h))


class Decoder(_Half):
    """(H / f, W / f, C) to (H, W, out_channels), with one block more a level than the encoder."""

    @nn.compact
    def __call__(self, z: Array) -> Array:
        h = self._middle(self._conv(self.widths[-1], "conv_in")(z))
        for level, width in enumerate(reversed(self.widths)):
            name = f"up_blocks_{level}"
            h = self._resnets(h, name, width, self.blocks + 1)
            if level < len(self.widths) - 1:
                h = unet.Upsample(self.plain, self.dtype, name=f"{name}_upsamplers_0")(h)
        return self._out(h)


class AutoencoderKL(nn.Module):
    r"""A picture's code is a Gaussian, `encode(x) -> (mean, log_variance)`, and `decode(z)` a picture; one example.

        (H, W, C)  to  mean, log variance (H / f, W / f, code_channels)  to  (H, W, out_channels)

    with f = patch 2^(levels - 1). The log variance is clipped to `LOG_VARIANCE`. `__call__` decodes the mean. All
    that is returned is float32. Codes are as the network makes them; `codec.Codec` brings them to unit variance. All
    attributes are static.

    Source: Rombach et al. 2022, section 3.1 and CompVis/latent-diffusion; SD's, of the defaults, has 83,653,863
    parameters.

    Attributes:
      channels: the width, before the multipliers.
      multipliers: the width of level i is `channels * multipliers[i]`, rounded.
      blocks: residual blocks a level of the encoder; the decoder has one more.
      code_channels: of a code.
      out_channels: of a picture.
      groups: of GroupNorm, at most.
      eps: of GroupNorm.
      attention: whether the middle attends.
      quant: whether a 1x1 convolution follows the encoder.
      post_quant: whether a 1x1 convolution precedes the decoder.
      patch: space-to-depth in, depth-to-space out; 1 is the original.
      dtype: of the computation; parameters are float32.
      plain_conv: `lax`'s own convolution, for training and forward mode; see `layers.conv`.
    """

    channels: int = 128
    multipliers: tuple[float, ...] = (1, 2, 4, 4)
    blocks: int = 2
    code_channels: int = 4
    out_channels: int = 3
    groups: int = 32
    eps: float = 1e-6
    attention: bool = True
    quant: bool = True
    post_quant: bool = True
    patch: int = 1
    dtype: Any = jnp.float32
    plain_conv: bool = False

    heads, smallest_group = 1, 1  # of the middle's attention and of the norms, as everywhere in this network

    @property
    def factor(self) -> int:
        """How many pixels a side of a code's pixel has."""
        return self.patch * 2 ** (len(self.multipliers) - 1)

    def setup(self) -> None:
        """Linen's: the two halves, and the 1x1 convolutions between them."""
        widths = tuple(round(self.channels * m) for m in self.multipliers)
        shared = (self.groups, self.eps, self.attention, self.plain_conv, self.dtype)
        self.encoder = Encoder(widths, self.blocks, 2 * self.code_channels, *shared)
        self.decoder = Decoder(widths, self.blocks, self.out_channels * self.patch**2, *shared)
        if self.quant:
            self.quant_conv = nn.Dense(2 * self.code_channels, dtype=self.dtype)
        if self.post_quant:
            self.post_quant_conv = nn.Dense(self.code_channels, dtype=self.dtype)

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Mean and log variance of the code, each (H / f, W / f, code_channels).

        Raises ValueError where a side of `x` is not a multiple of f.
        """
        if any(side % self.factor for side in x.shape[:2]):
            raise ValueError(f"x is {x.shape}; its height and width must be multiples of {self.factor}: pad it first")
        h = self.encoder(layers.space_to_depth(x, self.patch).astype(self.dtype))
        h = (self.quant_conv(h) if self.quant else h).astype(jnp.float32)
        mean, log_variance = jnp.split(h, 2, axis=-1)
        return mean, jnp.clip(log_variance, *LOG_VARIANCE)

    def decode(self, z: Array) -> Array:
        """(H / f, W / f, code_channels) to a picture (H, W, out_channels)."""
        z = z.astype(self.dtype)
        h = self.decoder(self.post_quant_conv(z) if self.post_quant else z)
        return layers.depth_to_space(h, self.patch).astype(jnp.float32)

    def __call__(self, x: Array) -> Array:
        return self.decode(self.encode(x)[0])
