"""L-C2ST on a Gaussian problem, and its classifier against the log ratio that is known."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from diffinv.metrics import c2st as metrics


def problems(seed, count=300, scale=1.0, shift=0.0, where=-np.inf):
    """x ~ N(0, I) in two dimensions, y = x_1 + N(0, 1); samples that are spoilt where y is above `where`."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((count, 2))
    y = truth[:, :1] + rng.standard_normal((count, 1))

    def sample(y):
        spoilt = y > where
        z = rng.standard_normal((len(y), 2)) * np.where(spoilt, scale, 1) + np.where(spoilt, shift, 0)
        return np.concatenate([y / 2, 0 * y], 1) + np.array([0.5**0.5, 1]) * z

    return sample, sample(y), truth, y


def pvalue(at, seed, **spoilt):
    sample, samples, truth, y = problems(seed, **spoilt)
    local = sample(np.full((200, 1), at))
    return metrics.local_c2st(samples, truth, y, local, [at], nulls=19, seed=seed).pvalue


def test_the_classifier_finds_the_log_ratio_of_two_gaussians():
    rng = np.random.default_rng(0)
    narrow, wide = 0.6 * rng.standard_normal((20_000, 2)) + 0.5, rng.standard_normal((20_000, 2))
    probability = metrics.quadratic_logistic(np.concatenate([wide, narrow]), np.repeat([0.0, 1.0], 20_000))
    x = rng.standard_normal((50, 2))
    ratio = (stats.norm.logpdf(x, 0.5, 0.6) - stats.norm.logpdf(x)).sum(1)
    np.testing.assert_allclose(probability(x), expit(ratio), atol=0.02)


def test_exact_samples_reject_at_the_level_and_spoilt_ones_always():
    """Of 20 exact problems p = 1/20 comes once on average: four or more have the probability 0.016."""
    assert sum(pvalue(0.5, seed) == 0.05 for seed in range(20)) < 4
    for spoilt in ({"scale": 0.6}, {"scale": 1.7}, {"shift": 0.6}):
        assert pvalue(0.5, 0, **spoilt) == 0.05, spoilt


def test_it_is_local():
    """Spoilt above y = 0.5: seen at 2, where the statistic is the larger; a classifier of one's own is used."""

    def stump(rows, labels):
        above = rows[:, 2] > 0.5
        mean = [metrics.quadratic_logistic(rows[side], labels[side]) for side in (~above, above)]
        return lambda rows: np.where(rows[:, 2] > 0.5, mean[1](rows), mean[0](rows))

    found = []
    for at in (-1.0, 2.0):
        sample, samples, truth, y = problems(3, scale=0.5, where=0.5)
        found.append(
            metrics.local_c2st(samples, truth, y, sample(np.full((200, 1), at)), [at], nulls=19, classifier=stump)
        )
    assert found[1].pvalue == 0.05 < found[0].pvalue and found[1].statistic > 3 * found[0].statistic


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"measured": np.zeros((3, 1))}, "'measured': (3, 1)"),
        ({"local": np.zeros((5, 3))}, "'local': (5, 3)"),
        ({"at": [0.0, 0.0]}, "'at': (1, 2)"),
        ({"nulls": 5}, "nulls is 5"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    rows = np.zeros((4, 2))
    given = {"samples": rows, "truth": rows, "measured": rows[:, :1], "local": rows, "at": [0.0], **change}
    with pytest.raises(ValueError) as refused:
        metrics.local_c2st(**given)
    assert words in str(refused.value)
