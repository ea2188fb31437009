r"""NIQE: how far a picture's statistics are from those of natural pictures, without a truth to compare with.

On the host, in float64, with numpy. The published number is that of the authors' model, a file which the user gives;
a model that is fitted here to pictures of one's own gives another number, and only those of one model compare.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from scipy.ndimage import correlate1d
from scipy.special import gamma, gammaln

from diffinv.describe import described
from diffinv.metrics.image import DataRange, span_of
from diffinv.operators.resizing import resize_matrix

PUBLISHED = "niqe_release.zip of live.ece.utexas.edu/research/Quality (modelparameters.mat)"
GREY = (0.2989, 0.5870, 0.1140)
SHAPES = np.arange(0.2, 10.0005, 0.001)
_RATIOS = np.exp(2 * gammaln(2 / SHAPES) - gammaln(1 / SHAPES) - gammaln(3 / SHAPES))
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))


@described
class AsymmetricLaw(NamedTuple):
    """A generalised Gaussian law with two widths, density ~ exp(-(-x / left)^shape) below 0, with `right` above.

    Attributes:
      shape: 2 is Gaussian, 1 Laplace.
      left: the width below 0.
      right: the width above 0.
    """

    shape: float
    left: float
    right: float

    def mean(self) -> float:
        """Its mean, `(right - left) G(2/shape) / G(1/shape)`, G the gamma function."""
        return (self.right - self.left) * float(gamma(2 / self.shape) / gamma(1 / self.shape))


def asymmetric_law(x: ArrayLike) -> AsymmetricLaw:
    r"""The asymmetric generalised Gaussian of the samples' moments.

        g = s_l / s_r,   R = (E|x|)^2 / E x^2 (g^3 + 1)(g + 1) / (g^2 + 1)^2 = G(2/a)^2 / (G(1/a) G(3/a)),
        left, right = s_l, s_r times sqrt(G(1/a) / G(3/a)),            s_l^2, s_r^2: mean squares on either side of 0

    with a on a grid from 0.2 to 10 in steps of 0.001, as the authors' code has it. NaN where all samples are of one
    sign.

    Source: Lasmar, Stitou & Berthoumieu 2009, doi:10.1109/ICIP.2009.5414404; Mittal et al. 2013, eq. 8 to 10.

    Args:
      x: samples, any shape.
    """
    x = np.asarray(x, np.float64).ravel()
    below, above = x[x < 0], x[x > 0]
    if not (len(below) and len(above)):
        return AsymmetricLaw(math.nan, math.nan, math.nan)
    left, right = np.sqrt(np.mean(below**2)), np.sqrt(np.mean(above**2))
    g = left / right
    ratio = np.mean(np.abs(x)) ** 2 / np.mean(x**2) * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
    shape = float(SHAPES[np.argmin((_RATIOS - ratio) ** 2)])
    width = math.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return AsymmetricLaw(shape, float(left * width), float(right * width))


@described
class Pristine(NamedTuple):
    """The law of natural pictures' features.

    Attributes:
      mean: (36,).
      covariance: (36, 36).
      patch: of the pictures, pixels a side.
    """

    mean: np.ndarray
    covariance: np.ndarray
    patch: int = 96


def pristine(path: str) -> Pristine:
    """The authors' model, of a `.mat` file with `mu_prisparam` and `cov_prisparam`; read as data, no code is run.

    Source: Mittal et al. 2013. Raises FileNotFoundError where there is none, and says where it is published; ValueError
    where it is another file.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no file {path}; give the path of NIQE's model, which is in {PUBLISHED}")
    try:
        found = loadmat(path, variable_names=("mu_prisparam", "cov_prisparam"))
        mean, covariance = (np.asarray(found[f"{name}_prisparam"], np.float64) for name in ("mu", "cov"))
    except (MatReadError, KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} holds no mu_prisparam and cov_prisparam; it is in {PUBLISHED}") from error
    if mean.size != 36 or covariance.shape != (36, 36):
        raise ValueError(f"{path} has shapes {mean.shape} and {covariance.shape}, not 36 and (36, 36): {PUBLISHED}")
    return Pristine(mean.ravel(), covariance)


def _grey(x: ArrayLike, data_range: DataRange) -> np.ndarray:
    """(H, W) in 0 .. 255."""
    low, span = span_of(data_range)
    x = np.asarray(x)
    if x.ndim != 3 or x.shape[-1] not in (1, 3) or x.dtype.kind not in "uif":
        raise ValueError(f"x is {x.dtype} {x.shape}; give one real picture, (H, W, 1) or (H, W, 3)")
    if x.dtype.kind in "ui" and max(map(abs, data_range)) <= 1:
        raise ValueError(f"x is {x.dtype}, data_range {data_range}; give (0, 255), or the picture as floats")
    scaled = (x.astype(np.float64) - low) * (255 / span)
    return scaled @ np.asarray(GREY) if x.shape[-1] == 3 else scaled[..., 0]


