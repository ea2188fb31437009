"""Nonlinear operators against closed forms, NumPy, and Pillow's JPEG."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv.operators as ops
from diffinv.measurement import PoissonNoise, measure

_apply = jax.jit(lambda operator, x: operator(x))


@pytest.fixture(scope="module")
def photograph():
    """A 61 x 75 crop of a photograph in [0, 255], sides that are no multiples of a block."""
    data = pytest.importorskip("skimage.data")
    return np.asarray(data.astronaut())[40:101, 180:255]


@pytest.mark.parametrize("unit_range", [False, True])
def test_phase_retrieval_is_the_published_one(key, unit_range):
    """DPS: 64 pixels a border for 256, so 1.5 times the side; the norm is that of the padded picture (Parseval)."""
    A = ops.phase_retrieval((16, 16, 2), unit_range=unit_range)
    assert ops.phase_retrieval((256, 256, 3)).padding == (64, 64)
    x = jax.random.normal(key, A.shape)
    values = np.asarray((x + 1) / 2 if unit_range else x)
    padded = np.pad(values, ((4, 4), (4, 4), (0, 0)))
    centred = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(padded, (0, 1)), axes=(0, 1)), (0, 1)) / 24
    y = np.asarray(_apply(A, x))
    np.testing.assert_allclose(y, np.abs(centred), atol=1e-12)
    np.testing.assert_allclose(np.sum(y**2), np.sum(values**2))


def test_phase_retrieval_cannot_see_a_turn():
    """The trivial ambiguity: `x` turned by 180 degrees within odd sides, and its negative."""
    A = ops.phase_retrieval((7, 9, 1), 2.0, "factor")
    x = np.random.default_rng(0).normal(size=A.shape)
    y = _apply(A, x)
    assert y.shape == (7 + 6, 9 + 8, 1)
    np.testing.assert_allclose(_apply(A, x[::-1, ::-1].copy()), y, atol=1e-12)
    np.testing.assert_allclose(_apply(A, -x), y, atol=1e-12)


def test_high_dynamic_range_clips():
    A = ops.high_dynamic_range((1, 4, 1))
    x = jnp.asarray([-0.7, -0.2, 0.5, 0.8]).reshape(A.shape)
    np.testing.assert_allclose(A(x).ravel(), [-1, -0.4, 1, 1])
    np.testing.assert_allclose(jax.grad(lambda x: A(x).sum())(0.9 * x).ravel(), [0, 2, 2, 0])


def test_low_light_counts_photons(key):
    """Mean `exposure peak (x + 1) / 2` photons; the measurement's mean is the clean one, its variance Poisson's."""
    A, noise = ops.low_light((128, 128, 1), 0.1), PoissonNoise(100.0)
    y = np.asarray(measure(key, A, jnp.full(A.shape, 0.5), noise=noise).y)
    counts = (y + 1) * 50
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    assert abs(counts.mean() - 7.5) < 4.5 * np.sqrt(7.5 / y.size)
    assert abs(counts.var() - 7.5) < 4.5 * np.sqrt((7.5 + 2 * 7.5**2) / y.size)
    np.testing.assert_allclose(ops.intensity((2,), 3.0)(jnp.asarray([-1.0, 1.0])), [0, 3])


@pytest.mark.slow
def test_nonlinear_blur_is_a_blur_of_light(key):
    """Constants stay; a small contrast is the linear blur, to second order; brightening commutes with it."""
    A = ops.nonlinear_blur(key, (16, 18, 1), 2.0)
    x = 0.5 * jax.random.normal(key, A.shape)
    y, linear = _apply(A, x), np.asarray(_apply(A.linear, x))
    np.testing.assert_allclose(_apply(A, jnp.full(A.shape, 0.3)), 0.3, rtol=1e-12)
    np.testing.assert_allclose(y, np.log(_apply(A.linear, jnp.exp(2 * x))) / 2, atol=1e-10)
    np.testing.assert_allclose(_apply(A, x + 0.7), y + 0.7, atol=1e-10)
    gaps = [np.abs(_apply(A.replace(contrast=jnp.asarray(c)), x) - linear).max() for c in (1e-2, 1e-3)]
    assert gaps[1] < 1e-3 and abs(gaps[0] / gaps[1] - 10) < 0.2
    assert (np.asarray(y) >= linear - 1e-12).all(), "Jensen: highlights win"
    kernel = np.asarray(A.linear.kernel)
    assert (kernel > 0).all() and abs(kernel.sum() - 1) < 1e-12


def test_quantisation_is_numpys(key):
    A = ops.quantisation((50,), 5)
    x = jax.random.uniform(key, A.shape, minval=-1.3, maxval=1.3)
    nearest = np.linspace(-1, 1, 5)[np.abs(np.asarray(x)[:, None] - np.linspace(-1, 1, 5)).argmin(1)]
    np.testing.assert_allclose(A(x), nearest, atol=1e-12)
    np.testing.assert_allclose(A(A(x)), A(x), atol=1e-12)
    np.testing.assert_allclose(jax.grad(lambda x: A(x).sum())(x), np.abs(x) < 1)
    eight = ops.quantisation((3,), 256)(jnp.asarray([-1.0, 2 * 17 / 255 - 1 + 1e-3, 1.0]))
    np.testing.assert_allclose((eight + 1) * 127.5, [0, 17, 255], atol=1e-9)


def _pillow(picture, **options):
    Image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", **options)
    with Image.open(file) as image:
        return np.asarray(image, float), image.quantization


@pytest.mark.parametrize("quality", [5, 30, 50, 75, 95])
def test_jpeg_tables_are_pillows(photograph, quality):
    tables = _pillow(photograph, quality=quality)[1]
    wanted = np.stack([np.reshape(tables[i], (8, 8)) for i in (0, 1)])
    np.testing.assert_array_equal(ops.jpeg_tables(quality), wanted)


@pytest.mark.parametrize("quality, subsampling, allowed", [(100, 1, 0.1), (75, 1, 0.3), (75, 2, 0.4)])
def test_jpeg_is_pillows(photograph, quality, subsampling, allowed):
    """Up to a part of the loss: Pillow rounds YCbCr to 8 bits first, and smooths the chroma that 4:2:0 brings back."""
    wanted, _ = _pillow(photograph, quality=quality, subsampling={1: 0, 2: 2}[subsampling])
    A = ops.jpeg(photograph.shape, quality, subsampling)
    y = (np.asarray(_apply(A, jnp.asarray(photograph / 127.5 - 1))) + 1) * 127.5
    gap = np.sqrt(np.mean((y - wanted) ** 2))
    loss = np.sqrt(np.mean((wanted - photograph) ** 2))
    print(f"quality {quality}: deviation {gap:.3f} grey levels, {loss:.3f} of Pillow's from the original")
    assert gap < allowed * loss if quality < 100 else gap < 1.2


def test_grey_jpeg_is_pillows(photograph):
    """To the rounding of pixels and of an integer DCT, block for block, but where a coefficient lies at half a step."""
    grey = np.ascontiguousarray(photograph[:56, :72, 1])
    wanted, _ = _pillow(grey, quality=40)
    y = (np.asarray(_apply(ops.jpeg((*grey.shape, 1), 40), jnp.asarray(grey / 127.5 - 1)[:, :, None])) + 1) * 127.5
    gap = np.abs(y[:, :, 0] - wanted).reshape(7, 8, 9, 8).max((1, 3))
    assert np.mean(gap < 0.6) > 0.9


def test_jpeg_is_a_fixed_point_of_its_own_output(key):
    """Inside the range, a decoded grey picture has whole coefficients: encoding it again changes nothing."""
    A = ops.jpeg((16, 16, 1), 50)
    x = 0.1 * jax.random.normal(key, A.shape)
    y = _apply(A, x)
    np.testing.assert_allclose(_apply(A, y), y, atol=1e-12)
    straight = jax.jit(jax.grad(lambda x: 0.5 * jnp.sum(A(x) ** 2)))(x)
    np.testing.assert_allclose(straight, y, atol=1e-12, err_msg="the identity's gradient")
    slope = jax.jit(lambda y, x: jax.jvp(A.replace(gradient="cubic"), (y,), (x,))[1])(y, x)
    np.testing.assert_allclose(slope, 0.0, atol=1e-9, err_msg="flat at whole coefficients")


KEY = jax.random.key(0)
BAD = {
    "padding": (lambda: ops.phase_retrieval((8, 8, 3), padding="half"), "padding is 'half'"),
    "oversample": (lambda: ops.phase_retrieval((8, 8, 3), 0.5, "factor"), "oversample is 0.5"),
    "gain": (lambda: ops.high_dynamic_range((8, 8, 3), 0.0), "gain is 0.0"),
    "exposure": (lambda: ops.low_light((8, 8, 3), -1.0), "exposure is -1.0"),
    "contrast": (lambda: ops.nonlinear_blur(KEY, (8, 8, 3), 0.0), "contrast is 0.0"),
    "std": (lambda: ops.nonlinear_blur(KEY, (8, 8, 3), std=0.0), "std is 0.0"),
    "levels": (lambda: ops.quantisation((8,), 1), "levels is 1"),
    "quality": (lambda: ops.jpeg((8, 8, 3), 0), "quality is 0"),
    "channels": (lambda: ops.jpeg((8, 8, 2), 50), "1 channel"),
    "subsampling": (lambda: ops.jpeg((8, 8, 3), 50, 4), "subsampling"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()
