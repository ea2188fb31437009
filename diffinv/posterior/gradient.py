"""Methods whose step needs a gradient through the network and the next time."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.checks import require_count, require_fit, require_switch
from diffinv.describe import Described
from diffinv.linalg import norm
from diffinv.loop import markov
from diffinv.measurement import Measurement, require_linear
from diffinv.operators.pixel import Mask
from diffinv.posterior.core import rewards
from diffinv.prior import Prediction, Prior
from diffinv.samplers import learned_range
from diffinv.typing import Array, Cost, Key, Sampler, Time


def dps(
    prior: Prior,
    measurement: Measurement,
    zeta: Array | float = 1.0,
    reward: rewards.Reward = rewards.norm,
    clip: bool = False,
    eta: Array | float = 1.0,
) -> Sampler:
    r"""Diffusion posterior sampling, as published: an ancestral step, minus one gradient.

        x0  = denoise(x_t, t)
        x'  ~ q(x_s | x_t, x0)
        x_s = x' - zeta grad_{x_t} |y - A x0|

    Noise: least squares, whatever the law; `rewards.likelihood` takes any law, by its likelihood.

    Source: Chung et al. 2023, arXiv:2209.14687, algorithm 1, in their code's convention: the un-squared norm, of one
    sample (their script runs one; a norm over a batch would couple the pictures). Algorithm 1 prints the squared norm
    with `zeta / |y - A x0|`, which is twice as large; `rewards.square` is that gradient without the quotient,
    `rewards.likelihood` that of `-log p(y | x0)`. The gradient is taken at x_t, before the step; noise comes first. The
    variance is the learned one where the network predicts it.

    Biased: see `dps_score`; its law depends on the grid through zeta.

    Args:
      prior: of one sample of shape (*shape).
      measurement: with any differentiable operator.
      zeta: step size; for `rewards.norm` in units of the data. Published: 0.3 for deblurring and super-resolution, 0.5
        for inpainting, 1.0 for phase retrieval, at 1000 steps and with noise on masked pixels too.
      reward: `(measurement, x0) -> R`, of which the step climbs the gradient; one of `posterior.rewards`, or your own.
      clip: clamp x0 to [-1, 1] inside the graph, as their code does (gradient 0 where it clips); static.
      eta: 1 is ancestral; below it, and without a learned variance, DDIM's.

    Raises TypeError for a reward's name, ValueError for a concrete sigma_y of 0 with `rewards.likelihood`, or a y that
    does not fit.
    """
    measurement = require_fit(prior, measurement, "dps")
    measurement = rewards.require_reward(reward, measurement, "dps", rewards.norm)

    def loss(x: Array, t: Time) -> tuple[Array, tuple[Array, Array | None]]:
        x0, v = prior.predict(x, t)
        x0 = jnp.clip(x0, -1, 1) if clip else x0
        return -reward(measurement, x0), (x0, v)

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array | None]:
        (distance, (x0, v)), gradient = jax.value_and_grad(loss, has_aux=True)(x, t)
        mean, std = _ancestral(prior, x, t, s, x0, v, eta)
        x_s = mean + std * jax.random.normal(key, x.shape, x.dtype) - zeta * gradient
        return x_s, distance if reward == rewards.norm else None

    return markov(prior, step, cost=prior.cost.plus(vjps=1, calls=2))


def diffstategrad(
    prior: Prior,
    measurement: Measurement,
    zeta: Array | float = 1.0,
    share: Array | float = 0.99,
    reward: rewards.Reward = rewards.norm,
    eta: Array | float = 1.0,
) -> Sampler:
    r"""DiffStateGrad: DPS whose gradient keeps to what the noisy picture is made of, channel by channel.

        x_t = U S V^T,      r: the least with s_1^2 + .. + s_r^2 >= share |x_t|^2
        x_s = x' - zeta U_r U_r^T G V_r V_r^T,      G = grad_{x_t} |y - A x0|,      x' ~ q(x_s | x_t, x0)

    Noise: least squares, whatever the law; `rewards.likelihood` takes any law, by its likelihood.

    It is `dps` under a prior whose pullback is projected and whose values are not.

    Source: Zirvi et al. 2024, arXiv:2410.03463, algorithm 1, around DPS, with a projection at every step (their period
    P is 1 for pixels) and their share of 0.99. Differs: `share` is dynamic, so that the singular vectors left out are
    multiplied by 0 instead of cut off. With a share of 1 it is `dps` on square pictures. Biased, as `dps`.

    Args:
      prior: of pictures (H, W, C); of samples with other axes, which have no such vectors, it is `dps`.
      measurement: any differentiable operator.
      zeta, reward, eta: as of `dps`. share: of the state's energy, in (0, 1]; dimensionless.

    Raises as `dps`.
    """
    measurement = require_fit(prior, measurement, "diffstategrad")
    measurement = rewards.require_reward(reward, measurement, "diffstategrad", rewards.norm)
    return dps(replace(prior, denoise=_WithinState(prior, share)), measurement, zeta, reward, eta=eta)


@struct.dataclass
class _WithinState(Described):
    """The prior's denoiser, whose pullback at x keeps to the leading singular vectors of x.

    Attributes:
      prior: whose denoiser it is.
      share: of the energy of x.
    """

    prior: Prior
    share: Array | float

    def __call__(self, x: Array, t: Time) -> Array:
        return self.predict(x, t).x0

    def predict(self, x: Array, t: Time) -> Prediction:
        """The prior's own."""
        still = jax.lax.stop_gradient(x)
        projected = jax.vmap(_projected, (-1, -1, None), -1)(still, x - still, self.share) if x.ndim == 3 else x - still
        return self.prior.predict(still + projected, t)  # which is x, and P its derivative

    @property
    def cost(self) -> Cost:
        """The prior's own."""
        return self.prior.cost


