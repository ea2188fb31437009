"""Systematic resampling: counts, unbiasedness, float32, extreme weights, and particles spread over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffinv import sharding
from diffinv.posterior.core import resampling

SIZE = 16
systematic = jax.jit(resampling.systematic)
LOG_WEIGHTS = jnp.asarray(np.random.default_rng(0).standard_normal(SIZE) * 2)


@pytest.fixture(scope="module")
def counts():
    """How often each particle is drawn, for 4,000 keys."""
    indices = jax.vmap(systematic, (0, None))(jax.random.split(jax.random.key(0), 4000), LOG_WEIGHTS)
    assert indices.dtype == jnp.int32 and (np.diff(indices, axis=1) >= 0).all()
    return np.asarray(jax.vmap(lambda i: jnp.bincount(i, length=SIZE))(indices))


def weights():
    w = np.exp(np.asarray(LOG_WEIGHTS))
    return w / w.sum()


def test_every_count_is_the_expected_one_rounded_up_or_down(counts):
    assert (counts.sum(1) == SIZE).all()
    assert (counts >= np.floor(SIZE * weights() - 1e-4)).all() and (counts <= np.ceil(SIZE * weights() + 1e-4)).all()


def test_counts_are_unbiased(counts):
    """A count is Bernoulli above its floor: the mean over keys lies within five standard errors."""
    share = SIZE * weights() % 1
    error = np.abs(counts.mean(0) - SIZE * weights())
    assert (error <= 5 * np.sqrt(share * (1 - share) / len(counts)) + 1e-5).all()


def test_it_is_the_search_in_the_cumulated_weights():
    """`(k + u) / N` in the cumulated weights, by NumPy."""
    for seed in range(20):
        key = jax.random.key(seed)
        points = (np.arange(SIZE) + float(jax.random.uniform(key, (), jnp.float32))) / SIZE
        expected = np.searchsorted(np.cumsum(weights()), points, side="right")
        np.testing.assert_array_equal(systematic(key, LOG_WEIGHTS), np.minimum(expected, SIZE - 1))


def test_even_weights_keep_everybody_and_one_weight_takes_all(key):
    np.testing.assert_array_equal(systematic(key, jnp.zeros(SIZE)), np.arange(SIZE))
    alone = jnp.full(SIZE, -jnp.inf).at[5].set(-1e30)
    np.testing.assert_array_equal(systematic(key, alone), 5)


def test_the_effective_size_runs_from_one_to_n():
    assert float(resampling.effective_size(jnp.full(SIZE, -1e4))) == pytest.approx(SIZE, rel=1e-3)
    assert float(resampling.effective_size(jnp.asarray([0.0, -1e6, -1e6]))) == pytest.approx(1.0)
    half = resampling.effective_size(jnp.asarray([0.0, 0.0, -jnp.inf, -jnp.inf]))
    assert float(half) == pytest.approx(2.0) and half.dtype == jnp.float32


def test_weights_are_float32_and_hopeless_ones_are_not_hidden():
    assert resampling.normalised(jnp.zeros(3, jnp.float64)).dtype == jnp.float32
    assert float(jax.nn.logsumexp(resampling.normalised(LOG_WEIGHTS))) == pytest.approx(0, abs=1e-6)
    for bad in (jnp.full(3, -jnp.inf), jnp.asarray([0.0, jnp.nan, 0.0]), jnp.asarray([jnp.inf, 0.0, 0.0])):
        assert jnp.isnan(resampling.normalised(bad)).any()
        assert jnp.isnan(resampling.resampled(jax.random.key(0), bad, jnp.arange(3.0))[0]).any()


def test_resampling_waits_for_its_threshold(key):
    particles = {"x": jnp.arange(SIZE * 2.0).reshape(SIZE, 2), "i": jnp.arange(SIZE)}
    kept, same = resampling.resampled(key, LOG_WEIGHTS, particles, 0.0)
    np.testing.assert_array_equal(same["i"], particles["i"])
    np.testing.assert_allclose(kept, np.log(weights()), atol=1e-5)
    even, moved = resampling.resampled(key, LOG_WEIGHTS, particles, 1.0)
    np.testing.assert_array_equal(moved["i"], systematic(key, LOG_WEIGHTS))
    np.testing.assert_array_equal(moved["x"], particles["x"][moved["i"]])
    np.testing.assert_allclose(even, -np.log(SIZE), rtol=1e-6)


def test_particles_on_eight_devices_are_resampled_as_on_one(key):
    x = jax.random.normal(key, (SIZE, 3))
    run = jax.jit(lambda log_weights, x: resampling.resampled(key, log_weights, x))
    split = jax.device_put((LOG_WEIGHTS, x), sharding.split(sharding.mesh()))
    assert len(split[1].sharding.device_set) == 8
    for one, other in zip(run(LOG_WEIGHTS, x), run(*split)):
        np.testing.assert_array_equal(one, other)


def test_one_particle_is_picked_by_its_weight(key):
    """Equal weights by default; a share of 0.75 is picked as often, within five standard errors."""
    assert float(resampling.effective_size(resampling.equal_weights(5))) == pytest.approx(5, rel=1e-6)
    weights = jnp.log(jnp.asarray([0.75, 0.25], jnp.float32))
    keys = jax.random.split(key, 4000)
    picked = jax.vmap(lambda k: resampling.pick(k, weights, jnp.asarray([[1.0, 2.0], [0.0, 0.0]])))(keys)
    assert picked.shape == (4000, 2) and abs(float(picked[:, 0].mean()) - 0.75) < 5 * (0.75 * 0.25 / 4000) ** 0.5
