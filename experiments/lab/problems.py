"""Problems whose posterior is known: priors, random measurements, exact samples and moments, in float64.

The posteriors are dense linear algebra in numpy, which shares nothing with the library. Another problem is one more
function in `PROBLEMS`: `(rng, rows, draws, process) -> Problem`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import diffinv as di
from diffinv import operators
from diffinv.denoisers.exact import gaussian_mixture
from diffinv.process import Process
from experiments.lab.levy import LaplaceDenoiser, gibbs


class Problem(NamedTuple):
    """`rows` random measurements under one prior.

    Attributes:
      prior: exact. measurements: a Measurement whose leaves have a leading axis (rows,).
      truth: (rows, d). exact: exact posterior samples (rows, draws, d). other: as many more, for the floor.
      mean, covariance: of the posterior, (rows, d) and (rows, d, d), or its diagonal (rows, d).
      mixture: whether the posterior has several modes.
    """

    prior: di.Prior
    measurements: Any
    truth: np.ndarray
    exact: np.ndarray
    other: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    mixture: bool


def settings(config, which: str):
    """The configuration of one problem: `config.reduced[which]` in place of the common numbers and methods."""
    own = config.copy_and_resolve_references().unlock()
    own.update(config.reduced.get(which, {}))
    own.methods = config.methods or own.methods
    return own


class Law(NamedTuple):
    """A Gaussian mixture: weights (K,), means (K, d), covariances (K, d, d)."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """(count, d)."""
        picks = rng.choice(len(self.weights), count, p=self.weights)
        x, z = self.means[picks], rng.standard_normal((count, self.means.shape[1]))
        for k in np.unique(picks):
            values, vectors = np.linalg.eigh(self.covariances[k])
            x[picks == k] += (z[picks == k] * np.sqrt(np.maximum(values, 0))) @ vectors.T
        return x

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the whole mixture."""
        mean = self.weights @ self.means
        spread = self.means - mean
        inside = np.einsum("k,kij->ij", self.weights, self.covariances)
        return mean, inside + np.einsum("k,ki,kj->ij", self.weights, spread, spread)


def posterior(prior: Law, A: np.ndarray, y: np.ndarray, sigma: float) -> Law:
    """Bayes' rule for `y = A x + sigma n`, component by component."""
    logs, means, covariances = [], [], []
    for weight, m, C in zip(prior.weights, prior.means, prior.covariances, strict=True):
        S = A @ C @ A.T + sigma**2 * np.eye(len(A))
        gain = np.linalg.solve(S, A @ C).T
        r = y - A @ m
        means.append(m + gain @ r)
        covariances.append(C - gain @ A @ C)
        logs.append(np.log(weight) - 0.5 * r @ np.linalg.solve(S, r) - 0.5 * np.linalg.slogdet(S)[1])
    weights = np.exp(np.asarray(logs) - max(logs))
    return Law(weights / weights.sum(), np.stack(means), np.stack(covariances))


def _stack(measurements: list[di.Measurement]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *measurements)


def _problem(rng, law: Law, prior: di.Prior, systems: list, draws: int, diagonal: bool = False) -> Problem:
    """From the prior's law and `(operator, matrix, sigma)` a row: truth from the prior, and its exact posterior."""
    truth = law.sample(rng, len(systems))
    found, parts = [], {name: [] for name in ("exact", "other", "mean", "covariance")}
    for x, (operator, A, sigma) in zip(truth, systems, strict=True):
        seen = np.abs(A).sum(1) > 0  # noise on what is not measured would only spoil the residual's floor
        y = A @ x + sigma * seen * rng.standard_normal(len(A))
        shape = jax.eval_shape(operator, jnp.zeros(operator.shape)).shape
        found.append(di.Measurement(operator, jnp.asarray(y.reshape(shape)), di.GaussianNoise(jnp.asarray(sigma))))
        exact = posterior(law, A, y, sigma)
        mean, covariance = exact.moments()
        parts["mean"].append(mean)
        parts["covariance"].append(np.diag(covariance) if diagonal else covariance)
        parts["exact"].append(exact.sample(rng, draws))
        parts["other"].append(exact.sample(rng, draws))
    return Problem(
        prior, _stack(found), truth, *(np.stack(part) for part in parts.values()), mixture=len(law.weights) > 1
    )


def _matrix(rng: np.random.Generator, dim: int, dim_y: int) -> np.ndarray:
    """`U diag(s) V^T` with sorted uniform singular values, as MCGDiff draws it."""
    u, _, vt = np.linalg.svd(rng.standard_normal((dim_y, dim)), full_matrices=False)
    return (u * np.sort(rng.uniform(0, 1, dim_y))[::-1]) @ vt


def _dense(A: np.ndarray) -> operators.Dense:
    return operators.dense(jnp.asarray(A))


def gaussian8(rng, rows: int, draws: int, process: Process) -> Problem:
    """A correlated Gaussian in 8 dimensions, two measurements of it, noise 0.3."""
    q, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    C, mean = (q * np.linspace(0.2, 2.0, 8)) @ q.T, rng.standard_normal(8)
    matrices = [_matrix(rng, 8, 2) for _ in range(rows)]
    systems = [(_dense(A), A, 0.3) for A in matrices]
    law = Law(np.ones(1), mean[None], C[None])
    return _problem(rng, law, di.gaussian(process, jnp.asarray(mean), jnp.asarray(C)), systems, draws)


