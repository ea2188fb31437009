r"""Training: the denoising loss, and a trainer of two pure functions, `init` and `step`.

A loss is `(key, params, batch) -> scalar`, and `step` is `(key, state, batch) -> (state, metrics)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from diffinv import times
from diffinv.process import Process
from diffinv.typing import Array, Denoiser, Key

Model = Callable[[Any], Denoiser]
Loss = Callable[[Key, Any, Array], Array]


@struct.dataclass
class TrainState:
    """What training carries.

    Attributes:
      params, opt_state: the weights and the optimizer's state.
      ema: exponential moving average of the weights; use this one.
      step: of calls so far, int32; skipped: those among them whose update was not finite and was left out.
    """

    params: Any
    opt_state: Any
    ema: Any
    step: Array
    skipped: Array


class Metrics(NamedTuple):
    """Of one step: the loss, the gradient's norm (as computed, finite or not), and the skipped steps so far."""

    loss: Array
    grad_norm: Array
    skipped: Array


class Trainer(NamedTuple):
    """`init(params) -> TrainState` and `step(key, state, batch) -> (TrainState, Metrics)`."""

    init: Callable[[Any], TrainState]
    step: Callable[[Key, TrainState, Any], tuple[TrainState, Metrics]]


def ema_rate(rate: float, step: Array) -> Array:
    """`min(rate, (1 + step) / (10 + step))`: the average forgets its start. Source: TensorFlow's `num_updates`."""
    step = step.astype(jnp.float32)
    return jnp.minimum(jnp.float32(rate), (1 + step) / (10 + step))


def _mix(rate: Array, average: Any, new: Any) -> Any:
    return jax.tree.map(lambda a, b: a + (1 - rate).astype(a.dtype) * (b - a), average, new)


def _where(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def trainer(loss: Loss, optimizer: optax.GradientTransformation, ema: float = 0.999) -> Trainer:
    r"""The training step: gradient, update, average, with non-finite steps left out and counted:

        ema <- ema + (1 - r) (params - ema),   r = min(ema, (1 + n) / (10 + n)),   n = step - skipped.

    Original. Shard the batch along `data` and replicate the state; the mean in the loss makes the all-reduce.

    Args:
      loss: `(key, params, batch) -> scalar`.
      optimizer: any optax transformation; its schedule counts finite updates.
      ema: rate per step, in [0, 1).
    """

    def init(params: Any) -> TrainState:
        copy = jax.tree.map(jnp.copy, params)
        return TrainState(params, optimizer.init(params), copy, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def step(key: Key, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        value, grads = jax.value_and_grad(loss, argnums=1)(key, state.params, batch)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = _mix(ema_rate(ema, state.step - state.skipped), state.ema, params)
        old = (state.params, state.opt_state, state.ema)
        params, opt_state, average = _where(finite, (params, opt_state, average), old)
        skipped = state.skipped + (1 - finite.astype(jnp.int32))
        return TrainState(params, opt_state, average, state.step + 1, skipped), Metrics(value, norm, skipped)

    return Trainer(init, step)


def _weighted_error(denoise: Denoiser, process: Process, sigma_data: float, key: Key, x0: Array, r: Array) -> Array:
    t = times.from_sigma(process, r)
    x = process.perturb(x0, t).sample(key)
    weight = (r**2 + sigma_data**2) / (r * sigma_data) ** 2
    return weight * jnp.mean((denoise(x, t) - x0) ** 2)


def denoising_loss(
    model: Model,
    process: Process,
    log_sigma_mean: float = -1.2,
    log_sigma_std: float = 1.2,
    sigma_data: float = 0.5,
) -> Loss:
    r"""EDM's loss, the mean over the batch of

        lambda(r) |D(x_t, t) - x_0|^2 / dim,   ln r ~ N(m, s^2),   lambda = (r^2 + sigma_data^2) / (r sigma_data)^2,

    where `r = sigma_t / alpha_t` is the noise level, in units of the data; 1 is a network that predicts nothing.

    Source: Karras et al. 2022, arXiv:2206.00364, eq. 2 to 8 and table 1. Differs: any isotropic process, at the time
    where it has that noise level; the mean over coordinates rather than the sum.

    Args:
      model: `params -> Denoiser`; process: the forward process.
      log_sigma_mean, log_sigma_std: of `ln r`; sigma_data: the data's standard deviation.
    """

    def one(key: Key, params: Any, x0: Array) -> Array:
        level, noise = jax.random.split(key)
        r = jnp.exp(log_sigma_mean + log_sigma_std * jax.random.normal(level, (), x0.dtype))
        return _weighted_error(model(params), process, sigma_data, noise, x0, r)

    def loss(key: Key, params: Any, batch: Array) -> Array:
        return jnp.mean(jax.vmap(one, (0, None, 0))(jax.random.split(key, len(batch)), params, batch))

    return loss


def noise_levels_loss(model: Model, process: Process, levels: Array, sigma_data: float = 0.5) -> Loss:
    r"""`(key, params, batch) -> (levels,)`: `denoising_loss` at each noise level, for held-out data.

    Original. The same key gives the same noise, so checkpoints compare with little variance. `levels`: `sigma/alpha`.
    """

    def one(key: Key, params: Any, x0: Array) -> Array:
        level = lambda r: _weighted_error(model(params), process, sigma_data, key, x0, r)
        return jax.lax.map(level, levels.astype(x0.dtype))

    def loss(key: Key, params: Any, batch: Array) -> Array:
        return jnp.mean(jax.vmap(one, (0, None, 0))(jax.random.split(key, len(batch)), params, batch), axis=0)

    return loss
