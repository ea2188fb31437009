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
import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from diffinv import limits, schema

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


OPCODES, PICKLE, AXES = 2**22, 2**26, 32  # a network of 10,000 tensors takes 400,000 opcodes and a few megabytes


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


def _shape(value: Any) -> tuple[int, ...]:
    """A tuple of few whole numbers, from whatever the file gives in its place."""
    if type(value) not in (tuple, list) or len(value) > AXES or not all(type(n) is int for n in value):
        raise _Refused(f"holds a tensor whose shape or strides are {type(value).__name__}s; fetch it again")
    return tuple(value)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage) or type(offset) is not int:
        raise _Refused(f"holds a tensor on a {type(storage).__name__}; fetch it again")
    return _Tensor(storage, offset, _shape(shape), _shape(strides))


def _parameter(data: Any, *_: Any) -> _Tensor:
    if not isinstance(data, _Tensor):
        raise _Refused(f"holds a parameter that is a {type(data).__name__}; fetch it again")
    return data


def _ordered(*pairs: Any) -> OrderedDict:
    """The empty dictionary, which the pickle then fills; torch writes no other."""
    if any(pairs):
        raise _Refused("fills a dictionary as torch does not; load it in torch and save its state_dict() alone")
    return OrderedDict()


def _globals() -> dict[tuple[str, str], Any]:
    """The closed list, made anew for each file, so that no file can alter what the next one is read with."""
    return {
        ("collections", "OrderedDict"): _ordered,
        ("torch", "Size"): _shape,
        ("torch._utils", "_rebuild_tensor"): _tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        **{("torch", name): name for name in DTYPES},
    }


class _Stream(io.BytesIO):
    """A pickle that ends early says so, wherever it ends."""

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        if size is not None and len(found) < size:
            raise EOFError("it ends early")
        return found

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise EOFError("it ends early")
        return line


