"""How things print: shapes, dtypes and counts of numbers, in a few lines, never values of arrays.

`repr` of a prior is for a person at a prompt; its millions of weights are not. Tracers print as their shapes, too, so
that what is inside `jit` can be looked at, and nothing waits for a device.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from diffinv.callables import Bound, by_value

T = TypeVar("T")
WIDTH, LINES = 88, 8
PLAIN = (bool, int, float, complex, type(None), np.generic, np.dtype, slice, range)


class Described:
    """What every struct inherits: it prints by `describe`, unless its class has a `__repr__` of its own, and keeps the
    callables in its static fields by value, so that two of equal contents are one program to `jit`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__repr__ = cls.__repr__  # type: ignore[method-assign]  # in the class itself, where a dataclass respects it

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            if not field.metadata.get("pytree_node", True):
                object.__setattr__(self, field.name, by_value(getattr(self, field.name)))

    def __repr__(self) -> str:
        return describe(self)


def described(cls: type[T]) -> type[T]:
    """The same for a named tuple, which takes no base class: a decorator."""
    cls.__repr__ = describe  # type: ignore[method-assign, assignment]
    return cls


def describe(thing: Any) -> str:
    """`Name(field=summary, ...)` of a dataclass or a named tuple: one line where it fits, else a field a line.

    Fields that have their default are left out. At most 10 lines of 88 characters, whatever `thing` holds.
    """
    name, parts = type(thing).__name__, [f"{field}={brief(value)}" for field, value in _fields(thing)]
    line = f"{name}({', '.join(parts)})"
    if len(line) <= WIDTH:
        return line
    shown = parts if len(parts) <= LINES else [*parts[: LINES - 1], f"and {len(parts) - LINES + 1} more"]
    return "\n".join([f"{name}(", *(f"  {_cut(part, WIDTH - 3)}," for part in shown), ")"])


def brief(value: Any, depth: int = 2) -> str:
    """At most 72 characters on any value; what it holds is named to `depth` where there is room."""
    for deep in range(depth, -1, -1):
        text = _text(value, deep)
        if len(text) <= WIDTH - 16:
            return text
    return _cut(text, WIDTH - 16)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _text(value: Any, depth: int) -> str:
    if isinstance(value, str):
        return repr(_cut(value, 48))
    if isinstance(value, PLAIN):
        return _cut(repr(value), 48)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    if isinstance(value, functools.partial):
        return f"{type(value).__name__}({', '.join(_text(part, depth) for part in (value.func, *value.args))})"
    if isinstance(value, Bound):
        return repr(value)
    if dataclasses.is_dataclass(value) and isinstance(value, Described) or hasattr(value, "_fields"):
        return _named(value, depth)
    if isinstance(value, Mapping | Sequence | set | frozenset):
        return _many(value, depth)
    return getattr(value, "__qualname__", f"<{type(value).__name__}>")


def _fields(thing: Any) -> Iterator[tuple[str, Any]]:
    """Names and values that are set, and are not a default."""
    defaults = getattr(thing, "_field_defaults", {})
    names = getattr(thing, "_fields", ())
    if dataclasses.is_dataclass(thing):
        names = [field.name for field in dataclasses.fields(thing)]
        defaults = {field.name: _default(field) for field in dataclasses.fields(thing)}
    for name in names:
        value = getattr(thing, name, dataclasses.MISSING)
        if value is not dataclasses.MISSING and not _same(value, defaults.get(name, dataclasses.MISSING)):
            yield name, value


def _default(field: Any) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _same(value: Any, default: Any) -> bool:
    if value is default:
        return True
    simple = (*PLAIN, str, tuple, dict)
    return type(value) is type(default) and isinstance(value, simple) and not _arrays(value) and value == default


def _named(value: Any, depth: int) -> str:
    name = type(value).__name__
    if not depth:
        arrays = _arrays([each for _, each in _fields(value)])
        return f"{name}({_numbers(arrays) if arrays else '...' if any(_fields(value)) else ''})"
    return f"{name}({', '.join(f'{field}={_text(each, depth - 1)}' for field, each in _fields(value))})"


def _many(value: Any, depth: int) -> str:
    """A container: in full where it is short and plain, else how many numbers, or how many things, it holds."""
    plain = isinstance(value, tuple | list) and len(value) <= 6
    if plain and all(isinstance(each, (*PLAIN, str)) for each in value):
        return repr(value)
    arrays = _arrays(value)
    if arrays and (len(arrays) > 3 or not depth):
        return _numbers(arrays)
    if not depth or len(value) > 4:
        return f"{len(value)} x {type(next(iter(value))).__name__}" if value else repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(name, 0)}: {_text(each, depth - 1)}" for name, each in value.items()) + "}"
    return "(" + ", ".join(_text(each, depth - 1) for each in value) + "," * (len(value) == 1) + ")"


def _arrays(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")]


def _numbers(arrays: Sequence[Any]) -> str:
    """As `3,838,380 numbers in 178 arrays, float32`."""
    count = sum(math.prod(leaf.shape) for leaf in arrays)
    dtypes = sorted({str(leaf.dtype) for leaf in arrays})
    what = f"{count:,} numbers" if count != 1 else "1 number"
    return f"{what} in {len(arrays)} arrays, {', '.join(dtypes[:3])}" if len(arrays) > 1 else f"{what}, {dtypes[0]}"
