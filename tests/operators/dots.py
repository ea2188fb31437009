"""The dot test, compiled once for each operator."""

import jax
import jax.numpy as jnp
import numpy as np

import diffinv.operators as ops

_both = jax.jit(lambda operator, x, y: (operator(x), operator.adjoint(y)))


def dot_gap(operator):
    """`|Re <A x, y> - <x, A^H y>|` relative to `|A x| |y|`, for random float64 `x` and `y`."""
    rng, like = np.random.default_rng(0), ops.output(operator, jnp.float64)
    x, real, imaginary = rng.normal(size=operator.shape), *rng.normal(size=(2, *like.shape))
    y = real + 1j * imaginary if like.dtype == jnp.complex128 else real
    ax, back = (np.asarray(part) for part in _both(operator, x, y))
    return abs(np.vdot(ax, y).real - np.vdot(x, back)) / np.linalg.norm(ax) / np.linalg.norm(y)
