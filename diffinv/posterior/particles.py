r"""Sequential Monte Carlo: N particles of one sample, weighed by the measurement and resampled as the noise falls.

The particle axis is the first one of the state, and the only batch in the library; the denoiser is vmapped over it.
Weights are logarithms in float32. `final` draws one particle by its weight, so that a solver returns one sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffinv.checks import require_count, require_fit, require_noise, require_spectrum, require_value
from diffinv.describe import described
from diffinv.linalg import inner
from diffinv.measurement import Measurement
from diffinv.operators.base import ClosedForm, divide
from diffinv.operators.spectra import Spectrum
from diffinv.posterior.core import resampling
from diffinv.posterior.core.clouds import ParticleInfo, Particles, started, told
from diffinv.posterior.core.resampling import equal_weights, normalised, pick, resampled
from diffinv.prior import Prior
from diffinv.samplers import euler
from diffinv.times import grid
from diffinv.typing import Array, Cost, Key, Sampler, Time


def _total(terms: Array) -> Array:
    """Sums over all but the particle axis."""
    return jnp.sum(terms.reshape(len(terms), -1), axis=1)


@described
class _Observed(NamedTuple):
    """`y` in the basis V: `U^T y`, the singular values, `U^T y / s` and `sigma_y / s` (0 where s is 0)."""

    basis: Spectrum
    seen: Array
    s: Array
    y_bar: Array
    width: Array


def _observed(measurement: Measurement, method: str) -> _Observed:
    basis = require_spectrum(measurement, method)
    seen = basis.observe(measurement.y)
    s = jnp.broadcast_to(basis.s.astype(seen.dtype), seen.shape)
    width = divide(jnp.ones_like(s) * jnp.asarray(measurement.sigma, seen.dtype), s)
    return _Observed(basis, seen, s, divide(seen, s), width)


def mcgdiff(
    prior: Prior,
    measurement: Measurement,
    particles: int = 64,
    kappa: Array | float = 1e-4,
    eta: Array | float = 1.0,
    scheme: resampling.Scheme = resampling.systematic,
) -> Sampler:
    r"""MCGDiff. In the basis V coordinate i is observed all but exactly, `x_tau = alpha_tau yb_i` (yb = U^T y / s),
    at the noise level tau_i where `sigma_tau / alpha_tau = sigma_y / s_i`. While `t >= tau_i`

        o_t = alpha_t yb_i,   v_t = sigma_t^2 - (alpha_t sigma_y / s_i)^2 + kappa alpha_t^2 (1 + (sigma_y / s_i)^2)
        w   = N(o_s; m, g^2 + v_s) / N(x_t; o_t, v_t),             m, g: mean and deviation of the reverse step
        x_s ~ N(m, g^2) N(o_s, v_s), normalised                    after systematic resampling by w

    and a plain reverse step below tau_i and in the null space. Consistent as N grows, for the chain of the grid.

    Noise: taken as Gaussian of `measurement.sigma`, whatever its law.

    Source: Cardoso et al. 2024, arXiv:2308.07983, algorithm 1 (noiseless) and section 3.2. kappa is 1e-2 in their
    Gaussian-mixture script, 1e-4 for pictures, 1e-6 in benchopt; eta 1, and 0.6 or 0.85 for the mixtures. `tau_i` is
    taken as the nearer of the grid's neighbours, as their code does; `v_t` above uses the exact one. Differs: any
    isotropic process; systematic resampling needs several times fewer particles than their `resampling.multinomial`
    (`scheme`, static): 32 are as good as 128 on benchopt's (1, 8) mixture; this is their script, which comes nearer to
    the posterior than their later package: that weighs a coordinate at its tau, and the last particles by `p(y | x_0)`.

    Args:
      measurement: with an operator that has `spectrum()`; sigma_y may be 0.
      particles: N, static, at least 1; published: 64 for pictures. kappa, eta: dimensionless.

    Raises TypeError without a spectrum or for a scheme's name; ValueError for no particles, a y that does not fit, or a
    process that is not isotropic.
    """
    measurement = require_fit(prior, measurement, "mcgdiff", isotropic=True)
    require_count("particles", particles)
    require_value("scheme", scheme, "resampling", {name: name for name in ("systematic", "multinomial")})
    process, (basis, _, singular, y_bar, width) = prior.process, _observed(measurement, "mcgdiff")
    analyse, synthesise = jax.vmap(basis.analyse), jax.vmap(basis.synthesise)

    def observation(t: Time) -> tuple[Array, Array]:
        alpha, sigma = process.alpha(t), process.sigma(t)
        exact = jnp.maximum(sigma**2 - (alpha * width) ** 2, 0.0)
        return alpha * y_bar, exact + kappa * alpha**2 * (1 + width**2)

    def distance(t: Time) -> Array:
        return jnp.abs((process.alpha(t) * width) ** 2 - process.sigma(t) ** 2)

    def observed_at(t: Time, s: Time) -> Array:
        above, before = process.sigma(s) >= process.alpha(s) * width, process.sigma(t) > process.alpha(t) * width
        return (singular > 0) & (above | (before & (distance(s) < distance(t))))

    def init(key: Key, t: Time, x: Array | None) -> Particles:
        x = started(prior, key, t, x, particles)
        o, v = observation(t)
        spread = process.sigma(t) ** 2
        gain = jnp.where(observed_at(t, t), divide(spread * jnp.ones_like(v), spread + v), 0.0)
        return Particles(
            synthesise(gain[None] * o[None] + jnp.sqrt(1 - gain)[None] * analyse(x)), equal_weights(particles)
        )

    def step(key: Key, state: Particles, t: Time, s: Time) -> tuple[Particles, ParticleInfo]:
        pick_key, noise_key = jax.random.split(key)
        x0 = jax.vmap(lambda x: prior.denoise(x, t))(state.x)
        mean, std = process.transition(state.x, x0, t, s, eta)
        at, mean, var = analyse(state.x), analyse(mean), std**2
        (o_t, v_t), (o_s, v_s), seen = observation(t), observation(s), observed_at(t, s)
        ahead = divide((o_s[None] - mean) ** 2, (var + v_s)[None])
        behind = divide((at - o_t[None]) ** 2, v_t[None])
        log_weights = _total(jnp.where(seen[None], 0.5 * (behind - ahead), 0.0)).astype(jnp.float32)
        even, mean = resampled(pick_key, log_weights, mean, scheme=scheme)
        gain = jnp.where(seen, divide(var * jnp.ones_like(v_s), var + v_s), 0.0)
        deviation = jnp.sqrt(jnp.where(seen, gain * v_s, var))
        z = jax.random.normal(noise_key, mean.shape, mean.dtype)
        moved = mean + gain[None] * (o_s[None] - mean) + deviation[None] * z
        return Particles(synthesise(moved), even), told(prior.cost.plus(calls=3), measurement, x0, log_weights)

    return Sampler(init, step, lambda key, state: pick(key, state.log_weights, state.x))


@described
class FilteringState(NamedTuple):
    """The state of `fps`.

    Attributes:
      particles: the cloud.
      y: the noised measurement `U^T y_t` that it was last weighed by.
    """

    particles: Particles
    y: Array


def fps(prior: Prior, measurement: Measurement, particles: int = 5, c: Array | float = 0.95) -> Sampler:
    r"""Filtering posterior sampling: the particle filter of x_t given a noised sequence of measurements,

        y_s = alpha_s y + sqrt(1 - c) (sigma_s / sigma_t) (y_t - alpha_t y) + sqrt(c) sigma_s A z,   from sigma_T A z
        x_s ~ N(alpha_s x0 + sqrt(1 - c) sigma_s eps, c sigma_s^2) N(y_s; A x_s, (alpha_s sigma_y)^2), normalised

    weighed by the second factor's mean under the first and resampled in every step, from `p(x_T | y_T)`.

    Noise: taken as Gaussian of `measurement.sigma`, whatever its law.

    Source: Dou & Song 2024 (ICLR, "Diffusion posterior sampling for linear inverse problem solving: a filtering
    perspective"), algorithm 1; their code's c = 0.95, 5 particles, 1000 steps. Differs: systematic resampling; the last
    step weighs by y, theirs does not; their motion blur is a separable surrogate, here any operator with `spectrum()`.

    Biased, as theirs is, towards too little variance: each step takes the one noise of y for a fresh one. On a Gaussian
    with variances 1.39 and 0.91 their code's samples have 0.87 and 0.19.

    Args: particles: static, at least 1. c: share of fresh noise, in [0, 1]. sigma_y may be 0.

    Raises TypeError without a spectrum, ValueError for no particles, a y that does not fit, or a process that is not
    isotropic.
    """
    measurement = require_fit(prior, measurement, "fps", isotropic=True)
    require_count("particles", particles)
    process, (basis, seen, singular, _, _) = prior.process, _observed(measurement, "fps")
    noise, keep = jnp.asarray(measurement.sigma), jnp.sqrt(1 - c)

    def drawn(mean: Array, gap: Array, var: Array, blur: Array, z: Array) -> Array:
        """`N(mean, var)` given a measurement that is `gap` off, of noise `blur`; z is standard normal."""
        spread = singular**2 * var + blur
        kept = divide(blur * jnp.ones_like(spread), spread)  # 1 - gain singular, which would cancel
        deviation = jnp.sqrt(var * jnp.where(singular > 0, kept, 1.0))
        return jax.vmap(basis.synthesise)(mean + divide(singular * var, spread)[None] * gap + deviation[None] * z)

    def init(key: Key, t: Time, x: Array | None) -> FilteringState:
        x_key, y_key = jax.random.split(key)
        z = jax.random.normal(y_key, seen.shape, seen.dtype)
        alpha, sigma, cloud = process.alpha(t), process.sigma(t), started(prior, x_key, t, x, particles)
        y = alpha * seen + sigma * singular * z
        if x is None:
            code = jax.vmap(basis.analyse)(cloud) / sigma
            cloud = drawn(jnp.zeros_like(code), y[None], sigma**2, (alpha * noise) ** 2, code)
        return FilteringState(Particles(cloud, equal_weights(particles)), y)

    def step(key: Key, state: FilteringState, t: Time, s: Time) -> tuple[FilteringState, ParticleInfo]:
        y_key, pick_key, noise_key = jax.random.split(key, 3)
        x, alpha, sigma = state.particles.x, process.alpha(s), process.sigma(s)
        drift = state.y - process.alpha(t) * seen
        z = jax.random.normal(y_key, seen.shape, seen.dtype)
        y = alpha * seen + keep * sigma / process.sigma(t) * drift + jnp.sqrt(c) * sigma * singular * z
        x0 = jax.vmap(lambda x: prior.denoise(x, t))(x)
        mean = jax.vmap(basis.analyse)(alpha * x0 + keep * sigma * process.noise(x, x0, t))
        var, blur = c * sigma**2, (alpha * noise) ** 2
        gap, spread = y[None] - singular[None] * mean, singular**2 * var + blur
        log_weights = -0.5 * _total(jnp.where(singular[None] > 0, divide(gap**2, spread[None]), 0.0))
        even, (mean, gap) = resampled(pick_key, log_weights, (mean, gap))
        moved = drawn(mean, gap, var, blur, jax.random.normal(noise_key, mean.shape, mean.dtype))
        info = told(prior.cost.plus(calls=2), measurement, x0, log_weights)
        return FilteringState(Particles(moved, even), y), info

    return Sampler(init, step, lambda key, state: pick(key, *state.particles[::-1]))


def _twisted(
    prior: Prior, measurement: Measurement, particles: int, threshold: float, cost: Cost, look: Callable, move: Callable
) -> Sampler:
    """The scaffold of TDS and DDSMC: the weights owe `log p~(y | x_t)` until the next step has evaluated it.

    Of one particle, `look(x, t, s)` gives `log p~(y | x_t)`, the denoised mean and what `move` needs; `move(ahead, z)`
    the next x, and there the log density of the chain over that of the proposal. At time 0 the twist is the likelihood.
    """

    def init(key: Key, t: Time, x: Array | None) -> Particles:
        return Particles(started(prior, key, t, x, particles), equal_weights(particles))

    def step(key: Key, state: Particles, t: Time, s: Time) -> tuple[Particles, ParticleInfo]:
        pick_key, noise_key = jax.random.split(key)
        twist, x0, ahead = jax.vmap(lambda x: look(x, t, s))(state.x)
        twist = twist - jnp.max(twist)
        log_weights = normalised(state.log_weights + twist.astype(jnp.float32))
        kept, (twist, ahead) = resampled(pick_key, log_weights, (twist, ahead), threshold)
        x, ratio = jax.vmap(move)(ahead, jax.random.normal(noise_key, state.x.shape, state.x.dtype))
        state = Particles(x, kept + (ratio - twist).astype(jnp.float32))
        return state, told(cost, measurement, x0, log_weights)

    def final(key: Key, state: Particles) -> Array:
        likelihood = jax.vmap(measurement.log_likelihood)(state.x)
        return pick(key, state.log_weights + (likelihood - jnp.max(likelihood)).astype(jnp.float32), state.x)

    return Sampler(init, step, final)


def tds(
    prior: Prior,
    measurement: Measurement,
    particles: int = 16,
    threshold: float = 0.5,
    spread: Array | float = 1.0,
) -> Sampler:
    r"""Twisted diffusion sampler: ancestral steps twisted by a guess of the likelihood at the noisy x_t,

        p~(y | x_t) = N(y; A x0(x_t), sigma_y^2 I + spread r_t^2 A A^T),     r_t^2 = sigma_t^2 / (sigma_t^2 + alpha_t^2)
        x_s ~ N(m + c^2 grad_{x_t} log p~(y | x_t), c^2),           m, c: mean and deviation of q(x_s | x_t, x0)
        w   = N(x_s; m, c^2) p~(y | x_s) / (p~(y | x_t) N(x_s; m + c^2 grad log p~, c^2))

    with `p~(y | x_0) = p(y | x_0)`: consistent as N grows for the chain of the grid. Systematic resampling where the
    effective size is at most `threshold` N.

    Noise: Gaussian of `measurement.sigma` in the twist, and in the last weights the likelihood of whatever law it has.

    Source: Wu et al. 2023, arXiv:2306.17775, algorithm 1 and eq. 11. Differs: `spread` widens the twist for any
    operator (near 0 it is the paper's `p(y | x0)` itself, whose weights are heavier; their code widens it for
    inpainting). The shift is that of the kernel tilted by the twist; theirs, through x0, is larger by
    `alpha_s sigma_t^2 / (alpha_t sigma_s^2)`, and of no better effective size. An operator without a closed-form
    `solve` has I in place of `A A^T`. r_t^2 assumes data of unit variance: far modes die early, whatever N; there tune
    `spread`, up to 100.

    Args:
      measurement: any differentiable operator; sigma_y above 0.
      particles: static, at least 1. spread: dimensionless.
      threshold: static, 0 (never) to 1 (in every step); published: 0.5.

    Raises ValueError for no particles, a concrete sigma_y of 0, a y that does not fit, or a process that is not
    isotropic.
    """
    measurement = require_fit(prior, measurement, "tds", isotropic=True)
    measurement = require_noise(measurement, "tds", "mcgdiff")
    require_count("particles", particles)
    A, process, noise = measurement.operator, prior.process, jnp.asarray(measurement.sigma) ** 2

    def twist(x: Array, t: Time) -> tuple[Array, Array]:
        x0 = prior.denoise(x, t)
        r, variance = measurement.residual(x0), process.sigma(t) ** 2
        wide = spread * variance / (variance + process.alpha(t) ** 2)
        if isinstance(A, ClosedForm):
            wide = jnp.maximum(wide, 1e-6 * noise)
            return -0.5 * inner(r, A.solve(r, noise / wide)) / wide, x0
        return -0.5 * inner(r, r) / (noise + wide), x0

    def look(x: Array, t: Time, s: Time) -> tuple[Array, Array, tuple[Array, Array, Array]]:
        (value, x0), gradient = jax.value_and_grad(twist, has_aux=True)(x, t)
        mean, std = process.transition(x, x0, t, s)
        return value, x0, (mean, std, std * gradient)

    def move(ahead: tuple[Array, Array, Array], z: Array) -> tuple[Array, Array]:
        mean, std, pull = ahead
        return mean + std * (pull + z), 0.5 * inner(z, z) - 0.5 * inner(z + pull, z + pull)

    cost = prior.cost.plus(1, 4 if isinstance(A, ClosedForm) else 2)
    return _twisted(prior, measurement, particles, threshold, cost, look, move)


def ddsmc(
    prior: Prior,
    measurement: Measurement,
    particles: int = 16,
    eta: Array | float = 0.5,
    ode_steps: int = 1,
    threshold: float = 1.0,
    spread: Array | float = 1.0,
) -> Sampler:
    r"""Decoupled diffusion SMC: `p~(x_0 | x_t) = N(f(x_t), rho_t^2)` is conditioned on y exactly, then noised again
    by the law `q(x_s | x_0) q(x_t | x_s)^eta`, normalised. With `d = (sigma_t / alpha_t)^2 - (sigma_s / alpha_s)^2`

        l   = d / (eta sigma_s^2 / alpha_s^2 + d)
        x_s = l alpha_s x_0 + (1 - l) (alpha_s / alpha_t) x_t + sqrt(l sigma_s^2 - (l alpha_s rho_t)^2) z
        x_0 ~ p~(x_0 | x_t, y) = N(mu, V) to propose, ~ N(f, rho_t^2) in the target:  N(.., l sigma_s^2) in all

    weighed as in `tds` by `p~(y | x_t) = N(y; A f, sigma_y^2 + rho_t^2 A A^T)`. `eta` runs from all fresh noise (0,
    DAPS's kernel) to the ancestral step (1). f is the denoised mean, or the end of `ode_steps` Euler steps of the
    probability-flow ODE; `rho_t^2 = spread sigma^2 / (sigma^2 + alpha^2)`, at most what leaves the root above real.

    Noise: Gaussian of `measurement.sigma` in the twist, and in the last weights the likelihood of whatever law it has.

    Source: Kelvinius, Zhao & Lindsten 2025, arXiv:2502.06379, algorithm 1, as InverseBench's port reads: eta 0.5, 16
    particles, 200 steps, resampled in each. Differs: rho_t has one form, theirs is a schedule tuned per task;
    systematic resampling; the last step draws from N(mu, V), where theirs takes mu and its weight leaves the step out.

    Biased, as theirs is, but for the denoised mean with `eta = 1` and a fine ODE with `eta = 0`, on a fine grid: the
    mean leaves an unseen coordinate of a Gaussian prior `1 / (2 - eta)` of its variance, an ODE at `eta = 1` too much.

    Args:
      measurement: with an operator that has `spectrum()`; sigma_y above 0.
      particles, ode_steps: static, at least 1. threshold: see `tds`. eta, spread: dimensionless; eta in [0, 1].

    Raises TypeError without a spectrum; ValueError for no particles, a concrete sigma_y of 0, a y that does not fit, or
    a process that is not isotropic.
    """
    measurement = require_fit(prior, measurement, "ddsmc", isotropic=True)
    measurement = require_noise(measurement, "ddsmc", "mcgdiff")
    require_count("particles", particles)
    require_count("ode_steps", ode_steps)
    process, (basis, seen, singular, _, _) = prior.process, _observed(measurement, "ddsmc")
    noise, flow = jnp.asarray(measurement.sigma) ** 2, euler(prior).step

    def reconstruct(x: Array, t: Time) -> Array:
        levels = jnp.asarray(t) * grid(ode_steps).astype(x.dtype)
        down = lambda x, now: (flow(jax.random.key(0), x, *now)[0], None)
        return jax.lax.scan(down, x, (levels[:-1], levels[1:]))[0]

    def kernel(t: Time, s: Time) -> tuple[Array, Array, Array]:
        """The shares of x_0 and x_t in x_s, and its variance about them."""
        ratio = jnp.exp(process.log_alpha(t) - process.log_alpha(s))
        step, quiet = process.kernel_std(t, s) ** 2, process.sigma(s) ** 2
        whole = eta * ratio**2 * quiet + step
        return process.alpha(s) * step / whole, eta * ratio * quiet / whole, step * quiet / whole

    def look(x: Array, t: Time, s: Time) -> tuple[Array, Array, tuple]:
        x0, (share, keep, wide) = reconstruct(x, t), kernel(t, s)
        f, variance = basis.analyse(x0), process.sigma(t) ** 2
        rho = spread * variance / (variance + process.alpha(t) ** 2)
        last = jnp.asarray(s) <= 0
        rho = jnp.where(last, rho, jnp.minimum(rho, wide / share**2))
        wide = jnp.where(last, share**2 * rho, wide)
        gap, width = seen - singular * f, singular**2 * rho + noise
        value = -0.5 * jnp.sum(jnp.where(singular > 0, gap**2 / width, 0.0))
        mean = share * f + keep * basis.analyse(x)
        shift, loose = share * rho * singular / width * gap, jnp.maximum(wide - share**2 * rho, 0.0)
        return value, x0, (mean, shift, wide, loose + share**2 * rho * noise / width)

    def move(ahead: tuple, z: Array) -> tuple[Array, Array]:
        mean, shift, wide, narrow = ahead
        z = z.reshape(mean.shape)
        moved = shift + jnp.sqrt(narrow) * z
        ratio = 0.5 * jnp.sum(z**2 - moved**2 / wide + jnp.log(narrow / wide))
        return basis.synthesise(mean + moved), ratio

    cost = prior.cost.times(ode_steps).plus(calls=3)
    return _twisted(prior, measurement, particles, threshold, cost, look, move)
