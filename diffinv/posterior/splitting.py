"""Methods that split the posterior: one step for the measurement, one for the prior, joined by a distance."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffinv.checks import require_count, require_fit, require_value
from diffinv.describe import described
from diffinv.linalg import inner, norm
from diffinv.loop import markov
from diffinv.measurement import Measurement, require_linear
from diffinv.operators.base import LinearOperator
from diffinv.posterior.core import proximal, rewards
from diffinv.posterior.core.adam import adam
from diffinv.posterior.core.calibration import calibrated, clock
from diffinv.posterior.core.levels import clean_start
from diffinv.posterior.core.proximal import Proximal, misfit
from diffinv.prior import Prior
from diffinv.samplers import euler
from diffinv.times import grid
from diffinv.typing import Array, Key, Sampler, StepInfo, Time


def diffpir(
    prior: Prior,
    measurement: Measurement,
    lam: Array | float = 1.0,
    zeta: Array | float = 0.25,
    prox: Proximal = proximal.closed,
) -> Sampler:
    r"""DiffPIR: a proximal step on the denoised mean, then a share `zeta` of fresh noise. For `r_t = sigma_t / alpha_t`

        rho_t = lam sigma_y^2 / r_t^2
        x0'   = argmin_x |y - A x|^2 + rho_t |x - x0|^2
        eps'  = (x_t - alpha_t x0') / sigma_t
        x_s   = alpha_s x0' + sigma_s (sqrt(1 - zeta) eps' + sqrt(zeta) z)

    Noise: taken as Gaussian of `measurement.sigma`, whatever its law.

    Source: Zhu et al. 2023, arXiv:2305.08995, algorithm 1 and eq. 12. Their code takes the proximal step on pictures in
    [0, 1] with sigma_y on that scale, half of ours, but r_t on the [-1, 1] scale: its lam is 4 times ours. `prox`:
    `proximal.closed` is the minimiser by `operator.solve`; `proximal.gradient` one step of descent on the same problem,
    for operators that are not linear and of norm at most 1 (InverseBench divides by `rho_t` alone, which is nearly 0 at
    the noisy end and diverges there). Published zeta: 0.25 for super-resolution, 0.1 for deblurring, 1 for
    inpainting; times there: `1 - sqrt(k / (n - 1))` ("quad"), the last 1/1000, which `experiments.reconstruct` takes.
    Differs: their code returns the denoised mean of its last level as it is; the last step here takes the
    proximal step too, as the algorithm does.

    Args: lam: dimensionless. zeta: dimensionless, in [0, 1]. prox: one of `posterior.proximal`, or your own.

    Raises ValueError for a process that is not isotropic, TypeError for a proximal step's name, and for
    `proximal.closed` with an operator that is not linear.
    """
    measurement = require_fit(prior, measurement, "diffpir", isotropic=True)
    require_value("prox", prox, "proximal", {name: name for name in proximal.KNOWN})
    process, variance = prior.process, jnp.asarray(measurement.sigma) ** 2
    if prox.linear:
        require_linear(measurement, "diffpir")

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        rho = lam * variance * (process.alpha(t) / process.sigma(t)) ** 2
        x0 = prox(measurement, prior.denoise(x, t), rho)
        z = jax.random.normal(key, x.shape, x.dtype)
        noise = jnp.sqrt(1 - zeta) * process.noise(x, x0, t) + jnp.sqrt(zeta) * z
        return process.alpha(s) * x0 + process.sigma(s) * noise, norm(measurement.residual(x0))

    return markov(prior, step, cost=prior.cost.plus(calls=prox.calls + 1))


def flowdps(
    prior: Prior,
    measurement: Measurement,
    lr: Array | float = 1.0,
    iterations: int = 3,
    reward: rewards.Reward = rewards.norm,
) -> Sampler:
    r"""FlowDPS: a flow's step in its two ends; the clean one is drawn to the measurement, the noisy one made afresh.

        x0'  = x0 + lr grad R(x0'), `iterations` times from x0 = denoise(x_t, t),   R = -|y - A x0'|
        x0'' = (1 - u_t) x0 + u_t x0',       u = sigma / (alpha + sigma): rectified flow's clock, under `Flow` t
        x_s  = alpha_s x0'' + sigma_s (sqrt(u_s) eps + sqrt(1 - u_s) z),     eps = (x_t - alpha_t x0) / sigma_t

    Noise: least squares, whatever the law; `rewards.likelihood` takes any law, by its likelihood.

    Source: Kim, Kim & Ye 2025, arXiv:2503.08136, algorithm 1, as in their code: 3 steps of 30 in the codes of Stable
    Diffusion 3, 28 evaluations. Differs: theirs descends on the norm of `A^H (y - A x)`, or of `A^+ (y - A x)` for
    super-resolution; any isotropic process; codes come by `charts.within`.

    Biased: a step of the norm has one length however small the residual is, and only the clock weighs it; and of N(0,
    1) without any pull 40 steps leave 0.71 of the variance, as fresh noise replaces what x_t still knew of x_0.

    Args:
      measurement: any differentiable operator.
      lr: for `rewards.norm` in the units of the data. iterations: static, at least 1.
      reward: as of `dps`; one of `posterior.rewards`, or your own.

    Raises TypeError for a reward's name, ValueError for iterations under 1, or a process that is not isotropic.
    """
    measurement = require_fit(prior, measurement, "flowdps", isotropic=True)
    measurement = rewards.require_reward(reward, measurement, "flowdps", rewards.norm)
    require_count("iterations", iterations)
    process, climb = prior.process, jax.grad(lambda x0: reward(measurement, x0))

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        x0 = prior.denoise(x, t)
        drawn = jax.lax.scan(lambda x, _: (x + lr * climb(x), None), x0, None, iterations)[0]
        fitted, u = x0 + clock(process, t) * (drawn - x0), clock(process, s)
        z = jax.random.normal(key, x.shape, x.dtype)
        noise = jnp.sqrt(u) * process.noise(x, x0, t) + jnp.sqrt(1 - u) * z
        return process.alpha(s) * fitted + process.sigma(s) * noise, norm(measurement.residual(fitted))

    return markov(prior, step, cost=prior.cost.plus(calls=2 * iterations + 1))


def sitcom(
    prior: Prior,
    measurement: Measurement,
    iterations: int = 30,
    lr: Array | float = 0.01,
    lam: Array | float = 0.0,
    tolerance: Array | float = 0.0,
) -> Sampler:
    r"""SITCOM: optimise the network's input until its output fits the measurement, then noise that output again.

        v   = argmin |y - A x0(v, t)|^2 + lam |v - x_t|^2           `iterations` of Adam from v = x_t
        x_s = alpha_s x0(v, t) + sigma_s z

    Noise: least squares, whatever the law.

    Source: Alkhouri et al. 2025, arXiv:2410.04479, algorithm 1, with their code's 20 steps in time, 30 of Adam and rate
    0.01 (0.02 for some tasks). They stop at `|y - A x0|^2 < (sigma_y + 0.001)^2 n`: `tolerance` times the measurement's
    size; 0 never stops. A stopped sample stands still, and its evaluations are made and counted all the same.

    Differs: x0 is evaluated after the last step of Adam (one evaluation more), where their code keeps that before it,
    clamps it to [-1, 1], for inpainting takes one more gradient step on x0, and of all steps in time returns the
    picture that is nearest to the truth, which no user has.

    Args:
      measurement: any differentiable operator.
      iterations: static, at least 1. lr: of Adam, in units of x. lam: dimensionless.
      tolerance: on the mean square of the residual, units of y squared.

    Raises ValueError for a count under 1 or a y that does not fit.
    """
    measurement = require_fit(prior, measurement, "sitcom")
    require_count("iterations", iterations)
    process, optimizer = prior.process, adam(lr)

    def loss(v: Array, x: Array, t: Time) -> tuple[Array, Array]:
        fit = misfit(measurement, prior.denoise(v, t))
        return fit + lam * inner(v - x, v - x), fit

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        def descend(carry: tuple[Array, optax.OptState], _: None) -> tuple[tuple[Array, optax.OptState], None]:
            v, state = carry
            (_, fit), gradient = jax.value_and_grad(loss, has_aux=True)(v, x, t)
            updates, moved = optimizer.update(gradient, state)
            live = ~(fit <= tolerance * measurement.y.size)  # NaN goes on, and shows
            return jax.tree.map(lambda new, old: jnp.where(live, new, old), (v + updates, moved), carry), None

        (v, _), _ = jax.lax.scan(descend, (x, optimizer.init(x)), None, iterations)
        x0 = prior.denoise(v, t)
        return process.perturb(x0, s).sample(key), norm(measurement.residual(x0))

    cost = prior.cost.times(iterations + 1).plus(vjps=iterations, calls=2 * iterations + 1)
    return markov(prior, step, cost=cost)


@described
class FlairState(NamedTuple):
    """The state of `flair`.

    Attributes:
      mean: of the variational law, a clean sample.
      noise: what the last step took for the noise in its x_t.
    """

    mean: Array
    noise: Array


def flair(
    prior: Prior,
    measurement: Measurement,
    weight: Array | float = 0.5,
    errors: Array | None = None,
    adjust: Array | float = 1.0,
    iterations: int = 15,
    lr: Array | float = 1.0,
    tolerance: Array | float = 1.0,
) -> Sampler:
    r"""FLAIR: the mean of a variational law, drawn to the prior by flow matching and to the measurement by descent.

    With the clock `u = sigma / (alpha + sigma)`, which under `Flow` is t, from `mu = A^+ y` and e drawn, at each time:

        e'  = a e + sqrt(1 - a^2) z,   a = adjust (1 - u)                        deterministic trajectory adjustment
        x_t = alpha_t mu + sigma_t e';    e = (x_t - alpha_t x0(x_t)) / sigma_t,   of which the next step makes its e'
        mu <- mu - lambda(u) (v(x_t) - (e' - mu)) = mu - lambda(u) (mu - x0(x_t)) / u
        mu <- mu + lr lambda(u) A^T (y - A mu)    `iterations` times, while |y - A mu|^2 > tolerance sigma_y^2 n

    where `lambda = weight w(u)`, and w is `calibration.calibrated(errors, u)`: what the prior's velocity is worth
    there, by errors that `calibration.velocity_errors` measures once for a prior.

    Noise: taken as Gaussian of `measurement.sigma`, whatever its law: it says when the descent has arrived.

    Source: Erbach et al. 2025, arXiv:2506.02680, as their code reads in its configurations: 50 times, even between 1
    and 0.18, weight 0.5, a = 1 - t, 15 iterations at 0.2 (24 for twelvefold super-resolution) in the codes of Stable
    Diffusion 3, stopped at a mean square of 1e-4, their noise's, with errors of that network measured on DIV2K.
    Differs: any isotropic process; `2 u` for w where there are no errors; from 0 where A is not linear; codes come by
    `charts.within`.

    Biased: a mean that is fitted, and what spreads it is the noise that was drawn on the way. Of N(0, 1) and y = 1.5
    with noise 0.5 the published times leave y as it is where the descent never stops, at a variance of 3e-5, where the
    posterior is N(1.2, 0.2); of what is not measured they leave 0.77 of the variance.

    Args:
      measurement: any differentiable operator.
      weight: of the regulariser, dimensionless. errors: (n,), at even clocks from 1 to 0, or None.
      adjust: in [0, 1]; 0 draws fresh noise in each step.
      iterations: static, at least 1. lr: stable while `lr lambda` is below 2 for operators of norm 1.
      tolerance: dimensionless; 0 never stops.

    Raises ValueError for iterations under 1, errors that are no vector, a process that is not isotropic, or a y that
    does not fit.
    """
    measurement = require_fit(prior, measurement, "flair", isotropic=True)
    require_count("iterations", iterations)
    if errors is not None and (jnp.ndim(errors) != 1 or jnp.size(errors) < 2):
        shape = jnp.shape(errors)
        raise ValueError(f"errors has shape {shape}; give (n,), as of calibration.velocity_errors, or None")
    process, A = prior.process, measurement.operator
    enough = tolerance * measurement.sigma**2 * measurement.y.size

    def init(key: Key, t: Time, x: Array | None) -> FlairState:
        blank = jnp.zeros_like(prior.start(key, t))
        guess = A.pinv(measurement.y).astype(blank.dtype) if isinstance(A, LinearOperator) else blank
        mean = guess if x is None else clean_start(process, t, x, guess)
        return FlairState(mean, jax.random.normal(key, mean.shape, mean.dtype))

    def step(key: Key, state: FlairState, t: Time, s: Time) -> tuple[FlairState, StepInfo]:
        u = clock(process, t)
        a, lam = adjust * (1 - u), weight * calibrated(errors, u)
        z = jax.random.normal(key, state.noise.shape, state.noise.dtype)
        x = process.perturb(state.mean, t).at(a * state.noise + jnp.sqrt(1 - a**2) * z)
        x0 = prior.denoise(x, t)

        def descend(mean: Array, _: None) -> tuple[Array, None]:
            fit, gradient = jax.value_and_grad(misfit, 1)(measurement, mean)
            return jnp.where(fit <= enough, mean, mean - 0.5 * lr * lam * gradient), None  # NaN goes on, and shows

        mean = jax.lax.scan(descend, state.mean - lam / u * (state.mean - x0), None, iterations)[0]
        cost = prior.cost.plus(calls=2 * iterations + 1)
        return FlairState(mean, process.noise(x, x0, t)), StepInfo(cost, norm(measurement.residual(mean)))

    return Sampler(init, step, lambda key, state: state.mean)


def _clean(prior: Prior, key: Key, t: Time, x: Array | None) -> Array:
    """A start of the clean estimate: `x / alpha_t`, or 0 where there is no x or no signal in it."""
    return jnp.zeros_like(prior.start(key, t)) if x is None else clean_start(prior.process, t, x, 0.0)


def dcdp(
    prior: Prior,
    measurement: Measurement,
    iterations: int = 100,
    lr: Array | float = 0.1,
    momentum: Array | float = 0.9,
    purify_steps: int = 20,
) -> Sampler:
    r"""Decoupled data consistency with diffusion purification. The state is a clean x; in each round, at noise level t:

        x <- `iterations` of gradient descent with momentum on |y - A x|^2 / 2, from x
        x <- DDIM of `purify_steps` from x_t = alpha_t x + sigma_t z, down to 0

    Noise: least squares, whatever the law.

    Source: Li et al. 2024, arXiv:2403.06054, algorithm 1 and section 3.3. The grid holds the levels T_k, each of which
    is one round, and 0: published, ten from 0.4 to one step of a thousand, and 100 iterations, that is
    `jnp.append(jnp.linspace(0.4, 0.001, 10), 0.0)`; for inpainting 20 from 0.7 and 50 iterations, for phase retrieval
    200 from 1 to 0.02. The last round's level says how much of the measurement stays: it must be low.

    Differs: their loss is a mean over pixels, at rates of 300 to 1e5 tuned per task, of which each is `2 rate / n_y`
    here, where it is half a sum: 0.16 for fourfold super-resolution of 256 x 256, 0.01 for inpainting, 1.02 for blur,
    and it is stable below `2 (1 + momentum)` for operators of norm 1. Their purifier is clamped to [-1, 1], and takes
    no more steps than the level has of its thousand. Started at 0, or at x / alpha.

    Args:
      measurement: any differentiable operator.
      iterations, purify_steps: static, at least 1. lr, momentum: dimensionless.

    Raises ValueError for a count under 1 or a y that does not fit.
    """
    measurement = require_fit(prior, measurement, "dcdp")
    require_count("iterations", iterations)
    require_count("purify_steps", purify_steps)
    flow = euler(prior).step

    def consistent(x: Array) -> Array:
        def descend(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            x, velocity = carry
            velocity = momentum * velocity + 0.5 * jax.grad(misfit, 1)(measurement, x)
            return (x - lr * velocity, velocity), None

        return jax.lax.scan(descend, (x, jnp.zeros_like(x)), None, iterations)[0][0]

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        x = prior.process.perturb(consistent(x), t).sample(key)
        levels = jnp.asarray(t) * grid(purify_steps).astype(x.dtype)
        down = lambda x, now: (flow(key, x, *now)[0], None)
        x = jax.lax.scan(down, x, (levels[:-1], levels[1:]))[0]
        return x, norm(measurement.residual(x))

    cost = prior.cost.times(purify_steps).plus(calls=2 * iterations + 1)
    return markov(prior, step, init=lambda key, t, x: _clean(prior, key, t, x), cost=cost)
