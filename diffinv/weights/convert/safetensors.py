"""Safetensors to numpy and back, with the short floats that numpy lacks, and every error with the file's name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

HEADER = 2**24  # bytes; a network of 100,000 tensors has as many
DTYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_, "C64": np.complex64,
}  # fmt: skip


def _library() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("weights are stored as safetensors; pip install safetensors") from error
    return safetensors


def written(flat: Mapping[str, np.ndarray]) -> bytes:
    """The file's content."""
    return _library().numpy.save(dict(flat))


def _tensor(name: str, told: dict[str, Any], path: Any) -> np.ndarray:
    if told["dtype"] not in DTYPES:
        raise ValueError(f"{path}: {name!r} is of type {told['dtype']}, which is not read; save it as F32 or BF16")
    dtype = np.dtype(DTYPES[told["dtype"]])
    if math.prod(told["shape"]) * dtype.itemsize != len(told["data"]):
        raise ValueError(f"{path}: {name!r} of shape {told['shape']} has {len(told['data'])} bytes; fetch it again")
    return np.frombuffer(told["data"], dtype).reshape(told["shape"])


def from_bytes(content: bytes, path: Any) -> dict[str, np.ndarray]:
    """Flat names to read-only arrays; float8 as ml_dtypes have it.

    Raises ValueError, with `path`, for a broken file and for a type that numpy cannot hold, such as float4.
    """
    library, header = _library(), int.from_bytes(content[:8], "little")
    if header > HEADER:
        raise ValueError(f"{path} is no safetensors file: its header declares {header} bytes, the limit is {HEADER}")
    try:
        found = library.deserialize(content)
    except (library.SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is truncated or no safetensors file ({error}); fetch it again") from None
    return {name: _tensor(name, told, path) for name, told in found}
