"""Reconstructions that ask no prior: what a method has to beat."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffinv.checks import require_fit
from diffinv.describe import described
from diffinv.linalg import norm, spectral_norm
from diffinv.loop import markov
from diffinv.measurement import Measurement, require_linear
from diffinv.operators.base import real_scalar
from diffinv.posterior.core.levels import clean_start
from diffinv.prior import Prior
from diffinv.typing import Array, Cost, Key, Measured, Sampler, StepInfo, Time


def zero_filled(prior: Prior, measurement: Measurement, ground: Array | float = -1.0) -> Sampler:
    """The adjoint, about a picture g that is `ground` everywhere: `x = g + A^H (y - A g)`, in every step.

    In magnetic resonance imaging what was not sampled of k-space is then 0, as it is of a picture without a signal,
    whose value is -1. Of the prior it takes the shape alone.

    Noise: not looked at.

    Source: the reference that InverseBench (arXiv:2503.11043) and fastMRI (arXiv:1811.08839) call zero-filled.

    Args: ground: in units of x.

    Raises TypeError for an operator that is not linear, ValueError for a y that does not fit.
    """
    measurement = require_fit(prior, measurement, "zero_filled")
    A, y = require_linear(measurement, "zero_filled"), measurement.y

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        g = jnp.broadcast_to(real_scalar(ground, y), prior.shape)
        x = g + A.adjoint(measurement.residual(g))
        return x, norm(measurement.residual(x))

    return markov(prior, step, cost=Cost(nfe=0, calls=3))


@described
class PrimalDual(NamedTuple):
    """The state of `total_variation`.

    Attributes:
      x: the picture.
      ahead: the picture, as much further on as it has just come.
      fit: the dual variable of the misfit, of the shape of y.
      edges: that of the differences, (axes, *shape).
      square: the squared norm of the operator.
    """

    x: Array
    ahead: Array
    fit: Measured
    edges: Array
    square: Array


def total_variation(prior: Prior, measurement: Measurement, lam: Array | float = 0.05) -> Sampler:
    r"""Total variation: `argmin_x |y - A x|^2 / 2 + lam sum_pixels |D x|`, by a primal-dual iteration in each step:

        p <- (p + (A x' - y) / 2) / (1 + 1 / 2)
        q <- (q + r D x') / max(1, |q + r D x'| / lam)           r = |A|^2 / (2 |D|^2)
        x <- x - (A^H p + D^T q) / |A|^2,    x' = 2 x_new - x_old

    D are the forward differences along all axes but the last, which are channels; a vector is differenced along itself.
    `|D x|` is their norm in a pixel of a channel, 0 across the border; `|A|^2` is found by power iteration, beforehand.
    It stops where the grid ends: 200 steps, say. Of the prior it takes the shape alone; a start x becomes x / alpha,
    otherwise it is `A^H y / |A|^2`.

    Noise: least squares, whatever the law.

    Source: Chambolle and Pock 2011, doi:10.1007/s10851-010-0251-1, algorithm 1 with theta = 1, and a step size for each
    dual variable as in Pock and Chambolle 2011, doi:10.1109/ICCV.2011.6126441, lemma 2; for magnetic resonance imaging
    Lustig et al. 2007, doi:10.1002/mrm.21391, without their wavelets.

    Args: lam: above 0, in units of x times `|A|^2`.

    Raises TypeError for an operator that is not linear, ValueError for a y that does not fit.
    """
    measurement = require_fit(prior, measurement, "total_variation")
    A, y = require_linear(measurement, "total_variation"), measurement.y
    turned = jax.linear_transpose(differences, jax.ShapeDtypeStruct(prior.shape, y.real.dtype))

    def init(key: Key, t: Time, x: Array | None) -> PrimalDual:
        back = A.adjoint(y)
        square = 1.05 * spectral_norm(lambda x: A.adjoint(A(x)), jax.random.normal(key, back.shape, back.dtype))
        square = jnp.maximum(square, jnp.finfo(back.dtype).tiny)  # of an operator that sees nothing
        x = back / square if x is None else clean_start(prior.process, t, x, back / square)
        return PrimalDual(x, x, jnp.zeros_like(y), jnp.zeros_like(differences(x)), square)

    def step(key: Key, state: PrimalDual, t: Time, s: Time) -> tuple[PrimalDual, StepInfo]:
        x, ahead, p, q, square = state
        p = (p - measurement.residual(ahead) / 2) / 1.5
        q = q + square / (8 * len(q)) * differences(ahead)
        q = q / jnp.maximum(1, jnp.sqrt(jnp.sum(q**2, 0, keepdims=True)) / lam)
        moved = x - (A.adjoint(p) + turned(q)[0]) / square
        info = StepInfo(Cost(nfe=0, calls=3), norm(measurement.residual(moved)))
        return PrimalDual(moved, 2 * moved - x, p, q, square), info

    return Sampler(init, step, lambda key, state: state.x)


def differences(x: Array) -> Array:
    """Forward differences along every axis but the last, or along a vector: (axes, *shape), 0 across the border."""
    axes = range(max(x.ndim - 1, 1))
    last = lambda axis: jax.lax.slice_in_dim(x, x.shape[axis] - 1, None, axis=axis)
    return jnp.stack([jnp.diff(x, axis=axis, append=last(axis)) for axis in axes])
