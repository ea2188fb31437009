r"""What every consistency loss stands on: contextual losses, distances, curricula and discretisations.

A consistency model is a denoiser `f(x_t, t)` that gives the end of the probability-flow ODE rather than the mean
`E[x_0 | x_t]`, with `f(x, 0) = x`. `NetworkDenoiser` has that boundary in every parametrisation but "x0": for "edm" it
is `c_skip(0) = 1, c_out(0) = 0` of Song et al. 2023, with 0 in the place of their epsilon. So a consistency model is a
`Prior` as it stands, and `samplers.renoise` samples it.

A loss here is `(key, params, batch, context) -> scalar`: give it to `train.trainer` with `contextual=True`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffinv import times
from diffinv.process import Explicit, HeatDissipation, Process
from diffinv.typing import Array, Denoiser, Key, Time

Model = Callable[[Any], Any]
Loss = Callable[[Key, Any, Any, Any], Array]
Metric = Callable[[Array, Array], Array]
Curriculum = Callable[[Array], Array]
Points = Callable[[Array], Array]


def square(a: Array, b: Array) -> Array:
    """The mean square difference. Source: Song et al. 2023, arXiv:2303.01469, section 4 (l2), per coordinate."""
    return jnp.mean((a - b) ** 2)


def pseudo_huber(c: float = 0.00054) -> Metric:
    r"""`sqrt(|a - b|^2 + c^2 D) - c sqrt(D)` over the whole sample of D coordinates; `c = 0` is the norm.

    Source: Song and Dhariwal 2023, arXiv:2310.14189, eq. 7. `c`: units of the data.
    """

    def metric(a: Array, b: Array) -> Array:
        floor = c * a.size**0.5
        total = jnp.sum((a - b) ** 2) + floor**2
        return jnp.where(total == 0, 0.0, jnp.sqrt(jnp.where(total == 0, 1.0, total)) - floor)

    return metric


def _count(step: Array) -> Array:
    return jnp.asarray(step).astype(jnp.int32)


def progressive(steps: int, s0: int = 2, s1: int = 150) -> Curriculum:
    r"""`step -> N(k) = ceil(sqrt(k/K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1` points, from s0 to s1 + 1 after K = `steps`.

    Source: Song et al. 2023, arXiv:2303.01469, appendix C.
    """

    def scales(step: Array) -> Array:
        share = jnp.minimum(jnp.asarray(step).astype(jnp.float32) / steps, 1.0)
        return _count(jnp.ceil(jnp.sqrt(share * ((s1 + 1) ** 2 - s0**2) + s0**2) - 1)) + 1

    return scales


def doubling(s0: int = 10, s1: int = 1280, every: int = 50_000) -> Curriculum:
    r"""`step -> N(k) = min(s0 2^floor(k / every), s1) + 1` points.

    Source: Song and Dhariwal 2023, arXiv:2310.14189, eq. 13, where `every = floor(K / (log2 floor(s1 / s0) + 1))` for
    K steps of training.
    """
    return lambda step: jnp.minimum(s0 * 2 ** jnp.minimum(_count(step) // every, 20), s1) + 1


def ema_rate(scales: Curriculum, s0: int = 2, mu0: float = 0.9) -> Callable[[Array], Array]:
    r"""`step -> mu(k) = exp(s0 ln(mu0) / N(k))`, the rate of CT's target network: an `ema` of the trainer.

    Source: Song et al. 2023, arXiv:2303.01469, appendix C. The authors' code divides by `N(k) - 1`.
    """
    return lambda step: jnp.exp(s0 * jnp.log(mu0) / scales(step).astype(jnp.float32))


def karras_level(u: Array, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Array:
    r"""`(sigma_max^{1/rho} + u (sigma_min^{1/rho} - sigma_max^{1/rho}))^rho`, and 0 where `u = 1`; noise-to-signal.

    Source: Karras et al. 2022, arXiv:2206.00364, eq. 5. Differs: the last level is 0, where the boundary is exact.
    """
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return jnp.where(u < 1, (high + u * (low - high)) ** rho, 0.0)


def karras_points(process: Process, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Points:
    """`u -> time` with the level `karras_level(u)`, u from 0 (noise) to 1 (time 0), of an isotropic process.

    Original. A discretisation of N points is `u = 0, 1/(N-1), ..., 1`. Raises ValueError for a blurring process.
    """
    isotropic(process, "karras_points")
    return lambda u: times.from_sigma(process, karras_level(u, sigma_min, sigma_max, rho))


def uniform(u: Array) -> Array:
    """`u -> 1 - u`: equal steps of the process's own time, for any process. Original."""
    return 1 - u


