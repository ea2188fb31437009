"""Processes whose alpha and sigma are one number at each time."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from diffinv.ends import require_rates, require_table
from diffinv.process.base import Explicit, Process, real_time
from diffinv.typing import Array, Coefficient, Time


def _log_sigma_vp(log_alpha: Array) -> Array:
    """`log sqrt(1 - alpha^2)` from `log alpha`."""
    return 0.5 * jnp.log(-jnp.expm1(2 * log_alpha))


@struct.dataclass
class VP(Process):
    r"""Variance preserving, linear beta: `log alpha_t = -(beta_max - beta_min) t^2 / 4 - beta_min t / 2`.

    At the noisy end `alpha_1 = exp(-(beta_min + beta_max) / 4)` of the picture is left; `Prior.start` refuses to start
    there where that is more than a fifth of the noise.

    Source: Song et al. 2021, arXiv:2011.13456, eq. 33.

    Attributes:
      beta_min: the rate at time 0, dimensionless.
      beta_max: the rate at time 1, dimensionless.

    Raises ValueError for a rate that is a negative Python float.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        require_rates(beta_min=self.beta_min, beta_max=self.beta_max)

    def log_alpha(self, t: Time) -> Coefficient:
        t = jnp.asarray(t)
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def log_sigma(self, t: Time) -> Coefficient:
        return _log_sigma_vp(self.log_alpha(t))


@struct.dataclass
class DDPM(Process):
    r"""The discrete VP table: `alpha_{k/K}^2 = prod_{i<=k} (1 - beta_i)`, `beta` linear, exact at `t = k/K`.

    Between the table's times `log alpha` is interpolated linearly; `t = 0` is the data. The k-th time (from 1) is the
    published index `k - 1`.

    Source: Ho et al. 2020, arXiv:2006.11239, section 4 (K = 1000, beta from 1e-4 to 0.02). Build it with `ddpm`, or of
    betas of your own: `table = concatenate([[0], 0.5 cumsum(log1p(-beta))])`.

    Attributes:
      table: `log alpha` at the times `k/K`, (K + 1,).

    Raises ValueError for a known table that rises, or that does not start at 0: its samples would keep the noise of the
    first beta.
    """

    table: Array

    def __post_init__(self) -> None:
        require_table(self.table)

    def log_alpha(self, t: Time) -> Coefficient:
        grid = jnp.linspace(0.0, 1.0, self.table.shape[0], dtype=self.table.dtype)
        return jnp.interp(jnp.asarray(t, self.table.dtype), grid, self.table)

    def log_sigma(self, t: Time) -> Coefficient:
        return _log_sigma_vp(self.log_alpha(t))


def ddpm(steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> DDPM:
    """The published DDPM schedule as a table of `steps + 1` values (`steps` static).

    Source: Ho et al. 2020, section 4; the betas are scaled by `1000 / steps` as in Nichol & Dhariwal 2021's code.
    Raises ValueError where a scaled beta reaches 1, for 20 steps and fewer at the default `beta_max`.
    """
    if steps < 1 or beta_max * 1000 / steps >= 1:
        raise ValueError(f"steps is {steps} at beta_max {beta_max}: beta_max * 1000 / steps must be below 1; add steps")
    beta = jnp.linspace(beta_min, beta_max, steps) * (1000 / steps)
    return DDPM(jnp.concatenate([jnp.zeros(1), 0.5 * jnp.cumsum(jnp.log1p(-beta))]))


@struct.dataclass
class Cosine(Explicit):
    r"""`alpha_t = cos(pi t' / 2)`, `t' = (1 - margin) t`, so that `alpha_1 > 0`.

    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17. Differs: no offset at t = 0 (here sigma(0) = 0), and the
    margin replaces the clipping of beta at 0.999.

    Attributes:
      margin: the share of the quarter period that is left out at the noisy end, dimensionless.
    """

    margin: float = 1e-3

    def _angle(self, t: Time) -> Array:
        return 0.5 * jnp.pi * (1 - self.margin) * real_time(t)

    def alpha(self, t: Time) -> Coefficient:
        return jnp.cos(self._angle(t))

    def sigma(self, t: Time) -> Coefficient:
        return jnp.sin(self._angle(t))

    def scale(self, t: Time) -> Coefficient:
        return self.alpha(t) + self.sigma(t)


@struct.dataclass
class VE(Process):
    r"""Variance exploding: `sigma_t^2 = sigma_min^2 ((sigma_max / sigma_min)^{2t} - 1)`, `alpha = 1`.

    Source: Song et al. 2021, arXiv:2011.13456, eq. 31 before its approximation, so that sigma(0) = 0.

    Attributes:
      sigma_min: the scale of the smallest noise, in units of the data.
      sigma_max: the scale of the largest noise, in units of the data.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def log_alpha(self, t: Time) -> Coefficient:
        return jnp.zeros_like(real_time(t))

    def log_sigma(self, t: Time) -> Coefficient:
        growth = 2 * jnp.asarray(t) * (jnp.log(self.sigma_max) - jnp.log(self.sigma_min))
        return jnp.log(self.sigma_min) + 0.5 * jnp.log(jnp.expm1(growth))


@struct.dataclass
class EDM(Explicit):
    """`alpha = 1`, `sigma_t = sigma_max t`: time is the noise level, in units of `sigma_max`; see `times.karras`.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1 (sigma(t) = t, s(t) = 1).

    Attributes:
      sigma_max: the noise at time 1, in units of the data.
    """

    sigma_max: float = 80.0

    def alpha(self, t: Time) -> Coefficient:
        return jnp.ones_like(real_time(t))

    def sigma(self, t: Time) -> Coefficient:
        return self.sigma_max * real_time(t)


@struct.dataclass
class Flow(Explicit):
    """Rectified flow: `alpha_t = 1 - t`, `sigma_t = t`; `alpha(1) = 0`.

    Source: Liu et al. 2022, arXiv:2209.03003, eq. 1, with time reversed (here 1 is noise).
    """

    def alpha(self, t: Time) -> Coefficient:
        return 1 - real_time(t)

    def sigma(self, t: Time) -> Coefficient:
        return real_time(t)

    def scale(self, t: Time) -> Coefficient:
        return self.alpha(t) + self.sigma(t)


@struct.dataclass
class ResidualShift(Explicit):
    r"""Residual shifting about the upsampled low-resolution image `y`, in the chart `x - y`:

        x_t - y = (1 - t) (x_0 - y) + kappa t^power eps,

    that is `x_t = x_0 + t (y - x_0) + kappa t^power eps`. Use it with `charts.shift`.

    Source: Yue et al. 2023 (ResShift), arXiv:2307.12348, eq. 2, in the clock `t = eta` with `power = 1/2` and
    `kappa = 2`; You et al. 2025 (CTMSR), arXiv:2503.20349, with `power = 1` and `kappa = 1`.

    Attributes:
      kappa: the noise at time 1, in units of the data.
      power: of time in the noise level, dimensionless.
    """

    kappa: float = 1.0
    power: float = 1.0

    def alpha(self, t: Time) -> Coefficient:
        return 1 - real_time(t)

    def sigma(self, t: Time) -> Coefficient:
        return self.kappa * real_time(t) ** self.power

    def scale(self, t: Time) -> Coefficient:
        return self.alpha(t) + self.sigma(t)
