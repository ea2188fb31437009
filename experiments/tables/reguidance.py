"""ReGuidance's verdict: what it adds to DDRM, DPS and DAPS, by picture, with intervals.

    python -m experiments.tables.reguidance --data=PACK [--prior=PATH] [--pictures=200] [--chosen=24] [--kept=FILE]

Six tasks and three base solvers with the settings of configs/satellite.py, on held-out pictures of --data, drawn by
--seed. For each, ReGuidance's horizon T and weight rho are those with the least mean feature distance on the `chosen`
pictures, which are not reported; on the others the base and ReGuidance of it are compared picture by picture. A verdict
is in words: "better" or "worse" where the interval of the paired difference leaves zero out, else "no difference".

PSNR in dB; the feature distance is of EfficientNet-Lite0's features and unlearned, not LPIPS; residual over the floor
that noise alone leaves, so that 1 is what a sample of the posterior has. Intervals: mean ± 1.96 s / sqrt(n).
--kept=FILE keeps every score, and a run that is stopped goes on from it.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, NamedTuple

from experiments.common import runtime  # noqa: F401  isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import diffinv as di
from configs import satellite
from diffinv import data, posterior, schema, times
from diffinv.loop import as_solver, failed_step, guard
from diffinv.metrics.posterior import interval
from diffinv.typing import Array, Key
from experiments.common import keeping, priors
from experiments.methods import solvers
from experiments.methods.table import refinement
from experiments.restore.bench import Bench
from experiments.tables import published
from experiments.tables.published import Option, counted, named, numbers

BASES = ("ddrm", "dps", "daps")
COLUMNS = {"psnr": 1.0, "feature_distance": -1.0, "ratio": 0.0}
"""What is compared: larger is better, smaller, or nearer to 1."""


class Task(NamedTuple):
    """A task of `experiments.reconstruct`, and its settings for pictures of a side."""

    name: str
    settings: Any


def box(share: float) -> Task:
    """A hidden square in the middle, of this share of the side."""
    size = lambda side: round(share * side)
    place = lambda side: (side - size(side)) // 2
    return Task("box_inpainting", lambda s: {"box": {"top": place(s), "left": place(s), "size": size(s)}})


TASKS = {
    "box 1/4": box(0.25),
    "box 1/2": box(0.5),
    "box 5/8": box(0.625),
    "x4": Task("super_resolution", lambda side: {"factor": 4}),
    "x8": Task("super_resolution", lambda side: {"factor": 8}),
    "blur": Task("gaussian_blur", lambda side: {"blur": {"size": 2 * (side // 4) + 1, "std": side / 16}}),
}
OPTIONS = {
    "data": Option("", None, schema.path("held-out pictures: a pack, a folder, or the name of bundled ones")),
    "prior": Option("satellite64", None, schema.path("of a checkpoint, or the name of one that ships")),
    "tasks": Option(list(TASKS), ["box 1/2"], named(TASKS)),
    "bases": Option(list(BASES), ["ddrm"], named(BASES)),
    "horizons": Option([0.1, 0.2, 0.35, 0.6], [0.2], numbers(schema.number("T", above=0, high=1))),
    "rhos": Option([1.0, 3.0, 10.0, 30.0], [3.0], numbers(schema.number("weight of the guidance", above=0, high=1e6))),
    "pictures": Option(200, 2, counted("pictures that are reported", 100_000)),
    "chosen": Option(24, 2, counted("pictures that choose T and rho", 100_000)),
    "group": Option(8, 2, schema.whole("pictures at once", 1, 4096)),
    "seed": Option(0, None, schema.whole("of the draw of pictures, of masks and of noise", low=0)),
    "kept": Option("", None, schema.path("a JSON file of all scores, from which a stopped run goes on")),
}


class Trial:
    """One task: candidates of its pictures, their refinements, and the scores of both, a group at a time."""

    def __init__(self, title: str, options: SimpleNamespace, prior: di.Prior, truth: np.ndarray, recall) -> None:
        self.title, self.recall, task = title, recall, TASKS[title]
        self.config = satellite.get_config()
        with self.config.unlocked():
            self.config.update({**task.settings(prior.shape[0]), "group": options.group, "seed": options.seed})
        self.bench = Bench(self.config, prior, task.name, truth)
        self.program = jax.jit(jax.vmap(self._refined, (0, None, 0, 0, None, None)))

    def _refined(self, key: Key, prior: di.Prior, m: di.Measurement, x: Array, grid: Array, rho: Array) -> Array:
        refine = as_solver(lambda m: guard(refinement(prior, m, rho, self.config.reguidance.convention)), grid)
        solution = posterior.reguidance(solvers.given, refine, prior, grid)(key, m, x)
        return jnp.where(failed_step(solution.info) < 0, solution.x, jnp.nan)

    def base(self, name: str, group: int) -> dict[str, list[float]]:
        """Scores of the candidates."""
        return self.recall(f"{self.title}, {name}, {group}", lambda: self.scored(self.bench.run(name, group).x, group))

    def refined(self, name: str, group: int, horizon: float, rho: float) -> dict[str, list[float]]:
        """Scores of ReGuidance of the candidates."""
        told = f"{self.title}, {name}, T {horizon:g}, rho {rho:g}, {group}"
        return self.recall(told, lambda: self._scored_anew(name, group, horizon, rho))

    def _scored_anew(self, name: str, group: int, horizon: float, rho: float) -> dict[str, list[float]]:
        bench, chosen = self.bench, self.bench.members(group)
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(bench.key, 4), i))(jnp.asarray(chosen))
        grid = times.grid(self.config.reguidance.steps, horizon, self.config.reguidance.power)
        placed = (jax.device_put(keys, bench.split), jax.device_put(bench.prior, bench.whole))
        m = bench.place(bench.measurements, chosen)
        return self.scored(self.program(*placed, m, bench.run(name, group).x, grid, jnp.float32(rho)), group)

    def scored(self, x: Array, group: int) -> dict[str, list[float]]:
        """Of a group's pictures, each once."""
        bench, chosen = self.bench, self.bench.members(group)
        m, truth = (bench.place(tree, chosen) for tree in (bench.measurements, bench.truth))
        found = bench.score(bench.perceive, m, truth, x)
        ratio = np.asarray(found["residual"]) / np.asarray(bench.floors)[chosen]
        own = min(len(chosen), bench.count - group * bench.group)
        columns = {"psnr": found["psnr"], "feature_distance": found["feature_distance"], "ratio": ratio}
        return {name: np.asarray(values, float)[:own].tolist() for name, values in columns.items()}


