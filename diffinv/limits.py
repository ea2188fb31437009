"""Sizes that a file declares, bounded before memory is taken.

A file of a few megabytes may claim gigabytes: deflated members, shapes in headers, nested JSON. What it may claim is
`allowance(path)`, which grows with its own size; a caller that trusts it passes another `limit` in bytes.
"""

from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

FREE = 2**28  # 256 MiB are nobody's trouble
RATIO = 8  # honest arrays deflate to an eighth at most, and half precision doubles on its way to float32
TEXT = 2**23  # of a JSON file


class TooLarge(ValueError):
    """A file declares more than the limit."""


def size(count: float) -> str:
    """Bytes as people say them: "3.8 GB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1000
    return f"{count:.4g} TB"


def require_file(path: str | os.PathLike[str]) -> int:
    """The size in bytes of a regular file. Raises FileNotFoundError, and ValueError for a pipe, a device, a folder."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise ValueError(f"{path} is {kind}; give a file")
    return found.st_size


def allowance(path: str | os.PathLike[str], limit: int | None = None) -> int:
    """The bytes of memory that a file may claim: `limit`, or 256 MiB and 8 times its own size."""
    own = require_file(path)
    return FREE + RATIO * own if limit is None else int(limit)


def require_size(declared: int, limit: int, what: str) -> None:
    """TooLarge where `what` declares more than `limit` bytes."""
    if declared > limit:
        raise TooLarge(
            f"{what} declares {size(declared)}, and the limit is {limit} bytes; where you trust it, raise the limit"
        )


def read_bytes(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """A regular file's content; ValueError where it is larger than `limit` bytes."""
    own = require_file(path)
    if limit is not None:
        require_size(own, limit, str(path))
    with open(path, "rb") as file:
        return file.read()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def read_object(path: str | os.PathLike[str], limit: int = TEXT) -> dict[str, Any]:
    """A JSON object in UTF-8. Raises ValueError, with the path, for anything else, and for more than `limit` bytes."""
    content = read_bytes(path, limit)
    try:
        found = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_once)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not JSON in UTF-8; save it so") from None
    except RecursionError:
        raise ValueError(f"{path} is not JSON that can be read (nested too deeply)") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a JSON object")
    return found


def require_archive(archive: zipfile.ZipFile, limit: int, path: Any) -> None:
    """ValueError where the members of a zip file declare more than `limit` bytes together, or another compression."""
    for info in archive.infolist():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{path} holds {info.filename!r}, which is neither stored nor deflated; save it again")
    require_size(sum(info.file_size for info in archive.infolist()), limit, str(path))


def array_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype that a `.npy` stream declares, which is then at its data.

    Raises ValueError for another format, and for objects and records.
    """
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"it is of the npy format {version}; save plain numbers")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject or dtype.names:
        raise ValueError(f"it holds {'objects' if dtype.hasobject else 'records'}; save plain numbers")
    return tuple(shape), dtype


def _bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    count = dtype.itemsize
    for side in shape:
        count *= int(side)
    return count


def array(path: str | os.PathLike[str], limit: int | None = None) -> np.ndarray:
    """The array of a `.npy` file, no larger than the file.

    Raises ValueError where its header declares more than the file holds or `limit` allows.
    """
    most = allowance(path, limit)
    with open(path, "rb") as file:
        declared, place = _bytes(*array_header(file)), file.tell()
        require_size(declared, most, str(path))
        if declared > os.path.getsize(path) - place:
            raise ValueError(f"{path} declares {size(declared)} of numbers and holds less; fetch it again")
        file.seek(0)
        return np.load(file, allow_pickle=False)


def _members(archive: zipfile.ZipFile, path: Any) -> Iterator[tuple[str, np.ndarray]]:
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        try:
            with archive.open(info) as member:
                declared = _bytes(*array_header(member))
                held = info.file_size - member.tell()
            if declared != held:
                raise ValueError(f"it declares {size(declared)} and holds {size(held)}")
            yield name, np.load(io.BytesIO(archive.read(info)), allow_pickle=False)
        except ValueError as error:
            raise ValueError(f"{path}: array {name!r} cannot be read: {error}") from None


def arrays(path: str | os.PathLike[str], limit: int | None = None) -> dict[str, np.ndarray]:
    """All arrays of a `.npz` file.

    Raises ValueError where they declare more than `limit` bytes together, or where one is not what its header
    says; zipfile's and zlib's errors where the file is damaged.
    """
    most = allowance(path, limit)
    with zipfile.ZipFile(path) as archive:
        require_archive(archive, most, path)
        return dict(_members(archive, path))
