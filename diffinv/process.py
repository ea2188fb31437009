r"""Forward processes: `p(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I)`, diagonal in the process's own coordinates.

Every process is given by `log_alpha` and `log_sigma` on times in [0, 1]; logarithms, because `alpha_t / alpha_s`
is 0/0 under strong blur. They broadcast against one sample: shape `()` for the isotropic ones and `(H, W, 1)` for
those that act on the coefficients of the discrete cosine transform. Everything else is derived through `x_0`.
"""

from __future__ import annotations

import abc

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.describe import Described
from diffinv.ends import require_rates, require_table
from diffinv.typing import Array, Gaussian, Time

DEAD = 1e-3
"""A signal under this share of the noise counts as gone where something is divided by it."""


def _real(t: Time) -> Array:
    """`t` as a floating-point array, in its own precision."""
    return jnp.asarray(t) * 1.0


def _still(t: Time, s: Time, change: Array) -> Array:
    """The change of a logarithm from `t` to `s`: 0 for a step that stands still, where it may be inf - inf."""
    return jnp.where(jnp.asarray(t) == s, 0.0, change)


@struct.dataclass
class Process(Described, abc.ABC):
    """A linear-Gaussian Markov process; times in [0, 1], `sigma(0) = 0` unless the docstring says otherwise."""

    @abc.abstractmethod
    def log_alpha(self, t: Time) -> Array:
        """`log alpha_t`, dimensionless; `-inf` where the signal is gone."""

    @abc.abstractmethod
    def log_sigma(self, t: Time) -> Array:
        """`log sigma_t`, in units of the data; `-inf` where there is no noise."""

    def alpha(self, t: Time) -> Array:
        """`alpha_t`, the share of the data that is left."""
        return jnp.exp(self.log_alpha(t))

    def sigma(self, t: Time) -> Array:
        """`sigma_t`, the noise's standard deviation."""
        return jnp.exp(self.log_sigma(t))

    def log_snr(self, t: Time) -> Array:
        """`log(alpha_t^2 / sigma_t^2)`; `+inf` at time 0."""
        return 2 * (self.log_alpha(t) - self.log_sigma(t))

    def scale(self, t: Time) -> Array:
        """The normaliser `n_t` in whose chart `x / n` the ODE samplers step; `alpha_t` gives EDM's clock."""
        return self.alpha(t)

    def alive(self, t: Time) -> Array:
        """`t`, or `0.999 t` where every alpha is lost beside sigma: a thousand roundings of it, at most a thousandth.

        In bfloat16, which does not tell 0.999 from 1, one rounding below.

        There (Flow, ResidualShift at t = 1) what is divided by alpha is 0/0, or rounding alone, and its limit is meant.
        """
        t = _real(t)
        alpha, sigma = self.alpha(t), self.sigma(t)
        lost = min(1000 * float(jnp.finfo(alpha.dtype).eps), DEAD)
        inward = 1 - max(DEAD, float(jnp.finfo(t.dtype).eps))
        return jnp.where(jnp.any(alpha > lost * sigma), t, inward * t)

    def perturb(self, x0: Array, t: Time) -> Gaussian:
        """`p(x_t | x_0) = N(alpha_t x_0, sigma_t^2)`."""
        return Gaussian(self.alpha(t) * x0, self.sigma(t))

    def forward(self, x: Array, t: Time, s: Time) -> Gaussian:
        """`p(x_s | x_t)`, `s > t`: mean `a x` and variance `sigma_s^2 - a^2 sigma_t^2`, for `a = alpha_s / alpha_t`."""
        ratio = jnp.exp(_still(t, s, self.log_alpha(s) - self.log_alpha(t)))
        return Gaussian(ratio * x, self.kernel_std(s, t))

    def kernel_std(self, t: Time, s: Time) -> Array:
        """`sigma_{t|s}`, the standard deviation of `p(x_t | x_s)` for `s < t`."""
        return self.sigma(t) * jnp.sqrt(-jnp.expm1(self._drop(t, s)))

    def _drop(self, t: Time, s: Time) -> Array:
        """`log(snr_t / snr_s)`, at most 0; `sigma_{t|s}^2 / sigma_t^2 = 1 - exp` of it, finite where a ratio is 0/0."""
        alpha_drop, sigma_drop = self.log_alpha(t) - self.log_alpha(s), self.log_sigma(t) - self.log_sigma(s)
        return jnp.minimum(_still(t, s, 2 * (alpha_drop - sigma_drop)), 0.0)

    def transition(self, x: Array, x0: Array, t: Time, s: Time, eta: Array | float = 1.0) -> Gaussian:
        r"""The one reverse step, `q(x_s | x_t, x_0)`:

            x_s = alpha_s x_0 + sqrt(sigma_s^2 - c^2)/sigma_t (x_t - alpha_t x_0) + c eps,
            c = eta sigma_s sigma_{t|s} / sigma_t.

        `eta = 1` is the exact ancestral posterior (Ho et al. 2020, eq. 6), `eta = 0` is DDIM, the first-order step of
        the probability-flow ODE (Song et al. 2021, eq. 12); a constant sigma with `eta = 0` is Cold Diffusion's
        Algorithm 2 (Bansal et al. 2022). Differs: stated per coordinate, so that blurring needs no second formula. A
        step from t to t is the identity, also where sigma or alpha is 0.

        Args:
          x: the state at time `t > 0`; x0: the clean estimate, of the same shape.
          t, s: from and to; `s < t` goes towards the data, `s > t` (inversion) needs `eta = 0`.
          eta: dimensionless, in [0, 1].
        """
        drop = self._drop(t, s)
        kept = (1 - eta**2) + eta**2 * jnp.exp(drop)  # 1 - (c / sigma_s)^2 without cancellation
        keep = jnp.sqrt(kept) * jnp.exp(_still(t, s, self.log_sigma(s) - self.log_sigma(t)))
        c = eta * jnp.sqrt(-jnp.expm1(drop)) * self.sigma(s)
        mean = self.alpha(s) * x0 + keep * (x - self.alpha(t) * x0)
        return Gaussian(jnp.where(jnp.asarray(s) == t, x, mean), c)

    def noise(self, x: Array, x0: Array, t: Time) -> Array:
        """`eps = (x_t - alpha_t x_0) / sigma_t`."""
        return (x - self.alpha(t) * x0) / self.sigma(t)

    def score(self, x: Array, x0: Array, t: Time) -> Array:
        """`grad log p_t(x_t) = -(x_t - alpha_t x_0) / sigma_t^2` when `x_0 = E[x_0 | x_t]` (Tweedie)."""
        return -self.noise(x, x0, t) / self.sigma(t)

    def velocity(self, x: Array, x0: Array, t: Time) -> Array:
        """`dx/dt` of the probability-flow ODE: `alpha'_t x_0 + sigma'_t eps`."""
        alpha_rate, sigma_rate = self.rates(t)
        return alpha_rate * x0 + sigma_rate * self.noise(x, x0, t)

    def rates(self, t: Time) -> tuple[Array, Array]:
        """`(alpha'_t, sigma'_t)`; `sigma'` is infinite at time 0 for VP, DDPM and VE."""
        t = _real(t)
        one = jnp.ones_like(t)
        return jax.jvp(self.alpha, (t,), (one,))[1], jax.jvp(self.sigma, (t,), (one,))[1]


