r"""Layers of ONNX: products, convolutions, pools, norms, softmax.

Source: the operators of ONNX (onnx/onnx, docs/Operators.md); the functions are original.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import schema
from diffinv.nn.layers import conv, group_moments, plain_conv
from diffinv.typing import Array
from diffinv.weights.convert.onnx.calls import Call, Operation, Tensor, axis_of, meet
from diffinv.weights.convert.onnx.laying import Last, last, turned


def _matmul(call: Call, a: Tensor, b: Tensor) -> Array:
    if a.ndim > 1 and b.ndim > 1:
        a, b = meet(a, b)
    return jnp.matmul(a, b)


def _gemm(call: Call, a: Tensor, b: Tensor, c: Tensor = None) -> Array:
    turned = lambda x, name: x.T if call.get(name, 0) else x
    out = jnp.matmul(turned(a, "transA"), turned(b, "transB"))
    out = out if call.get("alpha", 1.0) == 1 else call.get("alpha") * out
    if c is None:
        return out
    out, c = meet(out, c)
    return out + (c if call.get("beta", 1.0) == 1 else call.get("beta") * c)


def _einsum(call: Call, *values: Tensor) -> Array:
    return jnp.einsum(call.get("equation").replace(" ", ""), *map(jnp.asarray, values))


def _same(call: Call, sides: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Padding by which each side is divided by its stride, rounded up."""
    pads = []
    for side, window, stride in zip(sides, reach, strides, strict=True):
        total = max(0, (-(-side // stride) - 1) * stride + window - side)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if call.get("auto_pad") == "SAME_UPPER" else (large, small))
    return pads


def _padding(call: Call, sides: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Before and after each side; `reach` is how far a window goes."""
    call.refuse("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    if call.get("auto_pad", "NOTSET").startswith("SAME"):
        return _same(call, sides, reach, strides)
    pads = call.get("pads", (0,) * 2 * len(sides))
    return list(zip(pads[: len(sides)], pads[len(sides) :], strict=True))


def _biased(out: Array, bias: Tensor) -> Last:
    return Last(out if bias is None else out + bias.reshape([1] * (out.ndim - 1) + [-1]))


def _convolved(call: Call, x: Array, kernel: Array, strides, pads, dilations, groups: int, stretch=None) -> Array:
    """(N, ..., in) and (..., in / groups, out) to (N, ..., out)."""
    sides = "DHW"[-(x.ndim - 2) :]
    if groups == 1 and stretch is None and kernel.size == kernel.shape[-1] * kernel.shape[-2] and not np.any(pads):
        return jnp.matmul(x[(slice(None), *(slice(None, None, s) for s in strides))], kernel.reshape(kernel.shape[-2:]))
    convolve, layout = plain_conv if call.plain else conv, (f"N{sides}C", f"{sides}IO", f"N{sides}C")
    return convolve(x, kernel, strides, pads, stretch, dilations, layout, groups)


def _conv(call: Call, x: Tensor, weight: Tensor, bias: Tensor = None) -> Last:
    axes = x.ndim - 2
    strides, dilations = (tuple(call.get(name, (1,) * axes)) for name in ("strides", "dilations"))
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, weight.shape[2:], strict=True)]
    pads = _padding(call, x.shape[2:], reach, strides)
    kernel, groups = jnp.asarray(turned(weight)), call.get("group", 1)
    return _biased(_convolved(call, last(x), kernel, strides, pads, dilations, groups), bias)


def _transposed(weight: Tensor, groups: int) -> Array:
    """A kernel (in, out / groups, ...) as that of a convolution, (out, in / groups, ...), mirrored."""
    inside, outside, *sides = weight.shape
    split = jnp.asarray(weight).reshape(groups, inside // groups, outside, *sides)
    kernel = jnp.swapaxes(split, 1, 2).reshape(groups * outside, inside // groups, *sides)
    return jnp.flip(kernel, tuple(range(2, kernel.ndim)))


def _cropped(call: Call, sides: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """What a transposed convolution leaves away before and after each side, less what it adds after."""
    extra = call.get("output_padding", (0,) * len(sides))
    same = call.get("auto_pad", "NOTSET").startswith("SAME")
    wanted = call.get("output_shape", tuple(n * s for n, s in zip(sides, strides, strict=True)) if same else None)
    if wanted is None:
        pads = _padding(call, sides, reach, strides)
        return [(before, after - more) for (before, after), more in zip(pads, extra, strict=True)]
    found = []
    for side, window, stride, more, out in zip(sides, reach, strides, extra, wanted[-len(sides) :], strict=True):
        total = stride * (side - 1) + more + window - out
        small = total // 2
        before = total - small if call.get("auto_pad") == "SAME_LOWER" else small
        found.append((before, total - before - more))
    return found


def _conv_transpose(call: Call, x: Tensor, weight: Tensor, bias: Tensor = None) -> Last:
    axes, groups = x.ndim - 2, call.get("group", 1)
    strides, dilations = (tuple(call.get(name, (1,) * axes)) for name in ("strides", "dilations"))
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, weight.shape[2:], strict=True)]
    cropped = _cropped(call, x.shape[2:], reach, strides)
    pads = [(window - 1 - before, window - 1 - after) for window, (before, after) in zip(reach, cropped, strict=True)]
    kernel = turned(_transposed(weight, groups))
    return _biased(_convolved(call, last(x), kernel, (1,) * axes, pads, dilations, groups, strides), bias)


def _windows(call: Call, x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], list[tuple[int, int]]]:
    """Of a pool: sides, strides, dilations and padding, which ceil_mode makes larger."""
    window = tuple(call.get("kernel_shape"))
    strides, dilations = (tuple(call.get(name, (1,) * len(window))) for name in ("strides", "dilations"))
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, window, strict=True)]
    pads = _padding(call, x.shape[2:], reach, strides)
    if call.get("ceil_mode", 0):
        pads = [_rounded(*each) for each in zip(x.shape[2:], reach, strides, pads, strict=True)]
    return window, strides, dilations, pads


def _rounded(side: int, window: int, stride: int, pads: tuple[int, int]) -> tuple[int, int]:
    """Padding with which a last window fits that starts inside the picture or its padding before it."""
    before, after = pads
    count = -(-(side + before + after - window) // stride) + 1
    count -= (count - 1) * stride >= side + before
    return before, max(after, (count - 1) * stride + window - side - before)


def _counts(call: Call, x: Tensor, window: tuple[int, ...], strides, dilations, pads) -> np.ndarray:
    """How many numbers each window holds, (1, 1, ...)."""
    counts = np.ones((1,) * x.ndim)
    padded = call.get("pads", (0,) * 2 * len(window)) if call.get("count_include_pad", 0) else (0,) * 2 * len(window)
    for i, (before, after) in enumerate(pads):
        side = x.shape[2 + i]
        starts = np.arange((side + before + after - dilations[i] * (window[i] - 1) - 1) // strides[i] + 1) * strides[i]
        places = starts[:, None] - before + dilations[i] * np.arange(window[i])
        inside = (places >= -padded[i]) & (places < side + padded[i + len(window)])
        counts = counts * inside.sum(1).reshape([-1 if axis == 2 + i else 1 for axis in range(x.ndim)])
    return counts


def _reduced(x: Tensor, empty: float, combine: Operation, window, strides, dilations, pads) -> Array:
    window, strides, dilations = ((1, *each, 1) for each in (window, strides, dilations))
    start, pads = np.asarray(empty, x.dtype), ((0, 0), *pads, (0, 0))
    return jax.lax.reduce_window(jnp.asarray(last(x)), start, combine, window, strides, pads, None, dilations)


def _tiled(x: Tensor, window, strides, dilations, pads) -> Array | None:
    """(N, ..., C) as (N, rows, window, columns, window, C) where the windows tile it: their means are faster so."""
    sides = list(zip(x.shape[2:], window, strict=True))
    if window != strides or np.any(pads) or any(d > 1 for d in dilations) or any(n % k for n, k in sides):
        return None
    return jnp.asarray(last(x)).reshape(x.shape[0], *(part for n, k in sides for part in (n // k, k)), x.shape[1])


def _average_pool(call: Call, x: Tensor) -> Last:
    windows = _windows(call, x)
    if (tiles := _tiled(x, *windows)) is not None:
        return Last(jnp.mean(tiles, tuple(range(2, tiles.ndim - 1, 2))))
    counts = np.moveaxis(_counts(call, x, *windows), 1, -1)
    return Last(_reduced(x, 0.0, jax.lax.add, *windows) / counts.astype(x.dtype))


def _max_pool(call: Call, x: Tensor) -> Last:
    call.refuse("storage_order", 0)
    return Last(_reduced(x, -math.inf, jax.lax.max, *_windows(call, x)))


def _spread(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Array, Array, Array]:
    """x standardised over axes, its mean, and the inverse of its deviation."""
    mean = jnp.mean(x, axes, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean((x - mean) ** 2, axes, keepdims=True) + eps)
    return (x - mean) * inverse, mean, inverse


def _grouped(x: Tensor, groups: int, eps: float, scale: Tensor, shift: Tensor) -> Last:
    """(N, ..., C), standardised over space and each group of its channels; scale and shift of groups or of channels.

    What follows for each channel alone is put into the scale and shift, see `laying.onto`: one product and one sum.
    """
    x = jnp.asarray(last(x))
    count, *sides, channels = x.shape
    per = lambda value: jnp.broadcast_to(value.reshape(groups, -1), (groups, channels // groups)).reshape(1, channels)
    apart, mean, variance = jax.vmap(partial(group_moments, groups=groups))(x)
    a = per(scale) * jax.lax.rsqrt(variance + eps)
    spread = lambda value: value.reshape(count, *(1,) * len(sides), channels)
    return Last(apart, affine=(spread(a), spread(per(shift) - mean * a)))


def _instance_norm(call: Call, x: Tensor, scale: Tensor, shift: Tensor) -> Last:
    """Each channel is a group; or each of those into which the graph has just split it."""
    groups = x.groups if isinstance(x, Last) else 0
    plain = replace(x, groups=0) if groups else x
    return replace(_grouped(plain, groups or x.shape[1], call.get("epsilon", 1e-5), scale, shift), groups=groups)


def _group_norm(call: Call, x: Tensor, scale: Tensor, shift: Tensor) -> Last:
    """Scale and shift are of groups before opset 21, of channels from then on."""
    return _grouped(x, call.get("num_groups"), call.get("epsilon", 1e-5), scale, shift)


def _layer_norm(call: Call, x: Tensor, scale: Tensor, shift: Tensor = None) -> tuple[Array, ...]:
    axes = tuple(range(axis_of(call.get("axis", -1), x.ndim), x.ndim))
    out, mean, inverse = _spread(x, axes, call.get("epsilon", 1e-5))
    out, scale = meet(out, scale)
    out = out * scale
    return (out if shift is None else out + meet(out, shift)[1], mean, inverse)[: len(call.node.outputs)]


def _rms_norm(call: Call, x: Tensor, scale: Tensor) -> Array:
    axes = tuple(range(axis_of(call.get("axis", -1), x.ndim), x.ndim))
    out = x * jax.lax.rsqrt(jnp.mean(x * x, axes, keepdims=True) + call.get("epsilon", 1e-5))
    return out * meet(out, scale)[1]


def _batch_norm(call: Call, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Last:
    call.refuse("training_mode", 0)
    a = scale * jax.lax.rsqrt(jnp.asarray(variance) + call.get("epsilon", 1e-5))
    spread = lambda value: value.reshape([1] * (x.ndim - 1) + [-1])
    return Last(last(x) * spread(a) + spread(shift - mean * a))


def _unit(call: Call, x: Tensor) -> Array:
    order, axis = call.get("p", 2), call.get("axis", -1)
    call.refuse("p", 1, 2)
    return x / (jnp.sum(jnp.abs(x) ** order, axis, keepdims=True) ** (1 / order))


def _softmax_of(function: Operation) -> Operation:
    """Over one axis; over all from that one on before opset 13."""

    def over(call: Call, x: Tensor) -> Array:
        last = call.opset >= 13
        axis = axis_of(call.get("axis", -1 if last else 1), x.ndim)
        return function(jnp.asarray(x), axis=axis if last else tuple(range(axis, x.ndim)))

    return over


def _global(function: Operation) -> Operation:
    return lambda call, x: function(x, axis=tuple(range(2, x.ndim)), keepdims=True)


def _attention(call: Call, query: Tensor, key: Tensor, value: Tensor, mask: Tensor = None, *past: Tensor) -> Array:
    """Heads on an axis of their own, (B, heads, L, d), keys and values of the same or fewer heads."""
    for name, plain in (("is_causal", 0), ("softcap", 0.0), ("left_window_size", -1), ("right_window_size", -1)):
        call.refuse(name, plain)
    if any(each is not None for each in past):
        raise ValueError(f"{call} keeps what it has seen; export the network without a cache")
    if query.ndim != 4:
        raise ValueError(
            f"{call} has queries of shape {schema.shown(query.shape)}; export heads as an axis of their own"
        )
    shared = query.shape[1] // key.shape[1]
    key, value = (jnp.repeat(each, shared, 1) if shared > 1 else each for each in (key, value))
    scores = jnp.matmul(query, jnp.swapaxes(key, -1, -2)) * call.get("scale", query.shape[-1] ** -0.5)
    if mask is not None:
        scores, mask = meet(scores, mask)
        scores = jnp.where(mask, scores, -jnp.inf) if mask.dtype == bool else scores + mask
    return jnp.matmul(jax.nn.softmax(scores, axis=-1), value)


SPATIAL: dict[str, Operation] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "MaxPool": _max_pool,
}
"""Which take channels first or last, and give them last."""

LAYERED: dict[str, Operation] = {
    "Attention": _attention,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GlobalAveragePool": _global(jnp.mean),
    "GlobalMaxPool": _global(jnp.max),
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax_of(jax.nn.log_softmax),
    "LpNormalization": _unit,
    "MatMul": _matmul,
    "RMSNormalization": _rms_norm,
    "Softmax": _softmax_of(jax.nn.softmax),
}
