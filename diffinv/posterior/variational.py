"""Methods that fit a distribution to the posterior by gradient descent, with the denoiser as a regulariser."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffinv.descent import adam
from diffinv.guided import DEAD
from diffinv.inputs import require_choice, require_count, require_fit, require_noise
from diffinv.linalg import inner, norm
from diffinv.measure import Measurement
from diffinv.operators.base import LinearOperator
from diffinv.prior import Prior
from diffinv.sample import markov
from diffinv.typing import Array, Key, Sampler, StepInfo, Time

WEIGHTS: dict[str, Callable[[Array], Array]] = {
    "linear": jnp.ones_like,
    "sqrt": lambda r: r**-0.5,
    "square": lambda r: r,
    "const": lambda r: 1 / r,
}
"""`w(r) / r` of RED-diff's weights w, for the noise-to-signal `r = sigma / alpha`."""


class ReddiffState(NamedTuple):
    """The variational mean and its optimiser's state."""

    mean: Array
    optimizer: optax.OptState


def reddiff(
    prior: Prior,
    measurement: Measurement,
    lr: Array | float = 0.1,
    lam: Array | float = 0.25,
    weight: str = "linear",
    form: str = "mean",
) -> Sampler:
    r"""RED-diff: stochastic optimisation of a mean mu, without a gradient through the network. At each time

        x_t  = alpha_t mu + sigma_t e
        grad = -A^T (y - A mu) / n_y + lam w(r_t) (eps(x_t) - e) / n_x,        r_t = sigma_t / alpha_t
        mu  <- Adam(mu, grad),  betas (0.9, 0.99),  from A^+ y

    `eps(x_t) - e = (mu - x0(x_t)) / r_t`, in which form it is computed: finite where alpha is 0.

    Source: Mardani et al. 2024, arXiv:2305.04391, algorithm 1, with their code's means, Adam at 0.1 (up to 0.5), lam
    0.25 and `w(r) = r` ("linear"; "sqrt", "square" and "const" are its others), 1000 steps. `form = "sum"` is
    InverseBench's: `grad |y - A mu|^2 + lam w (eps - e)`, for which it has lr 0.02 and "const". The balance of both
    terms differs by `2 n_x / n_y` between the forms. Differs: from 0 where A is not linear.

    Args:
      measurement: any differentiable operator.
      lr: of Adam, in units of x. lam: dimensionless. weight, form: static.

    Raises ValueError for another weight or form, or a y that does not fit.
    """
    require_fit(prior, measurement, "reddiff")
    require_choice("weight", weight, WEIGHTS)
    require_choice("form", form, ("mean", "sum"))
    process, optimizer, A = prior.process, adam(lr, b2=0.99), measurement.operator
    size = 1 if form == "sum" else measurement.y.size

    def misfit(x: Array) -> Array:
        r = measurement.residual(x)
        return (1.0 if form == "sum" else 0.5) * inner(r, r) / size

    def init(key: Key, t: Time, x: Array | None) -> ReddiffState:
        blank = jnp.zeros_like(prior.start(key, t))
        guess = A.pinv(measurement.y).astype(blank.dtype) if isinstance(A, LinearOperator) else blank
        alpha = process.alpha(t)
        mean = guess if x is None else jnp.where(alpha > DEAD, x / jnp.maximum(alpha, DEAD), guess)
        return ReddiffState(mean, optimizer.init(mean))

    def step(key: Key, state: ReddiffState, t: Time, s: Time) -> tuple[ReddiffState, StepInfo]:
        mean = state.mean
        x0 = prior.denoise(process.perturb(mean, t).sample(key), t)
        ratio = jnp.minimum(jnp.exp(-0.5 * process.log_snr(t)), 1 / DEAD)
        pull = lam * WEIGHTS[weight](ratio) * (mean - x0) / (1 if form == "sum" else mean.size)
        updates, memory = optimizer.update(jax.grad(misfit)(mean) + pull, state.optimizer)
        mean = mean + updates
        return ReddiffState(mean, memory), StepInfo(prior.cost.plus(calls=3).times(1), norm(measurement.residual(mean)))

    return Sampler(init, step, lambda key, state: state.mean)


