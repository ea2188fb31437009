r"""Operators from operators: chains, sums of measurements, gains; and operators from plain callables.

    compose(outer, inner)   outer(inner(x))
    scale(A, gain)          gain A(x)
    stack(A, B, ...)        (A(x), B(x), ...): several measurements of one picture

Each is linear where all its parts are. `check` refuses a claim of linearity that fails the dot test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.describe import brief
from diffinv.linalg import added, inner
from diffinv.operators import spectra
from diffinv.operators.arguments import concrete, require_key, require_number, sample_shape
from diffinv.operators.base import (
    Composed,
    Dense,
    LinearOperator,
    Operator,
    as_complex,
    as_real,
    dense,
    real_scalar,
    require_operator,
)
from diffinv.operators.maps import applied
from diffinv.operators.matrices import Sparse, callbacks, fitting_shape, is_called, is_sparse, sparse
from diffinv.typing import Array, Key


@struct.dataclass
class Chain(Operator):
    """`outer(inner(x))`, any two operators; build it with `compose`."""

    outer: Operator
    inner: Operator

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    def __call__(self, x: Array) -> Array:
        return self.outer(self.inner(x))

    def project(self, y: Array) -> Array:
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
    """`gain A(x)` with a scalar gain; build it with `scale`."""

    operator: Operator
    gain: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.operator.shape

    def __call__(self, x: Array) -> Array:
        return _times(self.gain, self.operator(x))

    def project(self, y: Array) -> Array:
        return self.operator.project(y)


@struct.dataclass
class ScaledLinear(LinearOperator):
    """`gain A x` with a scalar `gain != 0` and all that `A` has in closed form; build it with `scale`."""

    operator: LinearOperator
    gain: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.operator.shape

    def __call__(self, x: Array) -> Array:
        return _times(self.gain, self.operator(x))

    def adjoint(self, y: Array) -> Array:
        return _times(self.gain, self.operator.adjoint(y))

    def solve(self, v: Array, damping: Array | float) -> Array:
        square = real_scalar(self.gain, v) ** 2
        return _times(1 / square, self.operator.solve(v, real_scalar(damping, v) / square))

    def pinv(self, y: Array) -> Array:
        return _times(1 / self.gain, self.operator.pinv(y))

    def project(self, y: Array) -> Array:
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

    def __call__(self, x: Array) -> Array:
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
    """`(A(x), B(x), ...)` as one real vector (m,); build it with `stack`. `split` gives the parts back."""

    parts: tuple[Operator, ...]

    def project(self, y: Array) -> Array:
        return _joined([part.project(piece) for part, piece in zip(self.parts, self.split(y), strict=True)])


@struct.dataclass
class StackedLinear(_Stack, LinearOperator):
    """`(A x, B x, ...)` as one real vector (m,); build it with `stack`. The adjoint is the sum of the adjoints.

    `solve`, `pinv` and `project` run conjugate gradients on all parts at once.
    """

    parts: tuple[LinearOperator, ...]

    def adjoint(self, y: Array) -> Array:
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


@struct.dataclass
class Function(Operator):
    """`function(x, *parameters)`; build it with `function`."""

    call: Callable[..., Array] = struct.field(pytree_node=False)
    parameters: tuple[Any, ...]
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Array) -> Array:
        return self.call(x, *self.parameters)


@struct.dataclass
class LinearFunction(LinearOperator):
    """A linear `function(x, *parameters)` and its adjoint, by transposition unless given; build it with `linear`.

    A given adjoint is also what gradients go through, so that `function` may be a callback.
    """

    call: Callable[..., Array] = struct.field(pytree_node=False)
    parameters: tuple[Any, ...]
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)
    transposed: Callable[..., Array] | None = struct.field(pytree_node=False, default=None)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Array) -> Array:
        if self.transposed is None:
            return self.call(x, *self.parameters)
        return applied(self.call, self.transposed, x, *self.parameters)

    def adjoint(self, y: Array) -> Array:
        if self.transposed is None:
            return LinearOperator.adjoint(self, y)
        return applied(self.transposed, self.call, y, *self.parameters)


def function(call: Callable[..., Array], shape: tuple[int, ...], *parameters: Any) -> Function:
    """Any differentiable `call(x, *parameters)` on samples of `shape` as an operator.

    Parameters are pytrees of arrays, and can be vmapped; what `call` closes over is compiled in. `call` (static) must
    keep the precision of `x`; one function object is one compilation: define it once.
    """
    if not callable(call):
        raise ValueError(f"call is {brief(call)}; give a function of x, or use operators.linear for a matrix")
    return Function(call, parameters, sample_shape(shape))


def linear(
    key: Key,
    call: Callable[..., Array] | Any,
    shape: tuple[int, ...] | None = None,
    *parameters: Any,
    adjoint: Callable[..., Array] | None = None,
) -> LinearFunction | Sparse | Dense:
    """A linear `call(x, *parameters)` on real samples of `shape` as an operator, `check`ed with `key`.

    Args:
      key: comes first, as everywhere: of the check's random probes.
      call: a function, static; or a matrix (m, n) on flattened samples: of NumPy or JAX (`dense`), of SciPy (`sparse`),
        or a `scipy.sparse.linalg.LinearOperator`, which SciPy applies on the host, in batches.
      shape: of one sample; may be left out for a matrix: (n,).
      parameters: pytrees of arrays, given to `call` and `adjoint`.
      adjoint: `adjoint(y, *parameters)`, static, found by transposition unless given: real, of `shape`, under
        `Re <A x, y>`. Gradients by x go through it, so `call` may be what JAX cannot differentiate (`pure_callback`).

    Raises:
      ValueError: where `call` is not linear or the adjoint is not its adjoint. To be called outside `jit`: the check
        looks at numbers.
    """
    require_key(key)
    if is_sparse(call):
        return sparse(call, shape)
    if is_called(call):
        shape = fitting_shape(call.shape, shape)
        call, adjoint = callbacks(call, shape)
    elif not callable(call):
        return dense(call, shape)
    operator = LinearFunction(call, parameters, sample_shape(shape), adjoint)
    check(operator, key)
    return operator


def scico(key: Key, operator: Any) -> LinearFunction:
    """A `scico.linop.LinearOperator` as ours; a complex picture becomes one with a last axis of 2.

    `operator` is static; its `adj` is the adjoint. It works in its own precision, in which it is checked, and its
    results are cast to ours. Raises ValueError where it takes or gives a block array, or fails `check`.
    """
    shape, given = tuple(operator.input_shape), tuple(operator.output_shape)
    if any(not isinstance(n, int) for n in (*shape, *given)):
        raise ValueError(f"operator has blocks, {shape} to {given}; a sample is one array: adapt each block and stack")
    is_complex = jnp.issubdtype(operator.input_dtype, jnp.complexfloating)

    def call(x: Array) -> Array:
        z = as_complex(x) if is_complex else x
        return _in_precision(operator(z.astype(operator.input_dtype)), x)

    def adjoint(y: Array) -> Array:
        x = operator.adj(y.astype(operator.output_dtype))
        return _in_precision(as_real(x) if is_complex else jnp.real(x), jnp.real(y))

    adapted = LinearFunction(call, (), (*shape, 2) if is_complex else shape, adjoint)
    check(adapted, key, float(jnp.sqrt(jnp.finfo(operator.input_dtype).eps)))
    return adapted


def check(operator: LinearOperator, key: Key, tolerance: float | None = None) -> None:
    """Refuses an operator that is not linear, or whose adjoint is not its adjoint.

    On random probes of the default precision: `|A(x + 2 z) - A x - 2 A z| <= tolerance |A x|` and
    `|Re <A x, y> - <x, A^H y>| <= tolerance |A x| |y|`. The tolerance, relative, is the square root of the rounding
    unit of the operator's output unless given. To be called outside `jit`.

    Raises:
      ValueError: with the relative error; also where the adjoint has not the shape of one input.
    """
    x, z = (jax.random.normal(k, operator.shape, float) for k in jax.random.split(key))
    ax = operator(x)
    tolerance = float(jnp.sqrt(jnp.finfo(ax.dtype).eps)) if tolerance is None else tolerance
    gap, size = operator(x + 2 * z) - ax - 2 * operator(z), jnp.sqrt(inner(ax, ax) + jnp.finfo(ax.dtype).tiny)
    error = jnp.sqrt(inner(gap, gap)) / size
    if not error <= tolerance:
        raise ValueError(f"operator is not linear, relative error {float(error):.2g}: use operators.function for it")
    y = jax.random.normal(jax.random.fold_in(key, 1), ax.shape, ax.dtype)
    back = operator.adjoint(y)
    if back.shape != tuple(operator.shape) or jnp.iscomplexobj(back):
        raise ValueError(f"adjoint gives {back.shape} {back.dtype}; it must be real {operator.shape}: A^H y as real")
    error = jnp.abs(inner(ax, y) - inner(x, back)) / (size * jnp.sqrt(inner(y, y)))
    if not error <= tolerance:
        raise ValueError(f"adjoint fails the dot test, relative error {float(error):.2g}: omit it to derive it")


def output(operator: Operator, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """Shape and type of one measurement, for a sample in `dtype`; nothing is computed."""
    require_operator(operator)
    return jax.eval_shape(operator, jax.ShapeDtypeStruct(tuple(operator.shape), dtype))


def _joined(pieces: list[Array]) -> Array:
    return jnp.concatenate([as_real(piece).ravel() for piece in pieces])


def _times(gain: Array, y: Array) -> Array:
    return real_scalar(gain, y).astype(y.dtype) * y


def _in_precision(y: Array, like: Array) -> Array:
    """`y`, real or complex, in the precision of the real `like`."""
    wide = jnp.complex128 if like.dtype == jnp.float64 else jnp.complex64
    return y.astype(wide if jnp.iscomplexobj(y) else like.dtype)
