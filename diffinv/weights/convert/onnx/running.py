r"""A whole ONNX network as a pure function of JAX: `apply(params, *inputs)`, under `jit`, `vmap` and `grad`.

The graph's floating-point initialisers are the parameters. Constants of whole numbers, and what only shapes and they
decide, are computed with NumPy while JAX traces, so that shapes are known. Nothing in the file is executed: its
operations are names in a closed table.

Of what there is, jaxonnxruntime 0.3.0 reads none of three exports that this was made for (a U-Net of diffusers, the
terrain model, a network of several kinds of layer): it has no InstanceNormalization, as which PyTorch writes a group
norm, and refuses shapes out of Constant nodes. torchax 0.0.13 does not import beside PyTorch 2.13, and would need
PyTorch wherever the prior is used.

Source: ONNX (onnx/onnx, docs/IR.md and docs/Operators.md); the interpreter is original.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffinv import schema
from diffinv.typing import Array
from diffinv.weights.convert.onnx.arranging import ARRANGING
from diffinv.weights.convert.onnx.calls import Call, Operation, jax_kind
from diffinv.weights.convert.onnx.elementwise import ELEMENTWISE, REDUCTIONS
from diffinv.weights.convert.onnx.layers import LAYERED, SPATIAL
from diffinv.weights.convert.onnx.laying import (
    Kernel,
    Last,
    along,
    graphed,
    numberwise,
    onto,
    reshape,
    transpose,
    turned,
)
from diffinv.weights.convert.onnx.reading import Graph, Node, Port, read_graph
from diffinv.weights.convert.onnx.resampling import RESAMPLING

OPERATIONS: dict[str, Operation] = {**ELEMENTWISE, **ARRANGING, **LAYERED, **SPATIAL, **RESAMPLING}
LAID: dict[str, Operation] = {
    **{name: numberwise(operation) for name, operation in ELEMENTWISE.items() if name not in REDUCTIONS},
    "Mul": onto(numberwise(ELEMENTWISE["Mul"]), lambda scale, shift, value: (scale * value, shift * value)),
    "Add": onto(numberwise(ELEMENTWISE["Add"]), lambda scale, shift, value: (scale, shift + value)),
    **{name: along(ARRANGING[name]) for name in ("Concat", "Split")},
    **{name: ARRANGING[name] for name in ("Shape", "Size")},
    "Reshape": reshape(ARRANGING["Reshape"]),
    "Transpose": transpose(ARRANGING["Transpose"]),
    **SPATIAL,
    **RESAMPLING,
}
"""What is done where a feature map has its channels last."""
OPSETS = 7, 28  # those whose differences the operations know
DECIDING = {
    **dict.fromkeys(REDUCTIONS, (1,)),
    **dict.fromkeys(
        ("Reshape", "Expand", "Tile", "Split", "Squeeze", "Unsqueeze", "Upsample", "CumSum", "OneHot"), (1,)
    ),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
    "Slice": (1, 2, 3, 4),
    "Pad": (1, 3),
    "Resize": (1, 2, 3),
    "Dropout": (1, 2),
}
"""Inputs that decide on shapes or are settings, by operation."""
SETTINGS = {"Pow": (1,), "Clip": (1, 2), "Pad": (2,)}
"""Inputs that are settings where they are constants."""


def _refusals(graph: Graph) -> Iterator[str]:
    """What of a file is not computed here, a line for each."""
    low, high = OPSETS
    if not low <= graph.opset <= high:
        yield f"is of opset {graph.opset}; {low} to {high} are known: export it with opset_version=17"
    if graph.functions:
        yield "defines functions of its own; export it with its functions inlined"
    there = {*graph.arrays, *(port.name for port in graph.inputs), ""}
    for node in graph.nodes:
        called = f"operation {node.op} {schema.shown(node.name or node.outputs[:1])}"
        if node.op not in OPERATIONS:
            yield f"has {called}, which is not known here; known are {len(OPERATIONS)}, see onnx.running.OPERATIONS"
        if missing := [name for name in node.inputs if name not in there]:
            yield f"has {called}, which takes {schema.shown(missing[0])}, and nothing before it gives that"
        there |= set(node.outputs)
    if lost := [name for name in graph.outputs if name not in there]:
        yield f"gives {schema.shown(lost[0])}, which no operation makes"
    if not graph.outputs:
        yield "names no output"
    for port in graph.inputs:
        if port.dtype is None:
            yield f"takes {schema.shown(port.name)}, which is no array of numbers; export it with arrays alone"


def _taken(node: Node, table: Mapping[str, tuple[int, ...]]) -> set[str]:
    return {node.inputs[i] for i in table.get(node.op, ()) if i < len(node.inputs)}


def _settled(graph: Graph) -> set[str]:
    """Names of the tensors that must be known where the graph is traced, as they decide on shapes."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op not in ("Shape", "Size"):
            found |= set(node.inputs) if found & set(node.outputs) else set()
            found |= _taken(node, DECIDING) | (_taken(node, SETTINGS) & set(graph.arrays))
    return found


