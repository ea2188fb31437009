"""A denoiser in the place of a regulariser: plug-and-play ADMM and regularisation by denoising."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from diffinv.checks import require_fit, require_value
from diffinv.describe import described
from diffinv.linalg import norm
from diffinv.loop import markov
from diffinv.measurement import Measurement, require_linear
from diffinv.operators.base import real_scalar
from diffinv.posterior.core import proximal
from diffinv.posterior.core.levels import clean_start
from diffinv.posterior.core.proximal import Proximal
from diffinv.prior import Prior
from diffinv.times import from_sigma
from diffinv.typing import Array, Key, Sampler, StepInfo, Time


class _Denoiser(NamedTuple):
    """The prior's denoiser at one noise level, as a function of a picture with noise of that deviation."""

    prior: Prior
    t: Array

    def __call__(self, x: Array) -> Array:
        t = self.t.astype(x.dtype)
        return self.prior.denoise(self.prior.process.alpha(t) * x, t)


def _plugged(
    prior: Prior, measurement: Measurement, name: str, level: Array | float, lam: Array | float, prox: Proximal
) -> tuple[Measurement, _Denoiser, Array]:
    """What was measured, as it was accepted; D; and `rho = lam sigma_y^2 / level^2`."""
    measurement = require_fit(prior, measurement, name, isotropic=True)
    require_value("prox", prox, "proximal", {known: known for known in proximal.KNOWN})
    if prox.linear:
        require_linear(measurement, name)
    D = _Denoiser(prior, from_sigma(prior.process, real_scalar(level, measurement.y)))
    rho = real_scalar(lam, measurement.y) * (real_scalar(measurement.sigma, measurement.y) / level) ** 2
    return measurement, D, rho


def _start(prior: Prior, measurement: Measurement, t: Time, x: Array | None) -> Array:
    """A given start, x / alpha, where there is a signal in it; else 0, mid-grey."""
    zero = jnp.zeros(prior.shape, jnp.finfo(measurement.y.dtype).dtype)
    return zero if x is None else clean_start(prior.process, t, x, 0.0)


@described
class Split(NamedTuple):
    """The state of `pnp_admm`.

    Attributes:
      v: the denoised picture.
      u: the scaled dual variable, what the two pictures differed by so far.
    """

    v: Array
    u: Array


def pnp_admm(
    prior: Prior,
    measurement: Measurement,
    level: Array | float = 0.1,
    lam: Array | float = 1.0,
    prox: Proximal = proximal.closed,
) -> Sampler:
    r"""Plug-and-play ADMM: the prior's proximal step is a denoiser D of the noise level `level`, in each step

        x = argmin |y - A x|^2 + rho |x - (v - u)|^2,    rho = lam sigma_y^2 / level^2
        v = D(x + u)
        u = u + x - v

    The level stays the same; the grid only counts the steps. Where D is the mean of a Gaussian prior, the fixed point
    is the posterior's mean, at every level, for `lam = 1`; for another it is that of a prior with `lam` times its
    precision. Of another prior it is no mean: the level chooses among them.

    Noise: taken as Gaussian of `measurement.sigma`, whatever its law.

    Source: Venkatakrishnan et al. 2013, doi:10.1109/GlobalSIP.2013.6737048, algorithm 1; Chan et al. 2017,
    arXiv:1605.01710, algorithm 1, with a fixed rho.

    Args:
      level: the noise-to-signal ratio at which D denoises, above 0, in units of x.
      lam: dimensionless, above 0.
      prox: one of `posterior.proximal`, or your own.

    Raises ValueError for a process that is not isotropic, TypeError for a proximal step's name, and for
    `proximal.closed` with an operator that is not linear.
    """
    measurement, D, rho = _plugged(prior, measurement, "pnp_admm", level, lam, prox)

    def init(key: Key, t: Time, x: Array | None) -> Split:
        v = _start(prior, measurement, t, x)
        return Split(v, jnp.zeros_like(v))

    def step(key: Key, state: Split, t: Time, s: Time) -> tuple[Split, StepInfo]:
        v, u = state
        x = prox(measurement, v - u, rho)
        v = D(x + u)
        u = u + x - v
        return Split(v, u), StepInfo(prior.cost.plus(calls=prox.calls + 1), norm(measurement.residual(v)))

    return Sampler(init, step, lambda key, state: state.v)


def red(
    prior: Prior,
    measurement: Measurement,
    level: Array | float = 0.1,
    lam: Array | float = 1.0,
    prox: Proximal = proximal.closed,
) -> Sampler:
    r"""Regularisation by denoising, by its fixed-point iteration: in each step, for a denoiser D of the level `level`,

        x <- argmin |y - A x|^2 + rho |x - D(x)|^2  with D(x) held,    rho = lam sigma_y^2 / level^2

    which stands still where `A^H (A x - y) / sigma_y^2 + lam (x - D(x)) / level^2 = 0`: by Tweedie's formula where x is
    most probable under the posterior of the prior with noise of `level` on it (for `lam = 1`). The level stays the
    same; the grid only counts the steps.

    Noise: taken as Gaussian of `measurement.sigma`, whatever its law.

    Source: Romano et al. 2017, arXiv:1611.02862, its fixed-point strategy, where `lam / level^2` is its lambda; what it
    finds, by Reehorst & Schniter 2019, arXiv:1806.02296.

    Args:
      level: the noise-to-signal ratio at which D denoises, above 0, in units of x.
      lam: dimensionless, above 0.
      prox: one of `posterior.proximal`, or your own.

    Raises ValueError for a process that is not isotropic, TypeError for a proximal step's name, and for
    `proximal.closed` with an operator that is not linear.
    """
    measurement, D, rho = _plugged(prior, measurement, "red", level, lam, prox)

    def init(key: Key, t: Time, x: Array | None) -> Array:
        return _start(prior, measurement, t, x)

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        x = prox(measurement, D(x), rho)
        return x, norm(measurement.residual(x))

    return markov(prior, step, init, cost=prior.cost.plus(calls=prox.calls + 1))
