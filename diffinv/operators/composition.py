r"""Operators from operators: chains, stacked measurements, gains.

    compose(outer, inner)   outer(inner(x))
    scale(A, gain)          gain A(x)
    stack(A, B, ...)        (A(x), B(x), ...): several measurements of one picture

Each is linear where all its parts are.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.linalg import added
from diffinv.operators import spectra
from diffinv.operators.arguments import concrete, require_number
from diffinv.operators.base import (
    Composed,
    LinearOperator,
    Operator,
    as_complex,
    as_real,
    real_scalar,
    require_operator,
)
from diffinv.operators.functions import output
from diffinv.typing import Array, Measured, Sample, Scalar


@struct.dataclass
class Chain(Operator):
    """`outer(inner(x))`, any two operators; build it with `compose`.

    Attributes:
      outer: what is applied last.
      inner: what is applied first.
    """

    outer: Operator
    inner: Operator

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    def __call__(self, x: Sample) -> Measured:
        return self.outer(self.inner(x))

    def project(self, y: Measured) -> Measured:
        return self.outer.project(y)


def compose(outer: Operator, inner: Operator) -> Composed | Chain:
    """`outer(inner(x))`; `Composed`, with an adjoint, where both are linear.

    Raises ValueError where `inner` does not give what `outer` takes: another shape, or complex numbers where a linear
    `outer` would lose their imaginary part, on the way there or back.
    """
    require_operator(outer, "outer")
    given = output(inner)
    names = f"{type(inner).__name__} gives {given.shape} {given.dtype}, {type(outer).__name__} takes"
    if given.shape != tuple(outer.shape):
        raise ValueError(f"outer, inner do not fit: {names} {tuple(outer.shape)}: swap or resize them")
    if jnp.issubdtype(given.dtype, jnp.complexfloating) and _loses_complex(outer, given):
        raise ValueError(f"outer, inner do not fit: {names} real numbers: join both in one function, operators.linear")
    if isinstance(outer, LinearOperator) and isinstance(inner, LinearOperator):
        return Composed(outer, inner)
    return Chain(outer, inner)


def _loses_complex(outer: Operator, given: jax.ShapeDtypeStruct) -> bool:
    """Whether a linear operator makes real numbers of complex ones, itself or by its adjoint."""
    if not isinstance(outer, LinearOperator):
        return False
    try:
        y = jax.eval_shape(outer, given)
        found = y, jax.eval_shape(outer.adjoint, y)
    except (TypeError, ValueError):
        return True
    return not all(jnp.issubdtype(part.dtype, jnp.complexfloating) for part in found)


@struct.dataclass
class Scaled(Operator):
    """`gain A(x)`; build it with `scale`.

    Attributes:
      operator: A.
      gain: a scalar, dimensionless.
    """

    operator: Operator
    gain: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.operator.shape

    def __call__(self, x: Sample) -> Measured:
        return _times(self.gain, self.operator(x))

    def project(self, y: Measured) -> Measured:
        return self.operator.project(y)


@struct.dataclass
class ScaledLinear(LinearOperator):
    """`gain A x`, with all that `A` has in closed form; build it with `scale`.

    Attributes:
      operator: A, linear.
      gain: a scalar that is not 0, dimensionless.
    """

    operator: LinearOperator
    gain: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.operator.shape

    def __call__(self, x: Sample) -> Measured:
        return _times(self.gain, self.operator(x))

    def adjoint(self, y: Measured) -> Sample:
        return _times(self.gain, self.operator.adjoint(y))

    def solve(self, v: Measured, damping: Scalar) -> Measured:
        square = real_scalar(self.gain, v) ** 2
        return _times(1 / square, self.operator.solve(v, real_scalar(damping, v) / square))

    def pinv(self, y: Measured) -> Sample:
        return _times(1 / self.gain, self.operator.pinv(y))

    def project(self, y: Measured) -> Measured:
        return self.operator.project(y)

    def spectrum(self) -> spectra.Spectrum:
        parts = self.operator.spectrum()
        sign = jnp.sign(self.gain)
        return parts._replace(s=_times(jnp.abs(self.gain), parts.s), observe=lambda y: _times(sign, parts.observe(y)))


def scale(operator: Operator, gain: Array | float) -> ScaledLinear | Scaled:
    """`gain A(x)` with a scalar gain, dimensionless: 1 / sigma whitens a measurement before it is stacked.

    Raises ValueError where the gain is not a real scalar, or a concrete one is 0.
    """
    require_operator(operator)
    require_number("gain", gain, instead="a scalar; inpainting has a gain for each pixel")
    if concrete(gain) and gain == 0:
        raise ValueError(f"gain is {gain}; nothing would be measured: give any other number")
    gain = jnp.asarray(gain, float)
    if gain.ndim:
        raise ValueError(f"gain has shape {gain.shape}; it must be a scalar: use inpainting for a gain for each pixel")
    return ScaledLinear(operator, gain) if isinstance(operator, LinearOperator) else Scaled(operator, gain)


class _Stack:
    """Outputs as one real vector: each flattened, a complex one as pairs of real and imaginary parts."""

    parts: tuple[Operator, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parts[0].shape

    def __call__(self, x: Sample) -> Measured:
        return _joined([part(x) for part in self.parts])

    def split(self, y: Array) -> list[Array]:
        """The vector `y` as the measurement of each part, in its own shape and type."""
        pieces, start = [], 0
        for part in self.parts:
            like = output(part)
            is_complex = jnp.issubdtype(like.dtype, jnp.complexfloating)
            shape = (*like.shape, 2) if is_complex else like.shape
            piece = y[start : start + math.prod(shape)].reshape(shape)
            pieces.append(as_complex(piece) if is_complex else piece)
            start += math.prod(shape)
        return pieces


@struct.dataclass
class Stacked(_Stack, Operator):
    """`(A(x), B(x), ...)` as one real vector (m,); build it with `stack`. `split` gives the parts back.

    Attributes:
      parts: A, B, ...
    """

    parts: tuple[Operator, ...]

    def project(self, y: Measured) -> Measured:
        return _joined([part.project(piece) for part, piece in zip(self.parts, self.split(y), strict=True)])


@struct.dataclass
class StackedLinear(_Stack, LinearOperator):
    """`(A x, B x, ...)` as one real vector (m,); build it with `stack`. The adjoint is the sum of the adjoints.

    `solve`, `pinv` and `project` run conjugate gradients on all parts at once.

    Attributes:
      parts: A, B, ..., all linear.
    """

    parts: tuple[LinearOperator, ...]

    def adjoint(self, y: Measured) -> Sample:
        return added(part.adjoint(piece) for part, piece in zip(self.parts, self.split(y), strict=True))


def stack(*operators: Operator) -> StackedLinear | Stacked:
    """Several measurements of one picture as one, a real vector (m,).

    One noise level serves all parts: `scale` each by the inverse of its own. Raises ValueError where there is no
    operator, or their inputs differ.
    """
    for operator in operators:
        require_operator(operator)
    shapes = [tuple(operator.shape) for operator in operators]
    if len(set(shapes)) != 1:
        raise ValueError(f"operators take {shapes}; give at least one, all of one input shape: resize the others")
    linear = tuple(operator for operator in operators if isinstance(operator, LinearOperator))
    return StackedLinear(linear) if len(linear) == len(operators) else Stacked(operators)


def _joined(pieces: list[Array]) -> Array:
    return jnp.concatenate([as_real(piece).ravel() for piece in pieces])


def _times(gain: Array, y: Array) -> Array:
    return real_scalar(gain, y).astype(y.dtype) * y
