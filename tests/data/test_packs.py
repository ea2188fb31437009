"""Packs of PNG and JPEG files: splits, the guard between them, and refusals of broken ones."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from diffinv import data


def encoded(i, size=8):
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size), 30 * i, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def pack(path, count=6, **changes):
    """Grey PNG files in splits 0, 1 and 2, where a change may replace any array, or leave it out by None."""
    files = [encoded(i) for i in range(count)]
    arrays = {
        "png": np.frombuffer(b"".join(files), np.uint8),
        "offset": np.cumsum([0, *map(len, files)]),
        "label": np.arange(count, dtype=np.int16) % 2,
        "split": np.arange(count, dtype=np.uint8) % 3,
        "index": np.arange(count, dtype=np.int16),
        "meta": np.frombuffer(json.dumps({"classes": ["axial", "coronal"]}).encode(), np.uint8),
    }
    np.savez(path, **{name: value for name, value in {**arrays, **changes}.items() if value is not None})
    return str(path)


def test_a_png_pack_and_its_guard(tmp_path):
    path = pack(tmp_path / "x.pngpack.npz")
    listing = data.catalogue(path)
    assert listing.classes == ("axial", "coronal")
    found = list(listing.records())
    assert [(r.name, r.label, r.split) for r in found] == [("0", 0, 0), ("1", 1, 1), ("3", 1, 0), ("4", 0, 1)]
    for split, levels in ((0, [0, 90]), (1, [30, 120]), (None, [0, 30, 90, 120])):
        pixels = data.read(path, split=split, channels=1).pixels
        assert pixels.shape[1:] == (8, 8, 1) and pixels[:, 0, 0, 0].tolist() == levels
    patches = data.patches(path, 8, channels=1, split="validation")
    np.testing.assert_array_equal(patches.take([0, 1])["image"][:, 0, 0, 0], [30, 120])


def test_a_png_pack_is_learnt_from(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    path = pack(tmp_path / "x.pngpack.npz")
    for split, levels in (("train", [0, 90]), ("validation", [30, 120])):
        source = data.source(path, 4, split, str(tmp_path / "store"), channels=1)
        found = source.take(range(len(source)))
        assert found["image"].shape == (2, 4, 4, 1) and sorted(found["image"][:, 0, 0, 0].tolist()) == levels


def test_a_pack_without_what_may_be_left_out(tmp_path):
    found = data.catalogue(pack(tmp_path / "x.npz", label=None, split=None, meta=None))
    assert found.classes == ("",) and {record.split for record in found.records()} == {None}
    kinds = np.frombuffer(json.dumps({"category": list("bbaaab")}).encode(), np.uint8)
    found = data.catalogue(pack(tmp_path / "x.npz", label=None, split=None, meta=kinds))
    assert found.classes == ("a", "b") and [record.label for record in found.records()] == [1, 1, 0, 0, 0, 1]
    found = data.catalogue(pack(tmp_path / "x.npz", meta=None))
    assert found.classes == ("0", "1")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"offset": None}, "without offset"),
        ({"offset": np.asarray([0, 10**9])}, "offset does not divide png"),
        ({"offset": np.asarray([0, 9, 3, 12, 40, 50, 60])}, "offset does not divide png"),
        ({"offset": np.asarray([-4, 9, 13, 14, 40, 50, 60])}, "offset does not divide png"),
        ({"offset": np.zeros(0, int)}, "offset does not divide png"),
        ({"offset": np.zeros((2, 4), int)}, "offset is int64 of shape"),
        ({"offset": np.linspace(0, 9, 7)}, "offset is float64"),
        ({"png": np.array(3, np.uint8)}, r"png is uint8 of shape \(\)"),
        ({"label": np.zeros(5, int)}, "label or split does not fit its 6 pictures"),
        ({"label": np.full(6, -1)}, "label or split"),
        ({"label": np.full(6, 2)}, "label 2 has no name among 2"),
        ({"split": np.full(6, 3, np.uint8)}, "label or split"),
        ({"split": np.zeros(5, np.uint8)}, "label or split"),
        ({"meta": np.frombuffer(b"{", np.uint8)}, "meta is no JSON"),
        ({"meta": np.frombuffer(b"[1]", np.uint8)}, "meta is no JSON object"),
        ({"meta": np.frombuffer(b"[" * 200_000, np.uint8)}, "meta is no JSON"),
        ({"meta": np.frombuffer(b'{"classes": 3}', np.uint8)}, "classes of its meta"),
    ],
)
def test_a_broken_pack_is_one_line(tmp_path, changes, word):
    with pytest.raises(ValueError, match=f"x.npz.*{word}") as error:
        data.catalogue(pack(tmp_path / "x.npz", **changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"header_offset": None}, "without header_offset"), ({"header_id": np.full(6, 7, np.uint16)}, "header_id")],
)
def test_a_broken_jpeg_pack_is_one_line(tmp_path, changes, word):
    head = {"header": np.zeros(4, np.uint8), "header_offset": np.asarray([0, 4]), "header_id": np.zeros(6, np.uint16)}
    payload = {"payload": np.zeros(12, np.uint8), "offset": np.arange(0, 14, 2), "png": None}
    with pytest.raises(ValueError, match=word):
        data.catalogue(pack(tmp_path / "x.npz", **{**head, **payload, **changes}))


def test_a_damaged_picture_in_a_pack_is_named(tmp_path):
    files = [encoded(i) for i in range(6)]
    files[2] = b"broken"
    changes = {
        "png": np.frombuffer(b"".join(files), np.uint8),
        "offset": np.cumsum([0, *map(len, files)]),
        "split": None,
    }
    found = data.read(pack(tmp_path / "x.npz", **changes))
    assert found.names == ["0", "1", "3", "4", "5"] and found.skipped[0].startswith("2: ")
