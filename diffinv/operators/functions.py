r"""Operators from plain callables, and the test of a claim of linearity.

function(call, shape)   any differentiable function
linear(key, call, shape)    a linear one, whose adjoint is found by transposition
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.describe import brief
from diffinv.linalg import inner
from diffinv.operators.arguments import require_key, sample_shape
from diffinv.operators.base import (
    Dense,
    LinearOperator,
    Operator,
    as_complex,
    as_real,
    dense,
    require_operator,
)
from diffinv.operators.maps import applied
from diffinv.operators.matrices import Sparse, callbacks, fitting_shape, is_called, is_sparse, sparse
from diffinv.typing import Array, Key, Measured, Sample


@struct.dataclass
class Function(Operator):
    """`call(x, *parameters)`; build it with `function`.

    Attributes:
      call: differentiable; static.
      parameters: arrays, or trees of them.
      input_shape: of one sample; static.
    """

    call: Callable[..., Array] = struct.field(pytree_node=False)
    parameters: tuple[Any, ...]
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        return self.call(x, *self.parameters)


@struct.dataclass
class LinearFunction(LinearOperator):
    """A linear `call(x, *parameters)` and its adjoint; build it with `linear`.

    Gradients go through the adjoint that is given, so that `call` may be a callback.

    Attributes:
      call: linear in its first argument; static.
      parameters: arrays, or trees of them.
      input_shape: of one sample; static.
      transposed: the adjoint `(y, *parameters) -> x`, or None where it is found by transposition; static.
    """

    call: Callable[..., Array] = struct.field(pytree_node=False)
    parameters: tuple[Any, ...]
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)
    transposed: Callable[..., Array] | None = struct.field(pytree_node=False, default=None)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        if self.transposed is None:
            return self.call(x, *self.parameters)
        return applied(self.call, self.transposed, x, *self.parameters)

    def adjoint(self, y: Measured) -> Sample:
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


def _in_precision(y: Array, like: Array) -> Array:
    """`y`, real or complex, in the precision of the real `like`."""
    wide = jnp.complex128 if like.dtype == jnp.float64 else jnp.complex64
    return y.astype(wide if jnp.iscomplexobj(y) else like.dtype)
