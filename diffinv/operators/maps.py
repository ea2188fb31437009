r"""A linear function and its adjoint as one map to JAX: gradients, transposes and batches go through the pair.

So a function that JAX cannot look into, such as a callback to SciPy, is as good as another: the derivative of `A x` by
`x` is `A` itself, forward, and its adjoint, backward. (JAX's `linear_call` is the same, but has no batching rule.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from diffinv.typing import Array

Map = Callable[..., Array]

_map = Primitive("linear_map")


def applied(call: Map, adjoint: Map, x: Array, *parameters: Any) -> Array:
    """`call(x, *parameters)`, linear in x, whose derivative by x uses `adjoint(y, *parameters)`.

    `adjoint` is real, of x's shape, under `Re <A x, y> = <x, A^H y>`. Derivatives by the parameters, which are pytrees,
    are those of the callables' own code.
    """
    leaves, structure = jax.tree.flatten(parameters)

    def forward(x: Array, *leaves: Array) -> Array:
        return call(x, *jax.tree.unflatten(structure, leaves))

    def transposed(y: Array, *leaves: Array) -> Array:
        return jnp.conj(adjoint(jnp.conj(y), *jax.tree.unflatten(structure, leaves))).astype(x.dtype)

    return _map.bind(x, *map(jnp.asarray, leaves), forward=forward, transposed=transposed)


def _evaluate(x: Array, *leaves: Array, forward: Map, transposed: Map) -> Array:
    return forward(x, *leaves)


def _abstract(x: Any, *leaves: Any, forward: Map, transposed: Map) -> Any:
    like = jax.eval_shape(forward, *(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in (x, *leaves)))
    return jax.core.ShapedArray(like.shape, like.dtype)


def _differentiate(primals: tuple, tangents: tuple, **pair: Map) -> tuple:
    x, *leaves = primals
    change, *others = tangents
    y = _map.bind(*primals, **pair)
    parts = [] if type(change) is ad.Zero else [_map.bind(change, *leaves, **pair)]
    moved = [i for i, other in enumerate(others) if type(other) is not ad.Zero]
    if moved:
        by_moved = lambda *values: pair["forward"](x, *_replaced(leaves, moved, values))
        parts.append(jax.jvp(by_moved, [leaves[i] for i in moved], [others[i] for i in moved])[1])
    return y, sum(parts[1:], parts[0]) if parts else ad.Zero(jax.typeof(y).to_tangent_aval())


def _replaced(leaves: list, places: list[int], values: tuple) -> list:
    found = list(leaves)
    for place, value in zip(places, values, strict=True):
        found[place] = value
    return found


def _transpose(y: Any, x: Any, *leaves: Array, forward: Map, transposed: Map) -> list:
    back = None if type(y) is ad.Zero else _map.bind(y, *leaves, forward=transposed, transposed=forward)
    return [back, *[None] * len(leaves)]


def _batch(arrays: tuple, axes: tuple, **pair: Map) -> tuple[Array, int]:
    """Of the functions' own batches. An x without an axis gets one, so that its cotangent has one, too."""
    x, *leaves = arrays
    size = next(a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)
    x = jnp.broadcast_to(x[None], (size, *x.shape)) if axes[0] is None else jnp.moveaxis(x, axes[0], 0)
    many = {name: jax.vmap(call, (0, *axes[1:])) for name, call in pair.items()}
    return _map.bind(x, *leaves, **many), 0


_map.def_impl(_evaluate)
_map.def_abstract_eval(_abstract)
ad.primitive_jvps[_map] = _differentiate
ad.primitive_transposes[_map] = _transpose
batching.primitive_batchers[_map] = _batch
mlir.register_lowering(_map, mlir.lower_fun(_evaluate, multiple_results=False))
