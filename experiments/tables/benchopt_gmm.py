"""The frozen (1, 8) mixture: our max-sliced W2 beside the range that a public benchmark published.

    python -m experiments.tables.benchopt_gmm

The published ranges are those of benchopts_inverse_problem_diffusion_prior (2024-03-15), from its own results file.
Its DPS has wrong coefficients, which "buggy dps" reproduces; its other two instances depend on the version of torch
and cannot be had again. The systematic row has no published counterpart.
"""

from __future__ import annotations

import time

from experiments import runtime  # isort: skip  (before jax)

import jax
import numpy as np

import diffinv as di
from diffinv import posterior, sharding
from diffinv.metrics.posterior import max_sliced_wasserstein
from experiments.tables import mixture18
from experiments.tables.mixture18 import METHODS, REFERENCE, SAMPLES

OURS = {
    "dps, right coefficients, zeta 0.1": (lambda prior, m: posterior.dps(prior, m, 0.1, eta=0.6), None, None, 4),
    "mcgdiff 128 systematic": (lambda prior, m: posterior.mcgdiff(prior, m, 128, 1e-6, 0.6), None, None, 4),
    "mmps": (lambda prior, m: di.samplers.ddim(posterior.mmps(prior, m), 1.0), None, None, 4),
}


def scores(method, seeds: int, reference: np.ndarray) -> tuple[list[float], float]:
    """(max-sliced W2 of every seed, seconds of the last run); samples are spread over the devices where they divide."""
    prior, measurement, grid = mixture18.instance()
    mesh = sharding.mesh()
    place = sharding.replicated(mesh) if SAMPLES % jax.device_count() else sharding.split(mesh)
    solver = lambda key, prior, m: di.as_solver(lambda m: method(prior, m), grid)(key, m).x
    run, found = jax.jit(jax.vmap(solver, (0, None, None))), []
    for seed in range(seeds):
        keys = jax.device_put(jax.random.split(jax.random.key(seed), SAMPLES), place)
        start = time.perf_counter()
        x = np.asarray(run(keys, prior, measurement), float)
        seconds = time.perf_counter() - start
        found.append(max_sliced_wasserstein(x, reference, seed=seed))
    return found, seconds


def main() -> None:
    reference, rng = mixture18.exact(np.random.default_rng(0), REFERENCE), np.random.default_rng(1)
    floor = max_sliced_wasserstein(mixture18.exact(rng, SAMPLES), reference)
    prior = max_sliced_wasserstein(mixture18.unconditional(rng, SAMPLES), reference)
    print(f"exact samples {floor:.2f} (published 1.20), prior samples {prior:.1f} (published 28.9)")
    print(f"{'method':36s}{'ours, mean [min..max]':28s}{'published [min..max]':24s}seconds")
    for name, (method, low, high, seeds) in {**METHODS, **OURS}.items():
        found, seconds = scores(method, seeds, reference)
        ours = f"{np.mean(found):.2f} [{min(found):.2f}..{max(found):.2f}]"
        told = f"[{low}..{high}]" if low and "systematic" not in name else "none"
        print(f"{name:36s}{ours:28s}{told:24s}{seconds:.1f}", flush=True)


if __name__ == "__main__":
    runtime.run(main)
