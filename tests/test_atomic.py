"""Files that are written whole or not at all: what an error, or an end at any moment, leaves behind."""

import os

import pytest

from diffinv.atomic import replacing


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
