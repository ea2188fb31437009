"""SciPy's matrices and operators, and callbacks, beside the same matrix in JAX: under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import diffinv as di
import diffinv.operators as ops
from diffinv import posterior, times
from diffinv.operators.base import LinearOperator as Linear

KEY, SHAPE = jax.random.key(0), (3, 4)


def _matrix(kind):
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((2, 5, 12)) * (rng.random((5, 12)) < 0.6)
    return parts[0] + (1j * parts[1] if kind == "complex" else 0)


MADE = {
    "operator": lambda matrix: ops.linear(KEY, aslinearoperator(matrix), SHAPE),
    "sparse": lambda matrix: ops.linear(KEY, scipy.sparse.csc_matrix(matrix), SHAPE),
    "array": lambda matrix: ops.sparse(scipy.sparse.coo_array(matrix), SHAPE),
    "full": lambda matrix: ops.linear(KEY, matrix, SHAPE),
}


def _misfit(x, operator, y):
    return jnp.sum(jnp.abs(operator(x) - 2 * y) ** 2)


def _everything(operator, x, y):
    """Forward and back, derivatives of all orders and modes by both, and what the defaults make of them."""
    change = x[::-1]
    return {
        "forward": operator(x),
        "adjoint": operator.adjoint(y),
        "pinv": operator.pinv(y),
        "gradient": jax.grad(_misfit)(x, operator, y),
        "curvature": jax.jvp(lambda x: jax.grad(_misfit)(x, operator, y), (x,), (change,))[1],
        "along": jax.jvp(operator, (x,), (change,))[1],
        "transposed": Linear.adjoint(operator, y),
        "back of the adjoint": jax.vjp(operator.adjoint, y)[1](change)[0],
    }


@pytest.mark.parametrize("kind", [pytest.param("real", marks=pytest.mark.slow), "complex"])
def test_as_the_matrix_itself(kind):
    matrix = _matrix(kind)
    exact = ops.dense(matrix, SHAPE)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, *SHAPE)))
    y = jax.vmap(exact)(x[::-1])
    many = jax.jit(jax.vmap(_everything, (None, 0, 0)))
    wanted = many(exact, x, y)
    for name, make in MADE.items():
        for what, found in many(make(matrix), x, y).items():
            np.testing.assert_allclose(found, wanted[what], atol=1e-9, err_msg=f"{name}: {what}")


def test_a_batch_is_one_call_of_scipy():
    calls = []

    def matmat(vectors):
        calls.append(vectors.shape)
        return 2 * vectors

    A = ops.linear(KEY, LinearOperator((12, 12), matvec=matmat, rmatvec=matmat, matmat=matmat, rmatmat=matmat))
    calls.clear()
    jax.vmap(A)(jnp.ones((5, 12))).block_until_ready()
    assert calls == [(12, 5)]
    y = jax.jit(A)(jnp.ones(12, jnp.float32))
    assert y.dtype == jnp.float32 and A.adjoint(y).dtype == jnp.float32


def test_parameters_keep_their_derivatives():
    """Beside a given adjoint: by x through it, by parameters through the callables' own code, mixed ones too."""
    gain, x = jnp.arange(1.0, 5.0), jnp.arange(4.0) + 1
    call, back = lambda x, gain: gain * x[::-1], lambda y, gain: (gain * y)[::-1]
    derived, given = ops.linear(KEY, call, (4,), gain), ops.linear(KEY, call, (4,), gain, adjoint=back)
    value = lambda A, x: jnp.sum(A(x) ** 3) + jnp.sum(A.adjoint(x) ** 2)
    by_x, by_gain = jax.grad(value, 1), lambda A, x: jax.grad(value)(A, x).parameters[0]
    mixed = lambda A, x: jax.jacobian(lambda A: by_x(A, x))(A).parameters[0]
    pair = lambda A: jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), A)
    swept = lambda A, x: jax.vmap(by_x, (0, None))(pair(A), x)
    for derivative in (by_x, by_gain, mixed, swept):
        np.testing.assert_allclose(derivative(given, x), derivative(derived, x), atol=1e-10)


def test_dps_through_a_callback():
    """Compiled and batched, with what JAX cannot look into, equal to the matrix itself; DDRM says what it lacks."""
    matrix = _matrix("real")
    process = di.process.VP()
    prior = di.Prior(process, lambda x, t: process.alpha(t) * x, SHAPE)  # of a standard normal
    solve = lambda key, m: di.as_solver(lambda m: posterior.dps(prior, m), times.grid(3))(key, m).x
    found = []
    for A in (ops.linear(KEY, aslinearoperator(matrix), SHAPE), ops.dense(matrix, SHAPE)):
        m = di.measure(KEY, A, jnp.ones(SHAPE), 0.1)
        found.append(jax.jit(jax.vmap(solve, (0, None)))(jax.random.split(KEY, 2), m))
    np.testing.assert_allclose(*found, atol=1e-9)
    m = di.measure(KEY, ops.sparse(scipy.sparse.eye(12), SHAPE), jnp.ones(SHAPE), 0.1)
    with pytest.raises(TypeError, match=r"Sparse has no spectrum\(\), which ddrm needs"):
        posterior.ddrm(prior, m)


BAD = {
    "not finite": (lambda: ops.sparse(scipy.sparse.csr_matrix([[np.nan, 1.0]])), "matrix has 1 values"),
    "another size": (lambda: ops.linear(KEY, scipy.sparse.eye(4), (3,)), r"shape is \(3,\), 3 numbers"),
    "not sparse": (lambda: ops.sparse(np.eye(3)), "give a scipy.sparse matrix"),
    "ragged": (lambda: ops.dense([[1, 2], [3]]), "rows of one length"),
    "text": (lambda: ops.linear(KEY, "blur", (3,)), "matrix is 'blur'"),
    "the function first": (lambda: ops.linear(lambda x: x, SHAPE), "key is .*give one key"),
    "no shape": (lambda: ops.linear(KEY, lambda x: x), "shape is None"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()
