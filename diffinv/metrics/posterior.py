r"""How far samples of a posterior are from the posterior: moments, sliced Wasserstein distances, calibration.

Samples are one a row, (n, d), on the host, in float64, with numpy. Every distance has a floor: what exact samples of
the same counts would score. Report both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

Floats = np.ndarray


def _rows(x: ArrayLike, name: str) -> Floats:
    rows = np.asarray(x, np.float64)
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"{name} is {rows.shape}; give samples (n, d)")
    return rows


def _projected(x: ArrayLike, y: ArrayLike, projections: int, seed: int) -> tuple[Floats, Floats]:
    """Both clouds on random unit directions, sorted: (n, projections) and (m, projections)."""
    x, y = _rows(x, "x"), _rows(y, "y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x is {x.shape} and y is {y.shape}; give samples of one space")
    theta = np.random.default_rng(seed).standard_normal((x.shape[1], projections))
    theta /= np.linalg.norm(theta, axis=0)
    return np.sort(x @ theta, 0), np.sort(y @ theta, 0)


def _quantile_costs(a: Floats, b: Floats, p: int) -> Floats:
    r"""`int_0^1 |F_a^{-1}(u) - F_b^{-1}(u)|^p du` per column, exact for any two counts."""
    levels = np.unique(np.concatenate([np.arange(1, len(a) + 1) / len(a), np.arange(1, len(b) + 1) / len(b)]).round(12))
    weights = np.diff(levels, prepend=0.0)
    middle = levels - weights / 2
    i, j = (np.minimum((middle * len(c)).astype(int), len(c) - 1) for c in (a, b))
    return np.sum(weights[:, None] * np.abs(a[i] - b[j]) ** p, 0)


def sliced_wasserstein(x: ArrayLike, y: ArrayLike, p: int = 1, projections: int = 100, seed: int = 0) -> float:
    r"""The mean-sliced distance: `(mean_theta W_p^p(theta^T x, theta^T y))^{1/p}`, for p = 1 the mean of W1.

    Source: Bonneel et al. 2015, doi:10.1007/s10851-014-0506-3, over random directions; what MCGDiff's tables report.

    Args:
      x: (n, d); y: (m, d). projections: random directions; seed: of them.
    """
    costs = _quantile_costs(*_projected(x, y, projections, seed), p)
    return float(np.mean(costs) ** (1 / p))


def max_sliced_wasserstein(x: ArrayLike, y: ArrayLike, p: int = 2, projections: int = 100, seed: int = 0) -> float:
    r"""`max_theta W_p(theta^T x, theta^T y)` over random directions: a lower bound of the max-sliced distance.

    Source: Deshpande et al. 2019, arXiv:1904.05877, with random directions as POT takes them; what benchopt reports.
    """
    costs = _quantile_costs(*_projected(x, y, projections, seed), p)
    return float(np.max(costs) ** (1 / p))


def mean_error(samples: ArrayLike, mean: ArrayLike, covariance: ArrayLike) -> float:
    r"""`|m_hat - m| / sqrt(tr C)`: 0 is right, 1 is one posterior deviation; exact samples score about `1 / sqrt(n)`.

    Original. mean: (d,); covariance: (d, d), or (d,) for its diagonal.
    """
    scale = np.sum(np.diag(covariance) if np.ndim(covariance) == 2 else covariance)
    return float(np.linalg.norm(_rows(samples, "samples").mean(0) - np.asarray(mean)) / np.sqrt(scale))


def covariance_error(samples: ArrayLike, covariance: ArrayLike) -> float:
    """`|C_hat - C|_F / |C|_F`, with the unbiased sample covariance; for a diagonal (d,) variances alone. Original."""
    rows, covariance = _rows(samples, "samples"), np.asarray(covariance, np.float64)
    found = np.cov(rows.T, ddof=1).reshape(covariance.shape) if covariance.ndim == 2 else rows.var(0, ddof=1)
    return float(np.linalg.norm(found - covariance) / np.linalg.norm(covariance))


def coverage(samples: ArrayLike, truth: ArrayLike, level: float) -> float:
    """Share of the coordinates of `truth` (d,) inside the samples' central interval of probability `level`.

    Calibrated samplers score `level` on average over problems whose truth was drawn from the prior, of any number of
    samples that has both ends, `n >= 2 / (1 - level) - 1`: the k-th of n stands for the probability `k / (n + 1)`
    (Weibull's quantiles; those of NumPy's default would score `level (n - 1) / (n + 1)`). Original.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must be between 0 and 1")
    ends = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(_rows(samples, "samples"), ends, axis=0, method="weibull")
    truth = np.asarray(truth)
    return float(np.mean((low <= truth) & (truth <= high)))


def ranks(samples: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """How many samples lie below each coordinate of `truth`: int (d,), uniform on 0..n where the posterior is right.

    Source: Talts et al. 2018, arXiv:1804.06788, algorithm 1 (simulation-based calibration).
    """
    return np.sum(_rows(samples, "samples") < np.asarray(truth), 0)


def rank_histogram(found: ArrayLike, count: int, bins: int = 8) -> tuple[np.ndarray, float]:
    """(histogram of the ranks 0..count in `bins`, chi-squared over its expectation: about 1 where they are uniform).

    A bin expects as many ranks as it holds whole numbers, which differ where `bins` does not divide `count + 1`. Ranks
    of one problem's coordinates are dependent, so the ratio is an indication, not a test. Original.
    """
    histogram, _ = np.histogram(np.asarray(found).ravel(), bins, (0, count + 1))
    held, _ = np.histogram(np.arange(count + 1), bins, (0, count + 1))
    expected = histogram.sum() * held[held > 0] / (count + 1)
    chi = np.sum((histogram[held > 0] - expected) ** 2 / expected)
    return histogram, float(chi / max(len(expected) - 1, 1))


def interval(values: ArrayLike) -> tuple[float, float]:
    """(mean, half-width `1.96 s / sqrt(n)`) of the values that are finite; NaN where fewer than two are. Original."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return float("nan"), float("nan")
    return float(values.mean()), float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))
