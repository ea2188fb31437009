r"""CTMSR: one-step super-resolution by consistency training along a residual-shifting trajectory, without a teacher.

    x_t = x_0 + t (y - x_0) + sigma_t eps,   sigma_t = kappa t,   y = upsample(low),   t from 1 (start) to 0 (picture),

whose probability-flow ODE given `y`, `dx/dt = (x_t - E[x_0 | x_t, y]) / t`, is rectified flow from `N(y, kappa^2 I)` to
`p(x_0 | y)`. In the chart `charts.shift(y)` it is `process.ResidualShift`. A network is an `Upscaler`; it is trained by
`consistency_loss` (stage 1), then by `matching_loss` (stage 2), and `super_resolve` uses it.

Source: You et al. 2025, "Consistency Trajectory Matching for One-Step Generative Super-Resolution", arXiv:2503.20349,
and its code, LabShuHangGU/CTMSR.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffinv.describe import Described
from diffinv.linalg import added
from diffinv.loop import markov, sample
from diffinv.nn import srnet
from diffinv.prior import Prior
from diffinv.process import ResidualShift
from diffinv.samplers import renoise
from diffinv.typing import Array, Gaussian, Key, Sampler, StepInfo, Time

METHODS = ("ctmsr", "resshift")
MASKS = ("independent", "shared", "prediction")
Distance = Callable[[Array, Array], Array]


@struct.dataclass
class Upscaler(Described):
    r"""A network `apply(params, x, c_noise, low, **extra) -> F` as `f(x_t, t, low) -> x_0`, pictures in [-1, 1].

    For `method = "ctmsr"`, with `u = sigma_t / boundary` and `d = 1/2`,

        f = d^2 / (u^2 + d^2) x_t + u / sqrt(u^2 + d^2) F(x_t, log(sigma_t + 0.002) / 4, low),

    so that `f(x, 0, low) = x` exactly. For "resshift" the network predicts x_0 from `x_t / sqrt(1 + sigma_t^2)`.

    Source: CTMSR's code, class EDMUNet; "resshift": Yue et al. 2023, arXiv:2307.12348, section 3 and its code. Differs:
    ResShift works on the codes of an autoencoder, here it is in pixels.

    Attributes:
      params: the network's weights.
      apply: the network; static.
      scale: of the sides, static.
      sigma_max: kappa, the noise at time 1, in units of the data; 1 is CTMSR's, 2 ResShift's.
      method: "ctmsr" (`sigma_t = kappa t`, one step) or "resshift" (`kappa sqrt(t)`, several), static.
      cubic: the upsampling's parameter, static; `srnet.TORCH` is published, `srnet.MATLAB` suits MATLAB's pictures.
      boundary: dimensionless, 0.1; 0.001 is the published variant `use_skip=False`.
      stochastic: the network drops out and takes `rngs` in training; static.
      extra: further arguments of `apply`, by name.

    Raises ValueError, when called, for another method or a picture that is not `scale` times as large as `low`.
    """

    params: Any
    apply: Callable[..., Array] = struct.field(pytree_node=False)
    scale: int = struct.field(pytree_node=False, default=4)
    sigma_max: float = 1.0
    method: str = struct.field(pytree_node=False, default="ctmsr")
    cubic: float = struct.field(pytree_node=False, default=srnet.TORCH)
    boundary: float = 0.1
    stochastic: bool = struct.field(pytree_node=False, default=False)
    extra: dict[str, Any] = struct.field(default_factory=dict)

    @property
    def process(self) -> ResidualShift:
        """Of the codes `x - y`."""
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; choose one of {', '.join(METHODS)}")
        return ResidualShift(self.sigma_max, 1.0 if self.method == "ctmsr" else 0.5)

    def given(self, **extra: Any) -> Upscaler:
        """The same network with further arguments."""
        return replace(self, extra={**self.extra, **extra})

    def upsample(self, low: Array) -> Array:
        """`y`, (scale h, scale w, C) from (h, w, C)."""
        return srnet.upsample_cubic(low, self.scale, self.cubic)

    def __call__(self, x: Array, t: Time, low: Array) -> Array:
        if x.shape[:2] != (self.scale * low.shape[0], self.scale * low.shape[1]):
            raise ValueError(f"x is {x.shape} and low {low.shape}; this upscaler's scale is {self.scale}")
        sigma = self.process.sigma(jnp.asarray(t, x.dtype))
        condition = jnp.log(sigma + 0.002) / 4
        network = lambda x: self.apply(self.params, x, condition, low, **self.extra).astype(x.dtype)
        if self.method == "resshift":
            return network(x / jnp.sqrt(1 + sigma**2))
        u = sigma / self.boundary
        return 0.25 / (u**2 + 0.25) * x + u / jnp.sqrt(u**2 + 0.25) * network(x)

    def shifted(self, x0: Array, y: Array, t: Time, eps: Array) -> Array:
        """`x_t` of the trajectory through `x0`, `y` and `eps`; exactly `x0` at time 0."""
        t = jnp.asarray(t, x0.dtype)
        return x0 + t * (y - x0) + self.process.sigma(t) * eps

    def prior(self, low: Array) -> Prior:
        """`p(x_0 - y | low)`, in the chart `charts.shift(self.upsample(low))`; for every sampler and solver."""
        y = self.upsample(low)
        return Prior(self.process, jax.tree_util.Partial(_residual, self, low, y), tuple(y.shape))


def _residual(upscaler: Upscaler, low: Array, y: Array, code: Array, t: Time) -> Array:
    return upscaler(code + y, t, low) - y


def shift_times(steps: int = 15, kappa: Array | float = 2.0, min_noise: float = 0.04, power: float = 0.3) -> Array:
    r"""ResShift's times `eta_T, ..., eta_1, 0`, shape (steps + 1,):

        sqrt(eta_k) = s (0.99 / s)^{((k - 1)/(T - 1))^p},   s = min(min_noise / kappa, min_noise).

    Source: Yue et al. 2023, arXiv:2307.12348, eq. 11 and 12, and its code; T = 4 and min_noise = 0.2 is its version 3.
    All but kappa static; raises ValueError for fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"steps is {steps}; ResShift's schedule needs at least 2")
    least = jnp.minimum(min_noise / jnp.asarray(kappa, jnp.float32), min_noise)
    root = least * (0.99 / least) ** jnp.asarray(np.linspace(1, 0, steps) ** power, jnp.float32)
    return jnp.append(root**2, jnp.float32(0.0))


