"""The whole degradation: against NumPy and SciPy at the sizes that were drawn, and as a pure function of its key."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from scipy import ndimage

from degrade.test_resizing import oracle as weights
from diffinv import degrade
from diffinv.degrade.draws import BlurDraw, Draw, NoiseDraw, ResizeDraw, StageDraw
from diffinv.degrade.kernels import NONE, SINC, kernel
from diffinv.degrade.resizing import MODES
from diffinv.operators import imresize, jpeg

SIDE = 32


@lru_cache
def photographs():
    """Four crops of a photograph, float64 in [-1, 1], just off the 8-bit levels: JPEG's rounding would have ties."""
    data = pytest.importorskip("skimage.data")
    pixels = np.clip(np.asarray(data.astronaut()) / 127.5 - 1, -0.999, 0.999)
    pixels = pixels + np.random.default_rng(0).uniform(-1e-3, 1e-3, pixels.shape)
    return np.stack([pixels[i : i + SIDE, j : j + SIDE] for i, j in ((100, 200), (60, 10), (300, 250), (0, 400))])


@lru_cache
def compiled():
    """`realesrgan` in two steps, before and after the rounding, with a given draw where there is one."""

    def example(key, image, given, draw):
        drawn, noise = jax.random.split(key)
        own = degrade.draw(drawn, degrade.resshift_train)
        draw = jax.tree.map(lambda a, b: jnp.where(given, jnp.asarray(a, b.dtype), b), draw, own)
        raw = degrade.degrade(noise, image, 4, draw, degrade.resshift_train, rounded=False)
        return raw, degrade.quantise(raw)

    return jax.jit(jax.vmap(example, (0, 0, None, 0)), compiler_options=FAST)


def degraded(keys, images):
    """Four low-resolution pictures of draws of their own."""
    return np.asarray(compiled()(keys, images, False, STACKED)[1])


def quiet_stage(blur, scale, mode, quality=100.0):
    return StageDraw(blur, ResizeDraw(scale, MODES.index(mode)), NoiseDraw(True, 0.0, 0.0, False), quality)


def blur_draw(family, side=3, deviations=(1.0, 1.0), angle=0.0, beta=1.0, cutoff=2.0):
    return BlurDraw(family, side, np.array(deviations), angle, beta, cutoff)


STILL = blur_draw(NONE)
BLURS = blur_draw(1, 9, (2.5, 0.8), 0.7), blur_draw(5, 5, (0.6, 1.1), -1.0, 1.4), blur_draw(SINC, 7, cutoff=1.8)
DRAWS = [
    Draw(quiet_stage(STILL, 1.0, "area"), quiet_stage(STILL, 1.0, "area"), False, STILL, MODES.index("area"), False),
    Draw(quiet_stage(BLURS[0], 0.61, "bicubic", 60.0), quiet_stage(STILL, 1.0, "area", 45.0), False, BLURS[2], 1, True),
    Draw(
        quiet_stage(BLURS[0], 1.41, "bilinear", 35.0), quiet_stage(BLURS[1], 0.7, "area", 80.0), True, STILL, 2, False
    ),
    Draw(
        quiet_stage(BLURS[1], 0.3, "area", 92.0), quiet_stage(BLURS[1], 1.2, "bicubic", 70.0), True, BLURS[2], 0, True
    ),
]
STACKED = jax.tree.map(lambda *leaves: np.stack(leaves), *DRAWS)