def _used(graph: Graph) -> set[str]:
    return {name for node in graph.nodes for name in node.inputs} | set(graph.outputs)


def _learned(graph: Graph) -> list[str]:
    """Names of the initialisers that are parameters."""
    settled, used = _settled(graph), _used(graph)
    real = lambda array: jnp.issubdtype(array.dtype, jnp.floating)
    return [name for name, array in graph.arrays.items() if name in used and real(array) and name not in settled]


def _kernels(graph: Graph) -> frozenset[str]:
    """Names of what convolutions take as their kernel, and nothing else takes."""
    uses = [(name, node.op == "Conv" and i == 1) for node in graph.nodes for i, name in enumerate(node.inputs)]
    return frozenset(name for name, kernel in uses if kernel) - {name for name, kernel in uses if not kernel}


@dataclass(frozen=True)
class Network:
    """`(params, *inputs, **named) -> output` of an ONNX graph; two of one file are equal, and one program to `jit`.

    Computed in the floating-point type of `params`: the file's, or another that all leaves were cast to; inputs follow.
    Where the graph has several outputs, they are a tuple.

    Attributes:
      digest: sha256 of the file and its tensors.
      inputs: what it takes, in order; each may be given by name, too.
      outputs: names of what it gives.
      nodes: its operations, in order.
      constants: known tensors by name.
      kernels: names of the parameters that are kept as (..., in, out), as Flax does; the others are as in the file.
      kept: shape of each parameter, and its type in the file.
      opset: the version of ONNX's operations.
      plain_conv: whether convolutions are `lax`'s own, which have forward mode on CPUs, too, and a slower pullback.
    """

    digest: str
    inputs: tuple[Port, ...] = field(compare=False, repr=False)
    outputs: tuple[str, ...] = field(compare=False, repr=False)
    nodes: tuple[Node, ...] = field(compare=False, repr=False)
    constants: Mapping[str, np.ndarray] = field(compare=False, repr=False)
    kernels: frozenset[str] = field(compare=False, repr=False)
    kept: Mapping[str, tuple[tuple[int, ...], np.dtype]] = field(compare=False, repr=False)
    opset: int = field(compare=False, repr=False)
    plain_conv: bool = False

    def __call__(self, params: Mapping[str, Array], *inputs: Any, **named: Any) -> Any:
        kinds = self._kinds(params)
        given = [_entered(port, value, kinds) for port, value in self._given(inputs, named)]
        known = {name: value.astype(kinds.get(value.dtype, value.dtype)) for name, value in self.constants.items()}
        held = {name: Kernel(params[name]) if name in self.kernels else params[name] for name in self.kept}
        values = {**known, **held, **{port.name: value for port, value in zip(self.inputs, given, strict=True)}}
        for node in self.nodes:
            values.update(zip(node.outputs, _computed(Call(node, self.opset, kinds, self.plain_conv), values)))
        outputs = tuple(graphed(values[name]) for name in self.outputs)
        return outputs if len(outputs) > 1 else outputs[0]

    def _kinds(self, params: Mapping[str, Array]) -> dict[np.dtype, Any]:
        """Floating-point types of the file to those of the parameters."""
        kinds: dict[np.dtype, Any] = {}
        for name, (shape, dtype) in self.kept.items():
            if name not in params or params[name].shape != shape:
                found = params[name].shape if name in params else "absent"
                raise ValueError(f"params has {schema.shown(name)} of shape {found}; the file's is {shape}")
            kinds[dtype] = params[name].dtype
        return kinds

    def _given(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> list[tuple[Port, Any]]:
        names = [port.name for port in self.inputs]
        values = {**dict(zip(names, inputs)), **named}
        if len(inputs) + len(named) != len(names) or set(values) != set(names):
            told = f"{len(inputs)} in order and {sorted(named)} by name"
            raise ValueError(f"the network takes {', '.join(names)}, and was given {told}; give each of them once")
        return [(port, values[port.name]) for port in self.inputs]


def _entered(port: Port, value: Any, kinds: dict[np.dtype, Any]) -> Array:
    """An input in the type that is computed in. Raises ValueError where it is not what the file takes."""
    value = jnp.asarray(value)
    fits = port.shape is None or len(port.shape) == value.ndim
    if not fits or any(side not in (None, n) for side, n in zip(port.shape or (), value.shape)):
        wanted = tuple("any" if side is None else side for side in port.shape or ())
        raise ValueError(
            f"input {schema.shown(port.name)} has shape {value.shape}, the file takes {schema.shown(wanted)}; "
            "channels_first brings a picture into its form, or export it for this size"
        )
    assert port.dtype is not None  # else it was refused
    if jnp.issubdtype(port.dtype, jnp.floating):
        real = jnp.issubdtype(value.dtype, jnp.floating)
        return value.astype(kinds.setdefault(port.dtype, value.dtype if real else port.dtype))
    if jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"input {schema.shown(port.name)} is {value.dtype}, the file takes whole numbers; round it")
    return value.astype(jax_kind(port.dtype))