def shift_posterior(process: ResidualShift, x: Array, x0: Array, t: Time, s: Time) -> Gaussian:
    r"""`q(x_s | x_t, x_0)` of ResShift's chain, in the chart: `eta_t = t`, and

        mean = (s / t) x_t + (1 - s / t) x_0,   variance = kappa^2 s (t - s) / t.

    The chain `x_t = x_{t-1} + (eta_t - eta_{t-1})(y - x_0) + ...` has the marginals of `process.ResidualShift`, yet is
    not Markov in `x` alone; so this is not `Process.transition`. Source: Yue et al. 2023, eq. 6 to 8.
    """
    ratio = s / t
    return Gaussian(ratio * x + (1 - ratio) * x0, process.kappa * jnp.sqrt(s * (1 - ratio)))


def shift_sampler(prior: Prior) -> Sampler:
    """ResShift's reverse chain, `shift_posterior` at every step. Source: Yue et al. 2023, arXiv:2307.12348, eq. 8.

    Raises TypeError for another process.
    """
    process = prior.process
    if not isinstance(process, ResidualShift):
        raise TypeError(f"process is {type(process).__name__}; shift_sampler needs process.ResidualShift")

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        return shift_posterior(process, x, prior.denoise(x, t), t, s).sample(key), StepInfo(prior.cost)

    return markov(prior, step)


def super_resolve(
    key: Key, upscaler: Upscaler, low: Array, times: Array | None = None, noise: Array | None = None
) -> Array:
    """A picture (scale h, scale w, C) in [-1, 1] of `low` (h, w, C) in [-1, 1].

    `times` from 1 to 0; by default one step for "ctmsr", and `shift_times(15)` for "resshift". "ctmsr" renoises between
    steps. It starts from `noise`, standard normal, drawn where it is None. Source: CTMSR's and ResShift's inference
    code. Differs: no reflection to a multiple of 64.
    """
    draw, key = jax.random.split(key)
    y, one = upscaler.upsample(low), upscaler.method == "ctmsr"
    noise = jax.random.normal(draw, y.shape, low.dtype) if noise is None else noise
    if one and times is None:
        return jnp.clip(upscaler(y + upscaler.process.sigma(jnp.ones((), low.dtype)) * noise, 1.0, low), -1, 1)
    times = (shift_times(15, upscaler.sigma_max) if times is None else times).astype(low.dtype)
    prior, method = upscaler.prior(low), renoise if one else shift_sampler
    code = sample(key, method(prior), times, prior.process.sigma(times[0]) * noise).x
    return jnp.clip(y + code, -1, 1)


