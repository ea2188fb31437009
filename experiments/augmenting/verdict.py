"""What an arm gains over another: scores, paired differences over seeds, and their reading in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.augmenting.scikit import scikit
from experiments.report.tables import student

Score = Callable[[np.ndarray, np.ndarray, Sequence[int]], float]


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray, rare: Sequence[int]) -> float:
    """The mean of the classes' recalls; the rare ones count as the others do."""
    return float(scikit("metrics").balanced_accuracy_score(truth, predicted))


def rare_recall(truth: np.ndarray, predicted: np.ndarray, rare: Sequence[int]) -> float:
    """The mean of the rare classes' recalls."""
    recall = scikit("metrics").recall_score
    return float(recall(truth, predicted, labels=list(rare), average="macro", zero_division=0))


def macro_f1(truth: np.ndarray, predicted: np.ndarray, rare: Sequence[int]) -> float:
    """The mean of the classes' F1; 0 for a class that is never predicted."""
    return float(scikit("metrics").f1_score(truth, predicted, average="macro", zero_division=0))


SCORES: dict[str, Score] = {
    "balanced accuracy": balanced_accuracy,
    "rare recall": rare_recall,
    "macro-F1": macro_f1,
}
"""`(truth, predicted, rare) -> score` in [0, 1], by name."""


class Paired(NamedTuple):
    """A mean difference over paired seeds, in points: hundredths of a score.

    Attributes:
      mean: of the differences.
      half: of Student's 95 % interval, which takes the seeds for independent.
      corrected: the same for splits that overlap.
    """

    mean: float
    half: float
    corrected: float


def paired(a: Sequence[float], b: Sequence[float], n_test: int, n_train: int) -> Paired:
    r"""What `a` has more than `b`, seed by seed, with both 95 % intervals; NaN for the intervals of one seed.

        half = t_{n-1} s / sqrt(n),    corrected = t_{n-1} s sqrt(1/n + n_test / n_train)

    with s the standard deviation of the n differences. Splits that are drawn anew from one pool share pictures, and
    the first interval is too short; the second allows for that.

    Source: Nadeau & Bengio 2003, doi:10.1023/A:1024068626366, section 3.

    Args:
      a, b: scores in [0, 1], one a seed.
      n_test, n_train: pictures of a split.

    Raises ValueError for scores that do not pair, and for counts that are not above 0.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"a has {len(a)} scores and b has {len(b)}; give one of each for every seed")
    if not (n_test > 0 and n_train > 0):
        raise ValueError(f"n_test is {n_test} and n_train is {n_train}; give counts above 0")
    mean, half = student(list(100 * (np.asarray(a, np.float64) - np.asarray(b, np.float64))))
    return Paired(mean, half, half * math.sqrt(1 + len(a) * n_test / n_train))


def verdict(found: Paired, what: str, against: str) -> str:
    """One sentence. "No gain" where Student's interval covers zero; a gain that overlap may explain is told so."""
    mean, half, corrected = found
    told = f"{mean:+.1f} ± {half:.1f} points"
    if math.isnan(half):
        return f"{what} against {against}: {mean:+.1f} points of one seed, which say nothing; run several seeds."
    if abs(mean) <= half:
        return f"{what}: no gain over {against} ({told})."
    words = f"gains over {against}" if mean > 0 else f"loses against {against}"
    if abs(mean) <= corrected:
        covers = f"the interval corrected for overlapping splits, ± {corrected:.1f}, covers zero"
        return f"{what} {words} ({told}), but {covers}."
    return f"{what} {words} ({told}; corrected for overlapping splits ± {corrected:.1f})."
