"""Levy processes of 64 values: how far the mean of a method's samples is from the best estimate, in decibels.

    python -m experiments.tables.levy [--quick] [--problems=denoising,deconvolution] [--jumps=Gauss,Laplace]

Zach, Haouchat & Unser 2025 (arXiv:2509.12821) and their repository zacmar/dps-benchmark: walks with independent
increments, measured with noise of 25 dB below the median signal; 10 log10 of a sample mean's error over that of the
posterior's mean, averaged over signals, and how often an interval of 90 % holds the truth. The mean of n exact samples
has 10 log10(1 + 1/n): the least that can be expected.
Differs: the denoiser is exact (`experiments.lab.walks`) where theirs is learned, or a Gibbs sampler; fewer signals,
samples and steps; each method's hyperparameter is chosen on signals of its own, of fewer values; their interval is of
highest posterior density, ours of each value's samples, from their 5th to their 95th percentile, and exact samples of
so few do not reach 90 %; Student's law has 3 degrees of freedom alone; imputation sees another half of the places. A
deconvolved or imputed Bernoulli-Laplace walk has no reference here: its posterior is not sampled.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

from experiments.common import runtime  # noqa: F401  isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import diffinv as di
from diffinv import operators, posterior, process, times
from diffinv.loop import failed_step
from diffinv.typing import Array
from experiments.common import tuning
from experiments.lab import levy, walks
from experiments.lab.walks import JUMPS
from experiments.tables import published
from experiments.tables.published import Option, Told, counted, named

LENGTH, DECIBELS = 64, 25.0
SUM = np.tri(LENGTH)
"""From increments to their walk."""
VP = process.VP()


def _blur() -> np.ndarray:
    """A circular blur of 13 taps, of deviation 2."""
    taps = np.exp(-0.5 * (np.arange(-6, 7) / 2) ** 2)
    return sum(tap * np.roll(np.eye(LENGTH), i - 6, 1) for i, tap in enumerate(taps / taps.sum()))


MATRICES: dict[str, np.ndarray] = {
    "denoising": np.eye(LENGTH),
    "deconvolution": _blur(),
    "imputation": np.eye(LENGTH)[np.sort(np.random.default_rng(0).permutation(LENGTH)[: LENGTH // 2])],
}


class Row(NamedTuple):
    """`build(prior, measurement, value) -> Sampler` on the times `grid(steps, value)`."""

    build: Callable
    values: tuple[float, ...]
    grid: Callable[[int, Array], Array] = lambda steps, value: times.grid(steps)


def cooling(steps: int, eta: Array) -> Array:
    """DPnP's levels as they set them: a fifth of the rounds at eta, then down to 0.1 by equal ratios."""
    return jnp.append(times.from_sigma(VP, eta * (0.1 / eta) ** jnp.linspace(-0.25, 1, steps // 4).clip(0)), 0.0)


ROWS = {
    "C-DPS": Row(posterior.dps, (0.03, 0.1, 0.3, 1.0, 3.0)),
    "DiffPIR": Row(lambda prior, m, v: posterior.diffpir(prior, m, v, 0.3), (0.01, 0.1, 1.0, 10.0, 100.0)),
    "DPnP": Row(
        lambda prior, m, v: posterior.dpnp(prior, m, 10, stochastic=True), (0.3, 1.0, 3.0, 10.0, 30.0), cooling
    ),
}
"""Theirs, DiffPIR with the smaller of their two zetas."""
ORDER = ("Gauss", "Laplace", "Bernoulli-Laplace")
PUBLISHED = {
    ("denoising", "C-DPS"): (0.12, 0.12, 2.22),
    ("denoising", "DiffPIR"): (0.16, 0.09, 0.72),
    ("denoising", "DPnP"): (0.24, 0.11, 1.33),
    ("deconvolution", "C-DPS"): (0.12, 0.12, 4.30),
    ("deconvolution", "DiffPIR"): (0.07, 0.07, 1.09),
    ("deconvolution", "DPnP"): (0.10, 0.13, 1.71),
}
"""Of `ORDER`, as somebody's notes have them."""
OPTIONS = {
    "problems": Option(["denoising", "deconvolution"], ["denoising"], named(MATRICES, "what is measured")),
    "jumps": Option(list(ORDER), ["Laplace"], named(JUMPS, "laws of the increments")),
    "methods": Option(list(ROWS), ["DiffPIR"], named(ROWS)),
    "signals": Option(16, 3, counted("that are reported: 1000 there", 10_000)),
    "held": Option(6, 2, counted("other signals, on which hyperparameters are chosen: 1000 there", 10_000)),
    "samples": Option(16, 4, counted("of each signal: 50 there", 10_000)),
    "steps": Option(100, 12, counted("of the sampler: 1000 there", 10_000, low=8)),
}


class Setting(NamedTuple):
    """Signals (n, L), their measurements and the deviation of the noise, and the posterior's means (n, L)."""

    truth: np.ndarray
    measurements: di.Measurement
    sigma: float
    mean: np.ndarray


def reference(which: str, jumps: str, y: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """The posterior's mean of each walk: in closed form, on the lattice, or of 1,024 samples of a Gibbs sampler.

    Raises ValueError where it is not known.
    """
    A, law = MATRICES[which], JUMPS[jumps]
    if jumps == "Gauss":
        C = law.variance * SUM @ SUM.T
        return y @ np.linalg.solve(A @ C @ A.T + sigma**2 * np.eye(len(A)), A @ C)
    if which == "denoising":
        best = jax.jit(jax.vmap(lambda y: walks.mean(law, y, jnp.asarray(sigma))))
        return np.asarray(best(jnp.asarray(y)))
    if jumps == "Laplace":
        every = np.broadcast_to(A @ SUM, (len(y), *A.shape))
        return levy.gibbs(rng, every, y, sigma, 1.0, 32, 32, 20, 400).mean((1, 2)) @ SUM.T
    raise ValueError(f"the posterior of {which} with {jumps} is not known here; leave it out of --problems or --jumps")


def setting(which: str, jumps: str, count: int) -> Setting:
    """So many signals, measured once each."""
    rng = np.random.default_rng([0, list(MATRICES).index(which), list(JUMPS).index(jumps)])
    A, truth = MATRICES[which], JUMPS[jumps].sample(rng, (count, LENGTH)) @ SUM.T
    clean = truth @ A.T
    sigma = float(np.sqrt(np.median(np.mean(clean**2, 1)) / 10 ** (DECIBELS / 10)))
    y = clean + sigma * rng.standard_normal(clean.shape)
    measured = di.Measurement(operators.dense(jnp.asarray(A)), jnp.asarray(y), di.GaussianNoise(jnp.asarray(sigma)))
    return Setting(truth, measured, sigma, reference(which, jumps, y, sigma, rng))


def program(row: Row, jumps: str, steps: int, samples: int) -> Callable:
    """`(key, value, operator, y (n, m), noise) -> (n, samples, L)`, compiled; NaN where a sample diverged."""
    prior = di.Prior(VP, walks.WalkDenoiser(VP, JUMPS[jumps]), (LENGTH,))

    def one(key: Array, value: Array, measurement: di.Measurement) -> Array:
        found = di.sample(key, di.guard(row.build(prior, measurement, value)), row.grid(steps, value))
        return jnp.where(failed_step(found.info) < 0, found.x, jnp.nan)

    def run(key: Array, value: Array, m: di.Measurement) -> Array:
        keys = jax.random.split(key, (len(m.y), samples))
        each = lambda keys, y: jax.vmap(lambda k: one(k, value, m.replace(y=y)))(keys)
        return jax.vmap(each)(keys, m.y)

    return jax.jit(run)


def gap(x: np.ndarray, truth: np.ndarray, best: np.ndarray) -> list[float]:
    """`10 log10 |mean of x - truth|^2 / |best - truth|^2` of each signal; x (n, samples, L), truth and best (n, L)."""
    return list(10 * np.log10(np.sum((x.mean(1) - truth) ** 2, 1) / np.sum((best - truth) ** 2, 1)))


def held_within(x: np.ndarray, truth: np.ndarray) -> list[float]:
    """The share of each signal's values within the middle 90 % of its samples, in percent."""
    low, high = np.percentile(x, [5, 95], axis=1)
    return list(100 * np.mean((low <= truth) & (truth <= high), 1))


def errors(where: Setting, run: Callable, row: Row, held: int) -> tuple[float, np.ndarray]:
    """(the value with the least gap on the first signals, samples for the others)."""

    def samples(value: float, chosen: slice) -> np.ndarray:
        m = where.measurements.replace(y=where.measurements.y[chosen])
        return np.asarray(run(jax.random.key(0), jnp.asarray(value), m))

    first, rest = slice(0, held), slice(held, None)
    tried = [gap(samples(value, first), where.truth[first], where.mean[first]) for value in row.values]
    value = row.values[tuning.least(tried)]
    return value, samples(value, rest)


def main(options: SimpleNamespace) -> published.Table:
    jax.config.update("jax_enable_x64", True)
    problems = published.rows("problems", options.problems, list(MATRICES))
    laws = published.rows("jumps", options.jumps, list(JUMPS))
    names = published.rows("methods", options.methods, list(ROWS))
    lines, notes, results = [("problem", "jumps", "method", "chosen", "gap / dB", "in 90 %", "published")], [], []
    with tqdm(total=len(problems) * len(laws) * len(names), unit="row") as bar:
        for which in problems:
            for jumps in laws:
                try:
                    where = setting(which, jumps, options.held + options.signals)
                except ValueError as error:
                    notes.append(str(error))
                    bar.update(len(names))
                    continue
                for name in names:
                    run = program(ROWS[name], jumps, options.steps, options.samples)
                    value, x = errors(where, run, ROWS[name], options.held)
                    truth, best = where.truth[options.held :], where.mean[options.held :]
                    found = gap(x, truth, best)
                    results.append(found)
                    cells = published.cell(found), published.cell(held_within(x, truth), 1)
                    lines.append((which, jumps, name, f"{value:g}", *cells, _told(which, jumps, name)))
                    bar.update()
    least = 10 * np.log10(1 + 1 / options.samples)
    what = f"mean ± 1.96 s / sqrt({options.signals}), {options.samples} samples, {options.steps} steps; "
    what += f"the mean of as many exact samples: {least:.2f} dB"
    return published.table("\n".join([what, published.columns(lines), *([""] if notes else []), *notes]), results)


def _told(which: str, jumps: str, name: str) -> str:
    known = PUBLISHED.get((which, name)) if jumps in ORDER else None
    return published.told(Told(f"{known[ORDER.index(jumps)]:.2f}", False) if known else None)


if __name__ == "__main__":
    published.run(main, OPTIONS)