def require_isotropic(process: Process, name: str, instead: str) -> None:
    """ValueError where the process has an alpha for every frequency; `name` is the caller, `instead` what would do.

    Original.
    """
    shape = jax.eval_shape(process.alpha, 0.5).shape
    if shape:
        kind = f"process {type(process).__name__} has an alpha of shape {shape}"
        raise ValueError(f"{kind}; {name} needs an isotropic one: use {instead}")


@struct.dataclass
class Explicit(Process):
    """A process given by `alpha` and `sigma` themselves, so that both and their rates are finite at either end."""

    @abc.abstractmethod
    def alpha(self, t: Time) -> Array: ...

    @abc.abstractmethod
    def sigma(self, t: Time) -> Array: ...

    def log_alpha(self, t: Time) -> Array:
        return jnp.log(self.alpha(t))

    def log_sigma(self, t: Time) -> Array:
        return jnp.log(self.sigma(t))


def _log_sigma_vp(log_alpha: Array) -> Array:
    """`log sqrt(1 - alpha^2)` from `log alpha`."""
    return 0.5 * jnp.log(-jnp.expm1(2 * log_alpha))


@struct.dataclass
class VP(Process):
    r"""Variance preserving, linear beta: `log alpha_t = -(beta_max - beta_min) t^2 / 4 - beta_min t / 2`.

    `beta_min`, `beta_max`: dimensionless rates per unit time; `alpha_1 = exp(-(beta_min + beta_max) / 4)` says what is
    left of the picture at the noisy end, where `Prior.start` refuses more than a fifth of the noise.

    Source: Song et al. 2021, arXiv:2011.13456, eq. 33. Raises ValueError for a rate, a Python float, that is negative.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        require_rates(beta_min=self.beta_min, beta_max=self.beta_max)

    def log_alpha(self, t: Time) -> Array:
        t = jnp.asarray(t)
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def log_sigma(self, t: Time) -> Array:
        return _log_sigma_vp(self.log_alpha(t))


@struct.dataclass
class DDPM(Process):
    r"""The discrete VP table: `alpha_{k/K}^2 = prod_{i<=k} (1 - beta_i)`, `beta` linear, exact at `t = k/K`.

    Between the table's times `log alpha` is interpolated linearly; `t = 0` is the data. The k-th time (from 1) is the
    published index `k - 1`.

    Source: Ho et al. 2020, arXiv:2006.11239, section 4 (K = 1000, beta from 1e-4 to 0.02). Build it with `ddpm`, or of
    betas of your own: `table = concatenate([[0], 0.5 cumsum(log1p(-beta))])`, `log alpha` (K + 1,). Raises ValueError
    where a known table does not start at 0, whose samples would keep the first beta's noise, or rises.
    """

    table: Array

    def __post_init__(self) -> None:
        require_table(self.table)

    def log_alpha(self, t: Time) -> Array:
        grid = jnp.linspace(0.0, 1.0, self.table.shape[0], dtype=self.table.dtype)
        return jnp.interp(jnp.asarray(t, self.table.dtype), grid, self.table)

    def log_sigma(self, t: Time) -> Array:
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
    """

    margin: float = 1e-3

    def _angle(self, t: Time) -> Array:
        return 0.5 * jnp.pi * (1 - self.margin) * _real(t)

    def alpha(self, t: Time) -> Array:
        return jnp.cos(self._angle(t))

    def sigma(self, t: Time) -> Array:
        return jnp.sin(self._angle(t))

    def scale(self, t: Time) -> Array:
        return self.alpha(t) + self.sigma(t)


