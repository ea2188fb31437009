"""Metrics over steps: lines that a resumed run does not double, and TensorBoard's own reader reads them."""

import json

import numpy as np
import pytest
from PIL import Image

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
    series = Series(str(tmp_path))
    assert series.tensorboard
    series.write(5, {"loss": 0.25, "held_out": {"0.1": 0.5, "1": 0.75}})
    series.picture(5, "samples", np.zeros((2, 2, 3), np.uint8))
    series.close()
    found = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {"loss", "held_out/0.1", "held_out/1"}
    assert [(event.step, event.value) for event in found.Scalars("held_out/1")] == [(5, 0.75)]
    assert found.Images("samples")[0].width == 2


def test_without_tensorboard_the_lines_are_kept(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.summary.writer.event_file_writer", None)
    series = Series(str(tmp_path))
    series.write(1, {"loss": 1.0})
    series.picture(1, "samples", np.zeros((2, 2, 1), np.uint8))
    series.close()
    assert not series.tensorboard and lines(tmp_path) == [{"step": 1, "loss": 1.0}]
