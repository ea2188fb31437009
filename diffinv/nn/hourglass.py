"""A small convolutional network down and up again, whose shape alone prefers pictures to noise."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from diffinv.nn import layers
from diffinv.typing import Array


class PictureNorm(nn.Module):
    """`gamma (x - mean) / std + beta`, with moments of each channel over the positions of this one picture.

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, for a batch of one, as a deep image prior has it.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        gain = self.param("gain", nn.initializers.ones, (x.shape[-1],), x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), x.dtype)
        mean, variance = jnp.mean(x, (0, 1), keepdims=True), jnp.var(x, (0, 1), keepdims=True)
        return (x - mean) * lax.rsqrt(variance + 1e-5) * gain[None, None] + bias[None, None]


class Hourglass(nn.Module):
    """`z (H, W, C_in) -> (H, W, out_channels)`, in the precision of z; H and W are multiples of `2^levels`.

    Each level halves by means of 2 x 2 and has two convolutions down and one up; what a level keeps passes by a
    convolution of one pixel with `skip` channels. Norms and LeakyReLU follow each. All attributes are static.

    Source: Ulyanov et al. 2018, arXiv:1711.10925, the supplement's networks with skip connections. Differs: fewer
    channels and levels, borders of 0 for reflected ones, means in the place of strides, no sigmoid at the end.

    Attributes:
      channels: of every level.
      levels: how often it halves.
      skip: channels that pass by each level.
      out_channels: of the result.
    """

    channels: int = 32
    levels: int = 3
    skip: int = 4
    out_channels: int = 3

    @nn.compact
    def __call__(self, z: Array) -> Array:
        kinds: dict[str, Any] = {"dtype": z.dtype, "param_dtype": z.dtype}
        active = lambda name, h: nn.leaky_relu(PictureNorm(name=f"{name}_norm")(h), 0.2)

        def block(name: str, h: Array) -> Array:
            return active(name, layers.convolution(self.channels, name=name, use_bias=False, **kinds)(h))

        h, kept = z, []
        for level in range(self.levels):
            past = nn.Dense(self.skip, name=f"skip{level}", use_bias=False, **kinds)(h)
            kept.append(active(f"skip{level}", past))
            h = block(f"down{level}b", block(f"down{level}a", layers.down(h)))
        for level in reversed(range(self.levels)):
            h = block(f"up{level}", jnp.concatenate([layers.up(h), kept[level]], -1))
        return nn.Dense(self.out_channels, name="last", **kinds)(h)
