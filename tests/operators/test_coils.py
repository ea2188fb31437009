"""Cartesian MRI: transforms, masks, coils, and a real scan where there is one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv.operators as ops
from diffinv.measurement import measure


def _complex(key, *shape):
    return jax.lax.complex(*jax.random.normal(key, (2, *shape)))


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (4, 9)])
def test_transform_is_centred_and_orthonormal(key, size):
    z = _complex(key, *size)
    np.testing.assert_allclose(ops.ifft2c(ops.fft2c(z)), z, atol=1e-13)
    np.testing.assert_allclose(np.linalg.norm(ops.fft2c(z)), np.linalg.norm(z))
    dc = ops.fft2c(jnp.ones(size, complex))
    assert np.argmax(np.abs(dc)) == np.ravel_multi_index((size[0] // 2, size[1] // 2), size)
    np.testing.assert_allclose(dc[size[0] // 2, size[1] // 2], np.sqrt(size[0] * size[1]))


def test_channels_are_real_and_imaginary(key):
    x = jax.random.normal(key, (6, 5, 2))
    y = ops.mri(np.ones((6, 5)))(x)
    assert y.shape == (1, 6, 5) and y.dtype == jnp.complex128
    np.testing.assert_allclose(y[0], ops.fft2c(ops.as_complex(x)), atol=1e-14)
    np.testing.assert_array_equal(ops.as_real(ops.as_complex(x)), x)


def test_fully_sampled_is_inverted_by_the_adjoint(key):
    x = jax.random.normal(key, (8, 8, 2))
    coils = ops.simulated_coils((8, 8), 5)
    np.testing.assert_allclose(jnp.sum(jnp.abs(coils) ** 2, 0), 1.0)
    for A in (ops.mri(np.ones((8, 8))), ops.mri(np.ones((8, 8)), coils)):
        back, inverted = jax.jit(lambda A, y: (A.adjoint(y), A.pinv(y)))(A, A(x))
        np.testing.assert_allclose(back, x, atol=1e-13)
        np.testing.assert_allclose(inverted, x, atol=1e-12)


def test_coils_fill_in_the_missing_lines(key):
    """SENSE: with enough coils every second line is enough; with one coil it is not."""
    mask = ops.cartesian_mask(key, (8, 8), 2, 2, "equispaced")
    x = jax.random.normal(key, (8, 8, 2))
    round_trip = jax.jit(lambda A, x: A.pinv(A(x)))
    assert np.linalg.norm(round_trip(ops.mri(mask), x) - x) > 0.3 * np.linalg.norm(x)
    np.testing.assert_allclose(round_trip(ops.mri(mask, _complex(key, 6, 8, 8)), x), x, atol=1e-8)


@pytest.mark.slow
def test_noise_stays_on_the_sampled_lines(key):
    mask = ops.cartesian_mask(key, (12, 10), 3, 2)
    x = jax.random.normal(key, (12, 10, 2))
    for A in (ops.mri(mask), ops.mri(mask, ops.simulated_coils((12, 10), 3))):
        y = jax.jit(measure)(key, A, x, 1.0).y
        assert np.abs(y[:, :, mask[0] == 0]).max() < 1e-12 and np.abs(y[:, :, mask[0] == 1]).min() > 0


@pytest.mark.parametrize("coils", [0, 3])
def test_a_real_picture_is_measured_as_the_complex_one_without_an_imaginary_part(key, coils):
    mask = ops.cartesian_mask(key, (7, 8), 2, 2)
    sensitivities = ops.simulated_coils((7, 8), coils) if coils else None
    plain, real = ops.mri(mask, sensitivities), ops.real_mri(mask, sensitivities)
    x, y = jax.random.normal(key, (7, 8, 1)), _complex(key, coils or 1, 7, 8)
    np.testing.assert_allclose(real(x), plain(jnp.concatenate((x, jnp.zeros_like(x)), -1)), atol=1e-14)
    np.testing.assert_allclose(real.adjoint(y), plain.adjoint(y)[..., :1], atol=1e-14)


def test_half_of_k_space_is_all_of_a_real_picture(key):
    """Each line or its opposite: `w` is 1/2, or 1 where both are sampled, and `A^+` finds the picture."""
    mask = jnp.broadcast_to((jnp.arange(9) >= 4).astype(float), (6, 9))
    A, x = ops.real_mri(mask), jax.random.normal(key, (6, 9, 1))
    np.testing.assert_allclose(A.pinv(A(x)), x, atol=1e-13)
    s = np.fft.fftshift(np.broadcast_to(A.spectrum().s[..., 0], (6, 9)))
    np.testing.assert_allclose(s[:, 4], 1.0)
    np.testing.assert_allclose(np.delete(s, 4, 1), np.sqrt(0.5))
    assert np.linalg.norm(ops.mri(mask).pinv(A(x))[..., :1] - x) > 0.1 * np.linalg.norm(x)


def test_noise_that_no_real_picture_makes_is_left_out(key):
    """Of a line and its opposite half of the noise is seen, of a line alone all of it."""
    mask = jnp.asarray([[0, 1, 1, 1, 1.0]]).repeat(4096, 0)
    noise = measure(key, ops.real_mri(mask), jnp.zeros((4096, 5, 1)), sigma=0.2).y[0]
    power = np.mean(np.abs(noise) ** 2, 0) / 0.2**2
    np.testing.assert_allclose(power, [0, 1, 1, 1, 2], rtol=0.1)


def test_noise_deviation_is_per_part(key):
    A = ops.mri(np.ones((64, 64)))
    y = measure(key, A, jnp.zeros(A.shape), sigma=0.3).y
    np.testing.assert_allclose([y.real.std(), y.imag.std()], 0.3, rtol=0.05)


@pytest.mark.parametrize("pattern", ["random", "equispaced"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("acs", [0, 5])
def test_cartesian_mask(pattern, axis, acs):
    size, keys = (24, 31), jax.random.split(jax.random.key(3), 16)
    masks = np.asarray(jax.jit(jax.vmap(lambda k: ops.cartesian_mask(k, size, 4, acs, pattern, axis)))(keys))
    assert masks.shape == (16, *size) and set(np.unique(masks)) == {0.0, 1.0}
    lines = masks[:, :, 0] if axis == 0 else masks[:, 0]
    assert (masks == np.expand_dims(lines, 2 - axis)).all(), "whole lines"
    n = size[axis]
    assert lines[:, n // 2 - acs // 2 :][:, :acs].all(), "centre sampled"
    assert len({line.tobytes() for line in lines}) > 3
    if pattern == "random":
        assert (lines.sum(1) == n // 4).all()
    else:
        assert (lines.sum(1) <= -(-n // 4) + acs).all() and (lines.sum(1) >= n // 4).all()


def test_estimated_coils_find_smooth_ones():
    """On a smooth picture the coils' low-resolution pictures give the sensitivities, up to one phase for each pixel."""
    size = (32, 32)
    true = ops.simulated_coils(size, 4, width=1.0)
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    picture = jnp.asarray(1 + 0.3 * np.cos(2 * rows) * np.cos(columns), complex)
    found = ops.estimated_coils(ops.fft2c(true * picture[None]), 24)
    np.testing.assert_allclose(np.sum(np.abs(found) ** 2, 0), 1.0)
    agreement = np.abs(np.sum(np.conj(found) * true, 0))[4:-4, 4:-4]
    assert agreement.min() > 0.99


