"""What sampling costs: ratios from one run, in which all candidates are measured alternately.

    python -m benchmarks.sampling [--quick] [--only overhead,conv,torch,memory,compile]

The embedded prior's network under `process.VP()`, batch 8, float32. Every configuration lives in a process of its own
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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH, ZETA, SIGMA_Y, CONDITION = 8, 0.5, 0.05, 0.3
ROOT = Path(__file__).resolve().parents[1]
WIDE = "--xla_cpu_prefer_vector_width=512"
SECTIONS = ("overhead", "conv", "torch", "memory", "compile")
Programs = dict[str, Callable[[], Any]]
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


def embedded(plain: bool = False) -> Any:
    """The prior that ships, under `process.VP()`."""
    from diffinv import process, weights

    return weights.load_prior(weights.embedded(), process.VP(), plain_conv=plain)


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
    apply, params = prior.denoise.apply, prior.denoise.params

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


def memory(steps: int, run: bool) -> dict[str, float]:
    """MiB that XLA plans for a DPS of `steps` steps, and the process's peak while it runs; or compiles it only."""
    import jax

    keys, prior, measurements, *_ = problem(embedded())
    compiled = dps_program(steps).lower(keys, prior, measurements).compile()
    if not run:
        return {}
    plan = compiled.memory_analysis()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of compiling
    jax.block_until_ready(compiled(keys, prior, measurements))
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    planned = plan.temp_size_in_bytes + plan.output_size_in_bytes
    return {"planned": planned / 2**20, "resident": int(peak.split()[1]) / 2**10}


def compiling(steps: int) -> dict[str, float]:
    """Seconds to trace, lower and compile DPS, and those of XLA alone."""
    keys, prior, measurements, *_ = problem(embedded())
    start = time.perf_counter()
    lowered = dps_program(steps).lower(keys, prior, measurements)
    middle = time.perf_counter()
    lowered.compile()
    end = time.perf_counter()
    return {"all": end - start, "xla": end - middle}


# ---- processes that take turns


def serve(programs: Programs) -> None:
    """Runs what it is told, a name a line: "NAME" answers seconds, "NAME PATH" saves the result."""
    for program in programs.values():
        program()
    print("ready", flush=True)
    for line in sys.stdin:
        name, *path = line.split()
        start = time.perf_counter()
        result = programs[name]()
        seconds = time.perf_counter() - start
        if path:
            np.save(path[0], result)
        print(seconds, flush=True)


def command(task: dict[str, Any], flags: str | None = None, cache: str | None = None) -> dict[str, Any]:
    """Arguments of `subprocess` for this script with `task`; `flags` replace the experiments' XLA flags."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {"XLA_FLAGS": flags} if flags else {}
    environment |= {"DIFFINV_CACHE": cache} if cache else {}
    arguments = [sys.executable, "-m", "benchmarks.sampling", "--task", json.dumps(task)]
    return {"args": arguments, "env": environment, "cwd": ROOT, "stdout": subprocess.PIPE, "text": True}


def once(task: dict[str, Any], cache: str | None = None) -> dict[str, float]:
    """The answer of a process that does one thing and ends."""
    done = subprocess.run(**command(task, cache=cache), check=True)
    return json.loads(done.stdout.splitlines()[-1])


class Worker:
    """A process that runs programs of `steps` steps when told to."""

    def __init__(self, task: dict[str, Any], flags: str | None = None) -> None:
        self.steps = task["steps"]
        self.process = subprocess.Popen(**command(task, flags), stdin=subprocess.PIPE)

    def hear(self) -> str:
        """The next line; a process that ended without one has said why on standard error."""
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"a benchmark process ended with status {self.process.wait()}; its error is above")
        return line

    def seconds(self, *words: str) -> float:
        """Of one step."""
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        return float(self.hear()) / self.steps

    def result(self, name: str) -> np.ndarray:
        """What the program returns, (B, H, W, C)."""
        with tempfile.TemporaryDirectory() as folder:
            self.seconds(name, path := os.path.join(folder, "result.npy"))
            return np.load(path)


def task(act: str, **options: Any) -> int:
    """A child process's whole life; `act` says which."""
    if act == "torch":
        from benchmarks.torch_programs import torch_programs

        serve(torch_programs(**options))
        return 0
    begin(options.pop("devices", None))
    if act == "jax":
        serve(jax_programs(prior=embedded(options.pop("plain")), **options))
    else:
        print(json.dumps({"memory": memory, "compile": compiling}[act](**options)))
    return 0


