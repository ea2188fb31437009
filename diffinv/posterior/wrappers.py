"""Wrappers `Solver -> Solver`: they need a finished reconstruction, and know nothing of how it was made."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffinv.linalg import norm
from diffinv.measure import Measurement
from diffinv.prior import Prior
from diffinv.samplers import heun, invert
from diffinv.times import ascending
from diffinv.typing import Array, Cost, Info, Key, Sampler, Solution, Solver


class ReguidanceInfo(NamedTuple):
    """The candidate and its latent, the infos of both solvers, and the `cost` of the inversion between them."""

    candidate: Array
    latent: Array
    proposal: Info
    refinement: Info
    cost: Cost


def reguidance(
    propose: Solver,
    refine: Solver,
    prior: Prior,
    times: Array,
    inversion: Array | None = None,
    integrator: Callable[[Prior], Sampler] = heun,
) -> Solver:
    r"""ReGuidance: invert a candidate by the unconditional probability-flow ODE, refine from that latent.

        x_hat = propose(y)
        z     = PF-ODE(x_hat; 0 -> T)          the prior alone
        x     = refine(y, from z; T -> 0)      the DPS-ODE: `heun(dps_score(prior, measurement, rho))`

    Source: Karan, Shah, Chen 2025, arXiv:2506.10955, abstract (its algorithm box, step counts and rho were not
    available to us). Hence every knob is an argument: the horizon T is where `times` starts, the inversion's grid is
    its own, rho and the reward's convention are those of `dps_score`, and any solver may propose or refine.

    It maps a candidate deterministically and is no posterior sampler. With rho = 0 it returns its candidate, up to the
    integrator's order and the inversion's first time.

    Args:
      propose: any solver; its sample is the candidate.
      refine: a solver whose grid starts at `times[0]`; it is started at the latent.
      prior: unconditional, the one that is inverted.
      times: decreasing; usually the refinement's own grid.
      inversion: increasing, from a small positive time to `times[0]`; default `times.ascending(times)`.
      integrator: `heun` or `euler`; static.
    """
    inversion = ascending(times) if inversion is None else inversion

    def solver(key: Key, measurement: Measurement, x: Array | None = None) -> Solution:
        propose_key, refine_key = jax.random.split(key)
        proposal = propose(propose_key, measurement, x)
        latent = invert(prior, proposal.x, inversion, integrator)
        refinement = refine(refine_key, measurement, latent)
        calls = (len(inversion) - 1) * (2 if integrator is heun else 1)
        info = ReguidanceInfo(proposal.x, latent, proposal.info, refinement.info, prior.cost.times(calls))
        return Solution(refinement.x, info)

    return solver


def warm_start(propose: Solver, refine: Solver, prior: Prior, t: Array | float) -> Solver:
    """Noises the proposal to time `t`, where `refine`'s grid starts, and refines from there.

    Source: Meng et al. 2022, arXiv:2108.01073 (SDEdit), algorithm 1. `t` is dimensionless; 1 forgets the proposal.
    """

    def solver(key: Key, measurement: Measurement, x: Array | None = None) -> Solution:
        propose_key, noise_key, refine_key = jax.random.split(key, 3)
        proposal = propose(propose_key, measurement, x)
        refinement = refine(refine_key, measurement, prior.process.perturb(proposal.x, t).sample(noise_key))
        return Solution(refinement.x, (proposal.info, refinement.info))

    return solver


def best_of(solver: Solver, draws: int) -> Solver:
    """Of `draws` (static) runs, the finite one with the smallest residual `|y - A x|`; info is stacked over the draws.

    Source: DAPS's phase retrieval takes the best of 4 runs (Zhang et al. 2024, arXiv:2407.01521, section 4.2).
    Differs: chosen by the residual, which needs no truth.
    """

    def best(key: Key, measurement: Measurement, x: Array | None = None) -> Solution:
        solutions = jax.vmap(lambda k: solver(k, measurement, x))(jax.random.split(key, draws))
        residuals = jax.vmap(lambda x: norm(measurement.residual(x)))(solutions.x)
        finite = jax.vmap(lambda x: jnp.all(jnp.isfinite(x)))(solutions.x)
        residuals = jnp.where(finite & jnp.isfinite(residuals), residuals, jnp.inf)
        return Solution(solutions.x[jnp.argmin(residuals)], solutions.info)

    return best
