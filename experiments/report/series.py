"""Metrics over training steps: JSON lines always, and whatever writers are asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffinv.atomic import replacing
from experiments.report.writers import WRITERS, png


def _whole_lines(path: str, before: int) -> list[str]:
    """The lines of steps up to `before`; one that a kill cut short is dropped."""
    if not os.path.exists(path):
        return []
    kept = []
    with open(path, errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int) and row["step"] <= before:
                kept.append(line if line.endswith("\n") else f"{line}\n")
    return kept


def _rewrite(path: str, lines: list[str]) -> None:
    """A kill leaves the old lines or the new ones."""
    with replacing(path) as file:
        file.writelines(line.encode() for line in lines)


class Series:
    """`write(step, {...})` to `folder/metrics.jsonl` and to `writers`; `picture(step, name, pixels)` to a PNG, too.

    Lines of steps after `step`, which a resumed run will write again, are removed at the start. `writers` are names of
    `writers.WRITERS`; ValueError for one whose package lacks.
    """

    def __init__(self, folder: str, step: int = 0, writers: Sequence[str] = ()):
        self.folder, path = folder, os.path.join(folder, "metrics.jsonl")
        kept = _whole_lines(path, step)
        _rewrite(path, kept)
        self.writers = [WRITERS[name](folder, step) for name in writers]
        self.file = open(path, "a", buffering=1)
        self.known = {(line["step"], *sorted(line)) for line in map(json.loads, kept)}

    def write(self, step: int, values: dict[str, Any]) -> None:
        """One line; numbers, and dicts or lists of numbers, which writers get as `name/key`.

        A line of this step and these names that is there already stays as it is.
        """
        if (step, *sorted(["step", *values])) in self.known:
            return
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        flat: dict[str, Any] = {name: value for name, value in values.items() if np.isscalar(value)}
        for name, value in values.items():
            if isinstance(value, dict | list):
                items = value.items() if isinstance(value, dict) else enumerate(value)
                flat |= {f"{name}/{key}": item for key, item in items}
        for writer in self.writers:
            writer.numbers(step, {name: float(value) for name, value in flat.items()})

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """uint8 (H, W, C) as `folder/name_STEP.png` and to the writers."""
        with open(os.path.join(self.folder, f"{name}_{step:06d}.png"), "wb") as file:
            file.write(png(pixels))
        for writer in self.writers:
            writer.picture(step, name, pixels)

    def close(self) -> None:
        """Flushes all."""
        self.file.close()
        for writer in self.writers:
            writer.close()