def ends_in_data(process: Process, name: str) -> None:
    """Raises ValueError for heat dissipation, whose time 0 is noisy: no map with `f(x, 0) = x` gives data."""
    if isinstance(process, HeatDissipation):
        raise ValueError(f"process is {type(process).__name__}, noisy at time 0; {name} needs sigma(0) = 0")


def isotropic(process: Process, name: str) -> None:
    """Raises ValueError where the noise level `sigma / alpha` is not one number, or does not end at 0."""
    ends_in_data(process, name)
    if jax.eval_shape(process.log_snr, 0.5).shape:
        raise ValueError(f"process is {type(process).__name__}; {name} needs one noise level a time: use ct or cd")


def require_boundary(denoise: Denoiser) -> Denoiser:
    """The denoiser, where `f(x, 0) = x` can hold.

    Raises ValueError for a network that predicts x0 itself, or a velocity that is infinite at time 0, as VP's.
    """
    network: Any = getattr(denoise, "denoise", denoise)
    said = getattr(network, "parametrisation", "")
    if said == "x0" or (said == "velocity" and not isinstance(network.process, Explicit)):
        process = type(network.process).__name__
        raise ValueError(f'parametrisation is "{said}", under which f(x, 0) = x does not hold for {process}; use "edm"')
    return denoise


def unpack(key: Key, example: Any, dropout: bool) -> tuple[Array, dict[str, Any]]:
    """The picture of one example and what the network is given: its labels and, for dropout, one key for both nets."""
    conditions = {} if not isinstance(example, dict) else {k: v for k, v in example.items() if k != "image"}
    rngs = {"rngs": {"dropout": key}} if dropout else {}
    return (example["image"] if isinstance(example, dict) else example), {**conditions, **rngs}


def seen(model: Model, params: Any, conditions: dict[str, Any]) -> Any:
    """The denoiser of `params` under `conditions`."""
    denoise: Any = require_boundary(model(params))
    return denoise.given(**conditions) if conditions else denoise


def taught(teacher: Model, context: Any, conditions: dict[str, Any]) -> Denoiser:
    """The teacher's denoiser, of the trainer's frozen weights, without dropout."""
    denoise = teacher(jax.lax.stop_gradient(context.frozen))
    conditions = {name: value for name, value in conditions.items() if name != "rngs"}
    return denoise.given(**conditions) if conditions else denoise


def target_weights(target: int | None, params: Any, context: Any) -> Any:
    """theta-: the trainer's average of that index, or the weights themselves for None; no gradient passes.

    Raises ValueError where there is no such average.
    """
    if target is not None and not 0 <= target < len(context.ema):
        raise ValueError(
            f"target is {target}; the trainer keeps {len(context.ema)} averages: give None or a lower index"
        )
    return jax.lax.stop_gradient(params if target is None else context.ema[target])


def count(batch: Any) -> int:
    """Examples in the batch."""
    return len(jax.tree.leaves(batch)[0])


def per_example(one: Callable[[Key, Any, Any, Any], Array]) -> Loss:
    """The mean over the batch of `one(key, params, example, context)`."""

    def loss(key: Key, params: Any, batch: Any, context: Any) -> Array:
        keys = jax.random.split(key, count(batch))
        return jnp.mean(jax.vmap(one, (0, None, 0, None))(keys, params, batch, context))

    return loss


def lognormal(key: Key, mean: float, std: float, like: Array) -> Array:
    """`exp(N(mean, std^2))`, a scalar in the dtype of `like`."""
    return jnp.exp(mean + std * jax.random.normal(key, (), like.dtype))


def noised(process: Process, key: Key, x0: Array, *at: Time) -> tuple[Array, ...]:
    """`alpha_t x_0 + sigma_t z` at each of the times, with one z: the trajectory that CT follows."""
    z = jax.random.normal(key, x0.shape, x0.dtype)
    return tuple(process.perturb(x0, t).at(z) for t in at)
