"""The linear probe: normal equations, Fisher's discriminant, and Bayes' error on Gaussian classes."""

import math

import numpy as np
import pytest

from diffinv.metrics import probe


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_weights_solve_the_ridge_problem(rng):
    """The gradient of mean |Z w + shares - Y|^2 + ridge |w|^2 is 0."""
    f, y = 3 + rng.normal(size=(50, 4)) * [1, 2, 0.1, 5], rng.integers(0, 3, 50)
    found = probe.linear_probe(f, y, 0.2)
    z = (f - f.mean(0)) / f.std(0)
    gradient = z.T @ (found.scores(f) - np.eye(3)[y]) / 50 + 0.2 * found.weights
    np.testing.assert_allclose(gradient, 0, atol=1e-12)
    np.testing.assert_allclose(found.scores(f).mean(0), found.shares, atol=1e-12)
    np.testing.assert_allclose(found.scores(f).sum(1), 1, atol=1e-12)


def test_two_classes_are_parted_by_fishers_direction(rng):
    covariance = np.array([[1.0, 0.8], [0.8, 2.0]])
    noise = rng.multivariate_normal([0, 0], covariance, 4000)
    y = np.arange(4000) % 2
    f = noise + np.where(y[:, None] == 1, [1.0, -0.5], 0)
    found = probe.linear_probe(f, y, 1e-9)
    direction = (found.weights[:, 1] - found.weights[:, 0]) / found.scale
    within = sum(np.cov(f[y == k].T) for k in (0, 1))
    fisher = np.linalg.solve(within, f[y == 1].mean(0) - f[y == 0].mean(0))
    np.testing.assert_allclose(direction / np.linalg.norm(direction), fisher / np.linalg.norm(fisher), atol=1e-6)


def test_it_reaches_bayes_accuracy_on_gaussian_classes(rng):
    """Unit Gaussians 2 apart, equally likely: Phi(1) of new rows are told right."""
    draw = lambda n: (lambda y: (rng.normal(size=(n, 3)) + np.eye(3)[0] * 2 * y[:, None], y))(rng.integers(0, 2, n))
    found = probe.linear_probe(*draw(5000), 1e-6)
    f, y = draw(20_000)
    bayes = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    assert abs(np.mean(found.predict(f) == y) - bayes) < 4 * math.sqrt(bayes * (1 - bayes) / 20_000)


def test_a_feature_that_never_changes_has_no_say(rng):
    f, y = np.concatenate([rng.normal(size=(30, 2)), np.full((30, 1), 7.0)], 1), np.arange(30) % 3
    found = probe.linear_probe(f, y)
    assert (found.weights[2] == 0).all() and np.isfinite(found.scores(f)).all()


@pytest.mark.parametrize(
    ("features", "labels", "ridge", "words"),
    [
        (np.zeros((3, 2)), [0, 1], 0.1, "a whole number from 0 for each row"),
        (np.zeros((2, 2)), [0.0, 1.0], 0.1, "labels is float64"),
        (np.zeros((2, 2)), [0, -1], 0.1, "from 0"),
        (np.zeros((2, 2)), [1, 1], 0.1, "labels are all one"),
        (np.zeros((2, 2)), [0, 1], 0.0, "ridge is 0.0"),
    ],
)
def test_errors_say_what_to_do(features, labels, ridge, words):
    with pytest.raises(ValueError, match=words):
        probe.linear_probe(features, np.asarray(labels), ridge)
