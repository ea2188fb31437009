r"""Chains that draw from a Gaussian about a guess times the likelihood: values for `daps`, `pnpdm` and methods alike.

    chain = chains.langevin(steps=100, lr=0.1)
    x = chain(key, law)                        law: a `Coupled`

A chain is a pytree whose rates are leaves, so that they can be swept by `vmap`; numbers of steps are static. One's own
is a subclass of `InnerChain`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.checks import require_count, require_gaussian, require_value
from diffinv.describe import Described, described
from diffinv.linalg import inner
from diffinv.measurement import GaussianNoise, Measurement, require_linear
from diffinv.typing import Array, Key

Rate = Array | float | Callable[[Array], Array]


@described
class Coupled(NamedTuple):
    r"""The law `exp(-force |y - A x|^2 / (2 tau^2) - |x - x0|^2 / (2 r^2))`, from which a chain draws.

    Under another law of the noise than a Gaussian one, `force` times its log likelihood stands for the first term.

    Attributes:
      measurement: y and A.
      x0: the centre, at which chains start.
      r: deviation about x0, a scalar array.
      tau: deviation of y that the chain assumes, a scalar array.
      level: noise-to-signal `sigma / alpha` of the time at which the chain runs.
    """

    measurement: Measurement
    x0: Array
    r: Array
    tau: Array
    level: Array

    def log_density(self, x: Array, force: Array | float = 1.0) -> Array:
        """Its logarithm at `x`, up to a constant."""
        if isinstance(self.measurement.noise, GaussianNoise):
            residual = self.measurement.residual(x)
            data = -0.5 * force * inner(residual, residual) / self.tau**2
        else:
            data = force * self.measurement.log_likelihood(x)
        return data - 0.5 * inner(x - self.x0, x - self.x0) / self.r**2

    def length(self, lr: Rate, force: Array | float = 1.0) -> Array:
        """The step `eta = lr / (1/r^2 + force/tau^2)`: relative to both variances, so stable below `lr = 2` for
        operators of norm 1 at every r."""
        return (lr(self.level) if callable(lr) else lr) / (1 / self.r**2 + force / self.tau**2)


@struct.dataclass
class InnerChain(Described, abc.ABC):
    """A chain: `chain(key, law) -> x`, a draw from the `Coupled` law or near it.

    Attributes:
      divides: whether it divides by tau, which 0 then cannot be.
    """

    divides: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def calls(self) -> int:
        """Calls of the measurement's operator, of one whole chain."""

    @abc.abstractmethod
    def __call__(self, key: Key, law: Coupled) -> Array:
        """A draw."""

    def check(self, measurement: Measurement, method: str) -> None:
        """TypeError where it cannot run on the measurement; `method` is named in it."""


@struct.dataclass
class Walk(InnerChain):
    """A chain of `steps` moves.

    Attributes:
      lr: the step, relative to both variances.
      steps: their number; static.
    """

    lr: Rate
    steps: int = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """Two in every step: A and its pullback, or two densities."""
        return 2 * self.steps


@struct.dataclass
class Langevin(Walk):
    """The chain of `langevin`.

    Attributes:
      force: multiplies the measurement's term.
    """

    force: Array | float

    def __call__(self, key: Key, law: Coupled) -> Array:
        eta, density = law.length(self.lr, self.force), lambda x: law.log_density(x, self.force)

        def step(x: Array, k: Key) -> tuple[Array, None]:
            noise = jax.random.normal(k, x.shape, x.dtype)
            return x + eta * jax.grad(density)(x) + jnp.sqrt(2 * eta) * noise, None

        return jax.lax.scan(step, law.x0, jax.random.split(key, self.steps))[0]


def langevin(steps: int = 100, lr: Rate = 0.1, force: Array | float = 1.0) -> Langevin:
    """Unadjusted Langevin: `x <- x + eta grad log p(x) + sqrt(2 eta) e`, from x0.

    It widens variances by up to `1 / (1 - lr / 2)`, and coordinates that the measurement does not see take only about
    `2 steps eta` of their variance r^2.

    Source: Zhang et al. 2024, arXiv:2407.01521, eq. 7 and algorithm 1. Differs: their step is tuned per task (1e-5 to
    1e-4 at tau = 0.01); here it is relative to the harmonic mean of both variances, see `Coupled.length`.

    Args:
      steps: static, at least 1.
      lr: dimensionless, stable below 2; a number, or a function of noise-to-signal, as `decayed`.
      force: factor on the data term, dimensionless; 1 is the law itself, 2 what their repository's main branch has.

    Raises ValueError for steps under 1.
    """
    require_count("steps", steps)
    return Langevin(lr, steps, force)


