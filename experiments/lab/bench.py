"""One problem of the exact lab: a method's program, the choice of its hyperparameter, its line of the table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import posterior, process, seed_key
from diffinv.metrics import calibration
from diffinv.metrics import posterior as metrics
from diffinv.seeds import whole_seed
from experiments.common import runtime, tuning
from experiments.lab import judge
from experiments.lab.judge import FLOOR, floor, residuals, summary, take, within
from experiments.lab.problems import PROBLEMS, Problem
from experiments.lab.rows import Rows, digest
from experiments.methods import lab
from experiments.methods.lab import ROWS, Row

FORMAT = 4  # of what a row holds: rows of another one are run again


class Program:
    """One method on one problem: `(rows, values) -> (samples, account)` with `draws` samples a row, after `compile`.

    Rows run one after the other: a row's particles stay in the cache, which halves the time of the particle methods.
    `text` is the program as it is handed to the compiler: whatever changes it changes the results.
    """

    def __init__(self, method: Row, problem: Problem, config):
        self.problem, self.rows = problem, config.rows
        self.key = seed_key(config.seed)

        def one(prior, key, measurement, value):
            solver = posterior.account(lab.solver(method, prior, value))
            keys = jax.random.split(key, config.draws)
            solution = jax.vmap(lambda k: solver(k, measurement))(keys)
            return solution.x, solution.info._replace(info=())

        program = jax.jit(lambda prior, *inputs: jax.lax.map(lambda row: one(prior, *row), inputs))
        none = np.zeros(config.rows, int)
        self.lowered = program.lower(*self._inputs(none, none, np.ones(config.rows)))
        self.text = self.lowered.as_text()

    def compile(self) -> float:
        """The seconds it took."""
        start = time.perf_counter()
        self.program = self.lowered.compile()
        return time.perf_counter() - start

    def _inputs(self, slots: np.ndarray, rows: np.ndarray, values: np.ndarray):
        keys = jax.vmap(lambda i: jax.random.fold_in(self.key, i))(jnp.asarray(slots))
        return self.problem.prior, keys, take(self.problem.measurements, rows), jnp.asarray(values, float)

    def __call__(self, rows: np.ndarray, values: np.ndarray):
        """Samples (n, draws, d) and the account's leaves (n, draws) of any number n of rows, so many a call as it
        was compiled for; the last call is filled up by repetition. The i-th row's randomness is the i-th key's."""
        parts = []
        for first in range(0, len(rows), self.rows):
            slots = np.arange(first, first + self.rows) % len(rows)
            parts.append(jax.device_get(self.program(*self._inputs(slots, rows[slots], values[slots]))))
        x, account = jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(rows)], *parts)
        return x.reshape(*x.shape[:2], -1), account


def tuned(program: Program, method: Row, config) -> tuple[float, list[float]]:
    """The value with the smallest sliced W1 on the tuning rows, and the W1 of all values, each tried on every row."""
    values, tries = np.asarray(method.values), config.tuning_rows
    value, row = np.tile(np.arange(len(values)), tries), np.repeat(np.arange(tries), len(values))
    x, _ = program(row, values[value])
    errors = np.full((len(values), tries), np.inf)
    for samples, v, r in zip(x, value, row, strict=True):
        if within(samples):
            errors[v, r] = metrics.sliced_wasserstein(samples, program.problem.exact[r], projections=config.projections)
    return float(values[tuning.least(errors)]), [float(mean) for mean in errors.mean(1)]


def row_of(name: str, program: Program, rows: np.ndarray, config) -> dict:
    """One line of the table."""
    method, problem = ROWS[name], program.problem
    compiling = program.compile()
    value, tried = tuned(program, method, config)
    start = time.perf_counter()
    samples, account = program(rows, np.full(len(rows), value))
    seconds = time.perf_counter() - start
    return {
        "method": name, "claim": method.claim, "knob": method.knob, "value": value,
        "tuning": dict(zip(map(str, method.values), tried, strict=True)),
        "diverged": float(np.mean(account.diverged)), "compile_s": compiling, "run_s": seconds,
        **{what: int(np.max(count)) for what, count in account.cost._asdict().items()},
        "residual": residuals(problem, samples, rows), **summary(samples, rows, problem, config),
    }  # fmt: skip


class Bench:
    """One problem with its settings and the rows that are kept of it."""

    def __init__(self, which: str, config, kept: Rows):
        rng = np.random.default_rng([whole_seed(config.seed), list(PROBLEMS).index(which)])
        self.which, self.config, self.kept = which, config, kept
        self.problem = PROBLEMS[which](rng, config.rows + config.tuning_rows, config.draws, process.VP())
        self.reported = np.arange(config.rows) + config.tuning_rows
        judges = [FORMAT, config.seed, config.tuning_rows, config.projections, judge, tuning, metrics, calibration]
        self.made_of = digest(self.problem, *judges)

    def floor(self) -> dict:
        """The line of exact samples."""
        found = self.kept.load(self.which, FLOOR, self.made_of)
        line = found or floor(self.problem, self.reported, self.config)
        if not found:
            self.kept.save(self.which, FLOOR, self.made_of, line)
        return line

    def line(self, name: str, run: bool = True, fresh: bool = False) -> tuple[dict | None, str]:
        """(the line of a method, a word on why it was run again): kept, or else made where `run`."""
        method = ROWS[name]
        program = Program(method, self.problem, self.config)
        made_of = digest(self.made_of, program.text, method.knob, method.claim, method.values)
        found = None if fresh else self.kept.load(self.which, name, made_of)
        if found or not run:
            return found, ""
        again = self.kept.known(self.which, name) and not fresh
        line = row_of(name, program, self.reported, self.config)
        self.kept.save(self.which, name, made_of, line)
        return line, f"{self.which}: {name} was run again, for its settings or its code are new" if again else ""

    def lines(self, names: list[str], fresh: bool) -> Iterator[tuple[str, dict, str]]:
        """(name, line, word) of each method as it is finished, one a core at a time; the last named take longest."""
        pool = ThreadPoolExecutor(runtime.cores())
        jobs = {pool.submit(self.line, name, True, fresh): name for name in reversed(names)}
        try:
            for job in as_completed(jobs):
                yield jobs[job], *job.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def others(self, names: list[str]) -> dict[str, dict]:
        """What is kept of methods that were not asked for, where it was made as it would be now."""
        kept = [name for name in ROWS if name not in names and self.kept.known(self.which, name)]
        found = {name: self.line(name, run=False)[0] for name in kept}
        return {name: line for name, line in found.items() if line}
