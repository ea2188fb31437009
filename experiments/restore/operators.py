"""What `experiments.reconstruct` undoes: operators by name, and the fields of the configuration that they read.

One's own is one entry of `OPERATORS`, a function from configuration, key and one picture's shape to an `Operator`; its
settings are fields of `FIELDS`, with defaults in configs/reconstruct.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffinv import operators
from diffinv.operators.base import Operator
from diffinv.schema import Schema, number, whole
from diffinv.typing import Array, Key


class Damage(NamedTuple):
    """What is undone: its operator for one picture's shape, and whether it needs three channels."""

    operator: Callable[[ConfigDict, Key, tuple[int, ...]], Operator]
    colour: bool = False

    def __call__(self, config: ConfigDict, key: Key, shape: tuple[int, ...]) -> Operator:
        return self.operator(config, key, shape)


def _box(config: ConfigDict, key: Key, shape: tuple[int, ...]) -> Operator:
    top, left, size = config.box.top, config.box.left, config.box.size
    if top == left == 0 and size >= max(shape[:2]):
        raise ValueError(f"config.box.size is {size}, which hides the whole picture; give less than {max(shape[:2])}")
    return operators.box_inpainting(shape, top, left, size)


def _gaussian_blur(config: ConfigDict, key: Key, shape: tuple[int, ...]) -> Operator:
    if config.blur.size > min(shape[:2]):
        raise ValueError(f"config.blur.size is {config.blur.size}; give a size that the picture has room for")
    return operators.gaussian_blur(shape, config.blur.size, config.blur.std, threshold=config.blur.threshold)


def _motion_blur(config: ConfigDict, key: Key, shape: tuple[int, ...]) -> Operator:
    return operators.motion_blur(key, shape, config.blur.size, threshold=config.blur.threshold)


OPERATORS: dict[str, Damage] = {
    "box_inpainting": Damage(_box),
    "random_inpainting": Damage(
        lambda config, key, shape: operators.random_inpainting(key, shape, config.random.masked)
    ),
    "freeform_inpainting": Damage(lambda config, key, shape: operators.freeform_inpainting(key, shape)),
    "super_resolution": Damage(lambda config, key, shape: operators.average_pool(shape, config.factor)),
    "bicubic": Damage(lambda config, key, shape: operators.bicubic(shape, config.factor)),
    "colourisation": Damage(lambda config, key, shape: operators.grayscale(shape), colour=True),
    "gaussian_blur": Damage(_gaussian_blur),
    "motion_blur": Damage(_motion_blur),
}

FIELDS: Schema = {
    "box": {
        "top": whole("first hidden row, of box_inpainting", 0, 65535, unit="pixels"),
        "left": whole("first hidden column", 0, 65535, unit="pixels"),
        "size": whole("side of the hidden square", 1, 65535, unit="pixels"),
    },
    "random": {"masked": number("share of hidden pixels, of random_inpainting", 0, below=1)},
    "factor": whole("of super_resolution and bicubic; it divides the prior's sides", 1, 1024),
    "blur": {
        "size": whole("side of the kernel of both blurs, odd", 1, 65535, unit="pixels"),
        "std": number("deviation of gaussian_blur", above=0, high=1e4, unit="pixels"),
        "threshold": number("transfer, relative to its greatest, under which a frequency counts as lost", 0, below=1),
    },
}


def require_fit(config: ConfigDict, tasks: list[str], shape: tuple[int, ...]) -> None:
    """Raises ValueError for a task that cannot be done on pictures of this shape."""
    for task in tasks:
        if OPERATORS[task].colour and shape[2] != 3:
            raise ValueError(f"config.task is {task}, and the prior's pictures are grey; give a prior of RGB pictures")
        try:
            jax.eval_shape(lambda key, task=task: OPERATORS[task](config, key, shape), jax.random.key(0))
        except ValueError as error:
            raise ValueError(f"config.task is {task}, on pictures of {shape[0]} x {shape[1]}: {error}") from None


def shown(y: Array, shape: tuple[int, ...]) -> Array:
    """A real measurement as a picture of `shape`: low resolution by nearest, grey in three channels."""
    y = jnp.broadcast_to(y, (*y.shape[:2], shape[2])) if y.ndim == 3 else y
    return jax.image.resize(y, shape, "nearest")