class Slowly:
    """The published steps, one picture at its own size, without a canvas."""

    kernel = staticmethod(jax.jit(kernel, static_argnums=0))

    def blur(self, x, blur):
        weight = np.asarray(self.kernel(19, *blur))
        return np.stack([ndimage.correlate(x[..., c], weight, mode="mirror") for c in range(3)], -1)

    def resize(self, x, size, mode, pitches):
        rows, columns = (weights(MODES[mode], n, m, p) for n, m, p in zip(x.shape, size, pitches))
        return np.einsum("ih,hwc,jw->ijc", rows, x, columns)

    def compress(self, x, quality):
        """On whole units of 16 x 16, filled by the border."""
        height, width, _ = x.shape
        padded = np.pad(np.clip(x, -1, 1), ((0, -height % 16), (0, -width % 16), (0, 0)), "edge")
        return np.asarray(_jpeg(padded, quality))[:height, :width]

    def __call__(self, x, draw, scale=4):
        small = tuple(n // scale for n in x.shape[:2])
        first, second = draw.first, draw.second
        size = tuple(int(n * first.resize.scale) for n in x.shape[:2])
        x = self.resize(self.blur(x, first.blur), size, first.resize.mode, [1 / first.resize.scale] * 2)
        x = self.compress(x, first.quality)
        if draw.second_order:
            size = tuple(int(n * second.resize.scale) for n in small)
            pitches = [n / m for n, m in zip(x.shape, size)]
            x = np.clip(self.resize(self.blur(x, second.blur), size, second.resize.mode, pitches), -1, 1)
        x = x if draw.resize_first else self.compress(x, second.quality)
        x = self.resize(x, small, draw.mode, [n / m for n, m in zip(x.shape, small)])
        x = self.blur(x, draw.sinc)
        return self.compress(x, second.quality) if draw.resize_first else x


@jax.jit
def _jpeg(x, quality):
    return jpeg(x.shape, quality)(x)


@pytest.mark.slow
def test_without_noise_it_is_the_published_steps_at_the_true_sizes():
    found = np.asarray(compiled()(jax.random.split(jax.random.key(0), 4), photographs(), True, STACKED)[0])
    assert found.shape == (4, SIDE // 4, SIDE // 4, 3)
    slowly = Slowly()
    for x, draw, mine in zip(photographs(), DRAWS, found):
        np.testing.assert_allclose(mine, slowly(x, draw), rtol=0, atol=1e-9)
    plain = photographs()[0].reshape(8, 4, 8, 4, 3).mean((1, 3))
    assert np.sqrt(np.mean((found[0] - plain) ** 2)) < 0.02  # twice JPEG of quality 100: chroma is halved


def test_same_key_same_result_and_the_batch_does_not_matter():
    keys, images = jax.random.split(jax.random.key(3), 4), photographs()
    found = degraded(keys, images)
    np.testing.assert_array_equal(found, degraded(keys, images))
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(found[order], degraded(keys[order], images[order]), atol=1e-12)
    other = degraded(jax.random.split(jax.random.key(4), 4), images)
    assert (np.abs(found - other).max((1, 2, 3)) > 0.05).all()


def test_results_are_in_range_and_have_8_bits():
    for seed in range(4):
        found = degraded(jax.random.split(jax.random.key(seed), 4), photographs())
        level = 127.5 * (found + 1)
        assert found.min() >= -1 and found.max() <= 1 and np.isfinite(found).all()
        np.testing.assert_allclose(level, np.rint(level), atol=1e-9)
        assert (found.std((1, 2, 3)) > 0.05).all()


@pytest.mark.slow
def test_one_by_one_and_in_a_batch_are_the_same():
    keys, images = jax.random.split(jax.random.key(3), 4), photographs()
    one = jax.jit(degrade.realesrgan, compiler_options=FAST)
    for key, image, found in zip(keys, images, degraded(keys, images)):
        np.testing.assert_allclose(one(key, image), found, atol=1e-12)


STAGES = {
    "draw": lambda key, image: degrade.draw(key, degrade.resshift_train),
    "resize": lambda key, image: degrade.interpolate(image, (20, 40)),
    "noise": lambda key, image: degrade.gaussian_noise(key, image, 10.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_eager_and_compiled_are_the_same(key, stage):
    eager, found = (f(key, photographs()[0]) for f in (STAGES[stage], jax.jit(STAGES[stage], compiler_options=FAST)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), eager, found)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [degrade.resshift_test, degrade.stock])
def test_other_settings_sizes_and_scales(settings):
    """Odd sides, one channel, float32, another scale; every result finite, the milder ones near the bicubic picture."""
    image = photographs()[0][:30, :27, :1].astype(np.float32)
    many = jax.jit(jax.vmap(lambda key: degrade.realesrgan(key, image, 3, settings)), compiler_options=FAST)
    found = np.asarray(many(jax.random.split(jax.random.key(0), 64)))
    assert found.shape == (64, 10, 9, 1) and found.dtype == np.float32 and np.isfinite(found).all()
    error = np.abs(found - np.asarray(degrade.matlab_bicubic(jnp.asarray(image), 3))).mean((1, 2, 3))
    assert np.median(error) < (0.1 if settings is degrade.resshift_test else 0.4)


def test_bicubic_is_matlabs():
    image = jnp.asarray(photographs()[0])
    small = np.asarray(degrade.matlab_bicubic(image, 4))
    np.testing.assert_array_equal(small, imresize(image, (8, 8)))
    rounded = np.asarray(degrade.matlab_bicubic(image, 4, rounded=True))
    assert np.abs(rounded - np.clip(small, -1, 1)).max() <= 1 / 255 + 1e-12
    np.testing.assert_allclose(127.5 * (rounded + 1), np.rint(127.5 * (rounded + 1)), atol=1e-9)


def test_quantise_rounds_and_clips():
    values = np.array([-3.0, -1.0, -0.998, 0.0, 1 / 255, 0.9999, 7.0])
    np.testing.assert_allclose(degrade.quantise(values), [-1, -1, -1, 1 / 255, 1 / 255, 1, 1], atol=1e-12)
    levels = np.arange(256) / 127.5 - 1
    np.testing.assert_allclose(degrade.quantise(levels), levels, atol=1e-12)


@pytest.mark.parametrize("method", ["matlab_bicubic", "realesrgan"])
def test_bad_arguments_are_named(method):
    def tried(shape, scale=4, dtype=np.float32):
        image = jax.ShapeDtypeStruct(shape, dtype)
        key = [jax.random.key(0)] if method == "realesrgan" else []
        jax.eval_shape(lambda *arrays: getattr(degrade, method)(*arrays, scale), *key, image)

    with pytest.raises(ValueError, match=r"scale is 4; it must divide the picture's \(30, 32\): crop it"):
        tried((30, 32, 3))
    with pytest.raises(ValueError, match="scale is 0"):
        tried((32, 32, 3), 0)
    with pytest.raises(ValueError, match=r"image is \(32, 32, 3\) uint8; give floats .* data.to_unit"):
        tried((32, 32, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"image is \(32, 32, 4\) float32"):
        tried((32, 32, 4))
    with pytest.raises(ValueError, match=r"image is \(32, 32\) float32"):
        tried((32, 32))
    with pytest.raises(ValueError, match=r"image is \? list; give floats"):
        degrade.matlab_bicubic([[0.0]], 2)
    with pytest.raises(ValueError, match="image has 3072 values that are not finite"):
        degrade.matlab_bicubic(np.full((32, 32, 3), np.nan), 2)
    with pytest.raises(ValueError, match="key is 0; give one key"):
        degrade.realesrgan(0, np.zeros((32, 32, 3), np.float32))
