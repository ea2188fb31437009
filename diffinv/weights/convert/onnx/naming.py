r"""Names for the group norms that an exporter left without one."""

from __future__ import annotations

import numpy as np

from diffinv import schema
from diffinv.weights.convert.onnx.reading import Graph, Node

NEAR = 32  # steps between a norm and the layer after it
BETWEEN = ("Sigmoid", "Mul", "Add", "Reshape", "Resize", "AveragePool")
LAYERS = ("Conv", "Gemm")


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
