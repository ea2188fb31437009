r"""What lies between a network as its authors have it and `NetworkDenoiser`: its layout, its times, its framework.

    apply, params = adapters.from_nnx(model)                  # or from_equinox(model), onnx.network(path), net.apply
    denoise = di.NetworkDenoiser(params, process, adapters.channels_first(apply), "eps", adapters.whole_index)

`apply` is `(params, x, time, **given) -> output` of one example, channels last; what wraps one returns one. All compare
by value, so that the same network made twice is compiled once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from diffinv.callables import by_value
from diffinv.process import Process
from diffinv.typing import Array, Sample, Time

Apply = Callable[..., Array]


def _single(apply: Apply, first: bool, params: Any, x: Sample, time: Array, **given: Any) -> Sample:
    x = jnp.moveaxis(x, -1, 0) if first else x
    given = {name: jnp.asarray(value)[None] for name, value in given.items()}
    out = apply(params, x[None], jnp.asarray(time)[None], **given)
    out = (out[0] if isinstance(out, tuple) else out)[0]
    return jnp.moveaxis(out, 0, -1) if first else out


def channels_first(apply: Apply) -> Apply:
    """The network of one (H, W, C), out of one of a batch of (C, H, W), as PyTorch has them; of any number of axes.

    It gets (1, C, H, W), the time as (1,), and other conditions with an axis of 1 before theirs; of several outputs the
    first is taken. A batch is `vmap`'s.
    """
    return by_value(partial(_single, apply, True))


def batch_of_one(apply: Apply) -> Apply:
    """The network of one example, out of one of a batch whose channels are last: as `channels_first` otherwise."""
    return by_value(partial(_single, apply, False))


def _negated(apply: Apply, params: Any, x: Sample, time: Array, **given: Any) -> Sample:
    return -apply(params, x, time, **given)


def negated(apply: Apply) -> Apply:
    """The network with its sign turned: a velocity from noise to data, as flow matching often has it, becomes ours."""
    return by_value(partial(_negated, apply))


def _merged(definition: nnx.GraphDef, params: nnx.State, x: Sample, time: Array, **given: Any) -> Sample:
    return nnx.merge(definition, params)(x, time, **given)


def from_nnx(model: nnx.Module) -> tuple[Apply, nnx.State]:
    """`(apply, params)` of a Flax NNX module `(x, time, **given) -> output`; `params` is its whole state.

    Call `model.eval()` before, where it has dropout or batch statistics.
    """
    definition, state = nnx.split(model)
    return by_value(partial(_merged, definition)), state


def _combined(static: Any, params: Any, x: Sample, time: Array, **given: Any) -> Sample:
    import equinox as eqx

    return eqx.combine(params, static)(x, time, **given)


def from_equinox(model: Any) -> tuple[Apply, Any]:
    """`(apply, params)` of an Equinox module `(x, time, **given) -> output`; `params` is the module's arrays.

    Needs equinox. Give `eqx.nn.inference_mode(model)` where it has dropout. Equinox's own layers want channels first:
    `channels_first` adds a batch axis, too, and is not meant for them; move the axes inside the module.
    """
    import equinox as eqx

    params, static = eqx.partition(model, eqx.is_array)
    return by_value(partial(_combined, static)), params


def noise_level(process: Process, t: Time) -> Array:
    """`sigma_t / alpha_t`, in units of the data: what networks of the variance-exploding process are told."""
    return process.sigma(t) / process.alpha(t)


def log_noise(process: Process, t: Time) -> Array:
    """`log(sigma_t / alpha_t)`; `-inf` at time 0. Song et al. 2021's NCSN++ is told this under VE."""
    return -0.5 * process.log_snr(t)


def log_half_noise(process: Process, t: Time) -> Array:
    """`log(sigma_t / (2 alpha_t))`, what Karras et al. 2022 (table 1) tell the networks of Song et al. under VE."""
    return log_noise(process, t) - jnp.log(2.0)


def quarter_log_noise(process: Process, t: Time) -> Array:
    """`log(sigma_t / alpha_t) / 4`, what the networks of Karras et al. 2022 (table 1) are told inside."""
    return 0.25 * log_noise(process, t)


def signal_to_noise(process: Process, t: Time) -> Array:
    """`log(alpha_t^2 / sigma_t^2)`, of variational diffusion models (Kingma et al. 2021); `+inf` at time 0."""
    return process.log_snr(t)


def scaled_time(factor: float, process: Process, t: Time) -> Array:
    """`factor t`: 999 for score_sde's VP networks, 1000 for many flows. Give `partial(scaled_time, 40.0)`."""
    return factor * jnp.asarray(t)


def reversed_time(process: Process, t: Time) -> Array:
    """`1 - t`, of flows whose data are at time 1; their velocity wants `negated`, too."""
    return 1 - jnp.asarray(t)


def step_index(steps: int, process: Process, t: Time) -> Array:
    """`steps t - 1`: the index of a DDPM network of that many steps. Give `partial(step_index, 4000)`."""
    return steps * jnp.asarray(t) - 1


def whole_index(process: Process, t: Time) -> Array:
    """The nearest of 0 to 999 to `1000 t - 1`, int32: for networks that look their step up in a table."""
    return jnp.clip(jnp.round(step_index(1000, process, t)), 0, 999).astype(jnp.int32)


TIMES: dict[str, Callable[[Process, Time], Array]] = {
    "index": partial(step_index, 1000),
    "whole_index": whole_index,
    "unit": partial(scaled_time, 1.0),
    "thousand": partial(scaled_time, 1000.0),
    "score_sde": partial(scaled_time, 999.0),
    "reversed": reversed_time,
    "sigma": noise_level,
    "log_sigma": log_noise,
    "log_half_sigma": log_half_noise,
    "edm": quarter_log_noise,
    "log_snr": signal_to_noise,
}
"""What a network may be told of the time, by name, as cards have it: `(process, t) -> scalar`."""
