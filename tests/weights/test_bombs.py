"""Files that claim more than they hold: refused in one line, before memory or time is spent."""

import io
import json
import os
import pickle
import struct
import time
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from diffinv import limits
from diffinv.weights.convert import placing, safetensors, torchfile, torchwrite

MEBI = 2**20


def refused(call, most=64 * MEBI):
    """The one line, without more than `most` bytes taken or a second spent."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(ValueError) as error:
            call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most and time.process_time() - start < 5 and "\n" not in str(error.value)
    return str(error.value)


def pickled(path, body, **members):
    """A zip checkpoint with this pickle, whose members are deflated."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", body)
        for name, content in members.items():
            archive.writestr(f"a/data/{name}", content)
    return path


def header(path, name, size):
    """Writes `size` into the file's sizes of the member, as a file would that lies about it."""
    raw = bytearray(path.read_bytes())
    for magic, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = raw.find(magic)
        while at >= 0:
            start = at + (30 if magic == b"PK\x03\x04" else 46)
            if raw[start : start + len(name)] == name:
                raw[at + place : at + place + 4] = struct.pack("<I", size)
            at = raw.find(magic, at + 4)
    path.write_bytes(raw)


def nested(depth=40):
    """A tuple of two of the tuple before, `depth` times: 2^40 leaves in 200 bytes."""
    body = b"K\x01" + pickle.BINPUT + b"\0"
    for _ in range(depth):
        body += pickle.BINGET + b"\0" + pickle.TUPLE2 + pickle.BINPUT + b"\0"
    return body


def test_a_memo_index_takes_no_table(tmp_path):
    body = b"\x80\x02}" + pickle.LONG_BINPUT + struct.pack("<I", 2**29) + b"X\1\0\0\0aK\1s."
    assert torchfile.load(pickled(tmp_path / "x.pt", body)) == {"a": 1}


def test_deflated_members_are_bounded_by_what_they_declare(tmp_path):
    body = b"\x80\x02}."
    path = pickled(tmp_path / "x.pt", body, key=bytes(100 * MEBI))
    assert path.stat().st_size < MEBI
    line = refused(lambda: torchfile.load(path, limit=50 * MEBI))
    assert "x.pt declares 105 MB, and the limit is 52428800 bytes" in line and "raise the limit" in line
    assert torchfile.load(path, limit=200 * MEBI) == {}
    header(path, b"a/data/key", 2**32 - 1)
    assert "declares 4.29 GB, and the limit is 26" in refused(lambda: torchfile.load(path))


def test_a_pickle_of_very_many_opcodes(tmp_path, monkeypatch):
    path = pickled(tmp_path / "x.pt", b"\x80\x02}" + b"N0" * 3000 + b".")
    assert torchfile.load(path) == {}
    monkeypatch.setattr(torchfile, "OPCODES", 5000)
    assert "more than 5000 opcodes" in refused(lambda: torchfile.load(path))
    monkeypatch.setattr(torchfile, "PICKLE", 5000)
    assert "the pickle in" in refused(lambda: torchfile.load(path))


@pytest.mark.parametrize(
    "body, word",
    [
        (b"}X\1\0\0\0a" + nested() + b"s.", "{'a':"),
        (b"}" + nested() + b"K\1s.", "a tuple as a key"),
        (b"}(" + nested() + b"K\1u.", "a tuple as a key"),
        (b"(" + nested() + b"K\1d.", "a tuple as a key"),
        (b"\x8f(" + nested() + b"\x90.", "a set"),
        (nested() + b"Q.", "not named as torch names it"),
        (b"(" + nested() + b"K\1K\1K\1K\1tQ.", "of type int"),
        (b"ccollections\nOrderedDict\n(" + nested() + b"tR.", "fills a dictionary"),
        (b"ctorch\nSize\n" + nested() + b"\x85R.", "shape or strides"),
        (b"\x96" + struct.pack("<Q", 2**40) + b".", "a byte array"),
        (b"\x8d" + struct.pack("<Q", 2**50) + b"abc.", "ends early"),
        (b"\x95" + struct.pack("<Q", 2**50) + b"}.", "ends early"),
        (b"]" * 5000 + b"a" * 4999 + b".", "recursion"),
    ],
    ids=range(13),
)
def test_what_a_pickle_names_often_is_not_walked_often(tmp_path, body, word):
    path = pickled(tmp_path / "x.pt", b"\x80\x02" + body)
    if word.startswith("{"):
        assert set(torchfile.load(path)) == {"a"}
    else:
        assert word in refused(lambda: torchfile.load(path))


