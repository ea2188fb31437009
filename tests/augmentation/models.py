"""Priors of classes whose denoisers are exact, and a network that is no more than its table of labels."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from flax import struct

import diffinv as di
from diffinv import process

NULL = 2
PROCESS = process.VP()


@struct.dataclass
class ClassGaussians:
    """`N(mean_c, variance_c)` for two classes; the label `NULL` is a third, broad law."""

    means: Any
    variances: Any
    process: Any
    label: Any = NULL

    def given(self, label):
        return replace(self, label=label)

    def __call__(self, x, t):
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        mean, variance = self.means[self.label], self.variances[self.label]
        return mean + alpha * variance / (alpha**2 * variance + sigma**2) * (x - alpha * mean)


def class_prior(kind=PROCESS, shape=(3, 2, 1)):
    size = 1.0
    for side in shape:
        size *= side
    ramp = jnp.linspace(-1, 1, int(size)).reshape(shape)
    means = jnp.stack([ramp, 0.5 - ramp, 0 * ramp])
    variances = jnp.stack([0.3 + 0.2 * ramp**2, 0.2 + 0 * ramp, 1.5 + 0 * ramp])
    return di.Prior(kind, ClassGaussians(means, variances, kind), shape)


def table_apply(params, x, condition, label):
    """A network that says a label's row, whatever the picture."""
    return params["params"]["label_emb"]["embedding"][label].reshape(x.shape).astype(x.dtype)


def table_prior(table, shape):
    params = {"params": {"label_emb": {"embedding": jnp.asarray(table)}}}
    denoise = di.NetworkDenoiser(params, process.EDM(), table_apply, parametrisation="x0")
    return di.Prior(process.EDM(), denoise, shape)
