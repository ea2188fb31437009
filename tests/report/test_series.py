"""Metrics over steps: lines that a resumed run does not double, and other writers' own readers read them."""

import csv
import json
import sys

import numpy as np
import pytest
from PIL import Image

from experiments.report import writers
from experiments.report.series import Series


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_does_not_repeat_its_lines(tmp_path):
    first = Series(str(tmp_path))
    for step in (1, 2, 3):
        first.write(step, {"loss": step / 2})
    first.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # cut short by a kill
    again = Series(str(tmp_path), step=2)
    again.write(2, {"loss": 7.0})
    again.write(3, {"loss": 9.0})
    again.close()
    assert lines(tmp_path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 9.0}]


def test_a_kill_while_the_lines_are_rewritten_loses_none(tmp_path, monkeypatch):
    first = Series(str(tmp_path))
    first.write(1, {"loss": 0.5})
    first.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('5\n{"step": "x"}\n\udcff\n'.encode("utf-8", "surrogateescape").decode("latin-1"))
    with monkeypatch.context() as context:
        context.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Series(str(tmp_path), step=1)
    Series(str(tmp_path), step=1).close()
    assert lines(tmp_path) == [{"step": 1, "loss": 0.5}]


def test_pictures_are_png(tmp_path):
    series, pixels = Series(str(tmp_path)), np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    series.picture(7, "samples", pixels)
    series.close()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "samples_000007.png")), pixels)


def test_tensorboard_reads_what_was_written(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    series = Series(str(tmp_path), writers=["tensorboard"])
    series.write(5, {"loss": 0.25, "held_out": {"0.1": 0.5, "1": 0.75}})
    series.picture(5, "samples", np.zeros((2, 2, 3), np.uint8))
    series.close()
    found = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {"loss", "held_out/0.1", "held_out/1"}
    assert [(event.step, event.value) for event in found.Scalars("held_out/1")] == [(5, 0.75)]
    assert found.Images("samples")[0].width == 2


def test_a_csv_has_a_line_a_number_and_a_resumed_run_goes_on_in_it(tmp_path):
    first = Series(str(tmp_path), writers=["csv"])
    first.write(1, {"loss": 0.1, "held_out": {"a, b": 1 / 3}})
    first.write(2, {"loss": 0.2})
    first.picture(2, "samples", np.zeros((2, 2, 1), np.uint8))
    first.close()
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("3,lo")  # cut short by a kill
    again = Series(str(tmp_path), 1, ["csv"])
    again.write(2, {"loss": 0.7})
    again.close()
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["step", "name", "value"],
        ["1", "loss", "0.1"],
        ["1", "held_out/a, b", repr(1 / 3)],
        ["2", "loss", "0.7"],
    ]


def test_mlflow_reads_what_was_written_and_a_resumed_run_is_the_same_run(tmp_path, monkeypatch):
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for step in (3, 4):
        series = Series(str(tmp_path), step, ["mlflow"])
        series.write(step, {"held_out": {"0.1": step / 8}})
        series.picture(step, "samples", np.zeros((2, 2, 3), np.uint8))
        series.close()
    client = tracking.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("diffinv").experiment_id])
    found = client.get_metric_history(run.info.run_id, "held_out/0.1")
    assert [(each.step, each.value) for each in found] == [(3, 0.375), (4, 0.5)]
    files = sorted(each.path for each in client.list_artifacts(run.info.run_id))
    assert files == ["samples_000003.png", "samples_000004.png"]


def test_wandb_keeps_a_run_on_this_machine(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    series = Series(str(tmp_path), writers=["wandb"])
    series.write(3, {"loss": 0.5})
    series.picture(3, "samples", np.zeros((2, 2, 3), np.uint8))
    series.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_writer_whose_package_lacks_is_named_before_anything_is_lost(tmp_path, monkeypatch, name):
    before = Series(str(tmp_path))
    before.write(1, {"loss": 1.0})
    before.close()
    module = "tensorboard.summary.writer.event_file_writer" if name == "tensorboard" else name
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=f"--writers has {name}, which is not installed: pip install {name}"):
        Series(str(tmp_path), 1, [name])
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}]


def test_every_writer_gets_each_number_once(tmp_path, monkeypatch):
    told = []
    own = writers.Writer(lambda *row: told.append(row), lambda *row: told.append(row[:2]), lambda: told.append("end"))
    monkeypatch.setitem(writers.WRITERS, "own", lambda folder, step: own)
    series = Series(str(tmp_path), writers=["own"])
    series.write(2, {"loss": 1, "levels": [0.5, 0.25], "name": {"a": 2.0}})
    series.picture(2, "samples", np.zeros((2, 2, 1), np.uint8))
    series.close()
    assert told == [(2, {"loss": 1.0, "levels/0": 0.5, "levels/1": 0.25, "name/a": 2.0}), (2, "samples"), "end"]
