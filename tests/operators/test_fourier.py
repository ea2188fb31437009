"""Blurs against scipy, their thresholds, and the random motion kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv.operators as ops

ndimage = pytest.importorskip("scipy.ndimage")

PICTURE = (20, 17, 2)
KERNELS = {"odd": (5, 3), "even": (4, 6), "row": (1, 7), "full": (20, 17)}


applied = jax.jit(lambda operator, x: operator(x))


def _correlate(x, kernel, mode):
    """scipy's correlation of each channel, an even kernel padded so that its centre is at `size // 2`."""
    padded = np.pad(kernel, [(0, 1 - k % 2) for k in kernel.shape])
    return np.stack([ndimage.correlate(x[..., c], padded, mode=mode) for c in range(x.shape[-1])], -1)


@pytest.mark.parametrize("name", KERNELS)
def test_circular_is_scipys_wrap(key, name):
    x, kernel = jax.random.normal(key, PICTURE), np.random.default_rng(0).random(KERNELS[name])
    got = applied(ops.blur(PICTURE, kernel), x)
    np.testing.assert_allclose(got, _correlate(np.asarray(x), kernel, "wrap"), atol=1e-11)


@pytest.mark.parametrize("name", KERNELS)
def test_reflect_is_scipys_mirror(key, name):
    x, kernel = jax.random.normal(key, PICTURE), np.random.default_rng(0).random(KERNELS[name])
    got = applied(ops.blur(PICTURE, kernel, "reflect"), x)
    np.testing.assert_allclose(got, _correlate(np.asarray(x), kernel, "mirror"), atol=1e-11)


@pytest.mark.parametrize("size, std", [(61, 3.0), (61, 1.0), (31, 3.5)])
def test_gaussian_kernel_is_dps(size, std):
    """DPS filters a delta with `scipy.ndimage.gaussian_filter`."""
    delta = np.zeros((size, size))
    delta[size // 2, size // 2] = 1
    np.testing.assert_allclose(ops.gaussian_kernel(size, std), ndimage.gaussian_filter(delta, std), atol=1e-15)


def test_gaussian_kernel_sweeps_std():
    swept = jax.vmap(lambda std: ops.gaussian_kernel(9, std))(jnp.asarray([0.5, 1.7]))
    np.testing.assert_allclose(swept[1], ops.gaussian_kernel(9, 1.7), atol=1e-15)
    np.testing.assert_allclose(swept.sum((1, 2)), 1.0)


@pytest.mark.parametrize("boundary", ["circular", "reflect"])
@pytest.mark.parametrize("shape", [(16, 24, 3), (7, 7, 1), (64, 64, 1)])
def test_gaussian_blur_default_fits_and_keeps_constants(shape, boundary):
    A = ops.gaussian_blur(shape, boundary=boundary)
    np.testing.assert_allclose(applied(A, np.full(shape, -0.4)), -0.4, rtol=1e-9)


def test_gaussian_blur_is_its_kernel(key):
    """The kernel is stored without its zeros: 61 x 61 with deviation 1.5 fits a smaller picture."""
    x = jax.random.normal(key, (20, 24, 1))
    kernel = ops.gaussian_kernel(61, 1.5)[20:41, 20:41]
    for boundary in ("circular", "reflect"):
        A = ops.gaussian_blur((20, 24, 1), 61, 1.5, boundary)
        pads = {"circular": "wrap", "reflect": "reflect"}[boundary]
        padded = np.pad(np.asarray(x)[..., 0], 10, mode=pads)
        wanted = np.einsum("ijkl,kl->ij", np.lib.stride_tricks.sliding_window_view(padded, (21, 21)), kernel)
        np.testing.assert_allclose(applied(A, x)[..., 0], wanted, atol=1e-12)


def test_threshold_cuts_pinv_but_not_the_blur(key):
    """A strong blur: three Penrose conditions hold exactly, `A A^+ A = A` up to the threshold."""
    shape, threshold = (32, 32, 1), 3e-2
    A = ops.gaussian_blur(shape, 21, 2.0, threshold=threshold)
    y = jax.random.normal(key, shape)
    np.testing.assert_allclose(A(A.pinv(y)), A.project(y), atol=1e-12)
    np.testing.assert_allclose(A.pinv(A(A.pinv(y))), A.pinv(y), atol=1e-10)
    gap = np.linalg.norm(A(A.pinv(A(y))) - A(y))
    assert 0 < gap < threshold * np.linalg.norm(y)
    assert np.linalg.norm(A.pinv(y)) < np.linalg.norm(y) / threshold
    kept = np.linalg.norm(A.project(y)) ** 2 / np.linalg.norm(y) ** 2
    assert 0 < kept < 0.5


def test_strong_blur_solves_in_single_precision(key):
    shape = (32, 32, 3)
    A = ops.gaussian_blur(shape, 21, 3.0)
    v = jax.random.normal(key, shape, jnp.float32)
    u = A.solve(v, 1e-2)
    np.testing.assert_allclose(A(A.adjoint(u)) + 1e-2 * u, v, atol=1e-4)
    assert np.isfinite(A.pinv(v)).all() and np.isfinite(A.solve(v, 0.0)).all()


@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.slow)])
def test_strong_reflect_blur_solves_by_cg(key, dtype):
    A = ops.gaussian_blur((24, 20, 2), std=2.0, boundary="reflect")
    v = jax.random.normal(key, A.shape, dtype)
    u = jax.jit(A.solve)(v, 0.05)
    assert np.linalg.norm(A(A.adjoint(u)) + 0.05 * u - v) < 1e-4 * np.linalg.norm(v)


