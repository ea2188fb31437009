"""Osmosis to its steady state: implicit steps with multigrid-preconditioned BiCGStab against the explicit scheme.

    python -m benchmarks.osmosis [--size 512] [--rounds 3]

A flat 128 evolves under a photograph as its guide (offset 1 of 255), in float64. Implicit: one step of
tau = 100 (H^2 + W^2), to a relative distance below 1e-3 from the closed form; goal under 10 s, compilation apart.
Explicit: tau = 0.12, below its limit of 1/8. Its count of steps is not run but bounded from below: the distance of the
mode that the run itself finds slowest falls by `1 - 0.12 lambda` a step, and the time of one step is measured over 200.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.scalespace import osmosis
from experiments.common import pictures

TAU, GOAL = 0.12, 1e-3


def guide_of(size: int) -> jax.Array:
    """The astronaut that installs with scikit-image, (size, size, 3), from 1 to 256."""
    import skimage.data

    path = os.path.join(os.path.dirname(skimage.data.__file__), "astronaut.png")
    return jnp.asarray(pictures.square(pictures.read(path)[0], size).astype(np.float64) + 1)


def clock(program, *arguments) -> tuple[float, jax.Array]:
    start = time.perf_counter()
    out = jax.block_until_ready(program(*arguments))
    return time.perf_counter() - start, out


@jax.jit
def implicit(guide, u):
    return osmosis.steady(osmosis.osmosis(guide), u, 1, tolerance=1e-5, iterations=300)


@jax.jit
def explicit(guide, u):
    rates = osmosis.osmosis(guide)
    return jax.lax.fori_loop(0, 200, lambda _, x: osmosis.explicit(rates, x, TAU), u)


@jax.jit
def slowest(guide, u):
    """The rate of the slowest mode: the Rayleigh quotient of what one large implicit step leaves of the distance."""
    rates, tau = osmosis.osmosis(guide), 100.0 * sum(n**2 for n in u.shape[:2])
    away = lambda x: x - osmosis.rescaled(guide, x)
    e = away(osmosis.implicit(rates, osmosis.implicit(rates, u, tau, 1e-10, 300), 1.0, 1e-10))
    return -jnp.sum(e * rates(e) / guide) / jnp.sum(e * e / guide)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    guide = guide_of(options.size)
    u = jnp.full_like(guide, 128.0)
    goal = osmosis.rescaled(guide, u)
    compiling, found = clock(implicit, guide, u)
    clock(explicit, guide, u)
    pairs = [(clock(implicit, guide, u)[0], clock(explicit, guide, u)[0] / 200) for _ in range(options.rounds)]
    error = float(jnp.linalg.norm(found - goal) / jnp.linalg.norm(goal))
    first = float(jnp.linalg.norm(u - goal) / jnp.linalg.norm(goal))
    rate = float(slowest(guide, u))
    steps = math.ceil(math.log(first / GOAL) / -math.log1p(-TAU * rate))
    seconds, step = (statistics.median(column) for column in zip(*pairs))
    ratio = statistics.median(steps * b / a for a, b in pairs)
    print(f"{options.size} x {options.size} x 3, float64, {len(os.sched_getaffinity(0))} cores")
    print(
        f"implicit: {seconds:.2f} s to {error:.1e} of the steady state (goal {GOAL:g}, 10 s), "
        f"first call {compiling:.1f} s"
    )
    print(
        f"explicit: {1e3 * step:.2f} ms a step, about {steps} steps of {TAU} (slowest rate {rate:.2g}): "
        f"{steps * step:.0f} s"
    )
    print(f"ratio explicit / implicit: {ratio:.0f}")
    print("met" if error < GOAL and seconds < 10 else "NOT met")


if __name__ == "__main__":
    main()
