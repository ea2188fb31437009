"""Static callables that compare by what they hold, so that `jit` knows a program it has compiled before.

A callable in a static field is part of a program's key. Python compares bound methods by the identity of their object
and partial functions by their own: two networks of equal settings would be two programs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any


@dataclass(frozen=True)
class Bound:
    """`function(*before, ..., **named)`: equal to another where all three are equal.

    Attributes:
      function: what is called.
      before: its first arguments.
      named: its arguments by name, as pairs (name, value).
    """

    function: Callable[..., Any]
    before: tuple[Any, ...] = ()
    named: tuple[tuple[str, Any], ...] = ()

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        return self.function(*self.before, *arguments, **{**dict(self.named), **more})

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        last = name.rpartition(".")[2]
        method = bool(self.before) and getattr(type(self.before[0]), last, None) is self.function
        return f"{type(self.before[0]).__name__}.{last}" if method else name


def by_value(call: Any) -> Any:
    """`call` as a callable that compares by value: a bound method by its function and object, a partial function by its
    function and arguments. Any other callable, and what holds something that cannot be hashed, stays as it is.

    A method of a Flax Linen module thus equals the same method of an equal module.
    """
    if isinstance(call, MethodType):
        found = Bound(call.__func__, (call.__self__,))
    elif type(call) is partial:
        named = tuple(sorted((name, by_value(value)) for name, value in call.keywords.items()))
        found = Bound(by_value(call.func), tuple(map(by_value, call.args)), named)
    else:
        return call
    try:
        hash(found)
    except TypeError:
        return call
    return found
