r"""Whether samples repeat the training pictures: distances to the nearest one, against those of held-out pictures.

Rows are features, or pixels of shrunk pictures, one picture a row, on the host, in float64, with numpy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffinv.describe import described

LEVEL = 0.05
"""The quantile of the held-out distances below which a sample counts as near: the share that a good model scores."""


@described
class Nearest(NamedTuple):
    """The nearest of a set of rows to each of some others.

    Attributes:
      distance: (n,), Euclidean.
      place: (n,), its place in the set; the first where several are as near.
    """

    distance: np.ndarray
    place: np.ndarray


def _rows(name: str, rows: ArrayLike) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"{name} is {rows.shape}; give one row a picture, (n, d)")
    return rows


def nearest_rows(rows: ArrayLike, among: ArrayLike, block: int = 256) -> Nearest:
    r"""`min_j |rows_i - among_j|` and its j, for every i. Source: original.

    They are found by `|u|^2 - 2 u.v + |v|^2`; the distance to the one that is found is then computed by its difference,
    so that a row that is in the set has the distance 0.

    Args:
      rows: (n, d).
      among: (m, d), of any float dtype.
      block: rows at once; memory is `block m`.

    Raises ValueError for sets of other widths.
    """
    rows, among = _rows("rows", rows), _rows("among", among)
    if rows.shape[1] != among.shape[1]:
        raise ValueError(f"rows is {rows.shape} and among is {among.shape}; give features of one kind")
    center = among.mean(0, dtype=np.float64)
    far = np.asarray(among - center, np.float64)
    squares, found = np.sum(far**2, 1), []
    for start in range(0, len(rows), block):
        here = np.asarray(rows[start : start + block] - center, np.float64)
        found.append(np.argmin(squares - 2 * here @ far.T, 1))
    index = np.concatenate(found)
    difference = np.asarray(rows, np.float64) - np.asarray(among[index], np.float64)
    return Nearest(np.linalg.norm(difference, axis=1), index)


def near_share(samples: ArrayLike, held_out: ArrayLike, level: float = LEVEL) -> float:
    r"""Share of the samples that are as near to training as the `level` quantile of the held-out pictures, or nearer.

        share = mean_i [d_i <= q],   q the level quantile of the held-out pictures' distances

    About `level` for samples of the data's own law, which is the floor; 1 where every sample is a training picture.

    Source: original, after the authenticity of Alaa et al. 2022, arXiv:2102.08921, section 3.2, which compares with the
    distances among training pictures.

    Args:
      samples: (n,), distances of samples to their nearest training picture.
      held_out: (m,), those of held-out pictures.
      level: of the quantile, between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must be between 0 and 1")
    return float(np.mean(np.asarray(samples) <= np.quantile(np.asarray(held_out), level)))
