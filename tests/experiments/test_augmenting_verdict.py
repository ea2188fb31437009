"""What an arm gains: scores and both intervals by hand, and the words for them."""

import math

import numpy as np
import pytest

from experiments.augmenting import verdict

TRUTH = np.array([0, 0, 0, 0, 1, 1, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 0, 0, 1])


def test_scores_by_hand():
    """Recalls 3/4, 1/2 and 0; precisions 3/5, 1/3 and none: F1 2/3, 2/5 and 0."""
    pytest.importorskip("sklearn")
    found = {name: score(TRUTH, PREDICTED, (1, 2)) for name, score in verdict.SCORES.items()}
    expected = {"balanced accuracy": 1.25 / 3, "rare recall": 0.25, "macro-F1": (2 / 3 + 2 / 5) / 3}
    assert found == pytest.approx(expected, rel=1e-12)


def test_both_intervals_by_hand():
    """Differences of 1, 2, 3 and 6 points: mean 3, s^2 = 14/3, t_3 = 3.18245; half as many tests as trainings."""
    a, b = [0.91, 0.92, 0.93, 0.96], [0.9] * 4
    found = verdict.paired(a, b, 100, 200)
    s, t = math.sqrt(14 / 3), 3.182446305284263
    assert found == pytest.approx((3.0, t * s / 2, t * s * math.sqrt(1 / 4 + 1 / 2)), rel=1e-10)


def test_pairing_takes_out_what_seeds_share():
    """Seeds that differ by far, and a gain of one point in each: no width."""
    seeds = np.random.default_rng(0).uniform(0.2, 0.8, 10)
    assert verdict.paired(seeds + 0.01, seeds, 1, 1) == pytest.approx((1, 0, 0), abs=1e-10)


def test_the_interval_covers_at_95_percent():
    """4,000 times five independent pairs, normal about a gain of 2 points."""
    scores = np.random.default_rng(0).normal(0.02, 0.05, (4000, 5))
    found = [verdict.paired(row, np.zeros(5), 1, 9) for row in scores]
    share = np.mean([abs(each.mean - 2) < each.half for each in found])
    assert abs(share - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            (2.0, 0.7, 1.5),
            "SDEdit gains over oversampling (+2.0 ± 0.7 points; corrected for overlapping splits ± 1.5)",
        ),
        ((2.0, 0.7, 2.1), "SDEdit gains over oversampling (+2.0 ± 0.7 points), but the interval corrected for"),
        ((-2.0, 0.7, 1.5), "SDEdit loses against oversampling (-2.0 ± 0.7 points; corrected"),
        ((0.5, 0.7, 1.5), "SDEdit: no gain over oversampling (+0.5 ± 0.7 points)."),
        ((-0.5, 0.7, 1.5), "SDEdit: no gain over oversampling (-0.5 ± 0.7 points)."),
        ((0.0, 0.0, 0.0), "SDEdit: no gain over oversampling (+0.0 ± 0.0 points)."),
        ((3.0, math.nan, math.nan), "SDEdit against oversampling: +3.0 points of one seed, which say nothing"),
    ],
)
def test_the_words(found, words):
    assert verdict.verdict(verdict.Paired(*found), "SDEdit", "oversampling").startswith(words)


def test_one_seed_has_no_interval():
    assert np.isnan(verdict.paired([0.5], [0.4], 1, 1)[1:]).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0.5], [0.4, 0.3], 1, 1), "a has 1 scores and b has 2; give one of each"),
        (([], [], 1, 1), "a has 0 scores"),
        (([0.5], [0.4], 0, 1), "n_test is 0 and n_train is 1; give counts above 0"),
    ],
)
def test_errors_say_what_to_do(arguments, words):
    with pytest.raises(ValueError, match=words):
        verdict.paired(*arguments)
