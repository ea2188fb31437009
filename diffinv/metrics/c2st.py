r"""Whether a classifier tells samples of a posterior from draws of the joint law, at one measurement: L-C2ST.

On the host, in float64, with numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from diffinv.describe import described

Classifier = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


def quadratic_logistic(
    rows: np.ndarray, labels: np.ndarray, ridge: float = 1.0, iterations: int = 20
) -> Callable[[np.ndarray], np.ndarray]:
    r"""`rows -> P(label 1)` by logistic regression on all products of two coordinates, by Newton's method.

        P(1 | z) = 1 / (1 + exp(-w.f(z))),   f = (1, z_i, z_i z_j),   w minimises  -log likelihood + ridge |w|^2 / 2

    with z standardised and the constant free. Between two Gaussian laws the true log ratio is of this form.

    Source: Hastie, Tibshirani & Friedman 2009, section 4.4.1.

    Args:
      rows: (n, d); labels: (n,), 0 or 1.
      ridge: above 0; 1 is one standard normal prior of each weight.
      iterations: of Newton's method.
    """
    mean, deviation = rows.mean(0), rows.std(0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    i, j = np.triu_indices(rows.shape[1])

    def features(rows: np.ndarray) -> np.ndarray:
        z = (rows - mean) / deviation
        return np.concatenate([np.ones((len(z), 1)), z, z[:, i] * z[:, j]], 1)

    f, w = features(rows), np.zeros(1 + rows.shape[1] + len(i))
    penalty = np.full(len(w), float(ridge))
    penalty[0] = 1e-6
    for _ in range(iterations):
        p = expit(f @ w)
        hessian = (f * np.maximum(p * (1 - p), 1e-9)[:, None]).T @ f + np.diag(penalty)
        w = w + np.linalg.solve(hessian, f.T @ (labels - p) - penalty * w)
    return lambda rows: expit(features(rows) @ w)


@described
class LocalTest(NamedTuple):
    """What `local_c2st` finds.

    Attributes:
      statistic: the mean square of `P - 1/2`, from 0, the same law, to 1/4.
      pvalue: of the samples' being exact; at least `1 / (nulls + 1)`.
    """

    statistic: float
    pvalue: float


def local_c2st(
    samples: ArrayLike,
    truth: ArrayLike,
    measured: ArrayLike,
    local: ArrayLike,
    at: ArrayLike,
    nulls: int = 100,
    classifier: Classifier = quadratic_logistic,
    seed: int = 0,
) -> LocalTest:
    r"""The local classifier two-sample test of samples at one measurement, without any exact sample of that posterior.

        d   = classifier of (x, y), truths 1 and samples 0, trained on N problems
        t   = mean_k (d(x_k, y) - 1/2)^2,                      x_k the samples at y
        p   = (1 + #{h : t_h >= t}) / (nulls + 1),             t_h with truth and sample exchanged in random problems

    The test is exact: where the samples are, truth and sample of a problem may be exchanged. Its power is that of the
    classifier; the default sees means and covariances that are linear in y.

    Source: Linhart, Gramfort & Rodrigues 2023, arXiv:2306.03580, algorithm 1 and 2, whose nulls permute all labels.

    Args:
      samples: (N, d), one of each problem; truth: (N, d), drawn from the prior; measured: (N, m), y of each.
      local: (k, d), samples at y; at: (m,), y.
      nulls: at least 19, for 5 %.
      classifier: `(rows, labels) -> (rows -> P(label 1))`, as one of scikit-learn in a lambda.
      seed: of the exchanges.

    Raises ValueError for shapes that do not fit, and for fewer nulls.
    """
    given = {"samples": samples, "truth": truth, "measured": measured, "local": local, "at": np.atleast_2d(at)}
    fake, real, y, near, here = (np.asarray(value, np.float64) for value in given.values())
    shapes = {name: np.shape(value) for name, value in given.items()}
    fits = all(a.ndim == 2 for a in (fake, real, y, near, here)) and fake.shape == real.shape
    if not (fits and len(y) == len(real) and near.shape[1] == real.shape[1] and here.shape == (1, y.shape[1])):
        raise ValueError(f"shapes are {shapes}; give (N, d), (N, d), (N, m), (k, d) and (m,)")
    if nulls < 19:
        raise ValueError(f"nulls is {nulls}; give at least 19, with which p can fall to 1/20")
    rng, labels = np.random.default_rng(seed), np.repeat([0.0, 1.0], len(y))
    asked = np.concatenate([near, np.broadcast_to(here, (len(near), y.shape[1]))], 1)

    def statistic(exchanged: np.ndarray) -> float:
        pairs = np.where(exchanged[:, None], real, fake), np.where(exchanged[:, None], fake, real)
        rows = np.concatenate([np.concatenate([x, y], 1) for x in pairs])
        return float(np.mean((classifier(rows, labels)(asked) - 0.5) ** 2))

    own = statistic(np.zeros(len(y), bool))
    others = [statistic(rng.uniform(size=len(y)) < 0.5) for _ in range(nulls)]
    return LocalTest(own, float((1 + np.sum(np.asarray(others) >= own)) / (nulls + 1)))
