r"""Operations of ONNX that arrange numbers, and do not change them.

Source: the operators of ONNX (onnx/onnx, docs/Operators.md); the functions are original.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import schema
from diffinv.weights.convert.onnx.calls import Call, Operation, Tensor, axis_of, meet, module

MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def _constant(call: Call) -> Tensor:
    held = call.node.attributes
    if isinstance(value := held.get("value"), np.ndarray):
        return value.astype(call.real(value.dtype))
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32)):
        if name in held:
            return np.asarray(held[name], call.real(np.dtype(dtype)))
    for name in ("value_int", "value_ints"):
        if name in held:
            return np.asarray(held[name], np.int64)
    raise ValueError(f"{call} holds {schema.shown(sorted(held))}; known are numbers, dense")


def _filled(call: Call, shape: Tensor) -> Tensor:
    value = call.get("value", np.zeros(1, np.float32))
    sides = tuple(int(side) for side in call.known(shape, "shape"))
    return np.full(sides, value.item(), call.real(value.dtype))


def _range(call: Call, start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    start, end, step = (call.known(value, "bounds") for value in (start, end, step))
    count = max(0, math.ceil((end.item() - start.item()) / step.item()))
    return (start + np.arange(count) * step).astype(start.dtype)


def _shape(call: Call, x: Tensor) -> Tensor:
    return np.asarray(x.shape[call.get("start", 0) : call.get("end", x.ndim)], np.int64)


def _reshape(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    sides = [int(side) for side in call.known(shape, "shape")]
    kept = not call.get("allowzero", 0)
    return x.reshape([x.shape[i] if kept and side == 0 else side for i, side in enumerate(sides)])


def _flatten(call: Call, x: Tensor) -> Tensor:
    axis = axis_of(call.get("axis", 1), x.ndim)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _squeeze(call: Call, *values: Tensor) -> Tensor:
    x, axes = values[0], call.setting(values, 1, "axes", 13)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(call: Call, *values: Tensor) -> Tensor:
    return module(values[0]).expand_dims(values[0], call.setting(values, 1, "axes", 13, ()))


def _expand(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    sides = tuple(int(side) for side in call.known(shape, "shape"))
    x = x.reshape((1,) * max(0, len(sides) - x.ndim) + x.shape)
    return module(x).broadcast_to(x, np.broadcast_shapes(x.shape, sides))


def _transpose(call: Call, x: Tensor) -> Tensor:
    return x.transpose(call.get("perm", tuple(reversed(range(x.ndim)))))


def _concat(call: Call, *values: Tensor) -> Tensor:
    return module(*values).concatenate(meet(*values), axis=call.get("axis"))


def _split(call: Call, *values: Tensor) -> tuple[Tensor, ...]:
    x = values[0]
    axis, parts = axis_of(call.get("axis", 0), x.ndim), len(call.node.outputs)
    size = -(-x.shape[axis] // parts)
    sides = call.setting(values, 1, "split", 13) or [size] * (parts - 1) + [x.shape[axis] - size * (parts - 1)]
    return tuple(module(x).split(x, [int(end) for end in np.cumsum(sides)[:-1]], axis))


def _slice(call: Call, *values: Tensor) -> Tensor:
    x, setting = values[0], lambda at, name, default=None: call.setting(values, at, name, 10, default)
    starts, ends = setting(1, "starts", ()), setting(2, "ends", ())
    axes, steps = setting(3, "axes") or range(len(starts)), setting(4, "steps") or [1] * len(starts)
    taken = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        far = step < 0 and end < -x.shape[axis]  # before the first, which no index of Python's means
        taken[axis] = slice(start, None if far else end, step)
    return x[tuple(taken)]


def _gather(call: Call, x: Tensor, at: Tensor) -> Tensor:
    axis = axis_of(call.get("axis", 0), x.ndim)
    if isinstance(at, np.ndarray):
        if at.size and not -x.shape[axis] <= at.min() <= at.max() < x.shape[axis]:
            raise ValueError(f"{call} takes {schema.shown(at.tolist())} of {x.shape[axis]}; the file is damaged")
        if at.ndim == 0 and not isinstance(x, np.ndarray):
            return jax.lax.index_in_dim(x, int(at), axis, keepdims=False)
    return module(x, at).take(x, at, axis=axis)


def _gather_elements(call: Call, x: Tensor, at: Tensor) -> Tensor:
    axis = axis_of(call.get("axis", 0), x.ndim)
    x = x[tuple(slice(None) if i == axis else slice(side) for i, side in enumerate(at.shape))]
    at = module(x, at).where(at < 0, at + x.shape[axis], at)
    return module(x, at).take_along_axis(x, at, axis)


def _pad(call: Call, *values: Tensor) -> Tensor:
    x, mode = values[0], call.get("mode", "constant")
    pads = call.setting(values, 1, "pads", 11, ())
    axes = call.setting(values, 3, "axes", 2) or range(x.ndim)
    sides = np.zeros((x.ndim, 2), int)
    for axis, before, after in zip(axes, pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True):
        sides[axis] = before, after
    if mode == "constant":
        given = values[2] if len(values) > 2 and values[2] is not None else np.asarray(call.get("value", 0.0))
        widths = [(int(before), int(after), 0) for before, after in sides]
        return jax.lax.pad(jnp.asarray(x), jnp.asarray(given, x.dtype).reshape(()), widths)
    if mode not in MODES:
        raise ValueError(f"{call} has mode = {schema.shown(mode)}; known are constant, {', '.join(MODES)}")
    cut = tuple(slice(max(0, -before), x.shape[i] - max(0, -after)) for i, (before, after) in enumerate(sides))
    return module(x).pad(x[cut], np.maximum(sides, 0), mode=MODES[mode])


def _depth_to_space(call: Call, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = call.get("blocksize")
    if call.get("mode", "DCR") == "DCR":
        return x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)
    return x.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // b**2, h * b, w * b)


def _space_to_depth(call: Call, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = call.get("blocksize")
    order = (0, 3, 5, 1, 2, 4) if call.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return x.reshape(n, c, h // b, b, w // b, b).transpose(order).reshape(n, c * b**2, h // b, w // b)


def _trilu(call: Call, x: Tensor, k: Tensor = None) -> Tensor:
    offset = 0 if k is None else int(call.known(k, "diagonal").item())
    return getattr(module(x), "triu" if call.get("upper", 1) else "tril")(x, offset)


def _one_hot(call: Call, at: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    count = int(call.known(depth, "depth").item())
    off, on = jnp.asarray(values)
    axis = axis_of(call.get("axis", -1), at.ndim + 1)
    hot = jnp.expand_dims(jnp.where(at < 0, at + count, at), axis)
    places = jnp.arange(count, dtype=hot.dtype).reshape([count if i == axis else 1 for i in range(at.ndim + 1)])
    return jnp.where(hot == places, on, off)


def _cumulative(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    call.refuse("exclusive", 0)
    call.refuse("reverse", 0)
    return module(x).cumsum(x, axis=int(call.known(axis, "axis").item()), dtype=x.dtype)


ARRANGING: dict[str, Operation] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "CumSum": _cumulative,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda call, x: np.asarray(x.size, np.int64),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": lambda call, x, times: module(x).tile(x, [int(n) for n in call.known(times, "repeats")]),
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
