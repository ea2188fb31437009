r"""Losses of an infinitesimal step: sCM in the trigonometric chart; MeanFlow and shortcut models in rectified flow's.

Every isotropic process is a rescaling and a change of clock of the other two:

    trigonometric:  x_t s / w = cos(a) x_0 + sin(a) s z,   w^2 = sigma^2 + alpha^2 s^2,  tan(a) = sigma / (alpha s),
    flow:           x_t / n   = (1 - l) x_0 + l z,         n = alpha + sigma,             l = sigma / n,

s = sigma_data. So the papers' formulas run on any of them, with the denoiser as the network, and time derivatives
through the process's own clock. They are forward-mode: a network needs convolutions that have them
(`nn.unet.UNet(plain_conv=True)`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffinv import times
from diffinv.consistency import base
from diffinv.consistency.base import Loss, Model
from diffinv.linalg import added, norm
from diffinv.process import Process
from diffinv.typing import Array, Denoiser, Key, Time

LogWeight = Callable[[Any, Array], Array]


def angle(process: Process, t: Time, sigma_data: float) -> Array:
    """`a = arctan(sigma / (alpha sigma_data))`, TrigFlow's time in [0, pi/2]. Source: Lu and Song 2024, eq. 2."""
    return jnp.arctan2(process.sigma(t), sigma_data * process.alpha(t))


def level(process: Process, t: Time) -> Array:
    """`l = sigma / (alpha + sigma)`, rectified flow's time in [0, 1]."""
    return process.sigma(t) / (process.alpha(t) + process.sigma(t))


def at_level(process: Process, where: Array) -> Array:
    """The process's time at rectified flow's time `where`."""
    return times.from_sigma(process, where / (1 - where))


def _rate(clock: Callable[[Array], Array], t: Array) -> tuple[Array, Array]:
    """A clock's reading and its derivative at t."""
    return jax.jvp(clock, (t,), (jnp.ones_like(t),))


def _trigonometric(denoise: Denoiser, process: Process, sigma_data: float, y: Array, t: Array) -> Array:
    """TrigFlow's network: F in `f = cos(a) y - sin(a) s F`, of the chart's state y."""
    a = angle(process, t, sigma_data)
    radius = jnp.sqrt((process.sigma(t) / sigma_data) ** 2 + process.alpha(t) ** 2)
    return (jnp.cos(a) * y - denoise(radius * y, t)) / (sigma_data * jnp.sin(a))


def scm(
    model: Model,
    process: Process,
    log_sigma_mean: float = -1.0,
    log_sigma_std: float = 1.4,
    sigma_data: float = 0.5,
    warmup: int = 10_000,
    constant: float | None = 0.1,
    teacher: Model | None = None,
    log_weight: LogWeight | None = None,
    dropout: bool = False,
) -> Loss:
    r"""Simplified continuous-time consistency training (sCT), or distillation (sCD) where there is a teacher:

        e^{w(a)} / D |F_theta - F_theta- - g / (|g| + c)|^2 - w(a),
        g = -cos(a)^2 (s F_theta- - dy/da) - r cos(a) sin(a) (y + s dF_theta-/da),   r = min(1, k / warmup),

    in the trigonometric chart, `dy/da = cos(a) s z - sin(a) x_0`, with the teacher's denoised mean in the place of x_0
    for sCD. At r = 1 `g = cos(a) df/da`, so the gradient is that of the discrete loss over `s tan(a)` as s -> t.

    Source: Lu and Song 2024, arXiv:2410.11081, algorithm 1. Differs: any isotropic process, whose denoiser keeps its
    own time embedding. `theta-` are the weights themselves.

    Args:
      log_sigma_mean, log_sigma_std: of `ln(sigma / alpha)`; sigma_data: s, units of the data.
      warmup: steps H of the tangent's second part; 0 for none, static.
      constant: c of the tangent's normalisation; None leaves g as it is; static.
      teacher: `params -> Denoiser`, of the trainer's frozen weights.
      log_weight: `(params, a) -> w`, the adaptive weight, learned with the rest; None is 0.
      dropout: as in `discrete.ct`.

    Raises ValueError for a process with more than one noise level a time.
    """
    base.isotropic(process, "scm")

    def tangent(frozen: Denoiser, y: Array, t: Array, velocity: Array, ramp: Array) -> tuple[Array, Array]:
        a, rate = _rate(lambda t: angle(process, t, sigma_data), t)
        cosine, both = jnp.cos(a), jnp.cos(a) * jnp.sin(a)
        network = lambda y, t: _trigonometric(frozen, process, sigma_data, y, t)
        out, change = jax.jvp(network, (y, t), (both * velocity, both / rate))
        g = -(cosine**2) * (sigma_data * out - velocity) - ramp * (both * y + sigma_data * change)
        return out, g if constant is None else g / (norm(g) + constant)

    def one(key: Key, params: Any, example: Any, context: Any) -> Array:
        place, noise, drop = jax.random.split(key, 3)
        x0, conditions = base.unpack(drop, example, dropout)
        t = times.from_sigma(process, base.lognormal(place, log_sigma_mean, log_sigma_std, x0))
        (x_t,) = base.noised(process, noise, x0, t)
        a = angle(process, t, sigma_data)
        y = x_t / jnp.sqrt((process.sigma(t) / sigma_data) ** 2 + process.alpha(t) ** 2)
        clean = x0 if teacher is None else base.taught(teacher, context, conditions)(x_t, t)
        velocity = (jnp.cos(a) * y - clean) / jnp.sin(a)
        ramp = jnp.minimum(1.0, context.step.astype(x0.dtype) / warmup) if warmup else jnp.ones((), x0.dtype)
        frozen = base.seen(model, jax.lax.stop_gradient(params), conditions)
        goal = jax.lax.stop_gradient(jnp.add(*tangent(frozen, y, t, velocity, ramp)))
        out = _trigonometric(base.seen(model, params, conditions), process, sigma_data, y, t)
        w = jnp.zeros_like(a) if log_weight is None else log_weight(params, a)
        return jnp.exp(w) * jnp.mean((out - goal) ** 2) - w

    return base.per_example(one)


