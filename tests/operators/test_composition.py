"""Chains, gains and stacks against their parts; plain callables and scico's operators; what `check` refuses."""

import warnings
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

import diffinv.operators as ops
from operators.dots import dot_gap

KEY = jax.random.key(0)
SHAPE = (4, 6, 1)
CURVE = ops.high_dynamic_range(SHAPE)
POOL = ops.average_pool(SHAPE, 2)
MASK = ops.random_inpainting(KEY, SHAPE, 0.5)
WAVES = ops.visibilities(SHAPE, np.arange(8.0).reshape(4, 2), 0.03)


def test_chains(key):
    x = jax.random.normal(key, SHAPE)
    linear, curved = ops.compose(POOL, MASK), ops.compose(POOL, CURVE)
    assert isinstance(linear, ops.Composed) and isinstance(curved, ops.Chain)
    np.testing.assert_allclose(linear(x), POOL(MASK(x)))
    np.testing.assert_allclose(curved(x), POOL(CURVE(x)))
    np.testing.assert_allclose(linear.adjoint(POOL(x)), MASK(POOL.adjoint(POOL(x))))


def test_complex_numbers_pass_through_what_keeps_them():
    """A gain and an identity are linear over the complex numbers; a matrix of real entries here is not (see `BAD`)."""
    for outer in (ops.identity((4,)), ops.scale(ops.identity((4,)), -2.0)):
        A = ops.compose(outer, WAVES)
        assert ops.output(A).dtype == jnp.complex64
        assert dot_gap(A) < 1e-13


@pytest.mark.slow
@pytest.mark.parametrize("gain", [-0.4, pytest.param(2.5, marks=pytest.mark.slow)])
def test_a_gain_keeps_the_closed_forms(key, gain):
    """Against the same matrix times the gain: solve, pinv, and the decomposition."""
    A, x = ops.scale(POOL, gain), jax.random.normal(key, SHAPE)
    y = A(x)
    columns = jax.vmap(A)(jnp.eye(24).reshape(24, *SHAPE)).reshape(24, -1).T
    gram = np.asarray(columns @ columns.T)
    wanted = np.linalg.solve(gram + 0.3 * np.eye(6), np.asarray(y).ravel())
    np.testing.assert_allclose(A.solve(y, 0.3).ravel(), wanted, atol=1e-12)
    np.testing.assert_allclose(A.pinv(y).ravel(), np.linalg.pinv(columns) @ np.asarray(y).ravel(), atol=1e-12)
    parts = A.spectrum()
    np.testing.assert_allclose(parts.observe(y), parts.s * parts.analyse(x), atol=1e-12)
    assert isinstance(ops.scale(CURVE, gain), ops.Scaled)
    np.testing.assert_allclose(ops.scale(CURVE, gain)(x), gain * CURVE(x))


@pytest.mark.slow
def test_a_stack_is_all_of_its_parts(key):
    """Values in their own shapes and types; the adjoint is the sum; enough parts determine the picture."""
    mri = ops.mri(jnp.ones((3, 4)))
    wide = ops.dense(jax.random.normal(key, (5, 24)), mri.shape)
    A, x = ops.stack(mri, wide), jax.random.normal(key, mri.shape)
    assert isinstance(A, ops.StackedLinear)
    y = A(x)
    assert y.shape == (24 + 5,) and y.dtype == x.dtype
    k, row = A.split(y)
    np.testing.assert_allclose(k, mri(x))
    np.testing.assert_allclose(row, wide(x))
    np.testing.assert_allclose(A.adjoint(y), mri.adjoint(k) + wide.adjoint(row), atol=1e-12)
    np.testing.assert_allclose(A.pinv(y), x, atol=1e-9)


def test_a_nonlinear_stack_projects_part_by_part(key):
    A = ops.stack(CURVE, MASK)
    assert isinstance(A, ops.Stacked) and not isinstance(A, ops.LinearOperator)
    y = jax.random.normal(key, (48,))
    np.testing.assert_allclose(A.project(y)[:24], y[:24])
    np.testing.assert_allclose(A.project(y)[24:], MASK.project(y[24:].reshape(SHAPE)).ravel())


def _roll(x, gain):
    return gain.astype(x.dtype) * jnp.roll(x, 1, 0)


