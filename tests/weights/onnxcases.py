"""One small graph for each operation of ONNX, with what it gives in NumPy: for our own interpreter and for onnxruntime.

Arrays of whole numbers, and those named in `fixed`, are constants of the file; the others enter it.
"""

from typing import Any, NamedTuple

import numpy as np
import onnxwrite
from scipy import special

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((2, 3, 4)), rng.standard_normal((3, 1))
P = rng.uniform(0.5, 2.0, (2, 3, 4))
IMAGE = rng.standard_normal((2, 4, 5, 6))
AXES = np.array([1, 2])


class Case(NamedTuple):
    """`op` of `inputs` under `settings` gives `want`, one array or several."""

    op: str
    inputs: list
    want: Any
    settings: dict = {}
    opset: int = 17
    fixed: tuple = ()
    name: str = ""


def written(case, dtype):
    """(file, what enters by name): floating-point numbers are of `dtype`."""
    real = lambda a: a.astype(dtype) if np.issubdtype(a.dtype, np.floating) else a
    names = ["" if a is None else f"in{i}" for i, a in enumerate(case.inputs)]
    arrays = {name: real(np.asarray(a)) for name, a in zip(names, case.inputs) if name}
    held = {n: a for i, (n, a) in enumerate(arrays.items()) if a.dtype == np.int64 or n in case.fixed}
    held = {n: a.astype(np.float32) if n in ("in1", "in2") and case.op in ("Resize", "Upsample") and
            a.dtype == dtype else a for n, a in held.items()}  # fmt: skip
    enter = {name: array for name, array in arrays.items() if name not in held}
    wants = case.want if isinstance(case.want, tuple) else (case.want,)
    outputs = [f"out{i}" for i in range(len(wants))]
    settings = {n: real(a) if isinstance(a, np.ndarray) and n == "value" else a for n, a in case.settings.items()}
    node = onnxwrite.operation(case.op, names, outputs, **settings)
    ports = [onnxwrite.port(name, array.dtype, array.shape) for name, array in enter.items()]
    ends = [onnxwrite.port(name, real(np.asarray(want)).dtype, np.shape(want)) for name, want in zip(outputs, wants)]
    return onnxwrite.file(held, [node], ports, ends, case.opset), enter


