"""Samples that repeat the training pictures, and those that do not."""

import numpy as np
import pytest

from diffinv.metrics import memorisation


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("block", [1, 7, 256])
def test_the_nearest_is_found_by_every_difference(rng, block):
    rows, among = 100 + rng.normal(size=(20, 6)), 100 + rng.normal(size=(33, 6))
    every = np.linalg.norm(rows[:, None] - among[None], axis=-1)
    found = memorisation.nearest_rows(rows, among, block)
    np.testing.assert_allclose(found.distance, every.min(1), rtol=1e-12)
    np.testing.assert_array_equal(found.place, every.argmin(1))


def test_a_row_that_is_in_the_set_has_the_distance_0(rng):
    """However far from 0 the features lie, and in float32."""
    among = (1e4 + rng.normal(size=(50, 30))).astype(np.float32)
    found = memorisation.nearest_rows(among[[3, 41]], among)
    assert found.distance.tolist() == [0, 0] and found.place.tolist() == [3, 41]


def test_memorised_samples_score_1_and_held_out_ones_the_level(rng):
    """Also the held-out pictures that stood model for the quantile; others of their law score it within its error."""
    train, held, more = (rng.normal(size=(n, 5)) for n in (400, 200, 20_000))
    distance = lambda rows: memorisation.nearest_rows(rows, train).distance
    near = distance(held)
    assert memorisation.near_share(distance(train[:100]), near) == 1
    assert memorisation.near_share(near, near) == 0.05
    assert memorisation.near_share(near, near, 0.25) == 0.25
    error = np.sqrt(0.05 * 0.95 * (1 / 200 + 1 / 20_000))
    assert abs(memorisation.near_share(distance(more), near) - 0.05) < 4 * error
    half = np.concatenate([train[:100], 50 + rng.normal(size=(100, 5))])
    assert memorisation.near_share(distance(half), near) == 0.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: memorisation.nearest_rows(np.zeros((2, 3)), np.zeros((2, 4))), "features of one kind"),
        (lambda: memorisation.nearest_rows(np.zeros(3), np.zeros((2, 3))), r"rows is \(3,\); give one row a picture"),
        (lambda: memorisation.nearest_rows(np.zeros((2, 3)), np.zeros((0, 3))), "among is"),
        (lambda: memorisation.near_share([1.0], [1.0], 1.0), "level is 1.0"),
    ],
)
def test_errors_say_what_to_do(call, words):
    with pytest.raises(ValueError, match=words):
        call()