def average_velocity(denoise: Denoiser, process: Process, z: Array, t: Array) -> Array:
    """`u = (z - g) / l` of a denoiser g told where to go, in rectified flow's chart; for Flow, the network's output.

    Original, from `x_s = x_t - (t - s) u`.
    """
    return (z - denoise((process.alpha(t) + process.sigma(t)) * z, t)) / level(process, t)


def meanflow(
    model: Model,
    process: Process,
    mean: float = -0.4,
    std: float = 1.0,
    distinct: float = 0.25,
    power: float = 1.0,
    constant: float = 0.01,
    teacher: Model | None = None,
    dropout: bool = False,
) -> Loss:
    r"""MeanFlow: the average velocity u between two times, by the identity that its derivative obeys:

        |u_theta - sg(v - (t - r) du/dt)|^2 / sg(|.|^2 + c)^p,   du/dt = jvp(u_theta, (z, t, r), (v, 1, 0)),

    `v = noise - x_0`, in rectified flow's chart; `r = t` is flow matching, and `z - u(z, 1, 0)` is one step.

    Source: Geng et al. 2025, arXiv:2505.13447, algorithm 1 and eq. 22. Differs: any isotropic process; the network is
    told r rather than `t - r`; no classifier-free guidance inside.

    Args:
      model: `params -> FlowMap`, whose `to(s)` is the denoiser told s; see `maps.FlowMap`.
      mean, std: of the logit-normal from which both times are drawn; distinct: probability that r differs from t.
      power, constant: p and c of the weight. The published ones for CIFAR-10: -2, 2, 0.75, 0.75, 0.01.
      teacher: `params -> Denoiser`, of the frozen weights, for v = z - D; dropout: as in `discrete.ct`.

    Raises ValueError for a process with more than one noise level a time.
    """
    base.isotropic(process, "meanflow")

    def one(key: Key, params: Any, example: Any, context: Any) -> Array:
        place, same, noise, drop = jax.random.split(key, 4)
        x0, conditions = base.unpack(drop, example, dropout)
        pair = jax.nn.sigmoid(mean + std * jax.random.normal(place, (2,), x0.dtype))
        low = jnp.where(jax.random.bernoulli(same, distinct), jnp.min(pair), jnp.max(pair))
        t, s = at_level(process, jnp.stack([jnp.max(pair), low]))
        (x_t,) = base.noised(process, noise, x0, t)
        now, rate = _rate(lambda t: level(process, t), t)
        z = x_t / (process.alpha(t) + process.sigma(t))
        clean = x0 if teacher is None else base.taught(teacher, context, conditions)(x_t, t)
        velocity = (z - clean) / now
        u = lambda weights: lambda z, t: average_velocity(base.seen(model, weights, conditions).to(s), process, z, t)
        change = jax.jvp(u(jax.lax.stop_gradient(params)), (z, t), (velocity, 1 / rate))[1]
        target = jax.lax.stop_gradient(velocity - (now - level(process, s)) * change)
        error = jnp.sum((u(params)(z, t) - target) ** 2)
        return error / jax.lax.stop_gradient(error + constant) ** power

    return base.per_example(one)