def convolution(x, w, b, strides, before, after, dilations, groups):
    """By its definition, (N, C, H, W)."""
    x = np.pad(x, [(0, 0), (0, 0), *zip(before, after)])
    sides = [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(x.shape[2:], dilations, w.shape[2:], strides)]
    out = np.zeros((len(x), len(w), *sides))
    per_in, per_out = w.shape[1], len(w) // groups
    for o in range(len(w)):
        taken = x[:, o // per_out * per_in : (o // per_out + 1) * per_in]
        for tap in np.ndindex(*w.shape[2:]):
            cut = tuple(slice(t * d, t * d + (m - 1) * s + 1, s) for t, d, m, s in zip(tap, dilations, sides, strides))
            out[:, o] += np.tensordot(taken[(slice(None), slice(None), *cut)], w[(o, slice(None), *tap)], ([1], [0]))
    return out + b.reshape(1, -1, *[1] * len(sides))


def transposed(x, w, b, strides, before, after, dilations, groups, extra=(0, 0)):
    """By its definition: each number sets a kernel down."""
    sides = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(x.shape[2:], strides, dilations, w.shape[2:])]
    per_in, per_out = len(w) // groups, w.shape[1]
    out = np.zeros((len(x), per_out * groups, *[n + m for n, m in zip(sides, extra)]))
    for i, place in np.ndindex(len(w), int(np.prod(x.shape[2:]))):
        at = np.unravel_index(place, x.shape[2:])
        for o, tap in np.ndindex(per_out, int(np.prod(w.shape[2:]))):
            t = np.unravel_index(tap, w.shape[2:])
            where = tuple(a * s + u * d for a, s, u, d in zip(at, strides, t, dilations))
            out[(slice(None), i // per_in * per_out + o, *where)] += x[(slice(None), i, *at)] * w[(i, o, *t)]
    cut = tuple(slice(low, n + m - high) for low, high, n, m in zip(before, after, sides, extra))
    return out[(slice(None), slice(None), *cut)] + b.reshape(1, -1, 1, 1)


def pooled(x, window, strides, before, after, over, inside):
    """`over(numbers, how many are counted)` of each window; a padded number is counted where it is `inside`."""
    sides = [(n + p + q - k) // s + 1 for n, p, q, k, s in zip(x.shape[2:], before, after, window, strides)]
    out = np.zeros((*x.shape[:2], *sides))
    for at in np.ndindex(*sides):
        low = [a * s - p for a, s, p in zip(at, strides, before)]
        cut = tuple(slice(max(0, i), max(0, i + k)) for i, k in zip(low, window))
        counted = np.prod([sum(inside(i + j, n, p) for j in range(k)) for i, k, n, p in
                           zip(low, window, x.shape[2:], after)])  # fmt: skip
        numbers = x[(slice(None), slice(None), *cut)].reshape(*x.shape[:2], -1)
        out[(slice(None), slice(None), *at)] = over(numbers, counted)
    return out


def standard(x, axes, eps=1e-5):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def interpolation(at, side):
    """The matrix of linear interpolation at these places of a line, flat beyond its ends."""
    at = np.clip(at, 0, side - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(side)))


def enlarged(x, rows, columns):
    return np.einsum("ah,bw,nchw->ncab", rows, columns, x)


def woven(a, b, c, d):
    """(N, H, W) each to (N, 1, 2 H, 2 W): the corners of squares, row by row."""
    out = np.zeros((len(a), 1, 2 * a.shape[1], 2 * a.shape[2]))
    for i, part in enumerate((a, b, c, d)):
        out[:, 0, i // 2 :: 2, i % 2 :: 2] = part
    return out


UNARY = {
    "Abs": np.abs, "Ceil": np.ceil, "Cos": np.cos, "Cosh": np.cosh, "Erf": special.erf, "Exp": np.exp,
    "Floor": np.floor, "Identity": lambda x: x, "Neg": np.negative, "Reciprocal": lambda x: 1 / x,
    "Round": np.round, "Sigmoid": special.expit, "Sign": np.sign, "Sin": np.sin, "Sinh": np.sinh, "Tan": np.tan,
    "Tanh": np.tanh, "Relu": lambda x: np.maximum(x, 0), "Softplus": lambda x: np.log1p(np.exp(x)),
    "Softsign": lambda x: x / (1 + np.abs(x)), "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Mish": lambda x: x * np.tanh(np.log1p(np.exp(x))), "Elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "LeakyRelu": lambda x: np.where(x > 0, x, 0.01 * x), "Celu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "HardSigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1), "ThresholdedRelu": lambda x: np.where(x > 1, x, 0),
    "Selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
}  # fmt: skip
BINARY = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Min": np.minimum, "Max": np.maximum,
    "Equal": np.equal, "Less": np.less, "Greater": np.greater, "LessOrEqual": np.less_equal,
    "GreaterOrEqual": np.greater_equal,
}  # fmt: skip
SUMS = {
    "ReduceMean": np.mean, "ReduceMax": np.max, "ReduceMin": np.min, "ReduceProd": np.prod,
    "ReduceL1": lambda x, a, keepdims: np.abs(x).sum(a, keepdims=keepdims),
    "ReduceL2": lambda x, a, keepdims: np.sqrt((x**2).sum(a, keepdims=keepdims)),
    "ReduceSumSquare": lambda x, a, keepdims: (x**2).sum(a, keepdims=keepdims),
    "ReduceLogSumExp": lambda x, a, keepdims: np.log(np.exp(x).sum(a, keepdims=keepdims)),
}  # fmt: skip
WHOLE = np.array([[5, -7, 9], [3, 4, -6]]), np.array([2, 2, -4])

ARITHMETIC = [
    *(Case(op, [X], f(X), opset=18 if op == "Mish" else 17) for op, f in UNARY.items()),
    *(Case(op, [X, Y], f(X, Y)) for op, f in BINARY.items()),
    Case("Sqrt", [P], np.sqrt(P)),
    Case("Log", [P], np.log(P)),
    Case("Gelu", [X], 0.5 * X * (1 + special.erf(X / np.sqrt(2))), opset=20),
    Case("Gelu", [X], 0.5 * X * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X**3))), {"approximate": "tanh"}, 20),
    Case("LeakyRelu", [X], np.where(X > 0, X, 0.2 * X), {"alpha": 0.2}),
    Case("PRelu", [X, Y], np.where(X > 0, X, Y * X)),
    Case("Pow", [X, np.array(2.0)], X**2, fixed=("in1",)),
    Case("Pow", [P, Y], P**Y),
    Case("Div", [*WHOLE], np.trunc(WHOLE[0] / WHOLE[1]).astype(int), name="whole"),
    Case("Mod", [*WHOLE], WHOLE[0] % WHOLE[1], name="whole"),
    Case("Mod", [X, Y], np.fmod(X, Y), {"fmod": 1}),
    Case("Clip", [X, np.array(-0.5), np.array(0.7)], np.clip(X, -0.5, 0.7), fixed=("in1", "in2")),
    Case("Clip", [X, None, np.array(0.7)], np.minimum(X, 0.7)),
    Case("Clip", [X], np.clip(X, -0.5, 0.25), {"min": -0.5, "max": 0.25}, 10, name="settings"),
    Case("Where", [X > 0, X, Y], np.where(X > 0, X, Y)),
    Case("And", [X > 0, Y > 0], (X > 0) & (Y > 0)),
    Case("Or", [X > 0, Y > 0], (X > 0) | (Y > 0)),
    Case("Xor", [X > 0, Y > 0], (X > 0) ^ (Y > 0)),
    Case("Not", [X > 0], X <= 0),
    Case("Sum", [X, Y, P], X + Y + P),
    Case("Mean", [X, Y, P], (X + Y + P) / 3),
    Case("Cast", [X > 0], (X > 0).astype(np.int32), {"to": 6}),
    Case("Cast", [3 * X], np.trunc(3 * X).astype(np.int32), {"to": 6}, name="down"),
    Case("Dropout", [X], X),
    *(Case(op, [X], f(X, (1, 2), keepdims=True), {"axes": [1, 2]}) for op, f in SUMS.items()),
    *(Case(op, [X, AXES], f(X, (1, 2), keepdims=False), {"keepdims": 0}, 18, name="18") for op, f in SUMS.items()),
    Case("ReduceSum", [X, AXES], X.sum((1, 2), keepdims=True)),
    Case("ReduceSum", [X], X, {"noop_with_empty_axes": 1}, name="none"),
    Case("ReduceSum", [X], X.sum(keepdims=True), name="all"),
    Case("ReduceLogSum", [P], np.log(P.sum(1, keepdims=True)), {"axes": [1]}),
]

