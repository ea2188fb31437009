r"""Whether samples of posteriors are calibrated: ranks that are uniform where they are right, and their coverage.

Over many problems i with a truth drawn from the prior and n samples of what is taken for `p(x | y_i)`, the rank of any
statistic of the truth among that of the samples is uniform on 0..n if the samples are exact. TARP takes the distance
from a reference, HPD the density. On the host, in float64, with numpy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, chdtrc

from diffinv.describe import described
from diffinv.metrics.distribution import Estimate


def _problems(samples: ArrayLike, **others: ArrayLike) -> list[np.ndarray]:
    """Samples (problems, n, d) and others (problems, d), or one clear error."""
    cloud = np.asarray(samples, np.float64)
    if cloud.ndim != 3 or not cloud.size:
        raise ValueError(f"samples is {cloud.shape}; give (problems, n, d)")
    found = [cloud]
    for name, value in others.items():
        rows = np.asarray(value, np.float64)
        if rows.shape != (len(cloud), cloud.shape[2]):
            raise ValueError(f"{name} is {rows.shape}; samples {cloud.shape} need ({len(cloud)}, {cloud.shape[2]})")
        found.append(rows)
    return found


def tarp_ranks(samples: ArrayLike, truth: ArrayLike, references: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
    r"""How many samples lie nearer to a reference than the truth does: int (problems,), uniform on 0..n if right.

        rank_i = #{j : |x_ij - r_i| < |x_i - r_i|},    distances after division by `scale`

    A reference may depend on y, and not on the truth in any other way. Such as do not depend on y find the prior itself
    calibrated: draw them near what y says, as one more sample of a solver, to see that.

    Source: Lemos et al. 2023, arXiv:2302.03026, algorithm 2. Differs: their code maps all to a unit box, which it takes
    of the truths, before it draws the references; here both are the caller's.

    Args:
      samples: (problems, n, d); truth: (problems, d); references: (problems, d).
      scale: () or (d,), of each coordinate, above 0.
    """
    if not np.all(np.asarray(scale) > 0):
        raise ValueError(f"scale is {np.asarray(scale)}; give numbers above 0")
    cloud, truth, references = _problems(samples, truth=truth, references=references)
    far = lambda x: np.sum(((x - references[:, None]) / np.asarray(scale)) ** 2, -1)
    return np.sum(far(cloud) < far(truth[:, None]), 1)


def hpd_ranks(samples: ArrayLike, truth: ArrayLike) -> np.ndarray:
    r"""How many samples have a higher log density than the truth: int (problems,), uniform on 0..n if right.

        rank_i = #{j : log p(x_ij | y_i) > log p(x_i | y_i)}

    `(rank + 1) / (n + 1)` is the credibility of the smallest region of highest density that holds the truth. The
    density may lack its constant. With that of another law than the samples' the ranks are still uniform where the
    samples are exact, but for regions that are not the smallest.

    Source: Hermans et al. 2022, arXiv:2110.06581, eq. 4.

    Args:
      samples: log densities (problems, n); truth: (problems,).
    """
    values, own = np.asarray(samples, np.float64), np.asarray(truth, np.float64)
    if values.ndim != 2 or not values.size or own.shape != values.shape[:1]:
        raise ValueError(
            f"samples is {values.shape} and truth {own.shape}; give log densities (problems, n), (problems,)"
        )
    return np.sum(values > own[:, None], 1)


def coverage_curve(found: ArrayLike, count: int, levels: ArrayLike) -> np.ndarray:
    r"""The share of problems whose truth a region of each credibility holds, from ranks: (levels,), `levels` if right.

        share(c) = mean_i clip(c (n + 1) - rank_i, 0, 1)

    which has the mean c for every c, whatever n. Below c: too narrow; above: too wide.

    Source: Lemos et al. 2023, arXiv:2302.03026, section 3; the interpolation between whole ranks is original.

    Args:
      found: ranks 0..count (problems,); count: n, samples a problem; levels: c in [0, 1].
    """
    found, levels = _ranked(found, count), np.asarray(levels, np.float64)
    return np.clip(levels[:, None] * (count + 1) - found[None], 0, 1).mean(1)


def _ranked(found: ArrayLike, count: int) -> np.ndarray:
    found = np.asarray(found)
    if found.ndim != 1 or not found.size or found.min() < 0 or found.max() > count:
        raise ValueError(f"found is {found.shape}; give ranks from 0 to count = {count}, one a problem")
    return found


def coverage_band(problems: int, levels: ArrayLike, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """The shares (low, high), each (levels,), between which a calibrated curve lies at any one level so often.

    The binomial law's quantiles, exact at levels `k / (n + 1)`, and wider than needed between. Original.

    Args:
      problems: their number, at least 1; levels: in [0, 1]; confidence: in (0, 1).
    """
    if problems < 1 or not 0 < confidence < 1:
        raise ValueError(f"problems is {problems}, confidence {confidence}; give at least 1, and a share in (0, 1)")
    k, levels = np.arange(problems + 1), np.clip(np.asarray(levels, np.float64), 0, 1)
    upto = bdtr(k[None], problems, levels[:, None])
    tail = (1 - confidence) / 2
    quantile = lambda p: np.argmax(upto >= p - 1e-12, 1) / problems
    return quantile(tail), quantile(1 - tail)


def uniformity(found: ArrayLike, count: int, bins: int = 10) -> float:
    """The p-value of a chi-squared test that ranks 0..count of independent problems are uniform.

    Bins hold as many ranks as others to one; small values speak against calibration. Give it at least 5 problems a bin.
    Source: Pearson 1900; Talts et al. 2018, arXiv:1804.06788, for the ranks.

    Args:
      found: (problems,); count: n; bins: at least 2.
    """
    found, bins = _ranked(found, count), min(bins, count + 1)
    if bins < 2:
        raise ValueError(f"bins is {bins}; give at least 2, and at least 1 sample a problem")
    held = np.bincount(np.arange(count + 1) * bins // (count + 1), minlength=bins)
    seen = np.bincount(found * bins // (count + 1), minlength=bins)
    expected = len(found) * held / (count + 1)
    return float(chdtrc(bins - 1, np.sum((seen - expected) ** 2 / expected)))


def mmse_gap(samples: ArrayLike, truth: ArrayLike, mean: ArrayLike) -> Estimate:
    r"""How much worse than the exact posterior mean the samples' mean is, in dB, with a 95 % interval; 0 if right.

        10 log10( sum_i (|m_i - x_i|^2 - tr C_i / n) / sum_i |mean_i - x_i|^2 )

    m_i and C_i are the mean and the covariance of problem i's samples: the second term takes out what n samples alone
    would add, so that exact ones have 0 for any n. The interval is the jackknife's over problems.

    Source: Zach et al. 2025, arXiv:2509.12821, whose gap has many samples and no such term.

    Args:
      samples: (problems, n, d), n at least 2; truth: (problems, d); mean: exact posterior means (problems, d).
    """
    cloud, truth, mean = _problems(samples, truth=truth, mean=mean)
    (problems, n, _), own = cloud.shape, cloud.mean(1)
    if n < 2 or problems < 2:
        raise ValueError(f"samples is {cloud.shape}; give at least 2 problems and 2 samples of each")
    errors = np.sum((own - truth) ** 2, 1) - cloud.var(1, ddof=1).sum(1) / n
    least = np.sum((mean - truth) ** 2, 1)
    decibel = lambda a, b: 10 * np.log10(np.maximum(a, 1e-300) / b)
    without = decibel(errors.sum() - errors, least.sum() - least)
    variance = (problems - 1) / problems * np.sum((without - without.mean()) ** 2)
    return Estimate(float(decibel(errors.sum(), least.sum())), float(1.96 * np.sqrt(variance)))


@described
class Discrepancy(NamedTuple):
    """A squared kernel Stein discrepancy.

    Attributes:
      value: at least 0; of exact samples about `floor`.
      floor: its mean for as many exact samples, which is that of the diagonal over n.
    """

    value: float
    floor: float


def stein_discrepancy(samples: ArrayLike, scores: ArrayLike, width: float | None = None) -> Discrepancy:
    r"""The squared kernel Stein discrepancy of samples to a law that is known by its score s = grad log p alone.

        KSD^2 = mean_{i, j} [s_i.s_j k + (s_i - s_j).(x_i - x_j) a + d a - |x_i - x_j|^2 b]
        k = (1 + r)^{-1/2},   a = (1 + r)^{-3/2} / w^2,   b = 3 (1 + r)^{-5/2} / w^4,   r = |x_i - x_j|^2 / w^2

    with the inverse multiquadric kernel, which sees samples that run away. It is blind to the weights of modes that
    lie far apart. The scale of numbers is that of the scores: compare those of one problem.

    Source: Liu, Lee & Jordan 2016, arXiv:1602.03253, eq. 9; the kernel of Gorham & Mackey 2017, arXiv:1703.01717.

    Args:
      samples: (n, d); scores: (n, d), of the exact law at the samples.
      width: w, above 0; the samples' median distance by default.
    """
    x, s = np.asarray(samples, np.float64), np.asarray(scores, np.float64)
    if x.ndim != 2 or x.shape != s.shape or len(x) < 2:
        raise ValueError(f"samples is {x.shape} and scores {s.shape}; give both as (n, d), n at least 2")
    squares = np.sum(x**2, 1)[:, None] - 2 * x @ x.T + np.sum(x**2, 1)[None]
    squares = np.maximum(squares, 0)
    if width is None:
        width = float(np.sqrt(np.median(squares[np.triu_indices(len(x), 1)])))
    if not width > 0:
        raise ValueError(f"width is {width}; give one above 0 (samples that are all equal have no median distance)")
    base = 1 + squares / width**2
    along = np.sum(s * x, 1)[:, None] - s @ x.T  # s_i . (x_i - x_j)
    a = base**-1.5 / width**2
    values = s @ s.T * base**-0.5 + (along + along.T) * a + x.shape[1] * a - 3 * squares * base**-2.5 / width**4
    return Discrepancy(float(max(values.mean(), 0.0)), float(np.trace(values) / len(x) ** 2))
