"""Two processes of one machine, a device each: that they find each other, that their sum is right, and its speed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def devices() -> int:
    """How many this machine has; asked in a process that ends, so that it holds none of them."""
    asked = [sys.executable, "-c", "import jax; print(jax.local_device_count())"]
    return int(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()[-1])


def run(values: int, on_cpu: bool = False) -> dict[str, Any]:
    """What the first of the two processes tells. Raises RuntimeError where one fails."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    started = []
    for i in range(2):
        where = {"JAX_PLATFORMS": "cpu"} if on_cpu else {"CUDA_VISIBLE_DEVICES": str(i)}
        command = [sys.executable, "-m", "benchmarks.pair", str(port), str(i), str(values)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=ROOT, env={**os.environ, **where}, **pipes))
    said = [process.communicate() for process in started]
    for process, (_, error) in zip(started, said):
        if process.returncode:
            raise RuntimeError(f"a process ended with status {process.returncode}: {error.strip().splitlines()[-1:]}")
    return json.loads(said[0][0].splitlines()[-1])


def one(port: int, process: int, values: int) -> dict[str, Any]:
    """A process's part: the sum over both of `values` numbers, 1 here and 2 there, and the time of a later one."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec

    from diffinv import sharding

    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(f"localhost:{port}", 2, process, initialization_timeout=60)
    mesh = sharding.mesh()
    local = jnp.full((1, values), process + 1.0, jnp.float32)
    x = jax.make_array_from_process_local_data(sharding.split(mesh), local)
    sums = lambda x: jax.lax.psum(x, "data")
    total = jax.jit(jax.shard_map(sums, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec()))
    right = bool((total(x) == 3.0).all())
    start = time.perf_counter()
    for _ in range(10):
        out = total(x)
    jax.block_until_ready(out)
    seconds = (time.perf_counter() - start) / 10
    if not right:
        raise AssertionError("the sum over two processes is not 3 everywhere")
    return {"sum_is_right": right, "mib": values / 2**18, "gb_per_s": 4 * values / seconds / 1e9}


if __name__ == "__main__":
    print(json.dumps(one(*map(int, sys.argv[1:]))))
