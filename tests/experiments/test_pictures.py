"""What the experiments read: photographs that install with us, and users' files, good and bad."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.common import pictures, reading


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
    assert "grey to RGB" in shots.note and "transparency laid on white" in shots.note
    white = pictures.read(str(tmp_path / "alpha.png"))[0]
    np.testing.assert_array_equal(white, np.rint(ramp * (ramp / 255) + 255 - ramp))


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
    """And what lies between two of 256 levels."""
    np.save(tmp_path / "a.npy", (ramp / 127.5 - 1).astype(np.float32))
    np.save(tmp_path / "b.npy", ramp)
    np.save(tmp_path / "c.npy", (ramp / 255 + 0.001).astype(np.float32))
    np.save(tmp_path / "d.npy", ramp.astype(np.uint16) * 257 + 20)
    shots = pictures.own(str(tmp_path / "*.npy"), 48, 0)
    for i, more in enumerate((0, 0, 0.002, 40 / 65535)):
        np.testing.assert_allclose(shots.pixels[i], shots.pixels[1] + more, atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 16, 3), (16, 16, 1), (12, 20, 3), (20, 12, 1)])
def test_pictures_of_the_priors_own_shape(tmp_path, shape):
    """The middle, in the prior's proportions, by the area mean; grey is Pillow's own."""
    colours = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
    save(tmp_path / "a.png", colours)
    shots = pictures.own(str(tmp_path / "a.png"), shape, 0)
    assert shots.pixels.shape == (1, *shape) and f"{shape[0]} x {shape[1]}" in shots.note
    whole = np.asarray(Image.fromarray(colours).convert("L" if shape[2] == 1 else "RGB"), float).reshape(60, 100, -1)
    if shape == (12, 20, 3):
        expected = whole.reshape(12, 5, 20, 5, 3).mean((1, 3)) / 127.5 - 1
        np.testing.assert_allclose(shots.pixels[0], expected, atol=2 / 127.5)
    assert pictures.photographs(shape, 2).pixels.shape == (2, *shape)


@pytest.mark.parametrize("shape", [(16,), (16, 16, 2), (0, 16, 3), (4, 4, 4, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="the prior has shape"):
        pictures.photographs(shape, 1)


def test_a_count_is_from_0_on(tmp_path, ramp):
    assert len(pictures.photographs(8, 0).names) == 8
    assert "8 photographs are bundled" in pictures.photographs(8, 9).note
    save(tmp_path / "a.png", ramp)
    for make in (lambda: pictures.photographs(8, -1), lambda: pictures.own(str(tmp_path), 8, -1)):
        with pytest.raises(ValueError, match="config.pictures is -1"):
            make()


def test_what_was_found_taken_and_left_out_is_said(tmp_path, ramp):
    for i in range(9):
        save(tmp_path / f"{i}.png", ramp)
    (tmp_path / "3.png").write_text("no picture")
    np.save(tmp_path / "4.npy", np.full((8, 8), np.nan))
    (tmp_path / "notes.txt").write_text("no picture")
    every = pictures.own(str(tmp_path), 16, 0)
    assert len(every.names) == 8
    assert all(
        w in every.note for w in ("10 pictures found, 8 taken", "2 left out", "3.png", "4.npy: holds NaN", "1 other")
    )
    two = pictures.own(str(tmp_path), 16, 2)
    assert "10 pictures found, 2 taken; 8 not asked for (config.pictures=0 takes all)" in two.note
    assert pictures.own(str(tmp_path / "0.png"), (48, 64, 3), 0).note == ""


def test_packs_and_bundled_sets(tmp_path, ramp):
    images = {"train_images": np.stack([ramp[..., 0]] * 3), "test_images": ramp[None, ..., 0] // 2}
    np.savez(tmp_path / "x[1].npz", **images)
    shots = pictures.own(str(tmp_path / "x[1].npz"), (48, 64, 1), 0)
    np.testing.assert_allclose(shots.pixels, ramp[None, ..., :1] // 2 / 127.5 - 1, atol=1e-6)
    assert shots.names == ["0"]
    assert "held-out pictures found, 2 taken" in pictures.own("gradients", 8, 2).note


def test_of_many_pictures_each_so_many_th(tmp_path, ramp):
    np.savez(tmp_path / "x.npz", images=np.stack([ramp] * 9))
    spread = pictures.own(str(tmp_path / "x.npz"), (48, 64, 3), 0, every=4)
    assert spread.names == ["0", "4", "8"] and spread.note == "9 pictures found, 3 taken"
    assert pictures.whole(str(tmp_path / "x.npz"), 3, 2, every=4).names == ["0", "4"]


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.full((8, 8, 3), np.nan, np.float32), "NaN"),
        (np.linspace(-3, 3, 192, dtype=np.float32).reshape(8, 8, 3), r"\[-1, 1\]"),
        (np.linspace(0, 2, 192, dtype=np.float32).reshape(8, 8, 3), r"0 to 2"),
        (np.zeros((8, 8, 3), np.float32), r"0 to 0"),
        (np.zeros((8, 8, 5), np.uint8), "shape"),
        (np.zeros(8, np.uint8), "shape"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, array, word):
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(ValueError, match=f"bad.npy.*{word}"):
        pictures.own(str(tmp_path / "bad.npy"), 8, 0)


def test_bad_files_are_refused(tmp_path, ramp):
    (tmp_path / "text.png").write_text("not a picture")
    whole = save(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    (tmp_path / "cut.png").write_bytes(Path(whole).read_bytes()[:2000])
    save(tmp_path / "wide.tif", np.zeros((8, 8), np.int32))
    for name in ("text.png", "cut.png", "wide.tif"):
        with pytest.raises(ValueError, match=name):
            pictures.own(str(tmp_path / name), 8, 0)


def test_nothing_to_read(tmp_path, ramp):
    for pattern in (str(tmp_path), str(tmp_path / "*.png"), str(tmp_path / "missing")):
        with pytest.raises(FileNotFoundError, match="no image matches"):
            pictures.own(pattern, 8, 0)
    (tmp_path / "deep").mkdir()
    save(tmp_path / "deep" / "a.png", ramp)
    with pytest.raises(FileNotFoundError, match="1 lie in folders below it"):
        pictures.own(str(tmp_path), 8, 0)


def test_the_flag_of_levels():
    assert reading.levels("") is None and reading.levels("auto") == "auto" and reading.levels("400,8400") == (400, 8400)
    for text in ("400", "8,4", "a,b", "0,nan", "1,2,3"):
        assert reading._accepted("0,1") and not reading._accepted(text)


def test_values_beyond_a_byte_are_clipped_and_halves_rounded_to_even():
    found = pictures.rounded(np.array([-3.0, 0.5, 1.5, 127.49, 254.6, 300.0]))
    assert found.dtype == np.uint8 and found.tolist() == [0, 0, 2, 127, 255, 255]


def test_whole_pictures_keep_size_bits_and_transparency(tmp_path, ramp):
    """And all that was changed is said."""
    save(tmp_path / "a.png", ramp[:, :20])
    save(tmp_path / "b.png", np.dstack([ramp[:33], ramp[:33, :, :1]]))
    save(tmp_path / "c.png", ramp[..., 0])
    (tmp_path / "d.png").write_bytes(b"none")
    found = pictures.whole(str(tmp_path), 3, 0)
    assert found.names == ["a", "b", "c"] and [shot.values.shape[:2] for shot in found.shots] == [
        (48, 20), (33, 64), (48, 64),
    ]  # fmt: skip
    assert found.shots[1].alpha.shape == (33, 64)
    for words in ("transparency is kept as it is", "grey to RGB", "1 left out: ", "4 pictures found, 3 taken"):
        assert words in found.note, found.note
    assert "resized" not in found.note and "laid on white" not in found.note
    with pytest.raises(ValueError, match="no picture of .* can be read"):
        pictures.whole(str(tmp_path / "d.png"), 3, 0)


@pytest.mark.parametrize(
    ("box", "size", "expected"),
    [
        ((10, 20, 30), 30, (10, 20, 30)),
        ((10, 20, 30), 40, (5, 15, 40)),
        ((0, 50, 10), 50, (0, 30, 50)),  # as far as there is room
        ((10, 20, 30), 500, (0, 5, 60)),
    ],
)
def test_a_box_is_widened_about_its_middle_inside_the_picture(box, size, expected):
    assert pictures.widened(box, size, (60, 80)) == expected
