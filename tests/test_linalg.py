"""Matrix-free linear algebra against dense numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.fft import dctn

from diffinv import linalg


def hermitian(seed, size, is_complex, rank=None):
    """A random positive semi-definite matrix of this rank."""
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((size, rank or size + 2))
    factor = factor + 1j * rng.standard_normal(factor.shape) if is_complex else factor
    return factor @ factor.conj().T


def vector(seed, shape, is_complex):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return jnp.asarray(x + 1j * rng.standard_normal(shape) if is_complex else x)


either = pytest.mark.parametrize("is_complex", [False, True])


@either
def test_inner_is_the_real_part_and_norm_its_root(is_complex):
    a, b = vector(0, (3, 4), is_complex), vector(1, (3, 4), is_complex)
    assert_allclose(linalg.inner(a, b), np.vdot(a, b).real, rtol=1e-13)
    assert_allclose(linalg.norm(a), np.linalg.norm(a.ravel()), rtol=1e-14)


def test_norm_has_the_unit_vector_as_gradient_and_zero_at_zero():
    x = vector(0, (3, 4), False)
    assert_allclose(jax.grad(linalg.norm)(x), x / np.linalg.norm(x.ravel()), rtol=1e-13)
    assert linalg.norm(jnp.zeros(5)) == 0 and jnp.isnan(linalg.norm(jnp.asarray([1.0, jnp.nan])))
    assert_array_equal(jax.grad(linalg.norm)(jnp.zeros(5)), np.zeros(5))


@either
def test_cg_solves_on_arrays_of_any_shape(is_complex):
    M, b = hermitian(0, 6, is_complex), vector(1, (2, 3), is_complex)
    matrix = lambda u: jnp.asarray(M @ u.ravel()).reshape(u.shape)
    expected = np.linalg.solve(M, b.ravel()).reshape(2, 3)
    solution = jax.jit(lambda b: linalg.cg(lambda u: (jnp.asarray(M) @ u.ravel()).reshape(u.shape), b, 12))(b)
    assert_allclose(solution, expected, rtol=1e-8, atol=1e-8)
    assert_allclose(matrix(solution), b, rtol=1e-8, atol=1e-8)


@either
def test_cg_finds_the_least_norm_solution_of_a_singular_system(is_complex):
    M = jnp.asarray(hermitian(0, 6, is_complex, rank=3))
    b = M @ vector(1, 6, is_complex)
    assert_allclose(linalg.cg(lambda u: M @ u, b, 30), np.linalg.pinv(M, rcond=1e-10) @ b, rtol=1e-8, atol=1e-8)


def test_cg_has_the_optimal_error_at_every_step():
    """Iterate k minimises `|u - u*|_M` over the Krylov space of dimension k."""
    M, b = hermitian(0, 6, False), vector(1, 6, False)
    exact, power, space = np.linalg.solve(M, b), np.asarray(b), []
    for k in range(1, 6):
        space.append(power / np.linalg.norm(power))
        power = M @ space[-1]
        K = np.linalg.qr(np.stack(space, 1))[0]
        best = K @ np.linalg.solve(K.T @ M @ K, K.T @ b)
        assert_allclose(linalg.cg(lambda u: jnp.asarray(M) @ u, b, k), best, rtol=1e-7, atol=1e-8)
    assert np.linalg.norm(best - exact) > 1e-6


def test_a_converged_system_stands_still():
    M, b = jnp.diag(jnp.array([1.0, 2.0, 3.0])), vector(0, 3, False)
    run = lambda iterations, **options: linalg.cg(lambda u: M @ u, b, iterations, **options)
    assert_array_equal(run(200), run(10))
    assert_allclose(run(200), b / jnp.array([1.0, 2.0, 3.0]), rtol=1e-12)
    assert_array_equal(run(3, tolerance=2.0), np.zeros(3))
    assert_array_equal(linalg.cg(lambda u: M @ u, jnp.zeros(3), 5), np.zeros(3))


def test_cg_under_vmap_lets_each_system_stop_by_itself():
    scales = jnp.array([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    b = jnp.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    solve = lambda d, b: linalg.cg(lambda u: d * u, b, 20)
    together = jax.vmap(solve)(scales, b)
    assert_allclose(together, [[1, 2, 3], [1, 1, 1], [0, 0, 0]], rtol=1e-12)
    assert_array_equal(together, jnp.stack([solve(d, v) for d, v in zip(scales, b, strict=True)]))


def test_cg_can_be_differentiated_past_convergence():
    """`d(M^-1 b) = -M^-1 dM M^-1 b`, finite although the residual has vanished."""
    b, direction = vector(0, 3, False), jnp.array([1.0, -1.0, 0.5])
    solve = lambda d: linalg.cg(lambda u: d * u, b, 12)
    d = jnp.array([1.0, 2.0, 3.0])
    assert_allclose(jax.jvp(solve, (d,), (direction,))[1], -direction * b / d**2, rtol=1e-8)
    assert_allclose(jax.jacrev(solve)(d), np.diag(-b / d**2), atol=1e-8)


@either
def test_spectral_norm_converges_from_below(is_complex):
    M, x = jnp.asarray(hermitian(0, 5, is_complex)), vector(1, 5, is_complex)
    largest = np.linalg.eigvalsh(M)[-1]
    estimates = [float(linalg.spectral_norm(lambda u: M @ u, x, n)) for n in (1, 4, 16, 200)]
    assert_allclose(estimates[-1], largest, rtol=1e-10)
    assert np.all(np.diff(estimates) >= -1e-12) and estimates[0] < 0.95 * largest


def test_rademacher_probes_are_white(key):
    x = jnp.zeros((2, 2), jnp.float32)
    probes = jax.vmap(lambda k: linalg.rademacher(k, x))(jax.random.split(key, 4000))
    assert probes.dtype == jnp.float32
    flat = np.asarray(probes).reshape(4000, 4)
    assert_array_equal(np.abs(flat), np.ones_like(flat))
    off = flat.T @ flat / 4000 - np.eye(4)
    assert np.abs(np.append(off, flat.mean(0))).max() < 5 / np.sqrt(4000)


def test_dct_is_the_orthonormal_cosine_basis():
    """By the textbook's sum, and with `idct_hw` as both inverse and transpose."""
    rows, columns = (np.cos(np.pi * np.outer(np.arange(n), np.arange(n) + 0.5) / n) for n in (4, 6))
    rows, columns = (B / np.linalg.norm(B, axis=1, keepdims=True) for B in (rows, columns))
    x, y = vector(0, (4, 6, 2), False), vector(1, (4, 6, 2), False)
    assert_allclose(linalg.dct_hw(x), np.einsum("ij,kl,jlc->ikc", rows, columns, x), atol=1e-13)
    assert_allclose(linalg.idct_hw(linalg.dct_hw(x)), x, atol=1e-13)
    assert_allclose(linalg.inner(linalg.dct_hw(x), y), linalg.inner(x, linalg.idct_hw(y)), rtol=1e-12)


def test_added_is_the_sum_of_at_least_one():
    parts = [vector(seed, (2, 3), False) for seed in range(3)]
    assert_array_equal(linalg.added(iter(parts)), parts[0] + parts[1] + parts[2])
    assert linalg.added(parts[:1]) is parts[0]
    with pytest.raises(TypeError):
        linalg.added([])


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3), (4, 6, 2, 3)])
def test_cosines_run_over_the_first_two_axes_of_any_array(shape):
    x = np.random.default_rng(0).standard_normal(shape)
    found, back = jax.jit(lambda x: (linalg.dct_hw(x), linalg.idct_hw(linalg.dct_hw(x))))(x)
    np.testing.assert_allclose(found, dctn(x, axes=(0, 1), norm="ortho"), atol=1e-12)
    np.testing.assert_allclose(back, x, atol=1e-12)
