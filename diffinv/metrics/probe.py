r"""A linear classifier on the judge's features, in closed form: which class a sample seems to be of.

Rows are features, one picture a row, on the host, in float64, with numpy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffinv.describe import described


@described
class LinearProbe(NamedTuple):
    """Class scores `(f - mean) / scale @ weights + shares`; a feature that never changed has the weight 0.

    Attributes:
      mean: of the features it was fitted to, (d,).
      scale: their standard deviations, (d,); 1 where there is none.
      weights: (d, classes).
      shares: of the classes, (classes,).
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    shares: np.ndarray

    def scores(self, features: ArrayLike) -> np.ndarray:
        """(n, classes), estimates of the classes' probabilities that are neither clipped nor normalised."""
        return (np.asarray(features, np.float64) - self.mean) / self.scale @ self.weights + self.shares

    def predict(self, features: ArrayLike) -> np.ndarray:
        """(n,), the class of the greatest score."""
        return np.argmax(self.scores(features), 1)


def linear_probe(features: ArrayLike, labels: ArrayLike, ridge: float = 0.01) -> LinearProbe:
    r"""Ridge regression of the classes' indicators on standardised features.

        weights = (Z^T Z / n + ridge I)^{-1} Z^T (Y - shares) / n,    Z = (f - mean) / scale,  Y = [label = k]

    Two classes of equal size and covariance are parted, as `ridge -> 0`, by Fisher's discriminant.

    Source: Hastie, Tibshirani & Friedman 2009, The Elements of Statistical Learning, section 4.2, with a ridge; as a
    probe of features, Alain & Bengio 2016, arXiv:1610.01644.

    Args:
      features: (n, d), of any float dtype.
      labels: (n,), whole numbers from 0.
      ridge: added to the correlation matrix's diagonal; positive.

    Raises ValueError for labels that do not fit the features, or that are all one.
    """
    f, y = np.asarray(features, np.float64), np.asarray(labels)
    if f.ndim != 2 or y.shape != f.shape[:1] or not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise ValueError(f"labels is {y.dtype} {y.shape}, features {f.shape}; give a whole number from 0 for each row")
    if len(np.unique(y)) < 2:
        raise ValueError("labels are all one; give features of two classes at least")
    if not ridge > 0:
        raise ValueError(f"ridge is {ridge}; give a number above 0")
    spread = f.std(0)
    mean, scale = f.mean(0), np.where(spread > 0, spread, 1.0)
    z, indicators = (f - mean) / scale, np.eye(y.max() + 1)[y]
    shares = indicators.mean(0)
    correlation = z.T @ z / len(z) + ridge * np.eye(z.shape[1])
    return LinearProbe(mean, scale, np.linalg.solve(correlation, z.T @ (indicators - shares) / len(z)), shares)
