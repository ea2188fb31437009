"""TMPD's Gaussian mixture: sliced W1 of samplers to the exact posterior, with intervals over random instances.

    python -m experiments.tables.tmpd_gmm [--quick] [--dims=8,80,800] [--measured=1,2,4] [--sigma=1.0] [--seeds=20]

25 equally likely components at (-8 i, -8 j) tiled, unit covariances, random operators and one fixed noise level, as
Boys et al. 2024 (arXiv:2310.06721) draw them: VP with beta from 0.1 to 25, 1000 ancestral steps, 1,000 samples.
Differs: instances are other draws of the same law (theirs are torch's), 1,000 directions where they take 10,000, and
their STSL is not here. Their code clips x0 to [-1, 1] in DPS and PiGDM, on a mixture that reaches to 16, and takes
`A A^T` for I in PiGDM: "DPS clipped" does the first, no other row does either.
"""

from __future__ import annotations

from types import SimpleNamespace

from experiments.common import runtime  # noqa: F401  isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import diffinv as di
from diffinv import operators, posterior, process, samplers, schema, times
from experiments.lab.problems import Law
from experiments.lab.problems import posterior as bayes
from experiments.tables import published
from experiments.tables.published import Option, counted, named, numbers

ROWS = {
    "TMPD": lambda prior, m: samplers.ancestral(posterior.tmpd(prior, m)),
    "TMPD diag": lambda prior, m: samplers.ancestral(posterior.tmpd(prior, m, posterior.moments.entries)),
    "TMPD vjp": lambda prior, m: samplers.ancestral(posterior.tmpd(prior, m, posterior.moments.diagonal)),
    "PiGDM": lambda prior, m: samplers.ancestral(posterior.pigdm(prior, m)),
    "DPS": lambda prior, m: posterior.dps(prior, m, 0.05),
    "DPS clipped": lambda prior, m: posterior.dps(prior, m, 0.05, clip=True),
    "MMPS": lambda prior, m: samplers.ancestral(posterior.mmps(prior, m, m.y.size)),
    "MCGDiff": lambda prior, m: posterior.mcgdiff(prior, m, 32, 1e-2),
}
THEIRS = {"TMPD": "KPDDPM", "TMPD diag": "KPDDPMdiag", "PiGDM": "PiGDMVP", "DPS clipped": "DPSDDPM"}
OPTIONS = {
    "dims": Option([8], None, numbers(counted("dimensions: 8, 80, 800", 2000))),
    "measured": Option([1, 2, 4], [1], numbers(counted("dimensions of y", 2000, low=1))),
    "sigma": Option(1.0, None, schema.number("the noise's deviation: 1.0, 0.1 and 0.01 there", above=0)),
    "seeds": Option(20, 2, counted("instances", 10_000)),
    "samples": Option(1000, 100, counted("of each method and of the posterior", 100_000)),
    "steps": Option(1000, 100, counted("of the sampler", 100_000)),
    "directions": Option(1000, 100, counted("of the sliced distance", 100_000, low=1)),
    "methods": Option(["TMPD", "TMPD diag", "PiGDM", "DPS", "DPS clipped"], None, named(ROWS)),
}


def instance(rng: np.random.Generator, dim: int, dim_y: int, sigma: float) -> tuple[Law, np.ndarray, np.ndarray]:
    """(the prior's law, matrix, y)."""
    means = np.array([[-8.0 * i, -8.0 * j] * (dim // 2) for i in range(-2, 3) for j in range(-2, 3)])
    law = Law(np.full(25, 1 / 25), means, np.broadcast_to(np.eye(dim), (25, dim, dim)))
    u, _, vt = np.linalg.svd(rng.standard_normal((dim_y, dim)), full_matrices=False)
    A = (u * np.sort(rng.uniform(0, 1, dim_y))[::-1]) @ vt
    truth = means[rng.integers(25)] + rng.standard_normal(dim)
    return law, A, A @ truth + sigma * rng.standard_normal(dim_y)


def errors(options: SimpleNamespace, dim: int, dim_y: int, bar: tqdm) -> dict[str, list[float]]:
    """Sliced W1 of every method, and of other exact samples, over the instances."""
    forward, grid = process.ddpm(options.steps, 1e-4, 0.025), times.grid(options.steps)
    found = {name: [] for name in ["exact", *options.methods]}

    def program(name: str):
        row = ROWS[name]
        return jax.jit(lambda keys, prior, m: jax.vmap(lambda k: di.sample(k, row(prior, m), grid).x)(keys))

    programs = {name: program(name) for name in options.methods}
    for seed in range(options.seeds):
        rng = np.random.default_rng([seed, dim, dim_y])
        law, A, y = instance(rng, dim, dim_y, options.sigma)
        prior = di.mixture(forward, jnp.asarray(law.means), jnp.asarray(law.weights), jnp.ones(25))
        noise = di.GaussianNoise(jnp.asarray(options.sigma))
        measurement = di.Measurement(operators.dense(jnp.asarray(A)), jnp.asarray(y), noise)
        right = bayes(law, A, y, options.sigma)
        reference, other = (right.sample(rng, options.samples) for _ in range(2))
        found["exact"].append(published.sliced(other, reference, options.directions, seed))
        for name, each in programs.items():
            x = np.asarray(each(jax.random.split(jax.random.key(seed), options.samples), prior, measurement))
            found[name].append(published.sliced(x, reference, options.directions, seed))
            bar.update()
    return found


def main(options: SimpleNamespace) -> published.Table:
    options.methods = published.rows("methods", options.methods, list(ROWS))
    cells = published.cells(options.dims, options.measured)
    lines, results = [("(dim, dim_y)", "exact (floor)", *options.methods)], []
    with tqdm(total=len(cells) * options.seeds * len(options.methods), unit="run") as bar:
        for cell in cells:
            found = errors(options, *cell, bar)
            lines.append((str(cell), *(published.cell(each) for each in found.values())))
            results += [found[name] for name in options.methods]
    lines.append(("published", "", *(published.told(None) if name in THEIRS else "none" for name in options.methods)))
    what = f"sliced W1, sigma {options.sigma}, mean ± 1.96 s / sqrt({options.seeds}), {options.samples} samples"
    names = ", ".join(f"{ours} is {theirs}" for ours, theirs in THEIRS.items())
    text = "Published values: the paper's tables were not at hand, and its repository has none. In its code "
    whole = f"{what}, {options.steps} steps\n{published.columns(lines)}\n\n{text}{names}."
    return published.table(whole, results)


if __name__ == "__main__":
    published.run(main, OPTIONS)
