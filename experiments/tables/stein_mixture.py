"""Two modes in 16 dimensions: the kernel Stein discrepancy of samplers to the exact posterior, over draws of noise.

    python -m experiments.tables.stein_mixture [--quick] [--problems=many,few] [--sigmas=0.2,0.5] [--methods=DDRM,DPS]

The prior is 0.8 N((0, 0), I) + 0.2 N((3, 3), 2 I) in two coordinates and N(0, I) in the other fourteen, as
arXiv:2602.04189 has it. "many" measures those fourteen, scaled by 0.1, 0.15 .. 0.75, so that the two modes are the
prior's; "few" the first four, scaled by 3. 500 samples of each method for one measurement, whose noise is drawn five
times; the square root of the discrepancy, with the exact score of the posterior and an inverse multiquadric kernel of
width 1. The least is not the best: exact samples leave some, and samples that crowd at a mode, where the score is
small, leave less. So each method's hyperparameter is the one that comes nearest to exact samples on a draw of its own.
The paper does not say its kernel, so that its numbers, printed beside ours, compare in their order and not in their
values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import NamedTuple

from experiments.common import runtime  # noqa: F401  isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp
from scipy.stats import spearmanr
from tqdm import tqdm

import diffinv as di
from diffinv import operators, process, schema
from diffinv.loop import failed_step
from diffinv.metrics import calibration
from diffinv.typing import Array
from experiments.common import tuning
from experiments.lab.problems import Law, mixture_prior
from experiments.lab.problems import posterior as bayes
from experiments.methods import lab
from experiments.tables import published
from experiments.tables.published import Option, Told, counted, named, numbers

DIM = 16
NAMES = {
    "MCGDiff": "MCGDiff 64",
    "DDRM": "DDRM",
    "DiffPIR": "DiffPIR",
    "DAPS": "DAPS",
    "DPS": "DPS",
    "FPS": "FPS 16",
    "PnP-DM": "PnP-DM",
    "DDNM": "DDNM",
    "RED-diff": "RED-diff",
}
"""The paper's methods, and the rows of the exact lab that they are here."""
PUBLISHED = {
    0.2: (0.35, 0.28, 0.51, 0.50, 0.64, 0.74, 0.96, 1.04, 1.23, 1.57),
    0.5: (0.24, 0.25, 0.60, 0.99, 1.10, 0.25, 1.20, 1.61, 2.12, 2.14),
}
"""Of "many", by the noise: exact samples, then the methods in the order of `NAMES`."""


def law() -> Law:
    """The prior."""
    means, covariances = np.zeros((2, DIM)), np.stack([np.eye(DIM)] * 2)
    means[1, :2] = 3.0
    covariances[1][:2, :2] *= 2.0
    return Law(np.array([0.8, 0.2]), means, covariances)


MATRICES: dict[str, np.ndarray] = {
    "many": np.linspace(0.1, 0.75, 14)[:, None] * np.eye(DIM)[2:],
    "few": 3.0 * np.eye(DIM)[:4],
}
OPTIONS = {
    "problems": Option(["many"], None, named(MATRICES, "what is measured")),
    "sigmas": Option([0.2, 0.5], [0.5], numbers(schema.number("deviation of the noise", above=0, high=100))),
    "methods": Option(list(NAMES), ["DDRM"], named(NAMES)),
    "draws": Option(5, 2, counted("of the noise, that are reported", 10_000)),
    "samples": Option(500, 50, counted("of each method", 100_000)),
    "width": Option(1.0, None, schema.number("of the kernel", above=0, high=1e6)),
}


def score(law: Law, x: np.ndarray) -> np.ndarray:
    """The gradient of a mixture's log density at rows x (n, d)."""
    pulls, logs = [], []
    for weight, mean, covariance in zip(law.weights, law.means, law.covariances, strict=True):
        pull = -np.linalg.solve(covariance, (x - mean).T).T
        logs.append(np.log(weight) + 0.5 * np.sum(pull * (x - mean), 1) - 0.5 * np.linalg.slogdet(covariance)[1])
        pulls.append(pull)
    share = np.exp(np.stack(logs) - logsumexp(logs, axis=0))
    return np.einsum("kn,knd->nd", share, np.stack(pulls))


def discrepancy(right: Law, x: np.ndarray, width: float) -> float:
    """Its square root; NaN where a sample is not finite."""
    if not np.isfinite(x).all():
        return float("nan")
    return float(np.sqrt(calibration.stein_discrepancy(x, score(right, x), width).value))


