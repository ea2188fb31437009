"""Picture metrics against scikit-image and dm-pix, and their invariance under a change of range."""

import contextlib

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color
import skimage.metrics
from skimage import data

from diffinv.metrics import image as metrics

RANGE = (-1.0, 1.0)


@pytest.fixture(scope="module")
def pair():
    """A photograph and a noisy copy, (40, 48, 3), float32 in [-1, 1]."""
    truth = data.astronaut()[100:140, 200:248] / 127.5 - 1
    noisy = np.clip(truth + np.random.default_rng(0).normal(0, 0.2, truth.shape), -1, 1)
    return jnp.asarray(truth, jnp.float32), jnp.asarray(noisy, jnp.float32)


@contextlib.contextmanager
def lenient():
    """dm-pix is not written for our strictness."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _skimage_ssim(x, y, span):
    return skimage.metrics.structural_similarity(
        np.asarray(x, np.float64),
        np.asarray(y, np.float64),
        data_range=span,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )


def test_psnr_equals_the_oracles(pair):
    x, y = pair
    ours = metrics.psnr(x, y, RANGE)
    assert ours == pytest.approx(
        skimage.metrics.peak_signal_noise_ratio(*map(np.asarray, pair), data_range=2), abs=1e-4
    )
    with lenient():
        assert ours == pytest.approx(float(dm_pix.psnr((x + 1) / 2, (y + 1) / 2)), abs=1e-4)


def test_nmse_is_fastmris_measured_from_black(pair):
    """`norm(gt - pred)^2 / norm(gt)^2` of its code, of pictures from 0 on; 1 where there is no signal."""
    truth, x = pair
    signal = [np.asarray(each, np.float64) + 1 for each in pair]
    expected = np.linalg.norm(signal[0] - signal[1]) ** 2 / np.linalg.norm(signal[0]) ** 2
    assert metrics.nmse(truth, x, RANGE) == pytest.approx(expected, rel=1e-5)
    assert metrics.nmse((truth + 1) / 2, (x + 1) / 2, (0, 1)) == pytest.approx(expected, rel=1e-5)
    assert metrics.nmse(truth, jnp.full_like(truth, -1), RANGE) == 1 and metrics.nmse(truth, truth, RANGE) == 0
    assert metrics.nmse(x, truth, RANGE) != pytest.approx(expected, rel=1e-3)


def test_ssim_equals_skimage_measured_from_black(pair):
    x, y = pair
    assert metrics.ssim(x, y, RANGE) == pytest.approx(_skimage_ssim(x + 1, y + 1, 2), abs=1e-5)


def test_ssim_equals_dm_pix(pair):
    x, y = ((a + 1) / 2 for a in pair)
    with lenient():
        assert metrics.ssim(x, y, (0, 1)) == pytest.approx(float(dm_pix.ssim(x, y)), abs=1e-5)


def test_ssim_of_a_32_by_32_picture_and_of_grey(pair):
    x, y = (a[:32, :32, :1] for a in pair)
    assert metrics.ssim(x, y, RANGE) == pytest.approx(_skimage_ssim(x + 1, y + 1, 2), abs=1e-5)


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim, lambda x, y, r: metrics.psnr_y(x, y, r, 4)])
def test_the_value_does_not_depend_on_the_range(metric, pair):
    x, y = (jnp.round((a + 1) * 127.5) for a in pair)
    expected = float(metric(x, y, (0, 255)))
    assert metric(x / 127.5 - 1, y / 127.5 - 1, RANGE) == pytest.approx(expected, rel=1e-4)
    assert metric(x.astype(jnp.uint8), y.astype(jnp.uint8), (0, 255)) == expected


def test_luma_is_matlabs(pair):
    x, _ = pair
    expected = skimage.color.rgb2ycbcr((np.asarray(x, np.float64) + 1) / 2)[..., 0]
    np.testing.assert_allclose(metrics.y_channel(x, RANGE), expected, atol=1e-4)
    black_and_white = jnp.stack([jnp.zeros((1, 3)), jnp.ones((1, 3))])
    np.testing.assert_allclose(metrics.y_channel(black_and_white, (0, 1)).ravel(), [16, 235], rtol=1e-6)


def test_psnr_y_does_not_see_the_border(pair):
    x, y = pair
    spoilt = y.at[:4].set(1.0).at[:, -4:].set(-1.0)
    assert metrics.psnr_y(x, spoilt, RANGE, 4) == metrics.psnr_y(x, y, RANGE, 4)
    luma = [skimage.color.rgb2ycbcr((np.asarray(a, np.float64) + 1) / 2)[4:-4, 4:-4, 0] for a in pair]
    expected = skimage.metrics.peak_signal_noise_ratio(*luma, data_range=255)
    assert metrics.psnr_y(x, y, RANGE, 4) == pytest.approx(expected, abs=1e-4)


def test_equal_pictures(pair):
    x, _ = pair
    assert metrics.psnr(x, x, RANGE) == jnp.inf
    assert metrics.ssim(x, x, RANGE) == pytest.approx(1, abs=1e-6)
    assert metrics.feature_distance(lambda a: (a,), x, x) == 0


def test_float64_is_kept(pair):
    x, y = (a.astype(jnp.float64) for a in pair)
    assert metrics.ssim(x, y, RANGE).dtype == jnp.float64
    assert metrics.ssim(x, y, RANGE) == pytest.approx(_skimage_ssim(x + 1, y + 1, 2), abs=1e-12)


@pytest.mark.parametrize("bad", [None, 2, (1, -1), (0, 0), (0, float("nan")), (0, 1, 2)])
@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim])
def test_a_range_that_is_none_is_refused(metric, bad, pair):
    with pytest.raises(ValueError, match=r"data_range is .*give \(low, high\)"):
        metric(*pair, bad)


def test_the_range_cannot_be_left_out(pair):
    with pytest.raises(TypeError, match="data_range"):
        metrics.psnr(*pair)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x: metrics.psnr(x, x[:1], RANGE), "one shape"),
        (lambda x: metrics.psnr(x[None], x[None], RANGE), "vmap"),
        (lambda x: metrics.ssim(x[:10], x[:10], RANGE), "11"),
        (lambda x: metrics.y_channel(x[..., :1], RANGE), "RGB"),
        (lambda x: metrics.psnr_y(x, x, RANGE, 20), "border is 20"),
        (lambda x: metrics.psnr(x, np.zeros(x.shape, np.uint8), RANGE), r"y is uint8, data_range .*give \(0, 255\)"),
        (lambda x: metrics.ssim(x.astype(complex), x, RANGE), "x is complex128; give one real picture"),
        (lambda x: metrics.psnr("a.png", x, RANGE), "x is <U5; give one real picture"),
    ],
)
def test_errors_say_what_to_do(call, words, pair):
    with pytest.raises(ValueError, match=words):
        call(pair[0])


def test_feature_distance_by_hand():
    """Two taps: orthogonal unit vectors at one of two positions (2 / 2 = 1), opposite ones everywhere (4)."""
    taps = {
        0: (jnp.array([[[2.0, 0.0], [0.0, 3.0]]]), jnp.array([[[1.0]]])),
        1: (jnp.array([[[5.0, 0.0], [7.0, 0.0]]]), jnp.array([[[-9.0]]])),
    }
    features = lambda x: jax.tree.map(lambda a, b: jnp.where(x[0, 0, 0] > 0, b, a), taps[0], taps[1])
    x, y = -jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1))
    assert metrics.feature_distance(features, x, y) == pytest.approx((1 + 4) / 2, rel=1e-6)


def test_feature_distance_has_a_finite_gradient_at_black():
    features = lambda x: (x, x**2)
    gradient = jax.grad(lambda x: metrics.feature_distance(features, x, jnp.ones((4, 4, 3), jnp.float32)))
    assert jnp.isfinite(gradient(jnp.zeros((4, 4, 3), jnp.float32))).all()


def test_vmap_gives_each_pictures_own_number(pair):
    batch = jnp.stack([pair[1], pair[0] * 0.5])
    together = jax.vmap(lambda y: metrics.ssim(pair[0], y, RANGE))(batch)
    alone = jnp.stack([metrics.ssim(pair[0], y, RANGE) for y in batch])
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_a_distance_by_known_features_is_that_of_the_pictures(pair):
    features = lambda x: (jnp.tanh(x), x[::2] ** 2)
    expected = float(metrics.feature_distance(features, *pair))
    assert float(metrics.tap_distance(*map(features, pair))) == pytest.approx(expected, rel=1e-6) and expected > 0
    with pytest.raises(ValueError, match="zip"):
        metrics.tap_distance(features(pair[0]), features(pair[1])[:1])