def test_real_scan(shared):
    """Real 8-coil k-space: with estimated coils and all lines, `A A^+ y` explains nearly all of the measurement."""
    path = shared / "data" / "mri" / "brain_8coil_kspace_full.npz"
    if not path.exists():
        pytest.skip(f"no {path}")
    with np.load(path, allow_pickle=False) as pack:
        kspace = jnp.asarray(pack["kspace"])
    A = ops.mri(np.ones(kspace.shape[1:]), ops.estimated_coils(kspace, 32))
    x = A.adjoint(kspace)
    assert x.dtype == jnp.float32 and x.shape == (*kspace.shape[1:], 2)
    coil_pictures = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    magnitude, rss = np.linalg.norm(x, axis=-1), np.linalg.norm(coil_pictures, axis=0)
    assert np.linalg.norm(magnitude - rss) < 0.1 * np.linalg.norm(rss)
    assert np.linalg.norm(A(x) - kspace) < 0.2 * np.linalg.norm(kspace)


KEY = jax.random.key(0)
BAD = {
    "mask of lines": (lambda: ops.mri(np.ones(8)), "mask has shape"),
    "coils of another size": (lambda: ops.mri(np.ones((8, 8)), np.ones((2, 8, 6), complex)), "sensitivities are"),
    "real picture, coils of another size": (
        lambda: ops.real_mri(np.ones((8, 8)), np.ones((2, 8, 6), complex)),
        "sensitivities are",
    ),
    "real coils": (lambda: ops.mri(np.ones((8, 8)), np.ones((2, 8, 8))), "sensitivities are"),
    "acceleration": (lambda: ops.cartesian_mask(KEY, (8, 8), 0, 2), "acceleration"),
    "acs": (lambda: ops.cartesian_mask(KEY, (8, 8), 2, 9), "acs"),
    "acs too many for random": (lambda: ops.cartesian_mask(KEY, (16, 16), 4, 6), "acs is 6"),
    "pattern": (lambda: ops.cartesian_mask(KEY, (8, 8), 2, 2, "radial"), "pattern is 'radial'"),
    "axis": (lambda: ops.cartesian_mask(KEY, (8, 8), 2, 2, axis=2), "axis"),
    "no coils": (lambda: ops.simulated_coils((8, 8), 0), "coils"),
    "calibration": (lambda: ops.estimated_coils(jnp.ones((2, 8, 8), complex), 9), "acs"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()
