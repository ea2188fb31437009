"""Published schedules as tables, the discretisations, the distances, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import context
from numpy.testing import assert_allclose, assert_array_equal
from registries import FREQUENCIES
from scipy.special import erf

from diffinv import consistency, process, times
from diffinv.consistency import base, discrete
from diffinv.prior import NetworkDenoiser

STEPS = jnp.asarray([0, 100_000, 400_000, 800_000, 900_000], jnp.int32)


def test_the_number_of_points_of_consistency_training():
    """CIFAR-10: s0 = 2, s1 = 150, K = 800,000; by hand from the formula."""
    assert_array_equal(consistency.progressive(800_000)(STEPS), [2, 54, 107, 151, 151])
    assert consistency.progressive(800_000, 2, 200)(STEPS)[3] == 201


def test_the_targets_rate_follows_the_number_of_points():
    rate = consistency.ema_rate(consistency.progressive(800_000))(STEPS)
    assert_allclose(rate, [0.9, 0.9 ** (2 / 54), 0.9 ** (2 / 107), 0.9 ** (2 / 151), 0.9 ** (2 / 151)], rtol=1e-6)


def test_the_number_of_points_doubles_to_1280():
    """CIFAR-10: K = 400,000, so `every` is floor(400000 / (log2 128 + 1))."""
    every = 400_000 // (int(np.log2(1280 // 10)) + 1)
    found = consistency.doubling(10, 1280, every)(
        jnp.asarray([0, 49_999, 50_000, 120_000, 349_999, 350_000, 2_000_000])
    )
    assert every == 50_000
    assert_array_equal(found, [11, 11, 21, 41, 641, 1281, 1281])


@pytest.mark.slow
def test_the_grid_is_that_of_karras_with_an_exact_zero():
    u, forward = jnp.arange(19) / 18, process.VP()
    assert_allclose(consistency.karras_level(u)[:-1], 80 * times.karras(19)[:-2], rtol=1e-12)
    points = consistency.karras_points(forward, sigma_max=50.0)(u)
    assert points[-1] == 0 and consistency.uniform(u)[-1] == 0
    assert_allclose(jnp.exp(-0.5 * forward.log_snr(points))[:-1], consistency.karras_level(u, 0.002, 50.0)[:-1])


@pytest.mark.slow
def test_levels_have_the_published_weights(key):
    """iCT's eq. 10 as a table; counts within five standard errors."""
    n, count = 12, 100_000
    draw = lambda k: discrete.lognormal_index(k, jnp.int32(n), jnp.zeros(()), -1.1, 2.0, 0.002, 80.0, 7.0)
    found = np.bincount(jax.jit(jax.vmap(draw))(jax.random.split(key, count)), minlength=n - 1)
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    logs = np.log((high + np.arange(n) / (n - 1) * (low - high)) ** 7)
    weights = erf((logs[:-1] + 1.1) / (np.sqrt(2) * 2)) - erf((logs[1:] + 1.1) / (np.sqrt(2) * 2))
    weights /= weights.sum()
    assert found.size == n - 1
    assert np.all(np.abs(found - count * weights) < 5 * np.sqrt(count * weights) + 1)


def test_the_mapping_of_easy_consistency_tuning():
    """n(t) = 1 + 8 sigmoid(-t), by hand: at t = 1 it is 3.1515, at 80 it is 1."""
    gap = lambda t, stage, q: float(discrete.ect_gap(jnp.asarray(t), jnp.asarray(stage, jnp.int32), q))
    n = 1 + 8 / (1 + np.e)
    assert gap(1.0, 0, 2.0) == 1.0  # r = 0: diffusion
    assert_allclose([gap(1.0, 1, 2.0), gap(1.0, 3, 2.0)], [n / 4, n / 16], rtol=1e-14)
    assert_allclose([gap(80.0, 0, 2.0), gap(80.0, 0, 256.0)], [40.0, 80 / 256], rtol=1e-14)


def test_distances():
    a, b = jnp.asarray([[1.0, 2.0], [0.0, 0.0]]), jnp.zeros((2, 2))
    assert_allclose(consistency.square(a, b), 5 / 4)
    assert_allclose(consistency.pseudo_huber(0.0)(a, b), np.sqrt(5))
    assert_allclose(consistency.pseudo_huber(0.3)(a, b), np.sqrt(5 + 0.36) - 0.6)
    assert_array_equal(jax.grad(consistency.pseudo_huber(0.0))(b, b), b)


BLURRING, HEAT = process.Blurring(FREQUENCIES), process.HeatDissipation(FREQUENCIES)


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: consistency.ct(None, HEAT, consistency.uniform, None), "process is HeatDissipation"),
        (lambda: consistency.ict(None, BLURRING, None), "process is Blurring; ict"),
        (lambda: consistency.karras_points(HEAT), "process is HeatDissipation"),
        (lambda: consistency.meanflow(None, BLURRING), "process is Blurring; meanflow"),
        (lambda: consistency.shortcut(None, process.Flow(), sections=12), "sections is 12"),
        (lambda: consistency.ctm(None, process.EDM(), times.karras(4), jumps=5), "jumps is 5"),
        (lambda: base.target_weights(1, None, context(ema=((),))), "target is 1"),
        (lambda: base.require_boundary(NetworkDenoiser(None, process.VP(), None, "x0")), 'parametrisation is "x0"'),
        (lambda: base.require_boundary(NetworkDenoiser(None, process.VP(), None, "velocity")), "does not hold for VP"),
    ],
)
def test_what_the_mathematics_does_not_allow_is_refused(build, word):
    with pytest.raises(ValueError, match=word):
        build()
