"""What EfficientNet-Lite0 sees in a row's pictures of 32 pixels or more: the further columns of `cascade`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from diffinv.metrics import distribution, manifold
from diffinv.metrics.scores import class_score, classification_accuracy_score
from experiments.augmenting.classifiers import FEATURES, LEAST
from experiments.augmenting.scikit import scikit

HEAD = ("FID", "KID", "precision", "recall", "density", "coverage", "seen as its own", "teaches", "class score")
DIGITS = (1, 4, 3, 3, 2, 3, 3, 3, 2)
TAUGHT = 3000
"""Training pictures, at most, that a classifier is fitted to."""
NAMED = 100
"""Labels, at most, that a classifier tells apart; captions are more."""


class Known(NamedTuple):
    """Features of training and of held-out pictures, (N, 1280), their labels, and the classifier of the first.

    Attributes:
      trained: rows, and `trained_labels` (N,); at most `TAUGHT`, drawn.
      held_out: rows, and `labels` (M,).
      classifier: of the training rows; None where there are more than `NAMED` labels.
    """

    trained: np.ndarray
    trained_labels: np.ndarray
    held_out: np.ndarray
    labels: np.ndarray
    classifier: Any


def suited(pictures: np.ndarray) -> bool:
    """Whether pictures (N, H, W, C) are large enough for the network."""
    return min(pictures.shape[1:3]) >= LEAST


def fitted(rows: np.ndarray, labels: np.ndarray) -> Any:
    """Logistic regression on rows that are moved to their mean, and weighed as if their variance were 1 on average."""
    centred = scikit("preprocessing").StandardScaler(with_std=False)
    logistic = scikit("linear_model").LogisticRegression(C=1 / (np.mean(rows.var(0)) or 1.0), max_iter=2000)
    return scikit("pipeline").make_pipeline(centred, logistic).fit(rows, labels)


def known(trained: np.ndarray, trained_labels: np.ndarray, held_out: np.ndarray, labels: np.ndarray) -> Known:
    """The features of real pictures, each (N, H, W, C) in [-1, 1]."""
    chosen = np.random.default_rng(0).permutation(len(trained))[:TAUGHT]
    rows, names = FEATURES(trained[chosen]), trained_labels[chosen]
    classifier = fitted(rows, names) if 1 < len(np.unique(names)) <= NAMED else None
    return Known(rows, names, FEATURES(held_out), labels, classifier)


def scores(rows: np.ndarray, labels: np.ndarray, real: Known) -> list[float]:
    """The cells of pictures' features (N, 1280) and labels (N,), in the order of `HEAD`; NaN where there are none."""
    near = [distribution.feature_fid(rows, real.held_out), distribution.feature_kid(rows, real.held_out).value]
    near += map(float, manifold.manifold(real.held_out, rows))
    if real.classifier is None:
        return [*near, *[float("nan")] * 3]
    own, taught = np.mean(real.classifier.predict(rows) == labels), float("nan")
    if len(np.unique(labels)) > 1:
        taught = classification_accuracy_score(rows, labels, real.held_out, real.labels).value
    return [*near, float(own), taught, class_score(real.classifier.predict_proba(rows)).value]


def floor(real: Known, count: int) -> list[float]:
    """The cells of `count` training pictures, in place of made ones; the classifier was not fitted to them.

    A third of `TAUGHT` at most: the classifier is fitted anew to the others.
    """
    count = min(count, len(real.trained) // 3)
    others = real._replace(trained=real.trained[count:], trained_labels=real.trained_labels[count:])
    if real.classifier is not None:
        others = others._replace(classifier=fitted(others.trained, others.trained_labels))
    return scores(real.trained[:count], real.trained_labels[:count], others)
