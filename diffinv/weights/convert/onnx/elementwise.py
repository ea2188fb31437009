r"""Operations of ONNX that work number by number, and sums over axes.

Source: the operators of ONNX (onnx/onnx, docs/Operators.md); the functions are original.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.weights.convert.onnx.calls import Call, Operation, Tensor, aligned, jax_kind, meet, module
from diffinv.weights.convert.onnx.reading import DTYPES


def _unary(name: str) -> Operation:
    return lambda call, x: getattr(module(x), name)(x)


def _binary(name: str) -> Operation:
    return lambda call, a, b: getattr(module(a, b), name)(*meet(a, b))


def _variadic(name: str) -> Operation:
    return lambda call, *values: reduce(lambda a, b: getattr(module(a, b), name)(*meet(a, b)), values)


def _activation(function: Callable[..., Any], **settings: float) -> Operation:
    """A function of JAX with settings of these defaults, passed in their order."""
    return lambda call, x: function(jnp.asarray(x), *(call.get(name, value) for name, value in settings.items()))


def _divide(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Whole numbers towards 0."""
    xp, (a, b) = module(a, b), meet(a, b)
    if jnp.issubdtype(a.dtype, jnp.floating):
        return xp.divide(a, b)
    quotient = xp.floor_divide(a, b)
    return quotient + ((a != quotient * b) & ((a < 0) != (b < 0))).astype(quotient.dtype)


def _power(call: Call, x: Tensor, exponent: Tensor) -> Tensor:
    """The type is that of x; a known whole exponent keeps its gradient finite."""
    if isinstance(exponent, np.ndarray) and exponent.size == 1 and float(exponent.item()).is_integer():
        axes = max(x.ndim, exponent.ndim)
        return x.reshape((1,) * (axes - x.ndim) + x.shape) ** int(exponent.item())
    xp, (x, exponent) = module(x, exponent), meet(x, exponent)
    return xp.power(x, exponent.astype(x.dtype))


def _modulo(call: Call, a: Tensor, b: Tensor) -> Tensor:
    return getattr(module(a, b), "fmod" if call.get("fmod", 0) else "mod")(*meet(a, b))


def _clip(call: Call, x: Tensor, low: Tensor = None, high: Tensor = None) -> Tensor:
    bound = lambda name, value: np.asarray(call.get(name), x.dtype) if name in call.node.attributes else value
    low, high = bound("min", low), bound("max", high)
    x = x if low is None else module(x, low).maximum(*meet(x, low))
    return x if high is None else module(x, high).minimum(*meet(x, high))


