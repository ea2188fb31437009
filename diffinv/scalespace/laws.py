"""Laws of the data, in a chart's codes, whose entropies under a process are known: finite sets, mixtures, Gaussians.

The noisy code is `z_t = a z_0 + s eps` with `a` and `s` of shape (n,), flattened. Densities come from matrix products,
so that no (M, K, n) array of differences is made. Use float64, because `|z|^2 / s^2` cancels.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.charts import Chart
from diffinv.denoisers.exact import GaussianDenoiser, MixtureDenoiser
from diffinv.describe import Described
from diffinv.prior import Prior
from diffinv.typing import Array, Key

LOG_2PI_E = math.log(2 * math.pi) + 1


def conditional_entropy(s: Array) -> Array:
    """`h(z_t | z_0) = n/2 ln(2 pi e) + sum ln s`, nats."""
    return 0.5 * s.size * LOG_2PI_E + jnp.sum(jnp.log(s))


@struct.dataclass
class Mixture(Described):
    """`z_0 ~ sum_k w_k N(m_k, v_k I)`.

    Attributes:
      means: m_k, (K, n).
      log_weights: log w_k, (K,).
      variances: v_k, (K,), or None where all are 0: a finite data set.
    """

    means: Array
    log_weights: Array
    variances: Array | None = None

    def draw(self, key: Key, count: int) -> Array:
        """(count, n) draws of z_0. Components of equal weight are drawn equally often, to within one."""
        pick, noise = jax.random.split(key)
        order = jax.random.permutation(pick, len(self.means))
        chance = jax.random.categorical(pick, self.log_weights, shape=(count,))
        even = jnp.ptp(self.log_weights) < 1e-12
        k = jnp.where(even, order[jnp.arange(count) % len(order)], chance)
        if self.variances is None:
            return self.means[k]
        z = jax.random.normal(noise, (count, self.means.shape[1]), self.means.dtype)
        return self.means[k] + jnp.sqrt(self.variances)[k, None] * z

    def log_joint(self, z: Array, a: Array, s: Array) -> Array:
        """`log w_k N(z; a m_k, a^2 v_k + s^2)`, (M, K), for z (M, n)."""
        a, s, centre = a[None], s[None], self.mean()[None]
        z, means = z - a * centre, a * (self.means - centre)
        product = lambda x, y: jnp.matmul(x, y.T, precision="highest")
        if self.variances is None:
            spread = s**2
            own = jnp.sum(z**2 / spread, 1, keepdims=True)
        else:
            spread = a**2 * self.variances[:, None] + s**2
            own = product(z**2, 1 / spread)
        square = own - 2 * product(z, means / spread) + jnp.sum(means**2 / spread, 1)[None]
        return self.log_weights[None] - 0.5 * (square + jnp.sum(jnp.log(2 * jnp.pi * spread), 1)[None])

    def mean(self) -> Array:
        """The law's mean, (n,)."""
        return jnp.dot(jnp.exp(self.log_weights), self.means, precision="highest")

    def second_moment(self) -> Array:
        """`E z_0^2` per coordinate, (n,)."""
        square = self.means**2 if self.variances is None else self.means**2 + self.variances[:, None]
        return jnp.dot(jnp.exp(self.log_weights), square, precision="highest")

    def information(self, key: Key, a: Array, s: Array, draws: int) -> Array:
        """(draws,) values whose mean estimates `I(z_0; z_t) = E log p(z_t | z_0) / p(z_t)`, nats."""
        a, s, (data, noise) = a[None], s[None], jax.random.split(key)
        z0, eps = self.draw(data, draws), jax.random.normal(noise, (draws, a.size), self.means.dtype)
        log_kernel = -0.5 * jnp.sum(eps**2 + jnp.log(2 * jnp.pi * s**2), 1)
        return log_kernel - jax.nn.logsumexp(self.log_joint(a * z0 + s * eps, a[0], s[0]), axis=1)

    def denoise(self, z: Array, a: Array, s: Array) -> Array:
        """`E[z_0 | z_t]` for z (M, n), of a finite data set."""
        return jnp.matmul(jax.nn.softmax(self.log_joint(z, a, s), axis=1), self.means, precision="highest")


@struct.dataclass
class Normal(Described):
    """`z_0 ~ N(mean, covariance)`, of which everything is known in closed form.

    Attributes:
      mean: (n,).
      covariance: (n, n).
    """

    mean: Array
    covariance: Array

    def second_moment(self) -> Array:
        """`E z_0^2` per coordinate, (n,)."""
        return self.mean**2 + jnp.diag(self.covariance)

    def information(self, key: Key, a: Array, s: Array, draws: int) -> Array:
        """`1/2 log det(I + S^{-1/2} A C A S^{-1/2})` as an array of one value; nothing is drawn."""
        gain = (a / s)[:, None] * self.covariance * (a / s)[None]
        return 0.5 * jnp.linalg.slogdet(jnp.eye(a.size, dtype=a.dtype) + gain)[1][None]


Law = Mixture | Normal


def law(data: Array | Prior, chart: Chart) -> Law:
    """The law of a finite data set (N, H, W, C) or of an exact prior, in the codes of an orthonormal chart.

    A prior's own process plays no part. Raises TypeError for a denoiser that is not exact.
    """
    encode = lambda x: jax.vmap(chart.encode)(x).reshape(len(x), -1)
    if not isinstance(data, Prior):
        codes = encode(jnp.asarray(data))
        return Mixture(codes, jnp.full(len(codes), -math.log(len(codes)), codes.dtype))
    denoiser = data.denoise
    if isinstance(denoiser, MixtureDenoiser):
        return Mixture(encode(denoiser.means), denoiser.log_weights, denoiser.variances)
    if not isinstance(denoiser, GaussianDenoiser):
        kind = type(denoiser).__name__
        raise TypeError(f"denoiser {kind} is not exact; give a data set, or a Gaussian or mixture prior")
    shape = denoiser.mean.shape if denoiser.basis is None else denoiser.variance.shape
    scale = jnp.sqrt(jnp.broadcast_to(denoiser.variance, shape))
    unit = jnp.eye(scale.size, dtype=scale.dtype).reshape(-1, *shape)
    root = encode(jax.vmap(lambda c: denoiser.synthesise(scale * c))(unit))
    return Normal(chart.encode(denoiser.mean).ravel(), jnp.matmul(root.T, root, precision="highest"))
