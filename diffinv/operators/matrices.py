r"""Operators from SciPy: sparse matrices, which move to the device, and `LinearOperator`s, which stay with SciPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffinv.operators.arguments import inexact, sample_shape
from diffinv.operators.base import LinearOperator
from diffinv.typing import Array, Measured, Sample


@struct.dataclass
class Sparse(LinearOperator):
    """A matrix (m, n) by its entries that are not 0, on the flattened sample; build it with `sparse`.

    `solve`, `pinv` and `project` run conjugate gradients.

    Attributes:
      values: the k entries, real or complex, (k,).
      rows: the row of each, (k,).
      columns: the column of each, (k,).
      input_shape: of one sample; static.
      size: m; static.
    """

    values: Array
    rows: Array
    columns: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)
    size: int = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        along = self._values(x) * x.ravel()[self.columns.astype(int)].astype(self._values(x).dtype)
        return jax.ops.segment_sum(along, self.rows.astype(int), self.size)

    def adjoint(self, y: Measured) -> Sample:
        along = jnp.real(jnp.conj(self._values(y)) * y[self.rows.astype(int)].astype(self._values(y).dtype))
        return jax.ops.segment_sum(along, self.columns.astype(int), math.prod(self.shape)).reshape(self.shape)

    def _values(self, like: Array) -> Array:
        """In the precision of `like`, complex where either is."""
        double = jnp.finfo(like.dtype).dtype == jnp.float64
        wide = jnp.complex128 if double else jnp.complex64
        is_complex = jnp.iscomplexobj(self.values) or jnp.iscomplexobj(like)
        return self.values.astype(wide if is_complex else jnp.finfo(like.dtype).dtype)


def sparse(matrix: Any, shape: tuple[int, ...] | None = None) -> Sparse:
    """The operator of a SciPy sparse `matrix` (m, n), of any format, on samples of `shape` (static; default (n,)).

    It is copied to the device as entries and their places: 12 bytes an entry, a gather and a scatter an
    application. It has no `spectrum`: for DDRM give `dense(matrix, shape)` where it is small.

    Raises:
      ValueError: where it is no sparse matrix, has an entry that is not finite, or `shape` does not hold n numbers.
    """
    if not is_sparse(matrix):
        raise ValueError(f"matrix is {type(matrix).__name__}; give a scipy.sparse matrix, or use operators.dense")
    entries = matrix.tocsr().tocoo()
    values = inexact("matrix", entries.data)
    shape = fitting_shape(entries.shape, shape)
    rows, columns = (jnp.asarray(place, jnp.int32) for place in (entries.row, entries.col))
    return Sparse(values, rows, columns, shape, entries.shape[0])


class Called(Protocol):
    """A `scipy.sparse.linalg.LinearOperator`, or what looks like one; SciPy itself has no types.

    Attributes:
      shape: (m, n).
      dtype: of its values.
      matvec: its product with a vector (n,).
      rmatvec: the product of its adjoint with a vector (m,).
    """

    shape: tuple[int, int]
    dtype: Any
    matvec: Callable[[np.ndarray], np.ndarray]
    rmatvec: Callable[[np.ndarray], np.ndarray]


def is_sparse(matrix: Any) -> bool:
    """Whether it is one of SciPy's sparse matrices or arrays, without importing SciPy."""
    return hasattr(matrix, "tocoo") and hasattr(matrix, "nnz")


def is_called(matrix: Any) -> TypeGuard[Called]:
    """Whether it is a `scipy.sparse.linalg.LinearOperator` or looks like one."""
    return all(hasattr(matrix, name) for name in ("matvec", "rmatvec", "shape", "dtype"))


def fitting_shape(size: tuple[int, ...], shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """`shape`, or (n,) for None; ValueError where it does not hold the n numbers that a matrix (m, n) takes."""
    shape = (int(size[1]),) if shape is None else sample_shape(shape)
    if math.prod(shape) != size[1]:
        takes = f"a matrix {tuple(map(int, size))} takes {size[1]}"
        raise ValueError(f"shape is {shape}, {math.prod(shape)} numbers; {takes}: reshape")
    return shape


def callbacks(matrix: Called, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """`A x` (m,) and `A^H y` (`shape`, real) of a SciPy `LinearOperator`, computed by SciPy on the host.

    A batch is one call of its `matmat`. Results come in the precision of what is given.
    """
    is_complex = np.issubdtype(np.dtype(matrix.dtype), np.complexfloating)
    forward = partial(_called, partial(_many, matrix, "matmat"), (int(matrix.shape[0]),), is_complex)
    back = partial(_called, partial(_many, matrix, "rmatmat"), tuple(shape), False)
    return forward, back


def _many(matrix: Any, name: str, vectors: np.ndarray) -> np.ndarray:
    return getattr(matrix, name)(vectors.T).T


def _called(many: Any, shape: tuple[int, ...], is_complex: bool, x: Array) -> Array:
    """`many` (b, n) -> (b, m) of one vector, as an array of `shape` in the precision of `x`."""
    real = jnp.finfo(x.dtype).dtype
    wide = jnp.complex128 if real == jnp.float64 else jnp.complex64
    result = jax.ShapeDtypeStruct(shape, wide if is_complex else real)
    rank, size = x.ndim, x.size

    def host(x: Array) -> np.ndarray:
        x = np.asarray(x)
        batch = x.shape[: x.ndim - rank]
        y = many(x.reshape(-1, size))
        return np.asarray(y if is_complex else np.real(y), result.dtype).reshape(*batch, *shape)

    return jax.pure_callback(host, result, x, vmap_method="broadcast_all")
