"""Weak scaling of training and sampling over the devices at hand: work a device fixed, devices 1, 2, 4, ...

    python -m benchmarks.scaling [--quick] [--batch=16] [--rounds=5]

One process a device count (devices are fixed when jax starts). Efficiency is the time on one device over the time on n,
each with n times the work; 1 is perfect. On a CPU the devices are virtual ones, one a core at most: beyond the cores
the number says nothing, and is not taken.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def work(count: int, batch: int, rounds: int) -> dict[str, float]:
    """Median seconds of a training step and of a 10-step DDIM batch, on `count` devices."""
    from experiments.common import runtime  # isort: skip  (before jax)

    import jax
    import numpy as np
    import optax

    import diffinv as di
    from diffinv import process, samplers, sharding, times, train, weights

    runtime.start()
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:count]).reshape(count, 1), ("data", "fsdp"))
    prior = weights.load_prior(weights.embedded(), process.EDM(), plain_conv=True)
    rows, whole = sharding.rows(mesh), sharding.replicated(mesh)
    loss = train.denoising_loss(lambda p: prior.denoise.replace(params=p), prior.process)
    made = train.trainer(loss, optax.adam(1e-5))
    state = jax.jit(made.init, out_shardings=whole)(prior.denoise.params)
    pixels = jax.device_put(np.zeros((count * batch, *prior.shape), np.float32), rows)
    keys = jax.device_put(jax.random.split(jax.random.key(0), count * batch), rows)
    prior = jax.device_put(prior, whole)
    draw = jax.jit(jax.vmap(lambda k, p: di.sample(k, samplers.ddim(p), times.grid(10)).x, (0, None)))
    programs = {
        "training step": (jax.jit(made.step), (jax.random.key(0), state, pixels)),
        "sampling, 10 steps": (draw, (keys, prior)),
    }
    found = {}
    for name, (program, args) in programs.items():
        jax.block_until_ready(program(*args))
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            jax.block_until_ready(program(*args))
            seconds.append(time.perf_counter() - start)
        found[name] = statistics.median(seconds)
    return found


def counts() -> list[int]:
    """Powers of two up to the number of devices (a fresh process counts them)."""
    code = "from experiments import runtime; import jax; runtime.start(); print(jax.device_count())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    total = int(done.stdout.split()[-1])
    return [n for n in (1, 2, 4, 8, 16, 32) if n <= total]


def main() -> None:
    """Prints one line a device count and program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="examples a device")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="batch 2, two rounds")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    batch, rounds = (2, 2) if args.quick else (args.batch, args.rounds)
    if args.count:
        print(json.dumps(work(args.count, batch, rounds)))
        return
    first: dict[str, float] = {}
    for count in counts():
        command = [
            sys.executable,
            "-m",
            "benchmarks.scaling",
            f"--count={count}",
            f"--batch={batch}",
            f"--rounds={rounds}",
        ]
        environment = {**os.environ, "DIFFINV_DEVICES": str(count)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        for name, seconds in json.loads(done.stdout.splitlines()[-1]).items():
            first.setdefault(name, seconds)
            print(
                f"{count:3d} devices  {name:20s} {seconds:8.3f} s  efficiency {first[name] / seconds:.2f}", flush=True
            )


if __name__ == "__main__":
    main()
