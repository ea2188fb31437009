"""Photographs as users have them, of any size, mode and depth; read by docs/pictures.md, written in their own kind."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from diffinv.data import Picture, Reading, arrays, fitting, listing, picture
from experiments.report import ledger

PLAIN = Reading()


class Photo(NamedTuple):
    """A picture that was read; `picture` has its values, its alpha, its ICC profile and notes on what was converted."""

    picture: Picture

    @property
    def rgb(self) -> np.ndarray:
        """(h, w, 3) uint8, without its transparency; three equal channels where `grey`."""
        return fitting.eight(self._colours())

    @property
    def unit(self) -> np.ndarray:
        """(h, w, 3) float32 in [-1, 1], in all the file's bits."""
        return fitting.unit(self._colours())

    def _colours(self) -> np.ndarray:
        return fitting.opaque(self.picture._replace(alpha=None))

    @property
    def alpha(self) -> np.ndarray | None:
        """(h, w), uint8 or float32 in [0, 1], or None."""
        return self.picture.alpha

    @property
    def grey(self) -> bool:
        """Written back with one channel."""
        return self.picture.values.shape[-1] == 1

    @property
    def deep(self) -> bool:
        """More than 8 bits a channel; written back with 16."""
        return self.picture.deep

    @property
    def profile(self) -> bytes | None:
        """The embedded ICC profile."""
        return self.picture.profile

    @property
    def notes(self) -> tuple[str, ...]:
        """What was converted, and what may not be meant so."""
        notes, dim = self.picture.notes, self.picture.dim
        return (*notes[:-1], dim.removeprefix("holds ")) if dim else notes  # which repeats the last note


def read(path: str, reading: Reading = PLAIN) -> Photo:
    """One file, upright by its EXIF rotation. Raises ValueError, in one line with the path, where it is unreadable."""
    try:
        return Photo(picture(path, reading))
    except OSError as error:
        raise ValueError(f"{listing.printable_name(path)} cannot be read: {arrays.reason(error)}") from None


def sixteen(x: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] (others are clipped) as uint16, rounded."""
    return np.rint((np.clip(np.asarray(x, np.float64), -1, 1) + 1) * 32767.5).astype(np.uint16)


def eight(pixels: np.ndarray) -> np.ndarray:
    """uint8 as it is, uint16 over 257, rounded."""
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels / 257).astype(np.uint8)


def unit(pixels: np.ndarray) -> np.ndarray:
    """uint8 or uint16 as float32 in [-1, 1]."""
    return (pixels / (np.iinfo(pixels.dtype).max / 2) - 1).astype(np.float32)


def _resized(alpha: np.ndarray, size: tuple[int, int], kind: np.dtype) -> np.ndarray:
    """Alpha, enlarged bicubically to (width, height), as whole numbers of `kind`."""
    found = np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BICUBIC))
    if found.dtype == kind:
        return found
    share = found / 255 if found.dtype == np.uint8 else np.clip(found.astype(np.float64), 0, 1)
    return np.rint(share * np.iinfo(kind).max).astype(kind)


def write(path: Path, rgb: np.ndarray, photo: Photo) -> None:
    """`rgb` (H, W, 3), uint8 or uint16, as a PNG of the photo's kind: grey stays grey, alpha is enlarged too."""
    planes = [np.rint(rgb.mean(-1)).astype(rgb.dtype)] if photo.grey else list(np.moveaxis(rgb, -1, 0))
    if photo.alpha is not None:
        planes.append(_resized(photo.alpha, (rgb.shape[1], rgb.shape[0]), rgb.dtype))
    if rgb.dtype == np.uint16:
        ledger.put(path, png16(planes, photo.profile))
        return
    image = Image.merge(("L", "LA", "RGB", "RGBA")[len(planes) - 1], [Image.fromarray(plane) for plane in planes])
    encoded = io.BytesIO()
    image.save(encoded, "png", **({"icc_profile": photo.profile} if photo.profile else {}))
    ledger.put(path, [encoded.getbuffer()])


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png16(planes: list[np.ndarray], profile: bytes | None = None) -> Iterator[bytes]:
    """The parts of a PNG of one to four (H, W) uint16, of which Pillow writes grey alone; a row at a time is in memory.

    Source: PNG specification (W3C, third edition), sections 9 and 11, every row under the filter "up".
    """
    (height, width), kind = planes[0].shape, {1: 0, 2: 4, 3: 2, 4: 6}[len(planes)]
    yield b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    if profile:
        yield _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    packer, above = zlib.compressobj(6), np.zeros(2 * width * len(planes), np.uint8)
    for row in zip(*planes, strict=True):
        here = np.stack(row, -1).astype(">u2").view(np.uint8).ravel()
        if packed := packer.compress(b"\2" + (here - above).tobytes()):
            yield _chunk(b"IDAT", packed)
        above = here
    yield _chunk(b"IDAT", packer.flush()) + _chunk(b"IEND", b"")
