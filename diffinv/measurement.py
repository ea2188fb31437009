r"""Measurements: an operator, what it gave, and the law of its noise."""

from __future__ import annotations

import abc

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffinv.describe import Described, brief
from diffinv.linalg import inner
from diffinv.operators.arguments import concrete, numbers, require_key, require_number
from diffinv.operators.base import LinearOperator, Operator, real_scalar, require_operator
from diffinv.typing import Array, Key, Measured, Sample, Scalar


@struct.dataclass
class Noise(Described, abc.ABC):
    """The law of `y` given the clean `A x`: to be subclassed as a `flax.struct.dataclass`, its parameters as fields.

    Methods that take every law as Gaussian, or that step by its width, also want an attribute or a property `sigma`,
    the standard deviation of y; `posterior.laws` says which method asks for what.
    """

    @abc.abstractmethod
    def sample(self, key: Key, clean: Measured) -> Measured:
        """One draw of `y`."""

    @abc.abstractmethod
    def log_likelihood(self, y: Measured, clean: Measured) -> Array:
        """`log p(y | clean)` in nats, up to a constant in `clean`."""


def _standard_normal(key: Key, like: Array) -> Array:
    """Unit variance in each real degree of freedom: a complex entry gets one in each part."""
    if not jnp.iscomplexobj(like):
        return jax.random.normal(key, like.shape, like.dtype)
    parts = jax.random.normal(key, (2, *like.shape), like.real.dtype)
    return jax.lax.complex(parts[0], parts[1])


@struct.dataclass
class GaussianNoise(Noise):
    """`y = A x + sigma n`, where `n` is standard normal; for a complex `y` in each of its two parts.

    Attributes:
      sigma: the standard deviation, on the scale of the data ([-1, 1]).
    """

    sigma: Scalar

    def sample(self, key: Key, clean: Measured) -> Measured:
        return clean + real_scalar(self.sigma, clean).astype(clean.dtype) * _standard_normal(key, clean)

    def log_likelihood(self, y: Measured, clean: Measured) -> Array:
        return -0.5 * inner(y - clean, y - clean) / real_scalar(self.sigma, clean) ** 2


@struct.dataclass
class PoissonNoise(Noise):
    """Photon counts: `y = 2 k / peak - 1`, `k ~ Poisson(peak (A x + 1) / 2)`.

    Below -1 the rate is clamped to `1e-3` counts. A clean value that is not finite and a peak that is not above 0 give
    NaN.

    Attributes:
      peak: the expected count at the value 1.
    """

    peak: Scalar

    @property
    def sigma(self) -> Array:
        """The standard deviation at mid-grey, `sqrt(2 / peak)`."""
        return jnp.sqrt(2.0 / self.peak)

    def _rate(self, clean: Array) -> Array:
        return jnp.maximum(0.5 * real_scalar(self.peak, clean) * (clean + 1), 1e-3)

    def sample(self, key: Key, clean: Measured) -> Measured:
        peak = real_scalar(self.peak, clean)
        counts = jax.random.poisson(key, self._rate(clean), clean.shape).astype(clean.dtype)
        sound = jnp.isfinite(clean) & (peak > 0)  # of a rate that is none, JAX draws -1 or 0
        return jnp.where(sound, 2 * counts / peak - 1, jnp.nan)

    def log_likelihood(self, y: Measured, clean: Measured) -> Array:
        rate = self._rate(clean)
        return jnp.sum(0.5 * real_scalar(self.peak, clean) * (y + 1) * jnp.log(rate) - rate)

    def support(self, y: Measured) -> Array:
        """Counts are not negative; a rounding error below is none."""
        return y >= -1 - 1e-3


@struct.dataclass
class Measurement(Described):
    """`y = A x + noise` of one sample.

    Attributes:
      operator: `A`, linear or not.
      y: what was measured.
      noise: the law of `y` given `A x`.

    >>> import jax.numpy as jnp, diffinv as di
    >>> A = di.operators.identity((2,))
    >>> measurement = di.Measurement(A, jnp.asarray([1.0, 3.0]), di.GaussianNoise(0.5))
    >>> measurement.residual(jnp.asarray([1.0, 2.0])).tolist()
    [0.0, 1.0]
    >>> float(measurement.log_likelihood(jnp.asarray([1.0, 2.0])))  # -1^2 / (2 * 0.5^2)
    -2.0
    """

    operator: Operator
    y: Measured
    noise: Noise

    @property
    def sigma(self) -> Array | float:
        """The noise's standard deviation, for Gaussian noise; for Poisson the deviation at mid-grey."""
        if not hasattr(self.noise, "sigma"):
            name = type(self.noise).__name__
            raise TypeError(
                f"noise {name} has no sigma; give it one, a standard deviation, for methods that take it as Gaussian "
                "or step by it, or use one that needs its likelihood alone: lgd(reward=rewards.cloud_likelihood), "
                "mgps, dps(reward=rewards.likelihood)"
            )
        return self.noise.sigma

    def residual(self, x0: Sample) -> Measured:
        """`y - A(x_0)`."""
        return self.y - self.operator(x0)

    def log_likelihood(self, x0: Sample) -> Array:
        """`log p(y | x_0)` in nats, up to a constant in `x_0`."""
        return self.noise.log_likelihood(self.y, self.operator(x0))


