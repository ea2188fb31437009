"""What a constructor of operators may be given: each check names the argument, its value and what to do instead.

Values that are known while the program is built are looked at, whatever their type (Python, NumPy, JAX); traced ones
pass. A whole number, a shape and a name are static, and cannot be traced.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.describe import brief
from diffinv.typing import Array, Key

SIDE = 8191


def concrete(value: Any) -> bool:
    """True where the value is known while the program is built, not only when it runs."""
    return not isinstance(value, jax.core.Tracer)


def require_key(key: Key) -> None:
    """ValueError where it is not one key of `jax.random`: the first argument of all that draws."""
    dtype, rank = getattr(key, "dtype", None), getattr(key, "ndim", None)
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not (typed and rank == 0 or dtype == jnp.uint32 and rank == 1):
        raise ValueError(f"key is {brief(key)}; give one key, jax.random.key(0), first, and vmap over several")


def require_number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, instead: str = "", above: bool = False
) -> None:
    """ValueError where a concrete value is no finite real number, or is not in [`low`, `high`]; `above`: is `low`."""
    if not concrete(value):
        return
    number = _plain(value)
    if number.dtype.kind not in "iuf" or number.ndim or not (math.isfinite(number) and low <= number <= high):
        raise ValueError(f"{name} is {_shown(value)}; it must be a number {_range(low, high, above)}{_tail(instead)}")
    if above and number == low:
        raise ValueError(f"{name} is {_shown(value)}; it must be a number {_range(low, high, above)}{_tail(instead)}")


def static_number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, instead: str = "", above: bool = False
) -> float:
    """A static number in [`low`, `high`] as `float`, of any type it came in; otherwise as `require_number`."""
    if not concrete(value):
        raise ValueError(f"{name} is {_shown_static(value)}")
    require_number(name, value, low, high, instead, above)
    return float(value)


def require_one_of(name: str, value: Any, *known: Any) -> None:
    """ValueError where the value is not one of the known names or numbers."""
    if not isinstance(value, str | int | np.integer) or value not in known:
        raise ValueError(f"{name} is {brief(value)}; it must be one of {', '.join(map(repr, known))}")


def _plain(value: Any) -> np.ndarray:
    """As NumPy has it; of an odd kind where NumPy cannot."""
    try:
        plain = np.asarray(value)
    except (TypeError, ValueError):
        return np.asarray(None)
    return plain.astype(float) if jnp.issubdtype(plain.dtype, jnp.floating) else plain


def _shown(value: Any) -> str:
    plain = _plain(value)
    return str(plain[()]) if plain.ndim == 0 and plain.dtype.kind in "biufc" else brief(value)


def _range(low: float, high: float, above: bool) -> str:
    if math.isinf(low):
        return f"of at most {high}" if math.isfinite(high) else "that is finite"
    if math.isinf(high):
        return f"above {low}" if above else f"of at least {low}"
    return f"in {'(' if above else '['}{low}, {high}]"


def _tail(instead: str) -> str:
    return f": {instead}" if instead else ""


def whole_number(name: str, value: Any, least: int = 1, most: int = SIDE) -> int:
    """A static whole number from `least` to `most` as `int`; ValueError for anything else."""
    try:
        number = operator.index(value) if not isinstance(value, float | np.floating) else int(value)
    except (TypeError, ValueError, OverflowError, jax.errors.JAXTypeError):
        number = None
    if number is None or isinstance(value, bool) or number != value or not least <= number <= most:
        raise ValueError(f"{name} is {_shown_static(value)}; it must be a whole number from {least} to {most}")
    return number


def _shown_static(value: Any) -> str:
    return _shown(value) if concrete(value) else "traced; it is static: give a Python number"


def odd(name: str, value: Any, least: int = 1) -> int:
    """A `whole_number` that is odd: a kernel's size, which has a centre then."""
    number = whole_number(name, value, least)
    if number % 2 == 0:
        raise ValueError(f"{name} is {number}; a kernel's size must be odd, so that it has a centre: use {number + 1}")
    return number


def sample_shape(shape: Any) -> tuple[int, ...]:
    """The static shape of one sample, any rank; ValueError where it is not positive whole numbers."""
    found = _sides(shape)
    if found is None or min(found, default=1) < 1:
        raise ValueError(f"shape is {_described(shape)}; give the shape of one sample, a tuple of positive numbers")
    return found


