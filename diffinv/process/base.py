"""What every forward process is: `p(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I)`, and the one reverse step."""

from __future__ import annotations

import abc

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.describe import Described
from diffinv.typing import Array, Coefficient, Gaussian, Sample, Scalar, Time

DEAD = 1e-3
"""The share of the noise under which a signal counts as gone where something is divided by it: noise-to-signal is taken
as at most `1 / DEAD`. By the same share of itself `Process.alive` moves a time without any signal, from t to `0.999 t`.
"""

TRUSTED = 0.5 * DEAD
"""The share of the noise from which a signal is trusted at a time that `Process.alive` gave. Flow's is `DEAD` itself at
0.999; half of that, so that rounding does not decide there."""

ROUNDINGS = 1000
"""The rounding units of sigma under which alpha is rounding alone."""


def real_time(t: Time) -> Array:
    """The time as a floating-point array, in its own precision."""
    return jnp.asarray(t) * 1.0


def _still(t: Time, s: Time, change: Array) -> Array:
    """The change of a logarithm from `t` to `s`: 0 for a step that stands still, where it may be inf - inf."""
    return jnp.where(jnp.asarray(t) == s, 0.0, change)


@struct.dataclass
class Process(Described, abc.ABC):
    """A linear-Gaussian Markov process; times in [0, 1], `sigma(0) = 0` unless the docstring says otherwise.

    >>> import jax.numpy as jnp, diffinv as di
    >>> process, x0 = di.process.Flow(), jnp.ones(2)
    >>> process.perturb(x0, 0.25).mean.tolist(), float(process.perturb(x0, 0.25).std)
    ([0.75, 0.75], 0.25)
    >>> process.transition(0.5 * x0, x0, 0.5, 0.0, eta=0.0).mean.tolist()  # the last step ends at x_0
    [1.0, 1.0]
    """

    @abc.abstractmethod
    def log_alpha(self, t: Time) -> Coefficient:
        """`log alpha_t`, dimensionless; `-inf` where the signal is gone."""

    @abc.abstractmethod
    def log_sigma(self, t: Time) -> Coefficient:
        """`log sigma_t`, in units of the data; `-inf` where there is no noise."""

    def alpha(self, t: Time) -> Coefficient:
        """`alpha_t`, the share of the data that is left."""
        return jnp.exp(self.log_alpha(t))

    def sigma(self, t: Time) -> Coefficient:
        """`sigma_t`, the noise's standard deviation."""
        return jnp.exp(self.log_sigma(t))

    def log_snr(self, t: Time) -> Coefficient:
        """`log(alpha_t^2 / sigma_t^2)`; `+inf` at time 0."""
        return 2 * (self.log_alpha(t) - self.log_sigma(t))

    def scale(self, t: Time) -> Coefficient:
        """The normaliser `n_t` in whose chart `x / n` the ODE samplers step; `alpha_t` gives EDM's clock."""
        return self.alpha(t)

    def alive(self, t: Time) -> Array:
        """`t`, or a time slightly below it where alpha is 0 beside sigma in every coordinate.

        There (Flow and ResidualShift at t = 1) a division by alpha gives 0/0 or rounding errors alone, and its limit is
        wanted. Alpha counts as 0 under a thousand rounding units of sigma, at most a thousandth. The time returned is
        `0.999 t`; in bfloat16, which does not tell 0.999 from 1, it is one rounding unit below `t`.
        """
        t = real_time(t)
        alpha, sigma = self.alpha(t), self.sigma(t)
        lost = min(ROUNDINGS * float(jnp.finfo(alpha.dtype).eps), DEAD)
        inward = 1 - max(DEAD, float(jnp.finfo(t.dtype).eps))
        return jnp.where(jnp.any(alpha > lost * sigma), t, inward * t)

    def perturb(self, x0: Sample, t: Time) -> Gaussian:
        """`p(x_t | x_0) = N(alpha_t x_0, sigma_t^2)`."""
        return Gaussian(self.alpha(t) * x0, self.sigma(t))

    def forward(self, x: Sample, t: Time, s: Time) -> Gaussian:
        """`p(x_s | x_t)`, `s > t`: mean `a x` and variance `sigma_s^2 - a^2 sigma_t^2`, for `a = alpha_s / alpha_t`."""
        ratio = jnp.exp(_still(t, s, self.log_alpha(s) - self.log_alpha(t)))
        return Gaussian(ratio * x, self.kernel_std(s, t))

    def kernel_std(self, t: Time, s: Time) -> Coefficient:
        """`sigma_{t|s}`, the standard deviation of `p(x_t | x_s)` for `s < t`."""
        return self.sigma(t) * jnp.sqrt(-jnp.expm1(self._drop(t, s)))

    def _drop(self, t: Time, s: Time) -> Array:
        """`log(snr_t / snr_s)`, at most 0; `sigma_{t|s}^2 / sigma_t^2 = 1 - exp` of it, finite where a ratio is 0/0."""
        alpha_drop, sigma_drop = self.log_alpha(t) - self.log_alpha(s), self.log_sigma(t) - self.log_sigma(s)
        return jnp.minimum(_still(t, s, 2 * (alpha_drop - sigma_drop)), 0.0)

    def transition(self, x: Sample, x0: Sample, t: Time, s: Time, eta: Scalar = 1.0) -> Gaussian:
        """The one reverse step, `q(x_s | x_t, x_0)`:

            x_s = alpha_s x_0 + sqrt(sigma_s^2 - c^2)/sigma_t (x_t - alpha_t x_0) + c eps,
            c = eta sigma_s sigma_{t|s} / sigma_t.

        `eta = 1` is the exact ancestral posterior (Ho et al. 2020, eq. 6), `eta = 0` is DDIM, the first-order step of
        the probability-flow ODE (Song et al. 2021, eq. 12); a constant sigma with `eta = 0` is Cold Diffusion's
        Algorithm 2 (Bansal et al. 2022). Differs: the step is stated per coordinate, so that blurring needs no second
        formula. A step from t to t is the identity, also where sigma or alpha is 0.

        Args:
          x: the state at time `t > 0`.
          x0: the clean estimate, of the same shape.
          t: the time from which the step goes.
          s: the time to which it goes; `s < t` is towards the data, `s > t` (inversion) needs `eta = 0`.
          eta: dimensionless, in [0, 1].
        """
        drop = self._drop(t, s)
        kept = (1 - eta**2) + eta**2 * jnp.exp(drop)  # 1 - (c / sigma_s)^2 without cancellation
        keep = jnp.sqrt(kept) * jnp.exp(_still(t, s, self.log_sigma(s) - self.log_sigma(t)))
        c = eta * jnp.sqrt(-jnp.expm1(drop)) * self.sigma(s)
        mean = self.alpha(s) * x0 + keep * (x - self.alpha(t) * x0)
        return Gaussian(jnp.where(jnp.asarray(s) == t, x, mean), c)

    def noise(self, x: Sample, x0: Sample, t: Time) -> Sample:
        """`eps = (x_t - alpha_t x_0) / sigma_t`."""
        return (x - self.alpha(t) * x0) / self.sigma(t)

    def score(self, x: Sample, x0: Sample, t: Time) -> Sample:
        """`grad log p_t(x_t) = -(x_t - alpha_t x_0) / sigma_t^2` when `x_0 = E[x_0 | x_t]` (Tweedie)."""
        return -self.noise(x, x0, t) / self.sigma(t)

    def velocity(self, x: Sample, x0: Sample, t: Time) -> Sample:
        """`dx/dt` of the probability-flow ODE: `alpha'_t x_0 + sigma'_t eps`."""
        alpha_rate, sigma_rate = self.rates(t)
        return alpha_rate * x0 + sigma_rate * self.noise(x, x0, t)

    def rates(self, t: Time) -> tuple[Coefficient, Coefficient]:
        """`(alpha'_t, sigma'_t)`; `sigma'` is infinite at time 0 for VP, DDPM and VE."""
        t = real_time(t)
        one = jnp.ones_like(t)
        return jax.jvp(self.alpha, (t,), (one,))[1], jax.jvp(self.sigma, (t,), (one,))[1]


def require_isotropic(process: Process, name: str, instead: str) -> None:
    """Raises ValueError where the process has an alpha for every frequency.

    Args:
      process: to be checked.
      name: of the caller, for the message.
      instead: what the caller accepts, for the message.
    """
    shape = jax.eval_shape(process.alpha, 0.5).shape
    if shape:
        kind = f"process {type(process).__name__} has an alpha of shape {shape}"
        raise ValueError(f"{kind}; {name} needs an isotropic one: use {instead}")


@struct.dataclass
class Explicit(Process):
    """A process given by `alpha` and `sigma` themselves, so that both and their rates are finite at either end."""

    @abc.abstractmethod
    def alpha(self, t: Time) -> Coefficient: ...

    @abc.abstractmethod
    def sigma(self, t: Time) -> Coefficient: ...

    def log_alpha(self, t: Time) -> Coefficient:
        return jnp.log(self.alpha(t))

    def log_sigma(self, t: Time) -> Coefficient:
        return jnp.log(self.sigma(t))
