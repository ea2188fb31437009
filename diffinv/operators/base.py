r"""Forward operators `y = A x` of one sample. Write `__call__` and `shape`; the rest has tested defaults.

    adjoint(y)          A^H y, by linear transposition
    solve(v, damping)   (A A^H + damping I)^{-1} v
    pinv(y)             A^+ y, the least-norm least-squares solution
    project(y)          A A^+ y, onto the range of A: where noise may live

The defaults of `LinearOperator` run conjugate gradients; a `ClosedForm` operator gives `solve` exactly, and the last
two follow from it. The input is always real (complex pictures have two channels), so `A^H` is the adjoint of a
real-linear map under `Re <a, b>`: real for every `y`, also a complex one.
"""

from __future__ import annotations

import abc
import math

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.describe import Described, brief
from diffinv.fft import at_least_single
from diffinv.linalg import cg
from diffinv.operators import spectra
from diffinv.operators.arguments import inexact, sample_shape
from diffinv.typing import Array, Measured, Sample, Scalar


@struct.dataclass
class Operator(Described, abc.ABC):
    """Any differentiable `A`: only `__call__` and `shape`, the static shape of one input."""

    @abc.abstractmethod
    def __call__(self, x: Sample) -> Measured:
        """`A(x)` for one sample."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one input; static."""

    def project(self, y: Measured) -> Measured:
        """Linear projection onto the subspace in which noise lives; the identity unless overridden."""
        return y


