"""Arrays from files, bounded before memory is taken, and what their numbers mean: layout, range, labels.

The rules are written down in docs/pictures.md.
"""

from __future__ import annotations

import gzip
import math
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

LEAST = 0.25  # of white: what stays under it in more than 8 bits is rather another range than a dark picture
ROUNDING = 1e-6  # over or under a range, from arithmetic in single precision
REMEDY = "give the levels that are black and white: --levels=LOW,HIGH or auto"
LEAST_SIDE = 8  # pixels, under which a last axis is rather a wrong number of channels
MOST_CLASSES = 100_000
Levels = tuple[float, float] | Literal["auto"] | None


class Refused(OSError, ValueError):
    """A whole file that declares more than a limit, or leaves open what its numbers mean; the text has the remedy."""


class Range(NamedTuple):
    """The values that are black and white.

    Attributes:
      black: the value that becomes -1.
      white: the value that becomes 1.
    """

    black: float
    white: float


class Found(NamedTuple):
    """The range of an array's values.

    Attributes:
      range: of black and white.
      note: a word on it, for the user.
      dim: why it may not be meant so, or "" where it is plain.
    """

    range: Range
    note: str = ""
    dim: str = ""


def ranged(values: np.ndarray, levels: Levels = None, known: Range | None = None) -> Found:
    """What black and white are in values (..., H, W, C); `known` where the file says so, `levels` where the user does.

    uint8 counts from 0 to 255, bool is black or white, uint16 counts to 65535, other whole numbers to 255;
    floats are in [0, 1], [-1, 1] or [0, 255], by what they reach. Raises `Refused` for numbers that say neither.
    """
    if values.dtype.kind not in "buif" or not values.size:
        raise Refused(f"holds {values.size} values of {values.dtype}; give whole numbers or floats")
    colours = values[..., :3]
    low, high = colours.min().item(), colours.max().item()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Refused("holds NaN or infinity; clean it first")
    if values.dtype == bool:
        return Found(Range(0, 1))
    if values.dtype == np.uint8:
        return _bytes(high)
    kind = {"f": "floats"}.get(values.dtype.kind, f"{values.dtype.itemsize * 8}-bit values")
    if levels is not None:
        return _stretched(low, high, kind, levels)
    sixteen = Range(0, 65535) if values.dtype == np.uint16 else None
    chosen = known or sixteen or _guessed(low, high, values.dtype.kind)
    note = f"{kind}, {low:g} to {high:g} of {chosen.black:g} to {chosen.white:g}"
    if (high - chosen.black) / (chosen.white - chosen.black) >= LEAST:
        return Found(chosen, note)
    return Found(chosen, note, f"holds {note}, which is almost black everywhere; {REMEDY}")


def _bytes(high: float) -> Found:
    if high == 1:
        raise Refused("holds bytes of 0 and 1 alone, where 255 is white; multiply by 255, or save it as bool")
    return Found(Range(0, 255))


def _stretched(low: float, high: float, kind: str, levels: Levels) -> Found:
    black, white = (low, high) if levels == "auto" else levels or (0, 1)
    if black == white:
        raise Refused(f"holds {low:g} alone, which levels 'auto' cannot stretch; give LOW,HIGH")
    return Found(Range(black, white), f"{kind}, {low:g} to {high:g}, black at {black:g} and white at {white:g}")


def _guessed(low: float, high: float, kind: str) -> Range:
    """The range of floats, or of whole numbers that are neither bytes nor of 16 bits."""
    floats = kind == "f"
    if floats and low >= -ROUNDING and high <= 1 + ROUNDING:
        return Range(0, 1)
    if floats and -1 - ROUNDING <= low <= -LEAST and high <= 1 + ROUNDING:
        return Range(-1, 1)
    if low >= 0 and high <= 255:
        return Range(0, 255)
    known = "[0, 1], [-1, 1] or [0, 255]" if floats else "0 to 255"
    raise Refused(f"runs from {low:g} to {high:g}, which is not {known}; {REMEDY}")


