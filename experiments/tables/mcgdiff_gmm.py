"""MCGDiff's Gaussian mixture: sliced W1 of samplers to the exact posterior, with intervals over random instances.

    python -m experiments.tables.mcgdiff_gmm [--quick] [--dims=8,80,800] [--measured=1,2,4] [--seeds=20]

25 components at (-8 i, -8 j) tiled, unit covariances, random weights, operators and noise as Cardoso et al. 2023
(arXiv:2308.07983) draw them; 100 steps of their (decreasing) noise schedule, equal in alpha, eta 0.85, 100 directions.
Their instances are drawn before their seed is set, so they cannot be had again: ours are other draws of the same law.
Particle methods return the particles of one run, as MCGDiff does there, drawn by weight; the others run once a sample.
Every row has one hyperparameter for all instances, the published one where there is one; but for TDS, whose twist takes
the data to have unit variance and loses the far modes: its `spread` is chosen in every column on three other instances.
Differs: 1,000 samples and particles where they have two batches of 1,000; their grid has each coordinate's tau, too;
DPS has DDIM's mean beside its noise of eta 0.85, where theirs keeps the ancestral mean; their RNVP is not here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

from experiments.common import runtime  # noqa: F401  isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import diffinv as di
from diffinv import operators, posterior, samplers, times
from diffinv.process import Process
from diffinv.typing import Array, Key
from experiments.common import tuning
from experiments.tables import mixture18, published
from experiments.tables.published import Option, Told, counted, named, numbers

ETA, CELLS = 0.85, [(dim, dim_y) for dim in (8, 80, 800) for dim_y in (1, 2, 4)]
ROWS = {
    "DDRM": lambda prior, m, n: posterior.ddrm(prior, m, ETA, 1.0, 1.0),
    "DPS": lambda prior, m, n: posterior.dps(prior, m, 0.2, eta=ETA),
    "MCGDiff": lambda prior, m, n: posterior.mcgdiff(prior, m, n, 1e-2, ETA),
    "DDNM+": lambda prior, m, n: posterior.ddnm_plus(prior, m, ETA),
    "PiGDM": lambda prior, m, n: posterior.pgdm(prior, m, 1.0, 1.0),
    "TMPD": lambda prior, m, n: samplers.ddim(posterior.tmpd(prior, m), 1.0),
    "MMPS": lambda prior, m, n: samplers.ddim(posterior.mmps(prior, m, m.y.size), 1.0),
    "DAPS": lambda prior, m, n: posterior.daps(prior, m, 5, posterior.chains.conjugate()),
    "DiffPIR": lambda prior, m, n: posterior.diffpir(prior, m, 1.0, 1.0),
    "PnP-DM": lambda prior, m, n: posterior.pnpdm(prior, m, 20),
    "MGPS": lambda prior, m, n: posterior.mgps(prior, m, lr=0.1, early=20, threshold=2.0),
    "TDS": lambda prior, m, n, value: posterior.tds(prior, m, n, spread=value),
    "FPS": lambda prior, m, n: posterior.fps(prior, m, n),
    "DDSMC": lambda prior, m, n: posterior.ddsmc(prior, m, n, eta=1.0),
}
"""`(prior, measurement, particles) -> Sampler`, with the tuned value where there is one."""
TUNED, HELD = {"TDS": ("spread", (1.0, 10.0, 100.0))}, 3
"""What is tried, on how many instances of its own."""
PARTICLES = ("MCGDiff", "TDS", "FPS", "DDSMC")
REMEMBERED = {
    "DDRM": ("5.88", "5.20", "2.49", "5.64", "7.07", "7.81", "7.44", "8.95", "8.39"),
    "DPS": ("4.86", "5.79", "3.48", "4.98", "5.10", "4.28", "6.49", "6.88", "5.51"),
    "MCGDiff": ("1.43", "0.49", "0.38", "1.39", "0.67", "0.28", "2.40", "1.31", "0.47"),
}
"""Of arXiv:2308.07983's table, in the order of `CELLS`."""
OPTIONS = {
    "dims": Option([8], None, numbers(counted("dimensions: 8, 80, 800", 2000))),
    "measured": Option([1, 2, 4], [1], numbers(counted("dimensions of y", 2000, low=1))),
    "seeds": Option(20, 2, counted("instances", 10_000)),
    "samples": Option(1000, 100, counted("of each method and of the posterior, and particles", 100_000)),
    "steps": Option(100, 20, counted("of the sampler", 100_000)),
    "directions": Option(100, None, counted("of the sliced distance", 100_000, low=1)),
    "methods": Option(["DDRM", "DPS", "MCGDiff"], None, named(ROWS)),
}


