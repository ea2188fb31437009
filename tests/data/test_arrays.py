"""Arrays from files: their sizes are bounded first, and their numbers mean what they say or are refused."""

import gzip
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from diffinv import data
from diffinv.data import arrays, reader
from diffinv.data.arrays import Refused

BYTES = np.random.default_rng(0).integers(0, 256, (3, 9, 10, 3)).astype(np.uint8)
BYTES[0, 0, 0] = 255


def pixels(path, array, **more):
    np.savez(path, images=array, **more)
    return data.read(str(path)).pixels


@pytest.mark.parametrize(
    "array",
    [
        BYTES, BYTES.astype(np.int64), BYTES.astype(np.uint16) * 257, BYTES / 255, BYTES / 127.5 - 1,
        BYTES.astype(float), (BYTES / 127.5 - 1).astype(np.float32), np.moveaxis(BYTES, -1, 1),
        np.asfortranarray(BYTES), BYTES.astype(">u2") * 257,
    ],
    ids="uint8 int64 uint16 [0,1] [-1,1] 0..255 float32 NCHW fortran bigendian".split(),
)  # fmt: skip
def test_every_plain_form_is_the_same_pictures(tmp_path, array):
    np.testing.assert_array_equal(pixels(tmp_path / "x.npz", array), BYTES)


def test_grey_bool_and_transparency(tmp_path):
    np.testing.assert_array_equal(pixels(tmp_path / "g.npz", BYTES[..., 0]), BYTES[..., :1].repeat(3, -1))
    np.testing.assert_array_equal(pixels(tmp_path / "b.npz", BYTES > 99), np.where(BYTES > 99, 255, 0))
    clear = np.concatenate([BYTES, np.zeros_like(BYTES[..., :1])], -1)
    assert (pixels(tmp_path / "a.npz", clear) == 255).all()


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.where(BYTES > 9, BYTES / 255, np.nan), "NaN or infinity"),
        (np.where(BYTES > 9, BYTES / 255, np.inf), "NaN or infinity"),
        (BYTES / 255 * 1.4, "almost black"),
        (BYTES / 255 * 0.1, "almost black"),
        (BYTES / 255 - 0.1, "LOW,HIGH"),
        (BYTES.astype(np.int32) * 9, "LOW,HIGH"),
        (BYTES.astype(np.int16) - 200, "LOW,HIGH"),
        (BYTES.astype(np.uint16), "almost black"),
        (BYTES // 200, "0 and 1 alone"),
        (np.zeros((3, 9, 9, 5), np.uint8), r"shape \(3, 9, 9, 5\)"),
        (np.zeros((3, 9, 9, 2), np.uint8), r"shape \(3, 9, 9, 2\)"),
        (np.zeros((9, 9, 3), np.uint8), "also where there is one picture"),
        (np.zeros((2, 3, 9, 3), np.uint8), "first or last"),
        (np.zeros((9, 9), np.uint8), "shape"),
        (np.zeros(9, np.uint8), "shape"),
        (np.array(3), "shape"),
        (np.zeros((0, 9, 9, 3), np.uint8), "shape"),
        (np.zeros((3, 9, 9, 4)), "transparency in 8 or 16 bits"),
        (BYTES * 1j, "complex"),
        (np.zeros((3, 9, 9), [("red", "u1")]), "give numbers"),
        (np.full((3, 9, 9), "a"), "whole numbers or floats"),
    ],
)
def test_what_is_not_plain_is_refused_by_name(tmp_path, array, word):
    with pytest.raises(ValueError, match=f"x.npz: images .*{word}") as error:
        pixels(tmp_path / "x.npz", array)
    assert "\n" not in str(error.value)


def test_one_picture_in_a_npy(tmp_path):
    grey = BYTES[0, ..., 0]
    for array in (grey, grey[..., None], grey[None], grey[None, ..., None]):
        np.save(tmp_path / "x.npy", array)
        np.testing.assert_array_equal(reader.read_picture(str(tmp_path / "x.npy")).values, grey[..., None])
    np.save(tmp_path / "x.npy", np.moveaxis(BYTES[0], -1, 0))
    np.testing.assert_array_equal(data.read(str(tmp_path)).pixels, BYTES[:1])
    np.save(tmp_path / "x.npy", BYTES)
    with pytest.raises(OSError, match="3 pictures; save them as `images`"):
        reader.read_picture(str(tmp_path / "x.npy"))


@pytest.mark.parametrize(
    "labels",
    [[2, 0, 1], [[2], [0], [1]], np.eye(3)[[2, 0, 1]], np.eye(3, dtype=bool)[[2, 0, 1]], [2.0, 0, 1], ["c", "a", "b"],
     np.asarray([b"c", b"a", b"b"])],
    ids="flat column one-hot bools floats words bytes".split(),
)  # fmt: skip
def test_plain_labels(tmp_path, labels):
    np.savez(tmp_path / "x.npz", images=BYTES, labels=labels)
    listing = data.catalogue(str(tmp_path / "x.npz"))
    assert [record.label for record in listing.records()] == [2, 0, 1]
    assert listing.classes in (("0", "1", "2"), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        ([0, 1], "for 3 pictures"), ([0, 1, -1], "-1 to 1"), ([0, 1, 0.5], "whole numbers"), ([0, 1, np.nan], "whole"),
        (np.ones((3, 2)), "not one-hot"), (np.zeros((3, 3)), "not one-hot"), ([0, 1, 10**9], "runs from"), (3, "shape"),
        (np.zeros((3, 1, 1)), "shape"), ([0, 1, 2j], "complex"),
    ],
)  # fmt: skip
def test_other_labels_are_refused(tmp_path, labels, word):
    with pytest.raises(ValueError, match=f"x.npz: labels .*{word}"):
        pixels(tmp_path / "x.npz", BYTES, labels=labels)


