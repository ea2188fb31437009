"""Ray transforms of Gaussians and a disk in closed form, and against scikit-image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import diffinv.operators as ops
from operators.dots import dot_gap

_apply = jax.jit(lambda operator, x: operator(x))
ANGLES = np.linspace(0, np.pi, 7)
BLOB = (3.2, -5.1)


def _gaussian(size, centre, std):
    """A picture (N, N, 1) of peak 1 about the pixel (N//2 + row, N//2 + column)."""
    rows, columns = np.meshgrid(*2 * [np.arange(size) - size // 2], indexing="ij")
    square = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2
    return jnp.asarray(np.exp(-0.5 * square / std**2)[:, :, None])


def _line_integrals(operator, centre, std):
    """Of the continuous Gaussian: `std sqrt(2 pi)` times the Gaussian of the distance from ray to centre."""
    feet, along = np.asarray(operator.feet), np.asarray(operator.directions)
    gap = np.asarray(centre) - feet
    distance = gap[..., 0] * along[..., 1] - gap[..., 1] * along[..., 0]
    return std * np.sqrt(2 * np.pi) * np.exp(-0.5 * distance**2 / std**2)


def _beams(size):
    fan = 2 * np.arcsin(0.5 / 1.5)
    return {
        "parallel": ops.parallel_beam((size, size, 1), ANGLES),
        "arc": ops.fan_beam((size, size, 1), 2 * ANGLES, 1.5 * size, fan),
        "flat": ops.fan_beam((size, size, 1), 2 * ANGLES, 1.5 * size, fan, detector="flat", bins=50),
    }


@pytest.mark.parametrize("beam", ["parallel", "flat", pytest.param("arc", marks=pytest.mark.slow)])
def test_gaussian_is_its_closed_form(beam):
    """Bilinear interpolation blurs with variance `h^2 / 6 .. h^2 / 4` a side: the error is of second order in 1 / std.

    At std 4 it is about `1 / (6 std^2)` = 1 %; at std 8, on twice the grid, a quarter of that.
    """
    errors = []
    for size, std in ((32, 4.0), (64, 8.0)):
        A, centre = _beams(size)[beam], np.multiply(BLOB, size / 64)
        y, wanted = _apply(A, _gaussian(size, centre, std))[..., 0], _line_integrals(A, centre, std)
        errors.append(np.linalg.norm(y - wanted) / np.linalg.norm(wanted))
    assert errors[0] < 0.012 and abs(errors[0] / errors[1] - 4) < 0.3, errors


def test_disk_is_its_chords():
    """A uniform disk of radius r: chords `2 sqrt(r^2 - s^2)`; its mass is the same in every view."""
    size, radius = 96, 30.0
    fine = (np.arange(8 * size) + 0.5) / 8 - size // 2 - 0.5
    inside = np.hypot(fine[:, None], fine[None, :]) < radius
    disk = jnp.asarray(inside.reshape(size, 8, size, 8).mean((1, 3))[:, :, None])
    y = np.asarray(_apply(ops.parallel_beam(disk.shape, ANGLES), disk))[..., 0]
    s = np.arange(size) - size // 2
    chord = 2 * np.sqrt(np.maximum(radius**2 - s**2, 0))
    assert np.abs(y - chord)[:, np.abs(s) < 0.9 * radius].max() < 0.01 * radius
    np.testing.assert_allclose(y.sum(1), np.pi * radius**2, rtol=2e-3)


def test_parallel_is_scikit_images():
    radon = pytest.importorskip("skimage.transform").radon
    picture = _gaussian(48, (5.0, -3.0), 5.0) + 0.5 * _gaussian(48, (-7.0, 6.0), 3.0)
    places = np.hypot(*np.meshgrid(*2 * [np.arange(48) - 24]))
    picture = jnp.where((places < 24)[:, :, None], picture, 0.0)
    y = _apply(ops.parallel_beam(picture.shape, ANGLES), picture)[..., 0]
    wanted = radon(np.array(picture)[..., 0], np.degrees(ANGLES), circle=True).T
    assert np.linalg.norm(y - wanted) < 5e-3 * np.linalg.norm(wanted)


@pytest.mark.parametrize("detector", ["arc", "flat"])
def test_fan_is_its_documented_geometry(detector):
    """Brute force: lines from the source at `-source (cos a, sin a)`, at `g` from the one through the origin, summed
    pixel by pixel in float64; the rays of a view meet in its source."""
    angles, source, fan, bins = np.array([0.0, 0.4, np.pi / 2, 4.0]), 17.0, 0.8, 7
    x = np.random.default_rng(0).standard_normal((9, 8))
    A = ops.fan_beam((9, 8, 1), angles, source, fan, bins, detector)
    place = (np.arange(bins) - 3) / bins
    spread = fan * place if detector == "arc" else np.arctan(2 * np.tan(fan / 2) * place)
    wanted = np.zeros((4, bins))
    for view, a in enumerate(angles):
        start, inward = -source * np.array([np.cos(a), np.sin(a)]), np.array([np.cos(a), np.sin(a)])
        aside = np.array([-np.sin(a), np.cos(a)])  # with growing column at the angle 0
        for ray, g in enumerate(spread):
            along = np.cos(g) * inward + np.sin(g) * aside
            middle = source * np.cos(g)
            steps = middle + 0.5 * (np.arange(A.samples) - (A.samples - 1) / 2)
            points = start[:, None] + along[:, None] * steps + np.array([[4], [4]])
            wanted[view, ray] = 0.5 * np.sum(
                ndimage.map_coordinates(np.pad(x, 1), points + 1, order=1, mode="constant")
            )
    np.testing.assert_allclose(A(jnp.asarray(x)[:, :, None])[..., 0], wanted, atol=1e-10)


def test_fan_far_away_is_parallel():
    """From 1000 sides away the rays are parallel, to a thousandth of a pixel."""
    x = _gaussian(24, (3.0, 2.0), 3.0)
    far = ops.fan_beam(x.shape, ANGLES, 24e3, 2 * np.arctan(0.5e-3), 24, detector="flat")
    near = ops.parallel_beam(x.shape, ANGLES, 49, 0.5)
    place = np.linalg.norm(np.asarray(far.feet), axis=-1)
    np.testing.assert_allclose(place[0], np.abs(np.arange(24) - 11.5), atol=1e-3)
    np.testing.assert_allclose(_apply(far, x), _apply(near, x)[:, 1::2], atol=2e-2)


@pytest.mark.parametrize("beam", ["parallel", "flat"])
def test_adjoint_is_matched(beam):
    """The dot test to rounding, on odd and unequal sides and several channels."""
    shape = (9, 8, 2)
    A = {
        "parallel": ops.parallel_beam(shape, ANGLES, 11, 0.8),
        "flat": ops.fan_beam(shape, ANGLES, 20.0, 0.7, 10, "flat"),
    }[beam]
    assert dot_gap(A) < 1e-13


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_single_rounded_once(dtype, key):
    """Places near 64 are half a pixel apart in bfloat16, which would move every ray."""
    A = ops.parallel_beam((64, 64, 1), ANGLES)
    x = jax.random.uniform(key, A.shape, dtype)
    assert _apply(A, x).dtype == dtype
    np.testing.assert_array_equal(_apply(A, x), _apply(A, x.astype(jnp.float32)).astype(dtype))


@pytest.mark.slow
def test_real_slice_comes_back(shared):
    """A slice of a real scan, 48 pixels, 60 views: 64 steps of conjugate gradients come within 5 %."""
    path = shared / "data" / "ct" / "cranium_ct_hu.npz"
    if not path.exists():
        pytest.skip(f"no {path}")
    with np.load(path, allow_pickle=False) as pack:
        volume = pack["volume"]
    middle = volume[len(volume) // 2].astype(float)
    side = min(middle.shape) // 48
    small = middle[: 48 * side, : 48 * side].reshape(48, side, 48, side).mean((1, 3))
    rows, columns = np.meshgrid(*2 * [np.arange(48) - 24], indexing="ij")
    x = jnp.asarray(np.where(np.hypot(rows, columns) < 22, (small - small.min()) / np.ptp(small), 0)[:, :, None])
    A = ops.parallel_beam(x.shape, np.pi / 60 * np.arange(60))
    found = jax.jit(lambda A, y: A.pinv(y))(A, _apply(A, x))
    assert np.linalg.norm(found - x) < 0.05 * np.linalg.norm(x)


BAD = {
    "angles": (lambda: ops.parallel_beam((8, 8, 1), np.ones((2, 2))), "angles has shape"),
    "spacing": (lambda: ops.parallel_beam((8, 8, 1), ANGLES, spacing=0.0), "spacing is 0.0"),
    "source inside": (lambda: ops.fan_beam((8, 8, 1), ANGLES, 4.0, 0.5), "source is 4.0"),
    "fan": (lambda: ops.fan_beam((8, 8, 1), ANGLES, 40.0, 4.0), "fan is 4.0"),
    "detector": (lambda: ops.fan_beam((8, 8, 1), ANGLES, 40.0, 0.5, detector="curved"), "'curved'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()
