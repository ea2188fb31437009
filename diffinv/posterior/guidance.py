"""Guidance `(Prior, Measurement) -> Prior`: the posterior as another denoiser, under every sampler."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.checks import require_count, require_fit, require_switch, require_value
from diffinv.describe import Described
from diffinv.linalg import cg
from diffinv.measurement import Measurement, require_linear
from diffinv.posterior.core import moments, rewards
from diffinv.posterior.core.guided import guided, linearise
from diffinv.posterior.core.moments import Moment
from diffinv.prior import Prediction, Prior
from diffinv.typing import Array, Cost, Time


def _dps_score(
    prior: Prior, measurement: Measurement, x: Array, t: Time, rho: Array | float, reward: rewards.Reward
) -> Prediction:
    prediction, covariance = linearise(prior, x, t)
    gradient = jax.grad(reward, argnums=1)(measurement, prediction.x0)
    return prediction._replace(x0=prediction.x0 + rho * covariance(gradient))


def dps_score(
    prior: Prior, measurement: Measurement, rho: Array | float = 1.0, reward: rewards.Reward = rewards.square
) -> Prior:
    r"""The DPS posterior score, for the deterministic DPS-ODE (under `euler` or `heun`):

        score' = score + rho grad_{x_t} R(y, x0(x_t)),   R = -|y - A x0|^2.

    Noise: least squares, whatever the law; `rewards.likelihood` takes any law, by its likelihood.

    Source: Chung et al. 2023, arXiv:2209.14687, eq. 11, on the probability-flow ODE as in Karan et al. 2025,
    arXiv:2506.10955. Papers and codes differ in the reward, so it is an argument: `rewards.square` as above,
    `rewards.norm` `-|y - A x0|` (DPS's code), `rewards.likelihood` `log p(y | x0)`, that is the square over
    `2 sigma_y^2`. ReGuidance's own rho and reward are not in what we could read of it.

    Biased: the exact score has `log E p(y | x_0)` in place of `log p(y | E x_0)`.

    Args:
      rho: dimensionless for `rewards.likelihood`, else per (squared) unit of y.
      reward: `(measurement, x0) -> R`, one of `posterior.rewards` or your own; static.

    Raises TypeError for a reward's name, ValueError for a concrete sigma_y of 0 with `rewards.likelihood`, or a y that
    does not fit.
    """
    measurement = require_fit(prior, measurement, "dps_score")
    measurement = rewards.require_reward(reward, measurement, "dps_score", rewards.norm)
    return guided(prior, measurement, _dps_score, 1, 2, weights={"rho": rho}, reward=reward)


def _pigdm(
    prior: Prior, measurement: Measurement, x: Array, t: Time, weight: Array | float, adaptive: bool
) -> Prediction:
    A, process = require_linear(measurement, "pigdm"), prior.process
    prediction, covariance = linearise(prior, x, t)
    alpha, sigma = process.alpha(t), process.sigma(t)
    spread = sigma**2 / (sigma**2 + alpha**2)
    u = A.solve(measurement.residual(prediction.x0), measurement.sigma**2 / spread)
    gain = weight * (alpha**2 / sigma**2 if adaptive else 1 / spread)
    return prediction._replace(x0=prediction.x0 + gain * covariance(A.adjoint(u)))


def pigdm(prior: Prior, measurement: Measurement, weight: Array | float = 1.0, adaptive: bool = False) -> Prior:
    r"""Pseudoinverse guidance: `p(x_0 | x_t) ~ N(x0, r^2 I)` with `r^2 = sigma^2 / (sigma^2 + alpha^2)`, so that

        grad log p(y | x_t) = J^T A^H (r^2 A A^H + sigma_y^2 I)^{-1} (y - A x0).

    Noise: taken as Gaussian of `measurement.sigma`, whatever its law.

    Source: Song et al. 2023 (ICLR, "Pseudoinverse-guided diffusion models for inverse problems"), eq. 7 and 8.
    Exact for `x_0 ~ N(m, I)` unless `adaptive` (static), which is their algorithm 1: it adds
    `alpha J^T A^H (A A^H + (sigma_y^2 / r^2) I)^{-1} (y - A x0)` to x0.
    Differs: the sampler's eps follows the guided x0, where algorithm 1 keeps the network's own.

    Raises TypeError for an operator that is not linear, ValueError for a y that does not fit or a process that is not
    isotropic.
    """
    measurement = require_fit(prior, measurement, "pigdm", isotropic=True)
    require_linear(measurement, "pigdm")
    require_switch("adaptive", adaptive)
    return guided(prior, measurement, _pigdm, 1, 3, weights={"weight": weight}, adaptive=adaptive)


def _mmps(prior: Prior, measurement: Measurement, x: Array, t: Time, iterations: int) -> Prediction:
    A = require_linear(measurement, "mmps")
    prediction, covariance = linearise(prior, x, t)
    r = measurement.residual(prediction.x0)
    damping = jnp.asarray(measurement.sigma**2, r.dtype)
    u = cg(lambda u: A(covariance(A.adjoint(u))) + damping * u, r, iterations)
    return prediction._replace(x0=prediction.x0 + covariance(A.adjoint(u)))


def mmps(prior: Prior, measurement: Measurement, iterations: int = 8) -> Prior:
    r"""Moment matching: `p(x_0 | x_t) ~ N(x0, Cov)` with the true `Cov = (sigma^2 / alpha) J`, solved matrix-free:

        E[x_0 | x_t, y] = x0 + Cov A^H (A Cov A^H + sigma_y^2 I)^{-1} (y - A x0),

    by `iterations` (static) of conjugate gradients, one pullback each. Exact for Gaussian priors once they converge.

    Noise: taken as Gaussian of `measurement.sigma`, whatever its law.

    Source: Rozet et al. 2024, arXiv:2405.13712, eq. 18 to 20. Differs: conjugate gradients instead of GMRES, which
    assumes that the network's J is symmetric. Raises TypeError for an operator that is not linear, ValueError for
    iterations under 1 or a y that does not fit.
    """
    measurement = require_fit(prior, measurement, "mmps")
    require_linear(measurement, "mmps")
    require_count("iterations", iterations)
    return guided(prior, measurement, _mmps, iterations + 1, 2 * iterations + 2, iterations=iterations)


def _realise(y: Array) -> Array:
    return jnp.concatenate([y.real.ravel(), y.imag.ravel()]) if jnp.iscomplexobj(y) else y.ravel()


def _complexify(u: Array, like: Array) -> Array:
    if not jnp.iscomplexobj(like):
        return u.reshape(like.shape)
    return jax.lax.complex(*jnp.split(u, 2)).reshape(like.shape)


def _tmpd(prior: Prior, measurement: Measurement, x: Array, t: Time, moment: Moment) -> Prediction:
    A, variance = require_linear(measurement, "tmpd"), measurement.sigma**2
    prediction, covariance = linearise(prior, x, t)
    y = measurement.residual(prediction.x0)

    def spread(u: Array) -> Array:
        return _realise(A(covariance(A.adjoint(_complexify(u, y)))))

    u = moment(spread, _realise(y), variance)
    return prediction._replace(x0=prediction.x0 + covariance(A.adjoint(_complexify(u, y))))


def tmpd(prior: Prior, measurement: Measurement, moment: Moment = moments.exact) -> Prior:
    r"""Tweedie moment projection: the update of `mmps`, with `A Cov A^H + sigma_y^2 I` as a matrix.

    `moment` (static): `moments.exact` builds the dy x dy matrix by dy pullbacks and solves it; `moments.entries` needs
    them, too, and keeps its diagonal alone; `moments.diagonal`, their vjp form, takes the row sums in its place, one
    pullback more. A measurement that is 0 by construction, as on masked pixels, moves nothing, also at `sigma_y = 0`.

    Noise: taken as Gaussian of `measurement.sigma`, whatever its law.

    Source: Boys et al. 2024, arXiv:2310.06721, eq. 9 and 14, as KGDMVP, "diag" and "plus" in their code. Raises
    TypeError for an operator that is not linear or a moment's name, ValueError for a y that does not fit.
    """
    measurement = require_fit(prior, measurement, "tmpd")
    require_linear(measurement, "tmpd")
    require_value("moment", moment, "moments", {name: name for name in moments.KNOWN})
    parts = 2 if jnp.iscomplexobj(measurement.y) else 1
    probes = parts * measurement.y.size if moment.whole else 1
    return guided(prior, measurement, _tmpd, 1 + probes, 2 + 2 * probes, moment=moment)


@struct.dataclass
class Extrapolated(Described):
    """`x0 = weak + weight (strong - weak)` of two denoisers, a pytree; conditions reach both.

    Attributes:
      strong: the prior that is followed.
      weak: the prior that is moved away from.
      weight: 1 is the strong one alone.
    """

    strong: Prior
    weak: Prior
    weight: Array | float

    def __call__(self, x: Array, t: Time) -> Array:
        return self.predict(x, t).x0

    def predict(self, x: Array, t: Time) -> Prediction:
        """`Prediction(x0, v)`, with the variance share of the strong one."""
        strong, weak = self.strong.predict(x, t), self.weak.denoise(x, t)
        return strong._replace(x0=weak + self.weight * (strong.x0 - weak))

    @property
    def cost(self) -> Cost:
        """Both denoisers'."""
        return Cost(*(strong + weak for strong, weak in zip(self.strong.cost, self.weak.cost, strict=True)))

    def given(self, **condition: Any) -> Extrapolated:
        """The same guidance of both conditional priors."""
        return replace(self, strong=self.strong.given(**condition), weak=self.weak.given(**condition))


def autoguidance(prior: Prior, weak: Prior, weight: Array | float = 2.0) -> Prior:
    r"""Guides a denoiser by a worse version of itself, smaller or less trained, under the same condition:

        x0 = x0_weak + weight (x0_prior - x0_weak).

    Source: Karras et al. 2024, arXiv:2406.02507, eq. 3. `weight` (dimensionless): 1 is the prior, 0 the weak one. The
    result is a prior: any measurement's guidance and any sampler may follow.
    """
    return replace(prior, denoise=Extrapolated(prior, weak, weight))


def cfg(conditional: Prior, unconditional: Prior, weight: Array | float = 2.0) -> Prior:
    r"""Classifier-free guidance, `score = score(x | nothing) + weight (score(x | c) - score(x | nothing))`.

        posterior.cfg(prior.given(label=3), prior.given(label=nothing), 4.0)

    Source: Ho & Salimans 2022, arXiv:2207.12598, eq. 6. Differs: their w is `weight - 1`; here 1 is the conditional
    prior and 0 the unconditional one, as in Stable Diffusion's `guidance_scale`. It is `autoguidance` by the
    unconditional prior.
    """
    return autoguidance(conditional, unconditional, weight)
