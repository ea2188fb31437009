"""The compiled programs of one task: what measures, restores and scores a batch of pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from diffinv import GaussianNoise, LatentPrior, linalg, measure, operators, seed_key, sharding
from diffinv.loop import failed_step, total_cost
from diffinv.measurement import Measurement
from diffinv.metrics import features, image
from diffinv.operators.base import ClosedForm, Operator
from diffinv.prior import Prior
from diffinv.typing import Array, Cost, Key
from experiments.common import profiling
from experiments.methods import solvers
from experiments.restore.operators import OPERATORS


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


def replaced(config: ConfigDict, values: Mapping[str, Array]) -> ConfigDict:
    """The configuration with arrays, or numbers yet to be known, in place of some settings, by full name."""
    if not values:
        return config
    other = config.copy_and_resolve_references()
    with other.unlocked(), other.ignore_type():
        other.update_from_flattened_dict(values)
    return other


class Timed(NamedTuple):
    """A compiled program, and the seconds it took to compile."""

    program: Any
    compiling: float


class Outcome(NamedTuple):
    """A batch of pictures `x`, their costs, first failed steps, seconds a picture and seconds of compiling."""

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


class Programs:
    """What measures, restores and scores pictures of the prior's shape in one task, vmapped, and split over a mesh.

    `tell(text)` is called with "compiling" and "" as a solver is compiled and run.
    """

    def __init__(self, config, prior: Prior | LatentPrior, task: str, mesh: Mesh | None = None) -> None:
        self.config, self.prior, self.task = config, prior, task
        self.mesh = sharding.mesh() if mesh is None else mesh
        self.split, self.whole = sharding.split(self.mesh), sharding.replicated(self.mesh)
        self.key = seed_key(config.seed)
        self.tell: Callable[[str], None] = lambda text: None
        self.compiled: dict[tuple[str, ...], Timed] = {}

    @cached_property
    def perceive(self) -> features.EfficientNetFeatures:
        """What feature distances are measured with."""
        return features.efficientnet_features()

    def operator(self) -> Operator:
        """The task's, for one picture; where it is drawn, by the seed."""
        return OPERATORS[self.task](self.config, jax.random.fold_in(self.key, 1), self.prior.shape)

    def measured(self, keys: Key, pictures: Array | np.ndarray, degraded: bool = False) -> Measurement:
        """The measurements of pictures, or the pictures as measurements."""
        operator, noise = self.operator(), GaussianNoise(jnp.float32(self.config.sigma_y))
        seen = lambda y: operator(y) if isinstance(operator, operators.Mask) else y  # what is hidden has no say
        given = lambda _, y: Measurement(operator, seen(y), noise)
        taken = given if degraded else lambda key, x: measure(key, operator, x, self.config.sigma_y)
        return jax.vmap(taken)(keys, jnp.asarray(pictures))

    def scored(
        self, perceive, measurement: Measurement, truth: Array | None, x: Array, taps: Sequence[Array] | None = None
    ) -> dict[str, Array]:
        """The numbers of one picture; `taps` has the truth's features where they are known."""
        x, largest = jnp.clip(x, -1, 1), jnp.max(jnp.abs(x))
        told = {"residual": linalg.norm(measurement.residual(x)), "largest": largest}
        if truth is None:
            return told
        return {
            "psnr": image.psnr(truth, x, (-1, 1)),
            **({"ssim": image.ssim(truth, x, (-1, 1))} if min(truth.shape[:2]) >= 11 else {}),
            **({"nmse": image.nmse(truth, x, (-1, 1))} if OPERATORS[self.task].kspace else {}),
            "feature_distance": image.feature_distance(perceive, coloured(truth), coloured(x))
            if taps is None
            else image.tap_distance(taps, perceive(coloured(x))),
            **told,
        }

    def options(self) -> dict[str, Any]:
        """XLA's, of the solvers."""
        return {"xla_backend_optimization_level": self.config.optimisation}

    def lowered(self, name: str, arguments: tuple) -> jax.stages.Lowered:
        """The solver as a program of (key, prior, measurement, candidate, values), which is still to be compiled.

        Only wrappers read the candidate; values has settings that stand in place of the configuration's, by full name.
        """
        *_, candidate, _ = arguments

        def restore(key: Key, prior: Prior, measurement: Measurement, candidate: Array | None, values):
            solver = solvers.solver(solvers.own(name), replaced(self.config, values), prior)
            solution = solver(key, measurement, candidate)
            return solution.x, total_cost(solution.info), failed_step(solution.info)

        return jax.jit(jax.vmap(restore, (0, None, 0, None if candidate is None else 0, 0))).lower(*arguments)

    def program(self, name: str, arguments: tuple) -> Timed:
        """The same, compiled, once for each set of settings that `values` has."""
        known = (solvers.own(name), *arguments[-1])
        if known not in self.compiled:
            self.tell("compiling")
            start = time.perf_counter()
            program = self.lowered(name, arguments).compile(self.options())
            self.compiled[known] = Timed(program, time.perf_counter() - start)
        return self.compiled[known]

    def prepare(
        self,
        name: str,
        keys: Key,
        measurements: Measurement,
        candidate: Array | None = None,
        values: Mapping[str, Array] | None = None,
    ) -> tuple:
        """The arguments of the solver, on their devices; it is compiled for them."""
        placed = lambda tree: jax.device_put(tree, self.split)
        whole = jax.device_put(self.prior, self.whole)
        tried = placed(dict(values or {}))
        arguments = placed(keys), whole, placed(measurements), None if candidate is None else placed(candidate), tried
        self.program(name, arguments)
        return arguments

    def solve(
        self,
        name: str,
        keys: Key,
        measurements: Measurement,
        candidate: Array | None = None,
        values: Mapping[str, Array] | None = None,
    ) -> Outcome:
        """One solver on a batch whose size the devices divide; a wrapper starts from the candidates.

        `values` has settings by full name, one of each for every member of the batch, in one program: "dps.zeta".
        """
        arguments = self.prepare(name, keys, measurements, candidate, values)
        program, compiling = self.program(name, arguments)
        self.tell("")
        profiling.before_round()
        start = time.perf_counter()
        x, cost, failed = jax.block_until_ready(program(*arguments))
        return Outcome(x, cost, failed, (time.perf_counter() - start) / len(x), compiling)
