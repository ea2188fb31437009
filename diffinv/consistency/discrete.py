r"""Consistency losses between two times: CT, CD, iCT and ECT.

All compare `f_theta(x_t, t)` with `sg f_theta-(x_s, s)` at `s < t` on one trajectory; they differ in where the times
lie, in what moves `x_t` to `x_s`, in the distance and in the weight.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri

from diffinv import samplers, times
from diffinv.consistency import base
from diffinv.consistency.base import Curriculum, Loss, Metric, Model, Points
from diffinv.prior import Prior
from diffinv.process import Process
from diffinv.typing import Array, Key


def _compare(
    metric: Metric,
    model: Model,
    params: Any,
    conditions: dict[str, Any],
    here: tuple,
    there: tuple,
    weights: Any = None,
) -> Array:
    """`d(f_theta(x_t, t), sg f_theta-(x_s, s))`; theta- are the weights themselves where `weights` is None."""
    online = base.seen(model, params, conditions)
    offline = base.seen(model, params if weights is None else weights, conditions)
    return metric(online(*here), jax.lax.stop_gradient(offline(*there)))


def _neighbours(key: Key, points: Points, n: Array, like: Array) -> tuple[Array, Array]:
    """Two neighbouring times of a discretisation of n points, drawn uniformly."""
    i = jax.random.randint(key, (), 0, n - 1)
    fraction = lambda i: i.astype(like.dtype) / (n - 1).astype(like.dtype)
    return points(fraction(i)), points(fraction(i + 1))


def ct(
    model: Model,
    process: Process,
    points: Points,
    scales: Curriculum,
    metric: Metric = base.square,
    target: int | None = 0,
    dropout: bool = False,
) -> Loss:
    r"""Consistency training, on neighbouring times of a grid that grows finer:

        d(f_theta(alpha_t x_0 + sigma_t z, t), sg f_theta-(alpha_s x_0 + sigma_s z, s)),   i ~ U{0..N(k) - 2}.

    Source: Song et al. 2023, arXiv:2303.01469, algorithm 3, lambda = 1. Differs: the grid ends at 0 rather than at
    0.002; the published distance is LPIPS, an argument here. Any process with `sigma(0) = 0`, Blurring too.

    Args:
      model: `params -> Denoiser`; points: `u -> time`, see `karras_points` and `uniform`.
      scales: `step -> N(k)`, see `progressive`; metric: `(a, b) -> scalar`.
      target: index of the trainer's average, published with the rate `ema_rate(scales)`; None for the weights; static.
      dropout: one dropout key for both networks; static. The batch is that of `train.denoising_loss`.

    Raises ValueError for heat dissipation, whose time 0 is noisy.
    """
    base.ends_in_data(process, "ct")

    def one(key: Key, params: Any, example: Any, context: Any) -> Array:
        index, noise, drop = jax.random.split(key, 3)
        x0, conditions = base.unpack(drop, example, dropout)
        t, s = _neighbours(index, points, scales(context.step), x0)
        x_t, x_s = base.noised(process, noise, x0, t, s)
        weights = base.target_weights(target, params, context)
        return _compare(metric, model, params, conditions, (x_t, t), (x_s, s), weights)

    return base.per_example(one)


def cd(
    model: Model,
    process: Process,
    points: Points,
    scales: Curriculum,
    teacher: Model,
    metric: Metric = base.square,
    target: int | None = 0,
    dropout: bool = False,
) -> Loss:
    r"""Consistency distillation: as `ct`, with `x_s` one step of Heun's rule from `x_t` by the teacher's denoiser.

    Source: Song et al. 2023, arXiv:2303.01469, algorithm 2. Differs: as `ct`. Any process with `sigma(0) = 0`.

    Args:
      teacher: `params -> Denoiser`, of the trainer's frozen weights: `init(params, frozen=teacher_params)`.
      scales: published is a constant, 18 points on CIFAR-10 and 40 on ImageNet 64. The others are those of `ct`.

    Raises ValueError for heat dissipation, whose time 0 is noisy.
    """
    base.ends_in_data(process, "cd")

    def one(key: Key, params: Any, example: Any, context: Any) -> Array:
        index, noise, drop = jax.random.split(key, 3)
        x0, conditions = base.unpack(drop, example, dropout)
        t, s = _neighbours(index, points, scales(context.step), x0)
        (x_t,) = base.noised(process, noise, x0, t)
        prior = Prior(process, base.taught(teacher, context, conditions), x0.shape)
        x_s, _ = samplers.heun(prior).step(key, x_t, t, s)
        weights = base.target_weights(target, params, context)
        return _compare(metric, model, params, conditions, (x_t, t), (x_s, s), weights)

    return base.per_example(one)


def lognormal_index(
    key: Key, n: Array, like: Array, mean: float, std: float, sigma_min: float, sigma_max: float, rho: float
) -> Array:
    r"""i in 0..n-2 with `p(i) ~ Phi((ln sigma_i - mean)/std) - Phi((ln sigma_{i+1} - mean)/std)`, sigma falling.

    Source: Song and Dhariwal 2023, arXiv:2310.14189, eq. 10. Differs: drawn as the interval of Karras's grid into which
    a truncated lognormal level falls, the same law without a table, so that n may grow under `jit`.
    """
    low, high = (ndtr((jnp.log(jnp.asarray(s, like.dtype)) - mean) / std) for s in (sigma_min, sigma_max))
    level = jnp.exp(mean + std * ndtri(jax.random.uniform(key, (), like.dtype, low, high)))
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    place = (first - level ** (1 / rho)) / (first - last) * (n - 1).astype(like.dtype)
    return jnp.clip(jnp.floor(place).astype(jnp.int32), 0, n - 2)


def ict(
    model: Model,
    process: Process,
    scales: Curriculum,
    metric: Metric | None = None,
    log_sigma_mean: float = -1.1,
    log_sigma_std: float = 2.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    dropout: bool = False,
) -> Loss:
    r"""Improved consistency training: no average in the target, lognormal levels, pseudo-Huber, doubling:

        d(f_theta(x_t, t), sg f_theta(x_s, s)) / (sigma_t - sigma_s).

    Source: Song and Dhariwal 2023, arXiv:2310.14189, table 1 and eq. 7 to 13. Differs: the last of the N points is 0
    rather than 0.002. Isotropic processes, sigma read as sigma / alpha.

    Args:
      scales: `step -> N(k)`, see `doubling`; metric: None is `pseudo_huber()`.
      log_sigma_mean, log_sigma_std, sigma_min, sigma_max, rho: of the levels. dropout: as in `ct`.

    Raises ValueError for a process with more than one noise level a time.
    """
    base.isotropic(process, "ict")
    grid, metric = (sigma_min, sigma_max, rho), metric or base.pseudo_huber()

    def one(key: Key, params: Any, example: Any, context: Any) -> Array:
        index, noise, drop = jax.random.split(key, 3)
        x0, conditions = base.unpack(drop, example, dropout)
        n = scales(context.step)
        i = lognormal_index(index, n, x0, log_sigma_mean, log_sigma_std, *grid)
        level = base.karras_level(jnp.stack([i, i + 1]).astype(x0.dtype) / (n - 1).astype(x0.dtype), *grid)
        t, s = times.from_sigma(process, level)
        x_t, x_s = base.noised(process, noise, x0, t, s)
        return _compare(metric, model, params, conditions, (x_t, t), (x_s, s)) / (level[0] - level[1])

    return base.per_example(one)


def ect_gap(level: Array, stage: Array, q: float = 2.0, k: float = 8.0, b: float = 1.0) -> Array:
    r"""`t - r(t) = t min(1, n(t) / q^{stage + 1})`, `n(t) = 1 + k sigmoid(-b t)`: where it is t, r is 0.

    Source: Geng et al. 2024, arXiv:2406.14548, section 3 (continuous-time schedule with sigmoid).
    """
    return level * jnp.minimum(1.0, (1 + k * jax.nn.sigmoid(-b * level)) * q ** -(stage.astype(level.dtype) + 1))


def ect(
    model: Model,
    process: Process,
    every: int,
    q: float = 2.0,
    c: float = 0.0,
    k: float = 8.0,
    b: float = 1.0,
    log_sigma_mean: float = -1.1,
    log_sigma_std: float = 2.0,
    metric: Metric | None = None,
    dropout: bool = False,
) -> Loss:
    r"""Easy consistency tuning, from the weights of a diffusion model:

        d(f_theta(x_t, t), sg f_theta(x_r, r)) / (t - r),   r = t - ect_gap(t, floor(step / every)),

    d the pseudo-Huber distance. Where r = 0 the target is x_0: diffusion training, which it leaves stage by stage.

    Source: Geng et al. 2024, arXiv:2406.14548, algorithm 1 and section 4. Isotropic processes, t and r read as
    sigma / alpha.

    Args:
      every: steps a stage (published: 250 ticks of 12,800 images).
      q, k, b: of the mapping (q = 2 on CIFAR-10, 4 on ImageNet 64, 256 for its one-hour run).
      c: of the distance, over the whole sample, in units of the data; metric: another distance in its place.
      log_sigma_mean, log_sigma_std: of ln t. dropout: as in `ct`.

    Raises ValueError for a process with more than one noise level a time.
    """
    base.isotropic(process, "ect")
    distance = metric or (lambda a, b: base.pseudo_huber(c / a.size**0.5)(a, b))

    def one(key: Key, params: Any, example: Any, context: Any) -> Array:
        level, noise, drop = jax.random.split(key, 3)
        x0, conditions = base.unpack(drop, example, dropout)
        sigma = base.lognormal(level, log_sigma_mean, log_sigma_std, x0)
        gap = ect_gap(sigma, context.step // every, q, k, b)
        t, s = times.from_sigma(process, jnp.stack([sigma, sigma - gap]))
        x_t, x_s = base.noised(process, noise, x0, t, s)
        return _compare(distance, model, params, conditions, (x_t, t), (x_s, s)) / gap

    return base.per_example(one)