def mgps(
    prior: Prior,
    measurement: Measurement,
    iterations: int = 5,
    lr: Array | float = 0.03,
    midpoint: Array | float = 0.5,
) -> Sampler:
    r"""Midpoint guidance: at `l = midpoint s`, between 0 and s, a Gaussian is fitted to `p(x_l | x_t) p(y | x0(x_l))`.

        q = N(m, diag(v))   minimises   KL(q | p(x_l | x_t)) - E_q log p(y | x0(x_l, l))     `iterations` of Adam
        x_l ~ q;   x_s ~ p(x_s | x_l, x_t),  the forward process's bridge

    from `q = p(x_l | x_t)`, the ancestral transition. A small midpoint trusts the likelihood, and the transition less.

    Source: Moufad et al. 2024 (MGPS), arXiv:2410.09945, algorithm 1, with their code's midpoint ratio 0.5, Adam at 0.03
    and 300 steps; how many iterations each step has there was not available to us. Differs: the last step (s = 0)
    returns the mean x0 of the last x_l fitted; each gradient uses one draw of q.

    Args:
      measurement: any differentiable operator, Gaussian or Poisson noise.
      iterations: static, at least 1. lr: of Adam, relative to the deviation of p(x_l | x_t). midpoint: in (0, 1).

    Raises ValueError for a count under 1, a concrete sigma_y of 0, or a y that does not fit.
    """
    require_fit(prior, measurement, "mgps")
    require_noise(measurement, "mgps", "ddnm")
    require_count("iterations", iterations)
    process, optimizer = prior.process, adam(lr)

    def bridge(key: Key, x: Array, middle: Array, t: Time, s: Time, low: Time) -> Array:
        """A draw of `p(x_s | x_l, x_t)`: two Gaussian observations of x_s, one from below and one from above."""
        mean, below = process.forward(middle, low, s)
        ratio, above = jnp.exp(process.log_alpha(t) - process.log_alpha(s)), process.kernel_std(t, s)
        gain = ratio * below**2 / (ratio**2 * below**2 + above**2)
        std = below * above / jnp.sqrt(ratio**2 * below**2 + above**2)
        return mean + gain * (x - ratio * mean) + std * jax.random.normal(key, x.shape, x.dtype)

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        fit_key, draw_key, bridge_key = jax.random.split(key, 3)
        low = midpoint * jnp.where(s > 0, s, t)
        mean, std = process.transition(x, prior.denoise(x, t), t, low)

        def loss(q: tuple[Array, Array], k: Key) -> Array:
            """In the coordinates of `p(x_l | x_t)`: q's shift and log deviation, each 0 at the start."""
            shift, log_std = q
            z = shift + jnp.exp(log_std) * jax.random.normal(k, x.shape, x.dtype)
            divergence = jnp.sum(0.5 * (jnp.exp(2 * log_std) + shift**2) - log_std)
            return divergence - measurement.log_likelihood(prior.denoise(mean + std * z, low))

        def descend(carry: tuple, k: Key) -> tuple[tuple, None]:
            q, state = carry
            updates, state = optimizer.update(jax.grad(loss)(q, k), state)
            return (optax.apply_updates(q, updates), state), None

        q = (jnp.zeros_like(x), jnp.zeros_like(x))
        (shift, log_std), _ = jax.lax.scan(descend, (q, optimizer.init(q)), jax.random.split(fit_key, iterations))[0]
        middle = mean + std * (shift + jnp.exp(log_std) * jax.random.normal(draw_key, x.shape, x.dtype))
        last = jnp.asarray(s) <= 0
        x_s = bridge(bridge_key, x, middle, t, jnp.where(last, 0.5 * (low + t), s), low)
        x_s = jax.lax.cond(last, lambda: prior.denoise(middle, low), lambda: x_s)
        evaluations = jnp.where(last, iterations + 2, iterations + 1)
        cost = prior.cost.times(evaluations).plus(iterations, 2 * iterations + 1)
        return x_s, StepInfo(cost, norm(measurement.residual(x_s)))

    return markov(prior, step)