def measure(key: Key, operator: Operator, x: Sample, sigma: Scalar = 0.0, noise: Noise | None = None) -> Measurement:
    """Measures one sample, with Gaussian noise of `sigma` unless another law is given.

    The noise is projected onto the operator's range: noise outside of it, as on masked pixels, cannot be fitted by any
    picture, and would raise the residual of every method by the same amount. Where that takes a value to where the law
    gives none, as counts below 0, the value stays as it was drawn.

    Raises:
      ValueError: where `x` has not the operator's shape, is no real floating-point array or not finite, or the noise's
        level is out of range. Under `jit` a `sigma` that is NaN or negative makes `y` NaN, which solvers report.
      TypeError: where `operator` is none.

    >>> import jax, jax.numpy as jnp, diffinv as di
    >>> A = di.operators.average_pool((4, 4, 1), 2)
    >>> measurement = di.measure(jax.random.key(0), A, jnp.ones((4, 4, 1)), sigma=0.0)
    >>> measurement.y.ravel().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    require_key(key)
    require_operator(operator)
    x = _sample(x)
    if tuple(x.shape) != tuple(operator.shape):
        name, takes = type(operator).__name__, tuple(operator.shape)
        raise ValueError(f"x has shape {x.shape}; {name} takes {takes}: resize one of them, or vmap over a batch")
    noise = _law(sigma, noise)
    clean = operator(x)
    noisy = noise.sample(key, clean)
    y = clean + operator.project(noisy - clean)
    support = getattr(noise, "support", None)
    return Measurement(operator, y if support is None else jnp.where(support(y), y, noisy), noise)


def _sample(x: Array) -> Array:
    """`x` as an array, where it is one that operators take."""
    found = jnp.asarray(x) if hasattr(x, "dtype") else numbers("x", x)
    if jnp.iscomplexobj(found):
        raise ValueError(f"x is {found.dtype}; samples are real: give {(*found.shape, 2)}, operators.as_real(x)")
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(
            f"x is {found.dtype}; samples are floating point, pictures in [-1, 1]: x / 127.5 - 1 for bytes"
        )
    numbers("x", x)
    return found


def _law(sigma: Scalar, noise: Noise | None) -> Noise:
    """The law of the noise, its level looked at where it is known."""
    if noise is None:
        _require_level("sigma", sigma, 0)
        return GaussianNoise(_or_nan(sigma) if isinstance(sigma, jax.core.Tracer) else sigma)
    if not hasattr(noise, "sample"):
        raise TypeError(f"noise is {brief(noise)}; give a law, PoissonNoise(peak), or a Gaussian's deviation as sigma")
    if isinstance(noise, GaussianNoise):
        _require_level("noise.sigma", noise.sigma, 0)
    if isinstance(noise, PoissonNoise):
        _require_level("noise.peak", noise.peak, 1e-6)
    return noise


def _or_nan(sigma: Array) -> Array:
    sigma = sigma if jnp.issubdtype(sigma.dtype, jnp.floating) else sigma.astype(float)
    return jnp.where(sigma >= 0, sigma, jnp.nan)


def _require_level(name: str, level: Array | float, low: float) -> None:
    instead = "a count of photons" if low else "on the scale of the data, [-1, 1]"
    for value in np.ravel(np.asarray(level)) if concrete(level) and np.ndim(level) else (level,):
        require_number(name, value, low, instead=instead)


def require_linear(measurement: Measurement, method: str) -> LinearOperator:
    """The operator, or TypeError where it is not linear; `method` is the caller's name, for the message."""
    require_operator(measurement.operator)
    if not isinstance(measurement.operator, LinearOperator):
        name = type(measurement.operator).__name__
        raise TypeError(f"operator {name} is not linear; {method} needs adjoint and solve: use dps, daps or reguidance")
    return measurement.operator
