"""Pictures for the experiments: real photographs that install with scikit-image, or the user's own files."""

from __future__ import annotations

import glob
import os
from typing import NamedTuple

import numpy as np

PHOTOGRAPHS = (
    ("astronaut", "astronaut.png", (0, 130, 230)),
    ("cat", "chelsea.png", (0, 90, 300)),
    ("coffee", "coffee.png", (0, 110, 390)),
    ("rocket", "rocket.jpg", (0, 170, 420)),
    ("motorcycle", "motorcycle_left.png", (0, 120, 500)),
    ("galaxies", "hubble_deep_field.jpg", (100, 100, 400)),
    ("cameraman", "camera.png", (40, 130, 320)),
    ("grass", "grass.png", (0, 0, 512)),
)
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".npy")


class Pictures(NamedTuple):
    """`names`, `pixels` (N, size, size, 3) float32 in [-1, 1], and a `note` on what was resized or converted."""

    names: list[str]
    pixels: np.ndarray
    note: str


def square(image: np.ndarray, size: int, box: tuple[int, int, int] | None = None) -> np.ndarray:
    """The central (or given: top, left, side) square of uint8 (h, w, 3), shrunk or enlarged to `size`, uint8."""
    from PIL import Image

    height, width = image.shape[:2]
    side = min(height, width)
    top, left, side = box or ((height - side) // 2, (width - side) // 2, side)
    crop = Image.fromarray(image[top : top + side, left : left + side])
    method = Image.Resampling.BOX if side % size == 0 else Image.Resampling.LANCZOS
    return np.asarray(crop.resize((size, size), method))


def photographs(size: int, count: int) -> Pictures:
    """Up to eight of scikit-image's bundled photographs (public domain or CC0; astronaut: NASA)."""
    import skimage.data

    folder = os.path.dirname(skimage.data.__file__)
    chosen = PHOTOGRAPHS[:count]
    pixels = [square(read(os.path.join(folder, file))[0], size, box) for _, file, box in chosen]
    return Pictures([name for name, _, _ in chosen], to_range(np.stack(pixels)), "")


def read(path: str) -> tuple[np.ndarray, str]:
    """One file as uint8 (h, w, 3), and a word on what was converted. Raises ValueError for anything unreadable."""
    if path.lower().endswith(".npy"):
        return _array(path)
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "1"):
                raise ValueError(f"{path} has mode {image.mode}; give 8-bit grey, RGB or RGBA")
            return np.asarray(image.convert("RGB")), "" if image.mode == "RGB" else f"{image.mode} to RGB"
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} is not a readable image ({error}); remove it or give another --images") from None


def _array(path: str) -> tuple[np.ndarray, str]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npy array ({error})") from None
    if array.ndim != 3 or array.shape[-1] != 3:
        raise ValueError(f"{path} has shape {array.shape}; give (height, width, 3)")
    if array.dtype == np.uint8:
        return array, ""
    if not np.isfinite(array).all():
        raise ValueError(f"{path} holds NaN or infinity; clean it first")
    low, high = float(array.min()), float(array.max())
    if low < 0 and low >= -1 and high <= 1:
        return np.round((array + 1) * 127.5).astype(np.uint8), ""
    if low >= 0 and 1 < high <= 255:
        return np.round(array).astype(np.uint8), ""
    raise ValueError(f"{path} runs from {low:g} to {high:g}; give values in [-1, 1] or [0, 255]")


def to_range(pixels: np.ndarray) -> np.ndarray:
    """uint8 to float32 in [-1, 1]."""
    return pixels.astype(np.float32) / 127.5 - 1


def files(pattern: str) -> list[str]:
    """The image files of a folder, a file or a glob, sorted. Raises FileNotFoundError where there are none."""
    if os.path.isdir(pattern):
        pattern = os.path.join(pattern, "*")
        found = [path for path in glob.glob(pattern) if path.lower().endswith(EXTENSIONS)]
    else:
        found = [path for path in glob.glob(pattern) if os.path.isfile(path)]
    if not found:
        raise FileNotFoundError(f"no image matches {pattern!r}; give a file, a folder or a quoted glob to --images")
    return sorted(found)


def own(pattern: str, size: int, count: int) -> Pictures:
    """The user's pictures: the central square of each, resized to `size`. Raises ValueError for a bad file."""
    paths = files(pattern)[:count] if count else files(pattern)
    loaded = [read(path) for path in paths]
    resized = sum(image.shape[:2] != (size, size) for image, _ in loaded)
    converted = sorted({word for _, word in loaded if word})
    note = f"{resized} of {len(paths)} pictures were cropped and resized to {size} x {size}" if resized else ""
    note = "; ".join(part for part in (note, f"converted {', '.join(converted)}" if converted else "") if part)
    return Pictures(names(paths), to_range(np.stack([square(image, size) for image, _ in loaded])), note)


def names(paths: list[str]) -> list[str]:
    """File names without extension, numbered where two are equal."""
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    seen: dict[str, int] = {}
    for i, stem in enumerate(stems):
        seen[stem] = seen.get(stem, 0) + 1
        stems[i] = stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"
    return stems
