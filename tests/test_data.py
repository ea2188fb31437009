"""Images from files, and batches that are functions of (seed, step)."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from diffinv import data


def picture(seed, size=16):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


def jpeg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture
def pack(tmp_path):
    """A JPEG pack of six images (two in split 1), whose shared header ends with the start-of-scan segment."""
    files = [jpeg(picture(i)) for i in range(6)]
    cuts = [f.index(b"\xff\xda") + 2 + int.from_bytes(f[f.index(b"\xff\xda") + 2 :][:2]) for f in files]
    headers = sorted({f[:c] for f, c in zip(files, cuts)})
    payloads = [f[c:] for f, c in zip(files, cuts)]
    path = tmp_path / "six.jpegpack.npz"
    np.savez(
        path,
        header=np.frombuffer(b"".join(headers), np.uint8),
        header_offset=np.cumsum([0, *map(len, headers)]),
        header_id=np.array([headers.index(f[:c]) for f, c in zip(files, cuts)], np.uint16),
        payload=np.frombuffer(b"".join(payloads), np.uint8),
        offset=np.cumsum([0, *map(len, payloads)]),
        label=np.zeros(6, np.int16),
        split=np.array([0, 0, 1, 0, 1, 0], np.uint8),
        meta=np.frombuffer(json.dumps({"classes": ["a"]}).encode(), np.uint8),
    )
    return str(path), files


def test_pack_gives_every_file_back(pack):
    path, files = pack
    found = data.read(path)
    assert found.pixels.shape == (6, 16, 16, 3) and found.pixels.dtype == np.uint8
    for pixels, file in zip(found.pixels, files):
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(file))))


def test_splits_and_limit(pack):
    path, _ = pack
    everything = data.read(path)
    assert data.read(path, split=0).names == ["0", "1", "3", "5"]
    held_out = data.read(path, split=1)
    np.testing.assert_array_equal(held_out.pixels, everything.pixels[[2, 4]])
    assert data.read(path, split=0, limit=2).names == ["0", "1"]


def test_shrinking_is_the_area_mean(tmp_path):
    pixels = picture(0)
    np.savez(tmp_path / "x.npz", images=pixels[None])
    found = data.read(str(tmp_path / "x.npz"), size=8).pixels[0]
    mean = pixels.reshape(8, 2, 8, 2, 3).mean((1, 3))
    assert np.abs(found - mean).max() <= 1  # Pillow rounds after each axis


def test_centre_crop_of_an_oblong(tmp_path):
    pixels = picture(1)[:, :8]
    Image.fromarray(pixels).save(tmp_path / "tall.png")
    np.testing.assert_array_equal(data.read(str(tmp_path), size=8).pixels[0], pixels[4:12])


def test_folder_glob_and_corrupt_files(tmp_path):
    (tmp_path / "sub").mkdir()
    for i, name in enumerate(["b.png", "a.png", "sub/c.png"]):
        Image.fromarray(picture(i)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"not an image")
    (tmp_path / "cut.jpg").write_bytes(jpeg(picture(3))[:200])
    (tmp_path / "notes.txt").write_text("no image")
    found = data.read(str(tmp_path))
    assert [name.rsplit("/", 1)[1] for name in found.names] == ["a.png", "b.png", "c.png"]
    np.testing.assert_array_equal(found.pixels[0], picture(1))
    assert len(found.skipped) == 2 and "broken.png" in found.skipped[0] and "cut.jpg" in found.skipped[1]
    assert len(data.read(str(tmp_path / "*.png")).names) == 2


def test_grey_images_become_rgb(tmp_path):
    grey = picture(0)[..., 0]
    np.savez(tmp_path / "g.npz", images=grey[None])
    found = data.read(str(tmp_path / "g.npz")).pixels[0]
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, -1))


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere' matches no file"):
        data.read(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="gave no image"):
        data.read(str(tmp_path))
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(ValueError, match="needs `images`"):
        data.read(str(tmp_path / "other.npz"))


def test_sizes_must_agree(tmp_path):
    for i, size in enumerate((8, 16)):
        Image.fromarray(picture(i, size)).save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match="pass size="):
        data.read(str(tmp_path))
    assert data.read(str(tmp_path), size=8).pixels.shape == (2, 8, 8, 3)


def test_range_round_trip():
    pixels = np.arange(256, dtype=np.uint8)
    unit = data.to_unit(pixels)
    assert (unit.dtype, unit.min(), unit.max()) == (np.float32, -1, 1)
    np.testing.assert_array_equal(data.to_pixels(unit), pixels)
    np.testing.assert_array_equal(data.to_pixels([-3.0, 3.0]), [0, 255])


def test_every_epoch_visits_every_image_once():
    visits = np.concatenate([data.indices(10, 0, step, 4) for step in range(5)])
    np.testing.assert_array_equal(np.sort(visits[:10]), np.arange(10))
    np.testing.assert_array_equal(np.sort(visits[10:]), np.arange(10))
    assert np.any(visits[:10] != visits[10:])
    assert np.any(data.indices(10, 1, 0, 4) != visits[:4]) or np.any(data.indices(10, 1, 1, 4) != visits[4:8])


def test_batch_is_a_function_of_seed_and_step():
    pixels = np.stack([picture(i) for i in range(10)])
    data._order.cache_clear()
    late = data.batch(pixels, 0, 7, 4)
    for step in range(7):
        data.batch(pixels, 0, step, 4)
    np.testing.assert_array_equal(data.batch(pixels, 0, 7, 4), late)


def test_flips_mirror_left_and_right_about_half_the_time():
    pixels = np.stack([picture(i) for i in range(200)])
    straight, mirrored = data.batch(pixels, 0, 0, 200, flip=False), data.batch(pixels, 0, 0, 200)
    same = np.array([np.array_equal(a, b) for a, b in zip(straight, mirrored)])
    turned = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(straight, mirrored)])
    assert np.all(same ^ turned) and 70 < same.sum() < 130
