r"""Reads the tensors and the graph of an ONNX file without onnx, and without running anything.

The file is one protocol buffer. These of its fields are looked at, the others passed by:

    ModelProto      7 graph, 8 opset_import (1 domain, 2 version), 14 metadata_props (1 key, 2 value), 25 functions
    GraphProto      1 node, 5 initializer, 11 input, 12 output
    NodeProto       1 input, 2 output, 3 name, 4 op_type, 5 attribute, 7 domain
    AttributeProto  1 name, 2 f, 3 i, 4 s, 5 t, 7 floats, 8 ints, 9 strings, 20 type
    ValueInfoProto  1 name, 2 type (1 tensor: 1 elem_type, 2 shape: 1 dim: 1 dim_value)
    TensorProto     1 dims, 2 data_type, 4 float_data, 7 int64_data, 8 name, 9 raw_data, 10 double_data,
                    13 external_data (1 key, 2 value), 14 data_location

Source: `onnx/onnx.proto` (Apache-2.0); the reader is original.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from diffinv import limits, schema
from diffinv.describe import described
from diffinv.weights.convert.onnx.wire import Messages, Unread, Value, decoded, integers, raw

DTYPES = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    4: np.dtype("<u2"),
    5: np.dtype("<i2"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    9: np.dtype("?"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
    12: np.dtype("<u4"),
    13: np.dtype("<u8"),
    16: np.dtype(ml_dtypes.bfloat16),
}
TYPED = {4: 1, 10: 11}  # the fields of unpacked bytes and the only type that each may hold
PARTS, AXES = 2**18, 32  # a network of 10,000 tensors has 30,000 nodes
SHORT = 2**20  # bytes of whole numbers in their short form, which grow eightfold
EMPTY = {6: (), 7: (), 8: ()}  # types of attributes that are lists

Attribute = float | int | str | np.ndarray | tuple | None


@described
class Node(NamedTuple):
    """One operation of the graph.

    Attributes:
      op: its kind, such as "Conv"; with its domain before it, "domain.Conv", where that is not ONNX's own.
      inputs: names of tensors; "" for one that is left out.
      outputs: names of tensors.
      name: its own.
      attributes: settings by name; None for one of a kind that is not read, such as a graph.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str = ""
    attributes: Mapping[str, Attribute] = MappingProxyType({})


@described
class Port(NamedTuple):
    """Where a tensor enters the graph.

    Attributes:
      name: the tensor's.
      dtype: of its numbers; None where the file does not say, or it is no array of numbers.
      shape: its sides, None for one that is free; None where the file does not say how many there are.
    """

    name: str
    dtype: np.dtype | None
    shape: tuple[int | None, ...] | None


@described
class Graph(NamedTuple):
    """What an ONNX file holds.

    Attributes:
      arrays: the initialisers by name, in the file's order.
      nodes: the operations, in the order in which they run.
      notes: the file's metadata.
      inputs: what enters, without the initialisers.
      outputs: names of the tensors that leave.
      opset: the version of ONNX's operations; 0 where the file does not say.
      functions: whether the file defines operations of its own.
    """

    arrays: dict[str, np.ndarray]
    nodes: tuple[Node, ...]
    notes: dict[str, str]
    inputs: tuple[Port, ...] = ()
    outputs: tuple[str, ...] = ()
    opset: int = 0
    functions: bool = False


class _Reader(Messages):
    """The fields of one ONNX file, and the files beside it that may hold its tensors."""

    def __init__(self, path: str | Path, limit: int | None) -> None:
        super().__init__()
        self.folder, self.grows = Path(path).resolve().parent, limit is None
        self.memory, self.sizes = limits.allowance(path, limit) - limits.require_file(path), dict[Path, int]()

    def beside(self, location: str) -> Path:
        """A file in the ONNX file's own folder, or below it."""
        path = (self.folder / location).resolve()
        if not location or not path.is_relative_to(self.folder):
            raise Unread(f"keeps tensors in another file, {schema.shown(location)}, which is not in its own folder")
        if not path.exists():
            raise Unread(f"keeps tensors in {schema.shown(location)}, which is not beside it; copy both files")
        if path not in self.sizes:
            self.sizes[path] = limits.require_file(path)
            self.memory += limits.RATIO * self.sizes[path] if self.grows else 0
        return path

    def outside(self, told: dict[str, str], size: int, name: str) -> memoryview:
        """The `size` bytes of a tensor in a file beside this one."""
        path = self.beside(told.get("location", ""))
        start, length = (_counted(told.get(key, str(least)), name) for key, least in (("offset", 0), ("length", size)))
        self.memory -= length
        if self.memory < 0:
            raise Unread(f"declares more tensors than {path.name} holds; where you trust it, raise the limit")
        if length != size or start + length > self.sizes[path]:
            raise Unread(f"has tensor {schema.shown(name)} of {size} bytes, which {path.name} does not hold; copy both")
        with open(path, "rb") as file:
            file.seek(start)
            return memoryview(file.read(length))


