"""Commands as forks of one process that has imported what they share: each is spared these seconds, and only these."""

import atexit
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVER = """
import gc, json, os, runpy, signal, sys, tempfile
from experiments.common import runtime, reading
import diffinv.weights, diffinv.posterior, experiments.tasks.run, experiments.report.series
from tests.compiling import one_context
one_context()
gc.freeze()
def started(module, *arguments):
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    if child := os.fork():
        return child, out, err
    signal.alarm(seconds)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    given = {"XLA_FLAGS": os.environ["XLA_FLAGS"]} | env
    os.environ.clear()
    os.environ.update(given)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()
for line in sys.stdin:
    commands, env, seconds = json.loads(line)
    ended, children = [], [started(*command) for command in commands]
    print(json.dumps([child for child, *_ in children]), flush=True)
    for child, *files in children:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        ended.append([status, *(os.pread(file.fileno(), 2**26, 0).decode(errors="replace") for file in files)])
    print(json.dumps(ended), flush=True)
"""


@functools.cache
def server():
    """It starts no device, and takes no XLA_FLAGS but those of `runtime`: a fork has its own."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen([sys.executable, "-c", SERVER], cwd=ROOT, env=env, **pipes)
    atexit.register(process.communicate)
    return process


def run(command, env, timeout=600):
    """`python -m MODULE ARGUMENTS` in this environment, as `subprocess.run` has it of text, from the root."""
    return together([command], env, timeout)[0]


def together(commands, env, timeout=600, meanwhile=lambda *children: None):
    """The same of several commands that run at the same time, while `meanwhile` is called with their ids."""
    assert all(command[:2] == [sys.executable, "-m"] for command in commands)
    print(json.dumps([[command[2:] for command in commands], env, timeout]), file=server().stdin, flush=True)
    try:
        meanwhile(*json.loads(server().stdout.readline()))
    finally:
        ended = zip(commands, json.loads(server().stdout.readline()), strict=True)
    lines = lambda text: "\n".join(text.splitlines()) + "\n"
    return [subprocess.CompletedProcess(command, status, *map(lines, said)) for command, (status, *said) in ended]
