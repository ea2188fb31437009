"""One task of `experiments.reconstruct`: its measurements, and compiled programs that restore and score pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import GaussianNoise, linalg, measure, operators, seed_key, sharding
from diffinv.data import to_pixels
from diffinv.loop import failed_step, total_cost
from diffinv.measurement import Measurement
from diffinv.metrics import features, image
from diffinv.operators.base import ClosedForm
from diffinv.prior import Prior
from diffinv.typing import Array, Cost, Key
from experiments.methods import solvers
from experiments.methods.table import METHODS
from experiments.restore import mri
from experiments.restore.operators import OPERATORS, shown
from experiments.restore.scans import Scan


def floor(key: Key, measurement: Measurement, draws: int = 64) -> Array:
    """The residual norm that noise alone would leave: `sigma sqrt(dim range A)`, by `draws` draws."""

    def norm_square(k: Key) -> Array:
        n = measurement.noise.sample(k, jnp.zeros_like(measurement.y))
        return linalg.norm(measurement.operator.project(n)) ** 2

    return jnp.sqrt(jnp.mean(jax.vmap(norm_square)(jax.random.split(key, draws))))


def expected_floor(key: Key, measurement: Measurement) -> Array:
    """`floor`, or, where no closed form says where noise lives, `sigma sqrt(dim y)`, which is a little above it.

    k-space of several coils has many more numbers than the picture: there it is `floor`, by iteration and of few draws.
    """
    if isinstance(measurement.operator, ClosedForm):
        return floor(key, measurement)
    if jnp.iscomplexobj(measurement.y):
        return floor(key, measurement, 4)
    return measurement.sigma * jnp.sqrt(float(measurement.y.size))


def coloured(x: Array) -> Array:
    """A grey picture in three equal channels, which the features want; others as they are."""
    return jnp.broadcast_to(x, (*x.shape[:2], 3)) if x.shape[-1] == 1 else x


class Timed(NamedTuple):
    """A compiled program, and the seconds it took to compile."""

    program: Any
    compiling: float


class Outcome(NamedTuple):
    """A group's pictures `x`, their costs, first failed steps, seconds a picture and seconds of compiling."""

    x: Array
    cost: Cost
    failed: Array
    seconds: float
    compiling: float

    def after(self, base: Outcome) -> Outcome:
        """With what the base solver cost, and its failure where there was one."""
        cost = jax.tree.map(jnp.add, self.cost, base.cost)
        failed = jnp.where(base.failed >= 0, base.failed, self.failed)
        return Outcome(self.x, cost, failed, self.seconds + base.seconds, self.compiling + base.compiling)


