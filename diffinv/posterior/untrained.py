"""The deep image prior: the shape of an untrained network in the place of a prior."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffinv.checks import require_count, require_fit
from diffinv.describe import described
from diffinv.linalg import inner
from diffinv.measurement import Measurement
from diffinv.nn.hourglass import Hourglass
from diffinv.posterior.core.adam import adam
from diffinv.prior import Prior
from diffinv.typing import Array, Cost, Key, Sampler, StepInfo, Time


@described
class Fitted(NamedTuple):
    """The state of `deep_image_prior`.

    Attributes:
      params: of the network.
      optimizer: the state of Adam.
      z: the network's input, which stays.
      x: the picture that the network last gave.
    """

    params: Any
    optimizer: optax.OptState
    z: Array
    x: Array


def _plane(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape of a sample as that of a picture; a vector stands upright."""
    height, width, channels = (*shape, 1, 1)[:3]
    if len(shape) > 3:
        raise ValueError(f"the prior's shape is {shape}; deep_image_prior takes pictures, (H, W, C): use tiles or dps")
    return height, width, channels


def deep_image_prior(
    prior: Prior,
    measurement: Measurement,
    lr: Array | float = 0.01,
    jitter: Array | float = 0.03,
    channels: int = 32,
    levels: int = 3,
) -> Sampler:
    r"""Deep image prior: a network f of drawn weights learns this one measurement from a fixed input of noise.

        theta <- theta - adam(grad_theta |y - A f_theta(z + jitter n)|^2),   z ~ U(0, 0.1),  n ~ N(0, I)

    one descent a step. It comes by the picture before it comes by the noise, so that it has to stop early: where the
    grid ends, after 1000 steps, say. Of the prior it takes the shape alone; weights and input are drawn from the key,
    and a start is not looked at.

    Noise: least squares, whatever the law.

    Source: Ulyanov et al. 2018, arXiv:1711.10925, eq. 2 and its supplement (32 channels of input, Adam at 0.01, jitter
    of 0.03). Differs: a smaller network, `nn.hourglass`, and the last picture
    where theirs may average.

    Args:
      measurement: any differentiable operator.
      lr: of Adam, dimensionless.
      jitter: deviation of the noise on the input, dimensionless.
      channels: of the network; static.
      levels: how often it halves the picture; static.

    Raises ValueError for a count under 1, a shape that is no picture's, or a y that does not fit.
    """
    measurement = require_fit(prior, measurement, "deep_image_prior")
    require_count("channels", channels)
    require_count("levels", levels)
    (height, width, colours), optimizer = _plane(prior.shape), adam(lr)
    network = Hourglass(channels, levels, out_channels=colours)
    padded = [-(-side // 2**levels) * 2**levels for side in (height, width)]

    def picture(params: Any, z: Array) -> Array:
        out: Any = network.apply(params, z)
        return out[:height, :width].reshape(prior.shape)

    def init(key: Key, t: Time, x: Array | None) -> Fitted:
        weights, noise = jax.random.split(key)
        z = jax.random.uniform(noise, (*padded, channels), jnp.finfo(measurement.y.dtype).dtype, 0.0, 0.1)
        params = network.init(weights, z)
        return Fitted(params, optimizer.init(params), z, picture(params, z))

    def loss(params: Any, z: Array) -> tuple[Array, Array]:
        x = picture(params, z)
        r = measurement.residual(x)
        return inner(r, r), x

    def step(key: Key, state: Fitted, t: Time, s: Time) -> tuple[Fitted, StepInfo]:
        n = jax.random.normal(key, state.z.shape, state.z.dtype)
        (fit, x), gradient = jax.value_and_grad(loss, has_aux=True)(state.params, state.z + jitter * n)
        updates, moved = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return Fitted(params, moved, state.z, x), StepInfo(Cost(nfe=0, calls=2), jnp.sqrt(fit))

    return Sampler(init, step, lambda key, state: state.x)
