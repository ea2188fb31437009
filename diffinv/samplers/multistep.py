r"""Multistep samplers: they remember denoised means, so that one evaluation a step gives a high order.

With `lambda = log(alpha / sigma)`, the reverse equation with noise of the rate `eta` (0 is the ODE) has the solution

    x_s = (sigma_s / sigma_t) e^{-eta h} x_t + alpha_s int_0^k e^{-(k-u)} x0(u) du + sigma_s sqrt(1 - e^{-2 eta h}) z,

over `h = lambda_s - lambda_t`, in the level `u` that runs to `k = (1 + eta) h` (Lu et al. 2022, arXiv:2211.01095). A
multistep method integrates the polynomial through the means that it knows. Divided by the weight `1 - e^{-k}` the
integral is one mean `D`, and the step is the process's one reverse step with D.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffinv.describe import described
from diffinv.linalg import added
from diffinv.prior import Prior
from diffinv.process import Process, require_isotropic
from diffinv.typing import Array, Key, Sampler, Scalar, StepInfo, Time

LONE: dict[str, Callable[[Array, Array], Array]] = {
    "bh1": lambda k, exact: 0.5 * k**2 / -jnp.expm1(-k),
    "bh2": lambda k, exact: 0.5 * k,
    "exact": lambda k, exact: exact,
}
"""The weight of a slope that stands alone: UniPC's `a_1 B(k) = B(k) / 2` with `B = k` or `B = 1 - e^{-k}`, or its own
integral. The second is the midpoint rule of DPM-Solver++(2M)."""
NONE_YET = 2.0
"""The time of a mean that is not there yet."""


@described
class MultistepState(NamedTuple):
    """What a multistep sampler carries from step to step.

    Attributes:
      x: the sample; UniPC's is predicted, and not yet corrected.
      x0: the last denoised means, the latest first, (n, *shape).
      t: their times, (n,); 2 or more says that there is none yet.
      corrected: UniPC's sample at the last time, from which `x` was predicted; None of the others.
    """

    x: Array
    x0: Array
    t: Array
    corrected: Array | None = None


@described
class Nodes(NamedTuple):
    """The means through which a polynomial goes.

    Attributes:
      level: where, relative to the step's start, (n,).
      x0: the means, (n, *shape).
      live: whether each is there, (n,); False from the first on that is not.
    """

    level: Array
    x0: Array
    live: Array


def moments(k: Array, count: int) -> list[Array]:
    """`int_0^k e^{-(k-u)} u^n du` for n < `count` (static) and `k > 0`, without cancellation where `k` is small."""
    near, top = jnp.minimum(k, 1.0), count - 1
    series = added((-near) ** j * (factorial(top) / factorial(j + count)) for j in range(16))
    small, large = [near**count * series], [-jnp.expm1(-k)]
    for n in range(top, 0, -1):
        small.insert(0, (near**n - small[0]) / n)
    for n in range(1, count):
        large.append(k**n - n * large[-1])
    return [jnp.where(k < 1, a, b) for a, b in zip(small, large, strict=True)]


def mean(nodes: Nodes, k: Array, lone: str) -> Array:
    """`int_0^k e^{-(k-u)} P(u) du / (1 - e^{-k})` of the polynomial P through the live nodes, in Newton's form."""
    whole, *gains = moments(k, len(nodes.live))
    gains = [jnp.ones_like(k), *(gain / whole for gain in gains)]
    total, table, product = nodes.x0[0], nodes.x0, [jnp.ones_like(k)]
    for n in range(1, len(nodes.live)):
        gaps = jnp.where(nodes.live[n:], nodes.level[:-n] - nodes.level[n:], 1.0)
        table = (table[:-1] - table[1:]) / gaps.reshape(-1, *[1] * (table.ndim - 1))
        raised, scaled = [jnp.zeros_like(k), *product], [*(nodes.level[n - 1] * c for c in product), jnp.zeros_like(k)]
        product = [a - b for a, b in zip(raised, scaled, strict=True)]
        weight = added(c * gain for c, gain in zip(product, gains, strict=False))
        if n == 1:
            alone = ~nodes.live[2] if len(nodes.live) > 2 else True
            weight = jnp.where(alone, LONE[lone](k, weight), weight)
        total = total + jnp.where(nodes.live[n], weight, 0.0) * table[0]
    return total


def _levels(process: Process, times: Array, rate: Scalar) -> Array:
    """`(1 + eta) lambda` at the times, (n,); minus infinity where there is none yet."""
    known = times < NONE_YET
    levels = 0.5 * rate * jax.vmap(process.log_snr)(jnp.where(known, times, 0.5))
    return jnp.where(known, levels, -jnp.inf).astype(times.dtype)


