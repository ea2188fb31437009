"""Methods that alternate between a denoised guess and a chain around it, at falling noise."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.checks import concrete, require_count, require_fit, require_noise, require_switch
from diffinv.linalg import norm
from diffinv.loop import markov
from diffinv.measurement import Measurement
from diffinv.posterior.core import chains
from diffinv.posterior.core.chains import Coupled, InnerChain, require_chain
from diffinv.posterior.core.levels import noise_to_signal
from diffinv.prior import Prior
from diffinv.process import DEAD
from diffinv.samplers import euler
from diffinv.times import from_sigma
from diffinv.typing import Array, Key, Sampler, StepInfo, Time

LANGEVIN, CONJUGATE = chains.langevin(), chains.conjugate()


def _spaced(high: Array | float, low: Array | float, steps: int, rho: float, dtype: jnp.dtype) -> Array:
    """The `steps` values that follow `high` in EDM's spacing down to `low`, equal steps of their power `1 / rho`."""
    ramp = jnp.arange(1, steps + 1, dtype=dtype) / steps
    return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def _levels(prior: Prior, x: Array, t: Time, steps: int, sigma_end: Array | float, rho: float) -> Array:
    """EDM's grid of `steps + 1` times from `t` to noise-to-signal `sigma_end`, or staying where it is below that."""
    start = noise_to_signal(prior.process, t)
    sigmas = _spaced(start, jnp.minimum(start, sigma_end), steps, rho, x.dtype)
    return jnp.concatenate([jnp.asarray(t, x.dtype)[None], from_sigma(prior.process, sigmas).astype(x.dtype)])


def _descend(prior: Prior, x: Array, t: Time, steps: int, sigma_end: Array | float, rho: float) -> Array:
    """Euler on the probability-flow ODE from `t` to noise-to-signal `sigma_end`, on EDM's grid; returns `x / alpha`.

    From a time that is already below `sigma_end` it goes nowhere.
    """
    process, grid = prior.process, _levels(prior, x, t, steps, sigma_end, rho)
    step = euler(prior).step

    def body(x: Array, now: tuple[Array, Array]) -> tuple[Array, None]:
        return step(jax.random.key(0), x, *now)[0], None

    return jax.lax.scan(body, x, (grid[:-1], grid[1:]))[0] / process.alpha(grid[-1])


