"""Processes that take turns in being measured: each runs what it is told, so that a drift of the machine hits all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
Programs = dict[str, Callable[[], Any]]


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


def measure(running: dict[str, Worker], programs: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds a step of each "worker/program", by turns, every second round backwards."""
    seconds: dict[str, list[float]] = {program: [] for program in programs}
    for turn in range(rounds):
        for program in programs[:: -1 if turn % 2 else 1]:
            worker, name = program.split("/")
            seconds[program].append(running[worker].seconds(name))
        print(f"round {turn + 1}", end="\n" if turn + 1 == rounds else ", ", flush=True)
    return seconds
