"""One picture, read: exact values of every mode and depth, or one line that says what to do."""

import os
import sys
import warnings

import numpy as np
import pytest
from PIL import Image
from pngs import header, png

from diffinv import data
from diffinv.data import fitting, reader


def noise(*shape, high=256, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def saved(path, array, **options):
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(path, **options)
    return str(path)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_are_sixteen(channels):
    """Pillow keeps the upper 8 of colour without a word."""
    values = noise(5, 7, channels, high=65536, dtype=np.int64)
    found = reader.read_picture(png(values))
    colours = 3 if channels > 2 else 1
    np.testing.assert_array_equal(np.rint(found.values * 65535), values[..., :colours])
    assert (found.alpha is None) == (channels in (1, 3))
    if found.alpha is not None:
        np.testing.assert_array_equal(np.rint(found.alpha * 65535), values[..., -1])
    expected = np.rint(values[..., :colours] / 257)
    np.testing.assert_array_equal(fitting.eight(found.values), expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_sixteen_bit_colour_tiff(tmp_path, order, compression):
    tifffile = pytest.importorskip("tifffile")
    values = noise(6, 5, 3, high=65536, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="rgb", byteorder=order, compression=compression)
    found = reader.read_picture(str(tmp_path / "x.tif"))
    np.testing.assert_array_equal(np.rint(found.values * 65535), values)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_is_white(bits, channels):
    if channels == 3 and bits < 8:
        pytest.skip("PNG has no such colour")
    top = 2**bits - 1
    values = noise(6, 7, channels, high=2**bits, dtype=np.int64)
    values[0, 0] = top
    key = values[2, 3]
    clear = (values == key).all(-1)
    found = reader.read_picture(png(values, bits, key))
    np.testing.assert_array_equal(found.alpha == 0, clear)
    expected = np.where(clear[..., None], 255, np.rint(values * (255 / top)))
    np.testing.assert_array_equal(data.decode(png(values, bits, key), channels=channels), expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "I;16"])
def test_rotation_is_applied(tmp_path, mode):
    exif = Image.Exif()
    exif[0x0112] = 6  # upright after a quarter turn clockwise
    pixels = noise(4, 9) if mode != "I;16" else noise(4, 9, high=65536, dtype=np.uint16)
    image = Image.fromarray(pixels).convert("RGB").convert(mode) if mode in ("RGB", "P") else Image.fromarray(pixels)
    found = reader.read_picture(saved(tmp_path / "x.png", image, exif=exif))
    upright = np.rot90(np.asarray(image.convert("RGB") if mode == "P" else image, np.float64), -1)
    scale = 65535 if mode == "I;16" else 1
    upright = upright if upright.ndim == 2 else upright[..., 0]
    np.testing.assert_allclose(found.values[..., 0] * scale, upright, rtol=1e-6)


def test_rotation_of_sixteen_bit_colour():
    exif = Image.Exif()
    exif[0x0112] = 6
    values = noise(3, 5, 4, high=65536, dtype=np.int64)
    found = reader.read_picture(png(values, exif=exif.tobytes().removeprefix(b"Exif\0\0")))
    upright = np.rot90(values, -1)
    np.testing.assert_array_equal(np.rint(found.values * 65535), upright[..., :3])
    np.testing.assert_array_equal(np.rint(found.alpha * 65535), upright[..., 3])


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "1", "CMYK"])
def test_modes_lie_on_white(tmp_path, kind):
    rgba = noise(6, 8, 4)
    alpha = rgba[..., 3:].astype(float) / 255
    white = lambda colour: np.rint(colour * alpha + 255 * (1 - alpha))
    if kind == "RGBA":
        image, expected = Image.fromarray(rgba), white(rgba[..., :3])
    elif kind == "LA":
        image = Image.merge("LA", [Image.fromarray(np.ascontiguousarray(rgba[..., i])) for i in (0, 3)])
        expected = white(rgba[..., :1]).repeat(3, -1)
    elif kind == "P":
        image = Image.fromarray(rgba[..., :3]).quantize(5)
        colours, index = np.asarray(image.convert("RGB")), np.asarray(image)
        image.info["transparency"] = 2
        expected = np.where(index[..., None] == 2, 255, colours)
    else:
        image = Image.fromarray(rgba[..., :3]).convert(kind)
        expected = np.asarray(image.convert("RGB"))
    suffix = "tif" if kind == "CMYK" else "png"
    found = data.decode(saved(tmp_path / f"x.{suffix}", image))
    np.testing.assert_array_equal(found, expected)


def test_floats_and_wide_integers_by_what_they_reach(tmp_path):
    unit = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    assert np.array_equal(reader.read_picture(saved(tmp_path / "f.tif", unit)).values[..., 0], unit)
    bytes_ = noise(3, 4, dtype=np.int32)
    bytes_[0, 0] = 255
    found = reader.read_picture(saved(tmp_path / "i.tif", bytes_))
    assert found.values.dtype == np.uint8 and np.array_equal(found.values[..., 0], bytes_)
    for name, array in {"wide": 100 * bytes_, "nan": unit * np.nan, "far": 1000 * unit}.items():
        with pytest.raises(OSError, match="LOW,HIGH|NaN"):
            reader.read_picture(saved(tmp_path / f"{name}.tif", array))


