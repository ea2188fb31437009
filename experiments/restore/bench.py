"""One task of `experiments.reconstruct`: its measurements, and its pictures a group at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import LatentPrior
from diffinv.data import to_pixels
from diffinv.prior import Prior
from diffinv.typing import Array
from experiments.methods import solvers
from experiments.methods.table import METHODS
from experiments.restore import mri
from experiments.restore.operators import shown
from experiments.restore.programs import Outcome, Programs, expected_floor
from experiments.restore.scans import Scan


class Bench(Programs):
    """One task: its measurements, and the compiled functions that restore and score a group of pictures.

    `pictures`, (N, H, W, C), are the truth, or, where they are `degraded` already, the measurements themselves; where
    there are `scans`, these are the measurements.
    """

    def __init__(
        self,
        config,
        prior: Prior | LatentPrior,
        task: str,
        pictures: np.ndarray,
        degraded: bool = False,
        scans: Sequence[Scan] = (),
    ) -> None:
        super().__init__(config, prior, task)
        self.count, self.truth = len(pictures), None if degraded else jnp.asarray(pictures)
        at_once = max(min(config.group, self.count, config.pixels // math.prod(prior.shape[:2])), 1)
        self.group = -(-at_once // jax.device_count()) * jax.device_count()
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(self.key, 2), i))(jnp.arange(self.count))
        if scans:
            found = [mri.measurement(config, task, jax.random.fold_in(self.key, 1), each, degraded) for each in scans]
            self.measurements = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
        else:
            self.measurements = self.measured(keys, pictures, degraded)
        self.floors = jax.jit(jax.vmap(expected_floor))(keys, self.measurements)
        self.score = jax.jit(jax.vmap(self.scored, (None, 0, None if degraded else 0, 0)))
        self.outcomes: dict[tuple[str, int], Outcome] = {}

    def seen(self, i: int) -> np.ndarray:
        """The measurement of picture i as one, uint8."""
        return pixels(shown(jax.tree.map(lambda leaf: leaf[i], self.measurements), self.prior.shape))

    def members(self, group: int) -> np.ndarray:
        """Indices of a group's pictures; the last group is filled up by repetition."""
        return np.arange(group * self.group, (group + 1) * self.group) % self.count

    def place(self, tree, chosen: np.ndarray):
        """The chosen pictures' part of `tree`, split over the devices."""
        return jax.device_put(jax.tree.map(lambda leaf: leaf[chosen], tree), self.split)

    def run(self, name: str, group: int) -> Outcome:
        """One solver on one group; a wrapper starts at the base solver's own outcome and adds its cost."""
        if (name, group) not in self.outcomes:
            wraps = METHODS[solvers.own(name)].wrap
            base = self.run(solvers.base(name, self.config), group) if wraps else None
            chosen = self.members(group)
            keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(self.key, 3), i))(jnp.asarray(chosen))
            outcome = self.solve(name, keys, self.place(self.measurements, chosen), base and base.x)
            self.outcomes[name, group] = outcome if base is None else outcome.after(base)
        return self.outcomes[name, group]

    def restore(self, name: str, group: int) -> list[dict]:
        """One solver's pictures, `x` in [-1, 1] and as `image`, and scores on one group."""
        chosen, outcome = self.members(group), self.run(name, group)
        truth = None if self.truth is None else self.place(self.truth, chosen)
        scores = self.score(self.perceive, self.place(self.measurements, chosen), truth, outcome.x)
        scores, x, cost, failed = jax.device_get((scores, outcome.x, outcome.cost, outcome.failed))
        return [
            {
                "x": x[i],
                "image": pixels(x[i]),
                **{metric: float(values[i]) for metric, values in scores.items()},
                "floor": float(self.floors[chosen[i]]),
                "nfe": int(cost.nfe[i]),
                "vjps": int(cost.vjps[i]),
                "calls": int(cost.calls[i]),
                "seconds": outcome.seconds,
                "compile_seconds": outcome.compiling,
                "first_bad_step": int(failed[i]),
            }
            for i in range(len(chosen))
        ]


def pixels(x: Array) -> np.ndarray:
    """[-1, 1] to uint8; what is not finite is in the range, too."""
    return to_pixels(np.nan_to_num(x))
