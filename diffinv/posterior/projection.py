"""Projection of the denoised mean onto what the measurement says: no gradient through the network."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffinv.checks import require_count, require_fit, require_spectrum, require_switch
from diffinv.describe import described
from diffinv.linalg import norm
from diffinv.loop import markov
from diffinv.measurement import Measurement, require_linear
from diffinv.operators.base import divide
from diffinv.posterior.core.guided import guided
from diffinv.prior import Prediction, Prior
from diffinv.typing import Array, Key, Sampler, StepInfo, Time


def _ddnm(prior: Prior, measurement: Measurement, x: Array, t: Time) -> Prediction:
    A, prediction = require_linear(measurement, "ddnm"), prior.predict(x, t)
    return prediction._replace(x0=prediction.x0 + A.pinv(measurement.residual(prediction.x0)))


def ddnm(prior: Prior, measurement: Measurement) -> Prior:
    """Replaces the range of x0 by the measurement: `x0' = x0 + A^+ (y - A x0)`; use it under `ddim(eta=0.85)`.

    Noise: least squares, whatever the law.

    Source: Wang et al. 2023, arXiv:2212.00490, eq. 13 and algorithm 1. It is the noiseless form: noise in y goes into
    x0 as it is, amplified by `A^+`. Raises TypeError for an operator that is not linear, ValueError for a y that does
    not fit.
    """
    measurement = require_fit(prior, measurement, "ddnm")
    require_linear(measurement, "ddnm")
    return guided(prior, measurement, _ddnm, calls=2)


def travel(times: Array, length: int = 10, repeat: int = 10) -> Array:
    """`times` with time travel: at every `length`-th level the grid goes back up `length` levels, `repeat - 1` times.

    For `repaint` and `ddnm_plus`, whose steps with s > t add noise. Source: Lugmayr et al. 2022, arXiv:2201.09865,
    appendix B (jump length 10, 10 resamplings); Wang et al. 2023, arXiv:2212.00490, algorithm 2 (1, 1: none). Differs:
    their upward steps are one here, of the same law. Both numbers are static. Raises ValueError where one is below 1.
    """
    require_count("length", length)
    require_count("repeat", repeat)
    last = len(times) - 1
    jumps = {level: repeat - 1 for level in range(1, last - length + 1, length)}
    levels, level = [last], last
    while level > 0:
        level -= 1
        levels.append(level)
        if jumps.get(level, 0):
            jumps[level] -= 1
            level += length
            levels.append(level)
    return times[last - jnp.asarray(levels)]


def ddrm(
    prior: Prior,
    measurement: Measurement,
    eta: Array | float = 0.85,
    eta_b: Array | float = 1.0,
    eta_c: Array | float | None = None,
    strict: bool = False,
) -> Sampler:
    r"""Denoising diffusion restoration models. With `A = U S V^T`, `yb = U^T y / s`, and all of x, x0 in the basis V:

        s = 0         x_s = alpha_s x0 + sqrt(1 - eta_c^2) sigma_s eps + eta_c sigma_s z
        sigma_s <  w  x_s = alpha_s x0 + sqrt(1 - eta^2) sigma_s (U^T y - s x0) / sy + eta sigma_s z
        sigma_s >= w  x_s = alpha_s ((1 - eta_b) x0 + eta_b yb) + sqrt(sigma_s^2 - eta_b^2 w^2) z,   w = alpha_s sy / s

    started at `alpha_T yb + sqrt(sigma_T^2 - w^2) z` where that is real, else at noise.

    Noise: taken as Gaussian of `measurement.sigma`, whatever its law.

    Source: Kawar et al. 2022, arXiv:2201.11793, eq. 7 and 8; there in VE form, x / alpha. Their code doubles the noise
    given on the command line, for its [-1, 1] pictures: here sigma_y is on that scale already. At an exact tie,
    `sigma_s = alpha_s sy / s` (each one of a noiseless y at s = 0), the paper takes the third line and the code, which
    compares strictly, the first: `strict`.

    Args:
      measurement: with an operator that has `spectrum()`, and Gaussian noise, which may be 0.
      eta: of noisy coordinates, eta_b: of well-measured, eta_c: of unseen ones (None: eta; 1 in the Gaussian-mixture
        scripts of MCGDiff); dimensionless, in [0, 1].
      strict: a tie is taken as the code takes it; static.

    Raises TypeError for an operator without a spectrum, ValueError for a y that does not fit and a process that is not
    isotropic.
    """
    measurement = require_fit(prior, measurement, "ddrm", isotropic=True)
    require_switch("strict", strict)
    process, spectrum = prior.process, require_spectrum(measurement, "ddrm")
    eta_c = eta if eta_c is None else eta_c
    seen, noise = spectrum.observe(measurement.y), jnp.asarray(measurement.sigma)
    s_values = spectrum.s.astype(seen.dtype)
    live, y_bar, width = s_values > 0, divide(seen, s_values), divide(jnp.ones_like(s_values) * noise, s_values)

    def init(key: Key, t: Time, x: Array | None) -> Array:
        if x is not None:
            return x
        alpha, sigma = process.alpha(t), process.sigma(t)
        z = jax.random.normal(key, seen.shape, seen.dtype)
        left = jnp.sqrt(jnp.maximum(sigma**2 - (alpha * width) ** 2, 0.0))
        return spectrum.synthesise(jnp.where(live & (sigma > alpha * width), alpha * y_bar + left * z, sigma * z))

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        denoised = prior.denoise(x, t)
        x0, eps = spectrum.analyse(denoised), spectrum.analyse(process.noise(x, denoised, t))
        alpha, sigma = process.alpha(s), process.sigma(s)
        z = jax.random.normal(key, x0.shape, x0.dtype)
        unseen = alpha * x0 + sigma * (jnp.sqrt(1 - eta_c**2) * eps + eta_c * z)
        noisy = alpha * x0 + sigma * (jnp.sqrt(1 - eta**2) * divide(seen - s_values * x0, noise) + eta * z)
        left = jnp.sqrt(jnp.maximum(sigma**2 - (eta_b * alpha * width) ** 2, 0.0))
        clear = alpha * ((1 - eta_b) * x0 + eta_b * y_bar) + left * z
        told = live & (sigma != alpha * width) if strict else live
        code = jnp.where(told, jnp.where(sigma >= alpha * width, clear, noisy), unseen)
        return spectrum.synthesise(code), norm(measurement.residual(denoised))

    return markov(prior, step, init, cost=prior.cost.plus(calls=4))


@described
class TravelState(NamedTuple):
    """A state from which time may run back.

    Attributes:
      x: the sample.
      x0: the last denoised mean, from which time travel starts.
    """

    x: Array
    x0: Array


def ddnm_plus(prior: Prior, measurement: Measurement, eta: Array | float = 0.85, spectral: bool = True) -> Sampler:
    r"""DDNM+ for noisy measurements, with time travel where the grid goes up (see `travel`). With `a = alpha_s`:

        x_s = a [x0 - V Lambda V^T A^+ (A x0 - y)] + noise
        sigma_s >= a sy / s   Lambda = 1                                    noise sqrt(sigma_s^2 - (a sy / s)^2) z
        sigma_s <  a sy / s   Lambda = s sigma_s sqrt(1 - eta^2) / (a sy)   noise eta sigma_s z
        s = 0, or sy = 0      Lambda = 1                                    noise sigma_s (eta z + sqrt(1 - eta^2) eps)
        up (s > t)            x_s = alpha_s x0 + sigma_s z                  of the last x0, without an evaluation

    Noise: taken as Gaussian of `measurement.sigma`, whatever its law.

    Source: Wang et al. 2023, arXiv:2212.00490, eq. 17 to 19 and algorithm 2, as their code reads. Without
    `spectral` (static) it is their simplified version, for operators without a spectrum that are nearly orthogonal: one
    `Lambda = min(1, sigma_s / (a sy))` for all, with noise `sqrt(max(sigma_s^2 - (a sy)^2, 0)) (eta z + ...)`. That is
    the paper's; differs: their code's simplified version has alpha_s^2 for alpha_s in both, `sqrt(1 - alpha_s^4)` for
    sigma_s, and multiplies the noise by sigma_s once more. Their code doubles the noise given on the command line;
    sigma_y here is on the [-1, 1] scale already.

    Args: eta dimensionless, in [0, 1]; published: 0.85 at 100 steps, no travel.

    Raises TypeError for an operator that is not linear, or has no spectrum where `spectral`; ValueError for a process
    that is not isotropic.
    """
    measurement = require_fit(prior, measurement, "ddnm_plus", isotropic=True)
    require_switch("spectral", spectral)
    A, noise, process = require_linear(measurement, "ddnm_plus"), jnp.asarray(measurement.sigma), prior.process

    def mix(z: Array, eps: Array) -> Array:
        return eta * z + jnp.sqrt(1 - eta**2) * eps

    def scalar(x0: Array, eps: Array, z: Array, a: Array, sigma: Array) -> Array:
        share = jnp.where(sigma >= a * noise, 1.0, divide(sigma, a * noise))
        gamma = jnp.sqrt(jnp.maximum(sigma**2 - (a * noise) ** 2, 0.0))
        return a * (x0 + share * A.pinv(measurement.residual(x0))) + gamma * mix(z, eps)

    if spectral:
        spectrum = require_spectrum(measurement, "ddnm_plus with spectral=True")
        seen = spectrum.observe(measurement.y)

    def svd(x0: Array, eps: Array, z: Array, a: Array, sigma: Array) -> Array:
        s = spectrum.s.astype(seen.dtype)
        x0, eps, z, width = *map(spectrum.analyse, (x0, eps, z)), a * divide(jnp.ones_like(s) * noise, s)
        clear = sigma >= width
        share = jnp.where(clear, 1.0, divide(sigma * jnp.sqrt(1 - eta**2), width))
        added = jnp.where(clear, jnp.sqrt(jnp.maximum(sigma**2 - width**2, 0.0)) * z, eta * sigma * z)
        added = jnp.where((s > 0) & (noise > 0), added, sigma * mix(z, eps))
        return spectrum.synthesise(a * jnp.where(s > 0, x0 - share * (x0 - divide(seen, s)), x0) + added)

    def init(key: Key, t: Time, x: Array | None) -> TravelState:
        x = prior.start(key, t) if x is None else x
        return TravelState(x, jnp.zeros_like(x))

    def step(key: Key, state: TravelState, t: Time, s: Time) -> tuple[TravelState, StepInfo]:
        z = jax.random.normal(key, state.x.shape, state.x.dtype)

        def down(state: TravelState) -> TravelState:
            x0 = prior.denoise(state.x, t)
            guide = svd if spectral else scalar
            return TravelState(guide(x0, process.noise(state.x, x0, t), z, process.alpha(s), process.sigma(s)), x0)

        state = jax.lax.cond(s > t, lambda old: old._replace(x=process.perturb(old.x0, s).at(z)), down, state)
        cost = prior.cost.plus(calls=4 if spectral else 2).times(jnp.where(s > t, 0, 1)).plus(calls=1)
        return state, StepInfo(cost, norm(measurement.residual(state.x0)))

    return Sampler(init, step, lambda key, state: state.x)


def repaint(prior: Prior, measurement: Measurement, eta: Array | float = 1.0) -> Sampler:
    r"""RePaint: the measured part of x_s is the noised measurement, the rest the reverse step's.

        x'  ~ q(x_s | x_t, x0)
        x_s = x' + A^+ (alpha_s y + sigma_s A z - A x')            up (s > t): x_s ~ p(x_s | x_t)

    Noise: least squares, whatever the law.

    Source: Lugmayr et al. 2022, arXiv:2201.09865, algorithm 1; resampling is the grid `travel(grid(250))`, where it
    goes up. For a mask this is their eq. 8; with another linear A, the same projection. Noise in y is taken as signal.
    `eta` is the reverse step's. Raises TypeError for an operator that is not linear, ValueError for a process that is
    not isotropic.
    """
    measurement = require_fit(prior, measurement, "repaint", isotropic=True)
    A, process = require_linear(measurement, "repaint"), prior.process

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        step_key, noise_key = jax.random.split(key)
        z = jax.random.normal(noise_key, x.shape, x.dtype)

        def down(x: Array) -> Array:
            x = process.transition(x, prior.denoise(x, t), t, s, eta).sample(step_key)
            return x + A.pinv(process.alpha(s) * measurement.y + process.sigma(s) * A(z) - A(x))

        x = jax.lax.cond(s > t, lambda x: process.forward(x, t, s).at(z), down, x)
        cost = prior.cost.plus(calls=3).times(jnp.where(s > t, 0, 1)).plus(calls=1)
        return x, StepInfo(cost, norm(measurement.residual(x)))

    return markov(prior, step)
