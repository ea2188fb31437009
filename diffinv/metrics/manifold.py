r"""How much of one law another covers, by nearest neighbours: precision, recall, density and coverage.

Rows are features, one picture a row, on the host, in float64, with numpy. The numbers depend on both counts, on k and
on the network whose features they are: report all of these with them, and `expected_coverage`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from diffinv.describe import described
from diffinv.metrics.distribution import Estimate


@described
class Manifold(NamedTuple):
    """What balls about the rows of two sets tell of their laws; numbers, or an `Estimate` of each.

    Attributes:
      precision: the share of fake rows inside some real row's ball.
      recall: the share of real rows inside some fake row's ball.
      density: how many real rows' balls a fake row is in, over k; its mean is 1 where the laws agree.
      coverage: the share of real rows whose ball holds a fake row.
    """

    precision: Any
    recall: Any
    density: Any
    coverage: Any


def manifold(real: ArrayLike, fake: ArrayLike, k: int = 5, block: int = 1024) -> Manifold:
    r"""Precision, recall, density and coverage, with balls that reach to the k-th nearest row of the same set.

        precision = mean_j [any_i |f_j - r_i| < R_i]        recall   = mean_i [any_j |f_j - r_i| < F_j]
        density   = mean_j sum_i [|f_j - r_i| < R_i] / k    coverage = mean_i [any_j |f_j - r_i| < R_i]

    R_i is the distance of r_i to the k-th nearest other real row, F_j that of f_j to the k-th nearest other fake one.
    A row that repeats k times has the radius 0, and its ball nothing.

    Source: Kynkaanniemi et al. 2019, arXiv:1904.06991, eq. 1 and 2; Naeem et al. 2020, arXiv:2002.09797, eq. 3 and 4.

    Args:
      real: (n, d); fake: (m, d), of any float dtype; n, m > k.
      k: a whole number from 1.
      block: rows at once; memory is `block max(n, m)` numbers.

    Raises ValueError for sets of other widths, rows that are not finite, and no more rows than k.
    """
    if k < 1:
        raise ValueError(f"k is {k}; give a whole number, at least 1")
    real, fake = _rows("real", real, k), _rows("fake", fake, k)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"real is {real.shape} and fake is {fake.shape}; give features of one network")
    centre = real.mean(0)
    real, fake = real - centre, fake - centre  # which the differences of squares lose fewer digits by
    real_radii, fake_radii = _radii(real, k, block), _radii(fake, k, block)
    inside, recalled, covered = np.zeros(len(fake)), [], []
    for start, squares in _squares(real, fake, block):
        within = squares < real_radii[start : start + block, None]
        inside += within.sum(0)
        covered.append(within.any(1))
        recalled.append((squares < fake_radii).any(1))
    means = (inside > 0).mean(), np.concatenate(recalled).mean(), inside.mean() / k, np.concatenate(covered).mean()
    return Manifold(*map(float, means))


def manifold_estimate(real: ArrayLike, fake: ArrayLike, k: int = 5, groups: int = 10) -> Manifold:
    r"""`manifold` with an interval of each of its numbers: a `Manifold` of `Estimate`s.

        half = t_{G-1} std_g(v_g) / sqrt(G),    v_g = G m - (G - 1) m_{-g}

    m_{-g} leaves out every G-th row of both sets, from the g-th on: as many other real and other fake rows would give
    other numbers, and balls are made of both. The value is `manifold`'s own, whose mean depends on both counts; the
    interval is about that mean, and says nothing of a limit. It takes G + 1 times as long.

    Source: Tukey's Student interval of the jackknife by groups, as in `feature_fid_estimate`; for this use original.

    Args: as for `manifold`; groups: G, from 2 to half of the rows of either set, less k.

    Raises ValueError as `manifold`, and for another count of groups.
    """
    real, fake = _rows("real", real, k), _rows("fake", fake, k)
    if not 2 <= groups <= (min(len(real), len(fake)) - k) // 2:
        most = (min(len(real), len(fake)) - k) // 2
        raise ValueError(f"groups is {groups}; give 2 at least, and at most {most} of {len(real)} and {len(fake)} rows")
    whole = np.array(manifold(real, fake, k))
    without = lambda rows, g: np.delete(rows, np.s_[g::groups], 0)
    left = [manifold(without(real, g), without(fake, g), k) for g in range(groups)]
    spread = np.std(groups * whole - (groups - 1) * np.array(left), axis=0, ddof=1)
    halves = stdtrit(groups - 1, 0.975) * spread / np.sqrt(groups)
    return Manifold(*(Estimate(float(value), float(half)) for value, half in zip(whole, halves)))


def expected_coverage(n: int, m: int, k: int = 5) -> float:
    r"""The mean of `manifold`'s coverage where both laws agree and have a density:

        1 - prod_{i=1}^{k} (n - i) / (n + m - i)

    as none of the k nearest others of a real row, among all, is then fake. It tends to `1 - (n / (n + m))^k`.

    Source: Naeem et al. 2020, arXiv:2002.09797, lemma 2.

    Args:
      n: real rows; m: fake rows; both more than k.
    """
    if not min(n, m) > k >= 1:
        raise ValueError(f"n is {n}, m is {m} and k is {k}; give k from 1, and more rows than k")
    i = np.arange(1, k + 1)
    return float(1 - np.prod((n - i) / (n + m - i)))


def _rows(name: str, rows: ArrayLike, k: int) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or len(rows) <= k:
        raise ValueError(f"{name} is {rows.shape}; give more than k = {k} rows of features, (n, d)")
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} has rows that are not finite; drop or mend them")
    return rows


def _squares(rows: np.ndarray, among: np.ndarray, block: int) -> Iterator[tuple[int, np.ndarray]]:
    """The first row's place, and squared distances (block, m), for each block of rows."""
    lengths = np.sum(among**2, 1)
    for start in range(0, len(rows), block):
        here = rows[start : start + block]
        yield start, np.sum(here**2, 1)[:, None] - 2 * here @ among.T + lengths


def _radii(rows: np.ndarray, k: int, block: int) -> np.ndarray:
    """(n,), squared distances to the k-th nearest other row."""
    found = []
    for start, squares in _squares(rows, rows, block):
        np.fill_diagonal(squares[:, start:], -np.inf)  # the row itself comes first
        found.append(np.partition(squares, k, 1)[:, k])
    return np.concatenate(found)
