"""Samplers that add noise of their own: churn, and Langevin steps beside or in the place of the reverse process."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from diffinv.linalg import norm
from diffinv.loop import markov
from diffinv.prior import Prior
from diffinv.process import require_isotropic
from diffinv.samplers.single import heun
from diffinv.times import from_sigma
from diffinv.typing import Array, Key, Sampler, Scalar, StepInfo, Time


def churn(
    prior: Prior,
    steps: int,
    s_churn: Scalar = 40.0,
    s_tmin: Scalar = 0.05,
    s_tmax: Scalar = 50.0,
    s_noise: Scalar = 1.003,
) -> Sampler:
    r"""EDM's stochastic sampler: noise is added first, then one step of Heun's method takes more of it away.

        gamma = min(s_churn / steps, sqrt(2) - 1) where s_tmin <= sigma <= s_tmax, else 0
        sigma^ = (1 + gamma) sigma,   x^ = x + sqrt(sigma^^2 - sigma^2) s_noise z,   x = heun(x^, sigma^ -> sigma_next)

    Here sigma is the noise-to-signal ratio, so that it serves every isotropic process; `s_churn = 0` is `heun`.

    Source: Karras et al. 2022, arXiv:2206.00364, algorithm 2, with the values of its table 5 for ImageNet 64. Differs:
    the noise is raised to the process's last level at most.

    Args:
      prior: of an isotropic process.
      steps: N of the grid that it will run over.
      s_churn: how much noise is added over the whole way, dimensionless; 0 or more.
      s_tmin: the ratio from which it is added, in units of the data.
      s_tmax: the ratio up to which it is added, in units of the data.
      s_noise: by how much its deviation is inflated, dimensionless.

    Raises ValueError for a process that is not isotropic and for steps below 1.
    """
    process, second = prior.process, heun(prior)
    require_isotropic(process, "churn", "ancestral")
    if steps < 1:
        raise ValueError(f"steps is {steps!r}; give the number of steps of the grid, at least 1")

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        ratio = jnp.exp(-0.5 * process.log_snr(t))
        gamma = jnp.minimum(s_churn / steps, 2**0.5 - 1)
        churned = (ratio >= s_tmin) & (ratio <= s_tmax) & (gamma > 0) & (jnp.asarray(s) != t)
        up = jnp.maximum(from_sigma(process, (1 + gamma) * ratio).astype(jnp.asarray(t).dtype), t)
        t_hat = jnp.where(churned, up, t)
        mean, std = process.forward(x, t, t_hat)
        return second.step(key, mean + s_noise * std * jax.random.normal(key, x.shape, x.dtype), t_hat, s)

    return markov(prior, step)


def predictor_corrector(prior: Prior, snr: Scalar = 0.16, corrections: int = 1) -> Sampler:
    r"""Predictor-corrector: Langevin steps at each level, then the discretised reverse diffusion to the next.

        corrector  eps = 2 a^2 (snr |z| / |g|)^2,   x <- x + eps g + sqrt(2 eps) z,        g = score(x, t)
        predictor  x_s = (2 - a) x + kappa^2 score(x, t) + kappa z,     p(x_t | x_s) = N(a x_s, kappa^2)

    The step to time 0 gives the denoised mean. The norms are of one example. As the correction's step depends on x, its
    invariant law is `p |g|^2`, not p: the law is too wide, by the order of one over the number of coordinates.

    Source: Song et al. 2021, arXiv:2011.13456, algorithms 4 and 5, with the reverse-diffusion predictor of eq. 46 and
    the signal-to-noise ratio that its authors use for VE. Differs: each level is corrected before the next is
    predicted, as in the authors' code; the last step is Tweedie's, which it is for VE as published.

    Args:
      prior: of an isotropic process.
      snr: the ratio of a correction's step to its noise, dimensionless.
      corrections: Langevin steps at each level, 0 or more; static.

    Raises ValueError for a process that is not isotropic and for corrections below 0.
    """
    process = prior.process
    require_isotropic(process, "predictor_corrector", "ancestral")
    if corrections < 0:
        raise ValueError(f"corrections is {corrections!r}; give a whole number from 0 on")

    def score(x: Array, t: Time) -> Array:
        return process.score(x, prior.denoise(x, t), t)

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        kept = process.forward(jnp.ones_like(x), s, t)  # its mean is a
        predict, *correct = jax.random.split(key, corrections + 1)

        def correction(x: Array, k: Key) -> tuple[Array, None]:
            g, z = score(x, t), jax.random.normal(k, x.shape, x.dtype)
            size = norm(g)
            eps = 2 * (kept.mean * snr * norm(z) / jnp.where(size > 0, size, jnp.inf)) ** 2
            return x + eps * g + jnp.sqrt(2 * eps) * z, None

        there = jax.lax.scan(correction, x, jnp.stack(correct))[0] if corrections else x
        x0, z = prior.denoise(there, t), jax.random.normal(predict, x.shape, x.dtype)
        ahead = (2 - kept.mean) * there + kept.std**2 * process.score(there, x0, t) + kept.std * z
        ahead = jnp.where(jnp.asarray(s) > 0, ahead, x0)
        return jnp.where(jnp.asarray(s) == t, x, ahead), StepInfo(prior.cost.times(corrections + 1))

    return markov(prior, step)


def annealed_langevin(prior: Prior, delta: Scalar = 0.2, steps: int = 5) -> Sampler:
    r"""Annealed Langevin dynamics: at each noise level, Langevin steps in proportion to its variance.

        x <- x + (delta sigma_t^2 / 2) score(x, t) + sqrt(delta) sigma_t z,   `steps` times, at every t

    It never moves by the reverse process: x follows the levels because each is near the last. The step to time 0 puts
    the denoised mean in the place of x. Stable for `delta` below 4. For every process.

    Source: Song & Ermon 2019, arXiv:1907.05600, algorithm 1, in which `delta = epsilon / sigma_L^2` is 0.2 for the
    published epsilon = 2e-5 and last level 0.01, with 100 steps at each of 10 levels. Differs: the last sample is
    denoised, as Jolicoeur-Martineau et al. 2021, arXiv:2009.05475, found it to need.

    Args:
      prior: of any process.
      delta: the step relative to the level's variance, dimensionless.
      steps: at each level, at least 1; static.

    Raises ValueError for steps below 1.
    """
    process = prior.process
    if steps < 1:
        raise ValueError(f"steps is {steps!r}; give the Langevin steps at each level, at least 1")

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        sigma, moves = process.sigma(t), jnp.asarray(s) != t

        def langevin(x: Array, k: Key) -> tuple[Array, None]:
            z, noise = jax.random.normal(k, x.shape, x.dtype), process.noise(x, prior.denoise(x, t), t)
            return x + sigma * (jnp.sqrt(delta) * z - 0.5 * delta * noise), None

        walked, _ = jax.lax.scan(langevin, x, jax.random.split(key, steps))
        ended = jax.lax.cond(jnp.asarray(s) <= 0, lambda x: prior.denoise(x, t), lambda x: x, walked)
        return jnp.where(moves, ended, x), StepInfo(prior.cost.times(jnp.where(jnp.asarray(s) <= 0, steps + 1, steps)))

    return markov(prior, step)