def daps(
    prior: Prior,
    measurement: Measurement,
    ode_steps: int = 5,
    chain: InnerChain = LANGEVIN,
    tau: Array | float | None = None,
    sigma_end: Array | float = 0.01,
    rho: float = 7.0,
    spread: Array | float = 1.0,
) -> Sampler:
    r"""Decoupled annealing posterior sampling. At each time, with `r_t = spread sigma_t / alpha_t`:

        x0    = ODE(x_t, t -> sigma_end)                             probability-flow, `ode_steps` of Euler
        x0|y  ~ exp(-|y - A x|^2 / (2 tau^2) - |x - x0|^2 / (2 r_t^2))            by `chain`, from x0
        x_s   ~ p(x_s | x0|y)

    Noise: any law, by its likelihood, which with `sigma` or `tau` sets the step; `chains.conjugate` is for Gaussian
    noise alone.

    Source: Zhang et al. 2024, arXiv:2407.01521, algorithm 1 and eq. 7. `chains.langevin` is as published; `hmc` and
    `metropolis` are those of their code, whose main branch has twice the data force (`force=2.0`); `conjugate` is an
    exact draw in their place for linear operators with Gaussian noise.

    Differs: the chain's rate is relative to both variances, where theirs is tuned per task; see `chains.langevin`.

    Biased: `N(x0, r^2 I)` about the ODE's end is wider than `p(x_0 | x_t)`. Under `chains.conjugate` and a fine grid,
    coordinates that the measurement does not see end at about twice the prior's variance. On pictures that is visible
    noise, which a smaller `spread` removes.

    Args:
      prior: with an isotropic process; one sample of shape (*shape).
      measurement: any differentiable operator; y - A x is weighed by `tau` under Gaussian noise. Under another law its
        own likelihood is the force, and `tau` sets the length of a step alone; `chains.conjugate` refuses it.
      ode_steps: static. chain: one of `posterior.chains`, 100 steps of Langevin by default; or your own.
      tau: units of y, above 0 for all but `chains.conjugate`; None takes the noise's own sigma (published: 0.01 at
        sigma_y = 0.05).
      sigma_end: where the inner ODE stops, in noise-to-signal. rho: of its grid; static.
      spread: of the inner law, relative to the noise; published: 1. Dimensionless.

    Raises ValueError for a concrete tau of 0 (a traced one gives NaN) or a y that does not fit, TypeError for a chain's
    name, and for `chains.conjugate` with an operator that is not linear, or noise that is not Gaussian.
    """
    measurement = require_fit(prior, measurement, "daps", isotropic=True)
    chain, process = require_chain(chain, measurement, "daps"), prior.process
    tau = _temperature(chain, measurement.sigma if tau is None else tau, measurement)

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        chain_key, noise_key = jax.random.split(key)
        x0, level = _descend(prior, x, t, ode_steps, sigma_end, rho), noise_to_signal(prior.process, t)
        x0 = chain(chain_key, Coupled(measurement, x0, spread * level, tau, level))
        return process.perturb(x0, s).sample(noise_key), norm(measurement.residual(x0))

    return markov(prior, step, cost=prior.cost.times(ode_steps).plus(calls=chain.calls + 1))


def _temperature(chain: InnerChain, tau: Array | float, measurement: Measurement) -> Array:
    """tau as an array, NaN where a traced one is 0 and the chain divides by it; ValueError where it is known to be."""
    least = float(jnp.finfo(measurement.y.dtype).tiny) if chain.divides else 0.0
    if concrete(tau) and not np.all(np.asarray(tau) >= least):
        kind = type(chain).__name__
        raise ValueError(f"tau is {tau}; {kind} needs one above 0: give one, or use chains.conjugate() with 0")
    return jnp.where(jnp.asarray(tau) >= least, jnp.asarray(tau), jnp.nan)


def _eps(prior: Prior, v: Array, s: Array, t: Time) -> Array:
    """The noise that the denoiser sees in `v = x_0 + s e`: `(v - E[x_0 | v]) / s`, at the time t of that level."""
    return (v - prior.denoise(prior.process.sigma(t) / s * v, t)) / s


