"""Methods that alternate between a denoised guess and a chain around it, at falling noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from diffinv.guided import DEAD
from diffinv.linalg import inner, norm
from diffinv.measure import GaussianNoise, Measurement, require_linear
from diffinv.prior import Prior
from diffinv.sample import markov
from diffinv.samplers import euler
from diffinv.times import from_sigma
from diffinv.typing import Array, Cost, Key, Sampler, StepInfo, Time


def _ratio(prior: Prior, t: Time) -> Array:
    """Noise-to-signal `sigma_t / alpha_t`, at most 1000: where alpha(1) = 0 (Flow) it would be infinite."""
    return jnp.minimum(jnp.exp(-0.5 * prior.process.log_snr(t)), 1 / DEAD)


def _descend(prior: Prior, x: Array, t: Time, steps: int, sigma_end: Array | float, rho: float) -> Array:
    """Euler on the probability-flow ODE from `t` to noise-to-signal `sigma_end`, on EDM's grid; returns `x / alpha`.

    From a time that is already below `sigma_end` it goes nowhere.
    """
    process, start = prior.process, _ratio(prior, t)
    ramp = jnp.arange(1, steps + 1, dtype=x.dtype) / steps
    low = jnp.minimum(start, sigma_end) ** (1 / rho)
    sigmas = (start ** (1 / rho) + ramp * (low - start ** (1 / rho))) ** rho
    grid = jnp.concatenate([jnp.asarray(t, x.dtype)[None], from_sigma(process, sigmas).astype(x.dtype)])
    step = euler(prior).step

    def body(x: Array, now: tuple[Array, Array]) -> tuple[Array, None]:
        return step(jax.random.key(0), x, *now)[0], None

    return jax.lax.scan(body, x, (grid[:-1], grid[1:]))[0] / process.alpha(grid[-1])


def _decayed(r: Array, decay: Array | float, rho: float) -> Array:
    """`1 + p (decay - 1)`, p running from 0 at r = 100 to 1 at r = 0.1 as the index of the published grid does."""
    high, low = 100.0 ** (1 / rho), 0.1 ** (1 / rho)
    return 1 + jnp.clip((high - r ** (1 / rho)) / (high - low), 0.0, 1.0) * (decay - 1)


def _langevin(
    key: Key, measurement: Measurement, x0: Array, r: Array, tau: Array, force: float, steps: int, lr: Array | float
) -> Array:
    """`steps` of Langevin on `-force |y - A x|^2 / tau^2 - |x - x0|^2 / (2 r^2)`, started at x0."""
    eta = lr / (1 / r**2 + 2 * force / tau**2)

    def energy(x: Array) -> Array:
        residual = measurement.residual(x)
        return -force * inner(residual, residual) / tau**2 - 0.5 * inner(x - x0, x - x0) / r**2

    def step(x: Array, k: Key) -> tuple[Array, None]:
        noise = jax.random.normal(k, x.shape, x.dtype)
        return x + eta * jax.grad(energy)(x) + jnp.sqrt(2 * eta) * noise, None

    return jax.lax.scan(step, x0, jax.random.split(key, steps))[0]


def _conjugate(key: Key, measurement: Measurement, x0: Array, r: Array, tau: Array, force: float) -> Array:
    """An exact draw of the same law for a linear operator: perturb, then optimise."""
    A = measurement.operator
    prior_key, noise_key = jax.random.split(key)
    variance = tau**2 / (2 * force)
    z = x0 + r * jax.random.normal(prior_key, x0.shape, x0.dtype)
    clean = A(z)
    noise = jnp.asarray(jnp.sqrt(variance), clean.dtype) * GaussianNoise(1.0).sample(noise_key, jnp.zeros_like(clean))
    return z + A.adjoint(A.solve(measurement.y + A.project(noise) - clean, variance / r**2))


def daps(
    prior: Prior,
    measurement: Measurement,
    ode_steps: int = 5,
    mcmc_steps: int = 100,
    lr: Array | float = 0.1,
    tau: Array | float | None = None,
    force: str = "legacy",
    chain: str = "langevin",
    sigma_end: Array | float = 0.01,
    rho: float = 7.0,
    spread: Array | float = 1.0,
    decay: Array | float = 1.0,
) -> Sampler:
    r"""Decoupled annealing posterior sampling. At each time, with `r_t = spread sigma_t / alpha_t`:

        x0    = ODE(x_t, t -> sigma_end)                             probability-flow, `ode_steps` of Euler
        x0|y  ~ exp(-|y - A x|^2 / (2 tau^2) - |x - x0|^2 / (2 r_t^2))
        x_s   ~ p(x_s | x0|y)

    Source: Zhang et al. 2024, arXiv:2407.01521, algorithm 1 and eq. 7. `force` (static): "legacy" is the density above;
    "main", their repository's main branch, has twice the data force, `|y - A x|^2 / tau^2`. `chain` (static):
    "langevin" as published, or "conjugate", an exact draw in its place for linear operators with Gaussian noise.

    Differs: their step is tuned per task (1e-5 to 1e-4 at tau = 0.01); here it is `lr` relative to the harmonic mean of
    both variances, `eta = lr / (1/r^2 + 1/tau^2)`, so that it is stable below `lr = 2` for operators of norm 1 at every
    r. Unadjusted, it widens variances by up to `1 / (1 - lr / 2)`; and coordinates that the measurement does not see
    take only about `2 mcmc_steps eta` of their variance r^2, as in the original.

    Biased: `N(x0, r^2 I)` about the ODE's end is wider than `p(x_0 | x_t)`. Under "conjugate" and a fine grid,
    coordinates that the measurement does not see end at about twice the prior's variance. On pictures that is visible
    noise, which a smaller `spread` removes.

    Args:
      prior: with an isotropic process; one sample of shape (*shape).
      measurement: any differentiable operator; y - A x is weighed by `tau`.
      ode_steps, mcmc_steps: static. lr: dimensionless.
      tau: units of y, above 0 for "langevin"; None takes the noise's own sigma (published: 0.01 at sigma_y = 0.05).
      sigma_end: where the inner ODE stops, in noise-to-signal. rho: of its grid; static.
      spread: of the inner law, relative to the noise; published: 1. Dimensionless.
      decay: what `lr` has fallen to at `sigma / alpha = 0.1`, linearly over the published grid (which starts at 100);
        published: 0.01.

    Raises ValueError for another force or chain or a concrete tau of 0, TypeError for "conjugate" with an operator that
    is not linear.
    """
    forces, chains = {"legacy": 0.5, "main": 1.0}, ("langevin", "conjugate")
    if force not in forces:
        raise ValueError(f"force is {force!r}; choose one of {', '.join(forces)}")
    if chain not in chains:
        raise ValueError(f"chain is {chain!r}; choose one of {', '.join(chains)}")
    if chain == "conjugate":
        require_linear(measurement, 'daps with chain="conjugate"')
    process, weight = prior.process, forces[force]
    tau = measurement.sigma if tau is None else tau
    if chain == "langevin" and isinstance(tau, float | int) and tau <= 0:
        raise ValueError(f"tau is {tau}; Langevin needs one above 0: give one, or use 'conjugate'")
    tau = jnp.asarray(tau)

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        chain_key, noise_key = jax.random.split(key)
        x0 = _descend(prior, x, t, ode_steps, sigma_end, rho)
        r = spread * _ratio(prior, t)
        if chain == "conjugate":
            x0 = _conjugate(chain_key, measurement, x0, r, tau, weight)
        else:
            rate = lr * _decayed(_ratio(prior, t), decay, rho)
            x0 = _langevin(chain_key, measurement, x0, r, tau, weight, mcmc_steps, rate)
        cost = Cost(prior.cost.nfe * ode_steps, prior.cost.vjps * ode_steps).times(1)
        return process.perturb(x0, s).sample(noise_key), StepInfo(cost, norm(measurement.residual(x0)))

    return markov(prior, step)
