"""More laws of noise than the Gaussian and the counts of `measurement`: each draws, and knows its likelihood.

Those of intensities, counts and magnitudes take the value v on [-1, 1] as the intensity `v + 1`, at least `FLOOR`.
A law with one deviation has it as `sigma`, so that methods that assume Gaussian noise take it as such; the others have
none and are refused by these. `support(y)` says where the law can give y at all: methods refuse any other.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax.scipy.special import gammaln, i0e, logsumexp

from diffinv.measurement import Noise
from diffinv.operators.base import real_scalar
from diffinv.typing import Array, Key, Measured, Scalar

FLOOR = 1e-3
"""The least intensity, so that logarithms are finite."""


def _intensity(clean: Array) -> Array:
    return jnp.maximum(clean + 1, FLOOR)


@struct.dataclass
class LaplaceNoise(Noise):
    """Heavy tails: `p(y | clean) = exp(-|y - clean| / scale) / (2 scale)`.

    Attributes:
      scale: the mean absolute error, in units of the data.
    """

    scale: Scalar

    @property
    def sigma(self) -> Array:
        """The standard deviation, `sqrt(2) scale`."""
        return jnp.sqrt(2.0) * self.scale

    def sample(self, key: Key, clean: Measured) -> Measured:
        return clean + real_scalar(self.scale, clean) * jax.random.laplace(key, clean.shape, clean.dtype)

    def log_likelihood(self, y: Measured, clean: Measured) -> Array:
        return -jnp.sum(jnp.abs(y - clean)) / real_scalar(self.scale, clean)


@struct.dataclass
class UniformNoise(Noise):
    """`y - clean` is uniform on `[-width, width]`; the likelihood is flat there and 0 beyond, without a slope.

    Attributes:
      width: half of the interval, in units of the data.
    """

    width: Scalar

    @property
    def sigma(self) -> Array:
        """The standard deviation, `width / sqrt(3)`."""
        return self.width / jnp.sqrt(3.0)

    def sample(self, key: Key, clean: Measured) -> Measured:
        return clean + real_scalar(self.width, clean) * jax.random.uniform(key, clean.shape, clean.dtype, -1, 1)

    def log_likelihood(self, y: Measured, clean: Measured) -> Array:
        inside = jnp.abs(y - clean) <= real_scalar(self.width, clean)
        return jnp.where(jnp.all(inside), 0.0, -jnp.inf).astype(clean.dtype)


@struct.dataclass
class GammaNoise(Noise):
    """Speckle: `y + 1 = (clean + 1) g`, where `g ~ Gamma(looks, 1 / looks)` has the mean 1.

    Attributes:
      looks: how many pictures were averaged; `1 / looks` is the relative variance.
    """

    looks: Scalar

    def sample(self, key: Key, clean: Measured) -> Measured:
        looks = real_scalar(self.looks, clean)
        return _intensity(clean) * jax.random.gamma(key, looks, clean.shape, clean.dtype) / looks - 1

    def log_likelihood(self, y: Measured, clean: Measured) -> Array:
        intensity = _intensity(clean)
        return -real_scalar(self.looks, clean) * jnp.sum(jnp.log(intensity) + (y + 1) / intensity)

    def support(self, y: Measured) -> Array:
        """Intensities are not negative."""
        return y >= -1 - 1e-3


@struct.dataclass
class LogPoissonNoise(Noise):
    """Transmission: `y = -log(k / photons) / mu`, `k ~ Poisson(photons exp(-mu clean))`; no count is stored as one.

    Attributes:
      photons: the expected count through nothing.
      mu: attenuation for each unit of clean.
    """

    photons: Scalar
    mu: Scalar = 1.0

    def sample(self, key: Key, clean: Measured) -> Measured:
        photons, mu = real_scalar(self.photons, clean), real_scalar(self.mu, clean)
        counts = jax.random.poisson(key, photons * jnp.exp(-mu * clean), clean.shape).astype(clean.dtype)
        return -jnp.log(jnp.maximum(counts, 1) / photons) / mu

    def log_likelihood(self, y: Measured, clean: Measured) -> Array:
        photons, mu = real_scalar(self.photons, clean), real_scalar(self.mu, clean)
        return -photons * jnp.sum(jnp.exp(-mu * y) * mu * clean + jnp.exp(-mu * clean))


@struct.dataclass
class PoissonGaussianNoise(Noise):
    """Counts and the electronics that read them: `y = 2 (k + read n) / peak - 1`, `k ~ Poisson(peak (clean + 1) / 2)`.

    The likelihood sums over the counts within `window` of what was read.

    Attributes:
      peak: the expected count at the value 1.
      read: the deviation of the reading, in counts, above 0.
      window: in counts, several times `read`; static.
    """

    peak: Scalar
    read: Scalar = 1.0
    window: int = struct.field(pytree_node=False, default=16)

    @property
    def sigma(self) -> Array:
        """The standard deviation at mid-grey."""
        return jnp.sqrt(2.0 * self.peak + 4.0 * self.read**2) / self.peak

    def sample(self, key: Key, clean: Measured) -> Measured:
        count, noise = jax.random.split(key)
        peak, read = real_scalar(self.peak, clean), real_scalar(self.read, clean)
        counts = jax.random.poisson(count, 0.5 * peak * _intensity(clean), clean.shape).astype(clean.dtype)
        return 2 * (counts + read * jax.random.normal(noise, clean.shape, clean.dtype)) / peak - 1

    def log_likelihood(self, y: Measured, clean: Measured) -> Array:
        peak, read = real_scalar(self.peak, clean), real_scalar(self.read, clean)
        seen, rate = 0.5 * peak * (y + 1), 0.5 * peak * _intensity(clean)
        near = jnp.maximum(jnp.round(seen), self.window)[..., None]
        steps = jnp.arange(-self.window, self.window + 1, dtype=clean.dtype)
        k = near + steps.reshape(*[1] * y.ndim, -1)
        logs = k * jnp.log(rate)[..., None] - gammaln(k + 1) - 0.5 * ((seen[..., None] - k) / read) ** 2
        return jnp.sum(logsumexp(logs, axis=-1) - rate)


@struct.dataclass
class RicianNoise(Noise):
    """Magnitudes of complex pictures: `y + 1 = |clean + 1 + sigma n|`, n complex with a deviation of 1 in each part.

    Attributes:
      sigma: the deviation of each part, in units of the data.
    """

    sigma: Scalar

    def sample(self, key: Key, clean: Measured) -> Measured:
        parts = real_scalar(self.sigma, clean) * jax.random.normal(key, (2, *clean.shape), clean.dtype)
        return jnp.hypot(_intensity(clean) + parts[0], parts[1]) - 1

    def log_likelihood(self, y: Measured, clean: Measured) -> Array:
        variance, magnitude = real_scalar(self.sigma, clean) ** 2, _intensity(clean)
        z = (y + 1) * magnitude / variance
        return jnp.sum(jnp.log(i0e(z)) + z - 0.5 * magnitude**2 / variance)

    def support(self, y: Measured) -> Array:
        """Magnitudes are not negative."""
        return y >= -1 - 1e-3


@struct.dataclass
class SaltAndPepperNoise(Noise):
    """A `share` of the values is -1 or 1, as often, the others have Gaussian noise of `spread`.

    A value of exactly -1 or 1 is taken as lost: it says nothing of the clean one.

    Attributes:
      share: of what is lost, in [0, 1].
      spread: the deviation of what is not, above 0, in units of the data.
    """

    share: Scalar
    spread: Scalar = 0.05

    def sample(self, key: Key, clean: Measured) -> Measured:
        which, noise, sign = jax.random.split(key, 3)
        kept = clean + real_scalar(self.spread, clean) * jax.random.normal(noise, clean.shape, clean.dtype)
        lost = jax.random.uniform(which, clean.shape, clean.dtype) < real_scalar(self.share, clean)
        return jnp.where(lost, jax.random.rademacher(sign, clean.shape, clean.dtype), kept)

    def log_likelihood(self, y: Measured, clean: Measured) -> Array:
        kept = jnp.abs(y) != 1
        return -0.5 * jnp.sum(jnp.where(kept, (y - clean) / real_scalar(self.spread, clean), 0.0) ** 2)
