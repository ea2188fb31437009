"""Methods that fit a distribution to the posterior by gradient descent, with the denoiser as a regulariser."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffinv import times
from diffinv.checks import require_count, require_fit, require_noise, require_switch
from diffinv.describe import described
from diffinv.ends import require_noisy_end
from diffinv.linalg import inner, norm
from diffinv.loop import sample
from diffinv.measurement import Measurement
from diffinv.operators.arguments import require_number
from diffinv.operators.base import LinearOperator
from diffinv.posterior.core import rewards
from diffinv.posterior.core.adam import adam
from diffinv.posterior.core.levels import clean_start, noise_to_signal
from diffinv.posterior.core.midpoints import bridge, fitted_draw
from diffinv.prior import Prior
from diffinv.samplers import ddim
from diffinv.typing import Array, Key, Sampler, StepInfo, Time


@described
class ReddiffState(NamedTuple):
    """The state of `reddiff`.

    Attributes:
      mean: of the variational law.
      optimizer: its optimiser's state.
    """

    mean: Array
    optimizer: optax.OptState


def reddiff(
    prior: Prior,
    measurement: Measurement,
    lr: Array | float = 0.1,
    lam: Array | float = 0.25,
    power: Array | float = 1.0,
    sums: bool = False,
) -> Sampler:
    r"""RED-diff: stochastic optimisation of a mean mu, without a gradient through the network. At each time

        x_t  = alpha_t mu + sigma_t e
        grad = -A^T (y - A mu) / n_y + lam r_t^power (eps(x_t) - e) / n_x,     r_t = sigma_t / alpha_t
        mu  <- Adam(mu, grad),  betas (0.9, 0.99),  from A^+ y

    `eps(x_t) - e = (mu - x0(x_t)) / r_t`, in which form it is computed: finite where alpha is 0.

    Noise: least squares, whatever the law.

    Source: Mardani et al. 2024, arXiv:2305.04391, algorithm 1, with their code's means, Adam at 0.1 (up to 0.5), lam
    0.25 and power 1 ("linear"; 1/2, 2 and 0 are its "sqrt", "square" and "const"), 1000 steps. `sums` is
    InverseBench's: `grad |y - A mu|^2 + lam r_t^power (eps - e)`, for which it has lr 0.02 and power 0. It changes the
    balance of both terms by `2 n_x / n_y`. Differs: from 0 where A is not linear.

    Args:
      measurement: any differentiable operator.
      lr: of Adam, in units of x. lam, power: dimensionless. sums: static.

    Raises ValueError for a y that does not fit, or a power that is no number.
    """
    measurement = require_fit(prior, measurement, "reddiff")
    require_number("power", power)
    require_switch("sums", sums)
    process, optimizer, A = prior.process, adam(lr, b2=0.99), measurement.operator
    size = 1 if sums else measurement.y.size

    def misfit(x: Array) -> Array:
        r = measurement.residual(x)
        return (1.0 if sums else 0.5) * inner(r, r) / size

    def init(key: Key, t: Time, x: Array | None) -> ReddiffState:
        blank = jnp.zeros_like(prior.start(key, t))
        guess = A.pinv(measurement.y).astype(blank.dtype) if isinstance(A, LinearOperator) else blank
        mean = guess if x is None else clean_start(process, t, x, guess)
        return ReddiffState(mean, optimizer.init(mean))

    def step(key: Key, state: ReddiffState, t: Time, s: Time) -> tuple[ReddiffState, StepInfo]:
        mean = state.mean
        x0 = prior.denoise(process.perturb(mean, t).sample(key), t)
        pull = lam * noise_to_signal(process, t) ** (power - 1) * (mean - x0) / (1 if sums else mean.size)
        updates, memory = optimizer.update(jax.grad(misfit)(mean) + pull, state.optimizer)
        mean = mean + updates
        return ReddiffState(mean, memory), StepInfo(prior.cost.plus(calls=3), norm(measurement.residual(mean)))

    return Sampler(init, step, lambda key, state: state.mean)


@described
class MidpointState(NamedTuple):
    """The state of `mgps`.

    Attributes:
      x: the sample.
      x0: the denoised mean of the last midpoint, where the next fit starts.
      steps: the number of steps taken.
    """

    x: Array
    x0: Array
    steps: Array


def mgps(
    prior: Prior,
    measurement: Measurement,
    iterations: int = 2,
    lr: Array | float = 0.03,
    midpoint: Array | float = 0.5,
    early: int = 10,
    first: int = 10,
    threshold: Array | float = 0.7,
) -> Sampler:
    r"""Midpoint guidance: at `l = midpoint s`, between 0 and s, a Gaussian is fitted to `p(x_l | x_t) p(y | x0(x_l))`.

        q = N(m, diag(v))   minimises   KL(q | p(x_l | x_t)) - E_q log p(y | x0(x_l, l))     `iterations` of Adam
        x_l ~ q;   x_s ~ p(x_s | x_l, x_t),  the forward process's bridge

    from `q = p(x_l | x_t, x_0)` at the x0 of the midpoint before, with `p(x_l | x_t)` the ancestral transition about
    that of x_t. A small midpoint trusts the likelihood, and the transition less. From time `threshold` on a second
    Gaussian is fitted at the data end, to `p(x_1) p(y | x_1) p(x_l | x_1)` with the score of p(x_1) held; its draw is
    the bridge's foot and the next fit's x0.

    Noise: any law, by its likelihood.

    Source: Moufad et al. 2024 (MGPS), arXiv:2410.09945, algorithm 1, with the default of their code's configuration:
    midpoint ratio 0.5, 300 steps, Adam at 0.03 on the mean and the log deviation, 2 iterations a step and 10 in each of
    the first 10 steps, a second fit above 0.7. For FFHQ it has 20 in the first 5 and in every tenth step; for Gaussian
    mixtures Adam at 0.1 and no second fit (a threshold above 1). Differs: the last step (s = 0) fits once more and
    returns the mean x0 of that x_l, where theirs returns the denoised mean of the last x_s.

    Args:
      measurement: any differentiable operator, any law of the noise.
      iterations, early, first: static; `early` iterations in each of the `first` steps, then `iterations`.
      lr: of Adam; for the mean in units of `sqrt(alpha^2 + sigma^2)`, which is 1 under VP. midpoint: in (0, 1).
      threshold: a time.

    Raises ValueError for a count under 1, a concrete sigma_y of 0, or a y that does not fit.
    """
    measurement = require_fit(prior, measurement, "mgps")
    measurement = require_noise(measurement, "mgps", "ddnm")
    require_count("iterations", iterations)
    require_count("early", early)
    require_count("first", first, 0)
    process, fit = prior.process, partial(fitted_draw, prior.process, adam(lr))

    def init(key: Key, t: Time, x: Array | None) -> MidpointState:
        x = prior.start(key, t) if x is None else x
        return MidpointState(x, jnp.zeros_like(x), jnp.int32(0))

    def refined(key: Key, middle: Array, clean: Array, low: Time, end: Time, count: Array) -> Array:
        """The second fit: `x_1 ~ p(x_1) p(y | x_1) p(x_l | x_1)` at the data end, with the prior's score linearised."""
        (centre, std), noise = process.transition(middle, clean, low, end), process.kernel_std(low, end)
        ratio = jnp.exp(process.log_alpha(low) - process.log_alpha(end))

        def loss(mean: Array, w: Array, x: Array) -> Array:
            still = jax.lax.stop_gradient(x)
            score = process.score(still, prior.denoise(still, end), end)
            above = ((middle - ratio * mean) ** 2 + (ratio * std * jnp.exp(w)) ** 2) / noise**2
            return jnp.sum(0.5 * above - w - x * score) - measurement.log_likelihood(x)

        return fit(jax.random.split(key), centre, std, end, count, loss)

    def step(key: Key, state: MidpointState, t: Time, s: Time) -> tuple[MidpointState, StepInfo]:
        *keys, bridge_key = jax.random.split(key, 3)
        x, low, last = state.x, midpoint * jnp.where(s > 0, s, t), jnp.asarray(s) <= 0
        x0 = prior.denoise(x, t)
        mean, std = process.transition(x, x0, t, low)
        before = process.transition(x, jnp.where(state.steps > 0, state.x0, x0), t, low).mean

        def loss(m: Array, w: Array, x: Array) -> Array:
            divergence = jnp.sum(0.5 * (jnp.exp(2 * w) + ((m - mean) / std) ** 2) - w)
            return divergence - measurement.log_likelihood(prior.denoise(x, low))

        count = jnp.where(state.steps < first, jnp.int32(early), jnp.int32(iterations))
        middle = fit(jnp.stack(keys), before, std, low, count, loss)
        clean, end = prior.denoise(middle, low), jnp.minimum(1e-3, 0.5 * low).astype(low.dtype)
        twice = (jnp.asarray(t) >= threshold) & ~last
        again = lambda: (refined(jax.random.fold_in(key, 1), middle, clean, low, end, count), end)
        base, level = jax.lax.cond(twice, again, lambda: (middle, low))
        x_s = bridge(process, x, base, t, jnp.where(last, 0.5 * (low + t), s), level).sample(bridge_key)
        x_s, more = jnp.where(last, clean, x_s), jnp.where(twice, 2 * count, count)
        cost = prior.cost.times(more + 2).plus(count, 2 * more + 1)
        found = MidpointState(x_s, jnp.where(twice, base, clean), state.steps + 1)
        return found, StepInfo(cost, norm(measurement.residual(x_s)))

    return Sampler(init, step, lambda key, state: state.x)


