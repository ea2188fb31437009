"""Whatever is written by Pillow or NumPy is read back exactly, or refused by an error that names the file."""

import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pngs import png

from diffinv import data
from diffinv.data import arrays, fitting, reader

quick = settings(max_examples=50, deadline=None, derandomize=True)
sides = st.integers(1, 12)
KINDS = st.sampled_from([np.bool_, np.uint8, np.uint16, np.int8, np.int16, np.int32, np.int64, np.uint64, ">u2",
                         np.float16, np.float32, np.float64, np.complex64, "U3"])  # fmt: skip
HEADS = [b"", b"\x89PNG\r\n\x1a\n", b"II*\0", b"\xff\xd8\xff", b"\x93NUMPY\x01\0", b"PK\x03\x04"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=9)


def meaning(values):
    """The picture in [0, 1] by the page's words, written again without the reader: None where it leaves it open."""
    kind, x = values.dtype.kind, values.astype(np.float64)
    low, high = x.min(), x.max()
    if values.dtype == bool or values.dtype == np.uint8:
        return None if high == 1 and kind == "u" else x / (1 if kind == "b" else 255)
    if kind == "f" and not np.isfinite(x).all():
        return None
    if values.dtype == np.uint16:
        x = x / 65535
    elif kind == "f" and low >= 0 and high <= 1:
        pass
    elif kind == "f" and -1 <= low <= -0.25 and high <= 1:
        x = (x + 1) / 2
    elif low >= 0 and high <= 255:
        x = x / 255
    else:
        return None
    return x if x.max() >= 0.25 else None


@quick
@given(st.data())
def test_arrays_of_any_type_and_shape(tmp_path_factory, draw):
    values = draw.draw(hnp.arrays(draw.draw(KINDS), draw.draw(SHAPES)))
    path = str(tmp_path_factory.getbasetemp() / "any.npy")
    np.save(path, values)
    np.savez(path.replace("npy", "npz"), images=values)
    for read in (lambda: data.picture(path), lambda: data.read(path.replace("npy", "npz"))):
        try:
            read()
        except (ValueError, OSError) as error:
            assert "\n" not in str(error) and str(error)


@quick
@given(st.data())
def test_grey_arrays_mean_what_the_page_says(tmp_path_factory, draw):
    dtype = draw.draw(st.sampled_from([bool, np.uint8, np.uint16, np.int16, np.int64, np.float32, np.float64]))
    kind = np.dtype(dtype).kind
    bound = draw.draw(st.sampled_from([1, 2, 200, 255, 30000]))
    least = draw.draw(st.sampled_from([0, -1])) if kind in "if" else 0
    elements = None
    if kind == "f":
        width = 8 * np.dtype(dtype).itemsize
        elements = st.floats(least, bound, width=width) | st.sampled_from([float(least), float(bound)])
    elif kind in "iu":
        elements = st.integers(least, min(bound, np.iinfo(dtype).max))
    values = draw.draw(hnp.arrays(dtype, (draw.draw(sides), draw.draw(st.integers(5, 12))), elements=elements))
    path = str(tmp_path_factory.getbasetemp() / "grey.npy")
    np.save(path, values)
    expected = meaning(values)
    try:
        found = fitting.plain(data.picture(path))
    except OSError:
        assert expected is None
        return
    assert expected is not None
    np.testing.assert_allclose(fitting.unit(found.values)[..., 0], 2 * expected - 1, atol=3e-7)
    assert np.abs(fitting.eight(found.values)[..., 0] - 255 * expected).max() <= 0.5 + 1e-4


@quick
@given(st.data())
def test_png_of_any_depth_and_channels(draw):
    channels, bits = draw.draw(
        st.sampled_from([(1, 1), (1, 2), (1, 4)] + [(c, b) for c in (1, 2, 3, 4) for b in (8, 16)])
    )
    shape = (draw.draw(sides), draw.draw(sides), channels)
    values = draw.draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 2**bits - 1)))
    found = reader.read_picture(png(values, bits))
    colours = 3 if channels > 2 else 1
    top = 2**bits - 1
    white = 65535 if found.deep else 255
    scale = lambda x: np.rint(np.asarray(x, np.float64) * (white if found.deep else 1))
    np.testing.assert_array_equal(scale(found.values), values[..., :colours] * (white // top))
    if channels in (2, 4):
        np.testing.assert_array_equal(scale(found.alpha), values[..., -1])
    alpha = values[..., -1:] / top if channels in (2, 4) else 1
    expected = (values[..., :colours] / top * alpha + 1 - alpha) * 255
    laid = fitting.eight(fitting.opaque(found, colours))
    assert np.abs(laid - expected).max() <= 0.5 + 1e-4


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "F", "I", "I;16"]
FORMATS = ["PNG", "TIFF", "JPEG", "WEBP", "BMP", "GIF", "PPM"]


@quick
@given(st.sampled_from(MODES), st.sampled_from(FORMATS), st.integers(0, 9), st.integers(1, 8))
def test_modes_of_pillow_in_every_format(mode, form, seed, orientation):
    values = np.random.default_rng(seed).integers(64, 256, (6, 9, 4)).astype(np.uint8)
    image = Image.fromarray(values[..., : 4 if "A" in mode and mode != "LAB" else 3])
    made = {
        "I;16": lambda: Image.fromarray(values[..., 0].astype(np.uint16) * 200),
        "I": lambda: Image.fromarray(values[..., 0].astype(np.int32) * 200),
        "PA": lambda: image.convert("P").convert("PA"),
        "LAB": lambda: Image.new("LAB", (9, 6), (90, 3, 9)),
    }
    image = made.get(mode, lambda: image.convert(mode))()
    encoded, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    try:
        image.save(encoded, form, **({"exif": exif} if form in ("PNG", "TIFF", "JPEG", "WEBP") else {}))
    except (OSError, ValueError, KeyError):
        return  # Pillow does not write it
    try:
        found = reader.read_picture(encoded.getvalue())
    except OSError as error:
        assert "\n" not in str(error) and (form == "PPM" or mode in ("F", "I"))
        return
    turned = orientation > 4 and form in ("PNG", "TIFF", "JPEG", "WEBP")
    assert found.values.shape[:2] == ((9, 6) if turned else (6, 9)) and found.values.shape[2] in (1, 3)
    pixels = data.decode(encoded.getvalue(), channels=1)
    assert pixels.dtype == np.uint8 and pixels.max() > 0


@quick
@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"II*\0", b"\xff\xd8\xff", b"\x93NUMPY\x01\0", b"PK\x03\x04"]),
)
def test_bytes_of_any_kind_are_a_picture_or_one_line(tmp_path_factory, content, head):
    for name in ("x.png", "x.npy", "x.npz", "train-images-idx3-ubyte.gz"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(head + content)
        read = {".npz": data.catalogue, ".gz": lambda path: arrays.idx(path, 10**6)}.get(path.suffix, data.picture)
        try:
            read(str(path))
        except OSError as error:
            assert "\n" not in str(error)
