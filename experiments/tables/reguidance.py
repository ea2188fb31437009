"""ReGuidance's verdict: what it adds to DDRM, DPS and DAPS, by picture, with intervals.

    python -m experiments.tables.reguidance --data=PACK [--prior=PATH] [--pictures=200] [--chosen=24] [--kept=FILE]

Six tasks and three base solvers with the settings of configs/satellite.py, on held-out pictures of --data, drawn by
--seed. For each, ReGuidance's horizon T, weight rho and steps are those with the least mean feature distance on the
`chosen` pictures, which are not reported; on the others the base and ReGuidance of it are compared picture by picture.
A verdict is in words: "better" or "worse" where the interval of the paired difference leaves zero out, else "no
difference". A second table has what every T, rho and number of steps gave on the `chosen` pictures, a third what each
makes of a perfect candidate where all is known: the contrast with which it comes back, 1 where nothing is lost.

PSNR in dB; the feature distance is of EfficientNet-Lite0's features and unlearned, not LPIPS; residual over the floor
that noise alone leaves, so that 1 is what a sample of the posterior has. As sets, the restored pictures are compared
with `reference` other held-out pictures by EffNetLite0-KID and EffNetLite0-CMMD, and a linear classifier on the same
features, fitted to `training` pictures where --data has a training part with labels, says how many are still taken for
what they show; the line "truth" has the same of the pictures themselves. Intervals: mean ± 1.96 s / sqrt(n); of KID the
jackknife's. --kept=FILE keeps every score: a run that is stopped goes on from it, and one of more pictures too.
"""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace
from typing import Any, NamedTuple

from experiments.common import runtime  # noqa: F401  isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

import diffinv as di
from configs import satellite
from diffinv import posterior, schema, times
from diffinv.loop import as_solver, failed_step, guard
from diffinv.metrics import features
from diffinv.metrics.posterior import interval
from diffinv.typing import Array, Key
from experiments.common import keeping, priors
from experiments.methods import solvers
from experiments.methods.table import refinement
from experiments.restore.bench import Bench
from experiments.tables import contrast, published, realism
from experiments.tables.published import Option, counted, named, numbers
from experiments.tables.realism import COUNTS, Eye, Realism

BASES = ("ddrm", "dps", "daps")
COLUMNS = ("psnr", "feature_distance", "ratio")
BETTER = {"psnr": 1.0, "feature_distance": -1.0, "ratio": 0.0, "taken": 1.0}
"""What is compared: larger is better, smaller, or nearer to 1."""
HEAD = ("PSNR", "feature distance", "residual / floor")
AS_A_SET = ("EffNetLite0-KID", "EffNetLite0-CMMD", "taken for what it is")


class Pair(NamedTuple):
    """What ReGuidance is run with: the horizon T, the weight rho, and the steps of the inversion and of the return."""

    horizon: float
    rho: float
    steps: int

    def __str__(self) -> str:
        return f"T {self.horizon:g}, rho {self.rho:g}, {self.steps} steps"


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
    "steps": Option([40], [12], numbers(schema.whole("of the inversion, and of the return", 2, 10_000))),
    "pictures": Option(200, 2, counted("pictures that are reported", 100_000)),
    "chosen": Option(24, 2, counted("pictures that choose T, rho and steps", 100_000)),
    "reference": Option(500, 4, COUNTS["reference"]),
    "training": Option(2000, 0, COUNTS["training"]),
    "group": Option(8, 2, schema.whole("pictures at once", 1, 4096)),
    "seed": Option(0, None, schema.whole("of the draw of pictures, of masks and of noise", low=0)),
    "kept": Option("", None, schema.path("a JSON file of all scores, from which a stopped run goes on")),
}


