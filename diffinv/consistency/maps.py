r"""Maps between any two times: CTM and IMM, the network with a second time, and the sampler that uses it.

A flow map is written in x0 form, `x_s = G(x_t, t, s) = q(x_s | x_t, g(x_t, t, s))` with DDIM's step: at `s = t` g is
the denoiser, at `s = 0` it is the consistency map. So every such network is a `Prior` by way of s = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffinv import samplers, times
from diffinv.callables import by_value
from diffinv.consistency import base
from diffinv.consistency.base import Loss, Metric, Model
from diffinv.describe import Described
from diffinv.linalg import norm
from diffinv.loop import markov
from diffinv.prior import PRECONDITIONED, NetworkDenoiser, Prediction, Prior
from diffinv.process import Process
from diffinv.typing import Array, Gaussian, Key, Sampler, StepInfo, Time

Kernel = Callable[[Array, Array, Array], Array]


def second_channel(apply: Callable[..., Array]) -> Callable[..., Array]:
    """`(params, x, condition, second=c) -> apply(params, [x, c], condition)`: the second time as one more channel.

    It suits every network; initialise it with one channel more than the picture's, (H, W, C + 1).
    """
    return by_value(partial(_with_plane, apply))


def _with_plane(apply: Any, params: Any, x: Array, condition: Array, second: Array, **given: Any) -> Array:
    plane = jnp.broadcast_to(jnp.asarray(second).astype(x.dtype), (*x.shape[:-1], 1))
    return apply(params, jnp.concatenate([x, plane], -1), condition, **given)


@struct.dataclass
class FlowMap(Described):
    """A network with a second time: `to(s)` is the denoiser `g(., ., s)`; called, it goes to 0, a consistency model.

    Attributes:
      denoise: a `NetworkDenoiser` whose `apply` takes `second`, what its `condition` is for the first time
        (`log(sigma_s / alpha_s) / 4` within its bounds for "edm" and "boundary"); see `second_channel`.
    """

    denoise: NetworkDenoiser

    def to(self, s: Time) -> NetworkDenoiser:
        """The denoiser told that it goes to time `s`."""
        network = self.denoise
        if network.parametrisation in PRECONDITIONED:
            low, high = network.bounds
            second = jnp.clip(-0.5 * network.process.log_snr(s), jnp.log(low), jnp.log(high)) / 4
        else:
            second = network.condition(network.process, s)
        return network.given(second=second)

    def given(self, **condition: Any) -> FlowMap:
        """The same network under `condition`."""
        return replace(self, denoise=self.denoise.given(**condition))

    @property
    def process(self) -> Process:
        """The network's own."""
        return self.denoise.process

    def predict(self, x: Array, t: Time) -> Prediction:
        """`Prediction(x0, v)` of the network that goes to 0."""
        return self.to(jnp.zeros_like(jnp.asarray(t))).predict(x, t)

    def __call__(self, x: Array, t: Time) -> Array:
        return self.predict(x, t).x0


def jump(process: Process, x: Array, x0: Array, t: Time, s: Time) -> Array:
    """DDIM's step `alpha_s x_0 + sigma_s / sigma_t (x_t - alpha_t x_0)`, and `x` itself where t = s = 0.

    Source: Song et al. 2021, arXiv:2010.02502, eq. 12; CTM's eq. 9 and IMM's eq. 5.
    """
    sigma = process.sigma(t)
    ratio = jnp.where(sigma > 0, process.sigma(s) / jnp.where(sigma > 0, sigma, 1.0), 1.0)
    return process.alpha(s) * x0 + ratio * (x - process.alpha(t) * x0)


def _travel(flow: Any, process: Process, x: Array, t: Array, s: Array, floor: Array) -> Array:
    """`G(x, t, s)`, the identity where t is 0 (the network then sees `floor`)."""
    here = jnp.where(t > 0, t, floor)
    return jnp.where(t > 0, jump(process, x, flow.to(s)(x, here), here, s), x)


def _solved(prior: Prior, key: Key, x: Array, grid: Array, first: Array, last: Array) -> Array:
    """Heun's rule from the grid's time `first` to its time `last`."""
    step = samplers.heun(prior).step
    return jax.lax.fori_loop(first, last, lambda i, x: step(key, x, grid[i], grid[i + 1])[0], x)


