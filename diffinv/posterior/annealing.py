"""Methods that alternate between a denoised guess and a chain around it, at falling noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.checks import concrete, require_choice, require_count, require_fit, require_gaussian, require_noise
from diffinv.linalg import inner, norm
from diffinv.loop import markov
from diffinv.measurement import GaussianNoise, Measurement, require_linear
from diffinv.prior import Prior
from diffinv.process import DEAD
from diffinv.samplers import euler
from diffinv.times import from_sigma
from diffinv.typing import Array, Key, Sampler, Time


def _ratio(prior: Prior, t: Time) -> Array:
    """Noise-to-signal `sigma_t / alpha_t`, at most 1000: where alpha(1) = 0 (Flow) it would be infinite."""
    return jnp.minimum(jnp.exp(-0.5 * prior.process.log_snr(t)), 1 / DEAD)


def _levels(prior: Prior, x: Array, t: Time, steps: int, sigma_end: Array | float, rho: float) -> Array:
    """EDM's grid of `steps + 1` times from `t` to noise-to-signal `sigma_end`, or staying where it is below that."""
    start = _ratio(prior, t)
    ramp = jnp.arange(1, steps + 1, dtype=x.dtype) / steps
    low = jnp.minimum(start, sigma_end) ** (1 / rho)
    sigmas = (start ** (1 / rho) + ramp * (low - start ** (1 / rho))) ** rho
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


def _decayed(r: Array, decay: Array | float, rho: float) -> Array:
    """`1 + p (decay - 1)`, p running from 0 at r = 100 to 1 at r = 0.1 as the index of the published grid does."""
    high, low = 100.0 ** (1 / rho), 0.1 ** (1 / rho)
    return 1 + jnp.clip((high - r ** (1 / rho)) / (high - low), 0.0, 1.0) * (decay - 1)


def _target(
    measurement: Measurement, x0: Array, r: Array, tau: Array, force: float, lr: Array | float
) -> tuple[Callable[[Array], Array], Array]:
    """`-force |y - A x|^2 / tau^2 - |x - x0|^2 / (2 r^2)`, and the step size `lr` relative to both variances.

    Under another law than Gaussian noise its own likelihood, times `2 force`, stands for the first term.
    """

    def energy(x: Array) -> Array:
        if isinstance(measurement.noise, GaussianNoise):
            residual = measurement.residual(x)
            data = -force * inner(residual, residual) / tau**2
        else:
            data = 2 * force * measurement.log_likelihood(x)
        return data - 0.5 * inner(x - x0, x - x0) / r**2

    return energy, lr / (1 / r**2 + 2 * force / tau**2)


def _langevin(
    key: Key, measurement: Measurement, x0: Array, r: Array, tau: Array, force: float, steps: int, lr: Array | float
) -> Array:
    """`steps` of Langevin on `_target`'s density, started at x0."""
    energy, eta = _target(measurement, x0, r, tau, force, lr)

    def step(x: Array, k: Key) -> tuple[Array, None]:
        noise = jax.random.normal(k, x.shape, x.dtype)
        return x + eta * jax.grad(energy)(x) + jnp.sqrt(2 * eta) * noise, None

    return jax.lax.scan(step, x0, jax.random.split(key, steps))[0]


def _hmc(
    key: Key,
    measurement: Measurement,
    x0: Array,
    r: Array,
    tau: Array,
    force: float,
    steps: int,
    lr: Array | float,
    momentum: Array | float,
) -> Array:
    """`v <- momentum v + sqrt(eta) grad + sqrt(2 (1 - momentum)) e; x <- x + sqrt(eta) v`, from x0 and v ~ N(0, I)."""
    energy, eta = _target(measurement, x0, r, tau, force, lr)
    start_key, key = jax.random.split(key)

    def step(carry: tuple[Array, Array], k: Key) -> tuple[tuple[Array, Array], None]:
        x, v = carry
        noise = jax.random.normal(k, x.shape, x.dtype)
        v = momentum * v + jnp.sqrt(eta) * jax.grad(energy)(x) + jnp.sqrt(2 * (1 - momentum)) * noise
        return (x + jnp.sqrt(eta) * v, v), None

    start = (x0, jax.random.normal(start_key, x0.shape, x0.dtype))
    return jax.lax.scan(step, start, jax.random.split(key, steps))[0][0]