class Bench:
    """One task: its measurements, and the compiled functions that restore and score a group of pictures.

    `pictures`, (N, H, W, C), are the truth, or, where they are `degraded` already, the measurements themselves; where
    there are `scans`, these are the measurements. `tell(text)` is called with "compiling" and "" as a program is
    compiled and run.
    """

    def __init__(
        self,
        config,
        prior: Prior,
        task: str,
        pictures: np.ndarray,
        degraded: bool = False,
        scans: Sequence[Scan] = (),
    ) -> None:
        self.config, self.prior, self.task = config, prior, task
        self.count, self.truth = len(pictures), None if degraded else jnp.asarray(pictures)
        self.mesh = sharding.mesh()
        self.split, self.whole = sharding.split(self.mesh), sharding.replicated(self.mesh)
        self.key = seed_key(config.seed)
        self.tell: Callable[[str], None] = lambda text: None
        at_once = max(min(config.group, self.count, config.pixels // math.prod(prior.shape[:2])), 1)
        self.group = -(-at_once // jax.device_count()) * jax.device_count()
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(self.key, 2), i))(jnp.arange(self.count))
        if scans:
            found = [mri.measurement(config, task, jax.random.fold_in(self.key, 1), each, degraded) for each in scans]
            self.measurements = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
        else:
            self.measurements = self._measured(keys, pictures, degraded)
        self.floors = jax.jit(jax.vmap(expected_floor))(keys, self.measurements)
        self.perceive = features.efficientnet_features()
        self.score = jax.jit(jax.vmap(self._score, (None, 0, None if degraded else 0, 0)))
        self.compiled: dict[str, Timed] = {}
        self.outcomes: dict[tuple[str, int], Outcome] = {}

    def _measured(self, keys: Key, pictures: np.ndarray, degraded: bool) -> Measurement:
        """The measurements of pictures, or the pictures as measurements."""
        config = self.config
        operator = OPERATORS[self.task](config, jax.random.fold_in(self.key, 1), self.prior.shape)
        noise = GaussianNoise(jnp.float32(config.sigma_y))
        seen = lambda y: operator(y) if isinstance(operator, operators.Mask) else y  # what is hidden has no say
        given = lambda _, y: Measurement(operator, seen(y), noise)
        taken = given if degraded else lambda key, x: measure(key, operator, x, config.sigma_y)
        return jax.vmap(taken)(keys, jnp.asarray(pictures))

    def seen(self, i: int) -> np.ndarray:
        """The measurement of picture i as one, uint8."""
        return pixels(shown(jax.tree.map(lambda leaf: leaf[i], self.measurements), self.prior.shape))

    def _score(self, perceive, measurement: Measurement, truth: Array | None, x: Array) -> dict[str, Array]:
        x, largest = jnp.clip(x, -1, 1), jnp.max(jnp.abs(x))
        told = {"residual": linalg.norm(measurement.residual(x)), "largest": largest}
        if truth is None:
            return told
        return {
            "psnr": image.psnr(truth, x, (-1, 1)),
            **({"ssim": image.ssim(truth, x, (-1, 1))} if min(truth.shape[:2]) >= 11 else {}),
            **({"nmse": image.nmse(truth, x, (-1, 1))} if OPERATORS[self.task].kspace else {}),
            "feature_distance": image.feature_distance(perceive, coloured(truth), coloured(x)),
            **told,
        }

    def members(self, group: int) -> np.ndarray:
        """Indices of a group's pictures; the last group is filled up by repetition."""
        return np.arange(group * self.group, (group + 1) * self.group) % self.count

    def place(self, tree, chosen: np.ndarray):
        """The chosen pictures' part of `tree`, split over the devices."""
        return jax.device_put(jax.tree.map(lambda leaf: leaf[chosen], tree), self.split)

    def options(self) -> dict[str, Any]:
        """XLA's, of the solvers."""
        return {"xla_backend_optimization_level": self.config.optimisation}

    def program(self, name: str, arguments: tuple) -> Timed:
        """The compiled solver, which takes (key, prior, measurement, candidate); only wrappers read the last."""
        own = solvers.own(name)
        if own not in self.compiled:

            def restore(key: Key, prior: Prior, measurement: Measurement, candidate: Array | None):
                solution = solvers.solver(own, self.config, prior)(key, measurement, candidate)
                return solution.x, total_cost(solution.info), failed_step(solution.info)

            self.tell("compiling")
            start = time.perf_counter()
            lowered = jax.jit(jax.vmap(restore, (0, None, 0, None if arguments[3] is None else 0))).lower(*arguments)
            program = lowered.compile(self.options())
            self.compiled[own] = Timed(program, time.perf_counter() - start)
        return self.compiled[own]

    def run(self, name: str, group: int) -> Outcome:
        """One solver on one group; a wrapper starts at the base solver's own outcome and adds its cost."""
        if (name, group) not in self.outcomes:
            wraps = METHODS[solvers.own(name)].wrap
            base = self.run(solvers.base(name, self.config), group) if wraps else None
            chosen = self.members(group)
            keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(self.key, 3), i))(jnp.asarray(chosen))
            keys, measurements = jax.device_put(keys, self.split), self.place(self.measurements, chosen)
            arguments = (keys, jax.device_put(self.prior, self.whole), measurements, base and base.x)
            program, compiling = self.program(name, arguments)
            self.tell("")
            start = time.perf_counter()
            x, cost, failed = jax.block_until_ready(program(*arguments))
            seconds = (time.perf_counter() - start) / len(chosen)
            outcome = Outcome(x, cost, failed, seconds, compiling)
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
