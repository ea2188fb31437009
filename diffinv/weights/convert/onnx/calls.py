r"""What an operation of an ONNX graph is given: its settings, and tensors that are known or traced.

A known tensor is a NumPy array: a constant, or what followed from constants and shapes alone. It stays one, so that
shapes are known under `jit`. Everything else is JAX's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import schema
from diffinv.describe import described
from diffinv.weights.convert.onnx.reading import Node

Operation = Callable[..., Any]  # (call, *tensors) -> tensor, or several
Tensor = Any  # a NumPy array where it is known, else JAX's; None for an input that is left out


@described
class Call(NamedTuple):
    """One operation, about to be computed.

    Attributes:
      node: of the graph.
      opset: the version of ONNX's operations.
      kinds: floating-point types of the file to those that are computed in.
      plain: whether convolutions are `lax`'s own.
    """

    node: Node
    opset: int
    kinds: Mapping[np.dtype, Any]
    plain: bool = False

    def get(self, name: str, default: Any = None) -> Any:
        """A setting. Raises ValueError where it is there and was not read."""
        value = self.node.attributes.get(name, default)
        if value is None and name in self.node.attributes:
            raise ValueError(f"{self} has {name} of a kind that is not read; export it otherwise")
        return value

    def refuse(self, name: str, *allowed: Any) -> None:
        """ValueError where a setting is there, and none of these."""
        value = self.get(name, allowed[0])
        if value not in allowed:
            raise ValueError(f"{self} has {name} = {schema.shown(value)}, which is not known here; export it otherwise")

    def known(self, value: Tensor, what: str) -> np.ndarray:
        """A tensor that decides on shapes. Raises ValueError where it depends on what the network is given."""
        if not isinstance(value, np.ndarray):
            raise ValueError(f"{self} takes its {what} from the data; export it with fixed sizes")
        return value

    def setting(self, values: tuple[Tensor, ...], at: int, name: str, since: int, default: Any = None) -> Any:
        """Whole numbers that are an attribute before opset `since`, and input `at` from then on; as a tuple."""
        found = values[at] if at < len(values) and values[at] is not None else None
        if self.opset < since and found is None:
            return self.get(name, default)
        return default if found is None else tuple(int(each) for each in self.known(found, name).ravel())

    def real(self, dtype: np.dtype) -> Any:
        """The type that is computed in where the file says `dtype`."""
        return self.kinds.get(dtype, dtype)

    def __str__(self) -> str:
        name = f" {schema.shown(self.node.name)}" if self.node.name else ""
        return f"operation {self.node.op}{name}"


def module(*values: Tensor) -> Any:
    """NumPy where all is known, else JAX's."""
    return np if all(isinstance(value, np.ndarray) for value in values) else jnp


def _cast(value: Tensor, dtype: Any) -> Tensor:
    """A known tensor in the type of one that is traced, where both are whole numbers or both are not."""
    same = jnp.issubdtype(value.dtype, jnp.floating) == jnp.issubdtype(dtype, jnp.floating)
    return value.astype(dtype) if isinstance(value, np.ndarray) and same and value.dtype != bool else value


def aligned(*values: Tensor) -> tuple[Tensor, ...]:
    """Tensors of one number of axes, as ONNX broadcasts them."""
    axes = max(value.ndim for value in values)
    return tuple(value.reshape((1,) * (axes - value.ndim) + value.shape) for value in values)


def meet(*values: Tensor) -> tuple[Tensor, ...]:
    """The same, and known ones in the type of a traced one."""
    traced = next((value.dtype for value in values if not isinstance(value, np.ndarray)), None)
    raised = aligned(*values)
    return raised if traced is None else tuple(_cast(value, traced) for value in raised)


def jax_kind(dtype: np.dtype) -> Any:
    """The type of whole numbers that JAX has for ONNX's."""
    return jax.dtypes.canonicalize_dtype(dtype)


def axis_of(axis: int, axes: int) -> int:
    """An axis that may be counted from the end."""
    return axis + axes if axis < 0 else axis
