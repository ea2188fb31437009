r"""Resize and Upsample of ONNX: each number of the result is a known mean of a few of the input's, axis by axis.

Source: the operator Resize of ONNX (onnx/onnx, docs/Operators.md); the functions are original.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from diffinv import schema
from diffinv.typing import Array
from diffinv.weights.convert.onnx.calls import Call, Operation, Tensor
from diffinv.weights.convert.onnx.laying import Last, last, moved

REACH = {"linear": 1.0, "cubic": 2.0}


def _places(call: Call, mode: str, out: int, side: int, scale: float) -> np.ndarray:
    """Where each place of the result lies in the input, in its pixels."""
    at = np.arange(out, dtype=np.float64)
    if mode == "align_corners":
        return at * (side - 1) / max(1, out - 1)
    if mode == "asymmetric":
        return at / scale
    if mode == "pytorch_half_pixel" and out == 1:
        return np.zeros(1)
    shift = 0.0 if mode != "half_pixel_symmetric" else side / 2 * (1 - out / (scale * side))
    if mode in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"):
        return shift + (at + 0.5) / scale - 0.5
    raise ValueError(f"{call} has coordinate_transformation_mode = {schema.shown(mode)}; export it otherwise")


def _nearest(call: Call, at: np.ndarray, side: int) -> np.ndarray:
    rounds: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    mode = call.get("nearest_mode", "round_prefer_floor")
    if mode not in rounds:
        raise ValueError(f"{call} has nearest_mode = {schema.shown(mode)}; known are {', '.join(rounds)}")
    return np.clip(rounds[mode](at), 0, side - 1).astype(int)


def _kernel(mode: str, x: np.ndarray, a: float) -> np.ndarray:
    x = np.abs(x)
    if mode == "linear":
        return np.maximum(1 - x, 0)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def _taps(call: Call, mode: str, at: np.ndarray, side: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """(indices, weights) of the numbers of which each result is a mean, (n, taps)."""
    smooth = bool(call.get("antialias", 0)) and scale < 1
    shrink = scale if smooth else 1.0
    reach = int(np.ceil(REACH[mode] / shrink))
    found = np.floor(at)[:, None].astype(int) + np.arange(1 - reach, reach + 1)
    weights = _kernel(mode, (found - at[:, None]) * shrink, call.get("cubic_coeff_a", -0.75))
    if smooth or call.get("exclude_outside", 0):
        weights = weights * ((found >= 0) & (found < side))
    weights = weights / weights.sum(1, keepdims=True)
    return np.clip(found, 0, side - 1), weights


def _repeated(x: Array, axis: int, times: int) -> Array:
    shape = x.shape
    wide = jnp.broadcast_to(jnp.expand_dims(x, axis + 1), (*shape[: axis + 1], times, *shape[axis + 1 :]))
    return wide.reshape(*shape[:axis], shape[axis] * times, *shape[axis + 1 :])


def _picked(x: Array, axis: int, at: np.ndarray) -> Array:
    """Known places of an axis, as repetition or as a slice where they are one."""
    side, times = x.shape[axis], len(at) // x.shape[axis]
    if times and np.array_equal(at, np.repeat(np.arange(side), times)):
        return x if times == 1 else _repeated(x, axis, times)
    step = at[1] - at[0] if len(at) > 1 else 1
    if step > 0 and np.array_equal(at, at[0] + step * np.arange(len(at))):
        return x[(slice(None),) * axis + (slice(int(at[0]), int(at[-1]) + 1, int(step)),)]
    return jnp.take(x, at, axis=axis)


def _resampled(call: Call, x: Array, axis: int, out: int, scale: float, mode: str, where: str) -> Array:
    side = x.shape[axis]
    at = _places(call, where, out, side, scale)
    if mode == "nearest":
        return _picked(x, axis, _nearest(call, at, side))
    indices, weights = _taps(call, mode, at, side, scale)
    used = np.any(weights != 0, axis=0)
    share = lambda w: w.astype(x.dtype).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    parts = [share(w) * jnp.take(x, i, axis=axis) for i, w in zip(indices.T[used], weights.T[used], strict=True)]
    return sum(parts[1:], parts[0])


def _sides(call: Call, x: Tensor, scales: Tensor, sizes: Tensor, axes: tuple[int, ...]) -> list[tuple[int, float]]:
    """(side, scale) of the result on each of the axes."""
    call.refuse("keep_aspect_ratio_policy", "stretch")
    if sizes is not None and sizes.size:
        wanted = [int(side) for side in call.known(sizes, "sizes")]
        return [(side, side / x.shape[axis]) for axis, side in zip(axes, wanted, strict=True)]
    if scales is None or not scales.size:
        raise ValueError(f"{call} has neither scales nor sizes; the file is damaged")
    given = [float(scale) for scale in call.known(scales, "scales")]
    return [(int(np.floor(x.shape[axis] * scale)), scale) for axis, scale in zip(axes, given, strict=True)]


def _resize(call: Call, x: Tensor, *rest: Tensor) -> Tensor:
    roi, scales, sizes = (None, *rest, None)[:3] if call.opset < 11 else (*rest, None, None, None)[:3]
    axes = tuple(axis % x.ndim for axis in call.get("axes", range(x.ndim)))
    mode, place = call.get("mode", "nearest"), lambda axis: moved(axis, x.ndim) if isinstance(x, Last) else axis
    where = "asymmetric" if call.opset < 11 else call.get("coordinate_transformation_mode", "half_pixel")
    if mode not in ("nearest", *REACH):
        raise ValueError(f"{call} has mode = {schema.shown(mode)}; known are nearest, {', '.join(REACH)}")
    out = last(x) if isinstance(x, Last) else jnp.asarray(x)
    for axis, (side, scale) in zip(axes, _sides(call, x, scales, sizes, axes), strict=True):
        if (side, scale) != (x.shape[axis], 1.0):
            out = _resampled(call, out, place(axis), side, scale, mode, where)
    return Last(out) if isinstance(x, Last) else out


def _floored(call: Call) -> Call:
    """Before opset 11 the nearest number is the one before."""
    return call._replace(node=call.node._replace(attributes={**call.node.attributes, "nearest_mode": "floor"}))


def _upsample(call: Call, x: Tensor, scales: Tensor = None) -> Tensor:
    given = np.asarray(call.get("scales")) if scales is None else scales
    return _resize(_floored(call)._replace(opset=10), x, given)


RESAMPLING: dict[str, Operation] = {
    "Resize": lambda call, x, *rest: _resize(call if call.opset >= 11 else _floored(call), x, *rest),
    "Upsample": _upsample,
}
