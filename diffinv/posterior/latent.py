"""Methods for priors over codes: the chart's decoder stands between the state and the measurement.

Latent DPS, DAPS and all other methods that take any differentiable operator need nothing here:
`charts.within(chart, lambda m: posterior.dps(prior, m))` is LDPS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffinv.charts import Chart
from diffinv.checks import require_count, require_fit
from diffinv.describe import described
from diffinv.linalg import inner, norm
from diffinv.loop import markov
from diffinv.measurement import Measurement, require_linear
from diffinv.posterior.core.adam import adam
from diffinv.prior import Prior
from diffinv.typing import Array, Key, Sampler, StepInfo, Time


def _seen(prior: Prior, measurement: Measurement, chart: Chart | None, method: str) -> tuple[Chart, Measurement]:
    """The chart, which is the identity where there is none, and the measurement as `require_fit` gives it for the
    pictures that the chart decodes to."""
    if chart is None:
        return Chart(lambda x: x, lambda z: z, prior.shape, linear=True), require_fit(prior, measurement, method)
    code = jax.ShapeDtypeStruct(prior.shape, jnp.finfo(measurement.y.dtype).dtype)
    pictures = replace(prior, shape=jax.eval_shape(chart.decode, code).shape)
    return chart, require_fit(pictures, measurement, method)


def psld(
    prior: Prior,
    measurement: Measurement,
    chart: Chart | None = None,
    gamma: Array | float = 0.1,
    omega: Array | float = 0.1,
    eta: Array | float = 0.0,
) -> Sampler:
    r"""Posterior sampling with latent diffusion: a DDIM step in codes, minus the gradient of two norms,

        z_s = z' - grad_{z_t} [ omega |y - A D(z0)| + gamma |E(x*) - z0| ],      x* = D(z0) + A^+ (y - A D(z0))

    the second of which asks z0 to be a fixed point of "decode, put the measurement in, encode".

    Noise: least squares, whatever the law.

    Source: Rout et al. 2023, arXiv:2307.00619, algorithm 2; eta 0, gamma 0.01 to 0.1 and omega 0.1 in their code, whose
    omission of squares is kept. `final` decodes. Differs: `A^+` stands for their `A^T` (the same for masks); their code
    adds fresh noise of deviation sigma_y to `A D(z0)` before it takes the residual, which no algorithm of theirs does.

    Args:
      prior: over codes. measurement: of the picture.
      chart: encode and decode, of one sample; None where the prior is over pictures.
      gamma, omega: in the codes' unit squared over that of the norm. eta: DDIM's.

    Raises TypeError for an operator that is not linear, ValueError for one, or a y, that does not fit the pictures.
    """
    chart, measurement = _seen(prior, measurement, chart, "psld")
    A, process = require_linear(measurement, "psld"), prior.process

    def loss(z: Array, t: Time) -> tuple[Array, tuple[Array, Array]]:
        z0 = prior.denoise(z, t)
        x0 = chart.decode(z0)
        r = measurement.residual(x0)
        return omega * norm(r) + gamma * norm(chart.encode(x0 + A.pinv(r)) - z0), (z0, norm(r))

    def step(key: Key, z: Array, t: Time, s: Time) -> tuple[Array, Array]:
        gradient, (z0, residual) = jax.grad(loss, has_aux=True)(z, t)
        return process.transition(z, z0, t, s, eta).sample(key) - gradient, residual

    return markov(prior, step, final=lambda key, z: chart.decode(z), cost=prior.cost.plus(vjps=1, calls=4))


@described
class CountedState(NamedTuple):
    """The state of `resample`.

    Attributes:
      z: the code.
      steps: the number of steps taken.
    """

    z: Array
    steps: Array


def resample(
    prior: Prior,
    measurement: Measurement,
    chart: Chart | None = None,
    scale: Array | float = 0.5,
    every: int = 10,
    start: Array | float = 2 / 3,
    iterations: int = 500,
    lr: Array | float = 5e-3,
    gamma: Array | float = 40.0,
    pixel_iterations: int = 2000,
    pixel_lr: Array | float = 1e-2,
    turn: Array | float = 1 / 3,
) -> Sampler:
    r"""ReSample: latent DPS, and in every `every`-th step below time `start` hard data consistency,

        z'  = DDIM(z_t) - scale alpha_t^2 grad_{z_t} |y - A D(z0)|
        z0* = E(argmin_x |y - A x|^2)        from D(z0), above time `turn`: `pixel_iterations` of Adam in pixels
        z0* = argmin_z |y - A D(z)|^2        from z0, below it: `iterations` of Adam in codes
        z_s ~ N((k alpha_s z0* + sigma_s^2 z') / (k + sigma_s^2),  k sigma_s^2 / (k + sigma_s^2))

    with `k = gamma sigma_s^2 sigma_{t|s}^2 / sigma_t^2`, gamma times the variance of the ancestral step.

    The last step ends with one more optimisation in codes. `turn` 1 has codes in all of the steps before it, 0 pixels.

    Noise: least squares, whatever the law.

    Source: Song et al. 2024, arXiv:2307.08123, algorithm 1 and eq. 15; in their code scale 0.5 alpha_t^2, every 10 of
    500 steps in the last two thirds, gamma 40, and AdamW at 5e-3 for at most 500 iterations in codes, at 1e-2 for at
    most 2000 in pixels. Differs: Adam without decay of weights, a fixed number of iterations (theirs stop where the
    mean square is under 1e-6, or has not fallen in 200), no five inner DDIM steps before each; time counts as the
    share of steps, as in a uniform grid. Theirs is VP, where sigma_s^2 is `1 - alpha_s^2` and sigma_{t|s}^2 is
    `1 - alpha_t^2 / alpha_s^2`; the laws above are those of any process.

    Args:
      prior: over codes. measurement: of the picture; any differentiable operator.
      chart: encode and decode, of one sample; None where the prior is over pictures.
      scale, gamma: dimensionless. every, iterations, pixel_iterations: static. start, turn: times.
      lr, pixel_lr: of Adam, in the units of codes and of pixels.

    Raises ValueError for a count under 1, and an operator or a y that does not fit the pictures.
    """
    require_count("every", every)
    require_count("iterations", iterations)
    require_count("pixel_iterations", pixel_iterations)
    process, (chart, measurement) = prior.process, _seen(prior, measurement, chart, "resample")

    def fitted(v: Array, decode: Callable[[Array], Array], steps: int, lr: Array | float) -> Array:
        optimizer = adam(lr)

        def misfit(v: Array) -> Array:
            r = measurement.residual(decode(v))
            return inner(r, r)

        def descend(carry: tuple[Array, optax.OptState], _: None) -> tuple[tuple[Array, optax.OptState], None]:
            v, state = carry
            updates, state = optimizer.update(jax.grad(misfit)(v), state)
            return (v + updates, state), None

        return jax.lax.scan(descend, (v, optimizer.init(v)), None, steps)[0][0]

    def in_codes(z: Array) -> Array:
        return fitted(z, chart.decode, iterations, lr)

    def in_pixels(z: Array) -> Array:
        return chart.encode(fitted(chart.decode(z), lambda x: x, pixel_iterations, pixel_lr))

    def consistent(z0: Array, t: Time) -> Array:
        return jax.lax.cond(jnp.asarray(t) > turn, in_pixels, in_codes, z0)

    def loss(z: Array, t: Time) -> tuple[Array, Array]:
        z0 = prior.denoise(z, t)
        return norm(measurement.residual(chart.decode(z0))), z0

    def init(key: Key, t: Time, x: Array | None) -> CountedState:
        return CountedState(prior.start(key, t) if x is None else x, jnp.int32(0))

    def step(key: Key, state: CountedState, t: Time, s: Time) -> tuple[CountedState, StepInfo]:
        z, steps = state
        (residual, z0), gradient = jax.value_and_grad(loss, has_aux=True)(z, t)
        moved = process.transition(z, z0, t, s, 0.0).mean - scale * process.alpha(t) ** 2 * gradient

        def again() -> Array:
            quiet, step = process.sigma(s) ** 2, (process.kernel_std(t, s) / process.sigma(t)) ** 2
            k = gamma * quiet * step
            whole = jnp.maximum(k + quiet, jnp.finfo(z.dtype).tiny)
            mean = (k * process.alpha(s) * consistent(z0, t) + quiet * moved) / whole
            return mean + jnp.sqrt(k * quiet / whole) * jax.random.normal(key, z.shape, z.dtype)

        last = jnp.asarray(s) <= 0
        due = (steps % every == every - 1) & (jnp.asarray(t) <= start) & ~last
        z_s = jax.lax.cond(last, lambda: in_codes(moved), lambda: jax.lax.cond(due, again, lambda: moved))
        many = jnp.where(~last & (jnp.asarray(t) > turn), jnp.int32(2 * pixel_iterations), jnp.int32(2 * iterations))
        cost = prior.cost.plus(1, 2 + jnp.where(due | last, many, jnp.int32(0)))
        return CountedState(z_s, steps + 1), StepInfo(cost, residual)

    return Sampler(init, step, lambda key, state: chart.decode(state.z))