def _computed(call: Call, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """The outputs of one operation."""
    taken = [values[name] if name else None for name in call.node.inputs]
    laid = call.node.op in LAID and (call.node.op == "Transpose" or any(isinstance(each, Last) for each in taken))
    operation = LAID[call.node.op] if laid else OPERATIONS[call.node.op]
    try:
        found = operation(call, *(taken if laid else map(graphed, taken)))
    except (TypeError, ValueError) as error:
        error.add_note(f"in {call} of an ONNX file, which gives {', '.join(call.node.outputs)}")
        raise
    found = found if isinstance(found, tuple) else (found,)
    if wanted := [name for name in call.node.outputs[len(found) :] if name]:
        raise ValueError(f"{call} gives {schema.shown(wanted[0])}, an output that is not known here")
    return tuple(np.asarray(each) if isinstance(each, np.generic) else each for each in found)


def network(path: str | Path, limit: int | None = None, plain_conv: bool = False) -> tuple[Network, dict[str, Array]]:
    r"""An ONNX file as `(apply, params)`: a pure function of JAX, and its parameters.

        apply, params = onnx.network("net.onnx")
        out = apply(params, x, t)  # the graph's inputs, in its order or by name

    `params` are the floating-point initialisers by name; those that are settings (scales of a Resize, exponents) stay
    constants. Shapes may be free, and are known where `apply` is traced; inputs carry the file's own axes, such as a
    batch and channels first, see `adapters.channels_first`. Static: `apply`, which compares by the file's content.

    Source: original; see the module's head.

    Args:
      path: a `.onnx` file; tensors that it keeps in files beside it are read from there.
      limit: as in `read_graph`.
      plain_conv: static; True for `jax.jvp`, which `nn.layers.conv` does not have on CPUs.

    Raises ValueError as `read_graph`, and in one line for an opset outside 7 to 28, functions of the file's own, an
    unknown operation (with its name), and names that do not connect.
    """
    graph = read_graph(path, limit)
    for line in _refusals(graph):
        raise ValueError(f"{path} {line}")
    learned, used = _learned(graph), _used(graph)
    constants = {name: array for name, array in graph.arrays.items() if name in used and name not in learned}
    kernels = _kernels(graph) & frozenset(learned)
    arrays = {name: turned(graph.arrays[name]) if name in kernels else graph.arrays[name] for name in learned}
    kept = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    fields = graph.inputs, graph.outputs, graph.nodes, constants, kernels, kept, graph.opset, plain_conv
    return Network(_digest(path, graph), *fields), {name: jnp.asarray(array) for name, array in arrays.items()}


def _digest(path: str | Path, graph: Graph) -> str:
    """Of the file, and of its tensors, which it may keep elsewhere."""
    found = hashlib.sha256(Path(path).read_bytes())
    for name, array in graph.arrays.items():
        found.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
