"""The training command: that a kill costs nothing, and that two hosts are one run."""

import csv
import json
import os
import shutil
import signal
import time

import forking
import numpy as np
import pytest
from safetensors.numpy import load_file
from training_command import TINY, command, environment, error, run, steps, together

pytest.importorskip("grain")
pytestmark = [pytest.mark.slow, pytest.mark.long]
LONGER = (*TINY, "--config.steps=20", "--config.eval_every=10", "--config.checkpoint_every=5")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run of 20 steps."""
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder, *LONGER, "--writers=csv", f"--profile={folder / 'trace'}")
    assert done.returncode == 0, done.stderr
    assert f"a profiler's trace of 3 rounds is in {folder / 'trace'}" in done.stdout
    return folder


def interrupted(workdir, sign):
    """Starts the command, and stops it by `sign` as soon as it has saved something."""

    def stop(child):
        deadline = time.time() + 300
        while not steps(workdir) and time.time() < deadline:
            time.sleep(0.02)
            os.kill(child, 0)  # raises where it has ended
        os.kill(child, sign)

    done = forking.together([command(workdir, *LONGER)], environment(), meanwhile=stop)[0]
    assert steps(workdir), "it was never stopped in the middle"
    assert not (workdir / "photo.safetensors").exists(), "it had finished before it was stopped"
    return done.returncode, done.stdout


def metrics(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "images_per_s")
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_at_any_moment_it_ends_the_same(whole, tmp_path, sign):
    status, said = interrupted(tmp_path, sign)
    if sign == signal.SIGTERM:
        assert status == 143 and f"step {steps(tmp_path)[-1]} is saved" in said
    again = run(tmp_path, *LONGER)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "photo.safetensors").read_bytes() == (whole / "photo.safetensors").read_bytes()
    assert metrics(tmp_path) == metrics(whole)
    card = json.loads((tmp_path / "photo.json").read_text())
    assert card["steps"] == 20 and card["sha256"] == json.loads((whole / "photo.json").read_text())["sha256"]


def test_two_processes_are_one_run(whole, tmp_path):
    """20 steps on two processes; one process restores what they saved, and both equal one process's own run."""
    for said, status in together(tmp_path / "two", *LONGER):
        assert status == 0, said
    assert steps(tmp_path / "two") == [15, 20] and (tmp_path / "two" / "samples_000020.png").exists()
    exported = run(tmp_path / "two", *LONGER, f"--export={tmp_path / 'export'}")
    assert exported.returncode == 0, exported.stderr
    folders = (tmp_path / "two", tmp_path / "export", whole)
    weights = [load_file(folder / "photo.safetensors") for folder in folders]
    for name, value in weights[0].items():
        np.testing.assert_array_equal(weights[1][name], value)
        np.testing.assert_allclose(weights[2][name], value, rtol=1e-4, atol=1e-5)


def test_every_writer_has_the_same_numbers_and_the_trace_is_written(whole):
    with open(whole / "metrics.csv", newline="") as file:
        _, *rows = csv.reader(file)
    told = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    losses = [[str(line["step"]), "loss", repr(line["loss"])] for line in told if "loss" in line]
    assert [row for row in rows if row[1] == "loss"] == losses and not (whole / "tensorboard").exists()
    assert {row[1] for row in rows if row[1].startswith("held_out/")}
    assert list((whole / "trace").rglob("*.xplane.pb"))


def test_a_run_that_starts_from_another_ones_weights_counts_its_pictures_too(whole, tmp_path):
    """20 steps of 8 pictures, exported in half precision, then 6 steps of 8, of the same pictures."""
    assert json.loads((whole / "photo.json").read_text())["images_seen_in_all"] == 160
    half = run(whole, *LONGER, "--half", f"--export={tmp_path / 'half'}")
    assert half.returncode == 0, half.stderr
    assert {leaf.dtype.name for leaf in load_file(tmp_path / "half" / "photo.safetensors").values()} == {"float16"}
    done = run(tmp_path / "on", *TINY, f"--config.start={tmp_path / 'half' / 'photo'}")
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "on" / "photo.json").read_text())
    assert (card["images_seen"], card["images_seen_in_all"]) == (48, 208)
    assert {leaf.dtype.name for leaf in load_file(tmp_path / "on" / "photo.safetensors").values()} == {"float32"}


def test_what_changed_is_said_where_a_run_is_resumed_with_something_else(whole):
    done = run(whole, *LONGER, "--config.batch=16")
    assert "config.batch: 8 then, 16 now" in error(done.stderr, done.returncode)


def test_one_damaged_byte_in_the_newest_checkpoint_costs_five_steps(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "20"
    arrays = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(arrays.read_bytes())
    content[len(content) // 2] ^= 1
    arrays.write_bytes(content)
    again = run(tmp_path / "run", *LONGER)
    assert again.returncode == 0, again.stderr
    assert str(newest) in again.stderr and "checkpoints/15 is taken" in again.stderr
    name = "photo.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()
    assert steps(tmp_path / "run") == [15, 20]


def test_another_network_does_not_overwrite(whole):
    before = {path: path.stat().st_mtime_ns for path in (whole / "checkpoints").rglob("*")}
    done = run(whole, *LONGER, "--config.net.channels=16")
    line = error(done.stderr, done.returncode)
    assert "params/" in line and "there and" in line
    assert {path: path.stat().st_mtime_ns for path in (whole / "checkpoints").rglob("*")} == before
