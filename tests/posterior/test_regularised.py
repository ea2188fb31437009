"""Tikhonov and Wiener: normal equations, the posterior means that they are, and the filter of the textbooks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import gaussian_posterior, matrix

import diffinv as di
from diffinv import operators, posterior, times
from diffinv.posterior.regularised import falling_spectrum

KEY, SIGMA = jax.random.key(0), 0.3
SHAPE = (4, 6, 2)


def solved(method, measurement, **options):
    shape = measurement.operator.shape
    prior = di.gaussian(di.process.VP(), jnp.zeros(shape), jnp.eye(int(np.prod(shape))))
    run = jax.jit(lambda m: di.as_solver(lambda m: method(prior, m, **options), times.grid(1))(KEY, m))
    return run(measurement).x


def operators_of(shape):
    """Closed forms, one by conjugate gradients, a mask, and a complex one."""
    rng = np.random.default_rng(0)
    M = jnp.asarray(rng.standard_normal((10, int(np.prod(shape)))) / 5)
    return {
        "dense": operators.dense(M, shape),
        "plain": operators.linear(KEY, lambda x: M @ x.ravel(), shape),
        "mask": operators.inpainting(shape, jnp.asarray(rng.random(shape[:2])[..., None] > 0.4).astype(float)),
        "mri": operators.mri(jnp.asarray(rng.random(shape[:2]) > 0.4).astype(float)),
    }


NAMES = ["dense", "plain", "mask", "mri"]


def problem(name):
    """A measurement, the operator's real matrix and the real y."""
    A = operators_of(SHAPE)[name]
    m = di.measure(KEY, A, jax.random.normal(jax.random.key(2), SHAPE), SIGMA)
    y, M = np.asarray(m.y).ravel(), None
    if np.iscomplexobj(y):
        rows = np.stack([np.asarray(A(e.reshape(SHAPE))).ravel() for e in np.eye(48)], 1)
        return m, np.concatenate([rows.real, rows.imag]), np.concatenate([y.real, y.imag])
    M = matrix(A)
    return m, M, y