@described
class MixtureState(NamedTuple):
    """The state of `mgdm`.

    Attributes:
      x: the sample at `time`.
      x0: the clean sample that goes with it.
      time: of the last step.
    """

    x: Array
    x0: Array
    time: Array


def mgdm(
    prior: Prior,
    measurement: Measurement,
    iterations: int = 5,
    lr: Array | float = 0.03,
    repeats: int = 1,
    denoise_steps: int = 10,
    threshold: Array | float = 0.3,
    least: Array | float = 0.01,
) -> Sampler:
    r"""Mixture guidance: Gibbs sampling of a posterior at time t that is a mixture over where below t it is guided.

        p(x_t | y)  ~  mean over tau of  int p(x_t | x_tau) p(y | x0(x_tau, tau)) p(x_tau) dx_tau

    With x_r of the step before, at r > t, and the clean sample x_0 of that, in each step:

        x_t   ~ p(x_t | x_0, x_r);   tau uniform in [least, s], or s where t < threshold
        x_tau ~ q,  a Gaussian: q minimises  KL(q | p(x_tau | x_0, x_t)) - E_q log p(y | x0(x_tau, tau)),   by Adam
        x_0   ~ p(x_0 | x_tau)         `denoise_steps` ancestral steps, even in time
        x_t   ~ p(x_t | x_tau, x_r)    the forward process's bridge;  the last three `repeats` times

    and x_0 is the result. At the first time x_0 is the denoised mean, and x_t stays what it was.

    Noise: any law, by its likelihood.

    Source: Janati et al. 2025, arXiv:2502.03332, as a copy of its authors' code has it, with that code's defaults: Adam
    on the mean and the log deviation, tau from 10 steps of a thousand on and drawn in the first 70 of 100 steps of
    time. Their `iterations`, `repeats`, `denoise_steps` and rate, which their configurations hold, were not at hand:
    these are ours. Differs: the divergence is exact in place of one draw's; the last step, to 0, has tau
    up to t / 2, where theirs ends a step earlier.

    Biased: `p(y | x0(x_tau))` stands for `p(y | x_tau)`; and fewer `denoise_steps` leave x_0 too near its mean. Of N(0,
    1) and y = 1.5 with noise 0.5, 100 steps with q exact leave N(1.27, 0.255), where the posterior is N(1.2, 0.2).

    Args:
      measurement: any differentiable operator, any law of the noise.
      iterations, repeats, denoise_steps: static, at least 1. More repeats are the paper's way to spend more.
      lr: of Adam; for the mean in units of `sqrt(alpha^2 + sigma^2)`, which is 1 under VP.
      threshold, least: times.

    Raises ValueError for a count under 1, a concrete sigma_y of 0, or a y that does not fit.
    """
    measurement = require_fit(prior, measurement, "mgdm")
    measurement = require_noise(measurement, "mgdm", "ddnm")
    require_count("iterations", iterations)
    require_count("repeats", repeats)
    require_count("denoise_steps", denoise_steps)
    process, optimizer = prior.process, adam(lr)

    def init(key: Key, t: Time, x: Array | None) -> MixtureState:
        x = prior.start(key, t) if x is None else x
        return MixtureState(x, jnp.zeros_like(x), jnp.asarray(t, x.dtype))

    def cleaned(key: Key, x: Array, tau: Array) -> Array:
        grid = tau * times.grid(denoise_steps).astype(x.dtype)

        def body(x: Array, now: tuple[Key, Array, Array]) -> tuple[Array, None]:
            k, t, s = now
            return process.transition(x, prior.denoise(x, t), t, s).sample(k), None

        return jax.lax.scan(body, x, (jax.random.split(key, denoise_steps), grid[:-1], grid[1:]))[0]

    def step(key: Key, state: MixtureState, t: Time, s: Time) -> tuple[MixtureState, StepInfo]:
        start_key, tau_key, key = jax.random.split(key, 3)
        first = state.time <= t
        x0 = jax.lax.cond(first, lambda: prior.denoise(state.x, t), lambda: state.x0)
        x = process.transition(state.x, x0, state.time, t).sample(start_key)
        high = jnp.where(s > 0, s, 0.5 * t).astype(x.dtype)
        drawn = high + (jnp.minimum(least, high) - high) * jax.random.uniform(tau_key, (), x.dtype)
        tau = jnp.where(t < threshold, high, drawn)

        def gibbs(carry: tuple[Array, Array], k: Key) -> tuple[tuple[Array, Array], None]:
            (x, x0), (fit_key, draw_key, clean_key, bridge_key) = carry, jax.random.split(k, 4)
            mean, std = process.transition(x, x0, t, tau)

            def loss(m: Array, w: Array, x_tau: Array) -> Array:
                divergence = jnp.sum(0.5 * (jnp.exp(2 * w) + ((m - mean) / std) ** 2) - w)
                return divergence - measurement.log_likelihood(prior.denoise(x_tau, tau))

            keys = jnp.stack([fit_key, draw_key])
            x_tau = fitted_draw(process, optimizer, keys, mean, std, tau, jnp.int32(iterations), loss)
            noised = bridge(process, state.x, x_tau, state.time, t, tau).sample(bridge_key)
            return (jnp.where(first, x, noised), cleaned(clean_key, x_tau, tau)), None

        (x, x0), _ = jax.lax.scan(gibbs, (x, x0), jax.random.split(key, repeats))
        fits = repeats * iterations
        cost = prior.cost.times(fits + repeats * denoise_steps + jnp.where(first, 1, 0)).plus(fits, 2 * fits + 1)
        return MixtureState(x, x0, jnp.asarray(t, x.dtype)), StepInfo(cost, norm(measurement.residual(x0)))

    return Sampler(init, step, lambda key, state: state.x0)


