"""The exact mean of pictures of independent pixels, which is told of a coarse picture as a cascade's network is."""

import jax.numpy as jnp
from flax import struct


def mean_error(variance, count, r, level):
    """The mean square error of `TheirMean` at x0 + r eps, told of the averages of blocks of `count` pixels."""
    left = variance * r**2 / (variance + r**2)
    return left * (count - 1) / count + left / count * level**2 / (left / count + level**2)


@struct.dataclass
class TheirMean:
    """`E[x_0 | x_t, low]`, x_0 of independent pixels N(0, variance), low its block averages, enlarged, `+ level eps`.

    Attributes:
      process: the forward process.
      variance: of a pixel.
      shape: of the coarse picture; static.
      low: of the fine picture's shape; None for no coarse one.
      level: of its noise.
      label: taken and not looked at.
    """

    process: object
    variance: float
    shape: tuple = struct.field(pytree_node=False)
    low: object = None
    level: object = None
    label: object = None

    def given(self, **condition):
        return self.replace(**condition)

    def __call__(self, x, t):
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        weight = alpha**2 * self.variance + sigma**2
        guess = alpha * self.variance / weight * x
        if self.low is None:
            return guess
        rows, columns, _ = self.shape
        tiles = guess.reshape(rows, x.shape[0] // rows, columns, x.shape[1] // columns, -1)
        averages = jnp.broadcast_to(tiles.mean((1, 3), keepdims=True), tiles.shape).reshape(x.shape)
        left = self.variance * sigma**2 / weight * rows * columns / (x.shape[0] * x.shape[1])
        pull = left / (left + self.level**2 + 1e-12)
        return guess + pull * (self.low - averages)
