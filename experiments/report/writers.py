"""Where numbers and pictures over steps may go beside `metrics.jsonl`: a CSV, TensorBoard, MLflow, Weights & Biases.

A writer is three functions. One's own is one entry of `WRITERS`, which `--writers` knows by its key. None of their
packages is imported unless it is asked for, and nothing leaves the machine: MLflow writes a folder and W&B runs offline
unless MLFLOW_TRACKING_URI or WANDB_MODE say otherwise.
"""

from __future__ import annotations

import csv
import importlib
import io
import os
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from diffinv.atomic import replacing


class Writer(NamedTuple):
    """Where a run's numbers go.

    Attributes:
      numbers: `(step, {name: number})`.
      picture: `(step, name, pixels)`, uint8 (H, W, C).
      close: writes what is waiting.
    """

    numbers: Callable[[int, Mapping[str, float]], None]
    picture: Callable[[int, str, np.ndarray], None]
    close: Callable[[], None]


def png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, C) as a file."""
    encoded = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(encoded, "PNG")
    return encoded.getvalue()


def _package(name: str, module: str) -> Any:
    """A module; ValueError with what to install where it lacks."""
    try:
        return importlib.import_module(module)
    except ImportError:
        told = f"--writers has {name}, which is not installed: pip install {name}, or leave it out"
        raise ValueError(told) from None


def in_csv(folder: str, step: int = 0) -> Writer:
    """`metrics.csv`, a line a number: step, name, value. Lines after `step` are removed, as in `metrics.jsonl`."""
    path, kept = Path(folder, "metrics.csv"), []
    if path.exists():
        with path.open(newline="", errors="replace") as old:
            kept = [row for row in csv.reader(old) if len(row) == 3 and row[0].isdigit() and int(row[0]) <= step]
    whole = io.StringIO(newline="")
    csv.writer(whole).writerows([["step", "name", "value"], *kept])
    with replacing(str(path)) as new:
        new.write(whole.getvalue().encode())
    file = path.open("a", buffering=1, newline="")
    numbers = lambda at, values: csv.writer(file).writerows([at, name, repr(value)] for name, value in values.items())
    return Writer(numbers, lambda *_: None, file.close)


def tensorboard(folder: str, step: int = 0) -> Writer:
    """TensorBoard's event files, in `tensorboard/`."""
    module = _package("tensorboard", "tensorboard.summary.writer.event_file_writer")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    events = module.EventFileWriter(os.path.join(folder, "tensorboard"))

    def write(at: int, values: list[dict[str, Any]]) -> None:
        summary = Summary(value=[Summary.Value(**value) for value in values])
        events.add_event(Event(wall_time=time.time(), step=at, summary=summary))

    def picture(at: int, name: str, pixels: np.ndarray) -> None:
        fields = {"height": pixels.shape[0], "width": pixels.shape[1], "encoded_image_string": png(pixels)}
        write(at, [{"tag": name, "image": fields}])

    numbers = lambda at, values: write(at, [{"tag": name, "simple_value": value} for name, value in values.items()])
    return Writer(numbers, picture, events.close)


def _kept_id(folder: str, name: str, made: Callable[[], str]) -> str:
    """What a service calls this run, so that a resumed one goes on in it."""
    path = Path(folder, f"{name}.id")
    if not path.exists():
        path.write_text(made())
    return path.read_text()


def mlflow(folder: str, step: int = 0) -> Writer:
    """An MLflow run, in the local store `mlruns/` unless MLFLOW_TRACKING_URI says where."""
    _package("mlflow", "mlflow")
    tracking = _package("mlflow", "mlflow.tracking")
    place = os.environ.get("MLFLOW_TRACKING_URI") or Path(folder, "mlruns").absolute().as_uri()
    if place.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer releases want to be told
    client, title = tracking.MlflowClient(tracking_uri=place), "diffinv"
    found = client.get_experiment_by_name(title)
    experiment = found.experiment_id if found else client.create_experiment(title)
    name = os.path.basename(os.path.abspath(folder))
    run = _kept_id(folder, "mlflow", lambda: client.create_run(experiment, run_name=name).info.run_id)

    def numbers(at: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            client.log_metric(run, tag, value, step=at)

    def picture(at: int, tag: str, pixels: np.ndarray) -> None:
        client.log_artifact(run, os.path.join(folder, f"{tag}_{at:06d}.png"))

    return Writer(numbers, picture, lambda: client.set_terminated(run))


def wandb(folder: str, step: int = 0) -> Writer:
    """A Weights & Biases run, offline in `wandb/` unless WANDB_MODE says online."""
    module = _package("wandb", "wandb")
    run = module.init(
        project="diffinv",
        name=os.path.basename(os.path.abspath(folder)),
        dir=folder,
        id=_kept_id(folder, "wandb", lambda: uuid.uuid4().hex[:8]),
        resume="allow",
        mode=os.environ.get("WANDB_MODE", "offline"),
    )
    picture = lambda at, name, pixels: run.log({name: module.Image(pixels)}, step=at)
    return Writer(lambda at, values: run.log(dict(values), step=at), picture, run.finish)


WRITERS: dict[str, Callable[[str, int], Writer]] = {
    "csv": in_csv,
    "tensorboard": tensorboard,
    "mlflow": mlflow,
    "wandb": wandb,
}
"""`(folder, step) -> Writer`; what a resumed run says again comes after `step`."""
