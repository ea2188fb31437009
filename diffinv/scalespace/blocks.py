r"""Relay diffusion's blur: heat that stays inside square blocks, under noise that only grows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import struct

from diffinv import linalg
from diffinv.callables import by_value
from diffinv.charts import Chart, dct
from diffinv.denoisers.spectral import cosines
from diffinv.process import VE, Process, dct_frequencies
from diffinv.typing import Array, Coefficient, Time


@struct.dataclass
class Relay(Process):
    """Blur within blocks, in the coordinates of `block_dct`, under variance-exploding noise:

        alpha_t = (1 - d_min) exp(-lambda tau_t) + d_min,  tau_t = sigma_blur^2 sin(pi t / 2)^4 / 2.

    For `sigma_blur -> inf` the process ends in the block average, which is what the relay hands over; at 3 pixels in
    blocks of 4 the first other coefficient still keeps 6 %. Build it with `relay`.

    Source: Teng et al. 2023, arXiv:2309.03350, section 3.2. Differs: there is no block noise, and sigma(0) = 0.

    Attributes:
      frequencies: eigenvalues of each block's own Laplacian, (H, W, 1).
      sigma_blur: the width of the blur at time 1, in pixels.
      d_min: the least factor by which the blur damps a coefficient, dimensionless.
      noise_process: the noise, variance exploding.
      block: the side of a block, in pixels; static.
    """

    frequencies: Array
    sigma_blur: float = 3.0
    d_min: float = 1e-3
    noise_process: VE = VE()
    block: int = struct.field(pytree_node=False, default=4)

    def log_alpha(self, t: Time) -> Coefficient:
        tau = 0.5 * (self.sigma_blur * jnp.sin(0.5 * jnp.pi * jnp.asarray(t)) ** 2) ** 2
        blur = jnp.log1p(-self.d_min) - self.frequencies * tau
        return jnp.logaddexp(blur, jnp.log(self.d_min).astype(blur.dtype))

    def log_sigma(self, t: Time) -> Coefficient:
        return self.noise_process.log_sigma(t)


def relay(height: int, width: int, block: int = 4, **fields: Any) -> Relay:
    """The relay process on (height, width), all static. Original. Raises ValueError where blocks do not fit."""
    _fits(height, width, block)
    frequencies = jnp.tile(dct_frequencies(block, block), (height // block, width // block, 1))
    return Relay(frequencies, block=block, **fields)


def _fits(height: int, width: int, block: int) -> None:
    if height % block or width % block:
        raise ValueError(f"block is {block}; it must divide {height} and {width}: crop the picture or change it")


def block_dct(shape: tuple[int, ...], block: int = 4) -> Chart:
    """Orthonormal DCT coefficients of each `block` x `block` tile of (H, W, C), in place. Original."""
    height, width, _ = shape
    _fits(height, width, block)
    encode, decode = (by_value(partial(_tilewise, act, block)) for act in (linalg.dct_hw, linalg.idct_hw))
    return Chart(encode, decode, tuple(shape), True)


def _tilewise(transform: Callable[[Array], Array], block: int, x: Array) -> Array:
    """A transform along the first two axes, of each tile."""
    height, width, channels = x.shape
    tiles = (height // block, block, width // block, block * channels)
    y = x.reshape(tiles).transpose(1, 0, 2, 3).reshape(block, -1, block, channels)
    y = transform(y.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    return y.reshape(block, tiles[0], tiles[2], tiles[3]).transpose(1, 0, 2, 3).reshape(x.shape)


def spectral_codes(process: Process, shape: tuple[int, ...]) -> Chart:
    """The coefficients of (H, W, C) for a spectral network: `block_dct` under `Relay`, else `cosines`. Original."""
    return block_dct(shape, process.block) if isinstance(process, Relay) else cosines(shape)


def basis(process: Process, shape: tuple[int, ...]) -> Chart:
    """The chart of (H, W, C) in which the process is diagonal: blocks, cosines, or the pixels. Original."""
    if isinstance(process, Relay):
        return block_dct(shape, process.block)
    if hasattr(process, "frequencies"):
        return dct(shape)
    return Chart(lambda x: x, lambda z: z, tuple(shape), True)
