"""The training command: that a kill costs nothing, on one host and on two, and what it says of bad input."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from diffinv import checkpoint

pytest.importorskip("grain")
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def command(workdir, *more, config="configs/prior32.py:smoke"):
    start = [sys.executable, "-m", "experiments.train", f"--config={config}"]
    return [*start, f"--workdir={workdir}", *more]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    env.pop("XLA_FLAGS", None)
    return env | {"DIFFINV_CACHE": os.environ.get("DIFFINV_CACHE", str(tmp_path_factory.mktemp("cache") / "xla"))}


@pytest.fixture(scope="module")
def run(environment):
    def run(workdir, *more, **config):
        options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 600}
        return subprocess.run(command(workdir, *more, **config), **options)

    return run


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return folder


def steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


def interrupted(workdir, environment, sign):
    """Starts the command, and stops it by `sign` as soon as it has saved something."""
    pipes = {"stderr": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(workdir), cwd=ROOT, env=environment, **pipes) as process:
        deadline = time.time() + 300
        while not steps(workdir) and process.poll() is None and time.time() < deadline:
            time.sleep(0.02)
        process.send_signal(sign)
        said = process.stdout.read()
    assert steps(workdir), "it was never stopped in the middle"
    assert not (workdir / "prior32.safetensors").exists(), "it had finished before it was stopped"
    return process.returncode, said


def metrics(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "images_per_s")
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_at_any_moment_it_ends_the_same(whole, tmp_path, environment, run, sign):
    status, said = interrupted(tmp_path, environment, sign)
    if sign == signal.SIGTERM:
        assert status == 143 and f"step {steps(tmp_path)[-1]} is saved" in said
    again = run(tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "prior32.safetensors").read_bytes() == (whole / "prior32.safetensors").read_bytes()
    assert metrics(tmp_path) == metrics(whole)
    card = json.loads((tmp_path / "prior32.json").read_text())
    assert card["steps"] == 6 and card["sha256"] == json.loads((whole / "prior32.json").read_text())["sha256"]


def together(workdir, environment, *more, others=()):
    """Two processes with one core's device each, on one machine."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"--coordinator=localhost:{probe.getsockname()[1]}"
    pair, pipes = [], {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    for i in range(2):
        flags = [address, "--processes=2", f"--process={i}", *more, *(others if i else ())]
        env = environment | {"DIFFINV_DEVICES": "1"}
        pair.append(subprocess.Popen(command(workdir, *flags), cwd=ROOT, env=env, **pipes))
    return [(process.communicate(timeout=600)[1], process.returncode) for process in pair]


def test_two_processes_are_one_run(tmp_path, environment, run):
    """20 steps on two processes; one process restores what they saved, and both equal one process's own run."""
    longer = ["--config.steps=20", "--config.eval_every=20", "--config.checkpoint_every=10"]
    for said, status in together(tmp_path / "two", environment, *longer):
        assert status == 0, said
    assert steps(tmp_path / "two") == [10, 20] and (tmp_path / "two" / "samples_000020.png").exists()
    exported = run(tmp_path / "two", *longer, f"--export={tmp_path / 'export'}")
    assert exported.returncode == 0, exported.stderr
    alone = run(tmp_path / "one", *longer)
    assert alone.returncode == 0, alone.stderr
    weights = [load_file(tmp_path / name / "prior32.safetensors") for name in ("two", "export", "one")]
    for name, value in weights[0].items():
        np.testing.assert_array_equal(weights[1][name], value)
        np.testing.assert_allclose(weights[2][name], value, rtol=1e-4, atol=1e-5)


def error(done):
    said, status = done
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert status != 0 and "Traceback" not in said and len(lines) == 1, said
    return lines[0]


def test_two_processes_must_agree(tmp_path, environment):
    for done in together(tmp_path, environment, others=["--config.batch=4"]):
        assert "another configuration" in error(done)
    assert not list(tmp_path.iterdir())


def test_a_run_that_diverges_says_where_and_keeps_the_last_good_checkpoint(tmp_path, run):
    done = run(tmp_path, "--config.learning_rate=1e38", "--config.patience=2", "--config.steps=20")
    line = error((done.stderr, done.returncode))
    assert "2 times in a row, up to step" in line and "holds the pictures [" in line and "checkpoints/" in line
    assert not (tmp_path / "prior32.safetensors").exists() and steps(tmp_path)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--config.data=nowhere/pack.jpegpack.npz"], "nowhere"),
        (["--config.stepz=3"], "stepz"),
        (["--config=configs/prior32.py:quick"], "quick"),
        (["--config.batch=3"], "config.batch is 3"),
        (["--config.classes=1"], "the data have 2 labels"),
        (["--process=1"], "give all three"),
    ],
)
def test_bad_input_is_one_line(tmp_path, run, more, word):
    done = run(tmp_path, *more)
    assert word in error((done.stderr, done.returncode))


def test_another_network_does_not_overwrite(whole, run):
    before = {path: path.stat().st_mtime_ns for path in (whole / "checkpoints").rglob("*")}
    done = run(whole, "--config.net.channels=16")
    line = error((done.stderr, done.returncode))
    assert "params/" in line and "there and" in line
    assert {path: path.stat().st_mtime_ns for path in (whole / "checkpoints").rglob("*")} == before


@pytest.mark.parametrize("config", ["prior32_cond"])
def test_other_configs_run_and_their_priors_load(tmp_path, run, config):
    done = run(tmp_path, "--config.steps=2", config=f"configs/{config}.py:smoke")
    assert done.returncode == 0, done.stderr
    prior = checkpoint.load_prior(str(tmp_path / config))
    assert prior.denoise(np.zeros(prior.shape, np.float32), np.float32(0.5)).shape == prior.shape