def test_tensors_without_strides_count_as_what_they_are(tmp_path):
    """One number seen as many: 64 of them of 4 GB are refused, and so is the network that they would make."""
    torchwrite.write_state_dict(tmp_path / "x.pt", {"w": np.ones((1, 2**14), np.float32)})
    one = tmp_path / "one.pt"
    with zipfile.ZipFile(tmp_path / "x.pt") as old, zipfile.ZipFile(one, "w") as new:
        body = old.read("archive/data.pkl")
        shape = lambda *n: b"(" + b"".join(b"J" + struct.pack("<i", k) for k in n) + b"t"
        body = body.replace(shape(1, 2**14), shape(2**15, 2**15)).replace(shape(2**14, 1), shape(0, 0))
        new.writestr("a/data.pkl", body)
        new.writestr("a/data/0", old.read("archive/data/0"))
    assert "one.pt declares 4.29 GB, and the limit is 26" in refused(lambda: torchfile.load(one))
    assert torchfile.load(one, limit=2**33)["w"].strides == (0, 0)


def test_npz_members_are_bounded_and_held_to_their_headers(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.zeros(10 * MEBI, np.float64), b=np.ones(3, np.float32))
    assert path.stat().st_size < MEBI
    assert "x.npz declares 83.9 MB" in refused(lambda: placing.read_state(path, limit=80 * MEBI))
    state, _ = placing.read_state(path)
    np.testing.assert_array_equal(state["b"], np.ones(3, np.float32))
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 3)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", file.getvalue() + bytes(12))
    assert "array 'w' cannot be read: it declares 12 TB and holds 12 bytes" in refused(lambda: placing.read_state(path))
    (tmp_path / "x.npy").write_bytes(file.getvalue() + bytes(12))
    assert "declares 12 TB" in refused(lambda: limits.array(tmp_path / "x.npy"))
    np.savez(path, w=np.array([{"a": 1}], object))
    assert "it holds objects; save plain numbers" in refused(lambda: placing.read_state(path))
    np.savez(path, w=np.zeros(2, [("a", "f4"), ("b", "i4")]))
    assert "it holds records; save plain numbers" in refused(lambda: placing.read_state(path))


def test_arrays_of_both_forms_come_back(tmp_path):
    value = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.savez(tmp_path / "x.npz", value=value)
    np.save(tmp_path / "x.npy", value)
    np.testing.assert_array_equal(limits.arrays(tmp_path / "x.npz")["value"], value)
    np.testing.assert_array_equal(limits.array(tmp_path / "x.npy"), value)


def written(path, tensors):
    """A safetensors file of (name, dtype, shape, bytes)."""
    head, body = {}, b""
    for name, dtype, shape, raw in tensors:
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def test_short_floats_of_safetensors(tmp_path):
    value = np.array([0.5, -2.0], ml_dtypes.float8_e4m3fn)
    path = written(tmp_path / "x.safetensors", [("w", "F8_E4M3", [2], value.tobytes())])
    found = placing.read_state(path)[0]["w"]
    assert found.dtype == ml_dtypes.float8_e4m3fn
    np.testing.assert_array_equal(found.astype(np.float32), [0.5, -2.0])
    path = written(tmp_path / "x.safetensors", [("w", "F4", [4], b"\x01\x02")])
    assert "'w' is of type F4, which is not read; save it as F32 or BF16" in refused(lambda: placing.read_state(path))


@pytest.mark.parametrize("content", [bytes(64), b"\xff" * 64, b"", b"abc", (2**23).to_bytes(8, "little") + b"{}"])
def test_broken_safetensors(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    assert "no safetensors file" in refused(lambda: placing.read_state(tmp_path / "x.safetensors"))
    with pytest.raises(ValueError, match="no safetensors"):
        safetensors.from_bytes(content, "x")


def test_a_pipe_is_not_waited_for(tmp_path):
    for suffix in (".pt", ".npz", ".safetensors"):
        os.mkfifo(tmp_path / f"x{suffix}")
        assert "a pipe or a device; give a file" in refused(lambda s=suffix: placing.read_state(tmp_path / f"x{s}"))


def test_names_of_wrappers_are_taken_off(tmp_path):
    one = np.ones(1, np.float32)
    wrapped = {"module.a.weight": one, "module._orig_mod.b": one, "_orig_mod.c": one, "d._orig_mod.module.e": one}
    torchwrite.write_state_dict(tmp_path / "x.pt", wrapped)
    assert list(placing.read_state(tmp_path / "x.pt")[0]) == ["a.weight", "b", "c", "d.module.e"]
    torchwrite.write_state_dict(tmp_path / "x.pt", {"module.a": one, "a": one})
    assert "has 'a' with and without the name of a wrapper" in refused(lambda: placing.read_state(tmp_path / "x.pt"))
