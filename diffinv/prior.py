r"""Priors: a process together with the denoiser `E[x_0 | x_t]`, and the denoisers that are known exactly.

A network of any parametrisation becomes `(x, t) -> x_0` here and nowhere else; everything above sees only a denoiser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.describe import Described, described
from diffinv.ends import require_noisy_end, require_same
from diffinv.linalg import dct, idct, square_distances
from diffinv.process import Process, require_isotropic
from diffinv.typing import Array, Cost, Denoiser, Key, Time


@described
class Prediction(NamedTuple):
    """What a network says of `x_t`: the denoised mean `x0`, and `v` in [0, 1] (or None), the share of the log
    variance between the posterior's (0) and the forward kernel's (1), as learned by ADM."""

    x0: Array
    v: Array | None


@struct.dataclass
class Prior(Described):
    """`p(x_0)` through a process and its denoiser.

    Attributes:
      process: the forward process.
      denoise: `(x, t) -> x0`, a callable pytree.
      shape: of one sample; static.
      law: of x_0, roughly: with `sample(key)`, to start from where a process does not end in noise; or None.

    Raises ValueError where the denoiser names another process: its noise levels would be those of other times.
    """

    process: Process
    denoise: Denoiser
    shape: tuple[int, ...] = struct.field(pytree_node=False)
    law: Any = None

    def __post_init__(self) -> None:
        require_same(self.process, self.denoise)

    def predict(self, x: Array, t: Time) -> Prediction:
        """`Prediction(x0, v)`; `v` is None where the denoiser learns no variance."""
        predict = getattr(self.denoise, "predict", None)
        return predict(x, t) if predict else Prediction(self.denoise(x, t), None)

    @property
    def cost(self) -> Cost:
        """Of one call of `denoise`; a guided denoiser says its own."""
        return getattr(self.denoise, "cost", Cost())

    def given(self, **condition: Any) -> Prior:
        """The conditional prior `p(x_0 | condition)`; the arguments reach the network's `apply` by name."""
        if not hasattr(self.denoise, "given"):
            raise TypeError(f"denoiser {type(self.denoise).__name__} takes no condition; use a NetworkDenoiser")
        return replace(self, denoise=self.denoise.given(**condition))

    def start(self, key: Key, t: Time = 1.0) -> Array:
        """A draw from the noisy end, in the dtype of `t`: `N(0, sigma_t^2)`, exact in the limit `alpha_t -> 0`, or
        `alpha_t` times a draw of `law`, and that noise. ValueError for neither: see `ends.require_noisy_end`."""
        if self.law is not None:
            draw, noise = jax.random.split(key)
            return self.process.perturb(self.law.sample(draw), t).sample(noise)
        require_noisy_end(self.process)
        sigma = self.process.sigma(t)
        return sigma * jax.random.normal(key, self.shape, sigma.dtype)


def ddpm_index(process: Process, t: Time) -> Array:
    """The index that a 1000-step DDPM network was trained with: `1000 t - 1` (index k - 1 at time k/1000)."""
    return 1000.0 * jnp.asarray(t) - 1.0


def unit_time(process: Process, t: Time) -> Array:
    """The time itself."""
    return jnp.asarray(t)


def _from_eps(process: Process, x: Array, t: Time, out: Array) -> Array:
    return (x - process.sigma(t) * out) / process.alpha(t)


def _from_v(process: Process, x: Array, t: Time, out: Array) -> Array:
    alpha, sigma = process.alpha(t), process.sigma(t)
    return (alpha * x - sigma * out) / (alpha**2 + sigma**2)


def _from_score(process: Process, x: Array, t: Time, out: Array) -> Array:
    return (x + process.sigma(t) ** 2 * out) / process.alpha(t)


def _from_velocity(process: Process, x: Array, t: Time, out: Array) -> Array:
    alpha_rate, sigma_rate = process.rates(t)
    alpha, sigma = process.alpha(t), process.sigma(t)
    return (sigma_rate * x - sigma * out) / (alpha * sigma_rate - alpha_rate * sigma)


