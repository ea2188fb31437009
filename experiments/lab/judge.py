"""What the exact lab says of samples: errors against the exact posterior, calibration, and the floor."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.metrics import calibration
from diffinv.metrics import posterior as metrics
from experiments.lab.problems import Problem

LEVELS = (0.5, 0.9)
CREDIBILITIES = tuple(np.linspace(0, 1, 21).tolist())
FLOOR = "exact samples"  # the name of the row of other draws of the posterior
FAR = 1e6  # a sample beyond has diverged: no problem of the lab reaches to 100


def take(tree, rows):
    """Some rows of every leaf."""
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def within(x: np.ndarray) -> bool:
    """All samples are finite, and none has run away."""
    return bool((np.abs(x) < FAR).all())


def judged(x: np.ndarray, row: int, problem: Problem, projections: int) -> dict:
    """All errors of one row's samples (draws, d); NaN where one of them is not finite or has run away."""
    names = ["mean", "covariance", "w1", "max_w2", *(f"cover{round(100 * level)}" for level in LEVELS)]
    if not within(x):
        return dict.fromkeys(names, float("nan"))
    exact, truth = problem.exact[row], problem.truth[row]
    values = [
        metrics.mean_error(x, problem.mean[row], problem.covariance[row]),
        metrics.covariance_error(x, problem.covariance[row]),
        metrics.sliced_wasserstein(x, exact, projections=projections),
        metrics.max_sliced_wasserstein(x, exact, projections=projections),
        *(metrics.coverage(x, truth, level) for level in LEVELS),
    ]
    return dict(zip(names, values, strict=True))


def covered(samples: np.ndarray, rows: np.ndarray, problem: Problem) -> dict:
    """The curves of TARP and HPD at `CREDIBILITIES`, over the rows without a sample that has run away.

    TARP's reference is an exact sample, so that it lies where y says, and distances are in posterior deviations. HPD's
    density is the Gaussian of the posterior's moments: the posterior's own where that is Gaussian, and of other
    regions of the same credibility where it is not.
    """
    kept = np.array([within(x) for x in samples], bool)
    if not kept.any():
        return {"problems": 0, "tarp": [], "hpd": []}
    x, rows = samples[kept], rows[kept]
    truth, mean = problem.truth[rows], problem.mean[rows]
    whole = [np.diag(part) if part.ndim == 1 else part for part in problem.covariance[rows]]
    deviation = np.sqrt(np.stack([np.diag(part) for part in whole]))
    near = problem.exact[rows, 0]
    ranks = {"tarp": calibration.tarp_ranks(x / deviation[:, None], truth / deviation, near / deviation)}
    far = lambda z, C: -np.sum(z * np.linalg.solve(C, z.T).T, -1)
    inside = np.stack([far(cloud - m, C) for cloud, m, C in zip(x, mean, whole, strict=True)])
    own = np.stack([far((t - m)[None], C)[0] for t, m, C in zip(truth, mean, whole, strict=True)])
    ranks["hpd"] = calibration.hpd_ranks(inside, own)
    curve = lambda found: calibration.coverage_curve(found, x.shape[1], CREDIBILITIES).round(4).tolist()
    return {"problems": len(rows), **{name: curve(found) for name, found in ranks.items()}}


def summary(samples: np.ndarray, rows: np.ndarray, problem: Problem, config) -> dict:
    """Means with 95 % intervals over the rows that have errors, the rank histogram and the curves of coverage."""
    each = [judged(x, row, problem, config.projections) for x, row in zip(samples, rows, strict=True)]
    ranks = [metrics.ranks(x, problem.truth[row]) for x, row in zip(samples, rows, strict=True)]
    histogram, chi = metrics.rank_histogram(np.stack(ranks), samples.shape[1])
    found = {name: metrics.interval([row[name] for row in each]) for name in each[0]}
    return {**found, "ranks": histogram.tolist(), "rank_chi2": chi, "covered": covered(samples, rows, problem)}


def floor(problem: Problem, rows: np.ndarray, config) -> dict:
    """What exact samples score."""
    return {
        "method": FLOOR, "claim": "floor", "knob": "", "value": None, "diverged": 0.0, "nfe": 0, "vjps": 0,
        "calls": 0, "compile_s": 0.0, "run_s": 0.0, "tuning": [],
        "residual": residuals(problem, problem.other[rows], rows),
        **summary(problem.other[rows], rows, problem, config),
    }  # fmt: skip


def residuals(problem: Problem, samples: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """`|y - A x|` over the deviation of the noise in as many dimensions, averaged over samples; 1 fits the noise."""

    def one(measurement, x):
        ratio = lambda each: jnp.linalg.norm(measurement.residual(each.reshape(problem.prior.shape)).ravel())
        seen = jnp.sum(jnp.abs(measurement.operator.project(jnp.ones_like(measurement.y))) > 0)
        return jnp.mean(jax.vmap(ratio)(x)) / (measurement.sigma * jnp.sqrt(seen))

    found = jax.jit(jax.vmap(one))(take(problem.measurements, rows), jnp.asarray(samples))
    return metrics.interval(np.asarray(found))
