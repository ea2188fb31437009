"""Pictures of any size as patches of one: every pixel covered, splits by whole pictures, bad files named."""

import numpy as np
import pytest
from PIL import Image

from diffinv import data
from diffinv.data.cutting import corners, cut_patches

SIZES = {f"{i:02d}": (9 + i % 5, 20 - i % 3) for i in range(18)}


def picture(seed, height, width):
    """Pixels that tell their picture: red is the seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    pixels[..., 0] = seed
    return pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eighteen pictures of different sizes in two classes, one (for training) corrupt, one tiny."""
    path = tmp_path_factory.mktemp("pictures")
    for i, (name, size) in enumerate(SIZES.items()):
        (path / f"class{i // 9}").mkdir(exist_ok=True)
        Image.fromarray(picture(i, *size)).save(path / f"class{i // 9}" / f"{name}.png")
    Image.fromarray(picture(3, 2, 5)).save(path / "class0" / "03.png")
    (path / "class0" / "04.png").write_bytes(b"broken")
    return str(path)


@pytest.mark.parametrize(("length", "size", "stride"), [(8, 8, 3), (9, 8, 8), (20, 8, 4), (21, 8, 5), (50, 7, 7)])
def test_corners_cover_the_axis_once(length, size, stride):
    found = corners(length, size, stride)
    assert found[0] == 0 and found[-1] == length - size
    assert (np.diff(found) > 0).all() and (np.diff(found) <= stride).all()
    assert set(range(length)) == {i for start in found for i in range(start, start + size)} or stride > size


def test_a_patch_is_a_slice_in_reading_order():
    pixels = picture(1, 11, 17)
    found = cut_patches(pixels, 8, 5)
    places = [(top, left) for top in (0, 3) for left in (0, 5, 9)]
    expected = [pixels[top : top + 8, left : left + 8] for top, left in places]
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8


@pytest.mark.parametrize("shape", [(3, 9), (9, 2), (1, 1), (7, 8)])
def test_small_pictures_are_reflected_about_their_border(shape):
    pixels = picture(1, *shape)
    [found] = cut_patches(pixels, 8, 8)[:1]
    index = [np.arange(8) % max(2 * n - 2, 1) for n in shape]
    mirrored = [np.minimum(i, 2 * n - 2 - i) if n > 1 else i * 0 for i, n in zip(index, shape)]
    np.testing.assert_array_equal(found, pixels[np.ix_(*mirrored)])


def test_the_split_is_by_whole_pictures(folder):
    seen = {}
    for split in ("train", "validation"):
        source = data.patches(folder, 8, 4, split)
        found = source.take(range(len(source)))
        seen[split] = set(np.unique(found["image"][..., 0]).tolist())
        assert found["image"].shape == (len(source), 8, 8, 3) and found["image"].dtype == np.uint8
        np.testing.assert_array_equal(found["label"], found["image"][:, 0, 0, 0] // 9)
        assert source.classes == ("class0", "class1") and (source.size, source.channels) == (8, 3)
    assert seen["validation"] == {1, 17} and seen["train"] == set(range(18)) - {1, 4, 17}


def test_what_is_left_out_is_named(folder):
    padded, strict = data.patches(folder, 8), data.patches(folder, 8, pad=False)
    assert len(padded.skipped) == 1 and "04.png" in padded.skipped[0]
    assert len(strict.skipped) == 2 and "03.png: 2 x 5 pixels are under size 8" in strict.skipped[0]
    assert len(padded) == len(strict) + 1
    assert data.patches(folder, 8, split="validation").skipped == ()


def test_every_pixel_of_every_picture_is_there(folder):
    found = data.patches(folder, 8).take(range(len(data.patches(folder, 8))))["image"]
    for i in (0, 2, 16):
        mine = {tuple(colour) for colour in found[found[:, 0, 0, 0] == i].reshape(-1, 3).tolist()}
        assert mine == {tuple(colour) for colour in picture(i, *SIZES[f"{i:02d}"]).reshape(-1, 3).tolist()}


def test_it_feeds_batches(folder):
    source = data.patches(folder, 8)
    batch = next(data.batches(source, 4, seed=3, threads=1, ahead=1))
    index = [int(i) for i in data.order(len(source), 3)[:4]]
    np.testing.assert_array_equal(batch["index"], index)
    np.testing.assert_array_equal(batch["image"], source.take(index)["image"])
    assert batch["label"].dtype == np.int32


def test_every_form_of_catalogue(tmp_path):
    assert data.patches("photographs", 200, limit=2).take([0])["image"].shape == (1, 200, 200, 3)
    grey = data.patches("gradients", 8, 4, "validation", channels=1)
    assert len(grey) == 16 * 9 and grey.take([0])["image"].shape == (1, 8, 8, 1)
    images = np.stack([picture(i, 12, 9) for i in range(3)])
    np.savez(tmp_path / "three.npz", images=images)
    np.testing.assert_array_equal(
        data.patches(str(tmp_path / "three.npz"), 9, limit=1).take([0, 1])["image"], [images[0, :9], images[0, 3:]]
    )


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"size": 0}, "size, stride are 0, 0"),
        ({"stride": 0}, "size, stride are 8, 0"),
        ({"split": "dev"}, "split is 'dev'"),
        ({"channels": 4}, "channels is 4"),
        ({"limit": 0}, "limit is 0"),
    ],
)
def test_bad_arguments_are_named(fields, word):
    with pytest.raises(ValueError, match=word):
        data.patches(**{"path": "gradients", "size": 8, **fields})


def test_nothing_to_cut_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="matches no file"):
        data.patches(str(tmp_path / "nowhere"), 8)
    (tmp_path / "one.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"gave no picture for 'train', 1 left out, the first .*one\.png"):
        data.patches(str(tmp_path), 8)
    with pytest.raises(ValueError, match="gave no picture for 'validation'; give it more"):
        data.patches(str(tmp_path), 8, split="validation")


def test_more_than_memory_is_refused_before_it_is_taken(tmp_path):
    """A stride of one pixel makes a patch of every pixel; a prepared set may be too large to decode at once."""
    Image.fromarray(picture(0, 800, 800)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match="more than 17179869184"):
        data.patches(str(tmp_path), 300, 1)
    with pytest.raises(ValueError, match="config.resident=False"):
        data.resident(data.Source(range(10**6), 128))
