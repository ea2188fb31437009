"""Spread a table over machines: the scripts for a Slurm array, a Kubernetes Job or a TPU pod, printed or submitted.

    python -m experiments.launch --how=slurm --parts=8 -- --config=configs/tables/reguidance.py --out=/shared/runs
    python -m experiments.launch --how=slurm --parts=8 --submit -- ...

What follows `--` are arguments of `experiments.evaluate`. Parts need not know each other: each computes every N-th
picture, in any order and at any time, and the one that finds all finished writes the tables. All must see --out. On a
TPU pod the processes find each other by themselves. Without --submit nothing is started: what is printed is the plan.
--submit hands the parts to Slurm, or with --how=local to processes of this machine, through submitit
(`pip install "diffinv[slurm]"`), waits for none of them, and prints their numbers and where their logs are.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.common import runtime  # isort: skip  (before absl's flags)

from diffinv import schema

WAYS = ("slurm", "kubernetes", "tpu", "local")
HOW = runtime.flag("how", "slurm", schema.choice(WAYS, "what starts the parts"))
PARTS = runtime.flag("parts", 4, schema.whole("of the pictures, each a job; hosts of a TPU pod", 1, 10_000))
SUBMIT = runtime.flag("submit", False, schema.switch("start them, by submitit; else print how"))
LOGS = runtime.flag("logs", "runs/launch", schema.path("folder of the jobs' logs"))
MINUTES = runtime.flag("minutes", 240, schema.whole("a job may take; what it finished is kept", 1, 100_000))
GPUS = runtime.flag("gpus", 1, schema.whole("of each part", 0, 64))
PARTITION = runtime.flag("partition", "", schema.text("of Slurm; '' for its default"))
IMAGE = runtime.flag("image", "YOUR_IMAGE", schema.text("container of a Kubernetes Job, with diffinv in it"))
JOB = runtime.flag("job", "diffinv-table", schema.text("its name, of letters, digits and -"))


def command(arguments: Sequence[str], part: str = "") -> str:
    """The shell line of one part; `part` stands as it is, for the shell to fill in."""
    return shlex.join(["python", "-m", "experiments.evaluate", *arguments]) + (f" --part={part}" if part else "")


def slurm(arguments: Sequence[str]) -> str:
    """A script for sbatch, an array of parts."""
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={JOB.value} --array=0-{PARTS.value - 1} --time={MINUTES.value}",
        f"#SBATCH --gpus-per-task={GPUS.value} --output={LOGS.value}/%A_%a.log",
        *([f"#SBATCH --partition={PARTITION.value}"] if PARTITION.value else []),
        command(arguments, f"$SLURM_ARRAY_TASK_ID/{PARTS.value}"),
    ]
    return "\n".join(lines) + "\n"


def kubernetes(arguments: Sequence[str]) -> str:
    """An indexed Job, as JSON, which kubectl takes as it takes YAML."""
    limits = {"resources": {"limits": {"nvidia.com/gpu": GPUS.value}}} if GPUS.value else {}
    line = command(arguments, f"$JOB_COMPLETION_INDEX/{PARTS.value}")
    container = {"name": "part", "image": IMAGE.value, "command": ["sh", "-c", line], **limits}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": JOB.value},
        "spec": {
            "completions": PARTS.value,
            "parallelism": PARTS.value,
            "completionMode": "Indexed",
            "activeDeadlineSeconds": 60 * MINUTES.value,
            "template": {"spec": {"restartPolicy": "OnFailure", "containers": [container]}},
        },
    }
    return json.dumps(job, indent=1) + "\n"


def tpu(arguments: Sequence[str]) -> str:
    """The line that starts one process on every host of a pod, which then know each other."""
    inner = shlex.quote(f"cd diffinv && {command(arguments)}")
    return f"gcloud compute tpus tpu-vm ssh {JOB.value} --worker=all --command={inner}\n"


def local(arguments: Sequence[str]) -> str:
    """A line a part, one after the other."""
    return "\n".join(command(arguments, f"{i}/{PARTS.value}") for i in range(PARTS.value)) + "\n"


SCRIPTS: dict[str, Callable[[Sequence[str]], str]] = {
    "slurm": slurm,
    "kubernetes": kubernetes,
    "tpu": tpu,
    "local": local,
}


def run_part(arguments: Sequence[str], part: str, folder: str) -> int:
    """One part, in its job."""
    line = [sys.executable, "-m", "experiments.evaluate", *arguments, f"--part={part}"]
    return subprocess.run(line, cwd=folder, check=True).returncode


def submit(arguments: Sequence[str]) -> list[str]:
    """Hands every part to submitit; their numbers. Raises ValueError where it is not there, or cannot do it."""
    if HOW.value not in ("slurm", "local"):
        raise ValueError(f"--submit is for slurm and local, and --how is {HOW.value!r}; use what is printed without it")
    try:
        import submitit
    except ImportError:
        raise ValueError('--submit needs submitit: pip install "diffinv[slurm]"') from None
    folder = runtime.writable(Path(LOGS.value), "--logs")
    try:
        executor = submitit.AutoExecutor(folder, cluster=HOW.value)
    except RuntimeError as error:
        raise ValueError(f"--how is {HOW.value!r}, which this machine has not ({error}); use --how=local") from None
    own = {"slurm_partition": PARTITION.value} if PARTITION.value and HOW.value == "slurm" else {}
    gpus = {"gpus_per_node": GPUS.value} if HOW.value == "slurm" else {}
    executor.update_parameters(name=JOB.value, timeout_min=MINUTES.value, **gpus, **own)
    parts = [f"{i}/{PARTS.value}" for i in range(PARTS.value)]
    place = str(Path.cwd())
    with executor.batch():
        jobs = [executor.submit(run_part, list(arguments), part, place) for part in parts]
    return [job.job_id for job in jobs]


def main(arguments: list[str]) -> int:
    if any(each.lstrip("-").startswith("part=") for each in arguments):
        raise ValueError("--part is given after --, and each part has its own; leave it out")
    if not SUBMIT.value:
        print(SCRIPTS[HOW.value](arguments), end="")
        return 0
    numbers = submit(arguments)
    print(f"{len(numbers)} parts: {', '.join(numbers)}; logs in {LOGS.value}")
    return 0


if __name__ == "__main__":
    runtime.run(main, positional=True)