class Trial:
    """One task: candidates of its pictures, their refinements, and the scores of both, a group at a time.

    `recall(told, make)` is what was kept under these words, or what `make()` gives.
    """

    def __init__(self, title: str, options: SimpleNamespace, prior: di.Prior, truth: np.ndarray, eye: Eye) -> None:
        self.title, self.eye, task = title, eye, TASKS[title]
        self.config = satellite.get_config()
        with self.config.unlocked():
            self.config.update({**task.settings(prior.shape[0]), "group": options.group, "seed": options.seed})
        self.bench = Bench(self.config, prior, task.name, truth)
        self.program = jax.jit(jax.vmap(self._refined, (0, None, 0, 0, None, None)))

    def _refined(self, key: Key, prior: di.Prior, m: di.Measurement, x: Array, grid: Array, rho: Array) -> Array:
        refine = as_solver(lambda m: guard(refinement(prior, m, rho, self.config.reguidance.convention)), grid)
        solution = posterior.reguidance(solvers.given, refine, prior, grid)(key, m, x)
        return jnp.where(failed_step(solution.info) < 0, solution.x, jnp.nan)

    def base(self, name: str, group: int) -> dict[str, Any]:
        """Scores of the candidates."""
        return self.scored(self.bench.run(name, group).x, group)

    def refined(self, name: str, group: int, pair: Pair) -> dict[str, Any]:
        """Scores of ReGuidance of the candidates."""
        bench, chosen = self.bench, self.bench.members(group)
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(bench.key, 4), i))(jnp.asarray(chosen))
        grid = times.grid(pair.steps, pair.horizon, self.config.reguidance.power)
        placed = (jax.device_put(keys, bench.split), jax.device_put(bench.prior, bench.whole))
        m = bench.place(bench.measurements, chosen)
        return self.scored(self.program(*placed, m, bench.run(name, group).x, grid, jnp.float32(pair.rho)), group)

    def scored(self, x: Array, group: int) -> dict[str, Any]:
        """Of a group's pictures, each once: numbers, and the features."""
        bench, chosen = self.bench, self.bench.members(group)
        m, truth = (bench.place(tree, chosen) for tree in (bench.measurements, bench.truth))
        found = bench.score(bench.perceive, m, truth, x)
        ratio = np.asarray(found["residual"]) / np.asarray(bench.floors)[chosen]
        own = min(len(chosen), bench.count - group * bench.group)
        columns = {"psnr": found["psnr"], "feature_distance": found["feature_distance"], "ratio": ratio}
        told = {name: np.asarray(values, float)[:own].tolist() for name, values in columns.items()}
        return {**told, "features": realism.packed(self.eye(jnp.clip(x, -1, 1))[:own])}


class Scores:
    """The scores of a task's groups: those that are kept, and those that a `Trial` computes where they are not."""

    def __init__(self, trial: Trial, kept: published.Kept, about: list[Any], bar: tqdm) -> None:
        self.trial, self.kept, self.about, self.bar = trial, kept, about, bar

    def __call__(self, group: int, name: str, pair: Pair | None = None) -> dict[str, Any]:
        """Of a base solver, or of ReGuidance of it, on one group."""
        trial, chosen = self.trial, self.trial.bench.members(group)
        about = keeping.digest(*self.about, np.asarray(trial.bench.truth[chosen]), chosen.tolist())
        told = f"{about}, {trial.title}, {name}" + (f", {pair}" if pair else "")
        make = lambda: trial.refined(name, group, pair) if pair else trial.base(name, group)
        found = self.kept(told, make)
        self.bar.update()
        return found


