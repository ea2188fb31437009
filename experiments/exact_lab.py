"""The exact lab: every solver on problems whose posterior is known.

    python -m experiments.exact_lab --config=configs/exact_lab.py

For each method one program is compiled. It runs first on a few problems kept for tuning, with all values of the
method's hyperparameter at once; the value with the smallest sliced W1 then runs on the other problems, which alone are
reported. Everything is left in runs/NAME/: index.html (tables, error against cost, rank histograms) and results.json.
Rows that are finished are kept when a run is stopped, and the same command goes on with the others; as many methods run
side by side as there are cores.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from experiments import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from diffinv import posterior, process, seed_key
from diffinv.metrics import posterior as metrics
from experiments import lab_methods, lab_page
from experiments.lab_judge import floor, residuals, summary, take, within
from experiments.lab_methods import METHODS, Method
from experiments.lab_problems import PROBLEMS, Problem, settings

CONFIG = runtime.config_flag(
    str(runtime.ROOT / "configs" / "exact_lab.py"), "a configuration; FILE:smoke for a quick run"
)
OUT = flags.DEFINE_string("out", "runs", "the folder of all runs")
FRESH = flags.DEFINE_bool("fresh", False, "run everything again, whatever the folder holds")


FORMAT = 2  # of results.json: rows of another one are run again


def chosen(text: str, known: list[str], name: str) -> list[str]:
    """A comma-separated list of known names; all of them where it is empty."""
    return [runtime.choose(name, item.strip(), known) for item in text.split(",")] if text else known


class Program:
    """One method on one problem, compiled: `(rows, values) -> (samples, account)` with `draws` samples a row.

    Rows run one after the other: a row's particles stay in the cache, which halves the time of the particle methods.
    """

    def __init__(self, method: Method, problem: Problem, config):
        self.problem, self.draws = problem, config.draws
        self.key = seed_key(config.seed)

        def one(prior, key, measurement, value):
            solver = posterior.account(lab_methods.solver(method, prior, value))
            keys = jax.random.split(key, config.draws)
            solution = jax.vmap(lambda k: solver(k, measurement))(keys)
            return solution.x, solution.info._replace(info=())

        start = time.perf_counter()
        program = jax.jit(lambda prior, *inputs: jax.lax.map(lambda row: one(prior, *row), inputs))
        self.program = program.lower(*self._inputs(np.zeros(config.rows, int), np.ones(config.rows))).compile()
        self.compiling = time.perf_counter() - start

    def _inputs(self, rows: np.ndarray, values: np.ndarray):
        keys = jax.vmap(lambda i: jax.random.fold_in(self.key, i))(jnp.arange(len(rows)))
        return self.problem.prior, keys, take(self.problem.measurements, rows), jnp.asarray(values, float)

    def __call__(self, rows: np.ndarray, values: np.ndarray):
        """Samples (rows, draws, d) and the account's leaves (rows, draws)."""
        x, account = jax.device_get(self.program(*self._inputs(rows, values)))
        return x.reshape(*x.shape[:2], -1), account


def tuned(program: Program, method: Method, config) -> tuple[float, list[float]]:
    """The value with the smallest sliced W1 on the tuning rows, and the W1 of all values."""
    count, tries = len(method.values), config.tuning_rows
    slots = np.arange(config.rows)
    value, row = slots % count, slots // count
    x, _ = program(np.minimum(row, tries - 1), np.asarray(method.values)[value])
    errors = np.full((count, tries), np.inf)
    for slot in slots[row < tries]:
        if within(x[slot]):
            errors[value[slot], row[slot]] = metrics.sliced_wasserstein(
                x[slot], program.problem.exact[row[slot]], projections=config.projections
            )
    means = errors.mean(1)
    return float(method.values[int(np.argmin(means))]), [float(v) for v in means]


def row_of(name: str, problem: Problem, rows: np.ndarray, config) -> dict:
    """One line of the table."""
    method = METHODS[name]
    program = Program(method, problem, config)
    value, tuning = tuned(program, method, config)
    start = time.perf_counter()
    samples, account = program(rows, np.full(len(rows), value))
    seconds = time.perf_counter() - start
    return {
        "method": name, "claim": method.claim, "knob": method.knob, "value": value,
        "tuning": dict(zip(map(str, method.values), tuning, strict=True)),
        "diverged": float(np.mean(account.diverged)), "compile_s": program.compiling, "run_s": seconds,
        **{what: int(np.max(count)) for what, count in account.cost._asdict().items()},
        "residual": residuals(problem, samples, rows), **summary(samples, rows, problem, config),
    }  # fmt: skip


def restored(path: Path, stamp: dict) -> dict:
    """What an earlier run with the same settings left."""
    if FRESH.value or not path.exists():
        return {"settings": stamp, "problems": {}}
    try:
        found = json.loads(path.read_text())
    except ValueError:
        raise ValueError(f"{path} is damaged; remove it, or use --fresh") from None
    return found if found.get("settings") == stamp else {"settings": stamp, "problems": {}}


def store(path: Path, results: dict) -> None:
    """The whole file or the old one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1))
    os.replace(temporary, path)


def rows_of(names: list[str], problem: Problem, rows: np.ndarray, config) -> Iterator[tuple[str, dict]]:
    """(name, line) of each method as it is finished, one method a core at a time; the last named take longest."""
    with ThreadPoolExecutor(runtime.cores()) as pool:
        jobs = {pool.submit(row_of, name, problem, rows, config): name for name in reversed(names)}
        try:
            for job in as_completed(jobs):
                yield jobs[job], job.result()
        finally:
            pool.shutdown(cancel_futures=True)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    config = CONFIG.value
    problems = chosen(config.problems, list(PROBLEMS), "config.problems")
    own = {which: settings(config, which) for which in problems}
    methods = {which: chosen(each.methods, list(METHODS), "config.methods") for which, each in own.items()}
    folder = Path(OUT.value) / config.name
    folder.mkdir(parents=True, exist_ok=True)
    stamp = {name: config[name] for name in ("seed", "rows", "tuning_rows", "draws", "projections")}
    stamp |= {f"draws of {which}": each.draws for which, each in config.reduced.items() if "draws" in each}
    stamp["format"] = FORMAT
    results = restored(folder / "results.json", stamp)
    reported = np.arange(config.rows) + config.tuning_rows
    with tqdm(total=sum(map(len, methods.values())), unit="row") as bar:
        for which in problems:
            rng = np.random.default_rng([config.seed, list(PROBLEMS).index(which)])
            problem = PROBLEMS[which](rng, config.rows + config.tuning_rows, own[which].draws, process.VP())
            lines = results["problems"].setdefault(which, {})
            lines.setdefault("exact samples", floor(problem, reported, config))
            missing = [name for name in methods[which] if name not in lines]
            bar.update(len(methods[which]) - len(missing))
            for name, line in rows_of(missing, problem, reported, own[which]):
                lines[name] = line
                store(folder / "results.json", results)
                bar.set_description(f"{which}: {name}", refresh=False)
                bar.update()
    command = shlex.join([Path(sys.executable).name, "-m", "experiments.exact_lab", *sys.argv[1:]])
    (folder / "index.html").write_text(lab_page.page(results, {n: PROBLEMS[n].__doc__ for n in problems}, command))
    for which in problems:
        print(f"\n{which}: {PROBLEMS[which].__doc__}\n" + lab_page.text(results["problems"][which]))
    print(f"\nreport: {folder / 'index.html'}")


if __name__ == "__main__":
    runtime.run(main)
