"""Noise: its law exactly where it can be had exactly, its moments where not; grey noise is grey."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from scipy import stats

from diffinv import degrade
from diffinv.degrade import noise

gaussian, shot, either, counts = (
    jax.jit(law, compiler_options=FAST)
    for law in (degrade.gaussian_noise, degrade.poisson_noise, noise.either_noise, noise.poisson)
)


def grey_ramp(levels, size=64):
    """A grey picture (size, size, 3) of so many levels, all equally often, about the middle."""
    level = 128 - levels // 2 + np.arange(size * size).reshape(size, size, 1) % levels
    return np.repeat(level, 3, -1) / 127.5 - 1


def test_poisson_counts_are_the_quantiles_of_scipy():
    """Every mean that a picture can have, into the tails; float64."""
    uniform = np.concatenate([np.linspace(1e-4, 1 - 1e-4, 301), 2.0 ** -np.arange(2, 40), 1 - 2.0 ** -np.arange(2, 40)])
    centred = 2 * uniform - 1
    level = np.arange(256, dtype=np.int32)[:, None] + np.zeros((1, len(uniform)), np.int32)
    for levels in (1, 8, 64, 256):
        mean = np.arange(256) * levels / 255
        expected = stats.poisson.ppf((centred + 1) / 2, mean[:, None])
        found = np.asarray(counts(np.broadcast_to(centred, level.shape), level, mean))
        wrong = found != expected
        assert np.abs(found - expected).max() <= 1 and wrong[:, :301].sum() == 0 and wrong.mean() < 1e-3


def test_in_float32_no_count_is_far_off():
    uniform = 1 - 2.0 ** -np.arange(2, 24)
    centred = np.concatenate([2 * uniform - 1, 1 - 2 * uniform]).astype(np.float32)
    mean = np.arange(256, dtype=np.float32) * np.float32(256 / 255)
    level = np.arange(256, dtype=np.int32)[:, None] + np.zeros((1, len(centred)), np.int32)
    found = np.asarray(counts(np.broadcast_to(centred, level.shape), level, mean))
    expected = stats.poisson.ppf((centred.astype(float) + 1) / 2, mean[:, None].astype(float))
    assert np.abs(found - expected).max() <= 3


@pytest.mark.parametrize("grey", [False, True])
def test_gaussian_noise_has_the_deviation_in_levels(key, grey):
    image = np.zeros((64, 64, 3))
    added = 127.5 * np.asarray(gaussian(key, image, 12.0, grey))
    count = 64 * 64 * (1 if grey else 3)
    assert abs(added.mean()) < 5 * 12 / np.sqrt(count) and abs(added.std() - 12) < 5 * 12 / np.sqrt(2 * count)
    assert (np.ptp(added, -1) == 0).all() == grey
    if not grey:
        assert abs(np.corrcoef(added.reshape(-1, 3).T)[0, 1]) < 5 / 64


@pytest.mark.parametrize(("levels", "power"), [(5, 8), (64, 64), (65, 128)])
def test_poisson_noise_has_the_variance_of_the_levels(key, levels, power):
    """On [0, 1]: `scale^2 u / v`, v the next power of 2; the same law in grey."""
    image = grey_ramp(levels)
    unit = (image + 1) / 2
    for grey in (False, True):
        added = (np.asarray(shot(key, image, 0.3, grey)) - image) / 2
        z = added / (0.3 * np.sqrt(unit / power))
        count = z.size // (3 if grey else 1)
        assert abs(z.mean()) < 5 / np.sqrt(count) and abs(z.var() - 1) < 5 * np.sqrt(2.5 / count)
        assert np.allclose(np.ptp(added, -1), 0, atol=1e-12) == grey


def test_both_are_clipped_and_nothing_is_added_at_strength_0(key):
    image = np.random.default_rng(0).uniform(-1, 1, (64, 64, 3))
    for law in (gaussian, shot):
        strong = np.asarray(law(key, image, 300.0, False))
        assert strong.min() == -1 and strong.max() == 1
        np.testing.assert_array_equal(law(key, image, 0.0, False), image)
    black = -np.ones((64, 64, 3))
    np.testing.assert_array_equal(shot(key, black, 3.0, False), black)


def test_either_is_one_of_the_two(key):
    image = grey_ramp(32)
    for grey in (False, True):
        for choose, expected in ((True, gaussian(key, image, 9.0, grey)), (False, shot(key, image, 2.0, grey))):
            np.testing.assert_allclose(either(key, image, choose, 9.0, 2.0, grey), expected, atol=1e-12)


def test_float32_and_one_channel(key):
    image = grey_ramp(16)[:, :, :1].astype(np.float32)
    found = either(key, image, False, 9.0, 1.0, True)
    assert found.dtype == jnp.float32 and found.shape == (64, 64, 1) and len(np.unique(found)) > 16
