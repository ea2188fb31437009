r"""Training: the denoising loss, and a trainer of two pure functions, `init` and `step`.

A loss is `(key, params, batch) -> scalar`, and `step` is `(key, state, batch) -> (state, metrics)`. A contextual loss
is `(key, params, batch, context) -> scalar`: it knows the step, the averages and a frozen copy of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from diffinv import times
from diffinv.describe import Described, described
from diffinv.process import Process
from diffinv.typing import Array, Denoiser, Key

Model = Callable[[Any], Denoiser]
Loss = Callable[..., Array]
Rate = float | Callable[[Array], Array]


@struct.dataclass
class TrainState(Described):
    """What training carries.

    Attributes:
      params: the weights.
      opt_state: the optimizer's state.
      ema: exponential moving averages of the weights, one for each rate; use one of these.
      step: calls so far, int32.
      skipped: calls among them whose update was not finite and was left out, int32.
      row: skipped steps since the last good one, int32.
      frozen: a copy of the weights that a contextual loss compares with, or `()`.
    """

    params: Any
    opt_state: Any
    ema: tuple[Any, ...]
    step: Array
    skipped: Array
    row: Array
    frozen: Any = ()


@described
class Context(NamedTuple):
    """What a contextual loss knows beside the weights; constants to the gradient.

    Attributes:
      step: finite updates so far, int32.
      ema: the averages of the weights.
      frozen: the copy of the weights that `init` or the last refresh made.
    """

    step: Array
    ema: tuple[Any, ...]
    frozen: Any


@described
class Metrics(NamedTuple):
    """What one step tells.

    Attributes:
      loss: of the batch.
      grad_norm: the norm of the gradient, finite or not.
      skipped: skipped steps so far.
      row: skipped steps in a row.
    """

    loss: Array
    grad_norm: Array
    skipped: Array
    row: Array


@described
class Trainer(NamedTuple):
    """Two pure functions.

    Attributes:
      init: `(params, frozen=None) -> TrainState`.
      step: `(key, state, batch) -> (TrainState, Metrics)`.
    """

    init: Callable[..., TrainState]
    step: Callable[[Key, TrainState, Any], tuple[TrainState, Metrics]]


def half_life(examples: float, batch: int) -> float:
    """The rate per step, `2^(-batch / examples)`, of an average that forgets half in so many examples."""
    if examples <= 0:
        raise ValueError(f"examples is {examples}; a half-life must be positive (for no average use ema=0)")
    return 0.5 ** (batch / examples)


def warmed_rate(rate: Rate, step: Array) -> Array:
    """`min(rate, (1 + step) / (10 + step))`: the average forgets its start; a callable says its own rate, unbounded.

    Source: TensorFlow's `num_updates`."""
    step = step.astype(jnp.float32)
    if callable(rate):
        return jnp.asarray(rate(step), jnp.float32)
    return jnp.minimum(jnp.float32(rate), (1 + step) / (10 + step))


def _mix(rate: Array, average: Any, new: Any) -> Any:
    return jax.tree.map(lambda a, b: a + (1 - rate).astype(a.dtype) * (b - a), average, new)


def _where(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _accumulated(loss: Loss, parts: int) -> Callable[..., tuple[Array, Any]]:
    """`value_and_grad` of the mean of `loss` over `parts` equal slices of the batch, one slice in memory at a time.

    Slice i holds the examples `i, i + parts, ...`, so that a sharded batch gives every device its part of each.
    """
    of_slice = jax.value_and_grad(loss, argnums=1)
    if parts == 1:
        return of_slice

    def value_and_grad(key: Key, params: Any, batch: Any, *context: Context) -> tuple[Array, Any]:
        slices = jax.tree.map(lambda a: a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1), batch)

        def add(total: Any, item: tuple[Key, Any]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, of_slice(item[0], params, item[1], *context)), None

        shapes = jax.eval_shape(of_slice, key, params, jax.tree.map(lambda a: a[0], slices), *context)
        zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        total, _ = jax.lax.scan(add, zero, (jax.random.split(key, parts), slices))
        return jax.tree.map(lambda a: a / parts, total)

    return value_and_grad