@pytest.mark.parametrize("lam", [0.02, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_tikhonov_solves_the_normal_equations(name, lam):
    """And is the posterior mean of a white Gaussian of variance sigma^2 / lam about its ground."""
    m, A, y = problem(name)
    exact = np.linalg.solve(A.T @ A + lam * np.eye(48), A.T @ y + lam * 0.4)
    found = np.asarray(solved(posterior.tikhonov, m, lam=lam, ground=0.4)).ravel()
    np.testing.assert_allclose(found, exact, atol=1e-8)
    mean = gaussian_posterior(np.full(48, 0.4), SIGMA**2 / lam * np.eye(48), A, y, SIGMA).mean
    np.testing.assert_allclose(found, mean, atol=1e-8)


@pytest.mark.parametrize("power", [0.0, 2.0])
@pytest.mark.parametrize("name", NAMES)
def test_wiener_is_the_posterior_mean_of_its_signal(name, power):
    m, A, y = problem(name)
    covariance = 0.7 * np.eye(48)
    if power:
        basis = np.stack([np.asarray(di.linalg.dct_hw(jnp.asarray(e.reshape(SHAPE)))).ravel() for e in np.eye(48)], 1)
        spectrum = np.broadcast_to(np.asarray(falling_spectrum(SHAPE, 0.7, power)), SHAPE).ravel()
        covariance = basis.T @ np.diag(spectrum) @ basis
    exact = gaussian_posterior(np.full(48, -0.2), covariance, A, y, SIGMA).mean
    found = solved(posterior.wiener, m, variance=0.7, power=power, ground=-0.2)
    np.testing.assert_allclose(np.asarray(found).ravel(), exact, atol=1e-8)


def test_wiener_of_a_circular_blur_is_the_filter_of_the_textbooks():
    """`conj(H) Y / (|H|^2 + sigma^2 / variance)` in the Fourier transform."""
    shape, x = (8, 8, 1), jax.random.normal(jax.random.key(2), (8, 8, 1))
    kernel = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    m = di.measure(KEY, operators.blur(shape, jnp.asarray(kernel)), x, SIGMA)
    spread = np.zeros((8, 8))
    spread[:3, :3] = kernel
    H = np.fft.fft2(np.roll(spread, (-1, -1), (0, 1)))
    Y = np.fft.fft2(np.asarray(m.y)[..., 0])
    exact = np.fft.ifft2(np.conj(H) * Y / (np.abs(H) ** 2 + SIGMA**2 / 0.5)).real
    np.testing.assert_allclose(solved(posterior.wiener, m, variance=0.5)[..., 0], exact, atol=1e-10)


def test_the_right_spectrum_is_the_best():
    """On draws of its own signal Wiener's error is what its formula says, and other spectra's is more."""
    shape = (12, 12, 1)
    s = falling_spectrum(shape, 0.5, 2.0)
    draw = lambda key: di.linalg.idct_hw(jnp.sqrt(s) * jax.random.normal(key, shape))
    A = operators.inpainting(shape, (jax.random.uniform(KEY, (12, 12, 1)) > 0.5).astype(float))
    prior = di.gaussian_field(di.process.VP(), jnp.zeros(shape), s)

    def error(key, **options):
        x, noise = draw(key), jax.random.fold_in(key, 1)
        method = lambda m: posterior.wiener(prior, m, **options)
        return jnp.mean((di.as_solver(method, times.grid(1))(key, di.measure(noise, A, x, SIGMA)).x - x) ** 2)

    keys = jax.random.split(KEY, 200)
    errors = {p: jax.jit(jax.vmap(lambda k, p=p: error(k, variance=0.5, power=p)))(keys) for p in (0.0, 2.0, 4.0)}
    basis = np.stack([np.asarray(di.linalg.dct_hw(jnp.asarray(e.reshape(shape)))).ravel() for e in np.eye(144)], 1)
    C = basis.T @ np.diag(np.asarray(s).ravel()) @ basis
    exact = np.trace(gaussian_posterior(np.zeros(144), C, matrix(A), np.zeros(144), SIGMA).covariance) / 144
    best = np.asarray(errors[2.0])
    assert abs(best.mean() - exact) < 4.5 * best.std() / np.sqrt(200)
    for other in (0.0, 4.0):
        gained = np.asarray(errors[other]) - best
        assert gained.mean() > 4.5 * gained.std() / np.sqrt(200)


def test_the_spectrum_falls_by_its_power_and_has_its_mean():
    s = falling_spectrum((16, 8, 3), 0.25, 2.0)
    assert s.shape == (16, 8, 1)
    np.testing.assert_allclose(jnp.mean(s), 0.25)
    np.testing.assert_allclose(s[2, 0] / s[4, 0], 4.0)  # twice the frequency, a quarter
    assert s[0, 0] == s[1, 0] == s.max()


@pytest.mark.parametrize("options", [{}, {"power": 2.0}])
def test_without_noise_what_is_seen_comes_out(options):
    shape = (4, 4, 1)
    A = operators.inpainting(shape, jnp.ones(shape).at[1:3, 1:3].set(0.0))
    m = di.measure(KEY, A, jax.random.normal(KEY, shape), 0.0)
    x = solved(posterior.wiener, m, **options)
    np.testing.assert_allclose(m.residual(x), np.zeros(m.y.shape), atol=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"power": 2.0}, r"power is 2.0, the prior's shape \(6,\); a spectrum needs \(H, W, C\): give power=0"),
        ({"power": -1.0}, "power is -1.0; give a number of at least 0"),
        ({"iterations": 0}, "iterations is 0; it must be a whole number"),
    ],
)
def test_wiener_refuses(options, message):
    m = di.measure(KEY, operators.identity((6,)), jnp.zeros(6), 0.1)
    with pytest.raises(ValueError, match=message):
        solved(posterior.wiener, m, **options)


@pytest.mark.parametrize("name", ["tikhonov", "wiener", "pnp_admm", "red"])
def test_an_operator_that_is_not_linear_is_refused(name):
    A = operators.phase_retrieval((8, 8, 1))
    m = di.measure(KEY, A, jnp.zeros((8, 8, 1)), 0.1)
    with pytest.raises(TypeError, match="is not linear"):
        solved(getattr(posterior, name), m)
