"""The computing of cells: a batch of items at once, split over this process's devices, and kept when it is finished."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from diffinv import data, sharding
from diffinv.measurement import Measurement
from diffinv.prior import Prior
from diffinv.typing import Array, Key
from experiments.common import keeping
from experiments.evaluation import items as known
from experiments.evaluation import shards
from experiments.evaluation.cells import Cell
from experiments.evaluation.items import Item
from experiments.evaluation.shards import Result
from experiments.report import ledger
from experiments.restore.programs import Outcome, Programs, coloured, expected_floor

# Which a result depends on, beside the library.
CODE = (
    "methods/table.py",
    "methods/declared.py",
    "methods/baselines.py",
    "methods/derivative_free.py",
    "methods/grids.py",
    "methods/running.py",
    "methods/solvers.py",
    "restore/operators.py",
    "restore/programs.py",
    "evaluation/items.py",
    "evaluation/work.py",
)
REFUSED = "refused.txt"
GIB = 2**30


class TooLarge(ValueError):
    """A batch that no memory holds: nothing that a table could tell of a solver."""


def made_by() -> dict[str, Any]:
    """The versions of all that computes, and on what."""
    device = jax.local_devices()[0]
    return {
        **ledger.versions(),
        "code": keeping.digest(keeping.code(*CODE)),
        "device": device.device_kind,
        "platform": device.platform,
        "machine": platform.machine(),
    }


def needed(program: Any) -> int:
    """Bytes that a compiled program takes beside its code, as its compiler says; 0 where it does not."""
    found = program.memory_analysis()
    parts = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    return int(sum(getattr(found, part, 0) for part in parts)) if found is not None else 0


class Task:
    """What all cells of a task share: measurements, floors and scores, compiled once."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.measure = jax.jit(programs.measured)
        self.floors = jax.jit(jax.vmap(expected_floor))
        self.score = jax.jit(jax.vmap(programs.scored, (None, 0, 0, 0, 0)))
        self.known: dict[str, np.ndarray] = {}

    def floor(self, names: Sequence[str], keys: Key, measurements: Measurement) -> np.ndarray:
        """The floor of each of these pictures, (N,): that of its measurement, and so found once for all solvers."""
        if any(name not in self.known for name in names):
            self.known = {**dict(zip(names, np.asarray(self.floors(keys, measurements)))), **self.known}
        return np.stack([self.known[name] for name in names])


class Seen:
    """Features of the pictures themselves, with which those of every reconstruction are compared.

    Found once for all cells of a run, and held in memory: of as many pictures as `limit` bytes hold.
    """

    def __init__(self, limit: float = GIB) -> None:
        self.left = limit
        self.kept: dict[str, tuple[np.ndarray, ...]] = {}
        self.program = jax.jit(jax.vmap(lambda perceive, x: perceive(coloured(x)), (None, 0)))

    def __call__(self, perceive: Any, names: Sequence[str], truth: Array, split: Any) -> tuple[Array, ...]:
        """Those of a batch of pictures (N, H, W, C) with these names, K arrays (N, h, w, c)."""
        if all(name in self.kept for name in names):
            found = tuple(map(np.stack, zip(*(self.kept[name] for name in names), strict=True)))
        else:
            found = tuple(jax.device_get(self.program(perceive, truth)))
            self.keep(names, found)
        return jax.device_put(found, split)

    def keep(self, names: Sequence[str], found: Sequence[np.ndarray]) -> None:
        """Holds what there is room for."""
        for i, name in enumerate(names):
            size = sum(each[i].nbytes for each in found)
            if name not in self.kept and size <= self.left:
                self.kept[name] = tuple(each[i].copy() for each in found)
                self.left -= size