def scaled(values: np.ndarray, found: Range) -> np.ndarray:
    """Values as uint8 where they are whole numbers from 0 to 255 or bool, else as float32, black 0 and white 1.

    A fourth channel of whole numbers is alpha, whose white is the type's largest value.
    """
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind in "ui" and found == Range(0, 255):
        return np.ascontiguousarray(np.clip(values, 0, 255), np.uint8)
    stretch = lambda x, black, white: np.clip((x.astype(np.float64) - black) / (white - black), 0, 1)
    parts = [stretch(values[..., :3], *found)]
    if values.shape[-1] == 4:
        parts.append(stretch(values[..., 3:], 0, np.iinfo(values.dtype).max))
    return np.concatenate(parts, -1).astype(np.float32)


def one(values: np.ndarray) -> np.ndarray:
    """One picture as (H, W, C): grey (H, W) gains an axis, channels that come first are brought last.

    Raises `Refused` for other shapes.
    """
    shape = values.shape
    values = values[0] if values.ndim == 4 and shape[0] == 1 else values
    if values.ndim == 4:
        raise Refused(f"has shape {shape}, which is {shape[0]} pictures; save them as `images` in a .npz")
    values = values[..., None] if values.ndim == 2 else _last(values, shape) if values.ndim == 3 else values
    if values.ndim != 3 or values.shape[-1] not in (1, 3, 4) or not values.size:
        raise Refused(f"has shape {shape}; give (height, width) or (height, width, channels) of 1, 3 or 4")
    return _alpha(values, shape)


def many(values: np.ndarray) -> np.ndarray:
    """Pictures as (N, H, W, C), from that, from (N, H, W) or from (N, C, H, W). Raises `Refused` for other shapes."""
    shape = values.shape
    if values.ndim == 3 and shape[-1] in (1, 3, 4):
        raise Refused(f"has shape {shape}; give (pictures, height, width, channels), also where there is one picture")
    values = values[..., None] if values.ndim == 3 else _last(values, shape) if values.ndim == 4 else values
    if values.ndim != 4 or values.shape[-1] not in (1, 3, 4) or not values.size:
        raise Refused(f"has shape {shape}; give (pictures, height, width) or (..., channels) of 1, 3 or 4")
    return _alpha(values, shape)


