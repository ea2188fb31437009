"""Between two times: the bridge of the forward process, and a Gaussian that is fitted there by gradient descent."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from diffinv.process import Process
from diffinv.typing import Array, Gaussian, Time


def bridge(process: Process, x: Array, middle: Array, t: Time, s: Time, low: Time) -> Gaussian:
    """`p(x_s | x_l, x_t)` for `l < s < t`: two Gaussian observations of x_s, one from below and one from above.

    Source: the forward process, by conjugacy; `x` is x_t, `middle` x_l and `low` l.
    """
    mean, below = process.forward(middle, low, s)
    ratio, above = jnp.exp(process.log_alpha(t) - process.log_alpha(s)), process.kernel_std(t, s)
    gain = ratio * below**2 / (ratio**2 * below**2 + above**2)
    return Gaussian(mean + gain * (x - ratio * mean), below * above / jnp.sqrt(ratio**2 * below**2 + above**2))


def fitted_draw(
    process: Process,
    optimizer: optax.GradientTransformation,
    keys: Array,
    centre: Array,
    std: Array,
    time: Time,
    count: Array,
    loss: Callable[[Array, Array, Array], Array],
) -> Array:
    """A draw of what `count` steps make of `N(centre, std^2)`: of its mean, and of w = log(deviation / std).

    Args:
      process: in whose units at `time`, `sqrt(alpha^2 + sigma^2)`, the mean moves.
      optimizer: optax's, as `core.adam`.
      keys: two, of the draws in the steps and of the last one.
      centre, std: where the fit starts.
      time: of the sample.
      count: of steps, a whole number that may be traced.
      loss: `(mean, w, x)`, of one draw x, to be minimised.
    """
    unit = jnp.sqrt(process.alpha(time) ** 2 + process.sigma(time) ** 2)

    def draw(k: Array, q: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        mean, z = centre + unit * q[0], jax.random.normal(k, centre.shape, centre.dtype)
        return mean, q[1], mean + std * jnp.exp(q[1]) * z

    def descend(i: Array, carry: tuple) -> tuple:
        (q, memory), k = carry, jax.random.fold_in(keys[0], i)
        updates, memory = optimizer.update(jax.grad(lambda q: loss(*draw(k, q)))(q), memory)
        return optax.apply_updates(q, updates), memory

    q = (jnp.zeros_like(centre), jnp.zeros_like(centre))
    return draw(keys[1], jax.lax.fori_loop(0, count, descend, (q, optimizer.init(q)))[0])[2]
