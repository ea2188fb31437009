r"""Reads the tensors of a torch checkpoint without torch, and without running anything that the file asks for.

A checkpoint is a pickle, which may name any function and call it. Here the names are a closed list: dictionaries,
tensors, their storages and sizes; at any other the file is refused before it is called. Two formats:

    zip (torch >= 1.6)    NAME/data.pkl, and one member NAME/data/KEY per storage
    legacy                pickles of magic, protocol, system, object, storage keys; then per storage its count (int64)
                          and its elements

Source: `torch/serialization.py`, `torch/_utils.py` (BSD-3-Clause); the reader is original.
"""

from __future__ import annotations

import functools
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
    "ComplexFloatStorage": np.dtype("<c8"),
    "ComplexDoubleStorage": np.dtype("<c16"),
}


class _Refused(ValueError):
    """What the file asks for is not on the list."""


class _Storage(NamedTuple):
    """`length` elements from element `start` of the storage `key`."""

    key: str
    dtype: np.dtype
    length: int
    start: int = 0


class _Tensor(NamedTuple):
    """A strided view, before its storage is read; offset and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _globals() -> dict[tuple[str, str], Any]:
    """The closed list, made anew for each file, so that no file can alter what the next one is read with."""
    tensor = lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, tuple(shape), tuple(strides))
    return {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch", "Size"): tuple,
        ("torch._utils", "_rebuild_tensor"): tensor,
        ("torch._utils", "_rebuild_tensor_v2"): tensor,
        ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        **{("torch", name): name for name in DTYPES},
    }


class _Unpickler(pickle.Unpickler):
    """Knows the closed list and nothing else; storages become placeholders."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self.known = _globals()
        self.dtypes: dict[str, np.dtype] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise _Refused(
                f"asks for {module}.{name}, which is not a tensor and could run code; where you trust it, load it "
                "in torch and save its state_dict() alone"
            )
        return self.known[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, name, key, _, count, *view = pid
        if kind != "storage" or name not in DTYPES:
            raise _Refused(f"has a {kind} of type {name}; save its state_dict() alone, in one of {', '.join(DTYPES)}")
        storage = _Storage(str(key), DTYPES[name], int(count))
        self.dtypes[storage.key] = storage.dtype
        if view and view[0] is not None:
            _, start, size = view[0]
            return _Storage(storage.key, storage.dtype, int(size), int(start))
        return storage


def _array(tensor: _Tensor, read: Callable[[_Storage], bytes]) -> np.ndarray:
    """The view, checked to lie inside its storage; read-only."""
    storage, offset, shape, strides = tensor
    elements = np.frombuffer(read(storage), storage.dtype)[storage.start : storage.start + storage.length]
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    outside = min(*shape, *strides, offset, storage.start) < 0 or (math.prod(shape) > 0 and last >= len(elements))
    if outside or len(elements) != storage.length:
        raise ValueError(f"a tensor of shape {shape} does not lie inside its storage of {storage.length} elements")
    in_bytes = [s * storage.dtype.itemsize for s in strides]
    return np.lib.stride_tricks.as_strided(elements[offset:], shape, in_bytes, writeable=False)


def _resolved(tree: Any, read: Callable[[_Storage], bytes]) -> Any:
    """The tree with arrays for placeholders."""
    if isinstance(tree, _Tensor):
        return _array(tree, read)
    if isinstance(tree, dict):
        return {key: _resolved(value, read) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_resolved(value, read) for value in tree)
    if tree is None or isinstance(tree, (bool, int, float, complex, str, bytes)):
        return tree
    raise _Refused(f"holds a {type(tree).__name__.strip('_')} outside a tensor; save its state_dict() alone")


def _zip(file: IO[bytes]) -> Any:
    """The object of a zip checkpoint."""
    archive = zipfile.ZipFile(file)
    members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
        raise _Refused("is big-endian; load it in torch on a little-endian machine and save it again")

    @functools.cache
    def member(key: str) -> bytes:
        return archive.read(members[f"data/{key}"])

    with archive.open(members["data.pkl"]) as data:
        tree = _Unpickler(data).load()
    return _resolved(tree, lambda storage: member(storage.key))


def _legacy(file: IO[bytes]) -> Any:
    """The object of a checkpoint of torch < 1.6."""
    magic, protocol, system = (_Unpickler(file).load() for _ in range(3))
    if (magic, protocol) != (MAGIC, PROTOCOL):
        raise ValueError("it does not begin as a torch file")
    if not system.get("little_endian", True):
        raise _Refused("is big-endian; load it in torch on a little-endian machine and save it again")
    unpickler = _Unpickler(file)
    tree, keys = unpickler.load(), _Unpickler(file).load()
    storages = {}
    for key in keys:
        size = int.from_bytes(file.read(8), "little") * unpickler.dtypes[key].itemsize
        storages[key] = file.read(size)
    return _resolved(tree, lambda storage: storages[storage.key])


def load(path: str | Path) -> dict[str, Any]:
    r"""The dictionary in a torch checkpoint, with numpy arrays for tensors and parameters.

    Numbers, strings, lists and dictionaries inside it are kept; anything else, and every function or class that the
    file names, is refused and not called. Strided, transposed and shared storages are handled. bfloat16 is ml_dtypes'.

    Source: original; the formats are torch's.

    Args:
      path: a `.pt`, `.pth` or `.ckpt` file of either format.

    Returns: name to read-only array, nested as in the file.

    Raises ValueError for a forbidden name, and for a file that is truncated or no torch checkpoint.
    """
    with open(path, "rb") as file:
        reader = _zip if file.read(4) == b"PK\x03\x04" else _legacy
        file.seek(0)
        try:
            tree = reader(file)
        except _Refused as error:
            raise ValueError(f"{path} {error}") from None
        except Exception as error:
            why = str(error) or type(error).__name__
            raise ValueError(f"{path} is truncated or no torch checkpoint ({why}); fetch it again") from error
    if not isinstance(tree, dict):
        raise ValueError(
            f"{path} holds a {type(tree).__name__}, not a dictionary of tensors; save a state_dict() instead"
        )
    return tree