def _unroll(y, gain):
    return jnp.roll(gain.astype(y.dtype) * y, -1, 0)


def test_plain_callables(key):
    """Derived or given, the adjoint is the same; a wrong one is refused with its error."""
    x, gain = jax.random.normal(key, SHAPE), jax.random.normal(key, SHAPE)
    derived = ops.linear(key, _roll, SHAPE, gain)
    given = ops.linear(key, _roll, SHAPE, gain, adjoint=_unroll)
    np.testing.assert_allclose(derived.adjoint(x), given.adjoint(x), atol=1e-12)
    np.testing.assert_allclose(ops.function(_roll, SHAPE, gain)(x), derived(x))


WRONG = {
    "an offset": ((lambda x: x + 1, SHAPE), {}, "not linear, relative error"),
    "a square": ((lambda x: x**2, SHAPE), {}, "not linear"),
    "a conjugation": ((lambda x: ops.fft2c(ops.as_complex(x)), (4, 6, 2)), {"adjoint": lambda y: ops.as_real(
        ops.ifft2c(jnp.conj(y)))}, "fails the dot test, relative error"),
    "the inverse": ((lambda x: 2 * x, SHAPE), {"adjoint": lambda y: y / 2}, "fails the dot test, relative error"),
    "another shape": ((lambda x: 2 * x, SHAPE), {"adjoint": lambda y: y[0]}, r"adjoint gives \(6, 1\)"),
    "not a number": ((lambda x: x * jnp.nan, SHAPE), {}, "not linear"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_false_claims_are_refused(name, key):
    arguments, options, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        ops.linear(key, *arguments, **options)


def test_check_knows_how_wrong(key):
    """An adjoint 1 % too large passes at a tolerance of 5 %, and only there."""
    operator = ops.LinearFunction(lambda x: x[::-1], (), (300,), lambda y: 1.01 * y[::-1])
    ops.check(operator, key, 0.05)
    with pytest.raises(ValueError, match="dot test"):
        ops.check(operator, key)


def test_anything_shaped_like_scicos(key):
    """A complex diagonal with scico's names; its pictures become (..., 2)."""
    gain = jax.lax.complex(jax.random.normal(key, (3, 4)), jnp.ones((3, 4)))

    class Diagonal(SimpleNamespace):
        def __call__(self, x):
            return gain * x

    types = {"input_dtype": complex, "output_dtype": complex}
    diagonal = Diagonal(input_shape=(3, 4), output_shape=(3, 4), adj=lambda y: jnp.conj(gain) * y, **types)
    A, x = ops.scico(key, diagonal), jax.random.normal(key, (3, 4, 2))
    assert A.shape == (3, 4, 2)
    np.testing.assert_allclose(A(x), gain * ops.as_complex(x))
    np.testing.assert_allclose(A.adjoint(A(x)), jnp.abs(gain)[:, :, None] ** 2 * x, atol=1e-12)
    with pytest.raises(ValueError, match="blocks"):
        ops.scico(key, SimpleNamespace(input_shape=(3, 4), output_shape=((3, 4), (2,))))


def test_scicos_own(key):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        linop = pytest.importorskip("scico.linop")
        A = ops.scico(key, linop.FiniteDifference((5, 6), input_dtype=jnp.float32, append=0))
        x = jax.random.normal(key, (5, 6))
        y = A(x)
        assert y.dtype == x.dtype and y.shape == (2, 5, 6)
        np.testing.assert_allclose(y[0, :-1], np.diff(x, axis=0), atol=1e-6)


BAD = {
    "chain": (lambda: ops.compose(POOL, POOL), "outer, inner do not fit"),
    "no gain": (lambda: ops.scale(POOL, 0.0), "gain is 0.0"),
    "gains": (lambda: ops.scale(POOL, jnp.ones(3)), "gain is float"),
    "nothing": (lambda: ops.stack(), "at least one"),
    "inputs": (lambda: ops.stack(POOL, ops.identity((3,))), "one input shape"),
    "complex to entries": (
        lambda: ops.compose(ops.sparse(scipy.sparse.eye(4)), WAVES),
        "takes real numbers: join both",
    ),
    "complex to a matrix": (lambda: ops.compose(ops.dense(np.eye(4)[:2]), WAVES), "takes real numbers: join both"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()
