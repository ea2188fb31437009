"""What a sweep by `vmap` saves: 64 values of a hyperparameter in one program against one program a value.

    python -m benchmarks.sweep [--points=64] [--separate=6]

DPS on MCGDiff's mixture in 8 dimensions, 100 steps, 64 samples a point, compile time included on both sides and no
cache. The separate runs, each with its value as a constant, are measured on a few points and scaled up. Goal: 1/4.
"""

from __future__ import annotations

import argparse
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import diffinv as di
from diffinv import posterior, process, times
from experiments.lab import problems


def main() -> int:
    """Prints the ratio; exit status 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--separate", type=int, default=6, help="separate runs that are measured")
    args = parser.parse_args()
    problem = problems.mixture8(np.random.default_rng(0), 1, 4, process.VP())
    measurement = jax.tree.map(lambda leaf: leaf[0], problem.measurements)
    keys, grid = jax.random.split(jax.random.key(0), 64), times.grid(100, power=2.0)
    zetas = np.geomspace(1e-3, 10, args.points)

    def build(prior):
        return lambda zeta: di.as_solver(lambda m: posterior.dps(prior, m, zeta), grid)

    def many(keys, prior, measurement, zetas):
        return jax.vmap(lambda k: di.sweep(build(prior), zeta=zetas)(k, measurement).x)(keys)

    start = time.perf_counter()
    together = jax.jit(many)(keys, problem.prior, measurement, jnp.asarray(zetas))
    jax.block_until_ready(together)
    swept = time.perf_counter() - start
    start = time.perf_counter()
    for i in range(args.separate):
        zeta = float(zetas[i])
        single = jax.jit(lambda keys, prior, m, zeta=zeta: jax.vmap(lambda k: build(prior)(zeta)(k, m).x)(keys))
        alone = single(keys, problem.prior, measurement)
        np.testing.assert_allclose(together[:, i], alone, rtol=1e-2, atol=1e-2)
    separate = (time.perf_counter() - start) / args.separate * args.points
    ratio = swept / separate
    print(
        f"sweep of {args.points}: {swept:.1f} s; separate: {separate:.1f} s (from {args.separate}); ratio {ratio:.3f}"
    )
    print(f"goal 0.25  {'met' if ratio <= 0.25 else 'MISSED'}")
    return int(ratio > 0.25)


if __name__ == "__main__":
    sys.exit(main())