def mixture8(rng, rows: int, draws: int, process: Process) -> Problem:
    """MCGDiff's 25 components in 8 dimensions, dim_y 2, its random operators and noise (solvers' publication)."""
    means = np.array([[-8.0 * i, -8.0 * j] * 4 for i in range(-2, 3) for j in range(-2, 3)])
    weights = rng.standard_normal(25) ** 2
    law = Law(weights / weights.sum(), means, np.broadcast_to(np.eye(8), (25, 8, 8)))
    matrices = [_matrix(rng, 8, 2) for _ in range(rows)]
    systems = [(_dense(A), A, float(rng.uniform(0.05, 1) * np.linalg.norm(A, 2))) for A in matrices]
    prior = di.mixture(process, jnp.asarray(means), jnp.asarray(law.weights), jnp.ones(25))
    return _problem(rng, law, prior, systems, draws)


BIPSDA_SEEN = (0, 1, 2, 4, 5, 6, 7, 9)


def bipsda_law(rng: np.random.Generator, dim: int = 10) -> Law:
    """BIPSDA's mixture: unit covariance at -5, a diagonal one at 0 and a rotated one at 5, weights 0.4, 0.3, 0.3."""
    q, spread = np.linalg.qr(rng.standard_normal((dim, dim)))[0], np.linspace(1, 2, dim)
    means = np.array([-5.0, 0.0, 5.0])[:, None] * np.ones(dim)
    return Law(np.array([0.4, 0.3, 0.3]), means, np.stack([np.eye(dim), np.diag(spread), (q * spread) @ q.T]))


def mixture_prior(process: Process, law: Law) -> di.Prior:
    """The exact prior of a law."""
    return gaussian_mixture(process, *(jnp.asarray(part) for part in (law.means, law.weights, law.covariances)))


def bipsda(rng, rows: int, draws: int, process: Process) -> Problem:
    """BIPSDA's 3 components with full covariances in 10 dimensions, 8 of them seen, noise 5 (its high noise)."""
    law, A = bipsda_law(rng), np.eye(10)[list(BIPSDA_SEEN)]
    return _problem(rng, law, mixture_prior(process, law), [(_dense(A), A, 5.0)] * rows, draws)


def levy(rng, rows: int, draws: int, process: Process, length: int = 32, seen: int = 8) -> Problem:
    """A Levy process of length 32 with Laplace increments, seen at 8 random places, noise 0.3; in the increments."""
    places = np.sort(np.stack([rng.permutation(length)[:seen] for _ in range(rows)]))
    A = np.tri(length)[places]
    truth = rng.laplace(size=(rows, length))
    y = (A @ truth[..., None])[..., 0] + 0.3 * rng.standard_normal((rows, seen))
    keep, thin = -(-draws // 16), 20
    chains = gibbs(rng, A, y, 0.3, 1.0, 32, keep, thin)
    exact, other = (part[:, :, ::thin].reshape(rows, -1, length)[:, :draws] for part in np.split(chains, 2, axis=1))
    chains = chains.reshape(rows, -1, length)
    covariance = np.stack([np.cov(row.T) for row in chains])
    found = [di.Measurement(_dense(A[i]), jnp.asarray(y[i]), di.GaussianNoise(jnp.asarray(0.3))) for i in range(rows)]
    prior = di.Prior(process, LaplaceDenoiser(process, 1.0), (length,))
    return Problem(prior, _stack(found), truth, exact, other, chains.mean(1), covariance, mixture=False)


def field(rng, rows: int, draws: int, process: Process, side: int = 16) -> Problem:
    """A Gaussian field of `side` x `side` pixels, DCT spectrum 1 / (1 + |k|^2 / 2), behind a box; noise 0.1."""
    k = np.arange(side)
    spectrum = 1.0 / (1 + 0.5 * (k[:, None] ** 2 + k[None] ** 2))
    cosines = np.sqrt(2 / side) * np.cos(np.pi * (k[None] + 0.5) * k[:, None] / side)
    cosines[0] /= np.sqrt(2)
    basis = np.kron(cosines, cosines)
    C = (basis.T * spectrum.ravel()) @ basis
    shape, size = (side, side, 1), side // 2
    operator = operators.box_inpainting(shape, size // 2, size // 2, size)
    seen = np.asarray(jax.vmap(operator)(jnp.eye(side**2).reshape(-1, *shape))).reshape(side**2, side**2).T
    systems = [(operator, seen, 0.1)] * rows
    law = Law(np.ones(1), np.zeros((1, side**2)), C[None])
    prior = di.gaussian_field(process, jnp.zeros(shape), jnp.asarray(spectrum[..., None]))
    return _problem(rng, law, prior, systems, draws, diagonal=True)


PROBLEMS: dict[str, Callable[..., Problem]] = {
    "gaussian8": gaussian8, "mixture8": mixture8, "bipsda": bipsda, "levy": levy, "field": field,
}  # fmt: skip
