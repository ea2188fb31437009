"""Patches: pictures of any size, cut into squares of one size, for what is learnt locally (super-resolution, say)."""

from __future__ import annotations

import hashlib

import numpy as np

from diffinv.data import arrays, files
from diffinv.data.builders import Resident, Source, afford
from diffinv.data.reader import PLAIN, Reading

SPLITS = ("train", "validation")


def corners(length: int, size: int, stride: int) -> np.ndarray:
    """Where the patches of one axis begin, int64: `0, stride, 2 stride, ...` and the last place, flush with the end.

    `length` of the axis, at least `size`, all in pixels; neighbours at the end may overlap more.
    """
    last = length - size
    return np.append(np.arange(0, last, stride), last)


def cut_patches(pixels: np.ndarray, size: int, stride: int) -> np.ndarray:
    """All patches (n, size, size, C) of one picture (H, W, C), row by row; it is covered where `stride <= size`.

    A side under `size` is first extended at its end by reflection about the border pixel (as CTMSR's loader
    does), again and again where the side is very short.
    """
    missing = [max(size - side, 0) for side in pixels.shape[:2]]
    if any(missing):
        pixels = np.pad(pixels, [(0, n) for n in missing] + [(0, 0)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), (0, 1))
    rows, columns = (corners(side, size, stride) for side in pixels.shape[:2])
    chosen = windows[np.ix_(rows, columns)]
    return np.moveaxis(chosen, 2, -1).reshape(-1, size, size, pixels.shape[-1])


def patches(
    path: str,
    size: int,
    stride: int | None = None,
    split: str = "train",
    channels: int = 3,
    pad: bool = True,
    limit: int | None = None,
    reading: Reading = PLAIN,
) -> Source:
    """A source of all patches of the pictures of a path, decoded, in memory: N patches take `N size^2 channels` bytes.

    The held-out split is by whole pictures, so that no patch for validation overlaps one for training: as the
    source says, else every 16th picture, the second first. A patch has its picture's label.

    Args:
      path: as for `catalogue`: a folder, a glob, a `.npz`, a folder of IDX files, or one of `files.BUNDLED`.
      size: side of a patch, in pixels.
      stride: from one patch to the next; by default `size`, which overlaps only at the far borders.
      split: "train" or "validation".
      channels: 3 (RGB) or 1 (grey).
      pad: extend a picture under `size` by reflection; otherwise it is left out and named.
      limit: at most so many pictures.
      reading: how files are read.

    Returns:
      Of `len` patches, and `skipped`: names of the corrupt or left-out pictures of this split, with the reason.

    Raises:
      FileNotFoundError: where nothing is at the path.
      ValueError: where an argument is out of range, or the split has no readable picture.
    """
    stride = size if stride is None else stride
    _check(size, stride, split, channels, limit)
    listing = files.catalogue(path, reading)
    labels, skipped = [], []
    kept: list[np.ndarray] = []
    for number, record in enumerate(listing.records()):
        if limit is not None and len(kept) >= limit:
            break
        if files.held_out(record, number) != (split == "validation"):
            continue
        try:
            afford(sum(map(len, kept)), size, channels)
            found = _cut_record(record, size, stride, channels, pad, reading)
        except OSError as error:
            skipped.append(f"{record.name}: {arrays.reason(error)}")
            continue
        kept.append(found)
        labels.append(np.full(len(found), record.label, np.int32))
    if not kept:
        reasons = f", {len(skipped)} left out, the first {skipped[0]}" if skipped else ""
        raise ValueError(f"data path {path!r} gave no picture for {split!r}{reasons}; give it more pictures")
    records = Resident(np.concatenate(kept), np.concatenate(labels))
    digest = hashlib.sha256(records.images.tobytes() + records.labels.tobytes()).hexdigest()
    return Source(records, size, channels, listing.classes, tuple(skipped), digest)


def _cut_record(record: files.Record, size: int, stride: int, channels: int, pad: bool, reading: Reading) -> np.ndarray:
    """Raises OSError where the picture is corrupt or, without padding, too small."""
    pixels = files.decode(record.source, None, channels, reading)
    if not pad and min(pixels.shape[:2]) < size:
        height, width = pixels.shape[:2]
        raise OSError(f"{height} x {width} pixels are under size {size}; pass pad=True to extend it")
    places = [len(corners(max(side, size), size, stride)) for side in pixels.shape[:2]]
    afford(places[0] * places[1], size, channels)
    return cut_patches(pixels, size, stride)


def _check(size: int, stride: int, split: str, channels: int, limit: int | None) -> None:
    if size < 1 or stride < 1:
        raise ValueError(f"size, stride are {size}, {stride}; both must be at least 1 pixel")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; give 'train' or 'validation'")
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}; give 3 (RGB) or 1 (grey)")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; give at least 1 picture, or None for all")