def dapspp(
    prior: Prior,
    measurement: Measurement,
    iterations: int = 4,
    lr: Array | float = 0.5,
    switch: Array | float = 10.0,
    sigma_end: Array | float = 0.01,
) -> Sampler:
    r"""DAPS++: the diffusion starts a chain on the likelihood alone. At each time, with `level = sigma_t / alpha_t`:

        x0   = E[x_0 | x_t]   where level > switch sigma_y,   else one Runge-Kutta step of the ODE to sigma_end
        x0  <- x0 + eta grad log p(y | x0) + sqrt(2 eta) e,   eta = lr sigma_y^2,    `iterations` times
        x_s  ~ p(x_s | x0)

    Against `daps`: the chain has no pull back to x0, DAPS at `r_t = infinity`; and one evaluation of the network
    stands for the ODE, four where that matters.

    Noise: any law, by its likelihood; its `sigma` sets the step.

    Source: Chen et al. 2025, arXiv:2511.17038, of which only the abstract and summaries were at hand: both stages, the
    threshold of 10 sigma_y, the fourth-order step and 50 levels are from there. Differs: `iterations` and `lr` are
    ours, and so is the grid that `experiments.reconstruct` gives it, DAPS's.

    Biased: what the measurement sees forgets the prior as `(1 - lr s^2)^iterations`, s a singular value, and is then y
    within its noise; what it does not see is left with a variance of `2 iterations lr sigma_y^2` from the last walk.

    Args:
      prior: with an isotropic process.
      measurement: any differentiable operator.
      iterations: static, at least 1. lr: dimensionless, stable below 2 for operators of norm 1.
      switch: in units of sigma_y; sigma_end: noise-to-signal.

    Raises ValueError for iterations under 1, a concrete sigma_y of 0, or a y that does not fit.
    """
    measurement = require_fit(prior, measurement, "dapspp", isotropic=True)
    measurement = require_noise(measurement, "dapspp", "daps with chain=chains.conjugate()")
    require_count("iterations", iterations)
    process, tau, walk = prior.process, jnp.asarray(measurement.sigma), chains.langevin(iterations, lr)

    def runge_kutta(v: Array, k1: Array, level: Array) -> Array:
        low = jnp.minimum(level, sigma_end)
        h, middle = level - low, 0.5 * (level + low)
        at_middle, at_low = from_sigma(process, middle).astype(v.dtype), from_sigma(process, low).astype(v.dtype)
        k2 = _eps(prior, v - 0.5 * h * k1, middle, at_middle)
        k3 = _eps(prior, v - 0.5 * h * k2, middle, at_middle)
        k4 = _eps(prior, v - h * k3, low, at_low)
        return v - h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        walk_key, noise_key = jax.random.split(key)
        mean, level = prior.denoise(x, t), noise_to_signal(process, t)
        noisy, v = level > switch * tau, level / process.sigma(t) * x
        x0 = jax.lax.cond(noisy, lambda: mean, lambda: runge_kutta(v, (v - mean) / level, level))
        x0 = walk(walk_key, Coupled(measurement, x0, jnp.full_like(level, jnp.inf), tau, level))
        cost = prior.cost.times(jnp.where(noisy, 1, 4)).plus(calls=walk.calls + 1)
        return process.perturb(x0, s).sample(noise_key), StepInfo(cost, norm(measurement.residual(x0)))

    return markov(prior, step)


def _split_gibbs(
    prior: Prior, measurement: Measurement, name: str, chain: InnerChain, reverse: Callable, reverse_steps: int
) -> Sampler:
    """A clean x, drawn in turns with z: `z` by the chain about x, x by `reverse(key, z, t, coupling)` about z."""
    measurement = require_fit(prior, measurement, name, isotropic=True)
    chain = require_chain(chain, measurement, name)
    require_count("reverse_steps", reverse_steps)
    if chain.divides:
        called = f"{name} with chain={type(chain).__name__}"
        measurement = require_noise(measurement, called, "chain=chains.conjugate()")
    process, tau = prior.process, jnp.asarray(measurement.sigma)

    def init(key: Key, t: Time, x: Array | None) -> Array:
        start = prior.start(key, t)
        return jnp.zeros_like(start) if x is None else x / jnp.maximum(process.alpha(t), DEAD)

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        chain_key, reverse_key = jax.random.split(key)
        coupling = noise_to_signal(process, t)
        z = chain(chain_key, Coupled(measurement, x, coupling, tau, coupling))
        x = reverse(reverse_key, z, t, coupling)
        return x, norm(measurement.residual(x))

    return markov(prior, step, init, cost=prior.cost.times(reverse_steps).plus(calls=chain.calls + 1))