def joined(parts: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The scores of several groups as arrays."""
    numbers = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    rows = [realism.unpacked(part["features"]) for part in parts]
    return {**numbers, "features": np.concatenate(rows)}


def chosen_pair(found: dict[Pair, dict[str, np.ndarray]]) -> Pair:
    """The pair of the least mean feature distance; one that diverged anywhere is none."""
    means = {pair: float(np.mean(scores["feature_distance"])) for pair, scores in found.items()}
    return min(means, key=lambda pair: means[pair] if np.isfinite(means[pair]) else np.inf)


def verdict(name: str, base: np.ndarray, other: np.ndarray) -> str:
    """The mean paired difference with its interval, and what it says."""
    gain = np.abs(base - 1) - np.abs(other - 1) if not BETTER[name] else BETTER[name] * (other - base)
    mean, half = interval(other - base)
    good, width = interval(gain)
    word = "no difference" if abs(good) <= width else "better" if good > 0 else "worse"
    digits = 2 if name == "psnr" else 3
    return f"{mean:+.{digits}f} ± {half:.{digits}f}, {word}"


def pairs(options: SimpleNamespace) -> list[Pair]:
    """All that is tried."""
    return [Pair(*each) for each in itertools.product(options.horizons, options.rhos, options.steps)]


def means(scores: dict[str, np.ndarray]) -> tuple[str, ...]:
    """The cells of the means."""
    return tuple(f"{scores[column].mean():.3f}" for column in COLUMNS)


def judged(scores: Scores, options: SimpleNamespace, judge: Realism, labels: np.ndarray) -> tuple[list, list, list]:
    """The rows of one task, two a base, those of what was tried, one for each pair, and all that has a PSNR."""
    bench, title = scores.trial.bench, scores.trial.title
    first = -(-options.chosen // bench.group)
    groups, rows, tries, every = range(first, -(-bench.count // bench.group)), [], [], []
    for base in options.bases:
        tried = {pair: joined([scores(group, base, pair) for group in range(first)]) for pair in pairs(options)}
        tries += [(title, base.upper(), str(pair), *means(found)) for pair, found in tried.items()]
        pair = chosen_pair(tried)
        plain = joined([scores(group, base) for group in groups])
        guided = joined([scores(group, base, pair) for group in groups])
        sets = [judge.cells(found["features"], labels) for found in (plain, guided)]
        words = [verdict(c, plain[c], guided[c]) for c in COLUMNS]
        taken = [judge.right(found["features"], labels) for found in (plain, guided)]
        words.append("" if taken[0] is None else verdict("taken", *taken))
        rows.append((title, base.upper(), *means(plain), *sets[0], *[""] * len(words)))
        rows.append(("", f"ReGuidance, {pair}", *means(guided), *sets[1], *words))
        every += [plain["psnr"], guided["psnr"]]
    return rows, tries, every


def made_by(config: ConfigDict) -> dict[str, Any]:
    """What of the configuration the scores depend on, as JSON holds it."""
    whole = json.loads(config.to_json())
    shared = {name: whole[name] for name in ("sigma_y", "steps", "dps", "daps", "blur", "optimisation")}
    return {**shared, "reguidance": {name: whole["reguidance"][name] for name in ("convention", "power")}}


def table_of(rows: list, tries: list, every: list, options: SimpleNamespace) -> published.Table:
    """The three tables as one text."""
    difference = ("ΔPSNR", "Δfeature", "Δresidual", "Δtaken")
    first = published.columns([("task", "method", *HEAD, *AS_A_SET, *difference), *rows])
    second = published.columns([("task", "base", "tried", *HEAD), *tries])
    exact = contrast.rows(pairs(options), str)
    third = published.columns([("perfect candidate", *(f"N(0, {s}²)" for s in contrast.DEVIATIONS)), *exact])
    note = f"{options.pictures} pictures; T, rho and steps are chosen on {options.chosen} others: the second table"
    return published.table(f"{note}\n{first}\n\n{second}\n\n{third}", every)


def main(options: SimpleNamespace) -> published.Table:
    if not options.data:
        raise ValueError("--data is ''; give held-out pictures: a pack, a folder, or the name of bundled ones")
    kept, (prior, card) = published.Kept(options.kept), priors.load(options.prior)
    group = -(-options.group // jax.device_count()) * jax.device_count()
    first = -(-options.chosen // group) * group
    count, split = first + options.pictures, realism.splits(options.data)[0]
    held = realism.drawn(options.data, prior.shape, split, count + options.reference, options.seed)
    truth, labels = held.pixels[:count], held.labels[first:count]
    eye = Eye(features.efficientnet_features())
    seen = lambda x, name: realism.unpacked(kept(f"{keeping.digest(x)}, {name}", lambda: realism.packed(eye(x))))
    judge = realism.realism(options.data, prior.shape, held.pixels[count:], options.training, options.seed, seen)
    about = [keeping.weights(card), made_by(satellite.get_config()), options.seed, group]
    calls = len(options.bases) * (len(pairs(options)) * (first // group) + 2 * -(-options.pictures // group))
    rows, tries, every = [], [], []
    with tqdm(total=calls * len(options.tasks), unit="group") as bar:
        for title in options.tasks:
            bar.set_postfix_str(title)
            trial = Trial(title, options, prior, truth, eye)
            found = judged(Scores(trial, kept, about, bar), options, judge, labels)
            rows, tries, every = rows + found[0], tries + found[1], every + found[2]
    rows.append(("truth", *[""] * 4, *judge.cells(seen(truth[first:], "truth"), labels), *[""] * 4))
    return table_of(rows, tries, every, options)


if __name__ == "__main__":
    published.run(main, OPTIONS)
