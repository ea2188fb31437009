"""MS-SSIM against the algorithm of its authors' MATLAB file in NumPy and SciPy, and against SSIM at one scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from scipy import signal

from diffinv.metrics import image as metrics

RANGE = (-1.0, 1.0)


@pytest.fixture(scope="module")
def pair():
    """Smooth random pictures with edges, (51, 46, 2), and a noisy copy; float64 in [-1, 1]."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:51, :46] / 10
    truth = np.stack([np.sin(rows * 2 + columns), np.sign(np.cos(rows - 3 * columns))], -1) * 0.8
    return jnp.asarray(truth), jnp.asarray(np.clip(truth + rng.normal(0, 0.2, truth.shape), -1, 1))


def by_matlab(x, y, span, weights):
    """`msssim.m`: filter with ones(2)/4 and symmetric borders, every other pixel; the mean SSIM of the last scale."""
    window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(window, window) / window.sum() ** 2
    mean = lambda a: signal.convolve2d(a, window, "valid")
    found = 1.0
    for scale, weight in enumerate(weights, 1):
        c1, c2, m, n = (0.01 * span) ** 2, (0.03 * span) ** 2, mean(x), mean(y)
        cs = (2 * (mean(x * y) - m * n) + c2) / (mean(x * x) - m * m + mean(y * y) - n * n + c2)
        if scale == len(weights):
            cs = cs * (2 * m * n + c1) / (m * m + n * n + c1)
        found *= cs.mean() ** weight
        x, y = (signal.convolve2d(np.pad(a, ((0, 1), (0, 1)), "symmetric"), np.full((2, 2), 0.25), "valid")[::2, ::2]
                for a in (x, y))  # fmt: skip
    return found


@pytest.mark.parametrize("weights", [(1.0,), (0.3, 0.7), (0.2, 0.3, 0.5)])
def test_it_is_the_authors_algorithm_of_each_channel(weights, pair):
    x, y = (np.asarray(a) + 1 for a in pair)
    expected = np.mean([by_matlab(x[..., c], y[..., c], 2, weights) for c in range(2)])
    np.testing.assert_allclose(metrics.ms_ssim(*pair, RANGE, weights), expected, rtol=1e-10)


def test_one_scale_of_weight_one_is_ssim_and_equal_pictures_have_one(pair):
    x, y = pair
    np.testing.assert_allclose(metrics.ms_ssim(x, y, RANGE, (1.0,)), metrics.ssim(x, y, RANGE), rtol=1e-12)
    np.testing.assert_allclose(metrics.ms_ssim(x, x, RANGE, (0.5, 0.5)), 1, rtol=1e-12)
    assert metrics.ms_ssim(x, -x, RANGE, (1.0,)) == 0 > metrics.ssim(x, -x, RANGE)


def test_the_published_weights_sum_to_one_and_ask_for_176_pixels(pair):
    assert sum(metrics.SCALES) == pytest.approx(1, abs=2e-4)  # they are printed so
    with pytest.raises(ValueError, match="5 scales need height, width >= 176; give fewer weights"):
        metrics.ms_ssim(*pair, RANGE)
    shape = jax.eval_shape(lambda x: metrics.ms_ssim(x, x, RANGE), jnp.zeros((176, 176, 1)))
    assert shape.shape == ()


def test_its_unit_and_its_gradient(pair):
    x, y = (jnp.round((a + 1) * 127.5) for a in pair)
    expected = float(metrics.ms_ssim(x, y, (0, 255), (0.5, 0.5)))
    assert metrics.ms_ssim(x / 127.5 - 1, y / 127.5 - 1, RANGE, (0.5, 0.5)) == pytest.approx(expected, rel=1e-9)
    small = pair[0][:11, :11, :1]
    slope = jax.jit(jax.grad(lambda a: metrics.ms_ssim(small, a, RANGE, (0.5,))), compiler_options=FAST)
    for given in (pair[1][:11, :11, :1], -small):
        assert jnp.isfinite(slope(given)).all()


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (lambda x: metrics.ms_ssim(x, x, 2, (1.0,)), r"data_range is .*give \(low, high\)"),
        (lambda x: metrics.ms_ssim(x, x, RANGE, ()), r"weights is \(\)"),
        (lambda x: metrics.ms_ssim(x, x, RANGE, (1.0, 0.0)), "above 0 for each scale"),
        (lambda x: metrics.ms_ssim(x, x[:1], RANGE, (1.0,)), "one shape"),
    ],
)
def test_what_does_not_fit_is_named(give, words, pair):
    with pytest.raises(ValueError, match=words):
        give(pair[0])
