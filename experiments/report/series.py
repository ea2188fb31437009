"""Metrics over training steps: JSON lines always, TensorBoard files where its writer is installed."""

from __future__ import annotations

import io
import json
import os
import time
from typing import Any

import numpy as np

from diffinv.atomic import replacing


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


def _event_writer(folder: str) -> Any:
    try:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        return None
    return EventFileWriter(folder)


class Series:
    """`write(step, {...})` to `folder/metrics.jsonl` and to TensorBoard; `picture(step, name, pixels)` to a PNG too.

    Lines of steps after `step`, which a resumed run will write again, are removed at the start.

    Attributes:
      tensorboard: whether its writer is installed.
    """

    def __init__(self, folder: str, step: int = 0):
        self.folder, path = folder, os.path.join(folder, "metrics.jsonl")
        kept = _whole_lines(path, step)
        _rewrite(path, kept)
        self.file, self.events = open(path, "a", buffering=1), _event_writer(os.path.join(folder, "tensorboard"))
        self.tensorboard = self.events is not None
        self.known = {(line["step"], *sorted(line)) for line in map(json.loads, kept)}

    def write(self, step: int, values: dict[str, Any]) -> None:
        """One line; numbers, and dicts or lists of numbers, which TensorBoard gets as `name/key`.

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
        self._event(step, [{"tag": name, "simple_value": float(value)} for name, value in flat.items()])

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """uint8 (H, W, C) as `folder/name_STEP.png` and in TensorBoard."""
        from PIL import Image

        encoded = io.BytesIO()
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        image.save(encoded, "PNG")
        with open(os.path.join(self.folder, f"{name}_{step:06d}.png"), "wb") as file:
            file.write(encoded.getvalue())
        fields = {"height": image.height, "width": image.width, "encoded_image_string": encoded.getvalue()}
        self._event(step, [{"tag": name, "image": fields}])

    def _event(self, step: int, values: list[dict[str, Any]]) -> None:
        if self.events is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(**value) for value in values])
        self.events.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Flushes both."""
        self.file.close()
        if self.events is not None:
            self.events.close()