def joined(parts: list[dict[str, list[float]]]) -> dict[str, np.ndarray]:
    """The scores of several groups as arrays."""
    return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}


def chosen_pair(found: dict[tuple[float, float], dict[str, np.ndarray]]) -> tuple[float, float]:
    """The (T, rho) of the least mean feature distance; one that diverged anywhere is none."""
    means = {pair: float(np.mean(scores["feature_distance"])) for pair, scores in found.items()}
    return min(means, key=lambda pair: means[pair] if np.isfinite(means[pair]) else np.inf)


def verdict(name: str, base: np.ndarray, other: np.ndarray) -> str:
    """The mean paired difference with its interval, and what it says."""
    gain = np.abs(base - 1) - np.abs(other - 1) if not COLUMNS[name] else COLUMNS[name] * (other - base)
    mean, half = interval(other - base)
    good, width = interval(gain)
    word = "no difference" if abs(good) <= width else "better" if good > 0 else "worse"
    digits = 2 if name == "psnr" else 3
    return f"{mean:+.{digits}f} ± {half:.{digits}f}, {word}"


def judged(trial: Trial, options: SimpleNamespace) -> list[tuple]:
    """The rows of one task, two a base."""
    first = -(-options.chosen // trial.bench.group)
    groups = range(first, -(-trial.bench.count // trial.bench.group))
    rows = []
    for base in options.bases:
        pairs = [(t, rho) for t in options.horizons for rho in options.rhos]
        tried = {pair: joined([trial.refined(base, group, *pair) for group in range(first)]) for pair in pairs}
        t, rho = chosen_pair(tried)
        plain = joined([trial.base(base, group) for group in groups])
        guided = joined([trial.refined(base, group, t, rho) for group in groups])
        rows.append((trial.title, base.upper(), *(f"{plain[c].mean():.3f}" for c in COLUMNS), "", "", ""))
        words = [verdict(c, plain[c], guided[c]) for c in COLUMNS]
        rows.append(("", f"ReGuidance, T {t:g}, rho {rho:g}", *(f"{guided[c].mean():.3f}" for c in COLUMNS), *words))
    return rows


def drawn(options: SimpleNamespace, prior: di.Prior, group: int) -> np.ndarray:
    """The pictures that choose, filled up to whole groups, and those that are reported, (N, H, W, C) in [-1, 1]."""
    if not options.data:
        raise ValueError("--data is ''; give held-out pictures: a pack, a folder, or the name of bundled ones")
    count = -(-options.chosen // group) * group + options.pictures
    split = 1 if any(record.split == 1 for record in data.catalogue(options.data).records()) else None
    known = {"split": split, "limit": count, "channels": prior.shape[2], "seed": options.seed}
    found = data.read(options.data, prior.shape[:2], **known)
    if len(found.names) < count:
        raise ValueError(f"--data holds {len(found.names)} pictures, and {count} are asked for; lower --pictures")
    return np.asarray(data.to_unit(found.pixels))


def main(options: SimpleNamespace) -> published.Table:
    prior, card = priors.load(options.prior)
    group = -(-options.group // jax.device_count()) * jax.device_count()
    truth, kept = drawn(options, prior, group), published.Kept(options.kept)
    told = [keeping.weights(card), keeping.digest(truth), json.loads(satellite.get_config().to_json()), options.seed]
    about = keeping.digest(*told, group, options.chosen)
    pairs, reported = len(options.horizons) * len(options.rhos), -(-options.pictures // group)
    calls = len(options.bases) * (pairs * -(-options.chosen // group) + 2 * reported)
    rows = [("task", "method", "PSNR", "feature distance", "residual / floor", "ΔPSNR", "Δfeature", "Δresidual")]
    with tqdm(total=calls * len(options.tasks), unit="group") as bar:
        for title in options.tasks:
            bar.set_postfix_str(title)
            recall = lambda name, make: (bar.update(), kept(f"{about}, {name}", make))[1]
            rows += judged(Trial(title, options, prior, truth, recall), options)
    note = f"{options.pictures} pictures; T and rho chosen on {options.chosen} others"
    return published.table(f"{note}\n{published.columns(rows)}", [])


if __name__ == "__main__":
    published.run(main, OPTIONS)