PARAMETRISATIONS: dict[str, Callable[[Process, Array, Time, Array], Array]] = {
    "eps": _from_eps,  # Ho et al. 2020
    "v": _from_v,  # Salimans & Ho 2022, v = alpha eps - sigma x0
    "x0": lambda process, x, t, out: out,
    "score": _from_score,  # Song et al. 2021
    "velocity": _from_velocity,  # dx/dt of the process itself; eps - x0 for Flow
}


@struct.dataclass
class NetworkDenoiser(Described):
    r"""A network `apply(params, x, condition, **given)` as a denoiser; the one seam between Flax and diffinv.

    For `parametrisation = "edm"` the network is preconditioned (Karras et al. 2022, arXiv:2206.00364, table 1), for
    any process through `r = sigma_t / alpha_t`, written without division by alpha:

        x_0 = (s^2 alpha x + sigma s w F(x / w, log(r) / 4)) / w^2,   w^2 = sigma^2 + alpha^2 s^2,   s = sigma_data,

    with `r` clipped to `bounds`, the noise levels that the network was trained on. The others are those of
    `PARAMETRISATIONS`, with `condition(process, t)` fed to the network; "eps" and "score", of which no x0 follows where
    alpha is 0, at `process.alive(t)`.

    Attributes:
      params: the network's parameters, a pytree.
      process: the forward process it is used under.
      apply: `(params, x, condition, **given) -> F`; static.
      parametrisation: "edm", "eps", "v", "x0", "score" or "velocity"; static.
      condition: `(process, t) -> scalar`; static; unused for "edm".
      learned_variance: the last half of the output channels is ADM's variance share; static.
      clip: clamp x0 to [-1, 1], gradient 0 where it clips; static.
      sigma_data, bounds: of the EDM preconditioning; units of the data.
      extra: conditions passed to `apply` by name.

    Raises ValueError for an unknown parametrisation.
    """

    params: Any
    process: Process
    apply: Callable[..., Array] = struct.field(pytree_node=False)
    parametrisation: str = struct.field(pytree_node=False, default="edm")
    condition: Callable[[Process, Time], Array] = struct.field(pytree_node=False, default=ddpm_index)
    learned_variance: bool = struct.field(pytree_node=False, default=False)
    clip: bool = struct.field(pytree_node=False, default=False)
    sigma_data: float = 0.5
    bounds: tuple[float, float] = (0.002, 80.0)
    extra: dict[str, Any] = struct.field(default_factory=dict)

    def given(self, **condition: Any) -> NetworkDenoiser:
        """The same network under `condition`."""
        return replace(self, extra={**self.extra, **condition})

    def __call__(self, x: Array, t: Time) -> Array:
        return self.predict(x, t).x0

    def predict(self, x: Array, t: Time) -> Prediction:
        """`Prediction(x0, v)`."""
        x0, v = self._edm(x, t) if self.parametrisation == "edm" else self._plain(x, t)
        return Prediction(jnp.clip(x0, -1, 1) if self.clip else x0, v)

    def _split(self, out: Array) -> tuple[Array, Array | None]:
        if not self.learned_variance:
            return out, None
        mean, v = jnp.split(out, 2, axis=-1)
        return mean, 0.5 * (v + 1)

    def _plain(self, x: Array, t: Time) -> tuple[Array, Array | None]:
        if self.parametrisation not in PARAMETRISATIONS:
            known = ", ".join(["edm", *PARAMETRISATIONS])
            raise ValueError(f"parametrisation is {self.parametrisation!r}; choose one of {known}")
        if self.parametrisation in ("eps", "score"):
            t = self.process.alive(t)
        out = self.apply(self.params, x, self.condition(self.process, t), **self.extra)
        out, v = self._split(out.astype(x.dtype))
        return PARAMETRISATIONS[self.parametrisation](self.process, x, t, out), v

    def _edm(self, x: Array, t: Time) -> tuple[Array, Array | None]:
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        low, high = self.bounds
        log_r = jnp.clip(-0.5 * self.process.log_snr(t), jnp.log(low), jnp.log(high))
        weight = jnp.sqrt(sigma**2 + (alpha * self.sigma_data) ** 2)
        out, v = self._split(self.apply(self.params, x / weight, log_r / 4, **self.extra).astype(x.dtype))
        skip = self.sigma_data**2 * alpha / weight**2
        return skip * x + sigma * self.sigma_data / weight * out, v


