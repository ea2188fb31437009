"""Denoisers that are known exactly, of Gaussians, their mixtures and finite data sets, and the priors made of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.describe import Described
from diffinv.linalg import dct_hw, idct_hw, square_distances
from diffinv.prior import Prior
from diffinv.process import Process, require_isotropic
from diffinv.typing import Array, Key, Sample, Time


@struct.dataclass
class GaussianDenoiser(Described):
    """Exact for `x_0 ~ N(m, C)`: `E[x_0 | x_t] = m + alpha C (alpha^2 C + sigma^2 I)^{-1} (x_t - alpha m)`.

    The covariance is `C = B diag(variance) B^T`.

    Attributes:
      process: the forward process.
      mean: m, of the sample's shape.
      variance: the eigenvalues of C, in units of the data squared.
      basis: the columns of B on the flattened sample, (n, n), or None for a covariance that is diagonal.
      spectral: whether a diagonal covariance is so in the orthonormal DCT of (H, W, C), not in the pixels; static.
    """

    process: Process
    mean: Array
    variance: Array
    basis: Array | None = None
    spectral: bool = struct.field(pytree_node=False, default=False)

    def analyse(self, x: Array) -> Array:
        """Coordinates of `x` in the eigenbasis, in the shape of `variance`."""
        if self.basis is not None:
            return jnp.dot(self.basis.T, x.ravel(), precision="highest")
        return dct_hw(x) if self.spectral else x

    def synthesise(self, c: Array) -> Array:
        """The inverse of `analyse`."""
        if self.basis is not None:
            return jnp.dot(self.basis, c, precision="highest").reshape(self.mean.shape)
        return idct_hw(c) if self.spectral else c

    def __call__(self, x: Sample, t: Time) -> Sample:
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return self.mean + self.synthesise(gain * self.analyse(x - alpha * self.mean))

    def log_prob(self, x: Array) -> Array:
        """`log N(x; m, C)` in nats."""
        z = self.analyse(x - self.mean)
        variance = jnp.broadcast_to(self.variance, z.shape)
        return -0.5 * jnp.sum(z**2 / variance + jnp.log(2 * jnp.pi * variance))

    def sample(self, key: Key) -> Array:
        """One exact draw of x_0."""
        shape = self.variance.shape if self.basis is not None else self.mean.shape
        z = jnp.sqrt(self.variance) * jax.random.normal(key, shape, self.mean.dtype)
        return self.mean + self.synthesise(z)


def gaussian(process: Process, mean: Array, covariance: Array) -> Prior:
    """The exact prior `N(mean, covariance)`; `covariance` is (n, n) over the flattened sample, n = mean.size.

    Raises ValueError where the sizes do not fit, and for a process that is not isotropic.
    """
    require_isotropic(process, "gaussian", "gaussian_field")
    if covariance.shape != (mean.size, mean.size):
        raise ValueError(f"covariance has shape {covariance.shape}; a mean of {mean.shape} needs {(mean.size,) * 2}")
    variance, basis = jnp.linalg.eigh(covariance)
    return Prior(process, GaussianDenoiser(process, mean, jnp.maximum(variance, 0.0), basis), mean.shape)


def gaussian_field(process: Process, mean: Array, spectrum: Array) -> Prior:
    """The exact prior of a stationary Gaussian field: covariance diagonal in the DCT, `spectrum` (H, W, 1 or C).

    `mean` is (H, W, C); the spectrum's unit is the data's squared.
    """
    return Prior(process, GaussianDenoiser(process, mean, spectrum, spectral=True), mean.shape)


@struct.dataclass
class MixtureDenoiser(Described):
    """Exact for `x_0 ~ sum_k w_k N(m_k, v_k I)`: responsibilities times the components' own denoised means.

    With all `v_k = 0` it is the denoiser of a finite data set. For any process: a blurring one acts on the coefficients
    that it blurs, in which the means are given. Distances are those of `linalg.square_distances`.

    Attributes:
      process: the forward process.
      means: m_k, (K, *shape).
      log_weights: log w_k, normalised, (K,).
      variances: v_k, in units of the data squared, (K,).
    """

    process: Process
    means: Array
    log_weights: Array
    variances: Array

    def responsibilities(self, x: Array, t: Time) -> Array:
        """`p(k | x_t)`, shape (K,)."""
        return jax.nn.softmax(self._log_joint(x, t))

    def _spread(self, t: Time) -> tuple[Array, Array, Array]:
        """`alpha`, `v` and `alpha^2 v + sigma^2` with the component's axis first: (K,), or (K, H, W, 1) of blurring."""
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        if jnp.ndim(alpha) == 0:
            return alpha, self.variances, alpha**2 * self.variances + sigma**2
        alpha, sigma = alpha[None], jnp.broadcast_to(sigma, alpha.shape)[None]
        v = self.variances.reshape(-1, *[1] * (alpha.ndim - 1))
        return alpha, v, alpha**2 * v + sigma**2

    def _log_joint(self, x: Array, t: Time) -> Array:
        alpha, _, spread = self._spread(t)
        if jnp.ndim(alpha) == 0:
            square = square_distances(x, self.means, alpha, spread)
            return self.log_weights - 0.5 * square / spread - 0.5 * x.size * jnp.log(2 * jnp.pi * spread)
        terms = (x[None] - alpha * self.means) ** 2 / spread + jnp.log(2 * jnp.pi * spread)
        return self.log_weights - 0.5 * jnp.sum(terms, axis=tuple(range(1, terms.ndim)))

    def __call__(self, x: Sample, t: Time) -> Sample:
        alpha, v, spread = self._spread(t)
        gain = alpha * v / spread
        logits = self._log_joint(x, t)
        r = jnp.exp(logits - jax.lax.stop_gradient(jnp.max(logits)))  # normalised below: once a sample, not once a mean
        if jnp.ndim(alpha):
            means = self.means + gain * (x[None] - alpha * self.means)
            return jnp.tensordot(r / jnp.sum(r), means, 1, precision="highest")
        pull = jnp.tensordot(r * (1 - alpha * gain), self.means, 1, precision="highest")
        return (pull + jnp.dot(r, gain, precision="highest") * x) / jnp.sum(r)

    def log_prob(self, x: Array, t: Time = 0.0) -> Array:
        """`log p_t(x)` in nats; at t = 0 it needs variances above 0."""
        return jax.nn.logsumexp(self._log_joint(x, t))

    def sample(self, key: Key) -> Array:
        """One exact draw of x_0."""
        pick, noise = jax.random.split(key)
        k = jax.random.categorical(pick, self.log_weights)
        z = jax.random.normal(noise, self.means.shape[1:], self.means.dtype)
        return self.means[k] + jnp.sqrt(self.variances[k]) * z


