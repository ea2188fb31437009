r"""Feature maps with their channels last inside, whatever the graph says: XLA's CPU convolutions want them so.

A graph of PyTorch's is (N, C, ...) throughout. What a convolution gives is kept as (N, ..., C), and so is what follows
from it number by number, by channels or over space. Everything else gets the array as the graph has it. Exporters write
a group norm as reshape to (N, G, -1), InstanceNormalization, reshape, and then a product and a sum for each channel,
FiLM's too: the first is kept in mind, and not done; of the last, the norm's scale and shift are made, once.

Source: original.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffinv.typing import Array
from diffinv.weights.convert.onnx.calls import Call, Operation, Tensor, axis_of, meet


@dataclass(frozen=True)
class Last:
    """(N, C, ...) of the graph, kept as (N, ..., C); or that as groups, (N, groups, -1) of the graph.

    Attributes:
      held: (N, ..., C).
      groups: 0, or into how many the graph has just split it.
      affine: scale and shift, (N or 1, 1, ..., C) each, that are still to be put on what is held; or None.
    """

    held: Array
    groups: int = 0
    affine: tuple[Array, Array] | None = None

    @cached_property
    def kept(self) -> Array:
        """The numbers, (N, ..., C)."""
        return self.held if self.affine is None else self.held * self.affine[0] + self.affine[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the graph's tensor."""
        count, *sides, channels = self.held.shape
        return (
            (count, self.groups, self.held.size // (count * self.groups)) if self.groups else (count, channels, *sides)
        )

    @property
    def ndim(self) -> int:
        """Axes of the graph's tensor."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return self.held.size

    @property
    def dtype(self) -> Any:
        """Of the numbers."""
        return self.held.dtype


@dataclass(frozen=True)
class Kernel:
    """A convolution's (out, in / groups, ...) of the graph, kept as (..., in / groups, out), as Flax does.

    Attributes:
      kept: (..., in / groups, out).
    """

    kept: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the graph's tensor."""
        return (self.kept.shape[-1], self.kept.shape[-2], *self.kept.shape[:-2])


def turned(kernel: Tensor) -> Tensor:
    """(..., in / groups, out) of (out, in / groups, ...)."""
    if isinstance(kernel, Kernel):
        return kernel.kept
    return (np if isinstance(kernel, np.ndarray) else jnp).moveaxis(kernel, (0, 1), (-1, -2))


def graphed(value: Tensor) -> Tensor:
    """The tensor as the graph has it."""
    return jnp.moveaxis(value.kept, -1, 1).reshape(value.shape) if isinstance(value, Last) else value


def last(value: Tensor, axes: int = 0) -> Tensor:
    """(N, ..., C) of (N, C, ...), of `axes` axes where it has fewer."""
    if isinstance(value, Last):
        return value.kept if not value.groups else last(graphed(value), axes)
    value = value.reshape((1,) * (axes - value.ndim) + value.shape)
    return np.moveaxis(value, 1, -1) if isinstance(value, np.ndarray) else jnp.moveaxis(value, 1, -1)


def moved(axis: int, axes: int) -> int:
    """Where an axis of (N, C, ...) is in (N, ..., C)."""
    return {0: 0, 1: axes - 1}.get(axis_of(axis, axes), axis_of(axis, axes) - 1)


def _plain(*values: Tensor) -> bool:
    """Whether one of them is split into groups."""
    return any(isinstance(value, Last) and value.groups for value in values)


def numberwise(operation: Operation) -> Operation:
    """The same number by number, between tensors that broadcast."""

    def laid(call: Call, *values: Tensor) -> Any:
        axes = max(value.ndim for value in values if value is not None)
        if _plain(*values) or any(isinstance(value, Last) and value.ndim < axes for value in values):
            return operation(call, *map(graphed, values))
        return Last(operation(call, *(None if value is None else last(value, axes) for value in values)))

    return laid


def _of_channels(x: Tensor, value: Tensor) -> bool:
    """Whether `value` is a number for each channel of x, (N, C, ...), whose scale and shift are still to be put on."""
    if not isinstance(x, Last) or x.affine is None or x.groups or value.ndim > x.ndim:
        return False
    sides = (1,) * (x.ndim - value.ndim) + tuple(value.shape)
    return sides[0] in (1, x.shape[0]) and sides[1] in (1, x.shape[1]) and all(side == 1 for side in sides[2:])


def onto(operation: Operation, put: Callable[[Array, Array, Array], tuple[Array, Array]]) -> Operation:
    """The same of two tensors; one of channels alone goes into the scale and shift of the other: `put(a, b, value)`."""

    def laid(call: Call, *values: Tensor) -> Any:
        for x, value in (values, values[::-1]):
            if _of_channels(x, value):
                scale, value = meet(x.affine[0], last(value, x.ndim))
                return replace(x, affine=put(scale, x.affine[1], value))
        return operation(call, *values)

    return laid


def along(operation: Operation) -> Operation:
    """The same along the setting `axis`."""

    def laid(call: Call, x: Tensor, *rest: Tensor) -> Any:
        if _plain(x, *rest):
            return operation(call, *map(graphed, (x, *rest)))
        axis = moved(call.get("axis", 0), x.ndim)
        there = call._replace(node=call.node._replace(attributes={**call.node.attributes, "axis": axis}))
        inside = lambda each: last(each) if each is not None and each.ndim == x.ndim else each
        found = operation(there, *map(inside, (x, *rest)))
        return tuple(map(Last, found)) if isinstance(found, tuple) else Last(found)

    return laid


def _sides(x: Last, shape: np.ndarray, kept: bool) -> tuple[int, ...]:
    """The shape that a Reshape asks for, in full."""
    sides = [x.shape[i] if kept and side == 0 else int(side) for i, side in enumerate(shape)]
    free = x.size // max(1, math.prod(side for side in sides if side != -1))
    return tuple(free if side == -1 else side for side in sides)


def reshape(operation: Operation) -> Operation:
    """The same; over space alone, or into groups and back, the channels stay last."""

    def laid(call: Call, x: Last, shape: Tensor) -> Any:
        sides = _sides(x, call.known(shape, "shape"), not call.get("allowzero", 0))
        count, *_, channels = x.held.shape
        if len(sides) > 2 and sides[:2] == (count, channels) and math.prod(sides) == x.size:
            flat = lambda value: value.reshape(value.shape[0], *(1,) * (len(sides) - 2), channels)
            affine = x.affine and (flat(x.affine[0]), flat(x.affine[1]))
            return Last(x.held.reshape(count, *sides[2:], channels), affine=affine)
        if not x.groups and len(sides) == 3 and sides[0] == count and channels % max(1, sides[1]) == 0:
            return Last(x.kept, sides[1])
        return operation(call, graphed(x), shape)

    return laid


def transpose(operation: Operation) -> Operation:
    """The same; between channels first and last it is nothing at all."""

    def laid(call: Call, x: Tensor) -> Any:
        perm = tuple(call.get("perm", tuple(reversed(range(x.ndim)))))
        if isinstance(x, Last) and not x.groups and perm == (0, *range(2, x.ndim), 1):
            return x.kept
        if not isinstance(x, (Last, np.ndarray)) and x.ndim > 2 and perm == (0, x.ndim - 1, *range(1, x.ndim - 1)):
            return Last(x)
        return operation(call, graphed(x))

    return laid