def charbonnier(eps: float = 1e-6) -> Distance:
    """`mean sqrt((x - y)^2 + eps^2)`, eps in units of the data. CTMSR's is 1e-6; 1e-3 trains more safely. Original."""
    return lambda x, y: jnp.mean(jnp.sqrt((x - y) ** 2 + eps**2))


def l2(x: Array, y: Array) -> Array:
    """`mean (x - y)^2 / 2`, whose gradient to x is `(x - y) / size`. Original."""
    return 0.5 * jnp.mean((x - y) ** 2)


def weighted(*parts: tuple[float, Distance]) -> Distance:
    """The sum of weight times distance; CTMSR's is `weighted((0.5, lpips), (0.5, charbonnier()))`. Original."""
    return lambda x, y: added(weight * distance(x, y) for weight, distance in parts)


def curriculum(first: int, last: int, total: int) -> Callable[[Array], Array]:
    r"""`step -> N`, int32, linear from `first` to `last` intervals over `total` steps, either way:

        N = max(first - floor(k / K), last)  or  min(first + floor(k / K), last),   K = total // (|first - last| + 1).

    Source: CTMSR's code, `improved_timesteps_schedule_decrease_linear`; published: 4 to 3 over 502,000. All static.
    Raises ValueError where `first` or `last` is under 1, or `total` leaves no step for each.
    """
    stages = abs(first - last) + 1
    if min(first, last) < 1 or total < stages:
        raise ValueError(f"first, last, total are {first}, {last}, {total}; give N >= 1 and at least {stages} steps")
    low, high, sign = min(first, last), max(first, last), 1 if last > first else -1
    return lambda step: jnp.clip(first + sign * (jnp.asarray(step, jnp.int32) // (total // stages)), low, high)


def grid_time(i: Array, steps: Array | int, rho: float = 1.0) -> Array:
    """`(i / N)^rho`: point i of the grid of N steps. Source: CTMSR's code, `karras_schedule`, with rho 1."""
    return (jnp.asarray(i, float) / jnp.asarray(steps, float)) ** rho


class _Pairs(NamedTuple):
    """Per example: the distance of the pair, and the estimate that the gradient passes through."""

    distance: Array
    estimate: Array


def _masked(upscaler: Upscaler, key: Key, masks: str) -> tuple[Upscaler, Upscaler]:
    """The network that predicts and the one that makes the target, each with its dropout."""
    if masks not in MASKS:
        raise ValueError(f"masks is {masks!r}; choose one of {', '.join(MASKS)}")
    if not upscaler.stochastic:
        return upscaler, upscaler
    here, there = jax.random.split(key)
    drops = upscaler.given(rngs={"dropout": here})
    other = {"independent": upscaler.given(rngs={"dropout": there}), "shared": drops, "prediction": upscaler}
    return drops, other[masks]


def _indices(key: Key, steps: Array, count: int, index: str) -> Array:
    """(count,) from {0, ..., N - 1}: one for all, or one each."""
    if index not in ("batch", "sample"):
        raise ValueError(f"index is {index!r}; give 'batch' (one for all, published) or 'sample' (one each)")
    drawn = jax.random.randint(key, (1 if index == "batch" else count,), 0, steps)
    return jnp.broadcast_to(drawn, (count,))


def _pairs(key: Key, upscaler: Upscaler, batch: Any, steps: Array, distance: Distance, **options: Any) -> _Pairs:
    """`consistency_loss` before its mean."""
    count = len(batch["image"])
    choose, rest = jax.random.split(key)
    indices = _indices(choose, steps, count, options["index"])

    def one(key: Key, x0: Array, low: Array, i: Array) -> _Pairs:
        noise, coin, drop = jax.random.split(key, 3)
        y, eps = upscaler.upsample(low), jax.random.normal(noise, x0.shape, x0.dtype)
        s, t = (grid_time(j, steps, options["rho"]) for j in (i, i + 1))
        predict, teach = _masked(upscaler, drop, options["masks"])
        estimate = predict(upscaler.shifted(x0, y, t, eps), t, low)
        target = teach(upscaler.shifted(x0, y, s, eps), s, low)
        if options["anchor"]:
            target = jnp.where(jax.random.bernoulli(coin, options["anchor"]), x0, target)
        return _Pairs(distance(estimate, jax.lax.stop_gradient(target)), estimate)

    return jax.vmap(one)(jax.random.split(rest, count), batch["image"], batch["low"], indices)


def consistency_loss(
    model: Callable[[Any], Upscaler],
    steps: Callable[[Array], Array],
    distance: Distance,
    index: str = "batch",
    rho: float = 1.0,
    anchor: float = 0.0,
    masks: str = "independent",
) -> Callable[..., Array]:
    r"""Stage 1, a contextual loss: the mean over the batch of

        d(f(x_{i+1}, t_{i+1}, low), sg f(x_i, t_i, low)),   x_i = q(x_0, y, t_i, eps),   t_i = (i / N)^rho,

    both points on one trajectory (the same eps), the target by the same weights, uniform in time, `N = steps(step)`.
    At i = 0 the target is `x_0`. N = 1 is plain regression.

    Source: CTMSR's code, `optimize_parameters`; the paper's eq. 10.

    Args:
      model: `params -> Upscaler`. The batch is a dict of `image` (B, s h, s w, C) and `low` (B, h, w, C) in [-1, 1].
      steps: `step -> N`, see `curriculum`.
      distance: of one example; published `weighted((0.5, lpips), (0.5, charbonnier()))`.
      index: "batch", published: i is one for the whole batch, a noisy gradient; "sample": one for each example.
      anchor: share of the examples whose target is `x_0` whatever i is; 0 is published. In short trainings the pairs
        drift together without it.
      masks: where the network drops out: "independent" for target and prediction, as published (the target is never
        put in evaluation mode); "shared"; "prediction" alone.
      All but model static.
    """
    options = {"index": index, "rho": rho, "anchor": anchor, "masks": masks}

    def loss(key: Key, params: Any, batch: Any, context: Any) -> Array:
        return jnp.mean(_pairs(key, model(params), batch, steps(context.step), distance, **options).distance)

    return loss


def matching_levels(t_min: float = 0.1, t_max: float = 0.5, levels: int = 3) -> tuple[int, int]:
    """The range of the index j, from `max(1, int(t_min m))` to below `min(m, int(t_max m))`, m = levels + 1.

    The published numbers leave j = 1 alone, whose noise is 1/3. Source: CTMSR's code. Static; raises ValueError where
    nothing is left.
    """
    first, stop = max(1, int(t_min * (levels + 1))), min(levels + 1, int(t_max * (levels + 1)))
    if first >= stop:
        raise ValueError(f"t_min, t_max, levels are {t_min}, {t_max}, {levels}: no index is left; widen the range")
    return first, stop


def discrepancy(reference: Upscaler, estimate: Array, x0: Array, low: Array, t: Time, eps: Array) -> Array:
    r"""`g = phi(z_t, t, low) - phi(x_t, t, low)`, with z through the estimate and x through `x0` by one eps.

    Source: CTMSR's code, loss_type "dtm"; the paper's eq. 11 to 16.
    """
    y = reference.upsample(low)
    through = lambda picture: reference(reference.shifted(picture, y, t, eps), t, low)
    return through(estimate) - through(x0)


def matching_loss(
    model: Callable[[Any], Upscaler],
    steps: Callable[[Array], Array],
    distance: Distance,
    matching: Distance,
    weight: float = 0.8,
    weighting: str = "improved",
    t_min: float = 0.1,
    t_max: float = 0.5,
    levels: int = 3,
    **options: Any,
) -> Callable[..., Array]:
    r"""Stage 2, Distribution Trajectory Matching: stage 1's loss plus the mean over the batch of

        weight w m(xhat, sg[xhat - g]),   w = 1 / mean |xhat - x_0|,   g = discrepancy(phi, xhat, x_0, low, t_j, eps'),

    `xhat` the prediction of stage 1's pair, phi the frozen weights `context.frozen`, eps' fresh, `t_j = j / levels`.
    With `m = l2` its gradient is `w g / size`, through xhat alone.

    Source: as `discrepancy`. Differs: w's mean is at least 1e-6.

    Args:
      model, steps, distance, options: as in `consistency_loss`.
      matching: m; LPIPS is published.
      weight: 0.5 times 1.6 is published.
      weighting: "improved" for w, "simple" for 1.
      t_min, t_max, levels: of j, drawn for each example, see `matching_levels`.

    Give the trainer `refresh=1000`, as published. Published trap: where no weights are given for phi it is a random
    network until the first refresh; `trainer.init(params)` starts it from `params`, `init(params, frozen)` from others.
    """
    if weighting not in ("improved", "simple"):
        raise ValueError(f"weighting is {weighting!r}; choose 'improved' or 'simple'")
    first, stop = matching_levels(t_min, t_max, levels)
    options = {"index": "batch", "rho": 1.0, "anchor": 0.0, "masks": "independent", **options}

    def term(key: Key, reference: Upscaler, xhat: Array, x0: Array, low: Array) -> Array:
        pick, noise = jax.random.split(key)
        t = grid_time(jax.random.randint(pick, (), first, stop), levels, options["rho"])
        fixed = jax.lax.stop_gradient(xhat)
        g = discrepancy(reference, fixed, x0, low, t, jax.random.normal(noise, x0.shape, x0.dtype))
        w = 1 / jnp.maximum(jnp.mean(jnp.abs(fixed - x0)), 1e-6) if weighting == "improved" else 1.0
        return w * matching(xhat, jax.lax.stop_gradient(fixed - g))

    def loss(key: Key, params: Any, batch: Any, context: Any) -> Array:
        pair_key, match_key = jax.random.split(key)
        pairs = _pairs(pair_key, model(params), batch, steps(context.step), distance, **options)
        keys, reference = jax.random.split(match_key, len(batch["image"])), model(context.frozen)
        terms = jax.vmap(term, (0, None, 0, 0, 0))(keys, reference, pairs.estimate, batch["image"], batch["low"])
        return jnp.mean(pairs.distance) + weight * jnp.mean(terms)

    return loss


def shift_loss(model: Callable[[Any], Upscaler], times: Array) -> Callable[[Key, Any, Any], Array]:
    """ResShift's loss: mean squared error of x_0 at one of the positive `times`, uniformly, for each example.

    Source: Yue et al. 2023, arXiv:2307.12348, eq. 10, unweighted as in its code. A plain loss, not contextual; the
    batch is as in `consistency_loss`.
    """

    def one(key: Key, upscaler: Upscaler, x0: Array, low: Array) -> Array:
        pick, noise = jax.random.split(key)
        t = jax.random.choice(pick, times[:-1]).astype(x0.dtype)
        x = upscaler.shifted(x0, upscaler.upsample(low), t, jax.random.normal(noise, x0.shape, x0.dtype))
        return jnp.mean((upscaler(x, t, low) - x0) ** 2)

    def loss(key: Key, params: Any, batch: Any) -> Array:
        keys = jax.random.split(key, len(batch["image"]))
        return jnp.mean(jax.vmap(one, (0, None, 0, 0))(keys, model(params), batch["image"], batch["low"]))

    return loss


def self_consistency_error(upscaler: Upscaler, key: Key, x0: Array, low: Array, times: Array) -> Array:
    """`mean |f(x_t, t) - f(x_s, s)|` for consecutive `times` on the line through `x0`, `y` and `eps`, (n - 1,).

    Original. Stage 1 makes it small. The exact map has 0 where `low` determines `x0`, and more elsewhere.
    """
    y, eps = upscaler.upsample(low), jax.random.normal(key, x0.shape, x0.dtype)
    found = jax.lax.map(lambda t: upscaler(upscaler.shifted(x0, y, t, eps), t, low), times.astype(x0.dtype))
    return jnp.mean(jnp.abs(found[1:] - found[:-1]), axis=tuple(range(1, found.ndim)))