@struct.dataclass
class VE(Process):
    r"""Variance exploding: `sigma_t^2 = sigma_min^2 ((sigma_max / sigma_min)^{2t} - 1)`, `alpha = 1`.

    Source: Song et al. 2021, arXiv:2011.13456, eq. 31 before its approximation, so that sigma(0) = 0.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def log_alpha(self, t: Time) -> Array:
        return jnp.zeros_like(_real(t))

    def log_sigma(self, t: Time) -> Array:
        growth = 2 * jnp.asarray(t) * (jnp.log(self.sigma_max) - jnp.log(self.sigma_min))
        return jnp.log(self.sigma_min) + 0.5 * jnp.log(jnp.expm1(growth))


@struct.dataclass
class EDM(Explicit):
    """`alpha = 1`, `sigma_t = sigma_max t`: time is the noise level, in units of `sigma_max`; see `times.karras`.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1 (sigma(t) = t, s(t) = 1).
    """

    sigma_max: float = 80.0

    def alpha(self, t: Time) -> Array:
        return jnp.ones_like(_real(t))

    def sigma(self, t: Time) -> Array:
        return self.sigma_max * _real(t)


@struct.dataclass
class Flow(Explicit):
    """Rectified flow: `alpha_t = 1 - t`, `sigma_t = t`; `alpha(1) = 0`.

    Source: Liu et al. 2022, arXiv:2209.03003, eq. 1, with time reversed (here 1 is noise).
    """

    def alpha(self, t: Time) -> Array:
        return 1 - _real(t)

    def sigma(self, t: Time) -> Array:
        return _real(t)

    def scale(self, t: Time) -> Array:
        return self.alpha(t) + self.sigma(t)


@struct.dataclass
class ResidualShift(Explicit):
    r"""Residual shifting about the upsampled low-resolution image `y`, in the chart `x - y`:

        x_t - y = (1 - t) (x_0 - y) + kappa t^power eps,

    that is `x_t = x_0 + t (y - x_0) + kappa t^power eps`. `power = 1/2` is ResShift in the clock `t = eta`
    (Yue et al. 2023, arXiv:2307.12348, eq. 2, kappa = 2), `power = 1` is CTMSR (kappa = 1). Use it with `charts.shift`.
    """

    kappa: float = 1.0
    power: float = 1.0

    def alpha(self, t: Time) -> Array:
        return 1 - _real(t)

    def sigma(self, t: Time) -> Array:
        return self.kappa * _real(t) ** self.power

    def scale(self, t: Time) -> Array:
        return self.alpha(t) + self.sigma(t)


def dct_frequencies(height: int, width: int) -> Array:
    """Eigenvalues of the negative Laplacian with reflecting ends, `(pi i / H)^2 + (pi j / W)^2`: shape (H, W, 1).

    Units: 1 / pixel^2. `height` and `width` are static. Source: Rissanen et al. 2022, arXiv:2206.13397, eq. 8.
    """
    rows, columns = (jnp.pi * (jnp.arange(n) / n) for n in (height, width))
    return (rows[:, None] ** 2 + columns[None, :] ** 2)[..., None]


@struct.dataclass
class Blurring(Process):
    r"""Blurring diffusion, in the coordinates of `charts.dct`:

        alpha_t = cos(pi t'/2) d_t,  d_t = (1 - d_min) exp(-lambda tau_t) + d_min,  sigma_t = sin(pi t'/2),
        tau_t = sigma_blur^2 sin(pi t / 2)^4 / 2,  t' = (1 - margin) t.

    Source: Hoogeboom & Salimans 2022, arXiv:2209.05557, section 4 and appendix A. Differs: sigma(0) = 0 exactly, where
    their log-SNR starts at 10; the other end keeps a margin.

    Attributes:
      frequencies: (H, W, 1) from `dct_frequencies`; sigma_blur: pixels; d_min, margin: dimensionless.
    """

    frequencies: Array
    sigma_blur: float = 20.0
    d_min: float = 1e-3
    margin: float = 1e-3

    def log_alpha(self, t: Time) -> Array:
        tau = 0.5 * (self.sigma_blur * jnp.sin(0.5 * jnp.pi * jnp.asarray(t)) ** 2) ** 2
        blur = jnp.log1p(-self.d_min) - self.frequencies * tau
        return Cosine(self.margin).log_alpha(t) + jnp.logaddexp(blur, jnp.log(self.d_min).astype(blur.dtype))

    def log_sigma(self, t: Time) -> Array:
        return Cosine(self.margin).log_sigma(t)

    def sigma(self, t: Time) -> Array:
        return Cosine(self.margin).sigma(t)

    def scale(self, t: Time) -> Array:
        return self.alpha(t) + self.sigma(t)


@struct.dataclass
class HeatDissipation(Process):
    r"""Inverse heat dissipation, in the coordinates of `charts.dct`: `alpha_t = exp(-lambda tau_t)`, constant noise.

        tau_t = sigma_blur(t)^2 / 2,  sigma_blur(t) = blur_min (blur_max / blur_min)^t - blur_min,  sigma_t = delta.

    sigma(0) = delta: the paper's initial state is the data convolved with N(0, delta^2), and never the data itself.

    Source: Rissanen et al. 2022, arXiv:2206.13397, eq. 8 and section 3. Differs: the blur width has `blur_min`
    subtracted, so that alpha(0) = 1.

    Attributes:
      frequencies: (H, W, 1) from `dct_frequencies`; blur_min, blur_max: pixels; delta: units of the data.
    """

    frequencies: Array
    blur_min: float = 0.5
    blur_max: float = 20.0
    delta: float = 0.01

    def log_alpha(self, t: Time) -> Array:
        width = self.blur_min * jnp.expm1(jnp.asarray(t) * jnp.log(self.blur_max / self.blur_min))
        return -0.5 * self.frequencies * width**2

    def log_sigma(self, t: Time) -> Array:
        return jnp.full_like(_real(t), jnp.log(self.delta))

    def scale(self, t: Time) -> Array:
        return self.alpha(t) + self.sigma(t)