def mixture(process: Process, means: Array, weights: Array, variances: Array) -> Prior:
    """The exact prior of an isotropic Gaussian mixture: `means` (K, *shape), `weights` and `variances` (K,).

    Weights are normalised. Raises ValueError where the counts differ.
    """
    if not len(means) == len(weights) == len(variances):
        raise ValueError(f"{len(means)} means, {len(weights)} weights and {len(variances)} variances: give K of each")
    log_weights = jax.nn.log_softmax(jnp.log(weights))
    return Prior(process, MixtureDenoiser(process, means, log_weights, jnp.asarray(variances)), means.shape[1:])


def finite(process: Process, data: Array) -> Prior:
    """The exact prior of a finite data set: each of the N samples (N, *shape) has probability 1/N.

    A network that memorises its training data becomes this denoiser.
    """
    return mixture(process, data, jnp.ones(len(data), data.dtype), jnp.zeros(len(data), data.dtype))


@struct.dataclass
class FullMixtureDenoiser(Described):
    """Exact for `x_0 ~ sum_k w_k N(m_k, C_k)`, each `C_k = B_k diag(v_k) B_k^T` on the flattened sample:

        E[x_0 | x_t] = sum_k r_k [m_k + B_k diag(g_k) B_k^T (x_t - alpha m_k)],   g = alpha v / (alpha^2 v + sigma^2),

    with the responsibilities r. For isotropic processes.

    Attributes:
      process: the forward process.
      means: m_k, (K, *shape).
      log_weights: log w_k, normalised, (K,).
      variances: v_k, in units of the data squared, (K, n).
      bases: B_k with the eigenvectors in its columns, (K, n, n).
    """

    process: Process
    means: Array
    log_weights: Array
    variances: Array
    bases: Array

    def _coordinates(self, x: Array, scale: Array) -> Array:
        """`B_k^T (x - scale m_k)`, (K, n): all `B_k^T x` as one matrix product, which vmap keeps one."""
        centres = jnp.einsum("kij,ki->kj", self.bases, self.means.reshape(self.variances.shape), precision="highest")
        rotated = jnp.dot(x.ravel(), jnp.swapaxes(self.bases, 0, 1).reshape(x.size, -1), precision="highest")
        return rotated.reshape(centres.shape) - scale * centres

    def _log_joint(self, c: Array, spread: Array) -> Array:
        return self.log_weights - 0.5 * jnp.sum(c**2 / spread + jnp.log(2 * jnp.pi * spread), axis=1)

    def __call__(self, x: Sample, t: Time) -> Sample:
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        c, spread = self._coordinates(x, alpha), alpha**2 * self.variances + sigma**2
        r = jax.nn.softmax(self._log_joint(c, spread))
        pulls = (r[:, None] * alpha * self.variances / spread * c).ravel()
        pull = jnp.dot(pulls, jnp.swapaxes(self.bases, 1, 2).reshape(pulls.size, x.size), precision="highest")
        return jnp.tensordot(r, self.means, 1, precision="highest") + pull.reshape(x.shape)

    def log_prob(self, x: Array, t: Time = 0.0) -> Array:
        """`log p_t(x)` in nats; at t = 0 it needs variances above 0."""
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        spread = alpha**2 * self.variances + sigma**2
        return jax.nn.logsumexp(self._log_joint(self._coordinates(x, alpha), spread))

    def sample(self, key: Key) -> Array:
        """One exact draw of x_0."""
        pick, noise = jax.random.split(key)
        k = jax.random.categorical(pick, self.log_weights)
        z = jnp.sqrt(self.variances[k]) * jax.random.normal(noise, self.variances.shape[1:], self.means.dtype)
        return self.means[k] + jnp.dot(self.bases[k], z, precision="highest").reshape(self.means.shape[1:])


def gaussian_mixture(process: Process, means: Array, weights: Array, covariances: Array) -> Prior:
    """The exact prior of a Gaussian mixture: `means` (K, *shape), `weights` (K,), `covariances` (K, n, n).

    Weights are normalised. Raises ValueError where counts or sizes differ, or a process is not isotropic.
    """
    require_isotropic(process, "gaussian_mixture", "mixture")
    size = means[0].size
    if not len(means) == len(weights) == len(covariances) or covariances.shape[1:] != (size, size):
        given = f"{means.shape}, weights {weights.shape}, covariances {covariances.shape}"
        raise ValueError(f"means are {given}: give K of each, covariances ({size}, {size})")
    variances, bases = jnp.linalg.eigh(covariances)
    log_weights = jax.nn.log_softmax(jnp.log(weights))
    denoise = FullMixtureDenoiser(process, means, log_weights, jnp.maximum(variances, 0.0), bases)
    return Prior(process, denoise, means.shape[1:])