def _counted(told: str, name: str) -> int:
    if not (told.isdecimal() and len(told) < 20):
        raise ValueError(f"tensor {schema.shown(name)} lies at {schema.shown(told)}")
    return int(told)


def _shape(dims: list[int], name: str) -> tuple[int, ...]:
    if len(dims) > AXES or any(side < 0 for side in dims):
        raise ValueError(f"tensor {schema.shown(name)} has the shape {schema.shown(dims)}")
    return tuple(dims)


def _array(kind: int, shape: tuple[int, ...], name: str, held: dict[int, memoryview]) -> np.ndarray:
    """A tensor's numbers, checked against its shape; a copy, which does not keep the file."""
    dtype = DTYPES[kind]
    if any(TYPED.get(field, kind) != kind for field in held) or len(held) > 1:
        raise ValueError(f"tensor {schema.shown(name)} is stored as another type than its own")
    if 7 in held:
        if kind != 7 or len(held[7]) > SHORT:
            raise Unread(f"has tensor {schema.shown(name)} in a wasteful form; save it by onnx's own writer")
        found = np.array(integers(held[7]), np.int64)
    else:
        numbers = next(iter(held.values()), b"")
        if len(numbers) % dtype.itemsize:
            raise ValueError(f"tensor {schema.shown(name)} has {len(numbers)} bytes")
        found = np.frombuffer(numbers, dtype).copy()
    if math.prod(shape) != found.size:
        raise ValueError(f"tensor {schema.shown(name)} of shape {shape} has {found.size} numbers")
    return found.reshape(shape)


def _pair(reader: _Reader, value: Value, what: str) -> tuple[str, str]:
    found = {number: decoded(text, what) for number, text in reader.fields(raw(value, what))}
    return found.get(1, ""), found.get(2, "")