def pnpdm(
    prior: Prior,
    measurement: Measurement,
    reverse_steps: int = 100,
    chain: InnerChain = CONJUGATE,
    sigma_end: Array | float = 0.002,
    rho: float = 7.0,
) -> Sampler:
    r"""PnP-DM: split Gibbs sampling at a coupling that falls with the grid, `rho_k = sigma / alpha`.

        z ~ exp(-|y - A z|^2 / (2 sigma_y^2) - |z - x|^2 / (2 rho_k^2))
        x ~ p(x) exp(-|x - z|^2 / (2 rho_k^2)):   the reverse SDE from x_t = alpha_t z down to 0

    The state is a clean x. At a constant coupling both draws keep `p(x, z | y)`, whose x has the posterior of a
    measurement with noise `sigma_y^2 I + rho_k^2 A A^T`.

    Noise: `chains.conjugate` is for Gaussian noise alone; the other chains take any law, by its likelihood, and step by
    its `sigma`.

    Source: Wu et al. 2024, arXiv:2405.18782, algorithm 1. Published couplings: `max(10 0.9^k, 0.3)` over 100 rounds for
    deblurring and super-resolution (0.1 at the end for phase retrieval), as
    `times.from_sigma(process, jnp.append(jnp.maximum(10 * 0.9**k, 0.3), 0))`; then rounds after a burn-in of 40 are
    kept: `record` this sampler. `chains.conjugate` is their exact draw for linear operators, `chains.langevin(40)` the
    chain for the others. Differs: the reverse SDE is the ancestral chain on EDM's grid of `reverse_steps` from the
    coupling to `sigma_end`, then 0; the step of Langevin is relative, and its force the likelihood of whatever law the
    noise has.

    Args:
      prior: with an isotropic process. reverse_steps: static, at least 1.
      chain: one of `posterior.chains`, or your own.
      sigma_end: noise-to-signal; rho: of the grid, static.

    Raises ValueError for a count under 1, or a concrete sigma_y of 0 with a chain that divides by it; TypeError for a
    chain's name, and for `chains.conjugate` with an operator that is not linear, or noise that is not Gaussian.
    """
    process = prior.process

    def reverse(key: Key, z: Array, t: Time, coupling: Array) -> Array:
        x = process.sigma(t) / coupling * z
        grid = jnp.append(_levels(prior, x, t, reverse_steps - 1, sigma_end, rho), 0.0)

        def body(x: Array, now: tuple[Key, Array, Array]) -> tuple[Array, None]:
            k, t, s = now
            return process.transition(x, prior.denoise(x, t), t, s).sample(k), None

        keys = jax.random.split(key, reverse_steps)
        return jax.lax.scan(body, x, (keys, grid[:-1], grid[1:]))[0]

    return _split_gibbs(prior, measurement, "pnpdm", chain, reverse, reverse_steps)


