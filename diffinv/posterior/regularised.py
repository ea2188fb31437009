"""Linear reconstructions in closed form, Tikhonov's and Wiener's: what a method has to beat without a network."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from diffinv.checks import require_count, require_fit
from diffinv.linalg import cg, dct_hw, idct_hw, norm
from diffinv.loop import markov
from diffinv.measurement import Measurement, require_linear
from diffinv.operators.base import real_scalar
from diffinv.posterior.core.proximal import closed
from diffinv.prior import Prior
from diffinv.process import dct_frequencies
from diffinv.typing import Array, Cost, Key, Sampler, Time


def tikhonov(prior: Prior, measurement: Measurement, lam: Array | float = 0.1, ground: Array | float = 0.0) -> Sampler:
    r"""Tikhonov's regularisation about a picture g that is `ground`, the minimiser itself in every step:

        x = argmin |y - A x|^2 + lam |x - g|^2 = g + A^H (A A^H + lam I)^{-1} (y - A g)

    by `operator.solve`, exact where that is a closed form, else by conjugate gradients. Of the prior it takes the shape
    alone. It is the posterior's mean of `x ~ N(g, (sigma_y^2 / lam) I)`.

    Noise: least squares, whatever the law.

    Source: Tikhonov 1963; Hansen 1998, doi:10.1137/1.9780898719697, with `lam` for his lambda squared.

    Args: lam: 0 or more, in units of `|A|^2`. ground: in units of x, a number or a picture.

    Raises TypeError for an operator that is not linear, ValueError for a y that does not fit.
    """
    measurement = require_fit(prior, measurement, "tikhonov")
    require_linear(measurement, "tikhonov")

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        x = closed(
            measurement,
            jnp.broadcast_to(real_scalar(ground, measurement.y), prior.shape),
            real_scalar(lam, measurement.y),
        )
        return x, norm(measurement.residual(x))

    return markov(prior, step, cost=Cost(nfe=0, calls=closed.calls + 1))


def falling_spectrum(shape: tuple[int, ...], variance: Array | float, power: float) -> Array:
    """Variances of a picture's cosines that fall like `1 / f^power`, with the mean `variance`: (H, W, 1), float.

    Frequency 0, whose power would be infinite, has that of the lowest above it. `shape` and `power` are static.

    Raises ValueError for a shape that is no picture's.
    """
    if len(shape) != 3:
        raise ValueError(f"power is {power}, the prior's shape {shape}; a spectrum needs (H, W, C): give power=0")
    square = dct_frequencies(*shape[:2])
    falls = jnp.maximum(square, (jnp.pi / max(shape[:2])) ** 2) ** (-power / 2)
    return variance * falls / jnp.mean(falls)


def wiener(
    prior: Prior,
    measurement: Measurement,
    variance: Array | float = 0.25,
    power: float = 0.0,
    ground: Array | float = 0.0,
    iterations: int = 64,
) -> Sampler:
    r"""Wiener's filter: the best linear estimate of a signal of known spectrum, in every step:

        x = g + C A^H (A C A^H + sigma_y^2 I)^{-1} (y - A g),   C = T^T diag(s) T

    where T are the picture's cosines and their variances s fall like `1 / f^power` about the mean `variance`. Where
    `power` is 0, C is a number and `operator.solve` gives x, exactly where that is a closed form; otherwise conjugate
    gradients do, in the whitened picture. Of the prior it takes the shape alone. It is the posterior's mean of
    `x ~ N(g, C)`.

    Noise: taken as Gaussian of `measurement.sigma`, whatever its law.

    Source: Wiener 1949; the spectrum of natural pictures is that of power 2, Field 1987, doi:10.1364/JOSAA.4.002379.

    Args:
      variance: of a pixel, above 0, in units of x squared.
      power: of the spectrum's fall, 0 or more; static.
      ground: the mean, in units of x, a number or a picture.
      iterations: of conjugate gradients, where `power` is above 0; static.

    Raises TypeError for an operator that is not linear, ValueError for a y that does not fit, a power below 0, or one
    above it for a shape that is no picture's.
    """
    measurement = require_fit(prior, measurement, "wiener")
    A, y = require_linear(measurement, "wiener"), measurement.y
    require_count("iterations", iterations)
    if not power >= 0:
        raise ValueError(f"power is {power}; give a number of at least 0")
    noise, variance = real_scalar(measurement.sigma, y) ** 2, real_scalar(variance, y)
    g = jnp.broadcast_to(real_scalar(ground, y), prior.shape)

    def white(x: Array) -> Array:
        return closed(measurement, g, noise / variance)

    def coloured(x: Array) -> Array:
        root = jnp.sqrt(falling_spectrum(prior.shape, variance, power)).astype(g.dtype)
        colour: Callable[[Array], Array] = lambda z: idct_hw(root * z)
        whiten: Callable[[Array], Array] = lambda x: root * dct_hw(x)
        normal = lambda z: whiten(A.adjoint(A(colour(z)))) + noise * z
        return g + colour(cg(normal, whiten(A.adjoint(measurement.residual(g))), iterations))

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        x = white(x) if power == 0 else coloured(x)
        return x, norm(measurement.residual(x))

    calls = closed.calls if power == 0 else 2 * iterations + 2
    return markov(prior, step, cost=Cost(nfe=0, calls=calls + 1))
