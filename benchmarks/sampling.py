"""What sampling costs: ratios from one run, in which all candidates are measured alternately.

    python -m benchmarks.sampling [--quick] [--only overhead,conv,torch,memory,compile] [--prior photo]

The embedded prior's network under `process.VP()`, batch 8, float32; with `--prior photo` that of photographs at
256 x 256, batch 2. Every configuration lives in a process of its own
(devices are fixed when jax starts); the processes take turns, and each ratio is the median over rounds of the ratio
within a round. Times on a shared machine drift, ratios less so.

overhead  DDIM's time over NFE jitted, vmapped evaluations of the bare network, each fed the last one's output: goal at
          most 1.03. DPS's time over NFE jitted value-and-gradients of the same kind: goal at most 1.05. Same
          convolution, devices and sharding in both.
conv      What the convolution's own VJP brings (`plain_conv=True` over False, DPS in its scan), and what one virtual
          device a core brings (one device with multi-threaded Eigen over those); no goals.
torch     JAX over PyTorch (`benchmarks.torch_unet`: the same weights, channels_last, all threads, eager), DDIM and DPS:
          goal at most 0.95 each. The outputs of both networks must agree to 1e-5, and those of DDIM to 1e-3, or the run
          fails. JAX over deepinv's own DDIM and DPS around the same PyTorch network: for comparison. One line where
          torch or deepinv is missing.
memory    Peak memory of a 1000-step DPS over a 10-step one: goal within 5 %. Once as XLA plans it (temporaries and
          outputs), once as the process's peak resident size while it runs, in fresh processes that find the program
          in the cache (a compiler's leftovers would hide it); with one virtual device a core, and with one device.
          jax 0.10.2 on several CPU devices keeps about 0.4 MiB a step until a program ends, whatever the plan.
compile   Tracing, lowering and compiling DPS in a second process over the first, with a fresh cache folder each time:
          goal less than 1/3. "XLA alone" leaves tracing and lowering out, which no cache saves.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.turns import Programs, Worker, measure, once, serve

BATCH, ZETA, SIGMA_Y, CONDITION = 8, 0.5, 0.05, 0.3
WIDE = "--xla_cpu_prefer_vector_width=512"
SECTIONS = ("overhead", "conv", "torch", "memory", "compile")


class Problem(NamedTuple):
    """Of a prior that ships: the shape of a picture (None for its card's), pictures at once, DPS's steps for memory."""

    shape: tuple[int, ...] | None
    batch: int
    steps: int


PROBLEMS = {"prior32": Problem(None, BATCH, 1000), "photo": Problem((256, 256, 3), 2, 100)}
Row = tuple[str, float, float | None]  # what, ratio, goal


def noise(shape: tuple[int, ...], seed: int = 0, batch: int = BATCH) -> np.ndarray:
    """Standard normal, the same for every library."""
    return np.random.default_rng(seed).standard_normal((batch, *shape)).astype(np.float32)


# ---- what a JAX process runs


def begin(devices: int | None) -> None:
    """As an experiment starts; `devices` other than one a core is for comparison."""
    from experiments.common import runtime  # isort: skip  (before jax)

    import jax

    runtime.start()
    if devices is not None:
        jax.config.update("jax_num_cpu_devices", devices)


def embedded(plain: bool = False, name: str = "prior32") -> Any:
    """A prior that ships, under `process.VP()`."""
    from diffinv import process, weights

    shape = PROBLEMS[name].shape
    return weights.load_prior(weights.embedded(name), process.VP(), shape=shape, plain_conv=plain)


def problem(prior: Any, batch: int = BATCH) -> tuple[Any, ...]:
    """`(keys, prior, measurements, x, condition)`, placed: the batch split over the devices, the rest on all."""
    import jax

    from diffinv import measure, operators, sharding

    mesh, quarter = sharding.mesh(), prior.shape[0] // 4
    keys = jax.random.split(jax.random.key(0), batch)
    operator = operators.box_inpainting(prior.shape, quarter, quarter, 2 * quarter)
    truth = jax.numpy.tanh(noise(prior.shape, 1, batch))
    measurements = jax.vmap(lambda k, x: measure(k, operator, x, SIGMA_Y))(keys, truth)
    placed = jax.device_put((keys, measurements, noise(prior.shape, batch=batch)), sharding.split(mesh))
    prior, condition = jax.device_put((prior, jax.numpy.float32(CONDITION)), sharding.replicated(mesh))
    return placed[0], prior, *placed[1:], condition


def dps_program(steps: int) -> Any:
    """`(keys, prior, measurements) -> Solution`, not yet compiled."""
    import jax

    from diffinv import posterior, sample, times

    def one(key: Any, prior: Any, measurement: Any) -> Any:
        return sample(key, posterior.dps(prior, measurement, ZETA), times.grid(steps))

    return jax.jit(jax.vmap(one, (0, None, 0)))


def jax_programs(steps: int, prior: Any, names: list[str], batch: int = BATCH) -> Programs:
    """Samplers, and the network alone in a Python loop of as many calls."""
    import jax
    import jax.numpy as jnp

    from diffinv import sample, samplers, times

    keys, prior, measurements, x, condition = problem(prior, batch)
    network = getattr(prior.denoise, "denoise", prior.denoise)  # inside what brings it to any size
    apply, params = network.apply, network.params

    def one(key: Any, prior: Any, x: Any) -> Any:
        return sample(key, samplers.ddim(prior), times.grid(steps), x).x

    distance = lambda x, params, condition, y: jnp.linalg.norm((apply(params, x, condition) - y).ravel())
    ddim, dps = jax.jit(jax.vmap(one, (0, None, 0))), dps_program(steps)
    evaluate = jax.jit(jax.vmap(apply, (None, 0, None)))
    differentiate = jax.jit(jax.vmap(jax.value_and_grad(distance), (0, None, None, 0)))

    def evaluations() -> Any:
        h = x
        for _ in range(steps):
            h = evaluate(params, h, condition)
        return h

    def gradients() -> Any:
        h = x
        for _ in range(steps):
            _, h = differentiate(h, params, condition, measurements.y)
        return h

    programs = {
        "network": lambda: evaluate(params, x, condition),
        "ddim": lambda: ddim(keys, prior, x),
        "dps": lambda: dps(keys, prior, measurements).x,
        "evaluations": evaluations,
        "gradients": gradients,
    }
    return {name: lambda f=programs[name]: np.asarray(jax.block_until_ready(f())) for name in names}


def memory(steps: int, run: bool, name: str) -> dict[str, float]:
    """MiB that XLA plans for a DPS of `steps` steps, and the process's peak while it runs; or compiles it only."""
    import jax

    keys, prior, measurements, *_ = problem(embedded(name=name), PROBLEMS[name].batch)
    compiled = dps_program(steps).lower(keys, prior, measurements).compile()
    if not run:
        return {}
    plan = compiled.memory_analysis()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of compiling
    jax.block_until_ready(compiled(keys, prior, measurements))
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    planned = plan.temp_size_in_bytes + plan.output_size_in_bytes
    return {"planned": planned / 2**20, "resident": int(peak.split()[1]) / 2**10}


def compiling(steps: int, name: str) -> dict[str, float]:
    """Seconds to trace, lower and compile DPS, and those of XLA alone."""
    keys, prior, measurements, *_ = problem(embedded(name=name), PROBLEMS[name].batch)
    start = time.perf_counter()
    lowered = dps_program(steps).lower(keys, prior, measurements)
    middle = time.perf_counter()
    lowered.compile()
    end = time.perf_counter()
    return {"all": end - start, "xla": end - middle}


def task(act: str, **options: Any) -> int:
    """A child process's whole life; `act` says which."""
    if act == "torch":
        from benchmarks.torch_programs import torch_programs

        serve(torch_programs(**options))
        return 0
    begin(options.pop("devices", None))
    if act == "jax":
        name = options.pop("name")
        prior = embedded(options.pop("plain"), name)
        serve(jax_programs(prior=prior, batch=PROBLEMS[name].batch, **options))
    else:
        print(json.dumps({"memory": memory, "compile": compiling}[act](**options)))
    return 0


# ---- the run


def workers(sections: list[str], steps: int, name: str) -> dict[str, Worker]:
    """The processes that these sections need, started one after the other."""
    jax_task = {"act": "jax", "steps": steps, "plain": False, "name": name}
    plans: dict[str, tuple[dict[str, Any], str | None]] = {}
    if {"overhead", "conv", "torch"} & set(sections):
        names = ["network", "ddim", "dps", "evaluations", "gradients"]
        plans["jax"] = {**jax_task, "names": names}, None
    if "conv" in sections:
        plans["plain"] = {**jax_task, "steps": max(2, steps // 5), "plain": True, "names": ["dps"]}, None
        plans["one"] = {**jax_task, "devices": 1, "names": ["ddim", "dps"]}, WIDE
    if "torch" in sections:
        names = ["network", "ddim", "dps"] + (["deepinv_ddim", "deepinv_dps"] if has("deepinv") else [])
        plans["torch"] = {"act": "torch", "steps": steps, "names": names, "prior": name}, None
    running = {}
    for name, (plan, flags) in plans.items():
        running[name] = Worker(plan, flags)
        if running[name].hear().strip() != "ready":
            raise RuntimeError(f"the process {name!r} did not start")
    return running


def has(package: str) -> bool:
    """Whether it is installed."""
    return importlib.util.find_spec(package) is not None


RATIOS = {  # section: (what, numerator, denominator, goal)
    "overhead": [
        ("DDIM / NFE network evaluations", "jax/ddim", "jax/evaluations", 1.03),
        ("DPS / NFE values and gradients", "jax/dps", "jax/gradients", 1.05),
    ],
    "conv": [
        ("DPS, plain convolution / own VJP", "plain/dps", "jax/dps", None),
        ("DDIM, one device / one a core", "one/ddim", "jax/ddim", None),
        ("DPS, one device / one a core", "one/dps", "jax/dps", None),
    ],
    "torch": [
        ("DDIM, JAX / PyTorch", "jax/ddim", "torch/ddim", 0.95),
        ("DPS, JAX / PyTorch", "jax/dps", "torch/dps", 0.95),
        ("DDIM, JAX / deepinv", "jax/ddim", "torch/deepinv_ddim", None),
        ("DPS, JAX / deepinv", "jax/dps", "torch/deepinv_dps", None),
    ],
}


def agree(running: dict[str, Worker]) -> None:
    """Raises AssertionError where the two libraries do not compute the same."""
    for name, tolerance in (("network", 1e-5), ("ddim", 1e-3)):
        ours, theirs = running["jax"].result(name), running["torch"].result(name)
        error = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
        print(f"{name}: JAX and PyTorch differ by {error:.1e} relative")
        assert error < tolerance, f"{name} differs by {error}, more than {tolerance}"


def timings(sections: list[str], steps: int, rounds: int, name: str) -> list[Row]:
    """Rows of the table that are ratios of times."""
    running = workers(sections, steps, name)
    try:
        if "torch" in sections:
            agree(running)
        asked = [row for section in sections for row in RATIOS.get(section, [])]
        asked = [row for row in asked if has("deepinv") or "deepinv" not in row[2]]
        print(f"timing: {rounds} rounds of {steps} steps", flush=True)
        seconds = measure(running, sorted({name for row in asked for name in row[1:3]}), rounds)
    finally:
        for worker in running.values():
            worker.process.stdin.close()
            worker.process.wait()
    print("milliseconds a step, median (least): ", end="")
    shown = (f"{name} {1e3 * statistics.median(s):.1f} ({1e3 * min(s):.1f})" for name, s in seconds.items())
    print(", ".join(shown), flush=True)
    paired = lambda a, b: statistics.median(x / y for x, y in zip(seconds[a], seconds[b]))
    return [(what, paired(a, b), goal) for what, a, b, goal in asked]


def memory_rows(steps: int, prior: str) -> list[Row]:
    """Many steps over 10, as planned and as resident."""
    rows: list[Row] = []
    for devices, name in ((None, "one device a core"), (1, "one device")):
        with tempfile.TemporaryDirectory() as cache:
            plan = {"act": "memory", "devices": devices, "name": prior}
            for run in (False, True):  # compiles, then measures what the cache holds
                few, many = (once({**plan, "steps": n, "run": run}, cache) for n in (10, steps))
        found = ", ".join(f"{k} {few[k]:.1f} and {many[k]:.1f}" for k in few)
        print(f"MiB of DPS, 10 and {steps} steps, {name}: {found}", flush=True)
        rows += [(f"DPS {k} memory, {steps} / 10 steps, {name}", many[k] / few[k], 1.05) for k in few]
    return rows


def compile_rows(steps: int, rounds: int, name: str) -> list[Row]:
    """Second start over first."""
    starts = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            starts.append([once({"act": "compile", "steps": steps, "name": name}, cache) for _ in range(2)])
    shown = ", ".join(f"{first['all']:.1f} and {second['all']:.1f}" for first, second in starts)
    print(f"seconds to compile DPS, first and second start: {shown}", flush=True)
    whole, xla = (statistics.median(second[k] / first[k] for first, second in starts) for k in ("all", "xla"))
    return [("Compiling DPS, second / first start", whole, 1 / 3), ("  XLA alone", xla, None)]


def cpu() -> str:
    """The processor's name, where the system tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and steps")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas")
    parser.add_argument("--prior", choices=list(PROBLEMS), default="prior32", help="one that ships")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        return task(**json.loads(options.task))
    if unknown := set(sections := options.only.split(",")) - set(SECTIONS):
        parser.error(f"--only names {', '.join(unknown)}; known are {', '.join(SECTIONS)}")
    asked = PROBLEMS[options.prior]
    packages = [name for name in ("jax", "torch", "deepinv") if has(name)]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(
        f"{len(os.sched_getaffinity(0))} cores of {cpu()}; {versions}; {options.prior}, batch {asked.batch}", flush=True
    )
    for name in ("torch", "deepinv"):
        if "torch" in sections and not has(name):
            print(f"{name} is not installed: not compared")
    sections = [s for s in sections if s != "torch" or has("torch")]
    rows: list[Row] = []
    if "compile" in sections:
        rows += compile_rows(10, 1 if options.quick else 3, options.prior)
    if "memory" in sections:
        rows += memory_rows(min(asked.steps, 100) if options.quick else asked.steps, options.prior)
    if {"overhead", "conv", "torch"} & set(sections):
        rows = timings(sections, *((5, 3) if options.quick else (10, 9)), options.prior) + rows
    print(f"\n{'what':<58}{'ratio':>8}{'goal':>9}  met")
    for what, ratio, goal in rows:
        verdict = "" if goal is None else "yes" if ratio <= goal else "NO"
        print(f"{what:<58}{ratio:>8.3f}{'' if goal is None else f'{goal:.2f}':>9}  {verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