def trainer(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    ema: Rate | Sequence[Rate] = 0.999,
    accumulate: int = 1,
    contextual: bool = False,
    refresh: int = 0,
) -> Trainer:
    r"""The training step: gradient, update, averages, with non-finite steps left out and counted:

        ema <- ema + (1 - r) (params - ema),   r = min(rate, (1 + n) / (10 + n)),   n = step - skipped.

    Shard the batch along `data` and replicate the state, or shard it (`sharding.fsdp`); the mean in the loss
    makes the all-reduce.

    Args:
      loss: `(key, params, batch) -> scalar`, a mean over the leading axis of the batch's arrays.
      optimizer: any optax transformation; its schedule counts finite updates.
      ema: rate per step in [0, 1), or several, to choose from afterwards; see `half_life`. A callable `n -> rate` is
        taken as it is.
      accumulate: slices of the batch whose gradients are summed before the update; static, divides the batch.
      contextual: the loss takes a `Context` as its fourth argument; static.
      refresh: the frozen copy becomes the current weights before every step `n > 0` that `refresh` divides; 0 for
        never; static.

    `init(params, frozen=None)` keeps `frozen`, or a copy of `params` where `refresh` is positive.
    Raises ValueError for a rate outside [0, 1), `accumulate` below 1, `refresh` below 0 or without `contextual`.
    """
    rates = (ema,) if isinstance(ema, float | int) or callable(ema) else tuple(ema)
    if any(not callable(rate) and not 0 <= rate < 1 for rate in rates):
        raise ValueError(f"ema is {ema}; rates must be in [0, 1)")
    if accumulate < 1:
        raise ValueError(f"accumulate is {accumulate}; it must be at least 1")
    if refresh < 0 or (refresh and not contextual):
        raise ValueError(f"refresh is {refresh}; it must be positive, and needs contextual=True")
    value_and_grad = _accumulated(loss, accumulate)

    def init(params: Any, frozen: Any = None) -> TrainState:
        copies = tuple(jax.tree.map(jnp.copy, params) for _ in rates)
        if frozen is None:
            frozen = jax.tree.map(jnp.copy, params) if refresh else ()
        step, skipped, row = (jnp.zeros((), jnp.int32) for _ in range(3))
        return TrainState(params, optimizer.init(params), copies, step, skipped, row, frozen)

    def step(key: Key, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        n, frozen = state.step - state.skipped, state.frozen
        if refresh:
            frozen = _where((n > 0) & (n % refresh == 0), state.params, frozen)
        context = (Context(n, state.ema, frozen),) if contextual else ()
        value, grads = value_and_grad(key, state.params, batch, *context)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averages = tuple(
            _mix(warmed_rate(rate, n), average, params) for rate, average in zip(rates, state.ema, strict=True)
        )
        old = (state.params, state.opt_state, state.ema)
        params, opt_state, averages = _where(finite, (params, opt_state, averages), old)
        bad = 1 - finite.astype(jnp.int32)
        skipped, row = state.skipped + bad, (state.row + 1) * bad
        state = TrainState(params, opt_state, averages, state.step + 1, skipped, row, frozen)
        return state, Metrics(value, norm, skipped, row)

    return Trainer(init, step)


def drop_label(key: Key, label: Array, null: int, rate: float) -> Array:
    """The label, or `null` with probability `rate`: one network learns the conditional and the unconditional score.

    Source: Ho and Salimans 2022, arXiv:2207.12598, algorithm 1, line 3.
    """
    return jnp.where(jax.random.bernoulli(key, rate), jnp.asarray(null, label.dtype), label)


def _example(model: Model, params: Any, example: Any) -> tuple[Denoiser, Array]:
    """The denoiser and the picture of one example; the entries beside `image` are the network's conditions."""
    if not isinstance(example, dict):
        return model(params), example
    given = {name: value for name, value in example.items() if name != "image"}
    denoise: Any = model(params)
    return denoise.given(**given) if given else denoise, example["image"]


def _keys(key: Key, batch: Any) -> Key:
    return jax.random.split(key, len(jax.tree.leaves(batch)[0]))


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
      The loss takes pictures (N, H, W, C) in [-1, 1], or a dict of `image` and conditions like `label`, (N, ...) each.
      log_sigma_mean, log_sigma_std: of `ln r`; sigma_data: the data's standard deviation.
    """

    def one(key: Key, params: Any, example: Any) -> Array:
        denoise, x0 = _example(model, params, example)
        level, noise = jax.random.split(key)
        r = jnp.exp(log_sigma_mean + log_sigma_std * jax.random.normal(level, (), x0.dtype))
        return _weighted_error(denoise, process, sigma_data, noise, x0, r)

    def loss(key: Key, params: Any, batch: Any) -> Array:
        return jnp.mean(jax.vmap(one, (0, None, 0))(_keys(key, batch), params, batch))

    return loss


def noise_levels_loss(model: Model, process: Process, levels: Array, sigma_data: float = 0.5) -> Loss:
    r"""`(key, params, batch) -> (levels,)`: `denoising_loss` at each noise level, for held-out data.

    The same key gives the same noise, so checkpoints compare with little variance. `levels`: `sigma/alpha`.
    """

    def one(key: Key, params: Any, example: Any) -> Array:
        denoise, x0 = _example(model, params, example)
        level = lambda r: _weighted_error(denoise, process, sigma_data, key, x0, r)
        return jax.lax.map(level, levels.astype(x0.dtype))

    def loss(key: Key, params: Any, batch: Any) -> Array:
        return jnp.mean(jax.vmap(one, (0, None, 0))(_keys(key, batch), params, batch), axis=0)

    return loss
