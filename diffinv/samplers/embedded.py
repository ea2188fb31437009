"""The probability-flow ODE by an embedded Runge-Kutta pair, whose step follows a tolerance; needs diffrax."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from diffinv.loop import markov
from diffinv.prior import Prior
from diffinv.process import require_isotropic
from diffinv.times import from_sigma
from diffinv.typing import Array, Key, Sampler, StepInfo, Time


def _diffrax() -> Any:
    try:
        import diffrax
    except ImportError as error:
        raise ImportError('samplers.adaptive steps with diffrax; pip install "diffinv[ode]"') from error
    return diffrax


def adaptive(
    prior: Prior, rtol: float = 1e-3, atol: float = 1e-3, sigma_end: float = 0.002, most: int = 1000
) -> Sampler:
    """Tsitouras's method of order 5(4) on the probability-flow ODE, with as many steps as the tolerance asks for.

    Between two times of the grid it chooses its own, so that the grid `[1, 0]` is one solve. From the time at which the
    noise-to-signal ratio is `sigma_end` on, one step of Euler's method goes to time 0, where the velocity may be
    infinite. A solve that needs more than `most` steps gives NaN, which solvers report.

    Source: Song et al. 2021, arXiv:2011.13456, section 4.3 and appendix D.4 (black-box ODE solvers; theirs is RK45);
    Tsitouras 2011.

    Args:
      prior: of an isotropic process.
      rtol: the tolerance of a step relative to x, dimensionless.
      atol: the absolute tolerance of a step, in units of the data.
      sigma_end: where Euler's step begins, in units of the data.
      most: steps between two times of the grid; static.

    Raises ImportError without diffrax and ValueError for a process that is not isotropic.
    """
    ode, process = _diffrax(), prior.process
    require_isotropic(process, "adaptive", "heun")

    def velocity(t: Array, x: Array, _: None) -> Array:
        return process.velocity(x, prior.denoise(x, t), t)

    def solve(x: Array, t: Array, s: Array) -> tuple[Array, Array]:
        controller = ode.PIDController(rtol=rtol, atol=atol)
        found = ode.diffeqsolve(
            ode.ODETerm(velocity),
            ode.Tsit5(),
            t,
            s,
            None,
            x,
            stepsize_controller=controller,
            max_steps=most,
            throw=False,
        )
        done = found.result == ode.RESULTS.successful
        return jnp.where(done, found.ys[0], jnp.nan), found.stats["num_steps"]

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        t = jnp.asarray(t, x.dtype)
        end = from_sigma(process, jnp.asarray(sigma_end, x.dtype)).astype(x.dtype)
        until = jnp.where(jnp.asarray(s) > 0, jnp.asarray(s, x.dtype), jnp.minimum(end, t))
        x, count = solve(x, t, until)
        x_s = process.transition(x, prior.denoise(x, until), until, s, eta=0.0).mean
        return jnp.where(until == s, x, x_s), StepInfo(prior.cost.times(6 * count + 2))

    return markov(prior, step)