@struct.dataclass
class GaussianDenoiser(Described):
    r"""Exact for `x_0 ~ N(m, C)`: `E[x_0 | x_t] = m + alpha C (alpha^2 C + sigma^2 I)^{-1} (x_t - alpha m)`.

    `C = B diag(variance) B^T`; `basis` holds B's columns (n, n) on the flattened sample, or is None for a covariance
    that is diagonal in the pixels or, where `spectral`, in the orthonormal DCT of (H, W, C).
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
        return dct(x) if self.spectral else x

    def synthesise(self, c: Array) -> Array:
        """The inverse of `analyse`."""
        if self.basis is not None:
            return jnp.dot(self.basis, c, precision="highest").reshape(self.mean.shape)
        return idct(c) if self.spectral else c

    def __call__(self, x: Array, t: Time) -> Array:
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

    Original. Raises ValueError where the sizes do not fit, and for a process that is not isotropic.
    """
    require_isotropic(process, "gaussian", "gaussian_field")
    if covariance.shape != (mean.size, mean.size):
        raise ValueError(f"covariance has shape {covariance.shape}; a mean of {mean.shape} needs {(mean.size,) * 2}")
    variance, basis = jnp.linalg.eigh(covariance)
    return Prior(process, GaussianDenoiser(process, mean, jnp.maximum(variance, 0.0), basis), mean.shape)


def gaussian_field(process: Process, mean: Array, spectrum: Array) -> Prior:
    """The exact prior of a stationary Gaussian field: covariance diagonal in the DCT, `spectrum` (H, W, 1 or C).

    Original. `mean` is (H, W, C); the spectrum's unit is the data's squared.
    """
    return Prior(process, GaussianDenoiser(process, mean, spectrum, spectral=True), mean.shape)


@struct.dataclass
class MixtureDenoiser(Described):
    r"""Exact for `x_0 ~ sum_k w_k N(m_k, v_k I)`: responsibilities times the components' own denoised means.

    With all `v_k = 0` it is the denoiser of a finite data set. For any process: a blurring one acts on the coefficients
    that it blurs, in which the means are given. Distances are those of `linalg.square_distances`.

    Attributes:
      means: (K, *shape); log_weights: (K,), normalised; variances: (K,), units of the data squared.
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

    def __call__(self, x: Array, t: Time) -> Array:
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

    Original. Weights are normalised. Raises ValueError where the counts differ.
    """
    if not len(means) == len(weights) == len(variances):
        raise ValueError(f"{len(means)} means, {len(weights)} weights and {len(variances)} variances: give K of each")
    log_weights = jax.nn.log_softmax(jnp.log(weights))
    return Prior(process, MixtureDenoiser(process, means, log_weights, jnp.asarray(variances)), means.shape[1:])


def finite(process: Process, data: Array) -> Prior:
    """The exact prior of a finite data set, each of the N samples (N, *shape) with probability 1/N.

    Original; the memorising denoiser that a network must not become.
    """
    return mixture(process, data, jnp.ones(len(data), data.dtype), jnp.zeros(len(data), data.dtype))


@struct.dataclass
class FullMixtureDenoiser(Described):
    r"""Exact for `x_0 ~ sum_k w_k N(m_k, C_k)`, each `C_k = B_k diag(v_k) B_k^T` on the flattened sample:

        E[x_0 | x_t] = sum_k r_k [m_k + B_k diag(g_k) B_k^T (x_t - alpha m_k)],   g = alpha v / (alpha^2 v + sigma^2),

    r the responsibilities. For isotropic processes.

    Attributes:
      means: (K, *shape); log_weights: (K,), normalised.
      variances: (K, n), units of the data squared; bases: (K, n, n), eigenvectors in the columns.
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

    def __call__(self, x: Array, t: Time) -> Array:
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

    Original. Weights are normalised. Raises ValueError where counts or sizes differ, or a process is not isotropic.
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
