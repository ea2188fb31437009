"""Pictures for the experiments: real photographs that install with scikit-image, or the user's own files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from diffinv.data import Picture, Reading, Record, arrays, catalogue, fitting, listing, packs, picture
from diffinv.data.files import is_bundled
from experiments.common import reading

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
SHOWN = 5  # of what was left out


class Pictures(NamedTuple):
    """`names`, `pixels` (N, height, width, channels) float32 in [-1, 1], and a `note` on what was found and changed."""

    names: list[str]
    pixels: np.ndarray
    note: str


def widened(box: tuple[int, int, int], size: int, sides: tuple[int, ...]) -> tuple[int, int, int]:
    """A box (top, left, side) about the same middle whose side is at least `size`, as far as the picture has room."""
    side = min(max(box[2], size), *sides)
    grown = (side - box[2]) // 2
    top, left = (min(max(start - grown, 0), whole - side) for start, whole in zip(box[:2], sides))
    return top, left, side


def square(image: np.ndarray, size: int, box: tuple[int, int, int] | None = None) -> np.ndarray:
    """The central (or given: top, left, side) square of uint8 (h, w, 3), shrunk or enlarged to `size`, uint8.

    A box smaller than `size` is widened, so that nothing is enlarged where the picture has more.
    """
    from PIL import Image

    height, width = image.shape[:2]
    side = min(height, width)
    top, left, side = widened(box, size, (height, width)) if box else ((height - side) // 2, (width - side) // 2, side)
    crop = Image.fromarray(image[top : top + side, left : left + side])
    method = Image.Resampling.BOX if side % size == 0 else Image.Resampling.LANCZOS  # BOX is exact at equal sizes
    return np.asarray(crop.resize((size, size), method))


def rounded(x: np.ndarray) -> np.ndarray:
    """Values of 0 to 255 (others are clipped) as uint8, rounded."""
    return np.round(np.clip(x, 0, 255)).astype(np.uint8)


def shape_of(size: int | tuple[int, ...]) -> tuple[int, int, int]:
    """(height, width, channels) of a side, or of that. Raises ValueError for other shapes."""
    shape = (size, size, 3) if isinstance(size, int) else tuple(size)
    if len(shape) != 3 or shape[2] not in (1, 3) or min(shape) < 1:
        raise ValueError(f"the prior has shape {shape}; pictures have (height, width, 1 or 3)")
    return shape


def _counted(count: int) -> int:
    if count < 0:
        raise ValueError(f"config.pictures is {count}; give a whole number above 0, or 0 for all")
    return count


def photographs(size: int | tuple[int, ...], count: int) -> Pictures:
    """Up to eight of scikit-image's bundled photographs (public domain or CC0; astronaut: NASA); `count` 0 takes all.

    `size`: a side, or (height, width, channels).
    """
    import skimage.data

    rows, columns, channels = shape_of(size)
    folder = os.path.dirname(skimage.data.__file__)
    chosen = PHOTOGRAPHS[: _counted(count) or None]
    pixels = [square(read(os.path.join(folder, file))[0], max(rows, columns), box) for _, file, box in chosen]
    kept = [fitting.fit(fitting.opaque(Picture(each), channels), (rows, columns)) for each in pixels]
    note = f"{len(chosen)} photographs are bundled, and {count} were asked for" if count > len(chosen) else ""
    return Pictures([name for name, _, _ in chosen], np.stack([fitting.unit(each) for each in kept]), note)


def read(path: str) -> tuple[np.ndarray, str]:
    """One file as uint8 (h, w, 3), laid on white, and a word on what was converted; see docs/pictures.md.

    Raises ValueError, in one line with the path, for anything unreadable.
    """
    found = plain(path)
    return fitting.eight(fitting.opaque(found)), ", ".join(_converted(found, 3))


def plain(path: str, most: int = Reading.pixels) -> Picture:
    """One file of at most so many pixels whose meaning is plain. Raises ValueError, in one line with the path, else."""
    try:
        return fitting.plain(picture(path, reading.reading(most)))
    except OSError as error:
        raise ValueError(f"{listing.printable_name(path)}: {arrays.reason(error)}; or give another picture") from None


def _converted(found: Picture, channels: int) -> list[str]:
    words = ["transparency laid on white"] if found.alpha is not None else []
    if found.values.shape[-1] != channels:
        words.append("RGB to grey" if channels == 1 else "grey to RGB")
    return [*words, *found.notes]


def files(pattern: str) -> list[str]:
    """The image files of a folder, a file or a glob, sorted. Raises FileNotFoundError where there are none."""
    found = listing.pictures(pattern, nested=False)
    if not found:
        below = len(listing.pictures(pattern)) if os.path.isdir(pattern) else 0
        hint = f"; {below} lie in folders below it: give one of these, or {pattern!r}/**" if below else ""
        what = f"no image matches {pattern!r}"
        raise FileNotFoundError(f"{what}; give a file, a folder or a quoted glob to --images{hint}")
    return found


class Found(NamedTuple):
    """What a path names: records, how they are called together, and how many files there are no pictures."""

    records: list[Record]
    what: str
    others: int = 0


def _found(pattern: str) -> Found:
    """Files; or the pictures of a pack, a folder of IDX files or a bundled set, of which those for validation."""
    packed = is_bundled(pattern) or (pattern.endswith(".npz") and listing.matches(pattern)) or packs.idx_files(pattern)
    if packed:
        records = list(catalogue(pattern, reading.reading()).records())
        held_out = [record for record in records if record.split == 1]
        return Found(held_out or records, "held-out pictures" if held_out else "pictures")
    paths = files(pattern)
    inside = [entry for entry in os.scandir(pattern) if entry.is_file()] if os.path.isdir(pattern) else []
    unknown = sum(not entry.name.lower().endswith(listing.SUFFIXES) for entry in inside)
    return Found([Record(path, 0, None, path) for path in paths], "pictures", unknown)


class Whole(NamedTuple):
    """Pictures at their own sizes: `names`, `shots` as they were read, and a `note` on what was found and changed."""

    names: list[str]
    shots: list[Picture]
    note: str


def whole(pattern: str, channels: int, count: int, every: int = 1) -> Whole:
    """The user's pictures, uncropped, each at its own size; arguments, note and errors as of `own`."""
    found, most = _found(pattern), _counted(count)
    taken, left = _taken(found, most, every, lambda shot: shot)
    _require_some(pattern, taken, left)
    shots = [shot for _, shot, _ in taken]
    note = _note(found, shots, left, (0, 0, channels), bool(most), whole=True)
    return Whole(names([record.name for record, _, _ in taken]), shots, note)


