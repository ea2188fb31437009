r"""A diffusion cascade against the noise between its stages: how good it is, and how much of a coarse picture it keeps.

    python -m experiments.tables.cascade_levels [--config=digits] [--models=DIR] [--noise=0,0.1,...] [--seeds=3]

The models are those of the row "diffusion cascade" of `experiments.tables.cascade`, trained as there where they are not
in --models yet; one network serves all levels s of the noise that is added to the pictures between the stages.

- energy, recognised: as in that table;
- Frechet: the squared Frechet distance of the finest pictures to the training pictures, by pixels;
- kept: the correlation of a finest picture's block averages with the picture that it was made of.

Beside the last two stands what they would be if the training pictures were Gaussian, N(m, C), the pictures before the
last stage N(m', S'), and that stage exact:

    x ~ N(m + K (m' - D m), C - K D C + K (S' + s^2 I) K^T),   K = C D^T (D C D^T + s^2 I)^{-1},

D being the block average, m, C, m' and S' as measured. There the distance can only fall: noise hides the faults of the
stages before, and at last these stages. A trained stage has faults of its own. Source of the formula: linear-Gaussian
conditioning, Bishop 2006, eq. 2.113 to 2.117; the comparison is original.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

from experiments.common import runtime  # noqa: F401  isort: skip  (before jax)

import numpy as np
from tqdm import tqdm

from diffinv import schema
from diffinv.metrics import distribution
from experiments.tables import cascade, published
from experiments.tables import cascade_stages as stages
from experiments.tables.published import Option

ROW = "diffusion cascade"
ROUNDING = (2 / 255) ** 2 / 12
"""The variance of rounding to 8 bits."""
HEAD = ("level", "energy", "recognised", "Frechet", "Gaussian", "kept", "Gaussian")
TAKEN = ("config", "data", "models", "steps", "seeds", "count", "features", "judge_features")
OPTIONS = {name: cascade.OPTIONS[name] for name in TAKEN}
OPTIONS["noise"] = Option(
    [0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0], [0.0, 0.5], published.numbers(schema.number("noise between stages", 0, 1))
)


class Law(NamedTuple):
    """The mean (d,) and the covariance (d, d) of pictures as rows."""

    mean: np.ndarray
    covariance: np.ndarray


def law(pictures: np.ndarray) -> Law:
    """Of pictures (N, H, W, C), with the variance of their rounding."""
    rows = np.asarray(pictures, np.float64).reshape(len(pictures), -1)
    return Law(rows.mean(0), np.cov(rows.T) + ROUNDING * np.eye(rows.shape[1]))


def averaged(pictures: np.ndarray, side: int) -> np.ndarray:
    """Block averages of pictures (N, H, W, C), (N, side, side, C)."""
    count, height, _, channels = pictures.shape
    step = height // side
    return pictures.reshape(count, side, step, side, step, channels).mean((2, 4))


def averaging(shape: tuple[int, ...], side: int) -> np.ndarray:
    """The matrix D of block averages, from pictures of `shape` to those of a side, both as rows."""
    size = int(np.prod(shape))
    return averaged(np.eye(size).reshape(size, *shape), side).reshape(size, -1).T


def correlation(covariance: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Of two sets of rows by their covariance with each other and their own: `tr / sqrt(tr tr)`."""
    return float(np.trace(covariance) / np.sqrt(np.trace(a) * np.trace(b)))


def kept(fine: np.ndarray, coarse: np.ndarray) -> float:
    """The correlation of the block averages of fine pictures with coarse ones."""
    means = averaged(fine, coarse.shape[1])
    a, b = (each.reshape(len(each), -1) - each.reshape(len(each), -1).mean(0) for each in (means, coarse))
    return correlation(a.T @ b, a.T @ a, b.T @ b)


def exact(data: Law, base: Law, average: np.ndarray, s: float) -> tuple[Law, float]:
    """The law that an exact last stage makes of a base, and how much of the base it keeps; see the module's head."""
    m, c = data
    seen = average @ c @ average.T + s**2 * np.eye(len(average))
    gain = np.linalg.solve(seen, average @ c).T
    noisy = base.covariance + s**2 * np.eye(len(average))
    made = Law(m + gain @ (base.mean - average @ m), c - gain @ average @ c + gain @ noisy @ gain.T)
    across = average @ gain @ base.covariance
    return made, correlation(across, average @ made.covariance @ average.T, base.covariance)


def scores(model: cascade.Model, known: cascade.Real, count: int, seed: int, s: float) -> list[float]:
    """The cells of one model at one level, in the order of `HEAD`."""
    labels = np.arange(count) % model.classes
    *_, coarse, fine = (np.asarray(each) for each in cascade.drawn(model, labels, seed)[0])
    data, average = law(known.trained), averaging(fine.shape[1:], coarse.shape[1])
    ideal, share = exact(data, law(coarse), average, s)
    return [
        cascade.apart(fine, known.held_out),
        cascade.agreeing(fine, labels, known.trained, known.trained_labels),
        distribution.frechet_distance(*law(fine), *data),
        distribution.frechet_distance(*ideal, *data),
        kept(fine, coarse),
        share,
    ]


def main(options: SimpleNamespace) -> published.Table:
    if options.config == "emoji":
        raise ValueError("--config is 'emoji', whose texts are captions; the cascade takes classes: give another")
    tree = cascade.configured(options, cascade.FIRST)
    known = cascade.real(tree, options.count)
    classes = int(known.trained_labels.max()) + 1
    chosen = stages.as_many(ROW, tree, cascade.weighs(tree), classes)
    found: dict[float, list[list[float]]] = {s: [] for s in options.noise}
    with tqdm(total=len(found) * options.seeds, unit="level") as bar:
        for seed in range(options.seeds):
            priors = stages.trained(options.models, ROW, seed, chosen)
            for s, each in found.items():
                each.append(scores(cascade.of_stages(ROW, priors, s, classes), known, options.count, seed, s))
                bar.update()
    digits = (4, 3, 2, 2, 3, 3)
    cells = lambda each: (cascade.cell(list(one), places) for one, places in zip(zip(*each), digits, strict=True))
    lines = [HEAD, *((f"{s:g}", *cells(each)) for s, each in found.items())]
    what = (
        f"{options.config}, {tree.steps} steps of {tree.batch} a stage, {options.seeds} seeds, {options.count} pictures"
    )
    return published.table(
        f"{what}\n\n{published.columns(lines)}", [[score[0] for score in each] for each in found.values()]
    )


if __name__ == "__main__":
    published.run(main, OPTIONS)
