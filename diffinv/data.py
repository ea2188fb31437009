"""Images from files: read, resize, shuffle by (seed, step); uint8 (N, H, W, 3) until `to_unit` makes them [-1, 1].

A batch is a function of `(seed, step)`, so a resumed run continues exactly, with no iterator state to save.
"""

from __future__ import annotations

import functools
import glob
import io
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


class Images(NamedTuple):
    """What was read.

    Attributes:
      pixels: uint8 (N, H, W, 3).
      names: N names, in the source's own order.
      skipped: names of corrupt images that were left out, with the reason.
    """

    pixels: np.ndarray
    names: list[str]
    skipped: list[str]


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading images needs Pillow; pip install pillow") from error
    return Image


def shrink(image: Any, size: int | None) -> np.ndarray:
    """An RGB uint8 array of a Pillow image, centre-cropped to a square and brought to `size` pixels.

    Shrinks with the exact area mean (`Resampling.BOX`), enlarges with bicubic interpolation; None keeps the image.
    """
    pillow, image = _pillow(), image.convert("RGB")
    if size is None:
        return np.asarray(image, np.uint8)
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    method = pillow.Resampling.BOX if side >= size else pillow.Resampling.BICUBIC
    return np.asarray(image.resize((size, size), method), np.uint8)


def decode(encoded: bytes | str, size: int | None = None) -> np.ndarray:
    """One image file (its bytes, or its path) as RGB uint8 (H, W, 3). Raises OSError where it is corrupt."""
    source = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
    with _pillow().open(source) as image:
        return shrink(image, size)


def _archive(path: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def _packed(archive: dict[str, np.ndarray], split: int | None) -> Iterator[tuple[str, bytes]]:
    """(name, JPEG bytes) of a pack: `header[k] + payload[i]`, `k = header_id[i]`."""
    header, payload = archive["header"], archive["payload"]
    heads, offset = archive["header_offset"], archive["offset"]
    for i, k in enumerate(archive["header_id"]):
        if split is None or archive["split"][i] == split:
            head = header[heads[k] : heads[k + 1]].tobytes()
            yield f"{i}", head + payload[offset[i] : offset[i + 1]].tobytes()


def _listed(path: str) -> list[str]:
    if os.path.isdir(path):
        path = os.path.join(path, "**")
    files = sorted(glob.glob(path, recursive=True))
    return [file for file in files if file.lower().endswith(SUFFIXES)]


def _sources(path: str, split: int | None) -> Iterator[tuple[str, bytes | str | np.ndarray]]:
    if not path.endswith(".npz"):
        yield from ((file, file) for file in _listed(path))
        return
    archive = _archive(path)
    if "payload" in archive:
        yield from _packed(archive, split)
    elif "images" in archive:
        yield from ((f"{i}", image) for i, image in enumerate(archive["images"]))
    else:
        raise ValueError(f"{path} holds {sorted(archive)}; a .npz needs `images`, or the arrays of a JPEG pack")


def _pixels(source: bytes | str | np.ndarray, size: int | None) -> np.ndarray:
    if not isinstance(source, np.ndarray):
        return decode(source, size)
    source = source[..., 0] if source.shape[-1] == 1 else source
    return shrink(_pillow().fromarray(source), size)


def read(path: str, size: int | None = None, split: int | None = None, limit: int | None = None) -> Images:
    """Images from a JPEG pack (`*.jpegpack.npz`), a `.npz` with `images`, a folder or a glob.

    Original. Corrupt images are skipped and named in `Images.skipped`.

    Args:
      path: where they are; a folder is searched with its subfolders, in sorted order.
      size: side in pixels; None keeps each image's own (they must then agree).
      split: of a pack: 0 train, 1 validation, None all.
      limit: at most so many.

    Raises FileNotFoundError where nothing is there, ValueError where nothing is readable or the sizes differ.
    """
    if not glob.glob(path):
        raise FileNotFoundError(f"data path {path!r} matches no file; give a folder, a glob of images or a .npz")
    pixels, names, skipped = [], [], []
    for name, source in _sources(path, split):
        if limit is not None and len(names) >= limit:
            break
        try:
            pixels.append(_pixels(source, size))
            names.append(name)
        except (OSError, SyntaxError) as error:
            skipped.append(f"{name}: {error}")
    if not pixels:
        raise ValueError(f"data path {path!r} gave no image ({len(skipped)} corrupt); check the path and the split")
    if len({image.shape for image in pixels}) > 1:
        raise ValueError(f"images under {path!r} differ in size; pass size= to bring them to one")
    return Images(np.stack(pixels), names, skipped)


def to_unit(pixels: Any) -> Any:
    """uint8 in [0, 255] to float32 in [-1, 1]; numpy or JAX."""
    return pixels.astype(np.float32) / 127.5 - 1


def to_pixels(images: Any) -> np.ndarray:
    """Floats in [-1, 1] (others are clipped) to uint8 in [0, 255], rounded."""
    return np.rint((np.clip(np.asarray(images, np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)


@functools.lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def indices(count: int, seed: int, step: int, size: int) -> np.ndarray:
    """Which of `count` items make batch `step`: (size,) int64; every epoch is a new permutation, batches run across.

    Original. A pure function of its arguments, so resumption needs no state.
    """
    position = step * size + np.arange(size)
    epochs, rank = position // count, position % count
    return np.array([_order(count, seed, int(e))[r] for e, r in zip(epochs, rank)])


def batch(pixels: np.ndarray, seed: int, step: int, size: int, flip: bool = True) -> np.ndarray:
    """Batch `step` of shuffled images, (size, H, W, 3), each mirrored left to right with probability 1/2 if `flip`."""
    chosen = pixels[indices(len(pixels), seed, step, size)]
    if not flip:
        return chosen
    mirrored = np.random.default_rng((seed, step, 1)).random(size) < 0.5
    return np.where(mirrored[:, None, None, None], chosen[:, :, ::-1], chosen)
