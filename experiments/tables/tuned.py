"""One hyperparameter of a method, swept on some measurements and then held on others: what two tables share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import diffinv as di
from diffinv.loop import failed_step
from diffinv.operators.base import Operator
from diffinv.typing import Array, Key
from experiments.common import tuning
from experiments.methods import lab
from experiments.methods.lab import Row


class Outcome(NamedTuple):
    """The chosen value, and one sample for each of the other measurements (n, *shape), NaN where it diverged."""

    value: float
    samples: np.ndarray


def outcome(
    method: Row,
    prior: di.Prior,
    operator: Operator,
    sigma: float,
    y: Array,
    held: int,
    score: Callable[[np.ndarray, int], float],
    bar: tqdm,
) -> Outcome:
    """Chooses the value with the lowest mean `score(x, i)` on `y[:held]`, of those that diverged least there, then
    samples for `y[held:]`.

    Both are calls of one compiled program, of as many samples at once as there are values.
    """
    width, values = len(method.values), jnp.asarray(method.values)
    noise = di.GaussianNoise(jnp.asarray(sigma))

    def one(prior: di.Prior, operator: Operator, noise: di.GaussianNoise, value: Array, key: Key, y: Array) -> Array:
        solution = lab.solver(method, prior, value)(key, di.Measurement(operator, y, noise))
        return jnp.where(failed_step(solution.info) < 0, solution.x, jnp.nan)

    program = jax.jit(jax.vmap(one, (None, None, None, 0, 0, 0)))

    def samples(values: Array, picks: np.ndarray) -> np.ndarray:
        keys = jax.vmap(jax.random.key)(jnp.asarray(picks))
        bar.update()
        return np.asarray(program(prior, operator, noise, values, keys, y[picks]))

    scores = [[score(x, i) for x in samples(values, np.full(width, i))] for i in range(held)]
    value = values[tuning.least(np.transpose(scores))]
    picks = np.arange(held, len(y))
    padded = np.pad(picks, (0, -len(picks) % width), mode="edge").reshape(-1, width)
    found = np.concatenate([samples(jnp.full(width, value), each) for each in padded])
    return Outcome(float(value), found[: len(picks)])


def calls(method: Row, count: int, held: int) -> int:
    """How often `outcome` runs its program."""
    return held + -(-(count - held) // len(method.values))
