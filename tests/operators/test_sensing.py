"""Compressed sensing: the transforms against SciPy, the random choices, and what is kept of the norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import hadamard

import diffinv.operators as ops


def test_hadamard_is_scipys():
    x = np.random.default_rng(0).normal(size=(8, 4, 3))
    wanted = np.einsum("ih,hwc,wj->ijc", hadamard(8), x, hadamard(4)) / np.sqrt(32)
    transform = jax.jit(ops.hadamard)
    np.testing.assert_allclose(transform(x), wanted, atol=1e-12)
    np.testing.assert_allclose(transform(transform(x)), x, atol=1e-12)


@jax.jit
def _seen(A, x):
    y = A(x)
    return y, A.adjoint(y), A(A.adjoint(y)), A.pinv(y)


@pytest.mark.parametrize(
    "transform, shape", [("dct", (7, 9, 2)), pytest.param("hadamard", (8, 16, 2), marks=pytest.mark.slow)]
)
def test_keeps_a_fraction_of_an_isometry(key, transform, shape):
    """With every coefficient it is a rotation; with a part it keeps that many, and `A A^T` is the identity there."""
    x = np.random.default_rng(0).normal(size=shape)
    A = ops.compressed_sensing(key, shape, 0.4, transform)
    y, back, _, _ = _seen(A.replace(mask=jnp.ones_like(A.mask)), x)
    np.testing.assert_allclose(np.linalg.norm(y), np.linalg.norm(x))
    np.testing.assert_allclose(back, x, atol=1e-12)
    assert A.mask.sum() == int(0.4 * shape[0] * shape[1]) and set(np.unique(A.signs)) == {-1.0, 1.0}
    y, back, again, pinv = _seen(A, x)
    np.testing.assert_allclose(again, y, atol=1e-12)
    np.testing.assert_allclose(pinv, back, atol=1e-12)


@pytest.mark.slow
def test_keys_choose_the_coefficients(key):
    """Every coefficient has its chance: over 200 keys the mean mask is the fraction, to 4.5 deviations."""
    keys = jax.random.split(key, 200)
    masks = jax.vmap(lambda k: ops.compressed_sensing(k, (8, 8, 1), 0.25).mask)(keys)
    assert np.all(masks.sum((1, 2, 3)) == 16)
    assert np.abs(np.asarray(masks).mean(0) - 0.25).max() < 4.5 * np.sqrt(0.25 * 0.75 / 200)


def test_spectrum_is_the_operators(key):
    A = ops.compressed_sensing(key, (7, 9, 2), 0.4, "dct")

    @jax.jit
    def sides(A, x):
        parts = A.spectrum()
        code = parts.analyse(x)
        return parts.synthesise(code), parts.observe(A(x)), parts.s * code

    x = np.random.default_rng(0).normal(size=A.shape)
    back, observed, wanted = sides(A, x)
    np.testing.assert_allclose(back, x, atol=1e-12)
    np.testing.assert_allclose(observed, wanted, atol=1e-12)


@pytest.mark.slow
def test_gaussian_sensing_keeps_norms_on_average(key):
    """`E |A x|^2 = |x|^2`, deviation `|x|^2 sqrt(2 / m)`; the mean over 64 keys to 4.5 deviations."""
    x = jax.random.normal(key, (6, 5, 1))
    squares = jax.vmap(lambda k: jnp.sum(ops.gaussian_sensing(k, x.shape, 0.5)(x) ** 2))(jax.random.split(key, 64))
    assert abs(squares.mean() / jnp.sum(x**2) - 1) < 4.5 * np.sqrt(2 / 15 / 64)
    assert ops.output(ops.gaussian_sensing(key, x.shape, 0.5)).shape == (15,)


KEY = jax.random.key(0)
BAD = {
    "powers": (lambda: ops.compressed_sensing(KEY, (6, 8, 1), 0.5), "powers of two"),
    "sides": (lambda: ops.hadamard(jnp.ones((3, 4, 1))), "powers of two"),
    "fraction": (lambda: ops.compressed_sensing(KEY, (8, 8, 1), 0.0), "fraction is 0.0"),
    "nothing": (lambda: ops.gaussian_sensing(KEY, (3,), 0.1), "fraction is 0.1"),
    "transform": (lambda: ops.compressed_sensing(KEY, (8, 8, 1), 0.5, "haar"), "transform is 'haar'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()
