"""Wrappers `Solver -> Solver`: they need a finished reconstruction, and know nothing of how it was made."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffinv.checks import require_count
from diffinv.describe import described
from diffinv.linalg import norm
from diffinv.loop import failed_step, tallied, total_cost
from diffinv.measurement import Measurement
from diffinv.prior import Prior
from diffinv.samplers import heun, invert
from diffinv.times import ascending
from diffinv.typing import Array, Cost, Info, Key, Sampler, Solution, Solver


@described
class ReguidanceInfo(NamedTuple):
    """What ReGuidance tells.

    Attributes:
      candidate: what was proposed.
      latent: the candidate's noise, from which the refinement starts.
      proposal: the proposing solver's own info.
      refinement: the refining solver's own info.
      cost: of the inversion between them.
    """

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

    >>> import jax, jax.numpy as jnp, diffinv as di
    >>> from diffinv import operators, posterior, samplers, times
    >>> prior, grid = di.gaussian(di.process.VP(), jnp.zeros(2), jnp.eye(2)), times.grid(32, power=2.0)
    >>> measurement = di.measure(jax.random.key(0), operators.identity((2,)), jnp.ones(2), sigma=0.1)
    >>> propose = di.as_solver(lambda m: posterior.ddrm(prior, m), grid)
    >>> refine = di.as_solver(lambda m: samplers.heun(posterior.dps_score(prior, m, rho=1.0)), grid)
    >>> posterior.reguidance(propose, refine, prior, grid)(jax.random.key(1), measurement).x.shape
    (2,)
    """
    inversion = ascending(times) if inversion is None else inversion

    def solver(key: Key, measurement: Measurement, x: Array | None = None) -> Solution:
        propose_key, refine_key = jax.random.split(key)
        proposal = propose(propose_key, measurement, x)
        latent = invert(prior, proposal.x, inversion, integrator)
        refinement = refine(refine_key, measurement, latent)
        evaluations = (len(inversion) - 1) * (2 if integrator is heun else 1)
        info = ReguidanceInfo(proposal.x, latent, proposal.info, refinement.info, prior.cost.times(evaluations))
        return Solution(refinement.x, tallied(info))

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

    Noise: least squares, whatever the law.

    Source: DAPS's phase retrieval takes the best of 4 runs (Zhang et al. 2024, arXiv:2407.01521, section 4.2).
    Differs: chosen by the residual, which needs no truth. Raises ValueError for draws under 1.
    """
    require_count("draws", draws)

    def best(key: Key, measurement: Measurement, x: Array | None = None) -> Solution:
        solutions = jax.vmap(lambda k: solver(k, measurement, x))(jax.random.split(key, draws))
        residuals = jax.vmap(lambda x: norm(measurement.residual(x)))(solutions.x)
        finite = jax.vmap(lambda x: jnp.all(jnp.isfinite(x)))(solutions.x)
        residuals = jnp.where(finite & jnp.isfinite(residuals), residuals, jnp.inf)
        return Solution(solutions.x[jnp.argmin(residuals)], solutions.info)

    return best


def restarts(solver: Solver, refine: Solver, prior: Prior, t: Array | float, rounds: int = 4) -> Solver:
    """`rounds` times: noises the last sample to time `t`, where `refine`'s grid starts, and refines from there.

    Source: Xu et al. 2023, arXiv:2306.14878, algorithm 1 with t_min = 0: the contraction by fresh noise takes out what
    a sampler got wrong, which deterministic steps would keep. `warm_start` is one round. `t` is dimensionless; `rounds`
    is static. The info is that of `solver` and, stacked, those of the rounds. Raises ValueError for rounds under 1.
    """
    require_count("rounds", rounds)

    def restarted(key: Key, measurement: Measurement, x: Array | None = None) -> Solution:
        first_key, rounds_key = jax.random.split(key)
        first = solver(first_key, measurement, x)

        def again(x: Array, k: Key) -> tuple[Array, Info]:
            noise_key, refine_key = jax.random.split(k)
            solution = refine(refine_key, measurement, prior.process.perturb(x, t).sample(noise_key))
            return solution.x, solution.info

        last, infos = jax.lax.scan(again, first.x, jax.random.split(rounds_key, rounds))
        return Solution(last, (first.info, infos))

    return restarted


@described
class Account(NamedTuple):
    """What every solver owes to tell, whatever its own info is.

    Attributes:
      cost: the denoiser's evaluations and pullbacks and the operator's calls, over steps, stages, draws and particles.
        A count beyond 2^31 wraps.
      residual: `|y - A x|` of the sample.
      finite: whether all of the sample is.
      failed_step: the first step at which a guarded solver was frozen, within its stage; -1 where none was.
      diverged: True where the sample is not finite, was frozen, or fits the measurement `limit` times worse than 0,
        where 0 does not fit it exactly (y = 0: nothing to compare with).
      info: the solver's own.
    """

    cost: Cost
    residual: Array
    finite: Array
    failed_step: Array
    diverged: Array
    info: Info


def account(solver: Solver, limit: float = 100.0) -> Solver:
    """The solver with an `Account` as its info: flags per sample under `vmap`, whose sum counts the failures.

    `limit` is dimensionless: a guidance weight that diverges leaves residuals many times `|y - A 0|`. Original.
    """

    def accounted(key: Key, measurement: Measurement, x: Array | None = None) -> Solution:
        solution = solver(key, measurement, x)
        residual, frozen = norm(measurement.residual(solution.x)), failed_step(solution.info)
        finite = jnp.all(jnp.isfinite(solution.x))
        nothing = norm(measurement.residual(jnp.zeros_like(solution.x)))
        sound = finite & (frozen < 0) & jnp.where(nothing > 0, residual <= limit * nothing, jnp.isfinite(residual))
        return Solution(solution.x, Account(total_cost(solution.info), residual, finite, frozen, ~sound, solution.info))

    return accounted
