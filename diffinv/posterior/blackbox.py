r"""Guidance by operators that have no derivative: what they give of many guesses stands in for it.

The denoiser is differentiated where the formula has J, its Jacobian; the operator never is, so that it may be any
program, as `jax.pure_callback` around a simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffinv.checks import require_count, require_fit, require_switch
from diffinv.describe import described
from diffinv.linalg import inner, norm
from diffinv.loop import markov
from diffinv.measurement import Measurement
from diffinv.prior import Prior
from diffinv.typing import Array, Cost, Key, Sampler, StepInfo, Time


def _draws(key: Key, x: Array, draws: int) -> Array:
    return jax.random.normal(key, (draws, *x.shape), x.dtype)


def _weighted(weights: Array, draws: Array) -> Array:
    """`mean_k weights_k draws_k`."""
    return jnp.einsum("k,k...->...", weights, draws, precision="highest") / len(weights)


def smoothed_gradient(
    key: Key, f: Callable[[Array], Array], x: Array, base: Array, draws: int, mu: Array | float, central: bool
) -> Array:
    r"""An unbiased estimate of the gradient of `E f(x + mu u)`, u standard normal, from values of f alone:

        central:  mean_k (f(x + mu u_k) - f(x - mu u_k)) / (2 mu) u_k
        forward:  mean_k (f(x + mu u_k) - f(x)) / mu u_k

    Of a quadratic f both have the mean grad f(x), and the central one the covariance `(|g|^2 I + g g^T) / draws`.

    Source: Nesterov & Spokoiny 2017, doi:10.1007/s10208-015-9296-2, eq. 21 and 26.

    Args:
      f: of one sample (*shape), to (). x: (*shape). base: f(x), which the forward one takes.
      draws, central: static. mu: above 0, in the units of x.
    """
    u = _draws(key, x, draws)
    ahead = jax.vmap(lambda u: f(x + mu * u))(u)
    behind = jax.vmap(lambda u: f(x - mu * u))(u) if central else base
    return _weighted((ahead - behind) / (2 * mu if central else mu), u)


def dps_gsg(
    prior: Prior,
    measurement: Measurement,
    zeta: Array | float = 1.0,
    draws: int = 64,
    mu: Array | float = 0.01,
    central: bool = True,
    eta: Array | float = 1.0,
) -> Sampler:
    r"""DPS with a Gaussian-smoothed gradient of the residual, central or forward:

        x0  = denoise(x_t, t),   x' ~ q(x_s | x_t, x0)
        g   = smoothed_gradient of |y - A x0|^2 at x0
        x_s = x' - zeta J^T g / (2 |y - A x0|)

    Noise: least squares, whatever the law. The operator is never differentiated.

    Source: Zheng et al. 2024, arXiv:2409.20175, appendix (DPS-fGSG, DPS-cGSG), as in InverseBench: 1024 draws of both
    signs, mu 0.01, zeta 0.1 at 1000 of EDM's levels.

    Biased as `dps` is, which it tends to as draws grow; of few draws the gradient has a random error of about
    `sqrt(d / draws)` of its length, in d dimensions.

    Args:
      measurement: with any operator.
      zeta: as of `dps`, in the units of the data.
      draws: u's a step, static, at least 1; central ones (static) ask the operator twice each.
      mu: width of the smoothing, above 0, in the units of the data.

    Raises ValueError for draws under 1, or a y that does not fit; TypeError for a switch that is none.
    """
    measurement = require_fit(prior, measurement, "dps_gsg")
    require_count("draws", draws)
    require_switch("central", central)

    def square(x0: Array) -> Array:
        r = measurement.residual(x0)
        return inner(r, r)

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        step_key, guess_key = jax.random.split(key)
        x0, pullback = jax.vjp(lambda x: prior.denoise(x, t), x)
        base = square(x0)
        distance = jnp.sqrt(base)
        (g,) = pullback(smoothed_gradient(guess_key, square, x0, base, draws, mu, central))
        slope = g * jnp.where(base > 0, 0.5 / jnp.where(base > 0, distance, 1.0), 0.0)
        return prior.process.transition(x, x0, t, s, eta).sample(step_key) - zeta * slope, distance

    return markov(prior, step, cost=prior.cost.plus(vjps=1, calls=(1 + central) * draws + 1))


@described
class PolicyState(NamedTuple):
    """The state of `dpg`.

    Attributes:
      x: x_t.
      level: the running mean of the squared residual; 0 before the first step.
      gradient: of the step before.
    """

    x: Array
    level: Array
    gradient: Array


def policy_gradient(e: Array, losses: Array, base: Array, level: Array) -> Array:
    r"""The gradient of the expected reward by a guess x0, from rewards of guesses `x0 + r e_k` alone, times r:

        R_k = exp(-(losses_k - base) / level),   mean_k (R_k - mean_{j != k} R_j) e_k

    Source: Tang et al. 2024, arXiv:2403.10585, eq. 15 and 17 (the leave-one-out baseline).

    Args: e: (n, *shape), n at least 2; losses: (n,); base, level: ().
    """
    rewards = jnp.exp(-(losses - base) / level)
    others = (jnp.sum(rewards) - rewards) / (len(rewards) - 1)
    return _weighted(rewards - others, e)


def dpg(
    prior: Prior,
    measurement: Measurement,
    scale: Array | float = 1.0,
    draws: int = 64,
    momentum: Array | float = 0.1,
    decay: Array | float = 0.9,
    eta: Array | float = 1.0,
) -> Sampler:
    r"""Diffusion policy gradient: an ancestral step, and one of known length along the gradient of a reward's mean.

        x0  = denoise(x_t, t),   Z = decay Z + (1 - decay) |y - A x0|^2,   r = sqrt(Z / d) / 2
        g   = J^T policy_gradient(x0 + r e_k, exp(-|y - A (x0 + r e_k)|^2 / Z)) / r
        v   = (1 - momentum s) g + momentum s g_before
        x_s = x' + scale sigma_{t|s}^2 v / |v|,            x' ~ q(x_s | x_t, x0),   sigma_{t|s}: of x_t given x_s

    Noise: least squares, whatever the law. The operator is never differentiated.

    Source: Tang et al. 2024, arXiv:2403.10585, algorithm 1, with the constants of InverseBench: momentum 0.1, decay
    0.9, 5000 draws, scale 180 of 128 x 128 pixels (1.4 the root of their number) at 1000 levels of VP. Differs: the
    remaining share of steps is the time s, which it is on an even grid.

    Biased: v / |v| tells where the measurement pulls and not how hard, so that the law depends on scale. In one
    dimension x_s is `x' + scale sigma_{t|s}^2` times the sign of `J A^T (y - A x0)`, whatever the noise.

    Args:
      measurement: with any operator.
      scale: inverse units of the data. draws: e's a step, static, at least 2.
      momentum, decay: in [0, 1].

    Raises ValueError for draws under 2, or a y that does not fit.
    """
    measurement = require_fit(prior, measurement, "dpg")
    require_count("draws", draws, 2)

    def square(x0: Array) -> Array:
        r = measurement.residual(x0)
        return inner(r, r)

    def init(key: Key, t: Time, x: Array | None) -> PolicyState:
        x = prior.start(key, t) if x is None else x
        return PolicyState(x, jnp.zeros((), x.dtype), jnp.zeros_like(x))

    def step(key: Key, state: PolicyState, t: Time, s: Time) -> tuple[PolicyState, StepInfo]:
        step_key, guess_key = jax.random.split(key)
        x, first = state.x, state.level <= 0
        x0, pullback = jax.vjp(lambda x: prior.denoise(x, t), x)
        base = square(x0)
        level = jnp.maximum(jnp.where(first, base, decay * state.level + (1 - decay) * base), 1e-12)
        r, e = jnp.sqrt(level / x.size) / 2, _draws(guess_key, x, draws)
        losses = jax.vmap(lambda e: square(x0 + r * e))(e)
        (g,) = pullback(policy_gradient(e, losses, base, level) / r)
        v = jnp.where(first, g, (1 - momentum * s) * g + momentum * s * state.gradient)
        length = norm(v)
        along = v / jnp.where(length > 0, length, 1.0)
        moved = prior.process.transition(x, x0, t, s, eta).sample(step_key)
        x_s = moved + scale * prior.process.kernel_std(t, s) ** 2 * along
        cost = prior.cost.plus(vjps=1, calls=draws + 1)
        return PolicyState(x_s, level, g), StepInfo(cost, jnp.sqrt(base))

    return Sampler(init, step, lambda key, state: state.x)


def scg(
    prior: Prior,
    measurement: Measurement,
    draws: int = 8,
    begin: Array | float = 0.75,
    eta: Array | float = 1.0,
) -> Sampler:
    r"""Stochastic control guidance: of several draws of each step, the one that fits best is taken.

        c_k ~ q(x_s | x_t, x0),  k = 1 .. draws;   x_s = c_k with the least |y - A denoise(c_k, s)|

    from the time `begin` on; before it, and in the last step, a plain step.

    Noise: least squares, whatever the law. Neither the operator nor the denoiser is differentiated.

    Source: Huang et al. 2024, arXiv:2402.14285, algorithm 1, as in InverseBench: 512 draws from a quarter of 1000
    steps on. Differs: theirs sets x to x0 at the step where it begins.

    Biased: greedy, it fits the noise of y as if it were signal. With one draw it is the prior's ancestral chain; as
    draws grow, what is measured goes to y itself, without any spread.

    Args:
      measurement: with any operator.
      draws: static, at least 1. begin: a time, 1 for every step. eta: above 0, or all draws are one.

    Raises ValueError for draws under 1, or a y that does not fit.
    """
    measurement = require_fit(prior, measurement, "scg")
    require_count("draws", draws)
    misfit = lambda x0: norm(measurement.residual(x0))

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        x0 = prior.denoise(x, t)
        mean, std = prior.process.transition(x, x0, t, s, eta)
        z = _draws(key, x, draws)

        def steered() -> tuple[Array, Array, Cost]:
            candidates = jax.vmap(lambda z: mean + std * z)(z)
            misfits = jax.vmap(lambda x: misfit(prior.denoise(x, s)))(candidates)
            best = jnp.argmin(misfits)
            return candidates[best], misfits[best], _counted(prior.cost.times(1 + draws).plus(calls=draws))

        def plain() -> tuple[Array, Array, Cost]:
            return mean + std * z[0], misfit(x0), _counted(prior.cost.plus(calls=1))

        guided = jnp.logical_and(jnp.asarray(t) <= begin, jnp.asarray(s) > 0)
        x_s, residual, cost = jax.lax.cond(guided, steered, plain)
        return jnp.where(jnp.isfinite(residual), x_s, jnp.nan), StepInfo(cost, residual)  # argmin hides what is NaN

    return markov(prior, step)


def _counted(cost: Cost) -> Cost:
    return Cost(*(jnp.asarray(count, jnp.int32) for count in cost))
