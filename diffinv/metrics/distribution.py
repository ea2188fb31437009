r"""Distances between two sets of features, one row an example: (n, d). On the host, in float64, with numpy.

The Frechet distance between features of EfficientNet-Lite0 is called **EffNetLite0-FID** and never FID: FID means
Inception-v3 and its published weights, and the numbers do not compare. Report with it the network's input size, both
sample counts and `feature_fid_floor`: the distance falls with the number of samples, and only equal counts compare.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from diffinv.describe import described
from diffinv.typing import Key

NAME = "EffNetLite0-FID"
KID_NAME = "EffNetLite0-KID"
CMMD_NAME = "EffNetLite0-CMMD"


def _rows(features: ArrayLike, name: str) -> np.ndarray:
    """(n, d) float64, finite, n >= 2."""
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"{name} is {features.shape}; give at least 2 rows of features, (n, d)")
    if not np.isfinite(features).all():
        bad = np.flatnonzero(~np.isfinite(features).all(1))
        raise ValueError(
            f"{name} has {len(bad)} rows that are not finite, the first is row {bad[0]}; drop or mend them"
        )
    return features


def _both(features_a: ArrayLike, features_b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of rows of one width."""
    a, b = _rows(features_a, "features_a"), _rows(features_b, "features_b")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features_a is {a.shape} and features_b is {b.shape}; give features of one network")
    return a, b


def _root(covariance: ArrayLike, name: str) -> np.ndarray:
    """The symmetric root of a covariance; eigenvalues below 0 by rounding are 0, by more an error."""
    covariance = np.asarray(covariance, np.float64)
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    if values[0] < -1e-6 * max(values[-1], 0.0):
        raise ValueError(f"{name} has the eigenvalue {values[0]:.3g}; give a positive semi-definite covariance")
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T


def _factor(features: np.ndarray) -> np.ndarray:
    """R, (min(n, d), d), with R^T R the sample covariance."""
    scaled = (features - features.mean(0)) / np.sqrt(len(features) - 1)
    return np.linalg.qr(scaled, mode="r")  # type: ignore[return-value]  # numpy's stubs know no mode


def _between(mean_a: np.ndarray, root_a: np.ndarray, mean_b: np.ndarray, root_b: np.ndarray) -> float:
    """The squared distance from factors `root^T root = covariance`; never below 0."""
    shift = np.sum((mean_a - mean_b) ** 2)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return float(max(shift + np.sum(root_a**2) + np.sum(root_b**2) - 2 * cross, 0.0))


def frechet_distance(mean_a: ArrayLike, cov_a: ArrayLike, mean_b: ArrayLike, cov_b: ArrayLike) -> float:
    r"""Squared Frechet (2-Wasserstein) distance between two Gaussians, in squared feature units:

        d^2 = |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^{1/2} S_b S_a^{1/2})^{1/2}).

    The last trace is the sum of the singular values of `S_a^{1/2} S_b^{1/2}`, which is never complex nor of a singular
    matrix, as `sqrtm(S_a S_b)` is.

    Source: Dowson & Landau 1982, doi:10.1016/0047-259X(82)90077-X; Heusel et al. 2017, arXiv:1706.08500, eq. 6.

    Args:
      mean_a, mean_b: (d,); cov_a, cov_b: (d, d), positive semi-definite.
    """
    mean_a, mean_b = np.asarray(mean_a, np.float64), np.asarray(mean_b, np.float64)
    shapes = [mean_a.shape, mean_b.shape, np.shape(cov_a), np.shape(cov_b)]
    d = mean_a.size
    if shapes != [(d,), (d,), (d, d), (d, d)]:
        raise ValueError(f"means and covariances are {shapes}; give (d,), (d,), (d, d), (d, d)")
    return _between(mean_a, _root(cov_a, "cov_a"), mean_b, _root(cov_b, "cov_b"))


def feature_fid(features_a: ArrayLike, features_b: ArrayLike) -> float:
    r"""`frechet_distance` between two samples' means and covariances (divisor n - 1). With this project's network the
    number is EffNetLite0-FID. From the pooled features at input size 224.

    Computed from the samples' QR factors: no covariance is formed, so fewer samples than features lose no accuracy. The
    estimate is biased upwards, by more the fewer the samples.

    Source: Heusel et al. 2017, arXiv:1706.08500, with other features; the factored form is original.

    Args:
      features_a: (n, d); features_b: (m, d), of any float dtype.
    """
    a, b = _both(features_a, features_b)
    return _between(a.mean(0), _factor(a), b.mean(0), _factor(b))


def feature_fid_floor(key: Key, features: ArrayLike) -> float:
    r"""`feature_fid` between two disjoint halves of real data: what a perfect generator would score at n / 2 samples.

    A difference from the floor means something; the number itself is mostly the bias. Source: original.

    Args:
      features: (n, d), n >= 4; of an odd n one row is left out.
    """
    features = _rows(features, "features")
    half = len(features) // 2
    order = np.asarray(jax.random.permutation(key, len(features)))
    return feature_fid(features[order[:half]], features[order[half : 2 * half]])


@described
class Estimate(NamedTuple):
    """A value that was estimated from samples.

    Attributes:
      value: of the estimator.
      half: of the 95 % interval, 1.96 standard errors where its function says nothing else.
    """

    value: float
    half: float


