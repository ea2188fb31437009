"""Filters, balance and mixing, on cases that are counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import class_prior

from diffinv import augmentation as au
from diffinv import process


def test_the_band_of_confidence_is_of_each_pictures_own_label():
    p = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.05, 0.95]])
    keeps = au.confident(p, [0, 0, 1, 1], 0.35, 0.92)
    np.testing.assert_array_equal(keeps, [True, False, True, False])
    for low, high in ((0.5, 0.4), (-0.1, 1), (0, 1.1)):
        with pytest.raises(ValueError, match="give 0 <= low <= high <= 1"):
            au.confident(p, [0, 0, 1, 1], low, high)


def test_copies_are_nearer_than_the_floor():
    np.testing.assert_array_equal(au.distinct([0.0, 1.0, 2.0], 1.0), [False, True, True])
    with pytest.raises(ValueError, match="floor is -1"):
        au.distinct([0.0], -1)


def test_filters_follow_each_other_and_say_what_they_took():
    kept = au.filtered({"classifier": [1, 0, 1, 0], "nearest": [0, 0, 1, 1]})
    np.testing.assert_array_equal(kept.mask, [False, False, True, False])
    assert kept.taken == {"classifier": 2, "nearest": 1}
    with pytest.raises(ValueError, match="nothing is left of 2 made pictures: classifier took 1, nearest took 1"):
        au.filtered({"classifier": [True, False], "nearest": [False, True]})
    with pytest.raises(ValueError, match="filters is empty"):
        au.filtered({})


def test_what_classes_lack():
    np.testing.assert_array_equal(au.missing([0, 0, 0, 1, 3], 4), [0, 2, 3, 2])
    np.testing.assert_array_equal(au.missing([0, 0, 0, 1, 3], 4, 2), [0, 1, 2, 1])


def test_labels_of_foreign_pictures_are_mixed():
    found = au.mixed_label(jnp.asarray(2), jnp.asarray(0), 3, 0.25)
    np.testing.assert_allclose(found, [0.25, 0, 0.75])


def test_an_augmenter_makes_with_its_probability():
    prior = class_prior(process.EDM())
    image, label = jnp.full(prior.shape, 0.1), jnp.asarray(1)
    recipe, keys = au.Recipe(sigma=0.5, steps=3), jax.random.split(jax.random.key(0), 200)
    run = lambda p: jax.jit(jax.vmap(au.Augmenter(prior, recipe, p), (0, None, None)))(keys, image, label)
    changed = lambda made: float(jnp.mean(jnp.any(made != image[None], (1, 2, 3))))
    assert changed(run(0.0)) == 0 and changed(run(1.0)) == 1
    assert abs(changed(run(0.3)) - 0.3) < 0.13  # four deviations
    assert float(jnp.max(jnp.abs(run(1.0)))) <= 1


def test_variants_are_drawn_alike():
    image, made = jnp.zeros((1, 1, 1)), jnp.arange(1.0, 4).reshape(3, 1, 1, 1)
    draw = jax.jit(jax.vmap(lambda key: au.variant(key, image, made, 0.6)))
    found = np.asarray(draw(jax.random.split(jax.random.key(0), 4000))).ravel()
    shares = [np.mean(found == value) for value in range(4)]
    np.testing.assert_allclose(shares, [0.4, 0.2, 0.2, 0.2], atol=0.035)  # four deviations