def test_twelve_bits_in_sixteen_are_never_black(tmp_path):
    """400 to 8400: refused where 8 bits are wanted, whole in 16, and stretched on demand."""
    values = np.linspace(400, 8400, 1000).round().astype(np.uint16).reshape(20, 50)
    path = saved(tmp_path / "x.png", values)
    found = reader.read_picture(path)
    assert "400 to 8400" in found.dim and len(np.unique(found.values)) == 1000
    with pytest.raises(OSError, match="almost black .* --levels=LOW,HIGH"):
        data.decode(path)
    for levels, low, high in [("auto", 400, 8400), ((0, 10000), 0, 10000)]:
        pixels = data.decode(path, channels=1, reading=data.Reading(levels))
        np.testing.assert_array_equal(pixels[..., 0], np.rint(255 * (values - float(low)) / (high - low)))
    asked = data.decode(path, channels=1, reading=data.Reading((0, 65535)))
    np.testing.assert_array_equal(asked[..., 0], np.rint(values / 257))
    eight = data.decode(saved(tmp_path / "eight.png", noise(4, 4)), channels=1, reading=data.Reading("auto"))
    np.testing.assert_array_equal(eight[..., 0], noise(4, 4))


@pytest.mark.parametrize("levels", [(5, 5), (9, 1), (0, np.nan), (0, np.inf), "full", [0, 1]])
def test_levels_grow(levels):
    with pytest.raises(ValueError, match="levels are"):
        data.Reading(levels)


def test_white_is_zero_and_what_pillow_would_misread(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    values = noise(4, 6, high=65536, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="miniswhite")
    np.testing.assert_array_equal(
        np.rint(65535 * reader.read_picture(str(tmp_path / "x.tif")).values[..., 0]), 65535 - values
    )
    refused = {
        "planes": (np.stack([values] * 3), {"photometric": "rgb", "planarconfig": "separate"}),
        "five": (noise(4, 6, 5), {"photometric": "rgb", "planarconfig": "contig"}),
        "signed": (noise(4, 6, high=100, dtype=np.int8), {}),
        "wide": (noise(4, 6).astype(np.float64), {}),
    }
    for name, (array, options) in refused.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", array, **options)
        with pytest.raises(OSError, match="interleaved|channels|signed|no picture"):
            reader.read_picture(str(tmp_path / f"{name}.tif"))


@pytest.mark.parametrize(("width", "height"), [(65500, 65500), (2**31 - 1, 1), (10_000, 10_000)])
def test_a_giant_picture_is_refused_by_its_header(tmp_path, width, height):
    (tmp_path / "x.png").write_bytes(header(width, height) + png(noise(1, 1, 3), 8)[33:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(OSError, match="limit of 80000000"):
            reader.read_picture(str(tmp_path / "x.png"))


def test_the_limit_moves(tmp_path):
    path = saved(tmp_path / "x.png", noise(30, 40))
    with pytest.raises(OSError, match="40 x 30 pixels are more than the limit of 1199"):
        reader.read_picture(path, data.Reading(pixels=1199))
    assert reader.read_picture(path, data.Reading(pixels=1200)).values.shape == (30, 40, 1)
    np.save(tmp_path / "x.npy", noise(30, 40))
    for reading in (data.Reading(pixels=1199), data.Reading(bytes=1199)):
        with pytest.raises(OSError, match="more than the limit of 1199"):
            reader.read_picture(str(tmp_path / "x.npy"), reading)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    os.symlink(tmp_path / "nowhere.png", tmp_path / "link.png")
    for path in (tmp_path / "fifo.png", tmp_path, "/dev/null"):
        with pytest.raises(OSError, match="give a regular file"):
            reader.read_picture(str(path))
    with pytest.raises(FileNotFoundError):
        reader.read_picture(str(tmp_path / "link.png"))


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (10, 4), (16, 16), (5, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_fitting_is_alike_in_8_bits_and_in_floats(size, channels):
    """The crop is central and of the wanted proportions; deep pixels are rounded once, at the end."""
    pixels = noise(20, 30, channels)
    found = fitting.fit(pixels, size)
    assert found.shape == (*size, channels) and found.dtype == np.uint8
    deep = fitting.fit(pixels.astype(np.float32) / 255, size)
    assert np.abs(fitting.eight(deep).astype(int) - found).max() <= 1
    np.testing.assert_allclose(fitting.unit(pixels), 2 * (pixels / 255) - 1, atol=1e-6)


def test_a_crop_of_other_proportions_is_the_area_mean():
    pixels = noise(12, 40, 1).astype(np.float32) / 255
    found = fitting.fit(pixels, (6, 10))
    np.testing.assert_allclose(found, pixels[:, 10:30].reshape(6, 2, 10, 2, 1).mean((1, 3)), atol=1e-6)


def test_missing_pillow_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pillow"):
        reader.pillow()
