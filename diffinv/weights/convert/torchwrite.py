r"""Writes a state dict as torch would (`torch.save`, zip format), without torch: for stand-in files and tests.

The pickle is spelt out opcode by opcode, so that no class of torch is needed: an OrderedDict of calls of
`torch._utils._rebuild_tensor_v2`, each on one storage. Source: the format of `torch/serialization.py`; original.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffinv.atomic import replacing


def _text(value: str) -> bytes:
    raw = value.encode()
    return pickle.BINUNICODE + len(raw).to_bytes(4, "little") + raw


def _whole(value: int) -> bytes:
    return pickle.BININT + value.to_bytes(4, "little", signed=True)


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


_EMPTY = _name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE


def _tensor(key: int, shape: tuple[int, ...]) -> bytes:
    """A contiguous float32 tensor on storage `key`."""
    count, strides = math.prod(shape), [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    storage = (_text("storage"), _name("torch", "FloatStorage"), _text(str(key)), _text("cpu"), _whole(count))
    view = (_whole(0), _tuple(*map(_whole, shape)), _tuple(*map(_whole, strides)), pickle.NEWFALSE, _EMPTY)
    rebuild = _name("torch._utils", "_rebuild_tensor_v2")
    return rebuild + _tuple(_tuple(*storage) + pickle.BINPERSID, *view) + pickle.REDUCE


def write_state_dict(path: str | Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes `state` to `path`, as float32, whole or not at all."""
    entries = b"".join(_text(name) + _tensor(key, np.shape(value)) for key, (name, value) in enumerate(state.items()))
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        body = pickle.PROTO + b"\x02" + _EMPTY + pickle.MARK + entries + pickle.SETITEMS + pickle.STOP
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/byteorder", "little")
        for key, value in enumerate(state.values()):
            archive.writestr(f"archive/data/{key}", np.ascontiguousarray(value, "<f4").tobytes())
        archive.writestr("archive/version", "3\n")
