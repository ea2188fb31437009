"""What the experiments read: photographs that install with us, and users' files, good and bad."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import pictures


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return str(path)


@pytest.fixture
def ramp():
    return np.tile(np.arange(48, dtype=np.uint8)[:, None, None], (1, 64, 3)) * 5


def test_photographs_install_with_us():
    shots = pictures.photographs(32, 8)
    assert shots.pixels.shape == (8, 32, 32, 3) and shots.pixels.dtype == np.float32
    assert shots.pixels.min() >= -1 and shots.pixels.max() <= 1
    assert (shots.pixels.std((1, 2, 3)) > 0.1).all() and len(set(shots.names)) == 8


def test_own_files_are_cropped_and_it_is_said(tmp_path, ramp):
    save(tmp_path / "a.png", ramp)
    save(tmp_path / "b.png", ramp[:32, :32])
    shots = pictures.own(str(tmp_path), 32, 0)
    assert shots.names == ["a", "b"] and "1 of 2" in shots.note and "32 x 32" in shots.note
    np.testing.assert_allclose(shots.pixels[1], ramp[:32, :32] / 127.5 - 1, atol=1e-6)


def test_crop_is_central(ramp):
    assert (pictures.square(ramp, 48)[:, 0, 0] == ramp[:, 8, 0]).all()
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (pictures.square(wide, 10) == 200).all()


def test_grey_and_alpha_are_converted_and_said(tmp_path, ramp):
    save(tmp_path / "grey.png", ramp[..., 0])
    save(tmp_path / "alpha.png", np.dstack([ramp, ramp[..., :1]]))
    shots = pictures.own(str(tmp_path), 32, 0)
    assert "L to RGB" in shots.note and "RGBA to RGB" in shots.note


def test_a_glob_a_file_and_a_count(tmp_path, ramp):
    for name in "abc":
        save(tmp_path / f"{name}.png", ramp)
    assert pictures.own(str(tmp_path / "b*.png"), 16, 0).names == ["b"]
    assert pictures.own(str(tmp_path), 16, 2).names == ["a", "b"]


def test_equal_names_are_numbered(tmp_path, ramp):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    paths = [save(tmp_path / folder / "same.png", ramp) for folder in "xy"]
    assert pictures.names(paths) == ["same", "same-2"]


def test_floats_keep_their_value(tmp_path, ramp):
    np.save(tmp_path / "unit.npy", (ramp / 127.5 - 1).astype(np.float32))
    np.save(tmp_path / "byte.npy", ramp)
    shots = pictures.own(str(tmp_path / "*.npy"), 48, 0)
    np.testing.assert_allclose(shots.pixels[0], shots.pixels[1])


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.full((8, 8, 3), np.nan, np.float32), "NaN"),
        (np.linspace(-3, 3, 192, dtype=np.float32).reshape(8, 8, 3), r"\[-1, 1\]"),
        (np.linspace(0, 1, 192, dtype=np.float32).reshape(8, 8, 3), r"0 to 1"),
        (np.zeros((8, 8, 5), np.uint8), "shape"),
        (np.zeros((8, 8), np.uint8), "shape"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, array, word):
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(ValueError, match=word):
        pictures.own(str(tmp_path / "bad.npy"), 8, 0)


def test_bad_files_are_refused(tmp_path, ramp):
    (tmp_path / "text.png").write_text("not a picture")
    whole = save(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    (tmp_path / "cut.png").write_bytes(Path(whole).read_bytes()[:2000])
    save(tmp_path / "wide.tif", np.zeros((8, 8), np.int32))
    for name in ("text.png", "cut.png", "wide.tif"):
        with pytest.raises(ValueError, match=name):
            pictures.own(str(tmp_path / name), 8, 0)


def test_nothing_to_read(tmp_path):
    for pattern in (str(tmp_path), str(tmp_path / "*.png"), str(tmp_path / "missing")):
        with pytest.raises(FileNotFoundError, match="no image matches"):
            pictures.own(pattern, 8, 0)
