"""Fourier sums at any points against NumPy and the Cartesian transform; the gridded ones against the exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv.operators as ops
from operators.dots import dot_gap

SIZE = (8, 9)


def _picture(seed, *lead):
    real, imaginary = np.random.default_rng(seed).normal(size=(2, *lead, *SIZE))
    return jnp.asarray(real + 1j * imaginary)


def _points(seed, count):
    return jnp.asarray(np.random.default_rng(seed).uniform(-0.5, 0.5, (count, 2)) * SIZE)


def test_nudft_is_its_sum():
    z, points = _picture(0, 2), _points(1, 11)
    rows, columns = (np.arange(n) - n // 2 for n in SIZE)
    k = np.asarray(points)
    turns = k[:, 0, None, None] * rows[:, None] / 8 + k[:, 1, None, None] * columns / 9
    wanted = np.sum(np.asarray(z)[:, None] * np.exp(-2j * np.pi * turns), (2, 3)) / np.sqrt(72)
    np.testing.assert_allclose(jax.jit(ops.nudft)(z, points), wanted, atol=1e-12)


def test_whole_points_are_the_cartesian_transform():
    rows, columns = np.meshgrid(*(np.arange(n) - n // 2 for n in SIZE), indexing="ij")
    points = jnp.asarray(np.stack((rows, columns), -1).reshape(-1, 2), float)
    z = _picture(0)
    np.testing.assert_allclose(jax.jit(ops.nudft)(z, points).reshape(SIZE), ops.fft2c(z), atol=1e-12)


@pytest.mark.parametrize("width, allowed", [(3, 1e-2), (6, 3e-5), (12, 1e-10)])
def test_nufft_converges_with_its_width(width, allowed):
    z, points = _picture(0, 2), _points(1, 300)
    wanted = jax.jit(ops.nudft)(z, points)
    error = jnp.linalg.norm(jax.jit(ops.nufft, static_argnums=2)(z, points, width) - wanted)
    assert error < allowed * jnp.linalg.norm(wanted)


@pytest.mark.parametrize("width", [None, 6])
def test_adjoint_is_matched(width):
    A = ops.non_cartesian_mri(SIZE, _points(1, 20), ops.simulated_coils(SIZE, 2), width)
    assert dot_gap(A) < 1e-13
    assert ops.output(A).shape == (2, 20) and ops.output(A).dtype == jnp.complex64


@pytest.mark.slow
def test_enough_points_give_the_picture_back():
    """Twice the unknowns, gridded, two coils: the pseudo-inverse is the picture, to the interpolation's error."""
    A = ops.non_cartesian_mri(SIZE, _points(1, 150), ops.simulated_coils(SIZE, 2), 12)
    x = jnp.stack((_picture(2).real, _picture(2).imag), -1)
    found = jax.jit(lambda A, x: A.pinv(A(x)))(A, x)
    np.testing.assert_allclose(found, x, atol=1e-6)


def test_trajectories_fill_the_disk():
    spokes = np.asarray(ops.radial(5, 16, (32, 32)))
    assert spokes.shape == (80, 2) and np.abs(spokes).max() <= 16
    angle = np.degrees(np.arctan2(spokes[31, 0], spokes[31, 1]))
    assert abs(angle - 111.246) < 1e-3 and (spokes[8::16] == 0).all()
    radius = np.linalg.norm(np.asarray(ops.spiral(4000, 16, (32, 32))), axis=1)
    share, _ = np.histogram(radius, bins=16 * np.sqrt(np.arange(5) / 4))
    np.testing.assert_allclose(share, 1000, atol=2, err_msg="equal density in area")


BAD = {
    "points": (lambda: ops.non_cartesian_mri((8, 8), np.ones(4)), "points has shape"),
    "width": (lambda: ops.non_cartesian_mri((8, 8), np.ones((4, 2)), width=1), "width is 1"),
    "coils": (lambda: ops.non_cartesian_mri((8, 8), np.ones((4, 2)), np.ones((1, 8, 8))), "sensitivities are"),
    "spokes": (lambda: ops.radial(0, 4, (8, 8)), "spokes is 0"),
    "turns": (lambda: ops.spiral(4, 0.0, (8, 8)), "turns is 0.0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()
