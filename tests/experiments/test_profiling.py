"""`--profile=DIR`: which rounds a trace holds, and that it is written."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from experiments.common import profiling


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Where traces go, as if the flag had been given; no rounds yet."""
    monkeypatch.setattr(profiling, "PROFILE", SimpleNamespace(value=str(tmp_path / "trace")))
    monkeypatch.setattr(profiling, "flags", SimpleNamespace(FLAGS=SimpleNamespace(is_parsed=lambda: True)))
    monkeypatch.setattr(profiling, "_seen", [])
    return tmp_path / "trace"


@pytest.fixture
def told(monkeypatch, folder):
    """What is asked of the profiler, and the rounds in between."""
    found = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: found.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: found.append("stop"))
    return found


def rounds(told, count, warm):
    for i in range(count):
        profiling.before_round(warm, None)
        told.append(i)


def test_three_rounds_after_the_warm_ones_are_traced_once(told, capsys):
    rounds(told, 9, 2)
    profiling.stop()
    assert told == [0, 1, "start", 2, 3, 4, "stop", 5, 6, 7, 8]
    assert "a profiler's trace of 3 rounds is in" in capsys.readouterr().out


def test_a_command_with_fewer_rounds_ends_its_trace_when_it_ends(told, capsys):
    rounds(told, 2, 0)
    profiling.stop()
    profiling.stop()
    assert told == ["start", 0, 1, "stop"] and "trace of 2 rounds" in capsys.readouterr().out


def test_a_command_that_never_warms_up_has_none(told):
    rounds(told, 2, 2)
    profiling.stop()
    assert told == [0, 1]


def test_without_the_flag_nothing_happens(told, monkeypatch):
    monkeypatch.setattr(profiling, "PROFILE", SimpleNamespace(value=""))
    rounds(told, 6, 2)
    assert told == list(range(6))


def test_a_trace_is_written(folder):
    for _ in range(4):
        profiling.before_round()
        jnp.ones(3).block_until_ready()
    assert list(folder.rglob("*.xplane.pb"))


def test_a_folder_that_cannot_be_written_is_named(folder):
    folder.write_text("a file")
    with pytest.raises(OSError, match="--profile is .*trace.*give another folder"):
        profiling.before_round()