def shortcut(
    model: Model,
    process: Process,
    sections: int = 128,
    bootstrap: float = 0.125,
    clip: float = 4.0,
    dropout: bool = False,
) -> Loss:
    r"""Shortcut models: flow matching at the shortest step, and for a share of the batch two steps in one:

        |u(x, t, d) - sg clip((u'(x, t, d/2) + u'(x - d/2 u', t - d/2, d/2)) / 2)|^2,   u' of the average weights,

    `d = 1, 1/2, ..., 2/sections`, t a multiple of d; the rest is `|u(x, t, 1/sections) - (z - x_0)|^2`. All in
    rectified flow's chart, time in units of the process's last level (1 for Flow).

    with `x - d/2 u'` clipped, too, as in their code.

    Source: Frans et al. 2024, arXiv:2410.12557, algorithm 1. Differs: time runs from noise (1) to data; the network is
    told `s = t - d` rather than d; any isotropic process; steps d are drawn, where their code deals them out evenly
    over the batch, and its data end keeps 1e-5 of the noise.

    Args:
      model: `params -> FlowMap`; see `maps.FlowMap`.
      sections: a power of 2, static; bootstrap: share of the batch, at least one example.
      clip: of the target and of the state halfway, static.
      dropout: as in `discrete.ct`.

    Raises ValueError for a process with more than one noise level a time, or `sections` that is no power of 2.
    """
    base.isotropic(process, "shortcut")
    if sections < 2 or sections & (sections - 1):
        raise ValueError(f"sections is {sections}; it must be a power of 2, at least 2")
    halvings = sections.bit_length() - 1

    def velocity(params: Any, conditions: dict, z: Array, start: Array, to: Array) -> Array:
        t, s = at_level(process, jnp.stack([start, to]))
        return average_velocity(base.seen(model, params, conditions).to(s), process, z, t)

    def example(key: Key, item: Any, d: Array) -> tuple[Array, Array, Array, Array, dict]:
        """State, velocity, time, step and conditions at a random multiple of the step d."""
        place, noise, drop = jax.random.split(key, 3)
        x0, conditions = base.unpack(drop, item, dropout)
        last, d = level(process, jnp.ones((), x0.dtype)), d.astype(x0.dtype)
        k = jax.random.uniform(place, (), x0.dtype, 0, 1 / d)
        now = last * (1 - jnp.floor(k) * d)
        z = jax.random.normal(noise, x0.shape, x0.dtype)
        return (1 - now) * x0 + now * z, z - x0, now, last * d, conditions

    def matched(key: Key, params: Any, item: Any, context: Any) -> Array:
        x, v, now, d, conditions = example(key, item, jnp.asarray(1 / sections))
        return jnp.mean((velocity(params, conditions, x, now, now - d) - v) ** 2)

    def doubled(key: Key, params: Any, item: Any, context: Any) -> Array:
        half, key = jax.random.split(key)
        i = jax.random.randint(half, (), 0, halvings)
        x, _, now, d, conditions = example(key, item, 0.5 ** i.astype(jnp.float32))
        weights = base.target_weights(0, params, context)
        first = velocity(weights, conditions, x, now, now - d / 2)
        halfway = jnp.clip(x - d / 2 * first, -clip, clip)
        second = velocity(weights, conditions, halfway, now - d / 2, now - d)
        target = jax.lax.stop_gradient(jnp.clip((first + second) / 2, -clip, clip))
        return jnp.mean((velocity(params, conditions, x, now, now - d) - target) ** 2)

    def loss(key: Key, params: Any, batch: Any, context: Any) -> Array:
        total = base.count(batch)
        some = max(1, round(bootstrap * total)) if bootstrap else 0
        values, parts = [], ((doubled, slice(0, some)), (matched, slice(some, total)))
        for place, (one, rows) in enumerate(parts):
            if share := (rows.stop - rows.start) / total:
                part = jax.tree.map(lambda a, rows=rows: a[rows], batch)
                values.append(share * base.per_example(one)(jax.random.fold_in(key, place), params, part, context))
        return added(values)

    return loss