def _tensor(reader: _Reader, data: memoryview) -> tuple[str, np.ndarray]:
    kind, dims, name, held, told, outside = 0, list[int](), "", dict[int, memoryview](), dict[str, str](), False
    for number, value in reader.fields(data):
        if number == 1:
            dims += integers(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8:
            name = decoded(value, "a tensor's name")
        elif number == 13:
            told.update([_pair(reader, value, "a tensor's place")])
        elif number == 14:
            outside = value == 1
        elif number in (4, 7, 9, 10):
            if number in held:
                raise Unread(f"has tensor {schema.shown(name)} in pieces; save it by onnx's own writer")
            held[number] = raw(value, "a tensor's content")
        elif number in (5, 6, 11):
            raise Unread(f"has tensor {schema.shown(name)} in a wasteful form; save it by onnx's own writer")
    if kind not in DTYPES:
        raise Unread(f"has tensor {schema.shown(name)} of type {kind}; known are those of numpy and bfloat16")
    shape = _shape(dims, name)
    if outside:
        held = {9: reader.outside(told, math.prod(shape) * DTYPES[kind].itemsize, name)}
    return name, _array(kind, shape, name, held)


def _float(value: Value) -> list[float]:
    """Numbers of four bytes, one or packed."""
    numbers = raw(value, "an attribute")
    if len(numbers) % 4:
        raise ValueError(f"an attribute has {len(numbers)} bytes")
    return np.frombuffer(numbers, "<f4").tolist()


def _label(value: Value) -> str:
    """A text, whatever its bytes."""
    return str(raw(value, "an attribute"), "utf-8", "replace")


LISTS: dict[int, Callable[[Value], list[Any]]] = {7: _float, 8: integers, 9: lambda text: [_label(text)]}


def _attribute(reader: _Reader, data: memoryview) -> tuple[str, Attribute]:
    name, found, kind, many = "", None, 0, {7: list[Any](), 8: list[Any](), 9: list[Any]()}
    for number, value in reader.fields(data):
        if number == 1:
            name = decoded(value, "an attribute's name")
        elif number == 2:
            found = next(iter(_float(value)), None)
        elif number == 3:
            found = integers(value)[0]
        elif number == 4:
            found = _label(value)
        elif number == 5:
            found = _tensor(reader, raw(value, "a tensor"))[1]
        elif number in many:
            many[number] += LISTS[number](value)
        elif number == 20 and isinstance(value, int):
            kind = value
    return name, next((tuple(values) for values in many.values() if values), EMPTY.get(kind, found))


def _node(reader: _Reader, data: memoryview) -> Node:
    texts, names = {3: "", 4: "", 7: ""}, {1: list[str](), 2: list[str]()}
    attributes = dict[str, Attribute]()
    for number, value in reader.fields(data):
        if number in names:
            names[number].append(decoded(value, "the name of a tensor"))
        elif number in texts:
            texts[number] = decoded(value, "an operation")
        elif number == 5:
            attributes.update([_attribute(reader, raw(value, "an attribute"))])
    op = texts[4] if texts[7] in ("", "ai.onnx") else f"{texts[7]}.{texts[4]}"
    return Node(op, tuple(names[1]), tuple(names[2]), texts[3], attributes)


def _field(reader: _Reader, data: Value, number: int, what: str) -> Value | None:
    """The last field of that number in a message."""
    return next(reversed([value for n, value in reader.fields(raw(data, what)) if n == number]), None)


def _port(reader: _Reader, data: Value) -> Port:
    name, kind, shape = "", 0, None
    for number, value in reader.fields(raw(data, "an input")):
        if number == 1:
            name = decoded(value, "an input")
        elif number == 2 and (tensor := _field(reader, value, 1, "a type")) is not None:
            for inner, each in reader.fields(raw(tensor, "a type")):
                kind = each if inner == 1 and isinstance(each, int) else kind
                shape = _sides(reader, each) if inner == 2 else shape
    return Port(name, DTYPES.get(kind), shape)


def _sides(reader: _Reader, data: Value) -> tuple[int | None, ...]:
    sides = [_field(reader, value, 1, "a side") for n, value in reader.fields(raw(data, "a shape")) if n == 1]
    return tuple(side if isinstance(side, int) else None for side in sides)


def _graph(reader: _Reader, data: memoryview, notes: dict[str, str], opset: int, functions: bool) -> Graph:
    arrays, nodes, ports = dict[str, np.ndarray](), list[Node](), {11: list[Port](), 12: list[Port]()}
    for number, value in reader.fields(data):
        if number == 5:
            name, array = _tensor(reader, raw(value, "a tensor"))
            if name in arrays:
                raise ValueError(f"tensor {schema.shown(name)} is there twice")
            arrays[name] = array
        elif number == 1:
            nodes.append(_node(reader, raw(value, "a node")))
        elif number in ports:
            ports[number].append(_port(reader, value))
        if len(arrays) + len(nodes) + len(ports[11]) > PARTS:
            raise Unread(f"has more than {PARTS} tensors and nodes; export its network alone")
    inputs = tuple(port for port in ports[11] if port.name not in arrays)  # older files list what has a value, too
    outputs = tuple(port.name for port in ports[12])
    return Graph(arrays, tuple(nodes), notes, inputs, outputs, opset, functions)


def _opset(reader: _Reader, data: Value) -> int:
    """The version of ONNX's own operations, 0 of another domain's."""
    found = dict(reader.fields(raw(data, "an opset")))
    ours = decoded(found.get(1, memoryview(b"")), "a domain") in ("", "ai.onnx")
    version = found.get(2, 0)
    return version if ours and isinstance(version, int) else 0


def _model(reader: _Reader, data: memoryview) -> Graph:
    graph, notes, opset, functions = None, dict[str, str](), 0, False
    for number, value in reader.fields(data):
        if number == 7:
            graph = raw(value, "the graph")
        elif number == 8:
            opset = max(opset, _opset(reader, value))
        elif number == 14:
            notes.update([_pair(reader, value, "metadata")])
        functions |= number == 25
    found = None if graph is None else _graph(reader, graph, notes, opset, functions)
    if found is None or not found.nodes:
        raise ValueError("it holds no graph")
    return found


def read_graph(path: str | Path, limit: int | None = None) -> Graph:
    r"""The tensors, the operations and the metadata of an ONNX file, of which nothing is run.

    Its arrays take as much memory as the file is long, and 8 times that for whole numbers in their short form. Tensors
    that it keeps in files of its own folder, or below it, are read from there.

    Source: original; the format is ONNX's.

    Args:
      path: a `.onnx` file.
      limit: bytes that the file may have, and those beside it together; see `limits.allowance`.

    Raises ValueError for a file that is truncated or no ONNX, for tensors of texts, in pieces, or in a file outside the
    folder, and for more than 4 million fields.
    """
    data = limits.read_bytes(path, limits.allowance(path, limit))
    try:
        return _model(_Reader(path, limit), memoryview(data))
    except Unread as error:
        raise ValueError(f"{path} {error}") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is truncated or no ONNX file ({error}); fetch it again") from None
