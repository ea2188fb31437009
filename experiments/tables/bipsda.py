"""BIPSDA's three inverse problems of a Gaussian mixture: discrepancies of samplers to the posterior, over trials.

    python -m experiments.tables.bipsda [--quick] [--problems=inpainting high,x-ray] [--methods=DAPS,TDS] [--trials=10]

Three components with full covariances in 10 dimensions; inpainting with much and little noise, phase retrieval, and
x-ray tomography with photon counts, as Crafts & Villa 2025 (arXiv:2503.03007) and their repository Evan1578/BIPSDA set
them; the exact score, 200 levels of noise from 10 to 0.01. Kernel distance (MMD, five widths) and central moment
discrepancy (CMD, five moments), with their constants, and the norm of the error of the ten variances. Each method's
hyperparameter is chosen on a trial of its own.
Differs: operators and the third component's rotation are other draws of the same laws (theirs are torch's); 10 trials
of 1,000 samples where they have 100 of 10,000; the rows are this library's solvers, not theirs (DAPS is theirs of
Langevin with the ODE); all start at noised draws of the prior, but DDRM at its own start, and MCGDiff, which starts at
a Gaussian and gets VP noise for that. The nonlinear problems have no exact samples: their references are prior draws
resampled by likelihood, whose effective number is printed, and moved by Metropolis.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

from experiments.common import runtime  # noqa: F401  isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from tqdm import tqdm

import diffinv as di
from diffinv import operators, posterior, samplers, times
from diffinv.posterior import chains
from diffinv.process import EDM, VP, Process
from diffinv.typing import Array
from experiments.common import tuning
from experiments.lab.problems import BIPSDA_SEEN, Law, bipsda_law, mixture_prior
from experiments.lab.problems import posterior as bayes
from experiments.methods.declared import assuming
from experiments.tables import published
from experiments.tables.published import Option, Told, counted, named

HIGH, PHOTONS = 10.0, 1000.0


@struct.dataclass
class Squares(operators.Operator):
    """Phase retrieval, `(A x)^2`."""

    matrix: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.matrix.shape[-1],)

    def __call__(self, x: Array) -> Array:
        return (self.matrix @ x) ** 2


@struct.dataclass
class Absorbed(operators.Operator):
    """X-rays, `2 exp(-A (x + 10)) - 1`: the share of the photons that arrive, on the scale of `PoissonNoise`."""

    matrix: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.matrix.shape[-1],)

    def __call__(self, x: Array) -> Array:
        return 2 * jnp.exp(-self.matrix @ (x + 10)) - 1


class Problem(NamedTuple):
    """One inverse problem: its matrix's law, operator, noise and the constants of both discrepancies."""

    matrix: Callable[[np.random.Generator], np.ndarray]
    operator: Callable[[Array], operators.Operator]
    noise: di.GaussianNoise | di.PoissonNoise
    linear: bool
    width: float
    scale: float


def _seen(rng: np.random.Generator) -> np.ndarray:
    return np.eye(10)[list(BIPSDA_SEEN)]


PROBLEMS = {
    "inpainting high": Problem(_seen, operators.dense, di.GaussianNoise(5.0), True, 4.9753, 6.3731),
    "inpainting low": Problem(_seen, operators.dense, di.GaussianNoise(0.1), True, 2.0774, 4.7307),
    "phase retrieval": Problem(
        lambda rng: rng.standard_normal((5, 10)), Squares, di.GaussianNoise(25.0), False, 12.6182, 16.9327
    ),
    "x-ray": Problem(
        lambda rng: rng.uniform(0.01, 0.05, (15, 10)), Absorbed, di.PoissonNoise(PHOTONS), False, 4.3266, 4.3931
    ),
}


class Row(NamedTuple):
    """`build(prior, measurement, value, tau) -> Sampler` at a hyperparameter; tau: the noise's deviation in y."""

    build: Callable
    values: tuple[float, ...]
    linear: bool = False
    forward: Process = EDM(sigma_max=HIGH)


def _randomised(prior: di.Prior, m: di.Measurement, v: Array, tau: Array) -> di.Sampler:
    """Annealing about the denoised mean, by randomise-then-optimise under Gaussian noise of deviation tau."""
    return posterior.daps(prior, m.replace(noise=di.GaussianNoise(tau)), 1, chains.rto(50, v))