def _last(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Pictures (..., H, W, C) with channels last, where 1 or 3 came first. Raises `Refused` where both may be meant."""
    first, last = values.shape[-3], values.shape[-1]
    if first in (1, 3) and last in (1, 3, 4):
        raise Refused(
            f"has shape {shape}, where channels may be first or last; give pictures of more pixels, channels last"
        )
    return np.moveaxis(values, -3, -1) if first in (1, 3) and last >= LEAST_SIDE else values


def _alpha(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if values.shape[-1] == 4 and values.dtype not in (np.uint8, np.uint16):
        raise Refused(f"has shape {shape} of {values.dtype}; a fourth channel is transparency in 8 or 16 bits alone")
    return values


def labels(values: np.ndarray, count: int) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Labels as int64 (count,), and the names where they are words.

    Accepts whole numbers from 0 on of any type, words, (N, 1), and one-hot rows; raises `Refused` for others.
    """
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.shape[:1] != (count,) or values.ndim > 2:
        raise Refused(f"has shape {values.shape} for {count} pictures; give one label for each")
    if values.ndim == 2:
        return _one_hot(values), None
    if values.dtype.kind in "US":
        names, index = np.unique(values, return_inverse=True)
        word = lambda name: name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
        return index.reshape(-1).astype(np.int64), tuple(map(word, names))
    if values.dtype.kind not in "buif":
        raise Refused(f"holds {values.dtype}; give whole numbers from 0 on, or words")
    numbers = values.astype(np.float64) if values.dtype.kind == "f" else values
    if count and not (numbers.min() >= 0 and numbers.max() < MOST_CLASSES and (numbers == np.floor(numbers)).all()):
        raise Refused(f"runs from {numbers.min():g} to {numbers.max():g}; give whole numbers from 0 on")
    return numbers.astype(np.int64), None


def _one_hot(rows: np.ndarray) -> np.ndarray:
    if rows.dtype.kind not in "buif" or not ((rows == 1).sum(1) == 1).all() or not ((rows != 0).sum(1) == 1).all():
        raise Refused(f"has shape {rows.shape} and is not one-hot; give one label for each picture")
    return rows.argmax(1).astype(np.int64)


def regular(path: str) -> str:
    """The path of a regular file. Raises `Refused` for anything else: a folder, a FIFO, a device."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise Refused("is a folder, a FIFO or a device; give a regular file")
    return path


def reason(error: OSError) -> str:
    """What an error says, without the path that the system's own repeat."""
    return error.strerror or str(error)


def npy(path: str, limit: int) -> np.ndarray:
    """The array of a `.npy` file. Raises `Refused` where it is damaged or takes more than `limit` bytes."""
    with _whole(), open(regular(path), "rb") as file:
        return _array(file, limit, os.fstat(file.fileno()).st_size)


def members(path: str) -> set[str]:
    """The names of a `.npz`'s arrays. Raises `Refused` where it is no such file."""
    with _whole(f"{path}: "), zipfile.ZipFile(regular(path)) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def npz(path: str, names: list[str], limit: int, kinds: str = "biufSU") -> dict[str, np.ndarray]:
    """Those of the arrays `names` that a `.npz` holds, `limit` bytes at most together. Raises `Refused`.

    `kinds` are NumPy's letters for what is accepted.
    """
    with _whole(f"{path}: "):
        archive = zipfile.ZipFile(regular(path))
    found: dict[str, np.ndarray] = {}
    with archive:
        stored = {info.filename: info for info in archive.infolist()}
        for name in names:
            if info := stored.get(f"{name}.npy"):
                with _whole(f"{path}: {name} "), archive.open(info) as member:
                    found[name] = _array(member, limit, info.file_size, kinds)
                limit -= found[name].nbytes
    return found


def _array(file: Any, limit: int, size: int, kinds: str = "biufSU") -> np.ndarray:
    """An array whose header is read first, from a stream that has `size` bytes."""
    shape, fortran, dtype = _header(file)
    if dtype.hasobject or dtype.kind not in kinds:
        raise Refused(f"holds {dtype}; give {'complex ' * (kinds == 'c')}numbers")
    if min(shape, default=0) < 0:
        raise Refused(f"declares the shape {shape}; it is damaged: save it again")
    need = math.prod(shape) * dtype.itemsize
    bounded(need, limit)
    if size < need:
        raise Refused(f"declares {need} bytes and holds {size}; it is damaged: save it again")
    raw = file.read(need)
    if len(raw) < need:
        raise Refused(f"declares {need} bytes and holds {len(raw)}; it is damaged: save it again")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):  # a longer header is that of many named fields
        raise Refused(f"is of .npy version {version}; save plain numbers with numpy.save")
    return np.lib.format.read_array_header_1_0(file)


def bounded(need: int, limit: int) -> None:
    """Raises `Refused` where an array needs more than `limit` bytes."""
    if need > limit:
        raise Refused(f"takes {need} bytes, more than the limit of {limit}; split it, or raise the limit (--max_bytes)")


@contextmanager
def _whole(where: str = "") -> Iterator[None]:
    """What NumPy and zipfile raise for damaged files, as one line; `where` begins the text of every refusal."""
    try:
        yield
    except Refused as error:
        raise Refused(f"{where}{error}") from None
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise Refused(f"{where}is not a readable array file ({error}); save it again") from error


def idx(path: str, limit: int) -> np.ndarray:
    """One IDX file of bytes (LeCun's MNIST format): magic 0x0000 08 ndim, big-endian sizes, data; gzipped or not.

    Raises `Refused` where it is damaged or takes more than `limit` bytes, of which no more is inflated.
    """
    opened = gzip.open if path.endswith(".gz") else open
    with _whole(f"{path}: "), opened(regular(path), "rb") as file:
        head = file.read(4)
        if len(head) < 4 or head[:3] != b"\0\0\x08":
            raise Refused("is not an IDX file of bytes; download it again")
        sizes = file.read(4 * head[3])
        shape = np.frombuffer(sizes[: len(sizes) // 4 * 4], ">i4").astype(int).tolist()
        if len(shape) != head[3] or min(shape, default=0) < 0:
            raise Refused(f"has a broken header {shape}; download it again")
        need = math.prod(shape)
        bounded(need, limit)
        raw = file.read(need + 1)
        if len(raw) != need:
            more = "more than " * (len(raw) > need)
            raise Refused(f"holds {more}{min(len(raw), need)} bytes, its header says {shape}; download it again")
    return np.frombuffer(raw, np.uint8).reshape(shape)
