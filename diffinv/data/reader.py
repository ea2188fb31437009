"""One picture, read: rotation, depth, transparency and range are decided here, for every command (docs/pictures.md)."""

from __future__ import annotations

import io
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from diffinv.data import arrays
from diffinv.data.arrays import Levels, Range, Refused
from diffinv.describe import described

RULES = 2  # of reading: what was prepared under other rules is prepared again
GREY = ("1", "L", "LA", "La")
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
DEEP = ("RGB;16", "RGBA;16", "RGBX;16", "LA;16")  # Pillow's words, without the byte order, for 16 bits a channel
DAMAGED = (  # what Pillow raises for damaged files
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    ZeroDivisionError, struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
      levels: the values (low, high) of files of more than 8 bits that become black and white, "auto" for the least and
        the greatest of each file, or None for what the kind of numbers says.
      pixels: the most that a picture may declare.
      bytes: the most that the arrays of a file may declare.
      captions: a picture's label is its caption: the text file beside it (NAME.txt), or its name in a pack that has
        names; the captions are the catalogue's classes.

    Raises ValueError for levels that are no two growing numbers, and for limits under 1.
    """

    levels: Levels = None
    pixels: int = 80_000_000
    bytes: int = 2**31
    captions: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.levels, tuple):
            low, high = self.levels
            if not (np.isfinite([low, high]).all() and low < high):
                raise ValueError(f"levels are {low:g}, {high:g}; give two numbers, of which the second is greater")
        elif self.levels not in (None, "auto"):
            raise ValueError(f"levels are {self.levels!r}; give a tuple of two numbers, 'auto' or None")
        if self.pixels < 1 or self.bytes < 1:
            raise ValueError(f"the limits are {self.pixels} pixels and {self.bytes} bytes; give at least 1")

    def admit(self, width: int, height: int) -> None:
        """Raises `Refused` for a picture of more pixels than the limit."""
        if width * height > self.pixels:
            sides = f"{width} x {height} pixels are more than the limit of {self.pixels}"
            raise Refused(f"{sides}; crop it, or raise the limit (--max_pixels)")


PLAIN = Reading()


@described
class Picture(NamedTuple):
    """A picture that was read, upright.

    Attributes:
      values: (h, w, 1 or 3), uint8, or float32 in [0, 1] where the file has more than 8 bits.
      alpha: (h, w) of the same type, or None.
      profile: the embedded ICC profile, or None.
      notes: what was converted.
      dim: why this may not be meant as it was read, with the remedy; "" where it is plain.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None
    notes: tuple[str, ...] = ()
    dim: str = ""

    @property
    def deep(self) -> bool:
        """Whether the file has more than 8 bits a channel."""
        return self.values.dtype != np.uint8


def pillow() -> Any:
    """`PIL.Image`, or a ModuleNotFoundError that says what to install."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("pictures need Pillow; run `pip install pillow`", name="PIL") from error
    return Image


def read_picture(source: bytes | str, reading: Reading = PLAIN) -> Picture:
    """A file's bytes, or a path, of anything that Pillow reads, or of a `.npy` array, by the rules of docs/pictures.md.

    Raises OSError, in one line, where the file is damaged, declares more than the limits, or leaves open what
    its numbers mean.
    """
    if isinstance(source, str) and arrays.regular(source).lower().endswith(".npy"):
        values = arrays.one(arrays.npy(source, reading.bytes))
        reading.admit(values.shape[1], values.shape[0])
        return as_picture(values, arrays.ranged(values, reading.levels))
    with _decoding(), _opened(source, reading) as image:
        frames, raw = getattr(image, "n_frames", 1), _raw_mode(image)
        if image.mode[0] in "IF":
            found = _single(image, raw, reading)
        elif raw[:-1] in DEEP:
            found = _sixteen(source, image, raw, reading)
        else:
            found = _eight(image, raw)
    return found._replace(notes=(f"first of {frames} frames", *found.notes)) if frames > 1 else found


def as_picture(values: np.ndarray, found: arrays.Found) -> Picture:
    """An array (h, w, 1, 3 or 4) as a picture, under the range that was found for its file."""
    scaled = arrays.scaled(values, found.range)
    alpha = scaled[..., 3] if scaled.shape[-1] == 4 else None
    return Picture(scaled[..., :3], alpha, None, (found.note,) if found.note else (), found.dim)


@contextmanager
def _decoding() -> Iterator[None]:
    """What Pillow raises for damaged files, as one OSError; its warnings about what it leaves out are not repeated."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (Refused, FileNotFoundError, PermissionError):
        raise
    except pillow().UnidentifiedImageError:
        raise Refused("is no picture that Pillow reads; convert it to PNG, or save its numbers as .npy") from None
    except DAMAGED as error:
        raise OSError(f"cannot decode the image: {error}") from error


@contextmanager
def _opened(source: bytes | str, reading: Reading) -> Iterator[Any]:
    """The header alone, of a picture within the limit."""
    module = pillow()
    if module.MAX_IMAGE_PIXELS is not None and reading.pixels > module.MAX_IMAGE_PIXELS:
        module.MAX_IMAGE_PIXELS = reading.pixels  # the caller's word counts, not Pillow's default
    try:
        image = module.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except module.DecompressionBombError as error:
        told = f"is over the limit of {reading.pixels} pixels ({error})"
        raise Refused(f"{told}; crop it, or raise the limit (--max_pixels)") from None
    with image:
        reading.admit(*image.size)
        _interleaved(getattr(image, "tag_v2", {}), image.mode)
        yield image


def _interleaved(tags: Any, mode: str) -> None:
    """Raises `Refused` for TIFF files of which Pillow would read something else than their numbers."""
    bits, samples = tags.get(258, (8,)), tags.get(277, 1)
    if samples > 4:
        raise Refused(f"has {samples} channels; give 1 (grey), 3 (RGB) or 4")
    if tags.get(284) == 2 and samples > 1 and max(bits) > 8:
        raise Refused(
            f"has {samples} planes of {max(bits)} bits one after the other; save it with interleaved channels"
        )
    if 2 in tags.get(339, ()) and mode[0] not in "IF":
        raise Refused("has signed bytes, whose black is not known; save it as whole numbers from 0 on")


def _raw_mode(image: Any) -> str:
    """How a pixel lies in the file, in Pillow's words; "" where its plugin does not say."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args or "")


def _upright(image: Any) -> Any:
    from PIL import ImageOps

    image.load()
    return ImageOps.exif_transpose(image)


def _eight(image: Any, raw: str) -> Picture:
    """Eight bits or fewer: grey stays grey, all else becomes RGB; any transparency is an alpha channel."""
    mode, profile, key = image.mode, image.info.get("icc_profile"), image.info.get("transparency")
    if mode not in GREY + COLOUR:
        raise Refused(f"mode {mode} is not known; convert it to 8 or 16 bits a channel")
    transparent, kind, image = image.has_transparency_data, "L" if mode in GREY else "RGB", _upright(image)
    alpha = None
    if isinstance(key, int) and kind == "L":  # Pillow compares the file's own value with the widened pixels
        clear = 255 * (key > 0) if mode == "1" else key * {"L;2": 85, "L;4": 17}.get(raw, 1)
        values = np.asarray(image.convert("L"))
        alpha = np.where(values == clear, 0, 255).astype(np.uint8)
    elif transparent:
        every = np.asarray(image.convert("RGBA"))
        values, alpha = every[..., : len(kind)], every[..., 3]
    else:
        values = np.asarray(image if image.mode == kind else image.convert(kind))
    plain = mode in ("L", "LA", "RGB", "RGBA")  # a profile of another mode's numbers would colour these wrongly
    notes = [f"{mode} to {kind}"] * (not plain) + ["16 bits to 8"] * (";16" in raw)
    return Picture(values.reshape(*values.shape[:2], len(kind)), alpha, profile if plain else None, tuple(notes))


def _single(image: Any, raw: str, reading: Reading) -> Picture:
    """One channel of 12 or 16 bits, of 32-bit integers or of floats."""
    inverted = getattr(image, "tag_v2", {}).get(262) == 0  # white is zero, which Pillow heeds in 8 bits alone
    key, profile = image.info.get("transparency"), image.info.get("icc_profile")
    whole = image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I")
    known = Range(0, 4095 if ";12" in raw else 65535) if whole else None
    values = np.asarray(_upright(image))
    if inverted and known is None:
        raise Refused("its white is zero and its black is not known; save it with black as zero")
    alpha = np.where(values == key, 0, 1) if isinstance(key, int) else None
    values = known.white - values.astype(np.int32) if inverted and known else values
    values = values.astype(np.uint16) if whole else values
    return _deep(values[..., None], alpha, known, profile, reading)


def _sixteen(source: bytes | str, image: Any, raw: str, reading: Reading) -> Picture:
    """16 bits a channel of colour, or of grey with alpha, of which Pillow gives half: it is asked for either byte."""
    key, profile = image.info.get("transparency"), image.info.get("icc_profile")
    if raw.startswith("LA"):  # four bytes a pixel, taken as they are
        four = _bytes(image, "RGBA")
        values = 256 * four[..., ::2] + four[..., 1::2]
    else:
        first, second = {"B": "BL", "L": "LB", "N": "LB" if sys.byteorder == "little" else "BL"}[raw[-1]]
        with _opened(source, reading) as again:
            values = 256 * _bytes(image, raw[:-1] + first) + _bytes(again, raw[:-1] + second)
    colours = 3 if values.shape[-1] >= 3 else 1
    alpha = values[..., -1] / 65535 if values.shape[-1] > colours else None
    if isinstance(key, tuple) and alpha is None:
        alpha = (values != np.asarray(key)).any(-1)
    return _deep(values[..., :colours].astype(np.uint16), alpha, Range(0, 65535), profile, reading)


def _bytes(image: Any, raw: str) -> np.ndarray:
    """The picture, upright, with its pixels unpacked as `raw` says."""
    args = lambda old: (raw, *old[1:]) if isinstance(old, tuple) else raw
    image.tile = [tile._replace(args=args(tile.args)) for tile in image.tile]
    return np.asarray(_upright(image), np.int32)


def _deep(values: np.ndarray, alpha: Any, known: Range | None, profile: bytes | None, reading: Reading) -> Picture:
    """More than 8 bits, by the range that is known, or that the values themselves show."""
    found = as_picture(values, arrays.ranged(values, reading.levels, known))
    alpha = None if alpha is None else np.asarray(alpha * (1 if found.deep else 255), found.values.dtype)
    return found._replace(alpha=alpha, profile=profile)
