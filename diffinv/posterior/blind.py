"""Blind inverse problems: the operator has unknown parameters with a prior of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffinv.checks import require_sound
from diffinv.describe import described
from diffinv.linalg import norm
from diffinv.measurement import Measurement
from diffinv.operators.base import Operator
from diffinv.posterior.core import rewards
from diffinv.prior import Prior
from diffinv.typing import Array, Cost, Key, Sampler, Time


@described
class Pair(NamedTuple):
    """What is sampled together, at one time.

    Attributes:
      image: the noisy picture.
      kernel: the noisy parameters of the operator, such as a blur's kernel.
    """

    image: Array
    kernel: Array


@described
class BlindInfo(NamedTuple):
    """What a step tells.

    Attributes:
      cost: of both networks.
      residual: its norm.
      kernel: the kernel that the step has come to.
    """

    cost: Cost
    residual: Array
    kernel: Array


def blind_dps(
    prior: Prior,
    measurement: Measurement,
    kernel_prior: Prior,
    build: Callable[[Array], Operator],
    zeta: Array | float = 0.3,
    zeta_kernel: Array | float = 0.3,
    sparsity: Array | float = 0.0,
    reward: rewards.Reward = rewards.norm,
) -> Sampler:
    r"""BlindDPS: parallel reverse chains for the picture and the kernel, tied by the gradient of one residual.

        x0, k0 = denoise(x_t), denoise(k_t)
        x_s    = x' - zeta grad_{x_t} |y - A(k0) x0|,                                x' ~ q(x_s | x_t, x0)
        k_s    = k' - zeta_kernel grad_{k_t} (|y - A(k0) x0| + sparsity |k0|_1),     k' ~ q(k_s | k_t, k0)

    for blind motion deblurring with `build = lambda k: operators.blur(shape, k[..., 0])`. `measurement.operator` is not
    used. The state is a `Pair`; the picture is returned, and every step's kernel is in the info: the last is
    `info.kernel[-1]`.

    Noise: least squares, whatever the law; `rewards.likelihood` takes any law, by its likelihood.

    Source: Chung et al. 2023, arXiv:2211.10656, algorithm 1 and eq. 14, with its constant step sizes. Differs: one
    process for both may have two schedules; the kernel's scale and centre are free, as in the paper: its prior has to
    fix them. Their code maps k0 to `(k0 + 1) / 2` and divides it by its sum before the
    operator is built (do that in `build`), and both of its step sizes are alpha_t.

    Args:
      prior, kernel_prior: of the picture, and of the kernel as one sample of its own shape; each with its process.
      build: from a kernel to the operator; static, differentiable.
      zeta, zeta_kernel: step sizes, as in `dps`. sparsity: weight of the 1-norm. reward: see `dps`.

    Raises TypeError for a reward's name, ValueError for a concrete sigma_y of 0 with `rewards.likelihood`.
    """
    measurement = require_sound(measurement, "blind_dps")
    measurement = rewards.require_reward(reward, measurement, "blind_dps", rewards.norm)

    def loss(pair: Pair, t: Time) -> tuple[Array, tuple[Pair, Array]]:
        clean = Pair(prior.denoise(pair.image, t), kernel_prior.denoise(pair.kernel, t))
        seen = replace(measurement, operator=build(clean.kernel))
        residual = norm(seen.residual(clean.image))
        return sparsity * jnp.sum(jnp.abs(clean.kernel)) - reward(seen, clean.image), (clean, residual)

    def init(key: Key, t: Time, x: Array | None) -> Pair:
        image_key, kernel_key = jax.random.split(key)
        return Pair(prior.start(image_key, t) if x is None else x, kernel_prior.start(kernel_key, t))

    def step(key: Key, pair: Pair, t: Time, s: Time) -> tuple[Pair, BlindInfo]:
        image_key, kernel_key = jax.random.split(key)
        gradient, (clean, residual) = jax.grad(loss, has_aux=True)(pair, t)
        image = prior.process.transition(pair.image, clean.image, t, s).sample(image_key)
        kernel = kernel_prior.process.transition(pair.kernel, clean.kernel, t, s).sample(kernel_key)
        moved = Pair(image - zeta * gradient.image, kernel - zeta_kernel * gradient.kernel)
        cost = Cost(*(one + other for one, other in zip(prior.cost, kernel_prior.cost, strict=True)))
        return moved, BlindInfo(cost.plus(2, 3), residual, moved.kernel)

    return Sampler(init, step, lambda key, pair: pair.image)