def _metropolis(
    key: Key, measurement: Measurement, x0: Array, r: Array, tau: Array, force: float, steps: int, lr: Array | float
) -> Array:
    """A random walk of deviation `sqrt(eta)`, each move accepted with probability `min(1, p(x') / p(x))`."""
    energy, eta = _target(measurement, x0, r, tau, force, lr)

    def step(x: Array, k: Key) -> tuple[Array, None]:
        walk_key, accept_key = jax.random.split(k)
        proposal = x + jnp.sqrt(eta) * jax.random.normal(walk_key, x.shape, x.dtype)
        gain = energy(proposal) - energy(x)
        accept = jnp.log(jax.random.uniform(accept_key, (), x.dtype)) < gain
        return jnp.where(jnp.isnan(gain), jnp.nan, jnp.where(accept, proposal, x)), None

    return jax.lax.scan(step, x0, jax.random.split(key, steps))[0]


def _conjugate(key: Key, measurement: Measurement, x0: Array, r: Array, tau: Array, force: float) -> Array:
    """An exact draw of the same law for a linear operator: perturb, then optimise.

    A damping under the rounding of 1 would blow up what rounding left outside the range of A, and is raised to it.
    """
    A = require_linear(measurement, 'chain="conjugate"')
    prior_key, noise_key = jax.random.split(key)
    variance = tau**2 / (2 * force)
    z = x0 + r * jax.random.normal(prior_key, x0.shape, x0.dtype)
    clean = A(z)
    noise = jnp.asarray(jnp.sqrt(variance), clean.dtype) * GaussianNoise(1.0).sample(noise_key, jnp.zeros_like(clean))
    damping = jnp.where(variance > 0, jnp.maximum(variance / r**2, float(jnp.finfo(x0.dtype).eps)), variance)
    return z + A.adjoint(A.solve(measurement.y + A.project(noise) - clean, damping))


