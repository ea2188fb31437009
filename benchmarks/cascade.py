"""A cascade of three stages in one call against its networks alone, in one run.

    python -m benchmarks.cascade [--pictures 64] [--rounds 7]

Each stage, 16 -> 32 -> 64 pixels, is a consistency model of one evaluation; the second and third are given the coarser
picture with noise of level 0.1 beside their own. The networks have the shapes of priors that ship, `prior32` at 16 and
32 and `satellite64` at 64, and drawn weights. "Cascade" is one compiled program, from keys to pictures, with the noise
drawn inside; "networks" are the three evaluations, each a program of its own on arrays that lie ready. They take turns;
the ratio is the median over rounds of that within a round. Goal: at most 1.05. The compiled program is searched for
calls to the host: there must be none.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from experiments.common import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp

import diffinv as di
from diffinv import process, weights
from diffinv.cascade import CascadeStage, as_it_is, cascade, jumping, with_noise

SIDES, LEVEL, GOAL = (16, 32, 64), 0.1, 1.05
SHIPPED = {16: "prior32", 32: "prior32", 64: "satellite64"}


def network(side: int) -> tuple[Any, Callable[..., jax.Array]]:
    """Drawn weights, and `apply` of a picture of this side; the coarse picture lies beside it where there is one."""
    card = weights.read_card(weights.embedded(SHIPPED[side]))["architecture"]
    net = weights.cards.build_network({**card, "classes": None})
    below = 3 * (side > SIDES[0])

    def apply(params: Any, x: jax.Array, condition: jax.Array, low: Any = None, level: Any = None) -> jax.Array:
        return net.apply(params, x if low is None else jnp.concatenate([x, low], -1), condition)

    params = jax.jit(net.init)(jax.random.key(side), jnp.zeros((side, side, 3 + below)), jnp.zeros(()))
    return params, apply


def stages(params: dict[int, Any], applies: dict[int, Callable[..., jax.Array]]) -> list[CascadeStage]:
    """One evaluation each."""
    forward, found = process.EDM(), []
    for side in SIDES:
        shape, corrupt = (side, side, 3), with_noise if side > SIDES[0] else as_it_is
        denoise = di.NetworkDenoiser(params[side], forward, applies[side], parametrisation="edm", sigma_data=0.5)
        found.append(CascadeStage(jumping(di.Prior(forward, denoise, shape)), shape, corrupt, LEVEL))
    return found


def clock(program: Callable[..., Any], *given: Any) -> float:
    """Seconds."""
    start = time.perf_counter()
    jax.block_until_ready(program(*given))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    runtime.start()
    params, applies = {}, {}
    for side in SIDES:
        params[side], applies[side] = network(side)
    keys = jax.random.split(di.seed_key(0), options.pictures)
    whole = jax.vmap(lambda params, key: cascade(stages(params, applies))(key, None).x, (None, 0))
    program = jax.jit(whole).lower(params, keys).compile()
    calls = [line for line in program.as_text().splitlines() if "callback" in line or "outfeed" in line]
    alone, given = {}, {}
    for side in SIDES:
        x = jax.random.normal(jax.random.key(side), (options.pictures, side, side, 3))
        given[side] = (params[side], x, x if side > SIDES[0] else None)
        each = lambda params, x, low, side=side: applies[side](params, x, jnp.float32(0.5), low)
        alone[side] = jax.jit(jax.vmap(each, (None, 0, 0 if side > SIDES[0] else None))).lower(*given[side]).compile()
    turn = lambda: (clock(program, params, keys), *(clock(alone[side], *given[side]) for side in SIDES))
    turn()
    rounds = [turn() for _ in range(options.rounds)]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"{options.pictures} pictures, {' -> '.join(map(str, SIDES))} pixels, float32, {count:,} weights")
    print(f"cascade   {statistics.median(whole for whole, *_ in rounds):.3f} s in one call")
    for i, side in enumerate(SIDES, 1):
        print(f"network {side:3} {statistics.median(each[i] for each in rounds):.3f} s")
    ratio = statistics.median(whole / sum(parts) for whole, *parts in rounds)
    print(f"cascade over its networks: {ratio:.3f}; goal at most {GOAL}; calls to the host: {len(calls)}")
    print("met" if ratio <= GOAL and not calls else "NOT met")


if __name__ == "__main__":
    main()
