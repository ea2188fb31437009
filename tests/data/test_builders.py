"""Catalogues as TFDS data sets: prepared once, whole or not at all, read at random without TensorFlow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinv import data
from diffinv.data import builders

tfds = pytest.importorskip("tensorflow_datasets")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def picture(seed, size=8):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty pictures in two classes, one of them corrupt."""
    path = tmp_path_factory.mktemp("pictures")
    for i in range(20):
        (path / f"class{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(picture(i)).save(path / f"class{i % 2}" / f"{i:02d}.png")
    (path / "class0" / "00.png").write_bytes(b"broken")
    return str(path)


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    store = str(tmp_path_factory.mktemp("store"))
    return data.source(folder, 8, "train", store), data.source(folder, 8, "validation", store), store


def test_splits_labels_and_pixels_are_the_files(prepared):
    train, validation, _ = prepared
    assert (len(train), len(validation)) == (17, 2) and train.classes == ("class0", "class1")
    every = [source.take(range(len(source))) for source in (train, validation)]
    assert every[0]["image"].shape == (17, 8, 8, 3) and every[0]["image"].dtype == np.uint8
    found = {(image.tobytes(), int(label)) for part in every for image, label in zip(part["image"], part["label"])}
    assert found == {(picture(i).tobytes(), i % 2) for i in range(1, 20)}


def test_corrupt_images_are_counted_and_named(prepared):
    assert len(prepared[0].skipped) == 1 and "00.png" in prepared[0].skipped[0]


def test_a_second_time_it_is_there_and_other_files_are_another_set(prepared, folder):
    store = prepared[2]
    first = data.prepare(folder, 8, store)
    before = os.stat(first).st_mtime_ns
    assert data.prepare(folder, 8, store) == first and os.stat(first).st_mtime_ns == before
    assert data.prepare(folder, 4, store) != first
    extra = Path(folder) / "class1" / "new.png"
    Image.fromarray(picture(99)).save(extra)
    assert data.prepare(folder, 8, store) != first
    extra.unlink()


def test_of_two_at_the_same_time_both_have_it(folder, tmp_path):
    """The second starts and ends while the first is at its pictures."""
    others = []

    def watch(records):
        others.append(data.prepare(folder, 8, str(tmp_path)))
        return records

    first = data.prepare(folder, 8, str(tmp_path), watch=watch)
    assert others and set(others) == {first} and len(os.listdir(os.path.dirname(first))) == 1
    assert len(data.source(folder, 8, "train", str(tmp_path))) > 10


def test_a_full_disk_is_no_other_process(folder, tmp_path, monkeypatch):
    def full(path, dst):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        data.prepare(folder, 8, str(tmp_path))


def test_resident_is_the_same_source(prepared):
    train = prepared[0]
    for name, value in data.resident(train, chunk=5).take([3, 16, 3]).items():
        np.testing.assert_array_equal(value, train.take([3, 16, 3])[name])


def test_some_classes_alone_are_their_pictures_with_labels_in_the_order_of_the_names(prepared):
    train = prepared[0]
    every = data.resident(train).records
    assert list(np.unique(every.labels)) == [0, 1]
    turned, one = data.only(train, ["class1", "class0"]), data.only(train, ["class1"])
    assert turned.classes == ("class1", "class0") and one.classes == ("class1",)
    np.testing.assert_array_equal(turned.records.labels, 1 - every.labels)
    np.testing.assert_array_equal(turned.records.images, every.images)
    np.testing.assert_array_equal(one.records.images, every.images[every.labels == 1])
    assert not one.records.labels.any()
    assert len({train.digest, turned.digest, one.digest}) == 3


@pytest.mark.parametrize(
    "names, line",
    [
        (["class1", "clss0"], r"names has 'clss0'; the classes are class0, class1"),
        (["class1", "class1"], r"names are \['class1', 'class1'\]; give one class at least, each once"),
        ([], r"names are \[\]"),
    ],
)
def test_classes_that_are_not_there_are_named(prepared, names, line):
    with pytest.raises(ValueError, match=line):
        data.only(prepared[0], names)


def test_a_class_without_pictures_is_a_class_but_not_the_only_one():
    source = data.Source(builders.Resident(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int32)), 4, 3, ("a", "b"))
    with pytest.raises(ValueError, match=r"names are \['b'\], of which there is no picture here"):
        data.only(source, ["b"])
    found = data.only(source, ["b", "a"])
    assert found.digest == "" and found.classes == ("b", "a") and list(found.records.labels) == [1, 1]


def test_public_names_are_read_where_they_are_prepared(tmp_path):
    """TFDS's own stand-in for a prepared CIFAR-10."""
    with tfds.testing.mock_data(num_examples=5, data_dir=str(tmp_path)):
        records = tfds.data_source("cifar10", split="train", data_dir=str(tmp_path))
        found = data.Source(records, size=16).take([0, 4])
    assert found["image"].shape == (2, 16, 16, 3) and found["label"].dtype == np.int32


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("cifar10", "it is not prepared in"),
        ("cifar11", "did you mean 'cifar10"),
        ("nowhere/pack.npz", "matches no file"),
    ],
)
def test_what_is_missing_is_said(name, word, tmp_path):
    with pytest.raises(FileNotFoundError, match=word):
        data.source(name, 32, folder=str(tmp_path))


def test_bad_arguments_are_named(tmp_path, folder):
    with pytest.raises(ValueError, match="split is 'dev'"):
        data.source(folder, 8, "dev", str(tmp_path))
    with pytest.raises(ValueError, match="folder is None"):
        data.source(folder, 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        data.source(str(tmp_path / "empty"), 8, "train", str(tmp_path))


def test_nothing_is_left_of_a_set_that_failed(tmp_path):
    (tmp_path / "bad").mkdir()
    for i in range(3):
        (tmp_path / "bad" / f"{i}.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="3 corrupt|gave no image"):
        data.prepare(str(tmp_path / "bad"), 8, str(tmp_path / "store"))
    assert not list((tmp_path / "store").rglob("dataset_info.json"))


SCRIPT = """
import json, sys
from diffinv import data
source = data.source("gradients", 8, "train", sys.argv[1])
print(json.dumps([len(source), "tensorflow" in sys.modules]))
"""


def test_tensorflow_is_never_imported(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout.splitlines()[-1]) == [64, False], done.stderr


def test_a_missing_tfds_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install .*diffinv\[train\]"):
        builders._tfds()


@pytest.mark.parametrize("name", ["", "a\0b", "my pictures", "??", "photo[1"])
def test_what_is_no_name_is_one_line(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="matches no file") as error:
        data.source(name, 8, folder=str(tmp_path))
    assert "\n" not in str(error.value)
