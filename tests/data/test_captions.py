"""Captions as labels: text files beside pictures, and the names of a pack."""

import json

import numpy as np
import pytest
from PIL import Image

from diffinv import data
from diffinv.data import files
from diffinv.data.reader import Reading

CAPTIONED = Reading(captions=True)
TEXTS = {"a": "a red apple\n", "b": "  a green\n pear ", "c": "a red apple"}


@pytest.fixture
def folder(tmp_path):
    for number, (name, text) in enumerate(TEXTS.items()):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(text)
    return tmp_path


def test_a_folder_s_captions_are_its_classes(folder):
    found = data.catalogue(str(folder), CAPTIONED)
    assert found.classes == ("a green pear", "a red apple")
    assert [record.label for record in found.records()] == [1, 0, 1]
    assert data.catalogue(str(folder)).classes == ("",)


def test_a_missing_caption_is_named_with_its_number(folder):
    (folder / "b.txt").unlink()
    with pytest.raises(ValueError, match="1 of 3 pictures have no caption, the first .*b.txt; write it there"):
        data.catalogue(str(folder), CAPTIONED)


@pytest.mark.parametrize("content", [b"", b"  \n", b"\x00\x01"])
def test_a_file_that_holds_no_text_is_refused(folder, content):
    (folder / "b.txt").write_bytes(content)
    with pytest.raises(ValueError, match="b.txt holds no text"):
        data.catalogue(str(folder), CAPTIONED)


def test_a_long_caption_is_cut(folder):
    (folder / "b.txt").write_text("word " * 1000)
    assert len(files.caption(str(folder / "b.txt"))) == 400


def test_a_changed_caption_is_another_set(folder, tmp_path_factory):
    """What was prepared of the old one is not taken for it."""
    pytest.importorskip("tensorflow_datasets")
    home = str(tmp_path_factory.mktemp("prepared"))
    place = lambda: data.prepare(str(folder), 4, home, reading=CAPTIONED)
    first = place()
    assert place() == first
    (folder / "b.txt").write_text("a yellow pear")
    assert place() != first


def pack(path, **meta):
    """A pack of two PNG files."""
    import io

    encoded = []
    for number in range(2):
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4), (number, 0, 0)).save(buffer, "PNG")
        encoded.append(np.frombuffer(buffer.getvalue(), np.uint8))
    offset = np.cumsum([0, *map(len, encoded)])
    about = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(path, png=np.concatenate(encoded), offset=offset, meta=about)
    return str(path)


def test_a_pack_s_names_are_its_captions(tmp_path):
    path = pack(tmp_path / "p.npz", name=["red apple", "pear"], category=["food", "food"])
    assert data.catalogue(path).classes == ("food",)
    found = data.catalogue(path, CAPTIONED)
    assert found.classes == ("pear", "red apple") and [record.label for record in found.records()] == [1, 0]


def test_a_pack_with_one_name_of_its_own_keeps_its_categories(tmp_path):
    path = pack(tmp_path / "p.npz", name="fruit", category=["food", "food"])
    assert data.catalogue(path, CAPTIONED).classes == ("food",)
