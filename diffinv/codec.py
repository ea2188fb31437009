r"""An autoencoder as two maps of pictures and codes of unit variance, with its weights; and priors over its codes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct

from diffinv import charts
from diffinv.describe import Described
from diffinv.prior import Prior
from diffinv.process import Process
from diffinv.typing import Array, Sample


def standard(channels: int, shift: Array | float = 0.0, scale: Array | float = 1.0) -> dict[str, Array]:
    """The weights `codes` of a `Codec`: shift and scale of each channel, (channels,) float32, of numbers or arrays."""
    return {name: jnp.full((channels,), value, jnp.float32) for name, value in (("shift", shift), ("scale", scale))}


@struct.dataclass
class Codec(Described):
    r"""An autoencoder's pictures and codes, one example, channel by channel

        encode(x) = (mean(x) - shift) scale,      decode(z) = D(z / scale + shift)

    with the mean of the code's law, and the shift and scale with which codes of the training pictures have mean 0 and
    variance 1. It is a pytree: give it to `jit` as an argument, and make its chart inside.

    Source: Rombach et al. 2022, arXiv:2112.10752, section 3.1 and appendix G (codes of unit variance); the shift as in
    diffusers' `shift_factor`.

    Attributes:
      params: `params` of the network, and `codes`, see `standard`.
      net: a Linen module with the methods `encode` and `decode`, its `factor` and `code_channels`; static.
      picture: (H, W, C) of a picture; static.

    Raises ValueError where the sides of `picture` are not multiples of the factor.
    """

    params: Any
    net: Any = struct.field(pytree_node=False)
    picture: tuple[int, ...] = struct.field(pytree_node=False)

    def __post_init__(self) -> None:
        if any(side % self.net.factor for side in self.picture[:2]):
            raise ValueError(f"picture is {self.picture}; its sides must be multiples of {self.net.factor}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a code, (H / f, W / f, code channels)."""
        height, width, _ = self.picture
        return (height // self.net.factor, width // self.net.factor, self.net.code_channels)

    def _codes(self, name: str) -> Array:
        return self.params["codes"][name][None, None]

    def _apply(self, value: Array, method: str) -> Any:
        return self.net.apply({"params": self.params["params"]}, value, method=method)

    def encode(self, x: Sample) -> Array:
        """The code, of `shape`, of a picture (H, W, C) in [-1, 1]."""
        return (self._apply(x, "encode")[0] - self._codes("shift")) * self._codes("scale")

    def decode(self, z: Array) -> Sample:
        """The picture (H, W, C) of a code."""
        return self._apply(z / self._codes("scale") + self._codes("shift"), "decode")

    def chart(self) -> charts.Chart:
        """What `posterior.psld` and `charts.within` take. Make it inside `jit`, where the weights are arguments."""
        return charts.latent(self.encode, self.decode, self.shape)


@struct.dataclass
class LatentPrior(Described):
    """A prior over codes, and what makes pictures of them; a pytree.

    Attributes:
      prior: over the codes.
      codec: of pictures and codes.

    Raises ValueError where the prior's shape is not that of the codes.
    """

    prior: Prior
    codec: Codec

    def __post_init__(self) -> None:
        if tuple(self.prior.shape) != self.codec.shape:
            raise ValueError(f"prior is of shape {self.prior.shape} and the codes are {self.codec.shape}; pair its own")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a picture, (H, W, C)."""
        return self.codec.picture

    @property
    def process(self) -> Process:
        """Of the codes."""
        return self.prior.process