def program(method: str, prior: di.Prior, samples: int) -> Callable:
    """`(key, measurement, value) -> samples` of a row of the lab, compiled."""

    def one(key: Array, measurement: di.Measurement, value: Array) -> Array:
        solution = lab.solver(lab.ROWS[NAMES[method]], prior, value)(key, measurement)
        return jnp.where(failed_step(solution.info) < 0, solution.x, jnp.nan)

    return jax.jit(lambda key, m, value: jax.vmap(one, (0, None, None))(jax.random.split(key, samples), m, value))


class Setting(NamedTuple):
    """A problem at one level of noise: measurements of one truth, and the posterior of each."""

    which: str
    sigma: float
    measurements: list[di.Measurement]
    right: list[Law]

    @property
    def theirs(self) -> tuple[float, ...]:
        """What is printed of it; () where nothing is."""
        return PUBLISHED.get(float(self.sigma), ()) if self.which == "many" else ()


def setting(which: str, sigma: float, draws: int, rng: np.random.Generator) -> Setting:
    """With so many draws of the noise."""
    A, truth = MATRICES[which], law().sample(rng, 1)[0]
    operator, noise = operators.dense(jnp.asarray(A), (DIM,)), di.GaussianNoise(jnp.asarray(float(sigma)))
    every = [A @ truth + sigma * rng.standard_normal(len(A)) for _ in range(draws)]
    measurements = [di.Measurement(operator, jnp.asarray(y), noise) for y in every]
    return Setting(which, sigma, measurements, [bayes(law(), A, y, sigma) for y in every])


def exact(where: Setting, i: int, samples: int, width: float) -> float:
    """What samples of the posterior itself leave."""
    return discrepancy(where.right[i], where.right[i].sample(np.random.default_rng([1, i]), samples), width)


def errors(
    where: Setting, run: Callable, values: Sequence[float], samples: int, width: float
) -> tuple[float, list[float]]:
    """(the value that comes nearest to exact samples on the first draw, the discrepancy on each of the others)."""

    def error(value: float, i: int) -> float:
        x = np.asarray(run(jax.random.key(i), where.measurements[i], jnp.asarray(value, float)))
        return discrepancy(where.right[i], x, width)

    aim = exact(where, 0, samples, width)
    value = tuning.swept(values, lambda value, i: abs(np.log(error(value, i) / aim)))
    return value, [error(value, i) for i in range(1, len(where.right))]


def rows(where: Setting, programs: dict[str, Callable], options: SimpleNamespace, bar: tqdm) -> tuple:
    """(the table's lines of a setting, what each method scored)."""
    head, found = (where.which, f"{where.sigma:g}"), {}
    floor = [exact(where, i, options.samples, options.width) for i in range(1, len(where.right))]
    lines = [(*head, "exact samples", "", published.cell(floor, 3), _told(where.theirs, 0))]
    for name, run in programs.items():
        value, found[name] = errors(where, run, lab.ROWS[NAMES[name]].values, options.samples, options.width)
        told = _told(where.theirs, 1 + list(NAMES).index(name))
        lines.append((*head, name, f"{value:g}", published.cell(found[name], 3), told))
        bar.update()
    return lines, found


def main(options: SimpleNamespace) -> published.Table:
    jax.config.update("jax_enable_x64", True)
    names, prior = published.rows("methods", options.methods, list(NAMES)), mixture_prior(process.VP(), law())
    problems = published.rows("problems", options.problems, list(MATRICES))
    programs = {name: program(name, prior, options.samples) for name in names}
    lines, notes, results = [("problem", "sigma", "method", "chosen", "KSD", "published")], [], []
    with tqdm(total=len(problems) * len(options.sigmas) * len(names), unit="row") as bar:
        for which in problems:
            for sigma in options.sigmas:
                rng = np.random.default_rng([0, list(MATRICES).index(which)])
                where = setting(which, sigma, options.draws + 1, rng)
                told, found = rows(where, programs, options, bar)
                lines, notes = lines + told, notes + _order(where, found)
                results += found.values()
    what = f"mean ± 1.96 s / sqrt({options.draws}), {options.samples} samples, kernel of width {options.width:g}"
    return published.table("\n".join([what, published.columns(lines), *([""] if notes else []), *notes]), results)


def _told(theirs: tuple[float, ...], place: int) -> str:
    return f"{Told(f'{theirs[place]:.2f}', True)}" if theirs else "none"


def _order(where: Setting, found: dict[str, list[float]]) -> list[str]:
    """A line about the order of methods here and there; none where there is nothing to compare."""
    if len(found) < 3 or not where.theirs:
        return []
    own = [float(np.nanmean(values)) for values in found.values()]
    other = [where.theirs[1 + list(NAMES).index(name)] for name in found]
    rank = spearmanr(own, other).statistic
    return [f"{where.which}, sigma {where.sigma:g}: rank correlation with the published order {rank:.2f}"]


if __name__ == "__main__":
    published.run(main, OPTIONS)
