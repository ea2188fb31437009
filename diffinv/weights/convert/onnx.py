r"""Reads the tensors and the graph of an ONNX file without onnx, and without running anything.

The file is one protocol buffer: fields of a number, a wire type and a value. These are looked at, the others passed by:

    ModelProto    7 graph, 14 metadata_props (1 key, 2 value)
    GraphProto    1 node, 5 initializer
    NodeProto     1 input, 2 output, 4 op_type
    TensorProto   1 dims, 2 data_type, 4 float_data, 7 int64_data, 8 name, 9 raw_data, 10 double_data, 14 data_location

Source: `onnx/onnx.proto` (Apache-2.0) and the encoding at protobuf.dev; the reader is original.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from diffinv import limits, schema
from diffinv.describe import described

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
FIELDS, PARTS, AXES, NEAR = 2**22, 2**18, 32, 32  # a network of 10,000 tensors takes 200,000 fields and 30,000 nodes
SHORT = 2**20  # bytes of whole numbers in their short form, which grow eightfold
BETWEEN = ("Sigmoid", "Mul", "Add", "Reshape", "Resize", "AveragePool")
LAYERS = ("Conv", "Gemm")

Value = int | memoryview


class _Refused(ValueError):
    """What the file holds is not read here."""


@described
class Node(NamedTuple):
    """One operation of the graph.

    Attributes:
      op: its kind, such as "Conv".
      inputs: names of tensors.
      outputs: names of tensors.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@described
class Graph(NamedTuple):
    """What an ONNX file holds.

    Attributes:
      arrays: the initialisers by name, in the file's order.
      nodes: the operations, in the order in which they run.
      notes: the file's metadata.
    """

    arrays: dict[str, np.ndarray]
    nodes: tuple[Node, ...]
    notes: dict[str, str]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of at most 64 bits, and where it ends."""
    value = 0
    for i, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value & 2**64 - 1, at + i + 1
    raise ValueError("a number does not end")


class _Reader:
    """The fields of messages, counted over the whole file."""

    def __init__(self) -> None:
        self.left = FIELDS

    def fields(self, data: memoryview) -> Iterator[tuple[int, Value]]:
        """Number and value of each field: an int, or its bytes."""
        at = 0
        while at < len(data):
            self.left -= 1
            if self.left < 0:
                raise _Refused(f"has more than {FIELDS} fields; export its network alone")
            key, at = _varint(data, at)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, at = _varint(data, at)
                yield number, value
                continue
            size, at = _varint(data, at) if wire == 2 else ({1: 8, 5: 4}.get(wire), at)
            if not number or size is None or size > len(data) - at:
                raise ValueError(f"field {number} of type {wire} does not lie inside its message")
            yield number, data[at : at + size]
            at += size


def _bytes(value: Value, what: str) -> memoryview:
    if isinstance(value, int):
        raise ValueError(f"{what} is a number")
    return value


def _text(value: Value, what: str) -> str:
    return str(_bytes(value, what), "utf-8")


def _integers(value: Value) -> list[int]:
    """Signed numbers, one or packed."""
    found, at = ([value], 0) if isinstance(value, int) else ([], 0)
    while not isinstance(value, int) and at < len(value):
        each, at = _varint(value, at)
        found.append(each)
    return [each - 2**64 if each >= 2**63 else each for each in found]


def _shape(dims: list[int], name: str) -> tuple[int, ...]:
    if len(dims) > AXES or any(side < 0 for side in dims):
        raise ValueError(f"tensor {schema.shown(name)} has the shape {schema.shown(dims)}")
    return tuple(dims)


def _array(kind: int, dims: list[int], name: str, held: dict[int, memoryview]) -> np.ndarray:
    """A tensor's numbers, checked against its shape; a copy, which does not keep the file."""
    if kind not in DTYPES:
        raise _Refused(f"has tensor {schema.shown(name)} of type {kind}; known are those of numpy and bfloat16")
    shape, dtype = _shape(dims, name), DTYPES[kind]
    if any(TYPED.get(field, kind) != kind for field in held) or len(held) > 1:
        raise ValueError(f"tensor {schema.shown(name)} is stored as another type than its own")
    if 7 in held:
        if kind != 7 or len(held[7]) > SHORT:
            raise _Refused(f"has tensor {schema.shown(name)} in a wasteful form; save it by onnx's own writer")
        found = np.array(_integers(held[7]), np.int64)
    else:
        content = next(iter(held.values()), b"")
        if len(content) % dtype.itemsize:
            raise ValueError(f"tensor {schema.shown(name)} has {len(content)} bytes")
        found = np.frombuffer(content, dtype).copy()
    if math.prod(shape) != found.size:
        raise ValueError(f"tensor {schema.shown(name)} of shape {shape} has {found.size} numbers")
    return found.reshape(shape)


