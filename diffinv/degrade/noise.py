r"""Noise of Gaussian and of Poisson law, coloured or grey, on pictures (H, W, C) in [-1, 1]; clipped, not rounded.

Both map one uniform number a pixel by their quantiles, so that a draw of which only one is used costs its numbers once.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, xlogy

from diffinv.typing import Array, Key

LUMINANCE = np.array([0.2989, 0.587, 0.114])
COUNTS = 512


def _centred(key: Key, image: Array, grey: Array | bool) -> Array:
    """Uniform in (-1, 1), of the picture's shape; the same in all channels where `grey`."""
    small = np.finfo(image.dtype).eps / 2 - 1
    drawn = jax.random.uniform(key, image.shape, image.dtype, minval=small, maxval=1.0)
    return jnp.where(grey, drawn[:, :, :1], drawn)


def _normal(centred: Array) -> Array:
    """The normal quantile of `(centred + 1) / 2`."""
    return np.sqrt(2).astype(centred.dtype) * jax.lax.erf_inv(centred)


def _add(image: Array, noise: Array, scale: Array | float) -> Array:
    """The sum, clipped; `noise` is for [0, 1]."""
    return jnp.clip(image + 2 * jnp.asarray(scale, image.dtype) * noise, -1.0, 1.0)


def gaussian_noise(key: Key, image: Array, sigma: Array | float, grey: Array | bool = False) -> Array:
    """Adds Gaussian noise of deviation `sigma` levels of 255, the same in all channels where `grey`; clips.

    Source: Wang et al. 2021 (Real-ESRGAN), arXiv:2107.10833, as in BasicSR. `sigma` and `grey` are dynamic.
    """
    return _add(image, _normal(_centred(key, image, grey)) / 255, sigma)


def poisson_noise(key: Key, image: Array, scale: Array | float, grey: Array | bool = False) -> Array:
    r"""Adds `scale (P / v - u)`, P Poisson of mean `v u`; on [0, 1], u rounded to 255ths; clips.

    `v` is the number of levels in the picture, raised to a power of 2. Where `grey`, u is the luminance, and the noise
    and v are those of it. Source: Wang et al. 2021 (Real-ESRGAN), arXiv:2107.10833, as in BasicSR. Differs: P comes
    from a table of the distribution for every level, exact to the rounding of the table, in float32 1e-6.
    `scale` and `grey` are dynamic.
    """
    return _add(image, _shot(_centred(key, image, grey), image, grey), scale)


def either_noise(
    key: Key,
    image: Array,
    gaussian: Array | bool,
    sigma: Array | float,
    scale: Array | float,
    grey: Array | bool,
) -> Array:
    """`gaussian_noise` of `sigma` or else `poisson_noise` of `scale`, from the same key; all dynamic."""
    centred = _centred(key, image, grey)
    noise = jnp.where(gaussian, _normal(centred) / 255, _shot(centred, image, grey))
    return _add(image, noise, jnp.where(gaussian, sigma, scale))


def _shot(centred: Array, image: Array, grey: Array | bool) -> Array:
    """`P / v - u` of `poisson_noise`."""
    weights = LUMINANCE if image.shape[-1] == 3 else np.ones(1)
    luminance = jnp.sum(image * jnp.asarray(weights, image.dtype).reshape(1, 1, -1), -1, keepdims=True)
    level = jnp.round(127.5 * (jnp.clip(jnp.where(grey, luminance, image), -1.0, 1.0) + 1)).astype(jnp.int32)
    present = jnp.zeros(256, jnp.int32).at[level.reshape(-1)].set(1)
    levels = jnp.exp2(jnp.ceil(jnp.log2(jnp.sum(present).astype(image.dtype))))
    count = poisson(centred, level, jnp.arange(256).astype(image.dtype) * levels / 255)
    return count.astype(image.dtype) / levels - level.astype(image.dtype) / 255


def poisson(centred: Array, level: Array, mean: Array) -> Array:
    """Poisson counts, int32, of the means `mean[level]`: the quantiles of the uniform `(centred + 1) / 2`.

    `mean` is (n,), at most 256 each. The quantile of the normal law, corrected for the skewness, is off by
    less than 8 (where the mean is next to 0); about it, the table of the cumulative distribution is searched.
    """
    count = jnp.arange(COUNTS).astype(mean.dtype)[None, :]
    below = jnp.cumsum(jnp.exp(xlogy(count, mean[:, None]) - mean[:, None] - gammaln(count + 1)), 1)
    table, uniform = (below / below[:, -1:]).reshape(-1), (centred + 1) / 2
    z, expected = _normal(centred), mean[level]
    guess = expected + jnp.sqrt(expected) * z + (z**2 - 1) / 6
    found = jnp.maximum(jnp.floor(guess).astype(jnp.int32) - 8, 0)
    for step in (8, 4, 2, 1):
        found = jnp.where(table[COUNTS * level + found + step - 1] < uniform, found + step, found)
    return found
