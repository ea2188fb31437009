"""Pictures from files in every form that is known, and the border at which range and layout are fixed."""

import gzip
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


def test_a_limit_draws_where_there_is_a_seed(pack):
    """Every seed gives a random order, which is whole without a limit and begins alike with one."""
    path, _ = pack
    orders = [data.read(path, seed=seed).names for seed in range(5)]
    assert len(set(map(tuple, orders))) > 1 and all(sorted(order) == list("012345") for order in orders)
    assert data.read(path, limit=2, seed=3).names == orders[3][:2]
    assert sorted(data.read(path, split=1, seed=0).names) == ["2", "4"]


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


def test_every_16th_is_held_out_where_there_is_no_split(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.stack([picture(i, 4) for i in range(20)]), labels=np.arange(20) % 3)
    kept, held_out = (data.read(str(tmp_path / "x.npz"), split=split) for split in (0, 1))
    assert held_out.names == ["1", "17"] and len(kept.names) == 18
    assert data.catalogue(str(tmp_path / "x.npz")).classes == ("0", "1", "2")


def test_transparent_pictures_lie_on_white(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2, :, 0], rgba[:2, :, 3] = 200, 255
    Image.fromarray(rgba).save(tmp_path / "x.png")
    found = data.read(str(tmp_path)).pixels[0]
    assert (found[:2] == [200, 0, 0]).all() and (found[2:] == 255).all()


def test_folders_are_splits_and_classes(tmp_path):
    for name in ("train/cat/a.png", "train/dog/b.png", "val/dog/c.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(0)).save(path)
    listing = data.catalogue(str(tmp_path))
    assert listing.classes == ("cat", "dog")
    assert [(record.label, record.split) for record in listing.records()] == [(0, 0), (1, 0), (1, 1)]


def idx(array):
    sizes = b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def test_idx_files_as_mnist_is_published(tmp_path):
    images = {"train": picture(0, 5)[None, ..., 0].repeat(3, 0), "t10k": picture(1, 5)[None, ..., 0]}
    for name, pixels in images.items():
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels)))
        labels = np.arange(len(pixels), dtype=np.uint8) + 7
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    found = list(data.catalogue(str(tmp_path)).records())
    assert [(record.label, record.split) for record in found] == [(7, 0), (8, 0), (9, 0), (7, 1)]
    np.testing.assert_array_equal(data.decode(found[3].source, channels=1)[..., 0], images["t10k"][0])
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images["train"])[:-1]))
    with pytest.raises(ValueError, match="its header says"):
        data.catalogue(str(tmp_path))


def test_train_and_test_arrays(tmp_path):
    fields = {"train_images": np.stack([picture(0)[..., 0]] * 2), "test_images": picture(1)[None, ..., 0]}
    np.savez(tmp_path / "m.npz", train_labels=[1, 0], test_labels=[1], **fields)
    found = list(data.catalogue(str(tmp_path / "m.npz")).records())
    assert [(record.name, record.label, record.split) for record in found] == [
        ("train/0", 1, 0), ("train/1", 0, 0), ("test/0", 1, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "count", "classes"),
    [("gradients", 80, 2), ("photographs", 5, 1), ("digits", 1797, 10), ("satellite", 20, 10)],
)
def test_what_packages_carry(name, count, classes):
    listing = data.catalogue(name)
    found = list(listing.records())
    assert len(found) >= count and len(listing.classes) == classes
    assert data.decode(found[0].source, 8).shape == (8, 8, 3)


def test_sixteen_bits_of_grey_are_scaled(tmp_path):
    levels = np.array([[0, 257 * 64], [257 * 128, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    found = data.decode(str(tmp_path / "deep.png"), channels=1)
    np.testing.assert_array_equal(found[..., 0], [[0, 64], [128, 255]])
