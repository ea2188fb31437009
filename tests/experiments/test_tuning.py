"""The choice of a hyperparameter, by errors of which some are not finite."""

import pytest

from experiments.common import tuning


def test_the_best_value_diverged_least_and_then_errs_least():
    inf, nan = float("inf"), float("nan")
    assert tuning.least([[3.0, 3.0], [1.0, inf], [2.0, 2.5]]) == 2
    assert tuning.least([[inf, inf], [5.0, inf], [nan, 4.0]]) == 2
    assert tuning.least([[nan, nan], [inf, inf]]) == 0
    for none in ([], [[], []]):
        with pytest.raises(ValueError, match="at least one"):
            tuning.least(none)


def test_every_value_is_tried_as_often_as_asked():
    tried = []

    def error(value, i):
        tried.append((value, i))
        return (value - 2.0) ** 2 + (1.0 if i else -1.0) * value

    assert tuning.swept((1.0, 2.0, 5.0), error, 2) == 2.0
    assert sorted(tried) == [(value, i) for value in (1.0, 2.0, 5.0) for i in (0, 1)]
    assert tuning.swept((1.0, 2.0, 5.0), error) == 2.0 and len(tried) == 9


def test_a_value_that_diverged_at_one_try_loses_to_one_that_did_not():
    assert tuning.swept((0.1, 0.2), lambda value, i: float("nan") if (value, i) == (0.1, 2) else value, 3) == 0.2
