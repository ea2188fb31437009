"""Which files a path names: brackets, links, names in any encoding and of any length."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinv import data
from diffinv.data import builders, listing


def draw(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), level, np.uint8)).save(path, "PNG")
    return str(path)


def levels(path, **options):
    return data.read(str(path), channels=1, **options).pixels[:, 0, 0, 0].tolist()


def test_a_path_that_exists_is_no_glob(tmp_path):
    for name, level in {"photo[1].png": 10, "photo1.png": 20, "set[1]/a.png": 30, "set1/b.png": 40}.items():
        draw(tmp_path / name, level)
    assert levels(tmp_path / "photo[1].png") == [10] and levels(tmp_path / "set[1]") == [30]
    assert levels(tmp_path / "photo[12].png") == [20] and levels(tmp_path / "set[1]" / "*.png") == [40]
    assert levels(tmp_path / "set[[]1]" / "*.png") == [30] and levels(tmp_path / "**" / "*.png") == [20, 10, 40, 30]
    np.savez(tmp_path / "set[1]" / "x[2].npz", images=np.full((1, 8, 8), 50, np.uint8))
    assert levels(tmp_path / "set[1]" / "x[2].npz") == [50]
    with pytest.raises(FileNotFoundError, match="matches no file"):
        data.catalogue(str(tmp_path / "photo[3].png"))


def test_a_named_file_needs_no_ending(tmp_path):
    assert levels(draw(tmp_path / "scan", 70)) == [70]


def test_every_real_file_once(tmp_path):
    for i in range(4):
        draw(tmp_path / "set" / f"{i}.png", i)
    (tmp_path / "set" / "self").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "0-again.png").symlink_to("3.png")
    draw(tmp_path / "other" / "deep" / "x.png", 9)
    (tmp_path / "set" / "more").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "set")
    found = [os.path.relpath(file, tmp_path / "set") for file in listing.pictures(str(tmp_path / "set"))]
    assert found == ["0.png", "1.png", "2.png", "3.png", "more/deep/x.png"]
    assert levels(tmp_path / "set" / "*.png") == [0, 1, 2, 3]
    assert [Path(file).name for file in listing.pictures(str(tmp_path / "set"), nested=False)] == [
        f"{i}.png" for i in range(4)
    ]


def test_names_in_any_encoding(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    folder = os.fsencode(tmp_path) + b"/set"
    os.mkdir(folder)
    for i in range(18):
        with open(folder + b"/caf\xe9-%02d.png" % i, "wb") as file:
            file.write(Path(draw(tmp_path / "one.png", 10 * i)).read_bytes())
    found = data.read(str(tmp_path / "set"), channels=1)
    assert found.names[0].endswith(r"caf\xe9-00.png") and "\n".join(found.names).encode()
    source = data.source(str(tmp_path / "set"), 8, "validation", str(tmp_path / "store"), channels=1)
    assert sorted(source.take([0, 1])["image"][:, 0, 0, 0].tolist()) == [10, 170]


def test_stems_fit_for_new_files():
    paths = ["x/same.png", "y/same.png", "same-2.png", "same.jpg", "a" * 246 + ".png", "a" * 247 + ".png", "b\nc.png",
             os.fsdecode(b"caf\xe9.png"), "ü" * 120 + ".png"]  # fmt: skip
    found = listing.stems(paths)
    assert found[:4] == ["same", "same-2", "same-2-2", "same-3"] and found[6:8] == ["b_c", "caf_"]
    assert len(set(found)) == len(found) and max(len(stem.encode()) for stem in found) <= 124


def test_a_replaced_file_is_another_set(tmp_path):
    """Of the same size, and with the same time of writing."""
    path = draw(tmp_path / "set" / "a.png", 10)
    name = lambda: builders._fingerprint(str(tmp_path / "set"), 8, 1, data.Reading())
    first, stat = name(), os.stat(path)
    assert name() == first
    time.sleep(0.02)
    draw(tmp_path / "set" / "a.png", 11)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert os.stat(path).st_size == stat.st_size and name() != first
    assert builders._fingerprint(str(tmp_path / "set"), 8, 1, data.Reading("auto")) != name()
