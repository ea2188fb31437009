"""One result of 256 x 256: CTMSR's one step against VDSR and against the 15-step network of the same size, in one run.

    python -m benchmarks.super_resolution [--model PATH] [--weights DIR] [--rounds 5]

The candidates take turns; each ratio is the median over rounds of the ratio within a round. The 15-step network is
CTMSR's own with ResShift's sampler: the same size, only its time counts here. Without --model the shipped network is
taken, or, where there is none, one of its size with drawn weights; VDSR's weights are drawn where --weights is not
given. Memory is what XLA plans: arguments, result and temporaries. "Network alone" is the bare evaluation; goal: at
least 95 % of the time of one step, which also interpolates and draws the noise, as `experiments.super_resolve` does:
on the processor alone, where 8 ns a number are a tenth of this small network's time. "Noise given" leaves that out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

from experiments.common import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np

import diffinv as di
from diffinv import operators
from diffinv.consistency import ctmsr
from diffinv.nn import srnet
from experiments.upscale import baselines, upscaling

LOW, SCALE, GOAL = 64, 4, 0.95


def upscaler(model: str) -> tuple[ctmsr.Upscaler, str]:
    """The network, and what it is."""
    shipped = di.weights.embedded(upscaling.EMBEDDED)
    if model or os.path.exists(f"{shipped}.json"):
        return upscaling.load(model or "embedded", SCALE), model or "the shipped one"
    net = srnet.SRNet()
    low = jnp.zeros((8, 8, 3))
    params = net.init(jax.random.key(0), jnp.zeros((32, 32, 3)), jnp.zeros(()), low)
    return ctmsr.Upscaler(params, net.apply, cubic=srnet.MATLAB), "drawn weights"


def vdsr_params(weights: str) -> baselines.Params:
    if weights:
        return baselines.load_vdsr(os.path.join(weights, "vdsr_y.npz"))
    draw = np.random.default_rng(0).standard_normal
    shapes = {"input": (3, 3, 1, 64), "output": (3, 3, 64, 1)}
    shapes |= {f"layer{i}": (3, 3, 64, 64) for i in range(baselines.LAYERS)}
    return {name: 0.03 * draw(shape).astype(np.float32) for name, shape in shapes.items()}


def vdsr(params: baselines.Params, low: jax.Array, noise: jax.Array) -> jax.Array:
    """The luma alone, interpolation included."""
    y = operators.imresize(low.mean(-1, keepdims=True), (SCALE * LOW, SCALE * LOW))
    return baselines.vdsr(params, y)


def drawn() -> np.ndarray:
    """The noise of one result."""
    return upscaling.noise_rows(0, 0, SCALE * LOW, SCALE * LOW)


def restored(network: ctmsr.Upscaler, low: jax.Array, noise: jax.Array) -> jax.Array:
    return upscaling.from_noise(network, low, noise, jax.random.key(0))


def alone(network: ctmsr.Upscaler, low: jax.Array, noise: jax.Array) -> jax.Array:
    """One evaluation, on the noise."""
    return network.apply(network.params, noise, jnp.float32(0), low, **network.extra)


def planned(program: jax.stages.Compiled) -> float:
    """MiB."""
    memory = program.memory_analysis()
    parts = (memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes)
    return sum(parts) / 2**20


def clock(program: jax.stages.Compiled, tree: object, low: jax.Array, noise: jax.Array | None) -> float:
    """Seconds, those of drawing the noise included where none is given."""
    start = time.perf_counter()
    jax.block_until_ready(program(tree, low, drawn() if noise is None else noise))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="")
    parser.add_argument("--weights", default="", help="folder with vdsr_y.npz")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    runtime.start()
    network, what = upscaler(options.model)
    several = network.replace(method="resshift", sigma_max=2.0)
    params = jax.tree.map(jnp.asarray, vdsr_params(options.weights))
    low, noise = jax.random.uniform(jax.random.key(1), (LOW, LOW, 3), minval=-1.0, maxval=1.0), jnp.asarray(drawn())
    functions = {
        "one step": (restored, network, None),
        "noise given": (restored, network, noise),
        "network alone": (alone, network, noise),
        "15 steps": (restored, several, None),
        "VDSR": (vdsr, params, noise),
    }
    programs = {name: jax.jit(f).lower(tree, low, noise).compile() for name, (f, tree, _) in functions.items()}
    turn = lambda: {name: clock(programs[name], functions[name][1], low, functions[name][2]) for name in functions}
    turn()
    rounds = [turn() for _ in range(options.rounds)]
    size = sum(leaf.size for leaf in jax.tree.leaves(network.params))
    ratio = lambda name: statistics.median(r[name] / r["one step"] for r in rounds)
    print(f"{LOW} x {LOW} to {SCALE * LOW} x {SCALE * LOW}, float32, one core; {size:,} parameters, {what}")
    for name, program in programs.items():
        seconds = statistics.median(r[name] for r in rounds)
        print(f"{name:14} {seconds:8.4f} s  {planned(program):7.1f} MiB  {ratio(name):7.3f} x one step")
    print(f"one step takes 1/{ratio('15 steps'):.1f} of the 15 steps' time and 1/{ratio('VDSR'):.1f} of VDSR's")
    given = statistics.median(r["network alone"] / r["noise given"] for r in rounds)
    print(f"network alone: {100 * ratio('network alone'):.0f} %; goal at least {100 * GOAL:.0f} %")
    print(f"of the time without the noise's drawing: {100 * given:.0f} %")
    print("met" if ratio("network alone") >= GOAL else "NOT met")


if __name__ == "__main__":
    main()
