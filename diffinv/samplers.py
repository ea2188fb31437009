r"""Unconditional samplers `Prior -> Sampler`, the probability-flow ODE's inversion and its likelihood.

All step by the process's one reverse step or, for the ODE, in the chart `x / n_t` with `n = process.scale`:

    x_s / n_s = x_t / n_t + (p_s - p_t) x0 + (q_s - q_t) eps,   p = alpha / n,  q = sigma / n,

which is exact while `(x0, eps)` stand still. `n = alpha` gives EDM's clock sigma/alpha, `n = alpha + sigma` that of
rectified flow, finite at both ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffinv import linalg
from diffinv.describe import described
from diffinv.loop import markov, sample
from diffinv.prior import Prior
from diffinv.process import require_isotropic
from diffinv.times import rising
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


@described
class MultistepState(NamedTuple):
    """What `dpmpp_2m` carries from step to step.

    Attributes:
      x: the sample.
      x0: the last denoised mean.
      t: the last time; 2 or more says that there is no history yet.
    """

    x: Array
    x0: Array
    t: Array


def dpmpp_2m(prior: Prior) -> Sampler:
    r"""DPM-Solver++(2M): second order for one evaluation a step.

        D = x0_t + (x0_t - x0_last) / (2 r),  r = (lambda_t - lambda_last) / (lambda_s - lambda_t),

    for `lambda = log snr / 2`, then the frozen step with D. First and last steps are first order, and a step from t to
    t leaves the state and its history as they are. For isotropic processes.

    Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2. Raises ValueError for a process that is not isotropic.
    """
    process = prior.process
    require_isotropic(process, "dpmpp_2m", "heun")

    def init(key: Key, t: Time, x: Array | None) -> MultistepState:
        x = prior.start(key, t) if x is None else x
        return MultistepState(x, jnp.zeros_like(x), jnp.asarray(2.0, x.dtype))

    def step(key: Key, state: MultistepState, t: Time, s: Time) -> tuple[MultistepState, StepInfo]:
        x, x0_last, t_last = state
        x0 = prior.denoise(x, t)
        moves = jnp.asarray(s) != t
        first_order = (t_last >= 2) | (s <= 0) | ~moves
        now, last = process.log_snr(t), process.log_snr(jnp.where(first_order, t, t_last))
        ahead = process.log_snr(jnp.where(first_order, t, s))
        usable = ~first_order & (now != last)  # half precision may not tell the levels of two times apart
        slope = jnp.where(usable, (ahead - now) / jnp.where(usable, 2 * (now - last), 1.0), 0.0)
        x_s = process.transition(x, x0 + slope * (x0 - x0_last), t, s, eta=0.0).mean
        after = MultistepState(x_s, x0, jnp.asarray(t, x.dtype))
        after = jax.tree.map(lambda new, old: jnp.where(moves, new, old), after, state)
        return after, StepInfo(prior.cost)

    return Sampler(init, step, lambda key, state: state.x)


def renoise(prior: Prior) -> Sampler:
    """Denoise, then perturb to the next time: the multistep sampler of a consistency model; `[1, 0]` is one step.

    Source: Song et al. 2023, arXiv:2303.01469, algorithm 1.
    """

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        return prior.process.perturb(prior.denoise(x, t), s).sample(key), StepInfo(prior.cost)

    return markov(prior, step)


def invert(prior: Prior, x: Array, times: Array, method: Callable[[Prior], Sampler] = heun) -> Array:
    """The latent of `x`: the probability-flow ODE from data to noise.

    Source: Song et al. 2021, arXiv:2011.13456, section 4.3 (uniquely identifiable encoding).

    Args:
      prior: of the sample.
      x: the sample; `alpha x` at the first time is taken as the state, so that the first time sets the error.
      times: increasing from a small positive time, see `times.ascending`.
      method: `euler` or `heun`; static.

    Raises ValueError for known times that fall, or start at 0; traced ones give NaN.
    """
    times = rising(times)
    start = prior.process.alpha(times[0]) * x
    return sample(jax.random.key(0), method(prior), times, start).x


def divergence(f: Callable[[Array], Array], x: Array, key: Key | None = None, probes: int = 1) -> Array:
    """`tr df/dx` at `x`: exact by one forward derivative a coordinate, or Hutchinson's estimate where a key is given.

    `probes` is static. Source: Hutchinson 1990; Grathwohl et al. 2019, arXiv:1810.01367, eq. 7.
    """
    if key is None:
        basis = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
    else:
        basis = jax.vmap(lambda k: linalg.rademacher(k, x))(jax.random.split(key, probes))
    along = jax.vmap(lambda v: jnp.sum(v * jax.jvp(f, (x,), (v,))[1]))(basis)
    return jnp.sum(along) if key is None else jnp.mean(along)


@described
class Likelihood(NamedTuple):
    """What `log_likelihood` gives.

    Attributes:
      log_prob: of the picture, in nats.
      latent: its latent at the last time.
    """

    log_prob: Array
    latent: Array


def log_likelihood(
    prior: Prior,
    x: Array,
    times: Array,
    terminal: Callable[[Array], Array] | None = None,
    key: Key | None = None,
    probes: int = 1,
) -> Likelihood:
    r"""`log p_{times[0]}(alpha x)` by the instantaneous change of variables along the probability-flow ODE:

        log p_a(x_a) = log p_b(x_b) + int_a^b div v(x_t, t) dt,

    in the chart `x / n`, with Heun's rule for the state and the trapezoid for the divergence: second order. Space the
    times evenly in `t^(1/4)`: `jnp.linspace(first**0.25, 1, n) ** 4`. On a geometric grid of as many times the error of
    VP is 8 times larger.

    Source: Song et al. 2021, arXiv:2011.13456, eq. 39. Differs: the density is that of the slightly noisy `alpha x` at
    `times[0] > 0`; there is no dequantisation.

    Args:
      prior: an isotropic process; x: one sample of its shape.
      times: increasing, the first positive; length static.
      terminal: log density at `times[-1]`; default `N(0, sigma^2)`, right in the limit alpha -> 0.
      key: for Hutchinson's estimate with `probes` (static) signs; None computes the exact divergence.

    Raises ValueError for known times that fall, or start at 0; traced ones give NaN.
    """
    process, size, times = prior.process, x.size, rising(times)

    def rate(y: Array, t: Array) -> Array:
        """`(x0, eps)` stacked, as functions of `y = x / n`."""
        n = process.scale(t)
        x0 = prior.denoise(n * y, t)
        return jnp.stack([x0, process.noise(n * y, x0, t)])

    def volume(y: Array, t: Array, k: Key | None) -> Array:
        """`tr d x0 / dy`; `tr d eps / dy` follows from `y = p x0 + q eps`."""
        trace = divergence(lambda z: rate(z, t)[0], y, k, probes)
        p, q = process.alpha(t) / process.scale(t), process.sigma(t) / process.scale(t)
        return jnp.stack([trace, (size - p * trace) / q])

    def step(carry: tuple[Array, Array], now: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
        (y, log_det), (i, t, s) = carry, now
        k = None if key is None else jax.random.fold_in(key, i)
        p = process.alpha(s) / process.scale(s) - process.alpha(t) / process.scale(t)
        q = process.sigma(s) / process.scale(s) - process.sigma(t) / process.scale(t)
        here = rate(y, t)
        along = lambda rates: p * rates[0] + q * rates[1]  # no matrix product, which accelerators round
        y_s = y + along(0.5 * (here + rate(y + along(here), s)))
        spread = along(0.5 * (volume(y, t, k) + volume(y_s, s, k)))
        return (y_s, log_det + spread), None

    n_a, n_b = process.scale(times[0]), process.scale(times[-1])
    start = (process.alpha(times[0]) / n_a * x, jnp.zeros((), x.dtype))
    scanned = (jnp.arange(len(times) - 1), times[:-1], times[1:])
    (y, log_det), _ = jax.lax.scan(step, start, scanned)
    latent = n_b * y
    if terminal is None:
        sigma = process.sigma(times[-1])
        log_b = -0.5 * jnp.sum((latent / sigma) ** 2) - size * (jnp.log(sigma) + 0.5 * jnp.log(2 * jnp.pi))
    else:
        log_b = terminal(latent)
    return Likelihood(log_b + log_det + size * (jnp.log(n_b) - jnp.log(n_a)), latent)