def ctm(
    model: Model,
    process: Process,
    grid: Array,
    teacher: Model | None = None,
    jumps: int | None = None,
    metric: Metric = base.square,
    denoising: float = 1.0,
    sigma_data: float = 0.5,
    dropout: bool = False,
) -> Loss:
    r"""Consistency trajectory models: two ways from `x_t` to s, compared at time 0, and denoising at s = t:

        d(G'(G_theta(x_t, t, s), s, 0), sg G'(G_theta(x_u, u, s), s, 0)) + b lambda(t) |g_theta(x_t, t, t) - x_0|^2,

    `t > u >= s` on the grid, `x_u` the teacher's solution from `x_t` over h steps with `p(h) ~ h`, G' of the average
    weights, without gradient to them, and b = `denoising`. At s = 0 the first part is CD.

    Source: Kim et al. 2023, arXiv:2310.02279, eq. 7 to 13. Differs: EDM's weight lambda and a constant `denoising` in
    the place of the adaptive one; the denoising term has the level and the noise of the first part, where their code
    draws both anew, the level from EDM's log-normal; no GAN; without a teacher `x_u` has the noise of `x_t`, as in CT.
    Isotropic processes.

    Args:
      model: `params -> FlowMap`; grid: falling times that end at 0 (n + 1,), published `times.karras(18)`.
      teacher: `params -> Denoiser`, of the frozen weights; jumps: the largest h, default n - 1, static.
      metric: `(a, b) -> scalar`; sigma_data: of lambda; dropout: as in `discrete.ct`.

    Raises ValueError for a process with more than one noise level a time, or `jumps` outside 1..n.
    """
    base.isotropic(process, "ctm")
    n = len(grid) - 1
    jumps = max(1, n - 1) if jumps is None else jumps
    if not 1 <= jumps <= n:
        raise ValueError(f"jumps is {jumps}; a grid of {n} steps allows 1 to {n}")

    def places(key: Key) -> tuple[Array, Array, Array]:
        """Indices of t, u and s."""
        length, start, end = jax.random.split(key, 3)
        h = 1 + jax.random.categorical(length, jnp.log(jnp.arange(1.0, jumps + 1.0))).astype(jnp.int32)
        i = jax.random.randint(start, (), 0, n - h + 1, jnp.int32)
        return i, i + h, jax.random.randint(end, (), i + h, n + 1, jnp.int32)

    def one(key: Key, params: Any, example: Any, context: Any) -> Array:
        index, noise, drop = jax.random.split(key, 3)
        x0, conditions = base.unpack(drop, example, dropout)
        clock, (i, m, j) = grid.astype(x0.dtype), places(index)
        t, u, s = clock[i], clock[m], clock[j]
        x_t, x_u = base.noised(process, noise, x0, t, u)
        if teacher is not None:
            prior = Prior(process, base.taught(teacher, context, conditions), x0.shape)
            x_u = jax.lax.stop_gradient(_solved(prior, key, x_t, clock, i, m))
        online = base.seen(model, params, conditions)
        offline = base.seen(model, jax.lax.stop_gradient(params), conditions)
        average = base.seen(model, base.target_weights(0, params, context), conditions)
        end = lambda x: _travel(average, process, x, s, jnp.zeros_like(s), clock[n - 1])
        estimate = end(_travel(online, process, x_t, t, s, clock[n - 1]))
        target = jax.lax.stop_gradient(end(_travel(offline, process, x_u, u, s, clock[n - 1])))
        r = jnp.exp(-0.5 * process.log_snr(t))
        weight = denoising * (r**2 + sigma_data**2) / (r * sigma_data) ** 2
        return metric(estimate, target) + weight * jnp.mean((online.to(t)(x_t, t) - x0) ** 2)

    return base.per_example(one)


def laplace(a: Array, b: Array, scale: Array) -> Array:
    """`exp(-max(|a - b|, 1e-8) / scale)`. Source: Zhou et al. 2025, arXiv:2503.07565, section 4 (Laplace kernel)."""
    return jnp.exp(-jnp.maximum(norm(a - b), 1e-8) / scale)


def _imm_times(process: Process, key: Key, bounds: tuple[float, float], halvings: int, dtype: Any) -> tuple[Array, ...]:
    """t, r and s, `s <= r < t`."""
    first, second = jax.random.uniform(key, (2,), dtype)
    low, high = bounds
    t = low + (high - low) * first
    s = low + (t - low) * second
    eta = jnp.exp(-0.5 * process.log_snr(jnp.stack([jnp.asarray(high, dtype), jnp.asarray(low, dtype), t, s])))
    r = times.from_sigma(process, jnp.maximum(eta[3], eta[2] - (eta[0] - eta[1]) / 2**halvings))
    return t, jnp.clip(r, s, t), s


def _imm_weight(process: Process, t: Array, a: float, b: float, sigma_data: float) -> Array:
    log_snr, rate = jax.jvp(process.log_snr, (t,), (jnp.ones_like(t),))
    alpha, sigma = process.alpha(t), process.sigma(t) / sigma_data
    chance = jax.nn.sigmoid(b - log_snr - 2 * jnp.log(sigma_data))
    return 0.5 * chance * -rate * alpha**a / (alpha**2 + sigma**2)


def _imm_gain(process: Process, t: Array, s: Array, sigma_data: float) -> Array:
    """What one unit of an "edm" network's output moves `x_s` by."""
    radius = jnp.sqrt(process.sigma(t) ** 2 + (sigma_data * process.alpha(t)) ** 2)
    turned = process.alpha(s) * process.sigma(t) - process.sigma(s) * process.alpha(t)
    return sigma_data * turned / radius