def test_splits_of_arrays(tmp_path):
    halves = {"train_images": BYTES[:2], "val_images": BYTES[2:], "test_images": BYTES[2:]}
    np.savez(tmp_path / "x.npz", **halves, train_labels=[[1], [0]], val_labels=[[1]], test_labels=[[0]])
    found = list(data.catalogue(str(tmp_path / "x.npz")).records())
    assert [(r.name, r.label, r.split) for r in found] == [
        ("train/0", 1, 0), ("train/1", 0, 0), ("val/0", 1, 1), ("test/0", 0, 1),
    ]  # fmt: skip
    np.savez(tmp_path / "x.npz", **halves, test_labels=[0])
    with pytest.raises(ValueError, match="lacks train_labels, val_labels"):
        data.catalogue(str(tmp_path / "x.npz"))
    np.savez(tmp_path / "x.npz", x_train=BYTES[:2], y_train=[3, 4])
    assert [record.split for record in data.catalogue(str(tmp_path / "x.npz")).records()] == [None, None]


def declared(path, shape, descr="|u1", more=b"\0" * 64):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n".encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + more)
    return path


@pytest.mark.parametrize(
    ("shape", "word"),
    [
        ((3_000_000_000_000, 3), "limit of 2147483648"),
        ((10**30,), "limit"),
        ((90, 90), "and holds"),
        ((-3, 4), "damaged"),
    ],
)
def test_a_header_is_not_believed(tmp_path, shape, word):
    path = declared(tmp_path / "x.npy", shape)
    with pytest.raises(Refused, match=word):
        arrays.npy(str(path), 2**31)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.write(path, "images.npy")
    with pytest.raises(Refused, match=f"x.npz: images .*{word}"):
        data.catalogue(str(tmp_path / "x.npz"))


def test_bombs_take_no_memory(tmp_path):
    """50 MB of zeros that deflate to 50 kB, in a `.npz` and in an IDX file."""
    zeros, shape = b"\0" * 2**20, (50, 2**10, 2**10)
    head = declared(tmp_path / "h.npy", shape, more=b"").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("images.npy", "w") as member:
            for part in [head, *[zeros] * 50]:
                member.write(part)
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb", 1) as file:
        for part in [b"\0\0\x08\x03", np.asarray([1, 2, 2], ">i4").tobytes(), *[zeros] * 50]:
            file.write(part)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x01\0")
    tracemalloc.start()
    with pytest.raises(ValueError, match="limit of 1000000"):
        data.catalogue(str(tmp_path / "x.npz"), data.Reading(bytes=10**6))
    with pytest.raises(ValueError, match="more than 4 bytes"):
        data.catalogue(str(tmp_path))
    assert tracemalloc.get_traced_memory()[1] < 2e7
    tracemalloc.stop()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x93NUMPY\x03\x00" + b"\xff" * 9, b"text"])
def test_broken_files_are_one_line(tmp_path, content):
    for name in ("x.npy", "x.npz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OSError, match="readable array|version") as error:
            data.picture(str(tmp_path / name)) if name == "x.npy" else data.catalogue(str(tmp_path / name))
        assert "\n" not in str(error.value)


def test_words_number_the_same_in_every_split(tmp_path):
    images = {"train_images": BYTES, "test_images": BYTES[:2]}
    np.savez(tmp_path / "x.npz", **images, train_labels=["dog", "cat", "eel"], test_labels=["eel", "dog"])
    listing = data.catalogue(str(tmp_path / "x.npz"))
    assert listing.classes == ("cat", "dog", "eel") and [r.label for r in listing.records()] == [1, 0, 2, 2, 1]
    np.savez(tmp_path / "x.npz", **images, train_labels=["dog", "cat", "eel"], test_labels=[2, 1])
    with pytest.raises(ValueError, match="words for labels in some splits"):
        data.catalogue(str(tmp_path / "x.npz"))


def test_complex_numbers_are_read_where_they_are_asked_for(tmp_path):
    values = np.asarray([[1 + 2j, 3]], np.complex64)
    np.savez(tmp_path / "x.npz", kspace=values, images=BYTES)
    np.testing.assert_array_equal(arrays.npz(str(tmp_path / "x.npz"), ["kspace"], 100, kinds="c")["kspace"], values)
    with pytest.raises(Refused, match="kspace holds complex64; give numbers"):
        arrays.npz(str(tmp_path / "x.npz"), ["kspace"], 100)
    with pytest.raises(Refused, match="images holds uint8; give complex numbers"):
        arrays.npz(str(tmp_path / "x.npz"), ["images"], 100, kinds="c")
