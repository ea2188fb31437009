"""Proximal steps on the misfit, as values: `diffpir(prior, measurement, prox=proximal.gradient)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax

from diffinv.linalg import inner
from diffinv.measurement import Measurement, require_linear
from diffinv.typing import Array


@dataclass(frozen=True)
class Proximal:
    """`argmin_x |y - A x|^2 + rho |x - x0|^2` or near it: `prox(measurement, x0, rho) -> x`.

    Attributes:
      move: the function.
      name: what it is called here.
      calls: of the measurement's operator, in one step.
      linear: whether it needs a linear operator.
    """

    move: Callable[[Measurement, Array, Array], Array]
    name: str
    calls: int
    linear: bool = False

    def __call__(self, measurement: Measurement, x0: Array, rho: Array) -> Array:
        return self.move(measurement, x0, rho)

    def __repr__(self) -> str:
        return f"proximal.{self.name}"


def misfit(measurement: Measurement, x: Array) -> Array:
    """`|y - A x|^2`."""
    r = measurement.residual(x)
    return inner(r, r)


def _closed(measurement: Measurement, x0: Array, rho: Array) -> Array:
    A = require_linear(measurement, "proximal.closed")
    return x0 + A.adjoint(A.solve(measurement.residual(x0), rho))


def _gradient(measurement: Measurement, x0: Array, rho: Array) -> Array:
    return x0 - jax.grad(misfit, 1)(measurement, x0) / (2 + 2 * rho)


closed = Proximal(_closed, "closed", calls=3, linear=True)
"""The minimiser itself, by `operator.solve`."""

gradient = Proximal(_gradient, "gradient", calls=2)
"""One step of gradient descent, `x0 - grad |y - A x0|^2 / (2 + 2 rho)`, for operators of norm at most 1."""

KNOWN = {prox.name: prox for prox in (closed, gradient)}
"""Both, by name."""