def _projected(x: Array, moved: Array, share: Array | float) -> Array:
    """`U_r U_r^T moved V_r V_r^T` of one channel, (H, W)."""
    u, s, vt = jnp.linalg.svd(x, full_matrices=False)
    before = jnp.cumsum(s**2) - s**2
    kept = (before < share * jnp.sum(s**2)).astype(x.dtype)
    product = partial(jnp.matmul, precision="highest")
    core = product(product(kept[:, None] * u.T, moved), kept[None] * vt.T)
    return product(product(u, core), vt)


def _ancestral(
    prior: Prior, x: Array, t: Time, s: Time, x0: Array, v: Array | None, eta: Array | float
) -> tuple[Array, Array]:
    if v is None:
        return prior.process.transition(x, x0, t, s, eta)
    return learned_range(prior, x, t, s, x0, v)


def mcg(
    prior: Prior,
    measurement: Measurement,
    zeta: Array | float = 0.1,
    reward: rewards.Reward = rewards.square,
    eta: Array | float = 1.0,
) -> Sampler:
    r"""Manifold constrained gradients: a DPS step, then the projection onto the noised measurement.

        x'  ~ q(x_s | x_t, x0);   x'' = x' - zeta grad_{x_t} |y - A x0|^2
        x_s = (I - A^+ A) x'' + A^+ y_s,        y_s = alpha_s y + sigma_s A z

    Noise: least squares, whatever the law, but for `rewards.likelihood`.

    Source: Chung et al. 2022, arXiv:2206.00941, algorithm 1 (zeta 0.1 for colourisation, else 1), with
    the weight matrix W of its residual left out.
    `rewards.square` is as the algorithm prints it, `rewards.norm` as their own code and DPS's repository compute it.
    Differs: `A^+` stands for their `A^T`, which it is for masks; noise in y is taken as signal; y is noised to s, where
    x_s goes, and theirs to t.

    Raises TypeError for an operator that is not linear or a reward's name, ValueError for a process that is not
    isotropic.
    """
    measurement = require_fit(prior, measurement, "mcg", isotropic=True)
    measurement = rewards.require_reward(reward, measurement, "mcg", rewards.square)
    A, process = require_linear(measurement, "mcg"), prior.process

    def loss(x: Array, t: Time) -> tuple[Array, Array]:
        x0 = prior.denoise(x, t)
        return -reward(measurement, x0), x0

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        step_key, noise_key = jax.random.split(key)
        (_, x0), gradient = jax.value_and_grad(loss, has_aux=True)(x, t)
        moved = process.transition(x, x0, t, s, eta).sample(step_key) - zeta * gradient
        z = jax.random.normal(noise_key, x.shape, x.dtype)
        x_s = moved + A.pinv(process.alpha(s) * measurement.y + process.sigma(s) * A(z) - A(moved))
        return x_s, norm(measurement.residual(x0))

    return markov(prior, step, cost=prior.cost.plus(vjps=1, calls=6))