# ---- the run


def workers(sections: list[str], steps: int) -> dict[str, Worker]:
    """The processes that these sections need, started one after the other."""
    jax_task = {"act": "jax", "steps": steps, "plain": False}
    plans: dict[str, tuple[dict[str, Any], str | None]] = {}
    if {"overhead", "conv", "torch"} & set(sections):
        names = ["network", "ddim", "dps", "evaluations", "gradients"]
        plans["jax"] = {**jax_task, "names": names}, None
    if "conv" in sections:
        plans["plain"] = {**jax_task, "steps": max(2, steps // 5), "plain": True, "names": ["dps"]}, None
        plans["one"] = {**jax_task, "devices": 1, "names": ["ddim", "dps"]}, WIDE
    if "torch" in sections:
        names = ["network", "ddim", "dps"] + (["deepinv_ddim", "deepinv_dps"] if has("deepinv") else [])
        plans["torch"] = {"act": "torch", "steps": steps, "names": names}, None
    running = {}
    for name, (plan, flags) in plans.items():
        running[name] = Worker(plan, flags)
        if running[name].hear().strip() != "ready":
            raise RuntimeError(f"the process {name!r} did not start")
    return running


def has(package: str) -> bool:
    """Whether it is installed."""
    return importlib.util.find_spec(package) is not None


def measure(running: dict[str, Worker], programs: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds a step of each "worker/program", by turns, every second round backwards."""
    seconds: dict[str, list[float]] = {program: [] for program in programs}
    for turn in range(rounds):
        for program in programs[:: -1 if turn % 2 else 1]:
            worker, name = program.split("/")
            seconds[program].append(running[worker].seconds(name))
        print(f"round {turn + 1}", end="\n" if turn + 1 == rounds else ", ", flush=True)
    return seconds


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


def timings(sections: list[str], steps: int, rounds: int) -> list[Row]:
    """Rows of the table that are ratios of times."""
    running = workers(sections, steps)
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


def memory_rows(steps: int) -> list[Row]:
    """Many steps over 10, as planned and as resident."""
    rows: list[Row] = []
    for devices, name in ((None, "one device a core"), (1, "one device")):
        with tempfile.TemporaryDirectory() as cache:
            plan = {"act": "memory", "devices": devices}
            for run in (False, True):  # compiles, then measures what the cache holds
                few, many = (once({**plan, "steps": n, "run": run}, cache) for n in (10, steps))
        found = ", ".join(f"{k} {few[k]:.1f} and {many[k]:.1f}" for k in few)
        print(f"MiB of DPS, 10 and {steps} steps, {name}: {found}", flush=True)
        rows += [(f"DPS {k} memory, {steps} / 10 steps, {name}", many[k] / few[k], 1.05) for k in few]
    return rows


def compile_rows(steps: int, rounds: int) -> list[Row]:
    """Second start over first."""
    starts = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            starts.append([once({"act": "compile", "steps": steps}, cache) for _ in range(2)])
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
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        return task(**json.loads(options.task))
    if unknown := set(sections := options.only.split(",")) - set(SECTIONS):
        parser.error(f"--only names {', '.join(unknown)}; known are {', '.join(SECTIONS)}")
    packages = [name for name in ("jax", "torch", "deepinv") if has(name)]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"{len(os.sched_getaffinity(0))} cores of {cpu()}; {versions}; batch {BATCH}", flush=True)
    for name in ("torch", "deepinv"):
        if "torch" in sections and not has(name):
            print(f"{name} is not installed: not compared")
    sections = [s for s in sections if s != "torch" or has("torch")]
    rows: list[Row] = []
    if "compile" in sections:
        rows += compile_rows(10, 1 if options.quick else 3)
    if "memory" in sections:
        rows += memory_rows(100 if options.quick else 1000)
    if {"overhead", "conv", "torch"} & set(sections):
        rows = timings(sections, *((5, 3) if options.quick else (10, 9))) + rows
    print(f"\n{'what':<58}{'ratio':>8}{'goal':>9}  met")
    for what, ratio, goal in rows:
        verdict = "" if goal is None else "yes" if ratio <= goal else "NO"
        print(f"{what:<58}{ratio:>8.3f}{'' if goal is None else f'{goal:.2f}':>9}  {verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
