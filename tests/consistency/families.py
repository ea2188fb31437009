"""Consistency maps known in closed form: of Gaussian data, with their variance as the only weights, and of mixtures."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from flax import struct
from jax.scipy.special import ndtr

from diffinv import process, train

PROCESSES = {"edm": process.EDM(2.0), "vp": process.VP(), "flow": process.Flow()}
every_process = pytest.mark.parametrize("name", ["flow", pytest.param("vp", marks=pytest.mark.slow)])
VARIANCES = jnp.asarray([0.05, 0.25, 0.6, 1.5])


@struct.dataclass
class GaussianMap:
    r"""Of N(0, diag e^l): `x_s = x_t Q_s / Q_t`, `Q^2 = alpha^2 e^l + sigma^2`, in the x0 form of `maps.FlowMap`."""

    log_variance: Any
    process: process.Process
    s: Any = None

    def to(self, s):
        return self.replace(s=s)

    def given(self, **condition):
        return self

    def __call__(self, x, t):
        alpha, sigma = self.process.alpha, self.process.sigma
        v = jnp.exp(self.log_variance)
        spread = lambda t: jnp.sqrt(alpha(t) ** 2 * v + sigma(t) ** 2)
        if self.s is None:
            return x * jnp.sqrt(v) / spread(t)
        s = self.s
        mixed = (sigma(t) * spread(s) + sigma(s) * spread(t)) * spread(t)
        return x * v * (sigma(t) * alpha(s) + sigma(s) * alpha(t)) / mixed


@struct.dataclass
class GaussianMean:
    """`E[x_0 | x_t]` of N(0, diag e^l)."""

    log_variance: Any
    process: process.Process

    def __call__(self, x, t):
        alpha, v = self.process.alpha(t), jnp.exp(self.log_variance)
        return alpha * v / (alpha**2 * v + self.process.sigma(t) ** 2) * x


class Mixture1D(NamedTuple):
    """A mixture on the line: its probability-flow ODE is the monotone map between the laws at two times."""

    weights: Any
    means: Any
    deviations: Any

    def cdf(self, x, alpha, sigma):
        spread = jnp.sqrt((alpha * self.deviations) ** 2 + sigma**2)
        return jnp.sum(self.weights * ndtr((x - alpha * self.means) / spread))

    def map(self, x, alpha, sigma):
        """The quantile at time 0 of `x_t`'s rank, by 80 bisections."""
        rank = self.cdf(x, alpha, sigma)

        def halve(_, ends):
            middle = 0.5 * (ends[0] + ends[1])
            below = self.cdf(middle, 1.0, 0.0) < rank
            return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

        low, high = jax.lax.fori_loop(0, 80, halve, (jnp.asarray(-20.0), jnp.asarray(20.0)))
        return 0.5 * (low + high)


def context(step=0, ema=(), frozen=()):
    """What the trainer would tell a loss."""
    return train.Context(jnp.asarray(step, jnp.int32), tuple(ema), frozen)


def pair(t, s):
    """A discretisation of the two points t and s."""
    return lambda u: t + (s - t) * u


def two(step):
    """The curriculum of two points."""
    return jnp.asarray(2, jnp.int32)


def gaussian_data(key, count, variances=VARIANCES):
    return jnp.sqrt(variances)[None] * jax.random.normal(key, (count, len(variances)), float)