WIDE = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
NEAR = (0.1, 0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5)
ROWS = {
    "DAPS": Row(lambda prior, m, v, tau: posterior.daps(prior, m, 5, chains.langevin(100, v), tau), WIDE[:6]),
    "DPS": Row(lambda prior, m, v, tau: posterior.dps(prior, m, v), WIDE),
    "DiffPIR": Row(lambda prior, m, v, tau: posterior.diffpir(prior, m, v, 1.0), (*WIDE[3:], 30.0, 100.0), True),
    "DAPS RTO": Row(_randomised, (0.1, 0.3, 1.0)),
    "DAPS exact": Row(lambda prior, m, v, tau: posterior.daps(prior, m, 5, chains.conjugate(), spread=v), NEAR, True),
    "TMPD": Row(lambda prior, m, v, tau: samplers.ddim(posterior.tmpd(prior, assuming(m, v)), 1.0), NEAR, True),
    "DDRM": Row(lambda prior, m, v, tau: posterior.ddrm(prior, m, v), (0.2, 0.5, 0.7, 0.85, 0.95, 1.0), True),
    "TDS": Row(lambda prior, m, v, tau: posterior.tds(prior, m, 16, spread=v), (0.3, 1.0, 10.0, 100.0)),
    "MCGDiff": Row(lambda prior, m, v, tau: posterior.mcgdiff(prior, m, 32, eta=v), (0.85, 1.0), True, VP()),
}
PUBLISHED = {
    ("inpainting low", "exact samples"): 0.03,
    ("inpainting low", "DAPS RTO"): 0.06,
    ("x-ray", "DAPS RTO"): 0.19,
}
"""Errors of variances, of 10,000 samples, as somebody's notes have them; RTO there is "RTO-TU"."""
OPTIONS = {
    "problems": Option(list(PROBLEMS), None, named(PROBLEMS, "inverse problems")),
    "methods": Option(list(ROWS), ["DPS", "DDRM"], named(ROWS)),
    "trials": Option(10, 2, counted("that are reported", 10_000)),
    "samples": Option(1000, 100, counted("of each method and of the posterior", 10_000)),
    "steps": Option(200, 20, counted("of the sampler", 100_000)),
    "draws": Option(1_000_000, 20_000, counted("of the prior, for the references of the nonlinear problems", 10**7)),
}


def mmd(x: np.ndarray, y: np.ndarray, width: float) -> float:
    """`mean k(x, x') + mean k(y, y') - 2 mean k(x, y)`, `k = sum_j exp(-|x - y|^2 / (2^j width))`, j from -2 to 2."""

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        square = cdist(a, b, "sqeuclidean")
        return sum(float(np.mean(np.exp(-square / (width * 2.0**j)))) for j in range(-2, 3))

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


def cmd(x: np.ndarray, y: np.ndarray, scale: float, moments: int = 5) -> float:
    """`|m_x - m_y| / scale + sum_k |c_k(x) - c_k(y)| / scale^k`, c_k the central moments of each coordinate, k >= 2."""
    found = np.linalg.norm(x.mean(0) - y.mean(0)) / scale
    for k in range(2, moments + 1):
        gap = np.mean((x - x.mean(0)) ** k, 0) - np.mean((y - y.mean(0)) ** k, 0)
        found += np.linalg.norm(gap) / scale**k
    return float(found)


def log_prior(law: Law, x: np.ndarray) -> np.ndarray:
    """`log p(x)` of rows, up to a constant."""
    parts = []
    for weight, mean, covariance in zip(law.weights, law.means, law.covariances, strict=True):
        gap = x - mean
        square = np.einsum("ni,ni->n", gap, np.linalg.solve(covariance, gap.T).T)
        parts.append(np.log(weight) - 0.5 * square - 0.5 * np.linalg.slogdet(covariance)[1])
    return logsumexp(parts, axis=0)


def weighed(
    rng: np.random.Generator, law: Law, likelihood: Callable, count: int, draws: int, moves: int = 100
) -> tuple[np.ndarray, float]:
    """(posterior samples, effective number of the draws): resampled by likelihood, then `moves` of Metropolis each."""
    x = law.sample(rng, draws)
    weights = np.exp((logs := likelihood(x)) - logs.max())
    weights /= weights.sum()
    x = x[rng.choice(draws, count, p=weights)]
    density = lambda x: likelihood(x) + log_prior(law, x)
    now = density(x)
    for _ in range(moves):
        proposal = x + 0.3 * rng.standard_normal(x.shape)
        ahead = density(proposal)
        accept = np.log(rng.uniform(size=count)) < ahead - now
        x, now = np.where(accept[:, None], proposal, x), np.where(accept, ahead, now)
    return x, float(1 / np.sum(weights**2))


class Trial(NamedTuple):
    """A measurement, the deviation of its noise, two independent sets of posterior samples, their effective number."""

    measurement: di.Measurement
    tau: float
    exact: np.ndarray
    other: np.ndarray
    size: float