def instance(rng: np.random.Generator, dim: int, dim_y: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """(means and weights of the prior, matrix, sigma), as the paper draws them."""
    means = np.array([[-8.0 * i, -8.0 * j] * (dim // 2) for i in range(-2, 3) for j in range(-2, 3)])
    weights = rng.standard_normal(25) ** 2
    u, _, vt = np.linalg.svd(rng.standard_normal((dim_y, dim)), full_matrices=False)
    s = np.sort(rng.uniform(0, 1, dim_y))[::-1]
    return means, weights / weights.sum(), (u * s) @ vt, float(rng.uniform(0, 1) * s.max())


def exact(rng, means, weights, A, sigma, y, count: int) -> np.ndarray:
    """Posterior samples; with unit covariances all components share one posterior covariance and gain."""
    gain = A.T @ np.linalg.inv(A @ A.T + sigma**2 * np.eye(len(A)))
    residual = y - means @ A.T
    S = A @ A.T + sigma**2 * np.eye(len(A))
    logs = np.log(weights) - 0.5 * np.einsum("ki,ki->k", residual, np.linalg.solve(S, residual.T).T)
    shares = np.exp(logs - logs.max())
    picks = rng.choice(len(weights), count, p=shares / shares.sum())
    x, n = rng.standard_normal((count, A.shape[1])), sigma * rng.standard_normal((count, len(A)))
    return means[picks] + residual[picks] @ gain.T + x - (x @ A.T + n) @ gain.T


def even(process: Process, steps: int) -> Array:
    """Times at which alpha takes equal steps from its value at the noisy end to 1."""
    alpha = jnp.linspace(process.alpha(1.0), 1.0, steps + 1)
    return times.from_sigma(process, jnp.sqrt(1 / alpha**2 - 1))


def program(name: str, count: int, grid: Array) -> Callable:
    """`(key, prior, measurement, *value) -> (count, d)`, compiled once; `value` for a row that is tuned."""

    def run(key: Key, prior: di.Prior, measurement: di.Measurement, *value: Array) -> Array:
        sampler, many = ROWS[name](prior, measurement, count, *value), lambda key: jax.random.split(key, count)
        if name not in PARTICLES:
            return jax.vmap(lambda k: di.sample(k, sampler, grid).x)(many(key))
        draws = lambda key, state: jax.vmap(lambda k: sampler.final(k, state))(many(key))
        return di.sample(key, sampler._replace(final=draws), grid).x

    return jax.jit(run)


class Problem(NamedTuple):
    """One instance with its measurement, and two sets of exact samples: the truth, and the floor."""

    prior: di.Prior
    measurement: di.Measurement
    right: np.ndarray
    other: np.ndarray


def problem(seed: list[int], process: Process, samples: int, dim: int, dim_y: int) -> Problem:
    """The instance of a seed."""
    rng = np.random.default_rng(seed)
    means, weights, A, sigma = instance(rng, dim, dim_y)
    truth = means[rng.choice(25, p=weights)] + rng.standard_normal(dim)
    y = A @ truth + sigma * rng.standard_normal(dim_y)
    prior = di.mixture(process, jnp.asarray(means), jnp.asarray(weights), jnp.ones(25))
    noise = di.GaussianNoise(jnp.asarray(sigma))
    measurement = di.Measurement(operators.dense(jnp.asarray(A)), jnp.asarray(y), noise)
    right, other = (exact(rng, means, weights, A, sigma, y, samples) for _ in range(2))
    return Problem(prior, measurement, right, other)


def errors(options: SimpleNamespace, dim: int, dim_y: int, bar: tqdm) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Sliced W1 of every method, and of other exact samples, over the instances; and the values that were chosen."""
    process = mixture18.table(float)
    grid = even(process, options.steps)
    found, chosen = {name: [] for name in ["exact (floor)", *options.methods]}, {}
    make = lambda *seed: problem([*seed, dim, dim_y], process, options.samples, dim, dim_y)
    judge = lambda x, right, seed: published.sliced(x, right, options.directions, seed)
    programs = {name: program(name, options.samples, grid) for name in options.methods}
    for name in set(options.methods) & set(TUNED):
        held = [make(k, 1) for k in range(HELD)]
        runs = {value: partial(_valued, programs[name], value) for value in TUNED[name][1]}
        error = lambda value, k, held=held, runs=runs: judge(_drawn(runs[value], k, held[k]), held[k].right, k)
        value = tuning.swept(list(runs), error, HELD)
        chosen[name], programs[name] = f"{value:g}", runs[value]
    for seed in range(options.seeds):
        p = make(seed)
        found["exact (floor)"].append(judge(p.other, p.right, seed))
        for name, each in programs.items():
            found[name].append(judge(_drawn(each, seed, p), p.right, seed))
            bar.update()
    return found, chosen


def _drawn(run: Callable, seed: int, p: Problem) -> np.ndarray:
    return np.asarray(run(jax.random.key(seed), p.prior, p.measurement))


def _valued(run: Callable, value: float, key: Key, prior: di.Prior, measurement: di.Measurement) -> Array:
    return run(key, prior, measurement, jnp.asarray(value))


def remembered(name: str, cell: tuple[int, int]) -> str:
    """The paper's value of one row and cell, with its mark."""
    return published.told(Told(REMEMBERED[name][CELLS.index(cell)], False) if cell in CELLS else None)


def main(options: SimpleNamespace) -> published.Table:
    jax.config.update("jax_enable_x64", True)
    options.methods = published.rows("methods", options.methods, list(ROWS))
    cells = published.cells(options.dims, options.measured)
    with tqdm(total=len(cells) * options.seeds * len(options.methods), unit="run") as bar:
        found = [errors(options, *cell, bar) for cell in cells]
    lines = [("(dim, dim_y)", *map(str, cells))]
    for name in found[0][0]:
        lines.append((name, *(published.cell(each[name]) for each, _ in found)))
        if name in TUNED:
            lines.append((f"  its {TUNED[name][0]}", *(chosen[name] for _, chosen in found)))
        if name in REMEMBERED:
            lines.append(("  the paper's", *(remembered(name, cell) for cell in cells)))
    what = f"sliced W1, mean ± 1.96 s / sqrt({options.seeds}), {options.samples} samples, {options.steps} steps"
    text = "Unverified: remembered from arXiv:2308.07983, other instances, and compared with the paper by nobody."
    results = [each[name] for each, _ in found for name in options.methods]
    return published.table(f"{what}\n{published.columns(lines)}\n\n{text}", results)


if __name__ == "__main__":
    published.run(main, OPTIONS)