def _followed(levels: Array, means: Array, k: Array, usable: Array) -> Nodes:
    """The nodes at falling levels; half precision may not tell the levels of two times apart."""
    told = jnp.isfinite(levels[1:]) & (levels[1:] < levels[:-1]) & usable & jnp.isfinite(k)
    live = jnp.cumprod(jnp.append(True, told).astype(int)) > 0
    return Nodes(jnp.where(live, levels - levels[0], 0.0), means, live)


def _span(levels: Array, then: Array) -> tuple[Array, Array]:
    """The way `k` from the first of the levels, 1 where it is not a finite way upwards; and whether it is."""
    k = then - levels[0]
    usable = jnp.isfinite(k) & (k > 0)
    return jnp.where(usable, k, 1.0), usable


def _share(process: Process, t: Time, s: Time, eta: Scalar) -> Array:
    """The `eta` of `Process.transition` that leaves `e^{-eta h}` of the noise: 1 where `eta` is 1."""
    h = 0.5 * (process.log_snr(s) - process.log_snr(t))
    h = jnp.clip(jnp.where(jnp.asarray(s) == t, 0.0, h), 0, 40)
    ratio = jnp.expm1(-2 * eta * h) / jnp.where(h > 0, jnp.expm1(-2 * h), 1.0)
    return jnp.sqrt(ratio)


def _started(prior: Prior, key: Key, t: Time, x: Array | None, kept: int) -> MultistepState:
    x = prior.start(key, t) if x is None else x
    return MultistepState(x, jnp.zeros((kept, *x.shape), x.dtype), jnp.full((kept,), NONE_YET, x.dtype))


def _multistep(prior: Prior, name: str, order: int, eta: Scalar | None, lone: str) -> Sampler:
    """The method through `order` means, on the ODE where `eta` is None."""
    process, rate = prior.process, 1.0 if eta is None else 1 + eta
    require_isotropic(process, name, "heun" if eta is None else "ancestral")

    def init(key: Key, t: Time, x: Array | None) -> MultistepState:
        return _started(prior, key, t, x, order - 1)

    def step(key: Key, state: MultistepState, t: Time, s: Time) -> tuple[MultistepState, StepInfo]:
        x, x0_past, t_past, _ = state
        x0 = jnp.concatenate([prior.denoise(x, t)[None], x0_past])
        times = jnp.append(jnp.asarray(t, t_past.dtype), t_past)
        levels = _levels(process, jnp.append(times, jnp.asarray(s, times.dtype)), rate)
        k, usable = _span(levels, levels[-1])
        D = mean(_followed(levels[:-1], x0, k, usable), k, lone)
        if eta is None:
            x_s = process.transition(x, D, t, s, eta=0.0).mean
        else:
            x_s = process.transition(x, D, t, s, _share(process, t, s, eta)).sample(key)
        after = MultistepState(x_s, x0[:-1], times[:-1])
        return _moved(state, after, t, s), StepInfo(prior.cost)

    return Sampler(init, step, lambda key, state: state.x)


def _moved(before: MultistepState, after: MultistepState, t: Time, s: Time) -> MultistepState:
    """A step from t to t leaves the state and its history as they are."""
    return jax.tree.map(lambda new, old: jnp.where(jnp.asarray(s) == t, old, new), after, before)


def dpmpp_2m(prior: Prior) -> Sampler:
    r"""DPM-Solver++(2M): second order for one evaluation a step.

        D = x0_t + (x0_t - x0_last) / (2 r),  r = (lambda_t - lambda_last) / (lambda_s - lambda_t),

    for `lambda = log snr / 2`, then the frozen step with D. First and last steps are first order, and a step from t to
    t leaves the state and its history as they are. For isotropic processes.

    Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2. Raises ValueError for a process that is not isotropic.
    """
    return _multistep(prior, "dpmpp_2m", 2, None, "bh2")


def dpmpp_3m(prior: Prior) -> Sampler:
    r"""DPM-Solver++(3M): the parabola through three means, third order for one evaluation a step.

    The first step is of first order, the second of second: their errors `h_1^2` and `h_2^3` stay, so that a grid whose
    first step is as long as the others gives second order. Steps to time 0 are first order. For isotropic processes.

    Source: Lu et al. 2022, arXiv:2211.01095, section 4 (the multistep method at order three). Differs: the authors'
    code, and those that follow it, give the second divided difference half of its integral, which leaves an error of
    second order; here it has all of it, and the step is UniP-3's.

    Raises ValueError for a process that is not isotropic.
    """
    return _multistep(prior, "dpmpp_3m", 3, None, "bh2")


