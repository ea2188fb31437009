r"""Samplers that remember nothing from step to step.

All step by the process's one reverse step or, for the ODE, in the chart `x / n_t` with `n = process.scale`:

    x_s / n_s = x_t / n_t + (p_s - p_t) x0 + (q_s - q_t) eps,   p = alpha / n,  q = sigma / n,

which is exact while `(x0, eps)` stand still. `n = alpha` gives EDM's clock sigma/alpha, `n = alpha + sigma` that of
rectified flow, finite at both ends.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from diffinv.loop import markov
from diffinv.prior import Prior
from diffinv.typing import Array, Key, Sampler, StepInfo, Time


def _flow(prior: Prior, x: Array, x0: Array, eps: Array, t: Time, s: Time) -> Array:
    """The frozen-(x0, eps) step of the probability-flow ODE from `t` to `s`."""
    process = prior.process
    n_t, n_s = process.scale(t), process.scale(s)
    p = process.alpha(s) / n_s - process.alpha(t) / n_t
    q = process.sigma(s) / n_s - process.sigma(t) / n_t
    return jnp.where(jnp.asarray(s) == t, x, n_s * (x / n_t + p * x0 + q * eps))


def ddim(prior: Prior, eta: Array | float = 0.0) -> Sampler:
    """DDIM; `eta` (dimensionless, 0 deterministic to 1 ancestral) is dynamic and may be swept.

    Source: Song et al. 2021, arXiv:2010.02502, eq. 12, as `Process.transition`.
    """

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        x0 = prior.denoise(x, t)
        return prior.process.transition(x, x0, t, s, eta).sample(key), StepInfo(prior.cost)

    return markov(prior, step)


def learned_range(prior: Prior, x: Array, t: Time, s: Time, x0: Array, v: Array | None) -> tuple[Array, Array]:
    r"""Mean and standard deviation of the ancestral step: `log var = v log sigma_{t|s}^2 + (1 - v) log c^2`.

    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 15; `v = None` gives the posterior's own variance. The last
    step (`s = 0`) adds no noise.
    """
    mean, small = prior.process.transition(x, x0, t, s)
    if v is None:
        return mean, small
    large = prior.process.kernel_std(t, s)
    log_small = jnp.log(jnp.where(small > 0, small, 1.0))
    return mean, jnp.where(small > 0, jnp.exp(v * jnp.log(large) + (1 - v) * log_small), 0.0)


def ancestral(prior: Prior) -> Sampler:
    """The reverse Markov chain with its posterior variance, or the learned one where the network predicts it.

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 6 and 7; Nichol & Dhariwal 2021, eq. 15.
    """

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        x0, v = prior.predict(x, t)
        mean, std = learned_range(prior, x, t, s, x0, v)
        return mean + std * jax.random.normal(key, x.shape, x.dtype), StepInfo(prior.cost)

    return markov(prior, step)


def euler(prior: Prior) -> Sampler:
    """First order on the probability-flow ODE; the same map as `ddim(eta=0)`, and valid in both directions.

    Source: Karras et al. 2022, arXiv:2206.00364, eq. 4, in the chart of the module's head.
    """

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        x0 = prior.denoise(x, t)
        return _flow(prior, x, x0, prior.process.noise(x, x0, t), t, s), StepInfo(prior.cost)

    return markov(prior, step)


def heun(prior: Prior) -> Sampler:
    """Second order on the probability-flow ODE; the step that ends at time 0 is Euler's, with its result kept.

    Source: Karras et al. 2022, arXiv:2206.00364, algorithm 1 (no churn). Differs: the second evaluation of the last
    step is made and thrown away, so that every step of the scan has one shape; the cost counts what is used. Both
    evaluations are one inner scan, which halves the time to compile a network.
    """

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        last = s <= 0

        def stage(carry: tuple[Array, Array, Array], time: Array) -> tuple[tuple[Array, Array, Array], Array]:
            here, x0_sum, eps_sum = carry
            x0 = prior.denoise(here, time)
            eps = prior.process.noise(here, x0, time)
            ahead = _flow(prior, x, x0, eps, t, s)
            return (ahead, x0_sum + x0, eps_sum + eps), ahead

        stages = jnp.stack([jnp.asarray(t), jnp.where(last, t, s)])
        (_, x0_sum, eps_sum), aheads = jax.lax.scan(stage, (x, jnp.zeros_like(x), jnp.zeros_like(x)), stages)
        x_heun = _flow(prior, x, 0.5 * x0_sum, 0.5 * eps_sum, t, s)
        return jnp.where(last, aheads[0], x_heun), StepInfo(prior.cost.times(jnp.where(last, 1, 2)))

    return markov(prior, step)


def renoise(prior: Prior) -> Sampler:
    """Denoise, then perturb to the next time: the multistep sampler of a consistency model; `[1, 0]` is one step.

    Source: Song et al. 2023, arXiv:2303.01469, algorithm 1.
    """

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        return prior.process.perturb(prior.denoise(x, t), s).sample(key), StepInfo(prior.cost)

    return markov(prior, step)