class Workshop:
    """Computes cells on the pictures of a set, with one prior.

    Args:
      memory: bytes that a program may take on all devices together; 0 for no limit.
      group: items at once on each device.
    """

    def __init__(self, prior: Prior, pictures: known.Set, group: int, memory: float = 0) -> None:
        self.prior, self.pictures, self.memory = prior, pictures, memory
        self.mesh = sharding.mesh(devices=jax.local_devices())
        self.devices, self.group = self.mesh.size, group * self.mesh.size
        self.tasks: dict[str, Task] = {}
        self.seen = Seen()
        self.about = made_by()

    def task(self, cell: Cell) -> Task:
        """The programs of the cell's task."""
        title = cell.task.title
        if title not in self.tasks:
            self.tasks = {title: Task(Programs(cell.config, self.prior, cell.task.name, self.mesh))}
        return self.tasks[title]

    def programs(self, cell: Cell) -> Programs:
        """The solver's, not yet compiled."""
        return Programs(cell.config, self.prior, cell.task.name, self.mesh)

    def given(
        self, cell: Cell, solver: Programs, items: list[Item], size: int
    ) -> tuple[list[Item], Array, Measurement]:
        """Items, filled up to `size` by repetition, their pictures and measurements, on the devices."""
        filled = [items[i % len(items)] for i in range(size)]
        placed = lambda tree: jax.device_put(tree, solver.split)
        places = [self.pictures.place(item.picture) for item in filled]
        truth = placed(np.asarray(data.to_unit(self.pictures.pixels[places])))
        return filled, truth, self.task(cell).measure(placed(known.measurement_keys(solver.key, filled)), truth)

    def compute(
        self,
        cell: Cell,
        solver: Programs,
        items: list[Item],
        size: int,
        base: Mapping[Item, Result] | None,
        values: Mapping[str, np.ndarray] | None = None,
    ) -> list[Result]:
        """The results of up to `size` items, filled up to it by repetition; `base` has a wrapper's candidates.

        `values` has settings that differ from item to item, `size` of each.
        """
        filled, truth, measurements = self.given(cell, solver, items, size)
        candidate = None if base is None else np.stack([shards.unit(base[item].x) for item in filled])
        outcome = solver.solve(cell.solver.name, known.solver_keys(solver.key, filled), measurements, candidate, values)
        task = self.task(cell)
        names = [item.picture for item in filled]
        taps = self.seen(task.programs.perceive, names, truth, solver.split)
        found = task.score(task.programs.perceive, measurements, truth, outcome.x, taps)
        floors = task.floor(names, known.measurement_keys(solver.key, filled), measurements)
        return self._results(solver, items, outcome, {**found, "floor": floors}, base, size)

    def _results(
        self,
        solver: Programs,
        items: list[Item],
        outcome: Outcome,
        found: dict[str, Array],
        base: Mapping[Item, Result] | None,
        size: int,
    ) -> list[Result]:
        x, cost, failed, found = jax.device_get((outcome.x, outcome.cost, outcome.failed, found))
        program = next(iter(solver.compiled.values()))
        about = {
            "made_by": self.about,
            "batch": size,
            "devices": self.devices,
            "compile_seconds": round(program.compiling, 3),
            "bytes": needed(program.program),
            "bytes_measured": peak(),
        }
        results = []
        for i, item in enumerate(items):
            scores = {name: float(values[i]) for name, values in found.items()}
            scores |= {"nfe": int(cost.nfe[i]), "vjps": int(cost.vjps[i]), "calls": int(cost.calls[i])}
            scores |= {"seconds": outcome.seconds, "first_bad_step": int(failed[i])}
            before = base[item].scores if base else {}
            for name in ("nfe", "vjps", "calls", "seconds"):
                scores[name] += before.get(name, 0)
            if before.get("first_bad_step", -1) >= 0:
                scores["first_bad_step"] = before["first_bad_step"]
            results.append(Result(item, shards.stored(x[i]), scores, about))
        return results

    def fitted(self, cell: Cell, size: int, items: list[Item], base: Mapping[Item, Result] | None) -> tuple:
        """(the solver's programs, a batch size that keeps within the memory), by the compiler's word.

        Raises TooLarge where one item a device is too much.
        """
        while True:
            solver = self.programs(cell)
            if not self.memory:
                return solver, size
            self.compile(cell, solver, items, size, base)
            need = needed(next(iter(solver.compiled.values())).program)
            if need <= self.memory:
                return solver, size
            if size == self.devices:
                raise TooLarge(
                    f"{cell.name} takes {need / GIB:.2f} GiB for one item on each of {self.devices} devices, and "
                    f"config.memory is {self.memory / GIB:.2f}; raise it, or use a smaller prior"
                )
            fit = int(size * self.memory / need) // self.devices * self.devices
            size = max(min(fit, size - self.devices), self.devices)

    def compile(self, cell: Cell, solver: Programs, items: list[Item], size: int, base: Any) -> None:
        """Compiles the solver for batches of this size; nothing is computed but the measurements."""
        filled, truth, measurements = self.given(cell, solver, items, size)
        candidate = None if base is None else np.zeros(truth.shape, np.float32)
        solver.prepare(cell.solver.name, known.solver_keys(solver.key, filled), measurements, candidate)

    def finish(self, cell: Cell, folder: Path, items: list[Item], base: Mapping[Item, Result] | None, bar: tqdm) -> str:
        """Computes and keeps the items; what the solver cannot do is written down, and returned as its line."""
        place = folder / cell.folder
        (place / REFUSED).unlink(missing_ok=True)
        if base is not None:
            items = [item for item in items if item in base]
        if not items:
            return ""
        bar.set_postfix_str(cell.name)
        try:
            size = min(self.group, -(-len(items) // self.devices) * self.devices)
            solver, size = self.fitted(cell, size, items, base)
            solver.tell = lambda text: bar.set_postfix_str(", ".join(filter(None, [cell.name, text])))
            for chunk in shards.chunks(items, size):
                shards.write(place, self.compute(cell, solver, chunk, size, base))
                bar.update(len(chunk))
        except TooLarge:
            raise
        except (TypeError, ValueError, NotImplementedError) as error:
            line = " ".join(str(error).split())
            ledger.put(place / REFUSED, line.encode())
            return line
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise TooLarge(
                f"{cell.name} found no memory for {size} items at once; lower config.group, or say what there is by "
                "config.memory; what was finished is kept"
            ) from None
        return ""


def peak() -> int:
    """Bytes that this process's devices have held at most, together; 0 where they do not tell."""
    found = [device.memory_stats() or {} for device in jax.local_devices()]
    return int(sum(each.get("peak_bytes_in_use", 0) for each in found))