def feature_fid_estimate(features_a: ArrayLike, features_b: ArrayLike, groups: int = 10) -> Estimate:
    r"""`feature_fid` of the laws rather than of the samples: without the bias that falls as 1/n, with an interval.

        value = mean_g v_g,    half = t_{G-1} std_g(v_g) / sqrt(G),    v_g = G F - (G - 1) F_{-g}

    F_{-g} leaves out every G-th row of both sets, from the g-th on, so that rows that are sorted lose a part of each
    kind. The value may fall below 0 where the laws agree. What is left of the bias falls faster than 1/n: it is small
    of more rows than features, and of fewer where the features' variances fall off. With 64 features of one variance
    and 40 rows a third of the bias is left, and the interval covers nothing: print `feature_fid_floor` beside it. It
    takes G + 1 times as long as `feature_fid`.

    Source: Quenouille 1956, doi:10.1093/biomet/43.3-4.353, by groups, with Tukey's Student interval; that the bias
    falls as 1/n, Chong & Forsyth 2020, arXiv:1911.07023, who extrapolate from subsets instead.

    Args:
      features_a: (n, d); features_b: (m, d), of any float dtype.
      groups: G, at least 2 and at most half of the rows of either set.

    Raises ValueError for another count of groups.
    """
    a, b = _both(features_a, features_b)
    if not 2 <= groups <= min(len(a), len(b)) // 2:
        raise ValueError(f"groups is {groups}; give 2 at least, and at most half of {min(len(a), len(b))} rows")
    without = [feature_fid(*(np.delete(rows, np.s_[g::groups], 0) for rows in (a, b))) for g in range(groups)]
    values = groups * feature_fid(a, b) - (groups - 1) * np.array(without)
    half = stdtrit(groups - 1, 0.975) * values.std(ddof=1) / np.sqrt(groups)
    return Estimate(float(values.mean()), float(half))


def _cubic(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u @ v.T / u.shape[1] + 1) ** 3


def _within(kernel: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean of a symmetric kernel off its diagonal, and the same without each row in turn (NaN of two rows)."""
    n, others = len(kernel), kernel.sum(1) - np.diag(kernel)
    pairs = (n - 1) * (n - 2)
    return others.sum() / (n * (n - 1)), (others.sum() - 2 * others) / pairs if pairs else np.full(n, np.nan)


def feature_mmd2(features_a: ArrayLike, features_b: ArrayLike) -> float:
    r"""Unbiased squared maximum mean discrepancy under the kernel `k(u, v) = (u.v / d + 1)^3`; may fall below 0.

        MMD^2 = mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j)

    KID's estimator with other features, so not KID. Unlike a Frechet distance its mean does not depend on n.

    Source: Gretton et al. 2012, JMLR 13, eq. 3; Binkowski et al. 2018, arXiv:1801.01401.

    Args:
      features_a: (n, d); features_b: (m, d).
    """
    return feature_kid(features_a, features_b).value


def feature_kid(features_a: ArrayLike, features_b: ArrayLike) -> Estimate:
    r"""`feature_mmd2` with the interval of its jackknife; with this project's network it is EffNetLite0-KID.

        se^2 = (n - 1)/n sum_i (M_{-a_i} - mean)^2 + (m - 1)/m sum_j (M_{-b_j} - mean)^2

    over the estimates without one row. Where the laws agree all first-order terms vanish, and se^2 is twice the
    variance: the interval then covers 0 in more than 95 % of the trials. NaN where a set has two rows.

    Source: as `feature_mmd2`; Efron & Stein 1981, doi:10.1214/aos/1176345462, for two samples.

    Args:
      features_a: (n, d); features_b: (m, d).
    """
    a, b = _both(features_a, features_b)
    cross = _cubic(a, b)
    (inner_a, less_a), (inner_b, less_b) = _within(_cubic(a, a)), _within(_cubic(b, b))
    without = lambda axis: (cross.sum() - cross.sum(1 - axis)) / (cross.size - cross.shape[1 - axis])
    spread = lambda values: (len(values) - 1) / len(values) * np.sum((values - values.mean()) ** 2)
    variance = spread(less_a - 2 * without(0)) + spread(less_b - 2 * without(1))
    return Estimate(float(inner_a + inner_b - 2 * cross.mean()), float(1.96 * np.sqrt(variance)))


def feature_cmmd(features_a: ArrayLike, features_b: ArrayLike, width: float = 10.0) -> float:
    r"""Squared maximum mean discrepancy of directions under a Gaussian kernel, times 1000; at least 0.

        CMMD = 1000 (mean k(a_i, a_j) + mean k(b_i, b_j) - 2 mean k(a_i, b_j)),    k(u, v) = exp(-|u - v|^2 / (2 w^2))

    over features divided by their norm. The diagonal is in the means, as in the source's code, so that it is above 0 by
    about `1000 (1/n + 1/m) (1 - mean k)` where the laws agree: only equal counts compare. The source takes CLIP's
    embeddings; with this project's network the number is EffNetLite0-CMMD, and does not compare with published ones.

    Source: Jayasumana et al. 2024, arXiv:2401.09603, eq. 4, with other features.

    Args:
      features_a: (n, d); features_b: (m, d); no row of zeros.
      width: w, of the kernel; the source's is 10, where directions differ by 2 at most.

    Raises ValueError for a row of zeros, which has no direction, and a width that is not above 0.
    """
    if not width > 0:
        raise ValueError(f"width is {width}; give a number above 0")
    a, b = (_directions(rows, name) for rows, name in zip(_both(features_a, features_b), ("features_a", "features_b")))
    mean = lambda u, v: np.mean(np.expm1((u @ v.T - 1) / width**2))  # |u - v|^2 = 2 - 2 u.v; expm1 keeps the digits
    return float(max(1000 * (mean(a, a) + mean(b, b) - 2 * mean(a, b)), 0.0))


def _directions(rows: np.ndarray, name: str) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError(f"{name} has a row of zeros, the {int(np.argmin(lengths))}th; leave it out")
    return rows / lengths