@struct.dataclass
class LinearOperator(Operator):
    """A linear `A`, real or complex; a pytree, so that its parameters can be vmapped and differentiated.

    `iterations`, a class attribute, is the number of conjugate-gradient steps of the defaults. Their error after `k`
    steps falls like `2 ((c - 1) / (c + 1))^k` with the condition number `c` of `A`: an ill-posed `A` is regularised by
    stopping early. Parameters are cast to the dtype of the input, which the output keeps.

    >>> import jax.numpy as jnp, diffinv as di
    >>> A = di.operators.average_pool((2, 2, 1), 2)
    >>> A(jnp.arange(4.0).reshape(2, 2, 1)).ravel().tolist(), A.adjoint(jnp.ones((1, 1, 1))).ravel().tolist()
    ([1.5], [0.25, 0.25, 0.25, 0.25])
    >>> A.pinv(jnp.ones((1, 1, 1))).ravel().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    iterations = 64

    def adjoint(self, y: Measured) -> Sample:
        """`A^H y` with `Re <A x, y> = <x, A^H y>`: real, of shape `shape`, for real and complex `y`."""
        x = jax.ShapeDtypeStruct(self.shape, jnp.finfo(y.dtype).dtype)
        (x,) = jax.linear_transpose(self, x)(jnp.conj(y))
        return x

    def solve(self, v: Measured, damping: Scalar) -> Measured:
        """`(A A^H + damping I)^{-1} v` for `damping >= 0`; with 0 the least-norm solution for `v` in the range."""
        damping = real_scalar(damping, v).astype(v.dtype)
        return cg(lambda u: self(self.adjoint(u)) + damping * u, v, self.iterations)

    def pinv(self, y: Measured) -> Sample:
        """`A^+ y`, from the normal equations `A^H A x = A^H y`, which are consistent for every `y`."""
        return cg(lambda x: self.adjoint(self(x)), self.adjoint(y), self.iterations)

    def project(self, y: Measured) -> Measured:
        """`A A^+ y`; operators that are onto override it by the identity."""
        return self(self.pinv(y))

    def spectrum(self) -> spectra.Spectrum:
        """The singular value decomposition, for operators that have it in closed form; TypeError for the others."""
        raise TypeError(f"operator {type(self).__name__} has no spectrum(): write it, or use ddnm, pigdm or diffpir")


def require_operator(operator: Operator, name: str = "operator") -> None:
    """TypeError where it is none: a plain function, a matrix, or an argument in the wrong place."""
    if isinstance(operator, Operator) or (callable(operator) and isinstance(getattr(operator, "shape", None), tuple)):
        return
    mended = "give one of diffinv.operators, in its place: key, operator, x"
    if hasattr(operator, "matvec") or hasattr(operator, "ndim"):
        mended = "wrap a matrix, operators.linear(key, matrix, shape), and give key, operator, x in this order"
    elif callable(operator):
        mended = "wrap it: operators.function(f, shape), or operators.linear(key, f, shape) where it is linear"
    raise TypeError(f"{name} is {brief(operator)}; {mended}")


@struct.dataclass
class ClosedForm(LinearOperator):
    """A linear `A` with an exact `solve`, `(A A^H)^+` for damping 0, so that nothing needs iterations."""

    @abc.abstractmethod
    def solve(self, v: Measured, damping: Scalar) -> Measured:
        """`(A A^H + damping I)^{-1} v`; with damping 0 the pseudo-inverse, for every `v`."""

    def pinv(self, y: Measured) -> Sample:
        return self.adjoint(self.solve(y, 0.0))


@struct.dataclass
class Composed(LinearOperator):
    """`outer(inner(x))` for two linear operators; the adjoint is composed too, the rest by conjugate gradients.

    Attributes:
      outer: what is applied last.
      inner: what is applied first.
    """

    outer: LinearOperator
    inner: LinearOperator

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    def __call__(self, x: Sample) -> Measured:
        return self.outer(self.inner(x))

    def adjoint(self, y: Measured) -> Sample:
        return self.inner.adjoint(self.outer.adjoint(y))


@struct.dataclass
class Dense(ClosedForm):
    """A matrix (m, n) on the flattened sample, by its thin singular value decomposition `u diag(s) vh`; see `dense`.

    The output is (m,). A complex matrix is stored as its real and imaginary rows, (2m, n), because the input is real.
    Singular values under `1e-6 max(s)` count as zero everywhere but in `__call__`.

    Attributes:
      u: left singular vectors, (m, r).
      s: singular values, (r,).
      vh: right singular vectors, (r, n).
      input_shape: of one sample; static.
      complex_output: whether the matrix was complex; static.
    """

    u: Array
    s: Array
    vh: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)
    complex_output: bool = struct.field(pytree_node=False, default=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        return self._output(_dot(self.u, self.s.astype(x.dtype) * _dot(self.vh, x.ravel())))

    def adjoint(self, y: Measured) -> Sample:
        c = _dot(self.u.T, as_real(y).ravel())
        return _dot(self.vh.T, self.s.astype(c.dtype) * c).reshape(self.shape)

    def solve(self, v: Measured, damping: Scalar) -> Measured:
        damping, v = real_scalar(damping, v), as_real(v).ravel()
        c = _dot(self.u.T, v)
        rest = divide(v - _dot(self.u, c), damping)
        return self._output(_dot(self.u, divide(c, self._live(v) ** 2 + damping)) + rest)

    def pinv(self, y: Measured) -> Sample:
        y = as_real(y).ravel()
        return _dot(self.vh.T, divide(_dot(self.u.T, y), self._live(y))).reshape(self.shape)

    def project(self, y: Measured) -> Measured:
        y = as_real(y).ravel()
        return self._output(_dot(self.u, jnp.where(self._live(y) > 0, _dot(self.u.T, y), 0.0)))

    def spectrum(self) -> spectra.Spectrum:
        parts = spectra.matrix(self.u, self._live(self.s), self.vh, self.shape)
        return parts._replace(observe=lambda y: parts.observe(as_real(y)))

    def _live(self, like: Array) -> Array:
        return jnp.where(self.s > 1e-6 * jnp.max(self.s), self.s, 0.0).astype(like.dtype)

    def _output(self, y: Array) -> Array:
        return as_complex(y.reshape(-1, 2)) if self.complex_output else y


def dense(matrix: Array, shape: tuple[int, ...] | None = None) -> Dense:
    """The operator of a real or complex `matrix` (m, n) on samples of `shape` (static; default (n,)).

    A matrix of NumPy, JAX or lists, or a sparse one of SciPy, which becomes full: its decomposition is stored, which
    gives all methods what they need, DDRM too. Large sparse matrices are `sparse`'s.

    Raises:
      ValueError: where the matrix is not two-dimensional and finite, or the shape does not hold n numbers.
    """
    matrix = inexact("matrix", matrix.toarray() if hasattr(matrix, "toarray") else matrix, "(m, n), rows of one length")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"matrix has shape {matrix.shape}; it must be (m, n): reshape it")
    shape = (matrix.shape[1],) if shape is None else sample_shape(shape)
    size = math.prod(shape)
    if size != matrix.shape[1]:
        raise ValueError(f"shape is {shape}, {size} numbers; a matrix {matrix.shape} takes {matrix.shape[1]}: reshape")
    is_complex = jnp.iscomplexobj(matrix)
    if is_complex:
        matrix = jnp.stack((matrix.real, matrix.imag), 1).reshape(-1, matrix.shape[1])
    u, s, vh = jnp.linalg.svd(matrix, full_matrices=False)
    return Dense(u, s, vh, shape, is_complex)


def as_complex(x: Array) -> Array:
    """(..., 2) real, the real and the imaginary part, to (...) complex; half precision becomes single."""
    x = at_least_single(x)
    return jax.lax.complex(x[..., 0], x[..., 1])


def as_real(y: Array) -> Array:
    """(...) complex to (..., 2) real; an isometry under `Re <a, b>`. A real `y` stays as it is."""
    return jnp.stack((y.real, y.imag), -1) if jnp.iscomplexobj(y) else y


def real_scalar(value: Array | float, like: Array) -> Array:
    """`value` in the real dtype of `like`, so that it may multiply a real array under strict promotion."""
    return jnp.asarray(value, jnp.finfo(like.dtype).dtype)


def divide(v: Array, gain: Array) -> Array:
    """`v / gain` for a real `gain >= 0`, and 0 where the gain is 0, with a finite gradient there; NaN stays NaN."""
    live = ~(gain <= 0)
    return v * jnp.where(live, 1 / jnp.where(live, gain, 1.0), 0.0).astype(v.dtype)


def _dot(a: Array, b: Array) -> Array:
    return jnp.dot(a.astype(b.dtype), b, precision="highest")
