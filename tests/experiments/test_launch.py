"""Scripts that spread a table: what they say is what its command takes, and what is submitted is every part once."""

import json
import shlex
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from experiments import launch

GIVEN = ["--config=configs/tables/reguidance.py", "--config.tasks=x4 = super_resolution factor=4", "--out=/shared/runs"]


@pytest.fixture(autouse=True)
def flags(monkeypatch):
    """As where none is given."""
    values = {"HOW": "slurm", "PARTS": 3, "SUBMIT": False, "LOGS": "logs", "MINUTES": 10, "GPUS": 1, "PARTITION": ""}
    for name, value in {**values, "IMAGE": "image", "JOB": "table"}.items():
        monkeypatch.setattr(launch, name, SimpleNamespace(value=value))
    return lambda name, value: monkeypatch.setattr(launch, name, SimpleNamespace(value=value))


def words(line):
    """A line as the shell gives it to its command."""
    told = subprocess.run(["bash", "-c", line.replace("python", "printf '%s\\n'", 1)], capture_output=True, text=True)
    assert told.returncode == 0
    return told.stdout.splitlines()


def test_an_array_has_every_part_once(monkeypatch):
    script = launch.slurm(GIVEN).splitlines()
    assert script[0] == "#!/bin/bash" and "--array=0-2" in script[1] and "--partition" not in " ".join(script)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert words(script[-1]) == ["-m", "experiments.evaluate", *GIVEN, "--part=2/3"]


def test_a_partition_is_asked_for(flags):
    flags("PARTITION", "gpu")
    assert "#SBATCH --partition=gpu" in launch.slurm(GIVEN).splitlines()


def test_an_indexed_job_has_every_part_once(flags, monkeypatch):
    job = json.loads(launch.kubernetes(GIVEN))
    spec = job["spec"]
    assert spec["completions"] == spec["parallelism"] == 3 and spec["completionMode"] == "Indexed"
    (container,) = spec["template"]["spec"]["containers"]
    assert container["command"][:2] == ["sh", "-c"] and container["resources"]["limits"] == {"nvidia.com/gpu": 1}
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert words(container["command"][2])[-1] == "--part=1/3" and words(container["command"][2])[2:-1] == GIVEN
    flags("GPUS", 0)
    assert "resources" not in json.loads(launch.kubernetes(GIVEN))["spec"]["template"]["spec"]["containers"][0]


def test_a_pod_shares_by_itself():
    line = shlex.split(launch.tpu(GIVEN))
    assert line[-2] == "--worker=all" and "--part" not in line[-1]
    inner = shlex.split(line[-1].removeprefix("--command="))
    assert inner[:3] == ["cd", "diffinv", "&&"] and inner[-3:] == GIVEN


def test_lines_for_one_machine():
    lines = launch.local(GIVEN).splitlines()
    assert [shlex.split(line)[-1] for line in lines] == [f"--part={i}/3" for i in range(3)]


class Executor:
    """submitit's, which keeps what it is given."""

    made: list = []

    def __init__(self, folder, cluster):
        if cluster == "slurm":
            raise RuntimeError("no srun")
        self.folder, self.told, self.parts = folder, {}, []
        Executor.made.append(self)

    def update_parameters(self, **told):
        self.told = told

    @contextmanager
    def batch(self):
        yield

    def submit(self, function, *arguments):
        self.parts.append((function, *arguments))
        return SimpleNamespace(job_id=str(len(self.parts)))


def test_every_part_is_submitted(flags, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(AutoExecutor=Executor))
    flags("HOW", "local"), flags("SUBMIT", True), flags("LOGS", str(tmp_path / "logs"))
    assert launch.main(GIVEN) == 0
    executor = Executor.made[-1]
    assert [each[:3] for each in executor.parts] == [(launch.run_part, GIVEN, f"{i}/3") for i in range(3)]
    assert executor.told == {"name": "table", "timeout_min": 10}
    assert capsys.readouterr().out == f"3 parts: 1, 2, 3; logs in {tmp_path / 'logs'}\n"
    flags("HOW", "slurm")
    with pytest.raises(ValueError, match="which this machine has not .no srun.; use --how=local"):
        launch.main(GIVEN)


def test_a_part_runs_the_command_and_fails_with_it(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(launch.subprocess, "run", lambda line, **more: asked.append((line, more)) or FINE)
    assert launch.run_part(GIVEN, "1/3", str(tmp_path)) == 0
    line, more = asked[0]
    assert line == [sys.executable, "-m", "experiments.evaluate", *GIVEN, "--part=1/3"] and more["check"]


FINE = SimpleNamespace(returncode=0)


def test_what_cannot_be_is_refused(flags, monkeypatch):
    with pytest.raises(ValueError, match="each part has its own; leave it out"):
        launch.main([*GIVEN, "--part=0/2"])
    flags("SUBMIT", True)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match="--submit needs submitit: pip install"):
        launch.main(GIVEN)
    flags("HOW", "tpu")
    with pytest.raises(ValueError, match="--submit is for slurm and local, and --how is 'tpu'"):
        launch.main(GIVEN)