class _Dispatch(dict):
    """The opcodes by number, counted."""

    def __init__(self, known: dict[int, Any]) -> None:
        super().__init__(known)
        self.left = OPCODES

    def __getitem__(self, opcode: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise _Refused(f"has a pickle of more than {OPCODES} opcodes; save its state_dict() alone")
        return super().__getitem__(opcode)


def _no(opcode: bytes, why: str) -> Callable[[Any], None]:
    def refuse(_: Any) -> None:
        raise _Refused(f"uses {why} (opcode {opcode!r}), which no state_dict() does; save that alone")

    return refuse


class _Unpickler(pickle._Unpickler):
    """Knows the closed list and nothing else; storages become placeholders.

    Python's own unpickler in Python: its memo is a dictionary, where that in C is a table as long as the largest index
    that the file names. Keys are hashed only where they are plain: the hash of nested tuples takes for ever.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self.known = _globals()
        self.dtypes: dict[str, np.dtype] = {}
        self.dispatch = _Dispatch({**pickle._Unpickler.dispatch, **_OWN})  # type: ignore[misc]  # load() asks self for it

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise _Refused(
                f"asks for {schema.shown(module)[1:-1]}.{schema.shown(name)[1:-1]}, which is not a tensor and could "
                "run code; where you trust it, load it in torch and save its state_dict() alone"
            )
        return self.known[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        if type(pid) is not tuple or not 5 <= len(pid) <= 6:
            raise ValueError("a storage is not named as torch names it")
        kind, name, key, _, count, *view = pid
        if kind != "storage" or type(name) is not str or name not in DTYPES:
            said = name if type(name) is str else type(name).__name__
            raise _Refused(
                f"has a {schema.shown(kind) if type(kind) is str else type(kind).__name__} of type {said[:60]}; save "
                f"its state_dict() alone, in one of {', '.join(DTYPES)}"
            )
        if type(key) is not str or type(count) is not int:
            raise _Refused("has a storage without a name or a size; fetch it again")
        storage = _Storage(key, DTYPES[name], count)
        self.dtypes[storage.key] = storage.dtype
        if view and view[0] is not None:
            _, start, size = view[0]
            return _Storage(storage.key, storage.dtype, int(size), int(start))
        return storage

    def plain(self, keys: Iterator[Any]) -> None:
        """Raises where a key of a dictionary is not plain."""
        for key in keys:
            if not (key is None or type(key) in (str, int, float, bool, bytes)):
                raise _Refused(f"has a {type(key).__name__} as a key; save its state_dict() alone")


def _set_item(self: Any) -> None:
    self.plain(iter(self.stack[-2:-1]))
    pickle._Unpickler.load_setitem(self)  # type: ignore[attr-defined]


def _set_items(self: Any) -> None:
    self.plain(iter(self.stack[::2]))  # pairs since the mark
    pickle._Unpickler.load_setitems(self)  # type: ignore[attr-defined]


def _set_dict(self: Any) -> None:
    self.plain(iter(self.stack[::2]))
    pickle._Unpickler.load_dict(self)  # type: ignore[attr-defined]


def _forget(self: Any) -> None:
    """BUILD: torch hangs `_metadata` on its dictionaries, which is of no use here."""
    self.stack.pop()


_OWN: dict[int, Any] = {
    pickle.SETITEM[0]: _set_item,
    pickle.SETITEMS[0]: _set_items,
    pickle.DICT[0]: _set_dict,
    pickle.BUILD[0]: _forget,
    **{
        code[0]: _no(code, why)
        for code, why in (
            (pickle.EMPTY_SET, "a set"),
            (pickle.FROZENSET, "a set"),
            (pickle.ADDITEMS, "a set"),
            (pickle.BYTEARRAY8, "a byte array"),
            (pickle.INST, "a class"),
            (pickle.OBJ, "a class"),
            (pickle.NEWOBJ, "a class"),
            (pickle.NEWOBJ_EX, "a class"),
            (pickle.EXT1, "a registered class"),
            (pickle.EXT2, "a registered class"),
            (pickle.EXT4, "a registered class"),
        )
    },
}


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


class _Reader:
    """Arrays for placeholders, within `limit` bytes of tensors; what the tree names twice is resolved once."""

    def __init__(self, read: Callable[[_Storage], bytes], limit: int, path: Any) -> None:
        self.read, self.limit, self.path = read, limit, path
        self.taken, self.done = 0, dict[int, Any]()

    def resolved(self, tree: Any) -> Any:
        """The tree with arrays for placeholders."""
        if tree is None or isinstance(tree, (bool, int, float, complex, str, bytes)):
            return tree
        if id(tree) not in self.done:
            self.done[id(tree)] = self._resolve(tree)
        return self.done[id(tree)]

    def _resolve(self, tree: Any) -> Any:
        if isinstance(tree, _Tensor):
            self.taken += math.prod(tree.shape) * tree.storage.dtype.itemsize
            limits.require_size(self.taken, self.limit, str(self.path))
            return _array(tree, self.read)
        if isinstance(tree, dict):
            return {key: self.resolved(value) for key, value in tree.items()}
        if type(tree) in (list, tuple):
            return type(tree)(self.resolved(value) for value in tree)
        raise _Refused(f"holds a {type(tree).__name__.strip('_')} outside a tensor; save its state_dict() alone")


def _zip(file: IO[bytes], limit: int, path: Any) -> Any:
    """The object of a zip checkpoint."""
    archive = zipfile.ZipFile(file)
    limits.require_archive(archive, limit, path)
    members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
        raise _Refused("is big-endian; load it in torch on a little-endian machine and save it again")
    limits.require_size(members["data.pkl"].file_size, PICKLE, f"the pickle in {path}")

    @functools.cache
    def member(key: str) -> bytes:
        return archive.read(members[f"data/{key}"])

    tree = _Unpickler(_Stream(archive.read(members["data.pkl"]))).load()
    return _Reader(lambda storage: member(storage.key), limit, path).resolved(tree)


def _legacy(file: IO[bytes], limit: int, path: Any) -> Any:
    """The object of a checkpoint of torch < 1.6."""
    pickles = _Stream(file.read(PICKLE))
    magic, protocol, system = (_Unpickler(pickles).load() for _ in range(3))
    if (magic, protocol) != (MAGIC, PROTOCOL):
        raise ValueError("it does not begin as a torch file")
    if not system.get("little_endian", True):
        raise _Refused("is big-endian; load it in torch on a little-endian machine and save it again")
    unpickler = _Unpickler(pickles)
    tree, keys = unpickler.load(), _Unpickler(pickles).load()
    file.seek(pickles.tell())
    storages: dict[str, bytes] = {}
    for key in keys:
        size = int.from_bytes(file.read(8), "little") * unpickler.dtypes[key].itemsize
        limits.require_size(size, limits.require_file(path), f"a storage of {path}")
        storages[key] = file.read(size)
    return _Reader(lambda storage: storages[storage.key], limit, path).resolved(tree)


def load(path: str | Path, limit: int | None = None) -> dict[str, Any]:
    r"""The dictionary in a torch checkpoint, with numpy arrays for tensors and parameters.

    Numbers, strings, lists and dictionaries inside it are kept; anything else, and every function or class that the
    file names, is refused and not called. Strided, transposed and shared storages are handled. bfloat16 is ml_dtypes'.

    Source: original; the formats are torch's.

    Args:
      path: a `.pt`, `.pth` or `.ckpt` file of either format.
      limit: bytes that its tensors, unpacked, may take; see `limits.allowance`.

    Returns: name to read-only array, nested as in the file.

    Raises ValueError for a forbidden name, for more than `limit` bytes or 4 million opcodes, and for a file that is
    truncated or no torch checkpoint.
    """
    most = limits.allowance(path, limit)
    with open(path, "rb") as file:
        reader = _zip if file.read(4) == b"PK\x03\x04" else _legacy
        file.seek(0)
        try:
            tree = reader(file, most, path)
        except _Refused as error:
            raise ValueError(f"{path} {error}") from None
        except limits.TooLarge:
            raise
        except Exception as error:
            why = str(error) or type(error).__name__
            raise ValueError(f"{path} is truncated or no torch checkpoint ({why}); fetch it again") from error
    if not isinstance(tree, dict):
        raise ValueError(
            f"{path} holds a {type(tree).__name__}, not a dictionary of tensors; save a state_dict() instead"
        )
    return tree