def imm(
    model: Model,
    process: Process,
    group: int = 4,
    kernel: Kernel = laplace,
    a: float = 1.0,
    b: float = 5.0,
    halvings: int = 15,
    bounds: tuple[float, float] = (0.006, 0.994),
    sigma_data: float = 0.5,
    dropout: bool = False,
) -> Loss:
    r"""Inductive moment matching: groups of M samples share `s <= r < t`, and their laws at s are compared by MMD:

        w(t) / M^2 sum_{ij} k(y_i, y_j) + k(y'_i, y'_j) - 2 k(y_i, y'_j),
        w = sigmoid(b - l) (-dl/dt) alpha^a / (2 (alpha^2 + sigma^2)),   l = log(alpha^2 / sigma^2),

    `y = G_theta(x_t, t, s)`, `y' = sg G_theta(x_r, r, s)`, `x_r = DDIM(x_t, x_0, t, r)`, `eta = sigma / alpha`,
    `eta_r = max(eta_s, eta_t - (eta_max - eta_min) / 2^k)`. M = 1 with `k = -|a - b|^2` is consistency training.

    Source: Zhou et al. 2025, arXiv:2503.07565, algorithm 1 and eq. 12, 13. Differs: isotropic processes, sigma in units
    of `sigma_data`; exactly the paper's flow is `ResidualShift(kappa=0.5)`.

    Args:
      model: `params -> FlowMap`; group: M, static, divides the batch.
      kernel: `(a, b, scale) -> scalar`, `scale = D c_out(s, t)`, D coordinates and the "edm" network's gain.
      halvings: k; bounds: of t, uniform, and the lower one of s. dropout: one key a group, as in `discrete.ct`.

    Raises ValueError for a process with more than one noise level a time, or a batch that `group` does not divide.
    """
    base.isotropic(process, "imm")

    def particle(key: Key, drop: Key, params: Any, example: Any, t: Array, r: Array, s: Array) -> tuple[Array, Array]:
        x0, conditions = base.unpack(drop, example, dropout)
        x_t, x_r = base.noised(process, key, x0, t, r)
        online = base.seen(model, params, conditions).to(s)
        offline = base.seen(model, jax.lax.stop_gradient(params), conditions).to(s)
        y = jump(process, x_t, online(x_t, t), t, s)
        return y, jax.lax.stop_gradient(jump(process, x_r, offline(x_r, r), r, s))

    def one(key: Key, params: Any, examples: Any, context: Any) -> Array:
        clock, noise, drop = jax.random.split(key, 3)
        dtype = jax.tree.leaves(examples["image"] if isinstance(examples, dict) else examples)[0].dtype
        t, r, s = _imm_times(process, clock, bounds, halvings, dtype)
        over = (0, None, None, 0, None, None, None)
        y, z = jax.vmap(particle, over)(jax.random.split(noise, group), drop, params, examples, t, r, s)
        scale = y[0].size * _imm_gain(process, t, s, sigma_data)
        pairs = lambda a, b: jnp.mean(jax.vmap(lambda u: jax.vmap(lambda v: kernel(u, v, scale))(b))(a))
        return _imm_weight(process, t, a, b, sigma_data) * (pairs(y, y) + pairs(z, z) - 2 * pairs(y, z))

    def loss(key: Key, params: Any, batch: Any, context: Any) -> Array:
        if base.count(batch) % group:
            raise ValueError(f"group is {group}; it must divide the batch of {base.count(batch)}")
        groups = jax.tree.map(lambda leaf: leaf.reshape(-1, group, *leaf.shape[1:]), batch)
        return base.per_example(one)(key, params, groups, context)

    return loss


def leap(prior: Prior, gamma: Array | float = 0.0) -> Sampler:
    r"""CTM's gamma-sampling: `x = G(x_t, t, s')` with `sigma_s' / alpha_s' = sqrt(1 - gamma^2) sigma_s / alpha_s`, then
    noise up to s. `gamma = 0` jumps from time to time (few steps of shortcut, MeanFlow, IMM), `gamma = 1` is `renoise`.

    Source: Kim et al. 2023, arXiv:2310.02279, algorithm 3. `gamma` is dynamic, in [0, 1]; an isotropic process. Raises
    TypeError for a denoiser without a second time.
    """
    process = prior.process
    base.isotropic(process, "leap")
    denoise = prior.denoise
    if not hasattr(denoise, "to"):
        raise TypeError(f"denoiser {type(denoise).__name__} has no second time; use samplers.renoise")

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        quieter = jnp.sqrt(1 - jnp.asarray(gamma, x.dtype) ** 2) * jnp.exp(-0.5 * process.log_snr(s))
        middle = jnp.where(gamma == 0, s, times.from_sigma(process, quieter))
        x = jump(process, x, denoise.to(middle)(x, t), t, middle)
        kept = process.alpha(s) / process.alpha(middle)
        return Gaussian(kept * x, gamma * process.sigma(s)).sample(key), StepInfo(prior.cost)

    return markov(prior, step)
