"""Methods whose step needs a gradient through the network and the next time."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from diffinv.guided import reward
from diffinv.measure import Measurement
from diffinv.prior import Prior
from diffinv.sample import markov
from diffinv.samplers import learned_range
from diffinv.typing import Array, Cost, Key, Sampler, StepInfo, Time


def dps(
    prior: Prior,
    measurement: Measurement,
    zeta: Array | float = 1.0,
    convention: str = "norm",
    clip: bool = False,
    eta: Array | float = 1.0,
) -> Sampler:
    r"""Diffusion posterior sampling, as published: an ancestral step, minus one gradient.

        x0  = denoise(x_t, t)
        x'  ~ q(x_s | x_t, x0)
        x_s = x' - zeta grad_{x_t} |y - A x0|

    Source: Chung et al. 2023, arXiv:2209.14687, algorithm 1, in their code's convention: the un-squared norm, of one
    sample (their script runs one; a norm over a batch would couple the pictures). Algorithm 1 prints the squared norm
    with `zeta / |y - A x0|`, which is twice as large; `convention = "square"` is that gradient without the quotient,
    "likelihood" that of `-log p(y | x0)`. The gradient is taken at x_t, before the step; noise comes first. The
    variance is the learned one where the network predicts it.

    Biased: see `dps_score`; its law depends on the grid through zeta.

    Args:
      prior: of one sample of shape (*shape).
      measurement: with any differentiable operator.
      zeta: step size; for "norm" in units of the data. Published: 0.3 for deblurring and super-resolution, 0.5 for
        inpainting, 1.0 for phase retrieval, at 1000 steps and with noise on masked pixels too.
      convention: "norm", "square" or "likelihood"; static.
      clip: clamp x0 to [-1, 1] inside the graph, as their code does (gradient 0 where it clips); static.
      eta: 1 is ancestral; below it, and without a learned variance, DDIM's.

    Raises ValueError for another convention.
    """
    value = reward(convention)

    def loss(x: Array, t: Time) -> tuple[Array, tuple[Array, Array | None]]:
        x0, v = prior.predict(x, t)
        x0 = jnp.clip(x0, -1, 1) if clip else x0
        return -value(measurement, x0), (x0, v)

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        (distance, (x0, v)), gradient = jax.value_and_grad(loss, has_aux=True)(x, t)
        mean, std = _ancestral(prior, x, t, s, x0, v, eta)
        x_s = mean + std * jax.random.normal(key, x.shape, x.dtype) - zeta * gradient
        residual = distance if convention == "norm" else None
        return x_s, StepInfo(Cost(prior.cost.nfe, prior.cost.vjps + 1).times(1), residual)

    return markov(prior, step)


def _ancestral(
    prior: Prior, x: Array, t: Time, s: Time, x0: Array, v: Array | None, eta: Array | float
) -> tuple[Array, Array]:
    if v is None:
        return prior.process.transition(x, x0, t, s, eta)
    return learned_range(prior, x, t, s, x0, v)
