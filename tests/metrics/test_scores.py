"""The classes' score and the accuracy that samples teach: closed forms, the jackknife by hand, coverage."""

import math

import numpy as np
import pytest

from diffinv.metrics.probe import linear_probe
from diffinv.metrics.scores import class_score, classification_accuracy_score


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("classes", [2, 10])
def test_sure_and_varied_is_the_count_of_classes(classes):
    assert class_score(np.tile(np.eye(classes), (3, 1))).value == pytest.approx(classes, rel=1e-12)


def test_unsure_or_all_alike_is_1():
    for rows in (np.full((4, 5), 0.2), np.eye(5)[np.zeros(4, int)]):
        assert class_score(rows) == pytest.approx((1, 0), abs=1e-12)


def test_by_hand():
    """Rows (1, 0) and (1/2, 1/2): the mean (3/4, 1/4); KL of the first log 4/3, of the second log (2 / sqrt 3)."""
    expected = math.exp((math.log(4 / 3) + math.log(2 / math.sqrt(3))) / 2)
    assert class_score([[1, 0], [0.5, 0.5]]).value == pytest.approx(expected, rel=1e-12)


def test_the_interval_is_the_jackknifes(rng):
    p = rng.dirichlet([0.3, 0.5, 2], 12)
    without = [class_score(np.delete(p, i, 0)).value for i in range(12)]
    assert class_score(p).half == pytest.approx(1.96 * np.sqrt(11 * np.var(without)), rel=1e-9)


def test_the_interval_covers_at_95_percent(rng):
    """Of sure classifiers the score is exp of the entropy of the classes' shares."""
    shares, trials = np.array([0.6, 0.3, 0.1]), 500
    truth = math.exp(-np.sum(shares * np.log(shares)))
    found = [class_score(np.eye(3)[rng.choice(3, 1000, p=shares)]) for _ in range(trials)]
    covered = np.mean([abs(each.value - truth) < each.half for each in found])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / trials)


def gaussians(rng, n, delta=2.4):
    """Two classes of covariance [[1, 0.6], [0.6, 2]] whose means lie `delta` deviations apart."""
    covariance, labels = np.array([[1, 0.6], [0.6, 2]]), np.arange(n) % 2
    apart = np.array([1.0, -0.5])
    apart *= delta / math.sqrt(apart @ np.linalg.solve(covariance, apart))
    return rng.multivariate_normal([3, 0], covariance, n) + labels[:, None] * apart, labels


def test_what_many_samples_of_two_gaussians_teach(rng):
    """Phi(1.2) = 0.8849, within 4 errors of 40,000 test rows."""
    test = gaussians(rng, 40_000)
    found = classification_accuracy_score(*gaussians(rng, 20_000), *test)
    bayes = 0.5 * (1 + math.erf(1.2 / math.sqrt(2)))
    assert bayes == pytest.approx(0.8849, abs=1e-4)
    assert abs(found.value - bayes) < 4 * math.sqrt(bayes * (1 - bayes) / 40_000)
    assert found.half == pytest.approx(1.96 * math.sqrt(found.value * (1 - found.value) / 40_000))


def test_samples_of_another_law_teach_less(rng):
    """Means at an angle cost accuracy; few samples do, too, and real ones beside them mend it."""
    test, real = gaussians(rng, 20_000), gaussians(rng, 20_000)
    rows, labels = gaussians(rng, 40)
    turned = rows @ [[0.0, 1.0], [-1.0, 0.0]]
    alone = classification_accuracy_score(turned, labels, *test).value
    both = classification_accuracy_score(turned, labels, *test, *real).value
    assert alone < 0.7 and abs(both - 0.8849) < 0.01


def test_real_rows_are_joined_to_the_made(rng):
    fake, real, test = (gaussians(rng, n) for n in (30, 20, 500))
    joined = linear_probe(*(np.concatenate(pair) for pair in zip(fake, real)))
    found = classification_accuracy_score(*fake, *test, *real)
    assert found.value == np.mean(joined.predict(test[0]) == test[1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: class_score([0.5, 0.5]), r"probabilities is \(2,\); give at least 2 rows"),
        (lambda: class_score([[0.5, 0.4], [1, 0]]), "do not sum to 1"),
        (lambda: class_score([[1.5, -0.5], [1, 0]]), "fall below 0"),
        (lambda: class_score([[np.nan, 0.5], [1, 0]]), "give a softmax"),
        (
            lambda: classification_accuracy_score(np.eye(2), [0, 1], np.eye(2), [0, 1], real=np.eye(2)),
            "real and real_labels belong together",
        ),
        (lambda: classification_accuracy_score(np.eye(2), [0, 1], np.eye(2), [0]), "give a label for each row"),
        (lambda: classification_accuracy_score(np.eye(2), [0], np.eye(2), [0, 1]), "labels is int64"),
    ],
)
def test_errors_say_what_to_do(call, words):
    with pytest.raises(ValueError, match=words):
        call()