def _chain_calls(chain: str, steps: int) -> int:
    """Operator calls of one chain: four of `_conjugate`, else two a step (`A` and its pullback, or two energies)."""
    return 4 if chain == "conjugate" else 2 * steps


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
    momentum: Array | float = 0.45,
) -> Sampler:
    r"""Decoupled annealing posterior sampling. At each time, with `r_t = spread sigma_t / alpha_t`:

        x0    = ODE(x_t, t -> sigma_end)                             probability-flow, `ode_steps` of Euler
        x0|y  ~ exp(-|y - A x|^2 / (2 tau^2) - |x - x0|^2 / (2 r_t^2))
        x_s   ~ p(x_s | x0|y)

    Noise: any law, by its likelihood, which with `sigma` or `tau` sets the step; "conjugate" is for Gaussian noise
    alone.

    Source: Zhang et al. 2024, arXiv:2407.01521, algorithm 1 and eq. 7. `force` (static): "legacy" is the density above;
    "main", their repository's main branch, has twice the data force, `|y - A x|^2 / tau^2`. `chain` (static):
    "langevin" as published; "hmc", their code's underdamped chain from a velocity of N(0, I) (lr and momentum tuned per
    task there, momentum from 0.003 to 0.9; 0 is Langevin); "metropolis", a random
    walk with an accept step: no gradient, an exact law at any lr, and the density above under either force, as there;
    or "conjugate", an exact draw in its place for linear operators with Gaussian noise.

    Differs: their step is tuned per task (1e-5 to 1e-4 at tau = 0.01); here it is `lr` relative to the harmonic mean of
    both variances, `eta = lr / (1/r^2 + 1/tau^2)`, so that it is stable below `lr = 2` for operators of norm 1 at every
    r. Unadjusted, it widens variances by up to `1 / (1 - lr / 2)`; and coordinates that the measurement does not see
    take only about `2 mcmc_steps eta` of their variance r^2, as in the original.

    Biased: `N(x0, r^2 I)` about the ODE's end is wider than `p(x_0 | x_t)`. Under "conjugate" and a fine grid,
    coordinates that the measurement does not see end at about twice the prior's variance. On pictures that is visible
    noise, which a smaller `spread` removes.

    Args:
      prior: with an isotropic process; one sample of shape (*shape).
      measurement: any differentiable operator; y - A x is weighed by `tau` under Gaussian noise. Under another law its
        own likelihood is the force (twice that under "main"), and `tau` sets the length of a step alone; "conjugate"
        refuses it.
      ode_steps, mcmc_steps: static. lr: dimensionless.
      tau: units of y, above 0 for "langevin"; None takes the noise's own sigma (published: 0.01 at sigma_y = 0.05).
      sigma_end: where the inner ODE stops, in noise-to-signal. rho: of its grid; static.
      spread: of the inner law, relative to the noise; published: 1. Dimensionless.
      decay: what `lr` has fallen to at `sigma / alpha = 0.1`, linearly over the published grid (which starts at 100);
        published: 0.01.
      momentum: of "hmc"; dimensionless, in [0, 1).

    Raises ValueError for another force or chain, a concrete tau of 0 (a traced one gives NaN) or a y that does not fit,
    TypeError for "conjugate" with an operator that is not linear, or noise that is not Gaussian.
    """
    measurement = require_fit(prior, measurement, "daps", isotropic=True)
    forces, chains = {"legacy": 0.5, "main": 1.0}, ("langevin", "hmc", "metropolis", "conjugate")
    if force not in forces:
        raise ValueError(f"force is {force!r}; choose one of {', '.join(forces)}")
    if chain not in chains:
        raise ValueError(f"chain is {chain!r}; choose one of {', '.join(chains)}")
    if chain == "conjugate":
        require_linear(measurement, 'daps with chain="conjugate"')
        require_gaussian(measurement, 'daps with chain="conjugate"', 'chain="langevin"')
    names = {"langevin": "Langevin", "hmc": "HMC", "metropolis": "Metropolis", "conjugate": "an exact draw"}
    hmc = partial(_hmc, momentum=momentum)
    walks: dict[str, Callable[..., Array]] = {"langevin": _langevin, "hmc": hmc, "metropolis": _metropolis}
    process, weight = prior.process, 0.5 if chain == "metropolis" else forces[force]
    tau = measurement.sigma if tau is None else tau
    least = 0.0 if chain == "conjugate" else float(jnp.finfo(measurement.y.dtype).tiny)
    if concrete(tau) and not np.all(np.asarray(tau) >= least):
        raise ValueError(f"tau is {tau}; {names[chain]} needs one above 0: give one, or use 'conjugate' with 0")
    tau = jnp.asarray(tau)
    tau = jnp.where(tau >= least, tau, jnp.nan)

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        chain_key, noise_key = jax.random.split(key)
        x0 = _descend(prior, x, t, ode_steps, sigma_end, rho)
        r = spread * _ratio(prior, t)
        if chain == "conjugate":
            x0 = _conjugate(chain_key, measurement, x0, r, tau, weight)
        else:
            rate = lr * _decayed(_ratio(prior, t), decay, rho)
            x0 = walks[chain](chain_key, measurement, x0, r, tau, weight, mcmc_steps, rate)
        return process.perturb(x0, s).sample(noise_key), norm(measurement.residual(x0))

    cost = prior.cost.times(ode_steps).plus(calls=_chain_calls(chain, mcmc_steps) + 1)
    return markov(prior, step, cost=cost)