ints = lambda *values: np.array(values, np.int64)
PADS = ints(0, 1, 2, 0, 2, 1)
ARRANGED = [
    Case("Reshape", [X, ints(0, -1)], X.reshape(2, 12)),
    Case("Reshape", [X, ints(4, 6)], X.reshape(4, 6)),
    Case("Flatten", [X], X.reshape(2, 12)),
    Case("Flatten", [X], X.reshape(6, 4), {"axis": -1}),
    Case("Transpose", [X], X.T),
    Case("Transpose", [X], X.transpose(1, 0, 2), {"perm": [1, 0, 2]}),
    Case("Squeeze", [X[:1], ints(0)], X[0]),
    Case("Squeeze", [X[:1]], X[0], {"axes": [0]}, 11, name="setting"),
    Case("Squeeze", [X[:1]], X[0], name="all"),
    Case("Unsqueeze", [X, ints(0, -1)], X[None, ..., None]),
    Case("Unsqueeze", [X], X[:, None], {"axes": [1]}, 11, name="setting"),
    Case("Expand", [Y, ints(2, 1, 4)], np.broadcast_to(Y, (2, 3, 4))),
    Case("Expand", [X, ints(3, 1)], X),
    Case("Tile", [X, ints(1, 2, 3)], np.tile(X, (1, 2, 3))),
    Case("Concat", [X, P], np.concatenate([X, P], -1), {"axis": -1}),
    Case("Split", [X, ints(1, 3)], (X[..., :1], X[..., 1:]), {"axis": 2}),
    Case("Split", [X], (X[..., :2], X[..., 2:]), {"axis": -1}, name="halves"),
    Case("Split", [X], (X[:, :2], X[:, 2:]), {"axis": 1, "num_outputs": 2}, 18, name="uneven"),
    Case("Split", [X], (X[..., :1], X[..., 1:]), {"axis": 2, "split": [1, 3]}, 11, name="setting"),
    Case("Slice", [X, ints(1, 0), ints(9, -1), ints(-1, 1), ints(2, 1)], X[:, :-1, 1::2]),
    Case("Slice", [X, ints(-1), ints(-(2**40)), ints(2), ints(-1)], X[..., ::-1], name="back"),
    Case("Slice", [X], X[:, 1:], {"starts": [1], "ends": [5], "axes": [1]}, 9, name="setting"),
    Case("Gather", [X, ints(2, -1)], X[:, [2, 2]], {"axis": 1}),
    Case("Gather", [X, np.array(-1)], X[..., -1], {"axis": 2}, name="one"),
    Case("Gather", [X, np.array([[0, 2]], np.int32)], X[:, [[0, 2]]], {"axis": 1}, name="given"),
    Case("GatherElements", [X, ints([[0, 1, -1, 2]])], X[:1][:, [0, 1, 2, 2], range(4)][:, None], {"axis": 1}),
    Case("Pad", [X, PADS], np.pad(X, [(0, 0), (1, 2), (2, 1)])),
    Case("Pad", [X, PADS, np.array(3.0)], np.pad(X, [(0, 0), (1, 2), (2, 1)], constant_values=3), fixed=("in2",)),
    Case("Pad", [X, ints(0, -1, 1, 0, 0, -2)], np.pad(X, [(0, 0), (0, 0), (1, 0)])[:, 1:, :-2], name="cut"),
    Case("Pad", [X, PADS], np.pad(X, [(0, 0), (1, 2), (2, 1)], "reflect"), {"mode": "reflect"}),
    Case("Pad", [X, PADS], np.pad(X, [(0, 0), (1, 2), (2, 1)], "edge"), {"mode": "edge"}),
    Case("Pad", [X, ints(1, 1), None, ints(2)], np.pad(X, [(0, 0), (0, 0), (1, 1)]), opset=18, name="axes"),
    Case("Pad", [X], np.pad(X, [(0, 0), (0, 0), (1, 1)], constant_values=2),
         {"pads": [0, 0, 1, 0, 0, 1], "value": 2.0}, 10, name="setting"),
    Case("DepthToSpace", [IMAGE], woven(*IMAGE.swapaxes(0, 1)), {"blocksize": 2}),
    Case("DepthToSpace", [IMAGE.repeat(2, 1)], np.concatenate([woven(*IMAGE.repeat(2, 1)[:, i:i + 4].swapaxes(0, 1))
         for i in (0, 4)], 1), {"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", [IMAGE[:, :2, :4]], np.concatenate(
        [IMAGE[:, [c], i:4:2, j::2] for c in (0, 1) for i in (0, 1) for j in (0, 1)], 1),
         {"blocksize": 2, "mode": "CRD"}, 28),
    Case("SpaceToDepth", [IMAGE[:, :1, :4]], np.concatenate(
        [IMAGE[:, :1, i:4:2, j::2] for i in (0, 1) for j in (0, 1)], 1), {"blocksize": 2}),
    Case("Trilu", [X[0]], np.triu(X[0])),
    Case("Trilu", [X[0], np.array(1)], np.tril(X[0], 1), {"upper": 0}),
    Case("CumSum", [X, np.array(1)], X.cumsum(1)),
    Case("OneHot", [np.array([0, 2, -1]), np.array(3), np.array([0.0, 2.0])], 2 * np.eye(3)[[0, 2, 2]], fixed=("in2",)),
    Case("Shape", [X], ints(2, 3, 4)),
    Case("Shape", [X], ints(3, 4), {"start": 1}, name="part"),
    Case("Size", [X], np.array(24)),
    Case("ConstantOfShape", [ints(2, 3)], np.full((2, 3), 7.0), {"value": np.array([7.0])}),
    Case("Range", [np.array(7), np.array(0), np.array(-2)], ints(7, 5, 3, 1)),
    Case("Constant", [], np.array([1.5, 2.0]), {"value": np.array([1.5, 2.0])}),
    Case("Constant", [], ints(3, 4), {"value_ints": [3, 4]}, name="whole"),
]  # fmt: skip

A, B = rng.standard_normal((3, 4)), rng.standard_normal((5, 4))
W, BIAS = rng.standard_normal((6, 2, 3, 2)), rng.standard_normal(6)
PIXEL, LINE = W[:, :, :1, :1], rng.standard_normal((6, 5, 3, 1))
T = rng.standard_normal((4, 3, 3, 2))
Q, K, V = rng.standard_normal((3, 2, 2, 5, 4))
SCORES = Q @ K.swapaxes(-1, -2) / 2
HALVES = [0, 0, 1, 1]
GAMMA, BETA = rng.standard_normal((2, 4))
channel = lambda a: a.reshape(1, -1, 1, 1)
mean = lambda numbers, counted: numbers.sum(-1) / counted
among = lambda i, n, p: 0 <= i < n
LAYERS = [
    Case("MatMul", [A, B.T], A @ B.T),
    Case("MatMul", [Q, K[0].swapaxes(-1, -2)], Q @ K[0].swapaxes(-1, -2), name="batch"),
    Case("Gemm", [A, B, BIAS[:5]], 0.5 * A @ B.T + 2 * BIAS[:5], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", [A.T, B.T], A @ B.T, {"transA": 1}, name="no bias"),
    Case("Einsum", [Q, K], np.einsum("bhid,bhjd->bhij", Q, K), {"equation": "b h i d, b h j d -> b h i j"}),
    Case("Softmax", [X], softmax(X, 2)),
    Case("Softmax", [X], softmax(X.reshape(2, 12), 1).reshape(X.shape), opset=11, name="flat"),
    Case("LogSoftmax", [X], np.log(softmax(X, 1)), {"axis": 1}),
    Case("Attention", [Q, K, V], softmax(SCORES, -1) @ V, opset=23),
    Case("Conv", [IMAGE, W, BIAS], convolution(IMAGE, W, BIAS, (1, 1), (0, 0), (0, 0), (1, 1), 2), {"group": 2}),
    Case("Conv", [IMAGE, W, BIAS], convolution(IMAGE, W, BIAS, (2, 1), (1, 2), (1, 0), (1, 2), 2),
         {"group": 2, "strides": [2, 1], "pads": [1, 2, 1, 0], "dilations": [1, 2]}, name="all"),
    Case("Conv", [IMAGE, PIXEL], convolution(IMAGE, PIXEL, 0 * BIAS, (2, 2), (0, 0), (0, 0), (1, 1), 2),
         {"group": 2, "strides": [2, 2]}, name="one pixel"),
    Case("Conv", [IMAGE[:, :2], PIXEL, BIAS],
         convolution(IMAGE[:, :2], PIXEL, BIAS, (2, 1), (0, 0), (0, 0), (1, 1), 1), {"strides": [2, 1]}, name="1"),
    Case("Conv", [IMAGE[:, 0], LINE[..., 0], BIAS], convolution(
        IMAGE[:, 0, :, None], LINE.swapaxes(2, 3), BIAS, (1, 1), (0, 0), (0, 0), (1, 1), 1)[:, :, 0],
         name="line"),
    Case("Conv", [IMAGE[:, :2], W, BIAS], convolution(IMAGE[:, :2], W, BIAS, (2, 2), (1, 0), (1, 0), (1, 1), 1),
         {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case("Conv", [IMAGE[:, :2], W, BIAS], convolution(IMAGE[:, :2], W, BIAS, (1, 1), (1, 1), (1, 0), (1, 1), 1),
         {"auto_pad": "SAME_LOWER"}),
    Case("ConvTranspose", [IMAGE, T, BIAS[:3]],
         transposed(IMAGE, T, BIAS[:3], (1, 1), (0, 0), (0, 0), (1, 1), 1)),
    Case("ConvTranspose", [IMAGE, T, BIAS], transposed(IMAGE, T, BIAS, (2, 3), (1, 0), (1, 1), (1, 2), 2, (1, 0)),
         {"group": 2, "strides": [2, 3], "pads": [1, 0, 1, 1], "dilations": [1, 2], "output_padding": [1, 0]},
         name="all"),
    Case("ConvTranspose", [IMAGE, T, BIAS[:3]], transposed(IMAGE, T, BIAS[:3], (2, 2), (0, 0), (1, 0), (1, 1), 1),
         {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case("AveragePool", [IMAGE], pooled(IMAGE, (2, 3), (2, 3), (0, 0), (0, 0), mean, among),
         {"kernel_shape": [2, 3], "strides": [2, 3]}),
    Case("AveragePool", [IMAGE], pooled(IMAGE, (3, 3), (1, 2), (1, 1), (1, 1), mean, among),
         {"kernel_shape": [3, 3], "strides": [1, 2], "pads": [1, 1, 1, 1]}, name="edges"),
    Case("AveragePool", [IMAGE],
         pooled(IMAGE, (3, 3), (2, 2), (1, 1), (1, 2), mean, lambda i, n, p: -1 <= i < n + 1),
         {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1, "ceil_mode": 1}, 19,
         name="ceil"),
    Case("MaxPool", [IMAGE], pooled(IMAGE, (3, 2), (2, 2), (1, 0), (1, 0), lambda a, n: a.max(-1), among),
         {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}),
    Case("GlobalAveragePool", [IMAGE], IMAGE.mean((2, 3), keepdims=True)),
    Case("GlobalMaxPool", [IMAGE], IMAGE.max((2, 3), keepdims=True)),
    Case("InstanceNormalization", [IMAGE, GAMMA, BETA], channel(GAMMA) * standard(IMAGE, (2, 3)) + channel(BETA)),
    Case("GroupNormalization", [IMAGE, GAMMA[:2], BETA[:2]],
         channel(GAMMA[HALVES]) * standard(IMAGE.reshape(2, 2, -1), 2).reshape(IMAGE.shape) + channel(BETA[HALVES]),
         {"num_groups": 2}, 18),
    Case("GroupNormalization", [IMAGE, GAMMA, BETA],
         channel(GAMMA) * standard(IMAGE.reshape(2, 2, -1), 2, 0.1).reshape(IMAGE.shape) + channel(BETA),
         {"num_groups": 2, "epsilon": 0.1}, 21, name="channels"),
    Case("LayerNormalization", [X, GAMMA, BETA], standard(X, 2) * GAMMA + BETA),
    Case("LayerNormalization", [X, P[0]], standard(X, (1, 2), 0.1) * P[0], {"axis": 1, "epsilon": 0.1}, name="two"),
    Case("RMSNormalization", [X, GAMMA], X / np.sqrt((X**2).mean(2, keepdims=True) + 1e-5) * GAMMA, opset=23),
    Case("BatchNormalization", [IMAGE, GAMMA, BETA, BETA, GAMMA**2],
         channel(GAMMA) * (IMAGE - channel(BETA)) / np.sqrt(channel(GAMMA**2) + 1e-5) + channel(BETA)),
    Case("LpNormalization", [X], X / np.sqrt((X**2).sum(1, keepdims=True)), {"axis": 1}),
]  # fmt: skip

half = lambda out, side: (np.arange(out) + 0.5) * side / out - 0.5
corners = lambda out, side: np.arange(out) * (side - 1) / (out - 1)
TWICE = np.array([1.0, 1.0, 2.0, 2.0])
scales = {"fixed": ("in2",)}
RESIZED = [
    Case("Resize", [IMAGE, None, TWICE], IMAGE.repeat(2, 2).repeat(2, 3),
         {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, **scales),
    Case("Resize", [IMAGE, None, None, ints(2, 4, 5, 3)], IMAGE[..., 1::2],
         {"nearest_mode": "round_prefer_ceil"}, name="down"),
    Case("Resize", [IMAGE, None, None, ints(2, 4, 7, 6)], IMAGE[:, :, [0, 1, 1, 2, 3, 3, 4]], name="odd"),
    Case("Resize", [IMAGE, None, TWICE], enlarged(IMAGE, interpolation(half(10, 5), 5), interpolation(half(12, 6), 6)),
         {"mode": "linear"}, **scales),
    Case("Resize", [IMAGE, None, None, ints(2, 4, 7, 11)],
         enlarged(IMAGE, interpolation(corners(7, 5), 5), interpolation(corners(11, 6), 6)),
         {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    Case("Resize", [IMAGE, None, None, ints(8, 3)],
         enlarged(IMAGE, interpolation(half(8, 5), 5), interpolation(half(3, 6), 6)),
         {"mode": "linear", "axes": [2, 3], "coordinate_transformation_mode": "pytorch_half_pixel"}, 18),
    Case("Resize", [IMAGE, TWICE],
         enlarged(IMAGE, interpolation(np.arange(10) / 2, 5), interpolation(np.arange(12) / 2, 6)),
         {"mode": "linear"}, 10, ("in1",), "10"),
    Case("Upsample", [IMAGE, TWICE], IMAGE.repeat(2, 2).repeat(2, 3), {}, 9, ("in1",)),
    Case("Upsample", [IMAGE], IMAGE.repeat(2, 2).repeat(3, 3), {"scales": [1.0, 1.0, 2.0, 3.0]}, 7, name="setting"),
]  # fmt: skip
CASES = [*ARITHMETIC, *ARRANGED, *LAYERS, *RESIZED]


def label(case):
    told = [case.name or ",".join(f"{name}={value}" for name, value in case.settings.items() if name != "value")]
    return f"{case.op} {told[0]} {case.opset}".replace("  ", " ")
