"""Precision, recall, density, coverage: by hand, by brute force, their means in closed form, a published example."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from diffinv.metrics.manifold import Manifold, expected_coverage, manifold, manifold_estimate


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def line(*values):
    return np.array(values, float)[:, None]


def test_by_hand_on_a_line():
    """k = 1. Real 0, 1, 10 have the radii 1, 1, 9; fake 0.5, 3, 30 the radii 2.5, 2.5, 27.

    0.5 is in the balls of 0 and 1, 3 in that of 10, 30 in none: precision 2/3, density 3/3, coverage 3/3. 0 and 1 are
    in 0.5's ball, and 10 in that of 30: recall 3/3.
    """
    assert manifold(line(0, 1, 10), line(0.5, 3, 30), 1) == pytest.approx((2 / 3, 1, 1, 1))


def test_by_hand_in_a_corner():
    """All fake ones in one of two real groups: each is in both its balls, the other group is neither covered nor met.

    Real 0, 1, 100, 101 have the radius 1; fake 0.4, 0.5, 0.6 have 0.1, 0.1, 0.1, in which no real one lies.
    """
    assert manifold(line(0, 1, 100, 101), line(0.4, 0.5, 0.6), 1) == pytest.approx((1, 0, 2, 0.5))


def test_sets_far_apart_share_nothing_and_equal_ones_all(rng):
    rows = rng.normal(size=(30, 4))
    assert manifold(rows, rows + 100) == Manifold(0, 0, 0, 0)
    same = manifold(rows, rows)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert same.density == pytest.approx(1.0)  # each ball holds its middle and the k - 1 within


@pytest.mark.parametrize("block", [1, 7, 1024])
@pytest.mark.parametrize("k", [1, 5])
def test_brute_force(rng, block, k):
    """As the source's code has it, on the full matrices of distances; far from the origin, where digits are lost."""
    real, fake = 1000 + rng.normal(size=(40, 3)), 1000.3 + 1.2 * rng.normal(size=(30, 3))
    radius = lambda rows: np.sort(cdist(rows, rows), 1)[:, k]
    far = cdist(real, fake)
    within = far < radius(real)[:, None]
    expected = (
        within.any(0).mean(),
        (far < radius(fake)).any(1).mean(),
        within.sum(0).mean() / k,
        (far.min(1) < radius(real)).mean(),
    )
    assert manifold(real, fake, k, block) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "m", "k"), [(120, 120, 5), (150, 60, 3), (40, 200, 1)])
def test_means_where_the_laws_agree(rng, n, m, k):
    """E coverage in closed form, E density 1, to 4 errors of 100 trials; whatever the law is."""
    found = [manifold(rng.exponential(size=(n, 2)), rng.exponential(size=(m, 2)), k) for _ in range(100)]
    for name, expected in (("coverage", expected_coverage(n, m, k)), ("density", 1.0)):
        values = [getattr(each, name) for each in found]
        assert abs(np.mean(values) - expected) < 4 * np.std(values) / 10


def test_expected_coverage_by_hand():
    """n = m = 2, k = 1: of the other three, the nearest is the real one in 1 of 3; many rows: 1 - 1/2^k."""
    assert expected_coverage(2, 2, 1) == pytest.approx(2 / 3)
    assert expected_coverage(10**6, 10**6, 5) == pytest.approx(1 - 2**-5, abs=1e-6)
    assert expected_coverage(1000, 1000, 3) == pytest.approx(0.8754, abs=1e-4)


@pytest.mark.slow
def test_the_published_example(rng):
    """The README of clovaai/generative-evaluation-prdc: 10,000 rows each of 1,000 normal numbers, k = 5.

    One draw of theirs against one of ours. Among so many dimensions some rows are near to all others, and three draws
    have deviations of 0.02 (precision, recall), 0.08 (density) and 0.009 (coverage): within 4 of a difference's.
    """
    found = manifold(rng.normal(size=(10_000, 1000)), rng.normal(size=(10_000, 1000)))
    assert found[:2] == pytest.approx((0.4772, 0.4705), abs=0.11)
    assert found.density == pytest.approx(1.0555, abs=0.45)
    assert found.coverage == pytest.approx(0.9735, abs=0.05)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: manifold(np.zeros((5, 2)), np.zeros((9, 2))), r"real is \(5, 2\); give more than k = 5 rows"),
        (lambda: manifold(np.zeros((9, 2)), np.zeros(9)), r"fake is \(9,\)"),
        (lambda: manifold(np.zeros((9, 2)), np.zeros((9, 3))), "one network"),
        (lambda: manifold(np.zeros((9, 2)), np.full((9, 2), np.nan)), "fake has rows that are not finite"),
        (lambda: manifold(np.zeros((9, 2)), np.zeros((9, 2)), 0), "k is 0; give a whole number"),
        (lambda: expected_coverage(5, 9, 5), "n is 5, m is 9 and k is 5"),
    ],
)
def test_errors_say_what_to_do(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_intervals_hold_the_mean_of_other_sets_of_as_many_rows(rng):
    """Of two laws that differ, over 100 pairs of sets: about 19 of 20."""
    pairs = [(rng.normal(size=(80, 2)), 0.4 + 0.8 * rng.normal(size=(90, 2))) for _ in range(100)]
    found = [manifold_estimate(*pair, k=3, groups=8) for pair in pairs]
    values = np.array([[each.value for each in one] for one in found])
    halves = np.array([[each.half for each in one] for one in found])
    np.testing.assert_array_equal(values[0], manifold(*pairs[0], 3))
    held = (np.abs(values - values.mean(0)) <= halves).mean(0)
    assert (held >= 0.87).all() and (halves.mean(0) < 5 * values.std(0)).all()


def test_an_interval_needs_rows_enough(rng):
    rows = rng.normal(size=(20, 2))
    with pytest.raises(ValueError, match="groups is 9; give 2 at least, and at most 7 of 20 and 20 rows"):
        manifold_estimate(rows, rows + 1, 5, 9)
    with pytest.raises(ValueError, match="real is"):
        manifold_estimate(rows[:4], rows, 5)