def _normalised(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x - m) / (s + 1) and s, with a 7 x 7 Gaussian window of deviation 7/6 and repeated borders."""
    weights = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
    weights /= weights.sum()
    blur = lambda a: correlate1d(correlate1d(a, weights, 0, mode="nearest"), weights, 1, mode="nearest")
    mean = blur(grey)
    spread = np.sqrt(np.abs(blur(grey**2) - mean**2))
    return (grey - mean) / (spread + 1), spread


def _tiles(x: np.ndarray, side: int) -> np.ndarray:
    """(patches, side, side)."""
    h, w = (n // side for n in x.shape)
    return x.reshape(h, side, w, side).swapaxes(1, 2).reshape(-1, side, side)


def _statistics(patch: np.ndarray) -> list[float]:
    """18 numbers of one patch: its own law, and those of its products with four neighbours, which wrap around."""
    shape, left, right = asymmetric_law(patch)
    found = [shape, (left + right) / 2]
    for shift in SHIFTS:
        law = asymmetric_law(patch * np.roll(patch, shift, (0, 1)))
        found += [law.shape, law.mean(), law.left, law.right]
    return found


def patch_statistics(x: ArrayLike, data_range: DataRange, patch: int = 96) -> tuple[np.ndarray, np.ndarray]:
    r"""NIQE's features of each patch, (patches, 36), and each patch's sharpness, (patches,).

    The features are 18 numbers of the locally normalised picture, `(x - m) / (s + 1)` in 0 .. 255, at two scales, the
    second halved by MATLAB's bicubic `imresize`: shape and width of the pixels' law, and shape, mean and both widths of
    the law of products of neighbours (horizontal, vertical, both diagonals). Sharpness is the mean of s. What does not
    fill a patch at the right and lower border is left out.

    Source: Mittal, Soundararajan & Bovik 2013, doi:10.1109/LSP.2012.2227726, section II. Differs: grey is not rounded
    to whole numbers.

    Args:
      x: (H, W, 1) or (H, W, 3), in `data_range`, (low, high).
      patch: its side, even; the published model's is 96.

    Raises ValueError for a range that is none, no such picture, one under a patch, or an odd patch.
    """
    grey = _grey(x, data_range)
    if patch < 8 or patch % 2:
        raise ValueError(f"patch is {patch}; give an even number of pixels from 8 on")
    if min(grey.shape) < patch:
        raise ValueError(f"x is {np.shape(x)}; a patch has {patch} x {patch} pixels: give a larger picture")
    grey = grey[: grey.shape[0] // patch * patch, : grey.shape[1] // patch * patch]
    features = []
    for side in (patch, patch // 2):
        normal, spread = _normalised(grey)
        if side == patch:
            sharpness = _tiles(spread, side).mean((1, 2))
        features.append([_statistics(each) for each in _tiles(normal, side)])
        rows, columns = (resize_matrix(n, n // 2) for n in grey.shape)
        grey = rows @ grey @ columns.T
    return np.concatenate(features, 1), sharpness


def fitted_pristine(
    pictures: Iterable[ArrayLike], data_range: DataRange, patch: int = 96, sharp: float = 0.75
) -> Pristine:
    r"""The model of one's own pictures: mean and covariance of `patch_statistics` of their sharp patches.

    A patch is sharp whose sharpness is above `sharp` times the largest of its picture.

    Source: Mittal et al. 2013, section II.C, T = 0.75.

    Args:
      pictures: each (H, W, C), in `data_range`.
      patch: a side, even.
      sharp: T, at least 0 and below 1.

    Raises ValueError where fewer than 37 patches are left, whose covariance would be singular.
    """
    if not 0 <= sharp < 1:
        raise ValueError(f"sharp is {sharp}; give a share of the sharpest patch, at least 0 and below 1")
    kept = []
    for picture in pictures:
        features, sharpness = patch_statistics(picture, data_range, patch)
        kept.append(features[sharpness > sharp * sharpness.max()])
    rows = np.concatenate(kept) if kept else np.zeros((0, 36))
    rows = rows[np.isfinite(rows).all(1)]
    if len(rows) < 37:
        raise ValueError(f"pictures have {len(rows)} sharp patches of {patch} pixels; 36 features need 37 at least")
    return Pristine(rows.mean(0), np.cov(rows.T), patch)


def niqe(x: ArrayLike, data_range: DataRange, model: Pristine) -> float:
    r"""The natural image quality evaluator: 0 is natural, more is worse. Dimensionless.

        NIQE = sqrt((m - m_x)^T ((S + S_x) / 2)^+ (m - m_x))

    m and S are the model's mean and covariance, m_x and S_x those of all the picture's patches; of one patch S_x is 0.

    Source: Mittal et al. 2013, eq. 11. Differs: as `patch_statistics`. Ports that crop a border, or take the luma of
    video (16 .. 235) for grey, give other numbers. Where a rendered picture is exactly flat, the signs of what is left
    are those of rounding, and the number's last digits with them.

    Args:
      x: (H, W, 1) or (H, W, 3), in `data_range`, (low, high).
      model: `pristine(path)`, the published one, or `fitted_pristine(pictures, ...)`.

    Raises ValueError as `patch_statistics`, and where no patch has any structure.
    """
    rows, _ = patch_statistics(x, data_range, model.patch)
    rows = rows[np.isfinite(rows).all(1)]
    if not len(rows):
        raise ValueError("x is flat in each of its patches, which has no statistics; give another picture")
    spread = np.cov(rows.T) if len(rows) > 1 else np.zeros_like(model.covariance)
    shift = model.mean - rows.mean(0)
    return float(np.sqrt(shift @ np.linalg.pinv((model.covariance + spread) / 2) @ shift))