def pgdm(
    prior: Prior,
    measurement: Measurement,
    weight: Array | float = 1.0,
    eta: Array | float = 0.0,
    awd: bool = False,
    clip: bool = False,
) -> Sampler:
    r"""PiGDM as published, a sampler: DDIM by the network's own x0 and eps, plus the guidance.

        g   = J^T A^H (A A^H + (sigma_y^2 / r^2) I)^{-1} (y - A x0),      r^2 = sigma^2 / (sigma^2 + alpha^2)
        x_s = alpha_s x0 + c1 z + c2 eps + c g                            started at alpha_T A^+ y + sigma_T z

    Noise: taken as Gaussian of `measurement.sigma`, whatever its law.

    Source: Song et al. 2023 (ICLR, "Pseudoinverse-guided diffusion models for inverse problems"), algorithm 1:
    `c = alpha_t`. `awd` (static) is the authors' RED-diff repository under its option of that name:
    `c = alpha_s alpha_t`, and under a mask x0 is overwritten by y where it is seen, and g is 0 there. Differs: theirs
    is noiseless, and has `A^+` in the place of the damped inverse. `posterior.pigdm` is the guidance as a prior, for
    any sampler: there eps follows the guided x0.

    Args:
      weight: dimensionless; published: 1. eta: dimensionless; published: 0.
      clip: clamp x0 to [-1, 1], which TMPD's authors found it to need; gradient 0 where it clips; static.

    Raises TypeError for an operator that is not linear, ValueError for a process that is not isotropic.
    """
    measurement = require_fit(prior, measurement, "pgdm", isotropic=True)
    require_switch("awd", awd)
    A, process = require_linear(measurement, "pgdm"), prior.process
    overwrites = awd and isinstance(A, Mask)

    def init(key: Key, t: Time, x: Array | None) -> Array:
        return process.alpha(t) * A.pinv(measurement.y) + prior.start(key, t) if x is None else x

    def denoise(x: Array, t: Time) -> Array:
        x0 = prior.denoise(x, t)
        return jnp.clip(x0, -1, 1) if clip else x0

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        x0, pullback = jax.vjp(lambda x: denoise(x, t), x)
        alpha, sigma, residual = process.alpha(t), process.sigma(t), measurement.residual(x0)
        damping = measurement.sigma**2 * (sigma**2 + alpha**2) / sigma**2
        (g,) = pullback(A.adjoint(A.solve(residual, damping)))
        c = weight * alpha * (process.alpha(s) if awd else 1.0)
        if overwrites:
            seen, eps = A.pinv(A(jnp.ones_like(x))), process.noise(x, x0, t)
            x0 = x0 + A.pinv(residual)
            x, g = alpha * x0 + sigma * eps, (1 - seen) * g  # the network's own eps goes on
        x_s = process.transition(x, x0, t, s, eta).sample(key) + c * g
        return x_s, norm(residual)

    return markov(prior, step, init, cost=prior.cost.plus(vjps=1, calls=6 if overwrites else 3))


def lgd(
    prior: Prior,
    measurement: Measurement,
    scale: Array | float = 3e-3,
    draws: int = 3,
    reward: rewards.Reward = rewards.cloud_norm,
    eta: Array | float = 1.0,
) -> Sampler:
    r"""Loss-guided diffusion by Monte Carlo: the likelihood is averaged over `x0_k = x0 + r_t e_k`, k = 1 .. draws.

        x' ~ q(x_s | x_t, x0),   r_t^2 = sigma^2 / (sigma^2 + alpha^2)
        cloud_norm:        x_s = x' - scale grad_{x_t} sqrt(L) / draws,  L = sum_k |y - A x0_k|^2
        cloud_likelihood:  x_s = x' + scale grad_{x_t} log mean_k p(y | x0_k)

    Noise: least squares, whatever the law; `rewards.cloud_likelihood` takes any law, by its likelihood.

    Source: Song et al. 2023 (ICML, "Loss-guided diffusion models for plug-and-play controllable generation"), eq. 8, is
    `cloud_likelihood`; there is no official code, and `cloud_norm` is InverseBench's (3 draws, 3e-3, 1000 steps): its
    gradient is a mean over the draws, and the root that divides it that of their sum, `sqrt(draws)` above the root of
    their mean.

    Args:
      measurement: any differentiable operator. scale: in the units of the gradient's inverse.
      draws: static, at least 1.
      reward: `(measurement, guesses) -> R` of the draws (draws, *shape): a cloud's of `posterior.rewards`, or your own.

    Raises TypeError for a reward's name, ValueError for draws under 1, or `rewards.cloud_likelihood` with a concrete
    sigma_y of 0.
    """
    measurement = require_fit(prior, measurement, "lgd")
    measurement = rewards.require_reward(reward, measurement, "lgd", rewards.cloud_norm, rewards.CLOUDS)
    require_count("draws", draws)
    process = prior.process

    def loss(x: Array, t: Time, e: Array) -> tuple[Array, Array]:
        alpha, sigma = process.alpha(t), process.sigma(t)
        x0 = prior.denoise(x, t)
        guesses = x0[None] + sigma / jnp.sqrt(sigma**2 + alpha**2) * e
        return -reward(measurement, guesses), x0

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        step_key, guess_key = jax.random.split(key)
        e = jax.random.normal(guess_key, (draws, *x.shape), x.dtype)
        (_, x0), gradient = jax.value_and_grad(loss, has_aux=True)(x, t, e)
        x_s = process.transition(x, x0, t, s, eta).sample(step_key) - scale * gradient
        return x_s, norm(measurement.residual(x0))

    return markov(prior, step, cost=prior.cost.plus(vjps=1, calls=2 * draws + 1))
