"""RandAugment: a few random operations on colour and geometry, all of one strength."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from diffinv.data import to_pixels, to_unit

Operation = Callable[[np.ndarray, float], np.ndarray]
MOST = 10  # the magnitude at which an operation is as strong as it may be
TURN, SHEAR, MOVE, ENHANCE = math.radians(30), 0.3, 150 / 331, 0.9  # radians, ratio, share of a side, ratio


def affine(x: np.ndarray, matrix: Any, move: Any = (0.0, 0.0)) -> np.ndarray:
    """(H, W, C) about its centre, linearly interpolated, its border continued.

    What stands at `centre + v` comes from `centre + matrix v - move`; rows before columns, in pixels.
    """
    centre = (np.array(x.shape[:2]) - 1) / 2
    offset = centre - np.asarray(matrix) @ centre - np.asarray(move)
    turned = [ndimage.affine_transform(part, matrix, offset, order=1, mode="nearest") for part in np.moveaxis(x, -1, 0)]
    return np.stack(turned, -1)


def _turned(x: np.ndarray, s: float) -> np.ndarray:
    c, d = math.cos(TURN * s), math.sin(TURN * s)
    return affine(x, [[c, -d], [d, c]])


def _of_picture(change: Callable[[Any, float], Any]) -> Operation:
    """An operation of Pillow's on 8 bits, for one channel or three."""

    def operation(x: np.ndarray, s: float) -> np.ndarray:
        pixels = to_pixels(x)
        changed = change(Image.fromarray(pixels[..., 0] if x.shape[-1] == 1 else pixels), s)
        return to_unit(np.asarray(changed).reshape(x.shape))

    return operation


def _enhanced(kind: Any) -> Operation:
    return _of_picture(lambda picture, s: kind(picture).enhance(1 + ENHANCE * s))


OPERATIONS: dict[str, Operation] = {
    "identity": lambda x, s: x,
    "autocontrast": _of_picture(lambda picture, s: ImageOps.autocontrast(picture)),
    "equalize": _of_picture(lambda picture, s: ImageOps.equalize(picture)),
    "rotate": _turned,
    "solarize": _of_picture(lambda picture, s: ImageOps.solarize(picture, round(256 * (1 - abs(s))))),
    "color": _enhanced(ImageEnhance.Color),
    "posterize": _of_picture(lambda picture, s: ImageOps.posterize(picture, 8 - round(4 * abs(s)))),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear x": lambda x, s: affine(x, [[1, 0], [SHEAR * s, 1]]),
    "shear y": lambda x, s: affine(x, [[1, SHEAR * s], [0, 1]]),
    "translate x": lambda x, s: affine(x, np.eye(2), (0, MOVE * s * x.shape[1])),
    "translate y": lambda x, s: affine(x, np.eye(2), (MOVE * s * x.shape[0], 0)),
}
"""The source's fourteen: `(x, strength) -> x`, (H, W, C) in [-1, 1]; a strength from -1 to 1."""


def rand_augment(rng: np.random.Generator, x: np.ndarray, number: int = 2, magnitude: float = 9.0) -> np.ndarray:
    """One picture (H, W, 1 or 3) in [-1, 1] after `number` random operations, each of strength ± magnitude / 10.

    The operations' ranges are AutoAugment's; the border is continued, where the source fills it with grey.

    Source: Cubuk et al. 2020, arXiv:1909.13719, section 3 and figure 2; ranges of Cubuk et al. 2019, arXiv:1805.09501,
    table 6.

    Raises ValueError for pictures of other channels, and a magnitude out of 0 to 10.
    """
    if x.ndim != 3 or x.shape[-1] not in (1, 3):
        raise ValueError(f"x is {x.shape}; RandAugment takes grey pictures or colours, (H, W, 1 or 3)")
    if not 0 <= magnitude <= MOST:
        raise ValueError(f"magnitude is {magnitude}; give a number from 0 to {MOST}")
    for name in rng.choice(list(OPERATIONS), number):
        x = OPERATIONS[name](x, rng.choice([-1, 1]) * magnitude / MOST)
    return np.asarray(x, np.float32)
