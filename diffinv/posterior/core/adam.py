"""Adam for use inside solvers, in any precision and under strict promotion."""

from __future__ import annotations

from typing import Any

import jax
import optax

from diffinv.typing import Array


def adam(lr: Array | float, b1: float = 0.9, b2: float = 0.999) -> optax.GradientTransformation:
    """Optax's Adam, whose bias correction raises a Python float to an integer: strict promotion refuses that alone.

    `lr` may be traced, and swept. Source: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1.
    """
    inner = optax.adam(lr, b1, b2)

    def update(updates: Any, state: optax.OptState, params: Any = None) -> tuple[Any, optax.OptState]:
        with jax.numpy_dtype_promotion("standard"):
            moved, state = inner.update(updates, state, params)
        return jax.tree.map(lambda new, old: new.astype(old.dtype), moved, updates), state

    return optax.GradientTransformation(inner.init, update)
