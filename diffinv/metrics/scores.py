r"""What a classifier makes of samples: how sure and how varied it finds them, and how well it learns from them.

On the host, in float64, with numpy. `class_score` is the Inception Score's formula, and may be called so of the
published Inception-v3's probabilities alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from diffinv.metrics.distribution import Estimate
from diffinv.metrics.probe import linear_probe


def class_score(probabilities: ArrayLike) -> Estimate:
    r"""How sure a classifier is of each sample, and how varied it finds them all, with the interval of its jackknife:

        exp(mean_i KL(p_i || mean p)) = exp(H(mean p) - mean_i H(p_i))

    From 1 to the count K of classes: K where it is sure of every sample and the classes are alike often. Its mean
    falls short of the law's by about a share of (K - 1) / 2n; no published code corrects that, nor does this.

    Source: Salimans et al. 2016, arXiv:1606.03498, section 4, without its splits in ten; Efron & Stein 1981,
    doi:10.1214/aos/1176345462.

    Args:
      probabilities: (n, K), one row a sample, n >= 2; each row sums to 1.

    Raises ValueError for rows that are no probabilities.
    """
    p = _probabilities(probabilities)
    n, entropies, total = len(p), _entropy(p), p.sum(0)
    without = _entropy((total - p) / (n - 1)) - (entropies.sum() - entropies) / (n - 1)
    each = np.exp(without)
    variance = (n - 1) / n * np.sum((each - each.mean()) ** 2)
    return Estimate(float(np.exp(_entropy(total / n) - entropies.mean())), float(1.96 * np.sqrt(variance)))


def _probabilities(given: ArrayLike) -> np.ndarray:
    p = np.asarray(given, np.float64)
    if p.ndim != 2 or len(p) < 2:
        raise ValueError(f"probabilities is {p.shape}; give at least 2 rows, (n, classes)")
    if not (p.min() >= 0 and np.allclose(p.sum(1), 1, atol=1e-4)):
        raise ValueError("probabilities has rows that do not sum to 1, or fall below 0; give a softmax")
    return p / p.sum(1, keepdims=True)


def _entropy(p: np.ndarray) -> np.ndarray:
    """Over the last axis, in nats; 0 log 0 is 0."""
    p = np.maximum(p, 0)  # a mean without one row may fall below by rounding
    return -np.sum(p * np.log(np.where(p > 0, p, 1)), -1)


def classification_accuracy_score(
    fake: ArrayLike,
    fake_labels: ArrayLike,
    test: ArrayLike,
    test_labels: ArrayLike,
    real: ArrayLike | None = None,
    real_labels: ArrayLike | None = None,
    ridge: float = 0.01,
) -> Estimate:
    r"""The accuracy on real test rows of `probe.linear_probe`, trained on made rows: what they teach of the classes.

    With `real` it is trained on both: the source's naive augmentation score, to be compared with the accuracy after
    `real` alone. Two Gaussian classes whose means are Delta standard deviations apart, learnt from many samples of
    their law, give `Phi(Delta / 2)`. The interval is the binomial one of the test rows; training again varies besides.

    Source: Ravuri & Vinyals 2019, arXiv:1905.10887, section 3, with a linear classifier of features for a network.

    Args:
      fake: (n, d); test: (m, d), features of one network; no row of one is in the other.
      fake_labels: (n,); test_labels: (m,), whole numbers from 0.
      real, real_labels: training rows to add, and their labels.
      ridge: of the probe.

    Raises ValueError for labels that do not fit the rows, and for real rows without labels.
    """
    if (real is None) != (real_labels is None):
        raise ValueError("real and real_labels belong together; give both or neither")
    rows, labels = np.asarray(fake, np.float64), np.asarray(fake_labels)
    if real is not None:
        rows, labels = np.concatenate([rows, real]), np.concatenate([labels, np.asarray(real_labels)])
    test, known = np.asarray(test, np.float64), np.asarray(test_labels)
    if test.ndim != 2 or known.shape != test.shape[:1] or not len(known):
        raise ValueError(f"test is {test.shape} and test_labels {known.shape}; give a label for each row")
    share = float(np.mean(linear_probe(rows, labels, ridge).predict(test) == known))
    return Estimate(share, float(1.96 * np.sqrt(share * (1 - share) / len(known))))
