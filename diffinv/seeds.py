"""Seeds: any whole number, 0 or above, as a key of its own."""

from __future__ import annotations

import hashlib
import operator

import jax
import numpy as np

from diffinv.typing import Key

WIDEST = 64  # bits that JAX's own seeding reads


def whole_seed(seed: int) -> int:
    """`seed` as a Python integer of at most 64 bits: itself below 2**64, and its 64-bit BLAKE2b digest above.

    Raises ValueError for a negative number, TypeError for what is not a whole number.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        raise TypeError(f"seed is {seed!r}; give a whole number, 0 or above") from None
    if number < 0:
        raise ValueError(f"seed is {number}; give a whole number, 0 or above")
    if number.bit_length() <= WIDEST:
        return number
    content = number.to_bytes(-(-number.bit_length() // 8), "big")
    return int.from_bytes(hashlib.blake2b(content, digest_size=WIDEST // 8).digest(), "big")


def seed_key(seed: int) -> Key:
    """The typed key of `seed`, a whole number of any size: `jax.random.key(seed)` as JAX gives it with 64-bit integers.

    `jax.random.key` alone reads the low 32 bits unless 64-bit integers are switched on, so that 2**32 would be seed 0.
    Static: a Python or NumPy integer, never a traced one. Raises as `whole_seed`.
    """
    number = whole_seed(seed)
    if number < 2**32:
        return jax.random.key(number)
    with jax.enable_x64(True):
        return jax.random.key(np.uint64(number))