@pytest.mark.parametrize("size", [3, 15, 61])
def test_motion_kernel_is_centred_and_normalised(size):
    draw = jax.jit(jax.vmap(lambda k: ops.motion_kernel(k, size)))
    kernels = np.asarray(draw(jax.random.split(jax.random.key(0), 24)))
    offset = np.arange(size) - size // 2
    assert kernels.shape == (24, size, size) and kernels.min() >= 0
    np.testing.assert_allclose(kernels.sum((1, 2)), 1.0, atol=1e-12)
    np.testing.assert_allclose(kernels.sum(2) @ offset, 0.0, atol=1e-10)
    np.testing.assert_allclose(kernels.sum(1) @ offset, 0.0, atol=1e-10)
    assert len({k.tobytes() for k in kernels}) == 24


def test_motion_intensity_zero_is_a_line(key):
    """All of the mass lies on a line through the centre: the smaller principal variance is a pixel's at most."""
    kernel = np.asarray(ops.motion_kernel(key, 31, 0.0))
    i, j = np.meshgrid(np.arange(31) - 15, np.arange(31) - 15, indexing="ij")
    moments = np.cov(np.stack([i.ravel(), j.ravel()]), aweights=kernel.ravel(), ddof=0)
    small, large = np.linalg.eigvalsh(moments)
    assert small < 0.5 and large > 5


def test_motion_blur_is_its_kernel(key):
    x = jax.random.normal(key, (16, 16, 3))
    kernel = ops.motion_kernel(key, 7, 0.3)
    for boundary in ("circular", "reflect"):
        A = ops.motion_blur(key, (16, 16, 3), 7, 0.3, boundary)
        np.testing.assert_allclose(applied(A, x), applied(ops.blur((16, 16, 3), kernel, boundary), x), atol=1e-13)


def test_point_spread_is_the_turned_kernel():
    kernel = jnp.arange(15.0).reshape(3, 5)
    point = jnp.zeros((9, 9, 1)).at[4, 4].set(1.0)
    for boundary in ("circular", "reflect"):
        seen = applied(ops.blur((9, 9, 1), kernel, boundary), point)[3:6, 2:7, 0]
        np.testing.assert_allclose(seen, kernel[::-1, ::-1], atol=1e-13)


BAD = {
    "kernel larger than the picture": (lambda: ops.blur((8, 8, 3), np.ones((9, 3))), "does not fit"),
    "reflect half outside": (lambda: ops.blur((8, 8, 3), np.ones((17, 3)), "reflect"), "does not fit"),
    "gaussian too large": (lambda: ops.gaussian_blur((8, 8, 3), 11, 1.0), "does not fit"),
    "kernel of a vector": (lambda: ops.blur((8, 8, 3), np.ones(3)), "must be real"),
    "complex kernel": (lambda: ops.blur((8, 8, 3), np.ones((3, 3), complex)), "must be real"),
    "boundary": (lambda: ops.blur((8, 8, 3), np.ones((3, 3)), "periodic"), "boundary is 'periodic'"),
    "threshold": (lambda: ops.blur((8, 8, 3), np.ones((3, 3)), threshold=1.0), "threshold is 1.0"),
    "shape": (lambda: ops.gaussian_blur((8, 8), 3, 1.0), "shape is"),
    "even size": (lambda: ops.gaussian_kernel(4, 1.0), "must be odd"),
    "std": (lambda: ops.gaussian_kernel(5, 0.0), "std is 0.0"),
    "motion size": (lambda: ops.motion_kernel(jax.random.key(0), 1), "from 3 to"),
    "intensity": (lambda: ops.motion_kernel(jax.random.key(0), 5, -1.0), "intensity"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()