def _taken(
    found: Found, most: int, every: int, fit: Callable[[Picture], Any]
) -> tuple[list[tuple[Record, Picture, Any]], list]:
    """At most so many of each `every`-th record with their pictures, fitted; a phrase about each that can't be read."""
    taken, left = [], []
    for record in found.records[::every]:
        if most and len(taken) == most:
            break
        try:
            shot = fitting.plain(picture(record.source, reading.reading()))
            taken.append((record, shot, fit(shot)))
        except OSError as error:
            left.append(f"{listing.printable_name(record.name)}: {arrays.reason(error)}")
    return taken, left


def _require_some(pattern: str, taken: list, left: list[str]) -> None:
    if not taken:
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        raise ValueError(f"no picture of {pattern!r} can be read: {left[0]}{more}")


def own(pattern: str, size: int | tuple[int, ...], count: int, every: int = 1) -> Pictures:
    """The user's pictures: the middle of each, cropped to the proportions of `size` and brought to it, not rounded.

    Args:
      pattern: a folder, a file, a quoted glob, a `.npz`, a folder of IDX files, or a bundled set.
      size: a side, or (height, width, channels): those of the prior.
      count: at most so many, of those that can be read; 0 takes all.
      every: of each so many-th picture alone.

    The note says how many were found, taken and left out, and why. Raises FileNotFoundError where nothing is there,
    ValueError where no picture can be read.
    """
    rows, columns, channels = shape_of(size)
    found, most = _found(pattern), _counted(count)
    taken, left = _taken(found, most, every, lambda shot: fitting.fit(fitting.opaque(shot, channels), (rows, columns)))
    _require_some(pattern, taken, left)
    note = _note(found, [shot for _, shot, _ in taken], left, (rows, columns, channels), bool(most))
    pixels = np.stack([fitting.unit(each) for _, _, each in taken])
    return Pictures(names([record.name for record, _, _ in taken]), pixels, note)


def _note(
    found: Found, taken: list[Picture], left: list[str], shape: tuple[int, int, int], limited: bool, whole: bool = False
) -> str:
    """One line on what was found, taken, left out and changed; "" where there is nothing to say.

    Pictures that are taken `whole` keep their size, and their transparency.
    """
    parts = []
    if len(taken) < len(found.records) or found.others:
        rest = len(found.records) - len(taken) - len(left)
        parts.append(f"{len(found.records)} {found.what} found, {len(taken)} taken")
        parts += [f"{rest} not asked for (config.pictures=0 takes all)"] if rest and limited else []
        parts += [f"{len(left)} left out: {', '.join(left[:SHOWN])}{', ...' * (len(left) > SHOWN)}"] if left else []
        parts += [f"{found.others} other files are no pictures by their ending"] if found.others else []
    resized = 0 if whole else sum(shot.values.shape[:2] != shape[:2] for shot in taken)
    size = f"{shape[0]} x {shape[1]}"
    parts += [f"{resized} of {len(taken)} pictures were cropped and resized to {size}"] if resized else []
    plain = (lambda shot: shot._replace(alpha=None)) if whole else (lambda shot: shot)
    words = sorted({word for shot in taken for word in _converted(plain(shot), shape[2])})
    parts += ["transparency is kept as it is"] if whole and any(shot.alpha is not None for shot in taken) else []
    parts += [f"converted: {', '.join(words[:SHOWN])}{', ...' * (len(words) > SHOWN)}"] if words else []
    return "; ".join(parts)


def names(paths: list[str]) -> list[str]:
    """File names without extension, fit for new files, numbered where two are equal."""
    return listing.stems(paths)