def _where(call: Call, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    condition, a, b = aligned(condition, a, b)
    return module(condition, a, b).where(condition, *meet(a, b))


def _cast(call: Call, x: Tensor) -> Tensor:
    code = call.get("to")
    if code not in DTYPES:
        raise ValueError(f"{call} casts to type {code}; known are those of numpy and bfloat16")
    return _as(call, x, DTYPES[code])


def _as(call: Call, x: Tensor, dtype: np.dtype) -> Tensor:
    kind = call.real(dtype)
    there = isinstance(x, np.ndarray) or jnp.issubdtype(kind, jnp.floating)
    return x.astype(kind if there else jax_kind(kind))


def _dropout(call: Call, x: Tensor, ratio: Tensor = None, training: Tensor = None) -> Tensor:
    if training is not None and call.known(training, "training_mode").any():
        raise ValueError(f"{call} is of training; export the network in evaluation mode")
    return x


def _gelu(call: Call, x: Tensor) -> Tensor:
    return jax.nn.gelu(jnp.asarray(x), approximate=call.get("approximate", "none") == "tanh")


def _prelu(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    x, slope = meet(jnp.asarray(x), slope)
    return jnp.where(x < 0, slope * x, x)


def _axes(call: Call, values: tuple[Tensor, ...], axes: int, since: int) -> tuple[int, ...]:
    """Over which is summed: all, or none where the file says that an empty list means this."""
    found = call.setting(values, 1, "axes", since, ())
    return tuple(found) or (() if call.get("noop_with_empty_axes", 0) else tuple(range(axes)))


def _reduction(over: Callable[..., Tensor], since: int = 18) -> Operation:
    """`over(xp, x, axis=..., keepdims=...)`; the axes are an input from opset `since`."""

    def reduced(call: Call, *values: Tensor) -> Tensor:
        x = values[0]
        axes = _axes(call, values, x.ndim, since)
        return over(module(x), x, axis=axes, keepdims=bool(call.get("keepdims", 1)))

    return reduced


def _log_sum_exp(xp: Any, x: Tensor, **over: Any) -> Tensor:
    return jax.scipy.special.logsumexp(jnp.asarray(x), **over)


REDUCTIONS: dict[str, Operation] = {
    "ReduceMean": _reduction(lambda xp, x, **over: xp.mean(x, **over)),
    "ReduceSum": _reduction(lambda xp, x, **over: xp.sum(x, **over, dtype=x.dtype), 13),
    "ReduceMax": _reduction(lambda xp, x, **over: xp.max(x, **over)),
    "ReduceMin": _reduction(lambda xp, x, **over: xp.min(x, **over)),
    "ReduceProd": _reduction(lambda xp, x, **over: xp.prod(x, **over, dtype=x.dtype)),
    "ReduceL1": _reduction(lambda xp, x, **over: xp.sum(abs(x), **over, dtype=x.dtype)),
    "ReduceL2": _reduction(lambda xp, x, **over: xp.sqrt(xp.sum(x * x, **over))),
    "ReduceSumSquare": _reduction(lambda xp, x, **over: xp.sum(x * x, **over, dtype=x.dtype)),
    "ReduceLogSum": _reduction(lambda xp, x, **over: xp.log(xp.sum(x, **over))),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
}

ACTIVATIONS: dict[str, Operation] = {
    "Celu": _activation(jax.nn.celu, alpha=1.0),
    "Elu": _activation(jax.nn.elu, alpha=1.0),
    "Erf": _activation(jax.lax.erf),
    "Gelu": _gelu,
    "HardSigmoid": _activation(lambda x, a, b: jnp.clip(a * x + b, 0, 1), alpha=0.2, beta=0.5),
    "HardSwish": _activation(jax.nn.hard_swish),
    "LeakyRelu": _activation(jax.nn.leaky_relu, alpha=0.01),
    "Mish": _activation(jax.nn.mish),
    "PRelu": _prelu,
    "Relu": _activation(jax.nn.relu),
    "Selu": _activation(
        lambda x, a, scale: scale * jax.nn.elu(x, a), alpha=1.6732632423543772, gamma=1.0507009873554805
    ),
    "Sigmoid": _activation(jax.nn.sigmoid),
    "Softplus": _activation(jax.nn.softplus),
    "Softsign": _activation(jax.nn.soft_sign),
    "Swish": _activation(lambda x, a: x * jax.nn.sigmoid(a * x), alpha=1.0),
    "ThresholdedRelu": _activation(lambda x, a: jnp.where(x > a, x, 0), alpha=1.0),
}

ELEMENTWISE: dict[str, Operation] = {
    "Abs": _unary("abs"),
    "Add": _binary("add"),
    "And": _binary("logical_and"),
    "Cast": _cast,
    "CastLike": lambda call, x, like: x.astype(like.dtype),
    "Ceil": _unary("ceil"),
    "Clip": _clip,
    "Cos": _unary("cos"),
    "Cosh": _unary("cosh"),
    "Div": _divide,
    "Dropout": _dropout,
    "Equal": _binary("equal"),
    "Exp": _unary("exp"),
    "Floor": _unary("floor"),
    "Greater": _binary("greater"),
    "GreaterOrEqual": _binary("greater_equal"),
    "Identity": lambda call, x: x,
    "IsInf": _unary("isinf"),
    "IsNaN": _unary("isnan"),
    "Less": _binary("less"),
    "LessOrEqual": _binary("less_equal"),
    "Log": _unary("log"),
    "Max": _variadic("maximum"),
    "Mean": lambda call, *values: _variadic("add")(call, *values) / len(values),
    "Min": _variadic("minimum"),
    "Mod": _modulo,
    "Mul": _binary("multiply"),
    "Neg": _unary("negative"),
    "Not": _unary("logical_not"),
    "Or": _binary("logical_or"),
    "Pow": _power,
    "Reciprocal": lambda call, x: 1 / x,
    "Round": _unary("rint"),
    "Sign": _unary("sign"),
    "Sin": _unary("sin"),
    "Sinh": _unary("sinh"),
    "Sqrt": _unary("sqrt"),
    "Sub": _binary("subtract"),
    "Sum": _variadic("add"),
    "Tan": _unary("tan"),
    "Tanh": _unary("tanh"),
    "Where": _where,
    "Xor": _binary("logical_xor"),
    **ACTIVATIONS,
    **REDUCTIONS,
}
