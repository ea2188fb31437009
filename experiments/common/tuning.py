"""The choice of a hyperparameter: of values that are each tried a few times, the one that errs least."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def least(errors: ArrayLike) -> int:
    """Which line of (values, tries) has the smallest mean error, of those with the fewest tries that diverged.

    A try diverged where its error is not finite. Raises ValueError where there is nothing to choose by.
    """
    errors = np.asarray(errors, float)
    if errors.ndim != 2 or not errors.size:
        raise ValueError(f"errors is {errors.shape}; give at least one value and one try")
    finite = np.isfinite(errors)
    total, count = np.sum(np.where(finite, errors, 0.0), 1), finite.sum(1)
    return int(np.lexsort((total / np.maximum(count, 1), -count))[0])


def swept(values: Sequence[float], error: Callable[[float, int], float], tries: int = 1) -> float:
    """The best of the values by `error(value, i)` of each of so many tries; see `least`."""
    return values[least([[error(value, i) for i in range(tries)] for value in values])]