def pnpdm(
    prior: Prior,
    measurement: Measurement,
    reverse_steps: int = 100,
    chain: str = "conjugate",
    mcmc_steps: int = 40,
    lr: Array | float = 0.1,
    sigma_end: Array | float = 0.002,
    rho: float = 7.0,
) -> Sampler:
    r"""PnP-DM: split Gibbs sampling at a coupling that falls with the grid, `rho_k = sigma / alpha`.

        z ~ exp(-|y - A z|^2 / (2 sigma_y^2) - |z - x|^2 / (2 rho_k^2))
        x ~ p(x) exp(-|x - z|^2 / (2 rho_k^2)):   the reverse SDE from x_t = alpha_t z down to 0

    The state is a clean x. At a constant coupling both draws keep `p(x, z | y)`, whose x has the posterior of a
    measurement with noise `sigma_y^2 I + rho_k^2 A A^T`.

    Noise: "conjugate" is for Gaussian noise alone; "langevin" takes any law, by its likelihood, and steps by its
    `sigma`.

    Source: Wu et al. 2024, arXiv:2405.18782, algorithm 1. Published couplings: `max(10 0.9^k, 0.3)` over 100 rounds for
    deblurring and super-resolution (0.1 at the end for phase retrieval), as
    `times.from_sigma(process, jnp.append(jnp.maximum(10 * 0.9**k, 0.3), 0))`; then rounds after a burn-in of 40 are
    kept: `record` this sampler. `chain` (static): "conjugate" is their exact draw for linear operators, "langevin" that
    for the others (40 steps). Differs: the reverse SDE is the ancestral chain on EDM's grid of `reverse_steps`
    from the coupling to `sigma_end`, then 0; the step of Langevin is relative, as in `daps`, and its force the
    likelihood of whatever law the noise has ("conjugate" refuses all but Gaussian noise).

    Args:
      prior: with an isotropic process. reverse_steps, mcmc_steps: static, at least 1. lr: dimensionless.
      sigma_end: noise-to-signal; rho: of the grid, static.

    Raises ValueError for another chain, a count under 1, a concrete sigma_y of 0 with "langevin"; TypeError for
    "conjugate" with an operator that is not linear, or noise that is not Gaussian.
    """
    measurement = require_fit(prior, measurement, "pnpdm", isotropic=True)
    require_choice("chain", chain, ("conjugate", "langevin"))
    require_count("reverse_steps", reverse_steps)
    require_count("mcmc_steps", mcmc_steps)
    if chain == "conjugate":
        require_linear(measurement, 'pnpdm with chain="conjugate"')
        require_gaussian(measurement, 'pnpdm with chain="conjugate"', 'chain="langevin"')
    else:
        measurement = require_noise(measurement, "pnpdm with chain='langevin'", "chain='conjugate'")
    process, tau = prior.process, jnp.asarray(measurement.sigma)

    def init(key: Key, t: Time, x: Array | None) -> Array:
        start = prior.start(key, t)
        return jnp.zeros_like(start) if x is None else x / jnp.maximum(process.alpha(t), DEAD)

    def reverse(key: Key, x: Array, t: Time) -> Array:
        grid = jnp.append(_levels(prior, x, t, reverse_steps - 1, sigma_end, rho), 0.0)

        def body(x: Array, now: tuple[Key, Array, Array]) -> tuple[Array, None]:
            k, t, s = now
            return process.transition(x, prior.denoise(x, t), t, s).sample(k), None

        keys = jax.random.split(key, reverse_steps)
        return jax.lax.scan(body, x, (keys, grid[:-1], grid[1:]))[0]

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        chain_key, reverse_key = jax.random.split(key)
        coupling = _ratio(prior, t)
        if chain == "conjugate":
            z = _conjugate(chain_key, measurement, x, coupling, tau, 0.5)
        else:
            z = _langevin(chain_key, measurement, x, coupling, tau, 0.5, mcmc_steps, lr)
        x = reverse(reverse_key, process.sigma(t) / coupling * z, t)
        return x, norm(measurement.residual(x))

    cost = prior.cost.times(reverse_steps).plus(calls=_chain_calls(chain, mcmc_steps) + 1)
    return markov(prior, step, init, cost=cost)
