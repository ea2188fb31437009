"""The training command: its quick run, and that a kill costs nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def command(workdir, *more):
    start = [sys.executable, "-m", "experiments.train", "--config=configs/prior32.py:smoke"]
    return [*start, f"--workdir={workdir}", *more]


def environment():
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    env.pop("XLA_FLAGS", None)
    return env


def run(workdir, *more):
    options = {"cwd": ROOT, "env": environment(), "capture_output": True, "text": True, "timeout": 600}
    return subprocess.run(command(workdir, *more), **options)


def steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


def test_killed_at_any_moment_it_ends_the_same(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = run(whole)
    assert done.returncode == 0, done.stderr
    with subprocess.Popen(command(cut), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL) as process:
        deadline = time.time() + 300
        while not steps(cut) and process.poll() is None and time.time() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert steps(cut), "it was never killed in the middle"
    assert not (cut / "prior32.safetensors").exists(), "it had finished before it was killed"
    again = run(cut)
    assert again.returncode == 0, again.stderr
    assert (cut / "prior32.safetensors").read_bytes() == (whole / "prior32.safetensors").read_bytes()
    card = json.loads((cut / "prior32.json").read_text())
    assert card["steps"] == 6 and card["sha256"] == json.loads((whole / "prior32.json").read_text())["sha256"]


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--config.data=nowhere/pack.jpegpack.npz"], "nowhere"),
        (["--config.stepz=3"], "stepz"),
        (["--config=configs/prior32.py:quick"], "quick"),
    ],
)
def test_bad_input_is_one_line(tmp_path, more, word):
    done = run(tmp_path, *more)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode != 0 and "Traceback" not in done.stderr and len(lines) == 1, done.stderr
    assert word in lines[0]