def trial(rng: np.random.Generator, law: Law, task: Problem, options: SimpleNamespace) -> Trial:
    """One measurement of a draw from the prior, with its reference."""
    A, count = task.matrix(rng), options.samples
    operator, truth = task.operator(jnp.asarray(A)), law.sample(rng, 1)[0]
    if isinstance(task.noise, di.PoissonNoise):
        counts = rng.poisson(PHOTONS * np.exp(-A @ (truth + 10)))
        y, tau = 2 * counts / PHOTONS - 1, 2 * np.sqrt(max(counts.mean(), 1.0)) / PHOTONS
    else:
        tau = task.noise.sigma
        y = np.asarray(operator(jnp.asarray(truth))) + tau * rng.standard_normal(len(A))
    measurement = di.Measurement(operator, jnp.asarray(y), jax.tree.map(jnp.asarray, task.noise))
    if task.linear:
        right = bayes(law, A, y, tau)
        return Trial(measurement, tau, right.sample(rng, count), right.sample(rng, count), float("inf"))
    value = jax.jit(jax.vmap(measurement.log_likelihood))
    x, size = weighed(rng, law, lambda x: np.asarray(value(jnp.asarray(x))), 2 * count, options.draws)
    x = rng.permutation(x)
    return Trial(measurement, tau, x[:count], x[count:], size)


def program(row: Row, law: Law, options: SimpleNamespace) -> Callable:
    """`(key, value, measurement, tau) -> samples`, compiled."""
    grid = times.karras(options.steps, 0.01, HIGH) if isinstance(row.forward, EDM) else times.grid(options.steps)
    prior = mixture_prior(row.forward, law)
    prior = prior.replace(law=prior.denoise)  # its noisy end is drawn exactly: at 10 the modes still show

    def run(key: Array, value: Array, measurement: di.Measurement, tau: Array) -> Array:
        sampler = row.build(prior, measurement, value, tau)
        return jax.vmap(lambda k: di.sample(k, sampler, grid).x)(jax.random.split(key, options.samples))

    return jax.jit(run)


def scores(task: Problem, x: np.ndarray, each: Trial) -> tuple[float, float, float]:
    """(MMD, CMD, error of variances) of the samples within +-100, as they keep them; NaN where fewer than half are."""
    kept = x[(np.abs(x) < 100).all(1)]
    if len(kept) < len(x) / 2:
        return float("nan"), float("nan"), float("nan")
    variances = float(np.linalg.norm(kept.var(0, ddof=1) - each.exact.var(0, ddof=1)))
    return mmd(kept, each.exact, task.width), cmd(kept, each.exact, task.scale), variances


def errors(name: str, task: Problem, law: Law, trials: list[Trial], options: SimpleNamespace) -> tuple:
    """(the value chosen on the first trial, its scores on each of the others)."""
    row = ROWS[name]
    run = program(row, law, options)

    def score(value: float, i: int) -> tuple[float, float, float]:
        each = trials[i]
        x = run(jax.random.key(i), jnp.asarray(value), each.measurement, jnp.asarray(each.tau))
        return scores(task, np.asarray(x), each)

    value = tuning.swept(row.values, lambda value, i: score(value, i)[0])
    return value, [score(value, i) for i in range(1, len(trials))]


def main(options: SimpleNamespace) -> published.Table:
    jax.config.update("jax_enable_x64", True)
    names = published.rows("methods", options.methods, list(ROWS))
    problems = published.rows("problems", options.problems, list(PROBLEMS))
    lines, notes, results = [("problem", "method", "chosen", "MMD", "CMD", "variances", "published")], [], []
    with tqdm(total=len(problems) * len(names), unit="row") as bar:
        for which in problems:
            task, rng = PROBLEMS[which], np.random.default_rng([0, list(PROBLEMS).index(which)])
            law = bipsda_law(rng)
            trials = [trial(rng, law, task, options) for _ in range(options.trials + 1)]
            floor = zip(*(scores(task, each.other, each) for each in trials[1:]), strict=True)
            lines.append(
                (
                    which,
                    "exact samples",
                    "",
                    *(published.cell(list(part), 3) for part in floor),
                    _told(which, "exact samples"),
                )
            )
            if not task.linear:
                notes.append(f"{which}: {min(each.size for each in trials):.0f} effective reference draws at least")
            for name in names:
                if task.linear or not ROWS[name].linear:
                    value, found = errors(name, task, law, trials, options)
                    results += found
                    cells = [published.cell(list(part), 3) for part in zip(*found, strict=True)]
                    lines.append((which, name, f"{value:g}", *cells, _told(which, name)))
                bar.update()
    what = f"mean ± 1.96 s / sqrt({options.trials}), {options.samples} samples, {options.steps} steps"
    return published.table("\n".join([what, published.columns(lines), "", *notes]), results)


def _told(which: str, name: str) -> str:
    known = PUBLISHED.get((which, name))
    return published.told(None if known is None else Told(f"variances {known:.2f}", False))


if __name__ == "__main__":
    published.run(main, OPTIONS)