@struct.dataclass
class HMC(Walk):
    """The chain of `hmc`.

    Attributes:
      momentum: the share of the last velocity that is kept.
      force: multiplies the measurement's term.
    """

    momentum: Array | float
    force: Array | float

    def __call__(self, key: Key, law: Coupled) -> Array:
        eta, density = law.length(self.lr, self.force), lambda x: law.log_density(x, self.force)
        start_key, key = jax.random.split(key)

        def step(carry: tuple[Array, Array], k: Key) -> tuple[tuple[Array, Array], None]:
            x, v = carry
            noise = jax.random.normal(k, x.shape, x.dtype)
            v = self.momentum * v + jnp.sqrt(eta) * jax.grad(density)(x) + jnp.sqrt(2 * (1 - self.momentum)) * noise
            return (x + jnp.sqrt(eta) * v, v), None

        start = (law.x0, jax.random.normal(start_key, law.x0.shape, law.x0.dtype))
        return jax.lax.scan(step, start, jax.random.split(key, self.steps))[0][0]


def hmc(steps: int = 100, lr: Rate = 0.1, momentum: Array | float = 0.45, force: Array | float = 1.0) -> HMC:
    """Underdamped Langevin, which DAPS's code calls HMC, from x0 and a velocity `v ~ N(0, I)`:

        v <- momentum v + sqrt(eta) grad log p(x) + sqrt(2 (1 - momentum)) e;     x <- x + sqrt(eta) v

    Source: Zhang et al. 2024, arXiv:2407.01521, their code, where lr and momentum are tuned per task, momentum from
    0.003 to 0.9; 0 is `langevin`.

    Args:
      steps: as in `langevin`.
      lr: as in `langevin`.
      momentum: dimensionless, in [0, 1).
      force: as in `langevin`.

    Raises ValueError for steps under 1.
    """
    require_count("steps", steps)
    return HMC(lr, steps, momentum, force)


@struct.dataclass
class Metropolis(Walk):
    """The chain of `metropolis`."""

    def __call__(self, key: Key, law: Coupled) -> Array:
        eta = law.length(self.lr)

        def step(x: Array, k: Key) -> tuple[Array, None]:
            walk_key, accept_key = jax.random.split(k)
            proposal = x + jnp.sqrt(eta) * jax.random.normal(walk_key, x.shape, x.dtype)
            gain = law.log_density(proposal) - law.log_density(x)
            accept = jnp.log(jax.random.uniform(accept_key, (), x.dtype)) < gain
            return jnp.where(jnp.isnan(gain), jnp.nan, jnp.where(accept, proposal, x)), None

        return jax.lax.scan(step, law.x0, jax.random.split(key, self.steps))[0]


def metropolis(steps: int = 100, lr: Rate = 0.1) -> Metropolis:
    """A random walk of deviation `sqrt(eta)`, each move accepted with probability `min(1, p(x') / p(x))`: no gradient,
    and an exact law at any lr.

    Source: Zhang et al. 2024, arXiv:2407.01521, their code. `steps`, `lr`: as in `langevin`. Raises ValueError for
    steps under 1.
    """
    require_count("steps", steps)
    return Metropolis(lr, steps)


@struct.dataclass
class Conjugate(InnerChain):
    """The chain of `conjugate`.

    Attributes:
      force: multiplies the measurement's term.
      divides: by no level of noise.
    """

    force: Array | float

    divides: ClassVar[bool] = False

    @property
    def calls(self) -> int:
        """A, its adjoint, its solve and its projection."""
        return 4

    def check(self, measurement: Measurement, method: str) -> None:
        """TypeError for an operator that is not linear, or noise that is not Gaussian."""
        name = f"{method} with chain=chains.conjugate()"
        require_linear(measurement, name)
        require_gaussian(measurement, name, "chain=chains.langevin()")

    def __call__(self, key: Key, law: Coupled) -> Array:
        measurement, x0 = law.measurement, law.x0
        A = require_linear(measurement, "chains.conjugate()")
        prior_key, noise_key = jax.random.split(key)
        variance = law.tau**2 / self.force
        z = x0 + law.r * jax.random.normal(prior_key, x0.shape, x0.dtype)
        clean = A(z)
        std = jnp.asarray(jnp.sqrt(variance), clean.dtype)
        noise = std * GaussianNoise(1.0).sample(noise_key, jnp.zeros_like(clean))
        damping = jnp.where(variance > 0, jnp.maximum(variance / law.r**2, float(jnp.finfo(x0.dtype).eps)), variance)
        return z + A.adjoint(A.solve(measurement.y + A.project(noise) - clean, damping))