@described
class PlugState(NamedTuple):
    """The state of `dmplug`.

    Attributes:
      z: the noise from which the picture comes, of unit variance.
      x: the picture of the noise before the last update.
      optimizer: the optimiser's state.
    """

    z: Array
    x: Array
    optimizer: optax.OptState


def dmplug(
    prior: Prior,
    measurement: Measurement,
    lr: Array | float = 0.01,
    ode_steps: int = 3,
    reward: rewards.Reward = rewards.square,
) -> Sampler:
    r"""DMPlug: the noise whose own picture fits the measurement, by gradient descent through the whole sampler.

        z <- Adam(z, grad_z |y - A R(z)|^2)   in each step,      x = R(z):  `ode_steps` steps of DDIM from sigma_1 z

    so that what comes out is what the sampler can make, a picture of the prior, and not a blend of steps. The times of
    the grid count the iterations alone, and the picture of the last gradient is returned. A start is noise at time 1.

    Noise: least squares, whatever the law; `rewards.likelihood` takes any law, by its likelihood.

    Source: Wang et al. 2024, arXiv:2405.16749, eq. 8 and algorithm 1: 3 steps of DDIM, Adam at 0.01, thousands of
    iterations. Differs: a plain end in place of their early stopping by a windowed variance (ES-WMV): a measurement
    with noise is fitted with its noise where the grid is long. Not a sampler of the posterior: a mode in z.

    Args:
      measurement: any differentiable operator.
      lr: of Adam; z has unit variance. ode_steps: static, at least 1; memory and time grow with it.
      reward: as of `dps`; one of `posterior.rewards`, or your own.

    Raises TypeError for a reward's name, ValueError for `ode_steps` under 1, or a process that does not end in noise.
    """
    measurement = require_fit(prior, measurement, "dmplug")
    measurement = rewards.require_reward(reward, measurement, "dmplug", rewards.square)
    require_count("ode_steps", ode_steps)
    require_noisy_end(prior.process)
    process, optimizer, grid = prior.process, adam(lr), times.grid(ode_steps)

    def generate(z: Array) -> Array:
        start = process.sigma(grid[0]).astype(z.dtype) * z
        return sample(jax.random.key(0), ddim(prior), grid.astype(z.dtype), start).x

    def init(key: Key, t: Time, x: Array | None) -> PlugState:
        z = (prior.start(key, t) if x is None else x) / process.sigma(t)
        return PlugState(z, jnp.zeros_like(z), optimizer.init(z))

    def loss(z: Array) -> tuple[Array, Array]:
        x = generate(z)
        return -reward(measurement, x), x

    def step(key: Key, state: PlugState, t: Time, s: Time) -> tuple[PlugState, StepInfo]:
        gradient, x = jax.grad(loss, has_aux=True)(state.z)
        updates, memory = optimizer.update(gradient, state.optimizer)
        cost = prior.cost.plus(vjps=1).times(ode_steps).plus(calls=3)
        return PlugState(state.z + updates, x, memory), StepInfo(cost, norm(measurement.residual(x)))

    return Sampler(init, step, lambda key, state: state.x)