def _tensor(reader: _Reader, data: memoryview) -> tuple[str, np.ndarray]:
    kind, dims, name, held = 0, list[int](), "", dict[int, memoryview]()
    for number, value in reader.fields(data):
        if number == 1:
            dims += _integers(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8:
            name = _text(value, "a tensor's name")
        elif number == 14 and value == 1:
            raise _Refused("keeps its tensors in another file; save it with all of them inside")
        elif number in (4, 7, 9, 10):
            if number in held:
                raise _Refused(f"has tensor {schema.shown(name)} in pieces; save it by onnx's own writer")
            held[number] = _bytes(value, "a tensor's content")
        elif number in (5, 6, 11):
            raise _Refused(f"has tensor {schema.shown(name)} in a wasteful form; save it by onnx's own writer")
    return name, _array(kind, dims, name, held)


def _node(reader: _Reader, data: memoryview) -> Node:
    op, names = "", {1: list[str](), 2: list[str]()}
    for number, value in reader.fields(data):
        if number in names:
            names[number].append(_text(value, "the name of a tensor"))
        elif number == 4:
            op = _text(value, "an operation")
    return Node(op, tuple(names[1]), tuple(names[2]))


def _graph(reader: _Reader, data: memoryview) -> tuple[dict[str, np.ndarray], tuple[Node, ...]]:
    arrays, nodes = dict[str, np.ndarray](), list[Node]()
    for number, value in reader.fields(data):
        if number == 5:
            name, array = _tensor(reader, _bytes(value, "a tensor"))
            if name in arrays:
                raise ValueError(f"tensor {schema.shown(name)} is there twice")
            arrays[name] = array
        elif number == 1:
            nodes.append(_node(reader, _bytes(value, "a node")))
        if len(arrays) + len(nodes) > PARTS:
            raise _Refused(f"has more than {PARTS} tensors and nodes; export its network alone")
    return arrays, tuple(nodes)


def _model(data: memoryview) -> Graph:
    reader, found, notes = _Reader(), None, dict[str, str]()
    for number, value in reader.fields(data):
        if number == 7:
            found = _graph(reader, _bytes(value, "the graph"))
        elif number == 14:
            pair = {n: _text(v, "metadata") for n, v in reader.fields(_bytes(value, "metadata"))}
            notes[pair.get(1, "")] = pair.get(2, "")
    if found is None or not found[1]:
        raise ValueError("it holds no graph")
    return Graph(*found, notes)


def read_graph(path: str | Path, limit: int | None = None) -> Graph:
    r"""The tensors, the operations and the metadata of an ONNX file, of which nothing is run.

    Its arrays take as much memory as the file is long, and 8 times that for whole numbers in their short form.

    Source: original; the format is ONNX's.

    Args:
      path: a `.onnx` file.
      limit: bytes that the file may have; see `limits.allowance`.

    Raises ValueError for a file that is truncated or no ONNX, for tensors outside it, of texts or in pieces, and for
    more than 4 million fields.
    """
    data = limits.read_bytes(path, limits.allowance(path, limit))
    try:
        return _model(memoryview(data))
    except _Refused as error:
        raise ValueError(f"{path} {error}") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is truncated or no ONNX file ({error}); fetch it again") from None


def _consumers(graph: Graph) -> dict[str, list[Node]]:
    found: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in dict.fromkeys(node.inputs):
            found.setdefault(name, []).append(node)
    return found


def _factor(graph: Graph, users: dict[str, list[Node]], name: str, op: str) -> tuple[np.ndarray, str]:
    """The initialiser by which the one user of `name`, an `op`, changes it, flat; and the result's name."""
    node = users[name][0] if len(users.get(name, ())) == 1 else Node("", (), ())
    known = [graph.arrays[each] for each in node.inputs if each in graph.arrays]
    if node.op != op or len(known) != 1 or len(node.outputs) != 1:
        raise ValueError(f"tensor {schema.shown(name)} goes to no {op} with a constant: it is no group norm's")
    return known[0].ravel(), node.outputs[0]


def _layer(graph: Graph, users: dict[str, list[Node]], name: str) -> str:
    """The nearest convolution or dense layer behind a tensor: its weight's name, without ".weight"."""
    waiting, seen = [name], {name}
    for each in waiting:
        for node in users.get(each, ())[:NEAR]:
            if node.op in LAYERS and len(node.inputs) > 1 and node.inputs[1].endswith(".weight"):
                return node.inputs[1].removesuffix(".weight")
            new = [out for out in node.outputs if out not in seen] if node.op in BETWEEN else []
            waiting += new
            seen |= set(new)
        if len(waiting) > NEAR:
            break
    raise ValueError(f"no named layer follows the norm that ends in {schema.shown(name)}; it is of another export")


def norms(graph: Graph) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    r"""Scale and shift of every group norm, by the name of the layer that follows it.

    torch's exporter writes a group norm as reshape, InstanceNormalization, reshape, product, sum, and the last two's
    constants lose their names. What follows, past activations, resampling and FiLM, is a layer that kept its own.

    Source: original.

    Raises ValueError for a norm of another form, one that no named layer follows, and two that one layer follows.
    """
    users, found = _consumers(graph), dict[str, tuple[np.ndarray, np.ndarray]]()
    for node in graph.nodes:
        if node.op == "InstanceNormalization":
            back = next((user for out in node.outputs for user in users.get(out, ()) if user.op == "Reshape"), node)
            scale, name = _factor(graph, users, next(iter(back.outputs), ""), "Mul")
            shift, name = _factor(graph, users, name, "Add")
            layer = _layer(graph, users, name)
            if layer in found:
                raise ValueError(f"two norms come before {schema.shown(layer)}; it is of another export")
            found[layer] = scale, shift
    return found