def conjugate(force: Array | float = 1.0) -> Conjugate:
    """An exact draw, for a linear operator and Gaussian noise: perturb, then optimise. tau may be 0.

        z ~ N(x0, r^2 I),  e ~ N(0, tau^2 I);    x = z + A^H (A A^H + (tau / r)^2 I)^{-1} (y + e - A z)

    A damping under the rounding of 1 would blow up what rounding left outside the range of A, and is raised to it.

    Source: Papandreou & Yuille 2010, Gaussian sampling by local perturbations; it stands for the exact draw of Wu et
    al. 2024, arXiv:2405.18782. `force`: as in `langevin`.
    """
    return Conjugate(force)


@struct.dataclass
class Randomised(Walk):
    """The chain of `rto`."""

    def check(self, measurement: Measurement, method: str) -> None:
        """TypeError for noise that is not Gaussian."""
        require_gaussian(measurement, f"{method} with chain=chains.rto()", "chain=chains.langevin()")

    def __call__(self, key: Key, law: Coupled) -> Array:
        prior_key, noise_key = jax.random.split(key)
        z = law.x0 + law.r * jax.random.normal(prior_key, law.x0.shape, law.x0.dtype)
        y = law.measurement.y
        noise = jnp.asarray(law.tau, y.dtype) * GaussianNoise(1.0).sample(noise_key, jnp.zeros_like(y))
        own = law._replace(measurement=replace(law.measurement, y=y + noise), x0=z)
        eta, climb = law.length(self.lr), jax.grad(own.log_density)

        def step(carry: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], None]:
            x, ahead = carry
            x_next = ahead + eta * climb(ahead)
            return (x_next, x_next + k / (k + 3) * (x_next - x)), None

        return jax.lax.scan(step, (z, z), jnp.arange(self.steps, dtype=z.dtype))[0][0]


def rto(steps: int = 50, lr: Rate = 0.5) -> Randomised:
    r"""Randomise, then optimise: the minimiser of a perturbed objective, by Nesterov's accelerated descent from z.

        z ~ N(x0, r^2 I),  e ~ N(0, tau^2 I);   x = argmin_x |y + e - A x|^2 / (2 tau^2) + |x - z|^2 / (2 r^2)

    An exact draw for a linear operator, as `conjugate`, once it has converged; for another one near that of its
    linearisation at the minimiser. Gaussian noise alone, any differentiable operator.

    Source: Bardsley et al. 2014, doi:10.1137/140964023, in the form without their projection (randomised maximum
    likelihood, Oliver et al. 1996); within annealed sampling Crafts & Villa 2025, arXiv:2503.03007, who solve it by
    Gauss-Newton. Nesterov 1983 for the descent.

    Args:
      steps: of descent, static, at least 1.
      lr: dimensionless, at most 1 for operators of norm 1; a number, or a function of noise-to-signal.

    Raises ValueError for steps under 1.
    """
    require_count("steps", steps)
    return Randomised(lr, steps)


@struct.dataclass
class Decayed(Described):
    """The rate of `decayed`.

    Attributes:
      lr: at the first levels.
      to: what it has fallen to at the last levels, relative to `lr`.
      rho: of EDM's spacing of levels; static.
    """

    lr: Array | float
    to: Array | float
    rho: float = struct.field(pytree_node=False)

    def __call__(self, level: Array) -> Array:
        high, low = 100.0 ** (1 / self.rho), 0.1 ** (1 / self.rho)
        share = jnp.clip((high - level ** (1 / self.rho)) / (high - low), 0.0, 1.0)
        return self.lr * (1 + share * (self.to - 1))


def decayed(lr: Array | float = 0.1, to: Array | float = 0.01, rho: float = 7.0) -> Decayed:
    """A rate that falls with noise-to-signal: from `lr` at 100 and above to `to lr` at 0.1 and below, linearly in
    `level^(1 / rho)`, as the index of EDM's grid does.

    Source: Zhang et al. 2024, arXiv:2407.01521, their code, whose grid starts at 100; `to` is 0.01 there. `rho` is of
    their grid; static.
    """
    return Decayed(lr, to, rho)


KNOWN = ("langevin", "hmc", "metropolis", "conjugate", "rto")


def require_chain(chain: Any, measurement: Measurement, method: str) -> InnerChain:
    """The chain; TypeError for what is none, as its name, and for one that cannot run on the measurement."""
    require_value("chain", chain, "chains", {name: f"{name}()" for name in KNOWN})
    chain.check(measurement, method)
    return chain
