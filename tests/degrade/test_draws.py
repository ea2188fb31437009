"""The published numbers of section 2 of ResShift's and Real-ESRGAN's configurations, read off thousands of draws."""

from functools import lru_cache

import jax
import numpy as np
import pytest
from compiling import FAST

from diffinv import degrade
from diffinv.degrade.kernels import NONE, SINC

COUNT = 4000
SETTINGS = {"train": degrade.resshift_train, "test": degrade.resshift_test, "stock": degrade.stock}
MIXTURE, MILD = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03), (0.6, 0.4, 0, 0, 0, 0)
FIRST = {"sides": (3, 19), "deviation": (0.2, 3), "families": MIXTURE, "scale": (0.15, 1.5), "ways": (0.2, 0.7, 0.1)}
FIRST |= {"sigma": (1, 30), "poisson": (0.05, 3), "quality": (30, 95), "sinc": 0.1, "blur": 1.0}
FIRST |= {"generalised": (0.5, 4), "plateau": (1, 2)}
SECOND = {**FIRST, "sides": (3, 13), "deviation": (0.2, 1.5), "scale": (0.3, 1.2), "ways": (0.3, 0.4, 0.3), "blur": 0.8}
SECOND |= {"sigma": (1, 25), "poisson": (0.05, 2.5)}
GENTLE = {**FIRST, "sides": (3, 11), "deviation": (0.2, 0.8), "families": MILD, "scale": (0.5, 1.5), "sigma": (1, 15)}
GENTLE |= {"poisson": (0.05, 0.3), "quality": (70, 95)}
STAGES = {
    ("train", "first"): FIRST,
    ("train", "second"): SECOND,
    ("test", "first"): GENTLE,
    ("stock", "first"): {**FIRST, "sides": (7, 21)},
    ("stock", "second"): {**SECOND, "sides": (7, 21)},
}
ENDS = {"train": (0.5, 0.8, (3, 13)), "test": (0.0, 0.2, (3, 5)), "stock": (1.0, 0.8, (7, 21))}


@lru_cache
def drawn(name):
    draw = jax.jit(jax.vmap(degrade.draw, (0, None)), compiler_options=FAST)
    return jax.tree.map(np.asarray, draw(jax.random.split(jax.random.key(7), COUNT), SETTINGS[name]))


def assert_fills(values, low, high):
    """Within the range, and near both of its ends."""
    assert values.min() >= low and values.max() <= high
    assert values.min() < low + 0.03 * (high - low) and values.max() > high - 0.03 * (high - low)


def assert_frequency(hits, probability):
    """Five deviations of the binomial law; exact at 0 and 1."""
    assert abs(hits.mean() - probability) <= 5 * np.sqrt(probability * (1 - probability) / len(hits))


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_blurs_are_drawn_as_published(name, stage):
    numbers, blur = STAGES[name, stage], getattr(drawn(name), stage).blur
    assert set(blur.side) == set(range(numbers["sides"][0], numbers["sides"][1] + 1, 2))
    assert_frequency(blur.side == numbers["sides"][0], 1 / len(set(blur.side)))
    assert_frequency(blur.family != NONE, numbers["blur"])
    shown = blur.family[blur.family != NONE]
    assert_frequency(shown == SINC, numbers["sinc"])
    for family, probability in enumerate(numbers["families"]):
        assert_frequency(shown[shown != SINC] == family, probability)
    assert_fills(blur.deviations[:, 0], *numbers["deviation"])
    assert_fills(blur.deviations[:, 1], *numbers["deviation"])
    assert_fills(blur.angle, -np.pi, np.pi)
    assert_fills(blur.cutoff[blur.side < 13], np.pi / 3, np.pi)
    if numbers["sides"][1] > 13:
        assert_fills(blur.cutoff[blur.side >= 13], np.pi / 5, np.pi)


@pytest.mark.parametrize(("name", "stage"), [pair for pair in STAGES if pair[0] != "test"])
def test_exponents_are_under_one_half_the_time(name, stage):
    numbers, blur = STAGES[name, stage], getattr(drawn(name), stage).blur
    bell = blur.beta[(blur.family == 2) | (blur.family == 3)]
    assert_fills(bell, *numbers["generalised"])
    assert_frequency(bell < 1, 0.5)
    flat = blur.beta[(blur.family == 4) | (blur.family == 5)]
    assert flat.min() >= 1 and flat.max() <= 2
    assert_frequency(flat == 1, 0.5)


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_sizes_noise_and_quality_are_drawn_as_published(name, stage):
    numbers, found = STAGES[name, stage], getattr(drawn(name), stage)
    up, down, keep = (found.resize.scale > 1), (found.resize.scale < 1), (found.resize.scale == 1)
    for hits, probability in zip((up, down, keep), numbers["ways"]):
        assert_frequency(hits, probability)
    assert_fills(found.resize.scale[up], 1, numbers["scale"][1])
    assert_fills(found.resize.scale[down], numbers["scale"][0], 1)
    for mode in range(3):
        assert_frequency(found.resize.mode == mode, 1 / 3)
    assert_frequency(found.noise.gaussian, 0.5)
    assert_frequency(found.noise.grey, 0.4)
    assert_fills(found.noise.sigma, *numbers["sigma"])
    assert_fills(found.noise.poisson, *numbers["poisson"])
    assert_fills(found.quality, *numbers["quality"])


@pytest.mark.parametrize("name", SETTINGS)
def test_the_end_is_drawn_as_published(name):
    found, (second, sinc, sides) = drawn(name), ENDS[name]
    assert_frequency(found.second_order, second)
    assert_frequency(found.sinc.family == SINC, sinc)
    assert set(found.sinc.family) == {SINC, NONE}
    assert set(found.sinc.side) == set(range(sides[0], sides[1] + 1, 2))
    assert_fills(found.sinc.cutoff, np.pi / 3, np.pi)
    assert_frequency(found.resize_first, 0.5)
    for mode in range(3):
        assert_frequency(found.mode == mode, 1 / 3)
    assert_fills(found.second.quality, *((80, 100) if name == "test" else (30, 95)))


def test_draws_are_independent():
    """No two of the continuous numbers move together."""
    found = drawn("train")
    leaves = [leaf for leaf in jax.tree.leaves(found) if leaf.ndim == 1 and len(np.unique(leaf)) > 1]
    ranks = np.argsort(np.argsort([leaf + 0.0 for leaf in leaves], 1), 1)
    together = np.abs(np.corrcoef(ranks)) - np.eye(len(ranks))
    linked = {tuple(sorted(pair)) for pair in np.argwhere(together > 0.1).tolist()}
    assert len(linked) <= 6, linked  # the cutoff's range and the exponent's follow side and family


def test_settings_are_static_and_hashable():
    assert hash(degrade.resshift_train) == hash(degrade.resshift_train.replace())
    assert jax.tree.leaves(degrade.resshift_train) == []
