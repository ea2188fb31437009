"""A text and a picture to unit vectors of one space, in which a text lies near its pictures.

Source: Radford et al. 2021, arXiv:2103.00020, in small: a recurrent network (Cho et al. 2014, arXiv:1406.1078) reads
the words, convolutions see the picture. `diffinv.text` has the words' numbers and the loss.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from diffinv.linalg import norm
from diffinv.nn.stackgan import leaky
from diffinv.typing import Array


def unit_length(x: Array) -> Array:
    """x over its length, (d,)."""
    return x / (norm(x) + 1e-6)


class TextEncoder(nn.Module):
    """Tokens (L,), int32 and 0 for none, to a unit vector (width,).

    Attributes:
      words: how many there are; static.
      width: of the vector; static.
    """

    words: int
    width: int = 64

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        h = nn.Embed(self.words + 1, self.width)(tokens)
        known = (tokens > 0).astype(h.dtype)
        last, _ = nn.RNN(nn.GRUCell(self.width), return_carry=True)(h, seq_lengths=jnp.sum(tokens > 0))
        mean = known @ h / jnp.maximum(jnp.sum(known), 1)
        return unit_length(nn.Dense(self.width)(jnp.concatenate([last, mean])))


class PictureEncoder(nn.Module):
    """A picture (H, W, C) to a unit vector (width,): halved down to 4 x 4 or less, then the mean and the largest.

    Attributes:
      features: channels of the first layer, doubled with each halving up to eight times; static.
      width: of the vector; static.
    """

    features: int = 16
    width: int = 64

    @nn.compact
    def __call__(self, x: Array) -> Array:
        levels = max(x.shape[0] // 4, 1).bit_length() - 1
        for level in range(max(levels, 1)):
            x = leaky(nn.Conv(self.features * 2 ** min(level, 3), (4, 4), 2, ((1, 1), (1, 1)))(x))
        x = leaky(nn.Conv(self.features * 8, (3, 3))(x))
        return unit_length(nn.Dense(self.width)(jnp.concatenate([jnp.mean(x, (0, 1)), jnp.max(x, (0, 1))])))