def dpnp(
    prior: Prior,
    measurement: Measurement,
    reverse_steps: int = 100,
    chain: InnerChain = CONJUGATE,
    stochastic: bool = False,
    sigma_end: Array | float = 0.002,
    rho: float = 7.0,
) -> Sampler:
    r"""DPnP: a proximal consistency sampler and a denoising diffusion sampler in turns, at `eta_k = sigma / alpha`.

        z ~ exp(-|y - A z|^2 / (2 sigma_y^2) - |z - x|^2 / (2 eta_k^2))
        x ~ p(x) exp(-|x - z|^2 / (2 eta_k^2)):   with `eps(v, s) = (v - E[x_0 | v = x_0 + s e]) / s`, by one of two

        stochastic (DDS-DDPM), the reverse heat flow from v = z at s = eta_k down to 0, of which the last has no e':
            v <- v - 2 (s - s') eps(v, s) + sqrt(s^2 - s'^2) e'
        else (DDS-DDIM), the probability-flow ODE of that law of x itself, from u ~ N(0, I) at phi = pi / 2 down to 0:
            u <- u - (phi - phi') eps(z + eta_k cos(phi) u, eta_k sin(phi));      x = z + eta_k u

    The state is a clean x. At a constant eta both draws keep `p(x, z | y)`, whose x has the posterior of a measurement
    with noise `sigma_y^2 I + eta^2 A A^T`, the bias of the last eta.

    Noise: `chains.conjugate` is for Gaussian noise alone; the other chains take any law, by its likelihood, and step by
    its `sigma`.

    Against `pnpdm`: the same two draws. PnP-DM reverses the diffusion by ancestral steps, which hold the denoised mean;
    here each step holds the noise, and the ODE draws from the same law with no noise but its start. PnP-DM cools from
    10 to 0.3 in 100 rounds; DPnP starts near its end, 16 rounds from 0.4 to 0.16.

    Source: Xu & Chi 2024, arXiv:2403.17042, as their code has it ("ddim-pnp", "ddpm-pnp"): eta is 0.4 four times, then
    falls to 0.16 by equal ratios in twelve, as `times.from_sigma(process, jnp.asarray([0.4] * 4 + list(
    jnp.geomspace(0.4, 0.16, 12)) + [0.0]))`. The ODE is theirs, in the angle `tan(phi) = sigma / (eta_k alpha)` of its
    own diffusion, in which their exact integrals are plain differences. Differs: the levels are EDM's grid to
    `sigma_end`, of s or of phi, then 0, where theirs are those of the thousand of training that lie below eta, with
    more in between; their proximal sampler is 1000 steps of Langevin with the Gaussian integrated exactly, of which
    `chains.langevin` is near and `chains.conjugate` the exact draw; and they start from the result of LGD-MC or DPS,
    or from noise, where this starts from `x / alpha`, or from 0.

    Args:
      prior: with an isotropic process. reverse_steps: evaluations in each round, static, at least 1.
      chain: one of `posterior.chains`, or your own.
      stochastic: static.
      sigma_end: noise-to-signal; rho: of the grid, static.

    Raises ValueError for a count under 1, or a concrete sigma_y of 0 with a chain that divides by it; TypeError for a
    chain's name, a switch that is none, and for `chains.conjugate` with an operator that is not linear, or noise that
    is not Gaussian.
    """
    require_switch("stochastic", stochastic)
    process = prior.process

    def dds_ddpm(key: Key, z: Array, t: Time, coupling: Array) -> Array:
        grid = _levels(prior, z, t, reverse_steps - 1, sigma_end, rho)
        s = jnp.append(noise_to_signal(process, grid), 0.0)

        def body(v: Array, now: tuple[Key, Array, Array, Array]) -> tuple[Array, None]:
            k, t, s, s_next = now
            std = jnp.where(s_next > 0, jnp.sqrt(s**2 - s_next**2), 0.0)
            noise = std * jax.random.normal(k, v.shape, v.dtype)
            return v - 2 * (s - s_next) * _eps(prior, v, s, t) + noise, None

        keys = jax.random.split(key, reverse_steps)
        return jax.lax.scan(body, z, (keys, grid, s[:-1], s[1:]))[0]

    def dds_ddim(key: Key, z: Array, t: Time, coupling: Array) -> Array:
        right = jnp.asarray(jnp.pi / 2, z.dtype)
        low = jnp.arcsin(jnp.minimum(sigma_end / coupling, 1.0))
        angles = _spaced(right, low, reverse_steps - 1, rho, z.dtype)
        grid = from_sigma(process, coupling * jnp.sin(angles)).astype(z.dtype)
        phi = jnp.concatenate([right[None], angles, jnp.zeros_like(right)[None]])

        def body(u: Array, now: tuple[Array, Array, Array]) -> tuple[Array, None]:
            t, phi, phi_next = now
            v = z + coupling * jnp.cos(phi) * u
            return u - (phi - phi_next) * _eps(prior, v, coupling * jnp.sin(phi), t), None

        u = jax.random.normal(key, z.shape, z.dtype)
        times = jnp.append(jnp.asarray(t, z.dtype), grid)
        return z + coupling * jax.lax.scan(body, u, (times, phi[:-1], phi[1:]))[0]

    reverse = dds_ddpm if stochastic else dds_ddim
    return _split_gibbs(prior, measurement, "dpnp", chain, reverse, reverse_steps)