def picture_shape(shape: Any) -> tuple[int, int, int]:
    """`shape` as (H, W, C); ValueError where it is not three positive whole numbers."""
    found = _sides(shape)
    if found is None or len(found) != 3 or min(found) < 1:
        raise ValueError(
            f"shape is {_described(shape)}; one picture is (H, W, C), all positive: leave out the batch axis"
        )
    height, width, channels = found
    return height, width, channels


def _sides(shape: Any) -> tuple[int, ...] | None:
    """Whole numbers of a short sequence, else None."""
    if isinstance(shape, str | bytes | dict) or getattr(shape, "ndim", 1) != 1:
        return None
    try:
        sides = tuple(shape)
        found = tuple(int(n) for n in sides if not np.iscomplexobj(n))
    except (TypeError, ValueError, OverflowError, jax.errors.JAXTypeError):
        return None
    return found if len(found) == len(sides) <= 8 and all(a == b for a, b in zip(found, sides, strict=True)) else None


def _described(shape: Any) -> str:
    """Not what an array holds: it is there by mistake, in another argument's place."""
    if hasattr(shape, "dtype"):
        return f"an array, {brief(shape)} (are two arguments swapped?)"
    return brief(shape)


def size_of(name: str, size: Any, most: int = SIDE) -> tuple[int, int]:
    """(h, w), both whole and positive."""
    found = _sides(size)
    if found is None or len(found) != 2 or not 1 <= min(found) <= max(found) <= most:
        raise ValueError(f"{name} is {_described(size)}; it must be (h, w), both from 1 to {most} pixels")
    return found[0], found[1]


def numbers(name: str, values: Any, rank: int | None = None, instead: str = "") -> Array:
    """`values` as an array of real numbers, of `rank` axes; ValueError where they are others, or one is not finite."""
    found = inexact(name, values, instead)
    if jnp.iscomplexobj(found) or (rank is not None and found.ndim != rank):
        wanted = "real" if rank is None else f"real, with {rank} axes"
        raise ValueError(f"{name} has shape {found.shape}, {found.dtype}; it must be {wanted}{_tail(instead)}")
    return found.astype(float)


def inexact(name: str, values: Any, instead: str = "") -> Array:
    """`values` as an array of real or complex floating point; ValueError where one is not a finite number."""
    plain = _known(values)
    if plain is not None and plain.dtype.kind not in "biufc":
        raise ValueError(f"{name} is {brief(values)}; it must be an array of numbers{_tail(instead)}")
    bad = 0 if plain is None else int(np.sum(~np.isfinite(plain)))
    if bad:
        raise ValueError(f"{name} has {bad} values that are not finite{_tail(instead)}; give finite numbers")
    found = jnp.asarray(values if hasattr(values, "dtype") or plain is None else plain)
    return found if jnp.issubdtype(found.dtype, jnp.inexact) else found.astype(float)


def _known(values: Any) -> np.ndarray | None:
    """What NumPy makes of `values`, or None where it, or a part of it, is traced."""
    parts = jax.tree.leaves(values)
    return _plain(values) if all(map(concrete, parts)) else None


def mask_weights(name: str, mask: Any) -> Array:
    """A mask as real numbers, 1 where something is kept; other gains than 0 and 1 may be floating point, up to 10.

    Raises ValueError where one is not finite, or they are a picture's bytes or percentages.
    """
    found, plain = numbers(name, mask, instead="0 hides, 1 keeps"), _known(mask)
    if plain is not None and plain.size:
        largest = float(np.max(np.abs(plain)))
        if largest > (10 if plain.dtype.kind == "f" else 1):
            mended = f"use {name} > 0, or divide by {largest:g}"
            raise ValueError(f"{name} reaches {largest:g}; 1 keeps and 0 hides: {mended}")
    return found


def radians(name: str, angles: Any) -> Array:
    """Angles (n,) as real numbers; ValueError where concrete ones are degrees by their size: over a full turn."""
    found, plain = numbers(name, angles, 1, "(n,), in radians"), _known(angles)
    largest = float(np.max(np.abs(plain), initial=0.0)) if plain is not None else 0.0
    if largest > 2.001 * math.pi:
        raise ValueError(f"{name} reach {largest:g}; they are radians: use np.radians(angles), or angles % (2 * np.pi)")
    return found
