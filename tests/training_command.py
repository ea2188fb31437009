"""`experiments.train` in a process of its own, with a network that compiles fast; its compiled programs are kept."""

import os
import socket
import sys
import tempfile

import forking
from compiling import FAST, SPLIT, flags

CONFIG = "configs/photo.py:smoke"
"""Its network is the one that traces and compiles fastest: what is tested is the loop around it."""

TINY = ("--config.net.multipliers=(1,)",)
"""One level."""

FLAGS = flags({"xla_cpu_multi_thread_eigen": False} | FAST | SPLIT)
"""Programs that compile in a third of the time."""


def environment(**more):
    """On the CPU; the cache is the continuous check's, else the tests' own."""
    home = os.environ.get("DIFFINV_TEST_CACHE") or os.path.join(tempfile.gettempdir(), "diffinv-test-cache")
    cache = os.environ.get("DIFFINV_CACHE") or os.path.join(home, "xla")
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS, "DIFFINV_CACHE": cache, **more}


def command(workdir, *more, config=CONFIG):
    start = [sys.executable, "-m", "experiments.train", f"--config={config}"]
    return [*start, f"--workdir={workdir}", *more]


def run(workdir, *more, config=CONFIG, **variables):
    """The command, whose process gets `variables` too, and what it left."""
    return forking.run(command(workdir, *more, config=config), environment(**variables))


def together(workdir, *more, others=()):
    """(standard error, status) of two processes with one core's device each, on one machine."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"--coordinator=localhost:{probe.getsockname()[1]}"
    flags = [[address, "--processes=2", f"--process={i}", *more, *(others if i else ())] for i in range(2)]
    done = forking.together([command(workdir, *each) for each in flags], environment(DIFFINV_DEVICES="1"))
    return [(each.stderr, each.returncode) for each in done]


def steps(workdir):
    """The steps whose checkpoints are kept."""
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


def error(said, status):
    """The one line that a command that failed has said."""
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert status != 0 and "Traceback" not in said and len(lines) == 1, said
    return lines[0]
