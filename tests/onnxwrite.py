"""The bytes of ONNX files, by hand: protocol buffers, tensors, nodes, and an ADM network as torch exports it."""

import struct

import ml_dtypes
import numpy as np

from diffinv.nn import unet
from diffinv.weights.convert import adm, placing, terrain

KINDS = {"float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9}
KINDS |= {"float16": 10, "float64": 11, "uint32": 12, "uint64": 13, "bfloat16": 16}
BFLOAT16 = ml_dtypes.bfloat16


def varint(value):
    value, out = value % 2**64, b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number, value):
    """One field: a number, or bytes and texts by their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else bytes(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name, array, content=9, packed=False):
    """An initialiser; `content` is the field of its numbers, `packed` the form of its dims."""
    dims = [field(1, b"".join(map(varint, array.shape)))] if packed else [field(1, n) for n in array.shape]
    held = b"".join(map(varint, array.ravel().tolist())) if content == 7 else array.tobytes()
    return b"".join(dims) + field(2, KINDS[array.dtype.name]) + field(8, name) + field(content, held)


def node(op, inputs, outputs):
    names = b"".join(field(1, name) for name in inputs) + b"".join(field(2, name) for name in outputs)
    return names + field(3, f"node_{outputs[0]}") + field(4, op) + field(5, field(1, "axis") + field(3, -1))


def attribute(name, value):
    """A setting: a whole number, a number, a text, an array, or a list of the first three."""
    told = lambda number, kind, content: field(1, name) + content + field(20, kind)
    real = lambda number, x: varint(number << 3 | 5) + struct.pack("<f", x)
    if isinstance(value, np.ndarray):
        return told(5, 4, field(5, tensor("", value)))
    if isinstance(value, (list, tuple)):
        if all(isinstance(each, int) for each in value):
            return told(8, 7, b"".join(field(8, each) for each in value))
        return told(7, 6, b"".join(real(7, each) for each in value))
    if isinstance(value, str):
        return told(4, 3, field(4, value))
    return told(3, 2, field(3, value)) if isinstance(value, int) else told(2, 1, real(2, value))


def operation(op, inputs, outputs, **attributes):
    """A node with settings of its own."""
    names = b"".join(field(1, name) for name in inputs) + b"".join(field(2, name) for name in outputs)
    settings = b"".join(field(5, attribute(name, value)) for name, value in attributes.items())
    return names + field(3, f"the {outputs[0]}") + field(4, op) + settings


def port(name, dtype, shape):
    """What enters or leaves; a side is a number, or a text where it is free."""
    sides = b"".join(field(1, field(1 if isinstance(side, int) else 2, side)) for side in shape)
    return field(1, name) + field(2, field(1, field(1, KINDS[np.dtype(dtype).name]) + field(2, sides)))


def file(tensors, nodes, inputs, outputs, opset=17, more=b""):
    """A whole file, as onnxruntime reads it, too; `tensors` by name, inputs and outputs as ports."""
    graph = b"".join(field(1, each) for each in nodes) + field(2, "main")
    graph += b"".join(field(5, tensor(name, value)) for name, value in tensors.items())
    graph += b"".join(field(11, each) for each in inputs) + b"".join(field(12, each) for each in outputs)
    return field(1, 8) + field(7, graph) + field(8, field(2, opset)) + more


def model(tensors, nodes, notes=None):
    """A file of initialisers and nodes, both bytes, with some fields that no reader needs."""
    graph = b"".join(field(1, each) for each in nodes) + field(2, "main")
    graph += b"".join(field(5, each) for each in tensors) + field(13, field(1, "value"))
    pairs = (notes or {}).items()
    metadata = b"".join(field(14, field(1, key) + field(2, value)) for key, value in pairs)
    return field(1, 10) + field(2, "pytorch") + field(7, graph) + field(8, field(2, 18)) + metadata


def normed(layer, scale, shift, between=(), where=""):
    """(tensors, nodes) of a group norm whose constants have no name, and of the layer that follows it."""
    h = f"h {layer}{where}"
    constants = {f"{h}.a": scale.reshape(-1, 1, 1), f"{h}.b": shift.reshape(-1, 1, 1)}
    nodes = [node("Reshape", [h, "shape"], [f"{h}0"])]
    nodes += [node("InstanceNormalization", [f"{h}0", "ones", "zeros"], [f"{h}1"])]
    nodes += [node("Shape", [h], [f"{h}2"]), node("Reshape", [f"{h}1", f"{h}2"], [f"{h}3"])]
    nodes += [node("Mul", [f"{h}3", f"{h}.a"], [f"{h}4"]), node("Add", [f"{h}4", f"{h}.b"], [f"{h}5"])]
    for i, op in enumerate(between):
        nodes.append(node(op, [f"{h}{i + 5}", f"{h}film{i}"], [f"{h}{i + 6}"]))
    last = f"{h}{5 + len(between)}"
    nodes += [node("Sigmoid", [last], [f"{h}s"]), node("Mul", [last, f"{h}s"], [f"{h}silu"])]
    nodes += [node("Conv", [f"{h}silu", f"{layer}.weight", f"{layer}.bias"], [f"{h}out"])]
    return [tensor(name, value) for name, value in constants.items()], nodes


SMALL = {"channels": 32, "multipliers": (1, 2), "blocks": 1, "attention": (2,), "out_channels": 1}
NOTES = {"architecture": terrain.ARCHITECTURE, "native_size": "8", "training": "endpoint-distillation"}
BETWEEN = {"out_layers.3": ("Mul", "Add"), "in_layers.2": ("Resize",)}


def network(seed=0, **fields):
    """A small network of the terrain model's kind, and its drawn tensors under ADM's names."""
    net = unet.UNet(**{**SMALL, **terrain.HIDDEN, "scalar_label": True, **fields})
    generator, state = np.random.default_rng(seed), {}
    for names, leaf in placing.shapes(net, 1).items():
        value = generator.standard_normal(leaf.shape) / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        value = (value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T).astype(np.float32)
        name = adm.torch_name(names)
        state[name] = value[:, :, None] if name.endswith("qkv.weight") else value  # of a convolution along one axis
    return net, state


def exported(state, notes=None):
    """The file of an ADM network: norms nameless, all else under "network."."""
    before = {f"{terrain._norm(layer)}": layer for layer in (name.removesuffix(".weight") for name in state)
              if layer.endswith(tuple(terrain.NORMS))}  # fmt: skip
    tensors, nodes = [], []
    for name, value in state.items():
        if name.rpartition(".")[0] not in before:
            tensors.append(tensor(terrain.PREFIX + name, value))
    for norm, layer in before.items():
        kind = ".".join(layer.split(".")[-2:])
        parts = normed(terrain.PREFIX + layer, state[f"{norm}.weight"], state[f"{norm}.bias"], BETWEEN.get(kind, ()))
        tensors, nodes = tensors + parts[0], nodes + parts[1]
    return model([*tensors, tensor("shape", np.array([0, 32, -1]))], nodes, NOTES if notes is None else notes)


def embedder(width, shape=("n", 3, "h", "w"), seed=0, name="row"):
    """The file of a network that mixes a picture's means and those of its squares to `width` features."""
    draw = np.random.default_rng(seed).standard_normal
    tensors = {"k": draw((width, 6)).astype(np.float32), "b": draw(width).astype(np.float32)}
    axes, last = {"axes": [2, 3], "keepdims": 0}, shape[3] == 3
    nodes = [operation("Transpose", ["in"], ["x"], perm=[0, 3, 1, 2] if last else [0, 1, 2, 3])]
    nodes += [operation("Mul", ["x", "x"], ["square"]), operation("ReduceMean", ["x"], ["m"], **axes)]
    nodes += [operation("ReduceMean", ["square"], ["s"], **axes), operation("Concat", ["m", "s"], ["both"], axis=1)]
    nodes += [operation("Gemm", ["both", "k", "b"], ["sum"], transB=1), operation("Tanh", ["sum"], [name])]
    outputs = [port("both", "float32", ["n", 6]), port(name, "float32", ["n", width])]
    return file(tensors, nodes, [port("in", "float32", shape)], outputs)