def dpmpp_2m_sde(prior: Prior, eta: Scalar = 1.0) -> Sampler:
    r"""SDE-DPM-Solver++(2M): DPM-Solver++(2M) with fresh noise at the rate `eta`, dimensionless and dynamic.

        x_s = (sigma_s / sigma_t) e^{-eta h} x_t + alpha_s (1 - e^{-(1 + eta) h}) D + sigma_s sqrt(1 - e^{-2 eta h}) z,

    D as in `dpmpp_2m`; 1 is the reverse SDE, 0 is `dpmpp_2m`. At `eta = 1` with D of first order it is `ancestral`.

    Source: Lu et al. 2022, arXiv:2211.01095, section 5 (SDE-DPM-Solver++(2M)); `eta` as in Crowson's k-diffusion.
    Raises ValueError for a process that is not isotropic.
    """
    return _multistep(prior, "dpmpp_2m_sde", 2, eta, "bh2")


def dpmpp_3m_sde(prior: Prior, eta: Scalar = 1.0) -> Sampler:
    """The same with the parabola through three means, as `dpmpp_3m`; `eta = 0` is `dpmpp_3m`.

    Source: Crowson's k-diffusion, `sample_dpmpp_3m_sde`, after Lu et al. 2022, arXiv:2211.01095. Differs as `dpmpp_3m`.
    Raises ValueError for a process that is not isotropic.
    """
    return _multistep(prior, "dpmpp_3m_sde", 3, eta, "bh2")


def unipc(prior: Prior, order: int = 3, variant: str = "bh2") -> Sampler:
    r"""UniPC: a multistep predictor, and a corrector that uses the next evaluation, one evaluation a step.

    At time t the mean of the predicted x is the last node of the step that led there. That step is done again with it
    (UniC-p, through p + 1 means), and the next is predicted from the result (UniP-p, through p means). The mean is not
    evaluated again, and the sample at time 0 is not corrected. The method of order p converges with order p + 1; its
    first steps, of lower order, keep it at three on even grids.

    Source: Zhao et al. 2023, arXiv:2302.04867, algorithms 1 (UniC), 2 (UniP) and their data-prediction forms.

    Args:
      prior: of an isotropic process.
      order: p, from 1 to 3; static.
      variant: `B(h)`, "bh1" or "bh2"; it matters only where a slope stands alone, to UniP-2 and UniC-1; static.

    Raises ValueError for another order or variant, and for a process that is not isotropic.
    """
    process = prior.process
    require_isotropic(process, "unipc", "heun")
    if order not in (1, 2, 3):
        raise ValueError(f"order is {order!r}; give 1, 2 or 3")
    if variant not in ("bh1", "bh2"):
        raise ValueError(f"variant is {variant!r}; give 'bh1' or 'bh2'")

    def init(key: Key, t: Time, x: Array | None) -> MultistepState:
        state = _started(prior, key, t, x, order)
        return state._replace(corrected=state.x)

    def correct(state: MultistepState, x0: Array, t: Time) -> Array:
        """UniC: the step that led to t, through its result's mean as well."""
        levels = _levels(process, jnp.append(state.t, jnp.asarray(t, state.t.dtype)), 1.0)
        k, usable = _span(levels, levels[-1])
        past = _followed(levels[:-1], state.x0, k, usable)
        put = lambda kept, new: jnp.concatenate([kept[:1], jnp.asarray(new, kept.dtype)[None], kept[1:]])
        nodes = Nodes(put(past.level, k), put(past.x0, x0), put(past.live, usable))
        last = jnp.where(usable, state.t[0], t)
        before = state.x if state.corrected is None else state.corrected
        again = process.transition(before, mean(nodes, k, variant), last, t, eta=0.0).mean
        return jnp.where(usable, again, state.x)

    def step(key: Key, state: MultistepState, t: Time, s: Time) -> tuple[MultistepState, StepInfo]:
        x0 = prior.denoise(state.x, t)
        x = correct(state, x0, t)
        means = jnp.concatenate([x0[None], state.x0])
        times = jnp.append(jnp.asarray(t, state.t.dtype), state.t)
        levels = _levels(process, jnp.append(times, jnp.asarray(s, times.dtype)), 1.0)
        k, usable = _span(levels, levels[-1])
        D = mean(_followed(levels[:order], means[:order], k, usable), k, variant)
        after = MultistepState(process.transition(x, D, t, s, eta=0.0).mean, means[:-1], times[:-1], x)
        return _moved(state, after, t, s), StepInfo(prior.cost)

    return Sampler(init, step, lambda key, state: state.x)
