"""From a picture as it was read to pixels of the wanted channels, size and range."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffinv.data.arrays import Refused
from diffinv.data.reader import Picture, pillow

Size = int | tuple[int, int] | None
LUMA = np.asarray([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow's


def plain(picture: Picture) -> Picture:
    """The picture as it is. Raises `Refused` where it would be almost black, which is hardly what is meant."""
    if picture.dim:
        raise Refused(picture.dim)
    return picture


def opaque(picture: Picture, channels: int = 3, ground: int = 1) -> np.ndarray:
    """Laid on white where it is transparent, with 1 channel (grey) or 3 (RGB): (H, W, channels), uint8 or float32.

    In 8 bits the mean of colour and white is rounded to the nearest; `ground` 0 is black instead, for masks.
    """
    values = picture.values
    if picture.alpha is not None and picture.deep:
        values = values * picture.alpha[..., None] + ground * (1 - picture.alpha[..., None])
    elif picture.alpha is not None:
        alpha = picture.alpha[..., None].astype(np.uint16)
        values = ((values * alpha + 255 * ground * (255 - alpha) + 127) // 255).astype(np.uint8)
    if values.shape[-1] == channels:
        return values
    if channels == 3:
        return np.repeat(values, 3, -1)
    if picture.deep:
        return (values @ LUMA)[..., None]
    return np.asarray(pillow().fromarray(np.ascontiguousarray(values)).convert("L"))[..., None]


def fit(pixels: np.ndarray, size: Size = None) -> np.ndarray:
    """Pixels (H, W, C), uint8 or float32, cropped in the middle to the proportions of `size` and brought to it.

    Shrinks with the exact area mean (`Resampling.BOX`), enlarges with bicubic interpolation; `size` is a side
    in pixels, (height, width), or None, which keeps the picture as it is.
    """
    if size is None:
        return pixels
    rows, columns = (size, size) if isinstance(size, int) else size
    height, width = pixels.shape[:2]
    if (height, width) == (rows, columns):
        return pixels
    scale = min(height / rows, width / columns)
    inner = max(round(rows * scale), 1), max(round(columns * scale), 1)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    pixels = pixels[top : top + inner[0], left : left + inner[1]]
    method = pillow().Resampling.BOX if scale >= 1 else pillow().Resampling.BICUBIC
    resize = lambda x: np.asarray(pillow().fromarray(np.ascontiguousarray(x)).resize((columns, rows), method))
    if pixels.dtype == np.uint8 and pixels.shape[-1] == 3:
        return resize(pixels)
    planes = [resize(pixels[..., i]) for i in range(pixels.shape[-1])]
    found = np.stack(planes, -1)
    return found if found.dtype == np.uint8 else np.clip(found, 0, 1)


def eight(pixels: np.ndarray) -> np.ndarray:
    """uint8, or float32 in [0, 1], as uint8 in [0, 255], rounded."""
    return pixels if pixels.dtype == np.uint8 else np.rint(255 * pixels.astype(np.float64)).astype(np.uint8)


def unit(pixels: np.ndarray) -> np.ndarray:
    """uint8, or float32 in [0, 1], as float32 in [-1, 1], not rounded."""
    return to_unit(pixels) if pixels.dtype == np.uint8 else 2 * pixels - 1


def to_unit(pixels: Any) -> Any:
    """uint8 in [0, 255] to float32 in [-1, 1]; numpy or JAX."""
    return pixels.astype(np.float32) / 127.5 - 1


def to_pixels(images: Any) -> np.ndarray:
    """Floats in [-1, 1] (others are clipped) to uint8 in [0, 255], rounded."""
    return np.rint((np.clip(np.asarray(images, np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)
