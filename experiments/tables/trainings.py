"""What tables train: an export of `experiments.train`, made where it is not there yet."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffinv import weights


def flags(file: str, changes: dict[str, Any]) -> list[str]:
    """The flags of `experiments.train`: configs/`file`.py, and the fields that are changed."""
    return [f"--config=configs/{file}.py", *(f"--config.{name}={value}" for name, value in changes.items())]


def export(what: str, folder: Path, name: str, given: list[str], same: Callable[[dict[str, Any]], bool]) -> str:
    """The path of an export called `name` in a folder, trained with the flags `given` where it is not there yet.

    Args: what: is trained, for an error; same: whether an export's card is of this training.

    Raises ValueError with the last line of a training that failed.
    """
    path = str(folder / name)
    if os.path.exists(f"{path}.json") and same(weights.read_card(path)):
        return path
    command = [sys.executable, "-m", "experiments.train", *given, f"--workdir={folder}"]
    done = subprocess.run(command, stderr=subprocess.PIPE)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise ValueError(f"the training of {what} ended with {done.returncode}: {said[-1]}")
    return path
