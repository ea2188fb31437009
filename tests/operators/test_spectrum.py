"""`spectrum()` against the dense matrix: `A = U diag(s) V^T` with an orthogonal V, in float64 and float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv.operators as ops
from diffinv.operators.base import LinearOperator
from operators.test_battery import OPERATORS, TOLERANCE

SPECTRAL = [
    "identity", "mask", "weights", "box_inpainting", "average_pool", "bicubic", "resize_up_and_down", "grayscale",
    "circular_blur", "circular_blur_even", "gaussian_blur", "motion_blur", "dense_wide", "dense_tall",
    "dense_deficient", "dense_complex", "real_mri", "real_mri_gains",
]  # fmt: skip


@jax.jit
def evidence(operator, x, other):
    """Codes of x, their synthesis, the singular values, a y within the range and its `U^T y`, and `U^T A x`."""
    spectrum, y = operator.spectrum(), operator.project(operator(other) + operator(x) ** 2)
    code = spectrum.analyse(x)
    seen = spectrum.observe(y)
    s = jnp.broadcast_to(spectrum.s.astype(code.dtype), code.shape)
    return code, spectrum.synthesise(code), s, y, seen, spectrum.observe(operator(x))


QUICK = ("mask", "average_pool", "bicubic", "grayscale", "circular_blur_even", "dense_complex", "real_mri_gains")
CASES = [
    pytest.param(name, dtype, marks=() if name in QUICK and dtype is jnp.float64 else pytest.mark.slow)
    for name in SPECTRAL
    for dtype in (jnp.float32, jnp.float64)
]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_it_is_the_singular_value_decomposition(name, dtype):
    """V is an isometry, `U^T A x = s V^T x`, and `U^T` loses only what A never gives."""
    operator = OPERATORS[name](dtype)
    x = jax.random.normal(jax.random.key(0), operator.shape, dtype)
    other = jax.random.normal(jax.random.key(1), operator.shape, dtype)
    code, back, s, y, seen, forward = evidence(operator, x, other)
    within = {"rtol": 0, "atol": 30 * TOLERANCE[dtype]}
    assert code.size == x.size and code.dtype == x.dtype and seen.shape == code.shape and seen.dtype == x.dtype
    np.testing.assert_allclose(back, x, **within)
    np.testing.assert_allclose(jnp.sum(code**2), jnp.sum(x**2), rtol=30 * TOLERANCE[dtype])
    np.testing.assert_allclose(forward, s * code, **within)
    assert (s >= 0).all() and not np.asarray(seen)[np.asarray(s) == 0].any()
    np.testing.assert_allclose(jnp.sum(seen**2), jnp.sum(jnp.abs(y) ** 2), rtol=100 * TOLERANCE[dtype])


@pytest.mark.slow
def test_the_singular_values_are_those_of_the_matrix():
    for name in ("circular_blur_even", "resize_up_and_down"):
        operator = OPERATORS[name](jnp.float64)
        size = int(np.prod(operator.shape))
        columns = jax.vmap(operator)(jnp.eye(size).reshape(size, *operator.shape)).reshape(size, -1)
        exact = np.linalg.svd(np.asarray(ops.as_real(columns)).reshape(size, -1), compute_uv=False)
        code = jax.eval_shape(operator.spectrum().analyse, jax.ShapeDtypeStruct(operator.shape, float))
        s = np.sort(np.broadcast_to(operator.spectrum().s, code.shape).ravel())[::-1]
        np.testing.assert_allclose(s[: len(exact)], exact[: len(s)], atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", ["reflect_blur", "composed"])
def test_an_operator_without_one_says_what_would_do(name):
    operator = OPERATORS[name](jnp.float64)
    assert type(operator).spectrum is LinearOperator.spectrum
    with pytest.raises(TypeError, match=r"has no spectrum\(\): write it, or use ddnm, pigdm or diffpir"):
        operator.spectrum()


def test_it_vmaps_over_the_operators_parameters():
    """Two masks in one program: what each gives alone."""
    pair = [OPERATORS["mask"](jnp.float64, seed) for seed in (0, 1)]
    x = jax.random.normal(jax.random.key(2), pair[0].shape)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pair)
    both = jax.vmap(lambda operator: operator.spectrum().observe(operator(x)))(stacked)
    for one, operator in zip(both, pair):
        np.testing.assert_array_equal(one, operator.spectrum().observe(operator(x)))
