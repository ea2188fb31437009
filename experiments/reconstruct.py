"""Restore degraded pictures and report how well.

    python -m experiments.reconstruct
    python -m experiments.reconstruct --images='photos/*.jpg' --config.task=box_inpainting --config.solver=reguidance

Without arguments: eight photographs that install with scikit-image, a large box and super-resolution x4, each restored
by DPS, DAPS and ReGuidance(DAPS) under the embedded 32 x 32 prior. Everything is left in runs/NAME/: index.html,
gallery.png, results.json and one PNG a picture. Pictures that are finished are kept when a run is stopped or fails, and
the same command goes on with the others.

Tasks:   box_inpainting random_inpainting freeform_inpainting super_resolution bicubic colourisation gaussian_blur
         motion_blur
Solvers: dps daps pigdm mmps tmpd ddnm ddrm ddnm_plus pgdm mcg lgd diffpir repaint reddiff sitcom dcdp pnpdm mgps
         mcgdiff tds fps ddsmc reguidance (around --config.base); several with commas between them
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from experiments import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from diffinv import checkpoint, linalg, measure, process, report, seed_key, sharding
from diffinv.measure import Measurement
from diffinv.metrics import features, image
from diffinv.prior import Prior
from diffinv.sample import failed_step, total_cost
from diffinv.typing import Array, Cost, Key
from experiments import pictures, solvers

CONFIG = runtime.config_flag(
    str(runtime.ROOT / "configs" / "reconstruct.py"), "a configuration; FILE:smoke for a quick run"
)
IMAGES = flags.DEFINE_string("images", "", "a file, a folder or a quoted glob; default: bundled photographs")
FRESH = flags.DEFINE_bool("fresh", False, "restore everything again, whatever the folder holds")
OUT = flags.DEFINE_string("out", "runs", "the folder of all runs")

TITLE = "Restoration with a diffusion prior"
NOTES = (
    "Feature distance: an unlearned distance of EfficientNet-Lite0 features, not LPIPS. Residual: |y - A x| of the "
    "picture shown, beside the floor that noise alone would leave. NFE: evaluations of the network; a solver that "
    "differentiates it also counts VJPs. Seconds: per picture, without compiling.",
)


def names(field: str, text: str, known: list[str]) -> list[str]:
    """A comma-separated list of known names."""
    return [runtime.choose(f"config.{field}", name.strip(), known) for name in text.split(",")]


def load_prior(path: str) -> Prior:
    """The prior under the variance-preserving process, whatever it was trained with; on its own table if it has one."""
    path = path or checkpoint.embedded()
    own = checkpoint.read_card(path, "prior")["process"]["name"] == "discrete"
    prior = checkpoint.load_prior(path, None if own else process.VP())
    if len(prior.shape) != 3 or prior.shape[0] != prior.shape[1] or prior.shape[2] != 3:
        raise ValueError(f"config.prior has shape {prior.shape}; this experiment restores square RGB pictures")
    return prior


def floor(key: Key, measurement: Measurement, draws: int = 64) -> Array:
    """The residual norm that noise alone would leave: `sigma sqrt(dim range A)`, by `draws` draws."""

    def norm_square(k: Key) -> Array:
        n = measurement.noise.sample(k, jnp.zeros_like(measurement.y))
        return linalg.norm(measurement.operator.project(n)) ** 2

    return jnp.sqrt(jnp.mean(jax.vmap(norm_square)(jax.random.split(key, draws))))


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
    """One task: its measurements, and the compiled functions that restore and score a group of pictures."""

    def __init__(self, config, prior: Prior, task: str, truth: np.ndarray) -> None:
        self.config, self.prior, self.task = config, prior, task
        self.mesh = sharding.mesh()
        self.split, self.whole = sharding.split(self.mesh), sharding.replicated(self.mesh)
        self.key = seed_key(config.seed)
        operator = solvers.TASKS[task](config, jax.random.fold_in(self.key, 1), prior.shape)
        self.group = -(-min(config.group, len(truth)) // jax.device_count()) * jax.device_count()
        items = jnp.arange(len(truth))
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(self.key, 2), i))(items)
        self.measurements = jax.vmap(lambda k, x: measure(k, operator, x, config.sigma_y))(keys, jnp.asarray(truth))
        self.floors = jax.vmap(floor)(keys, self.measurements)
        self.truth = truth
        self.perceive = features.efficientnet_features()
        self.score = jax.jit(jax.vmap(self._score, (None, 0, 0, 0)))
        self.compiled: dict[str, Timed] = {}
        self.outcomes: dict[tuple[str, int], Outcome] = {}

    def _score(self, perceive, measurement: Measurement, truth: Array, x: Array) -> dict[str, Array]:
        x = jnp.clip(x, -1, 1)
        return {
            "psnr": image.psnr(truth, x, (-1, 1)),
            "ssim": image.ssim(truth, x, (-1, 1)),
            "feature_distance": image.feature_distance(perceive, truth, x),
            "residual": linalg.norm(measurement.residual(x)),
        }

    def members(self, group: int) -> np.ndarray:
        """Indices of a group's pictures; the last group is filled up by repetition."""
        count = len(self.truth)
        return np.arange(group * self.group, (group + 1) * self.group) % count

    def place(self, tree, chosen: np.ndarray):
        """The chosen pictures' part of `tree`, split over the devices."""
        return jax.device_put(jax.tree.map(lambda leaf: leaf[chosen], tree), self.split)

    def program(self, name: str, arguments: tuple) -> Timed:
        """The compiled solver, which takes (key, prior, measurement, candidate); only ReGuidance reads the last."""
        if name not in self.compiled:

            def restore(key: Key, prior: Prior, measurement: Measurement, candidate: Array | None):
                solution = solvers.SOLVERS[name](self.config, prior)(key, measurement, candidate)
                return solution.x, total_cost(solution.info), failed_step(solution.info)

            start = time.perf_counter()
            lowered = jax.jit(jax.vmap(restore, (0, None, 0, None if arguments[3] is None else 0))).lower(*arguments)
            program = lowered.compile({"xla_backend_optimization_level": self.config.optimisation})
            self.compiled[name] = Timed(program, time.perf_counter() - start)
        return self.compiled[name]

    def run(self, name: str, group: int) -> Outcome:
        """One solver on one group; ReGuidance starts at the base solver's own outcome and adds its cost."""
        if (name, group) not in self.outcomes:
            base = self.run(self.config.base, group) if name == "reguidance" else None
            chosen = self.members(group)
            keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(self.key, 3), i))(jnp.asarray(chosen))
            keys, measurements = jax.device_put(keys, self.split), self.place(self.measurements, chosen)
            arguments = (keys, jax.device_put(self.prior, self.whole), measurements, base and base.x)
            program, compiling = self.program(name, arguments)
            start = time.perf_counter()
            x, cost, failed = jax.block_until_ready(program(*arguments))
            seconds = (time.perf_counter() - start) / len(chosen)
            outcome = Outcome(x, cost, failed, seconds, compiling)
            self.outcomes[name, group] = outcome if base is None else outcome.after(base)
        return self.outcomes[name, group]

    def restore(self, name: str, group: int) -> list[dict]:
        """One solver's pictures and scores on one group."""
        chosen, outcome = self.members(group), self.run(name, group)
        truth = self.place(jnp.asarray(self.truth), chosen)
        scores = self.score(self.perceive, self.place(self.measurements, chosen), truth, outcome.x)
        scores, x, cost, failed = jax.device_get((scores, outcome.x, outcome.cost, outcome.failed))
        return [
            {
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
    """[-1, 1] to uint8."""
    return np.asarray(np.round((np.clip(np.nan_to_num(x), -1, 1) + 1) * 127.5), np.uint8)


def folder_of(config, settings: dict, tasks: list[str]) -> Path:
    """runs/NAME; without a name, the tasks and a digest of the settings, so that another configuration has its own."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:6]
    return Path(OUT.value) / (config.name or f"{'+'.join(tasks)}-{digest}")


def kept(folder: Path, settings: dict) -> dict[tuple[str, str], dict]:
    """Finished pictures of an earlier start, by (task, picture). Raises ValueError for another configuration's."""
    results = folder / "results.json"
    if FRESH.value or not results.exists():
        return {}
    stored = json.loads(results.read_text()).get("config") or {}
    for field, value in settings.items():
        if stored.get(field) != value:
            was, now = json.dumps(stored.get(field)), json.dumps(value)
            raise ValueError(f"{folder} holds a run with {field} = {was}, not {now}; give another --config.name")
    return {(record["task"], record["picture"]): record for record in report.load(folder)}


def restore_all(config, prior: Prior, shots: pictures.Pictures, chosen: list[str], tasks: list[str], done: dict, keep):
    """Every task, group and solver; each group's pictures are kept as soon as they are finished."""
    count = len(shots.names)
    bar = tqdm(total=len(tasks) * len(chosen) * count, unit="picture", smoothing=0, dynamic_ncols=True)
    for task in tasks:
        bench = Bench(config, prior, task, shots.pixels)
        for group in range(-(-count // bench.group)):
            members = bench.members(group)[: count - group * bench.group]
            if all((task, shots.names[i]) in done for i in members):
                bar.update(len(chosen) * len(members))
                continue
            results = {}
            for name in chosen:
                title = solvers.label(name, config)
                bar.set_postfix_str(f"{task}, {title}")
                results[title] = bench.restore(name, group)
                bar.update(len(members))
            for place, i in enumerate(members):
                record = {
                    "picture": shots.names[i],
                    "task": task,
                    "truth": pixels(shots.pixels[i]),
                    "measurement": pixels(solvers.shown(bench.measurements.y[i], prior.shape)),
                    "methods": {title: rows[place] for title, rows in results.items()},
                }
                keep(record)
                done[task, shots.names[i]] = record
    bar.close()


def main() -> None:
    config = CONFIG.value
    tasks = names("task", config.task, list(solvers.TASKS))
    chosen = names("solver", config.solver, list(solvers.SOLVERS))
    runtime.choose("config.base", config.base, [name for name in solvers.SOLVERS if name != "reguidance"])
    prior = load_prior(config.prior)
    size = prior.shape[0]
    count = config.pictures
    shots = pictures.own(IMAGES.value, size, count) if IMAGES.value else pictures.photographs(size, count)
    command = f"python -m experiments.reconstruct {shlex.join(sys.argv[1:])}".strip()
    images = os.path.abspath(IMAGES.value) if IMAGES.value else ""
    settings = {**json.loads(config.to_json_best_effort()), "images": images}
    folder = folder_of(config, settings, tasks)
    done = kept(folder, settings)
    if shots.note:
        print(shots.note)
    print(f"{len(shots.names)} pictures of {size} x {size}, sigma_y = {config.sigma_y} on the [-1, 1] scale")
    print(f"results go to {folder}; compiled programs are kept in {runtime.cache_folder()}", flush=True)
    keep = lambda record: report.append(folder, record, TITLE, command, settings)
    restore_all(config, prior, shots, chosen, tasks, done, keep)
    records = [done[task, name] for task in tasks for name in shots.names]
    written = report.write(folder, TITLE, command, records, notes=NOTES, config=settings)
    print(report.table(report.summarise(records)))
    print(f"report: {written.index}")


if __name__ == "__main__":
    runtime.run(main)
