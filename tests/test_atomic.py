"""Files that are written whole or not at all: what an error, or an end at any moment, leaves behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from diffinv.atomic import replacing, tidy


@pytest.mark.parametrize("old", [None, b"old"])
def test_the_content_is_there_at_the_end_and_not_before(tmp_path, old):
    path = tmp_path / "x.bin"
    if old is not None:
        path.write_bytes(old)
    with replacing(path) as file:
        file.write(b"new ")
        file.writelines([b"and ", b"more"])
        file.flush()
        assert (path.read_bytes() if path.exists() else None) == old
    assert path.read_bytes() == b"new and more" and os.listdir(tmp_path) == ["x.bin"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["block", "fsync", "replace"])
def test_what_fails_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, where, kind):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def fail(*_):
        raise kind("in the middle")

    if where != "block":
        monkeypatch.setattr(os, where, fail)
    with pytest.raises(kind, match="in the middle"), replacing(str(path)) as file:
        file.write(b"half of it")
        if where == "block":
            fail()
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x.bin"]


def test_a_folder_that_is_none_is_the_systems_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "nowhere" / "x", tmp_path / "file" / "x"):
        with pytest.raises(OSError), replacing(path):
            pytest.fail("there is nothing to write to")


def test_a_killed_writer_s_half_is_swept_and_a_living_one_s_is_not(tmp_path):
    """Below the folder, too; other files that end alike stay."""
    inner = tmp_path / "cells"
    inner.mkdir()
    (inner / "mine.tmp").write_bytes(b"no temporary of ours")
    code = "import sys, time; from diffinv.atomic import replacing\n"
    code += "with replacing(sys.argv[1]) as file: file.write(b'half'); file.flush(); print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code, str(inner / "x.bin")], stdout=subprocess.PIPE)
    child.stdout.readline()
    left = lambda: sorted(path.name for path in inner.iterdir())
    assert len(left()) == 2
    tidy(tmp_path)
    assert len(left()) == 2, "its writer lives"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert len(left()) == 2
    tidy(tmp_path)
    assert left() == ["mine.tmp"]
    tidy(tmp_path / "nowhere")


def test_a_writer_whose_file_was_swept_before_it_was_locked_begins_anew(tmp_path, monkeypatch):
    import fcntl

    path, times, lock = tmp_path / "x.bin", [], fcntl.flock

    def late(file, how):
        if not times:
            next(tmp_path.glob(".*.tmp")).unlink()
        times.append(time.time())
        return lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with replacing(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole" and len(times) == 2 and os.listdir(tmp_path) == ["x.bin"]


def test_without_locks_files_are_written_all_the_same(tmp_path, monkeypatch):
    import fcntl

    def none(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / ".y.1-1.tmp").write_bytes(b"of nobody knows whom")
    with replacing(tmp_path / "x.bin") as file:
        file.write(b"whole")
    tidy(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".y.1-1.tmp", "x.bin"]
