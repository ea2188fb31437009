"""What `experiments.reconstruct` restores: pictures at the prior's size, or each at its own where that may be any."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from diffinv.data import fitting
from experiments import report
from experiments.common import photos, pictures
from experiments.restore.phantoms import phantoms

BUNDLED = ("photographs", "satellite", "phantoms", "none")


class Shots(NamedTuple):
    """Pictures to be restored.

    Attributes:
      names: fit for files.
      pixels: of each, (H, W, C) float32 in [-1, 1].
      note: on what was found and changed, one line.
      photos: the files as they were read, where results are written back in their kind; else None.
    """

    names: list[str]
    pixels: list[np.ndarray]
    note: str = ""
    photos: list[photos.Photo] | None = None

    def alike(self) -> list[list[int]]:
        """Places of the pictures, those of one shape together."""
        shapes = [each.shape for each in self.pixels]
        return [[i for i, other in enumerate(shapes) if other == shape] for shape in dict.fromkeys(shapes)]


def _at_one_size(found: pictures.Pictures) -> Shots:
    return Shots(report.readable(found.names), list(found.pixels), found.note)


def shots(path: str, bundled: str, count: int, shape: tuple[int, ...], any_size: bool, every: int = 1) -> Shots:
    """The pictures of a path, or bundled ones where it is empty.

    Under a prior of any size the user's pictures keep theirs, and bundled ones have that of `shape`; else all are
    cropped and brought to `shape`, (H, W, C). `count` is the most that are taken; 0 for all, of each
    `every`-th that a path has.
    """
    if bundled == "none" and not path:
        raise ValueError("config.bundled is 'none': there are no pictures; give --images=PATH, or --kspace=FILE")
    if bundled == "phantoms" and not path:
        made = phantoms(shape[:2], count or 4)
        return Shots([f"phantom{i}" for i in range(len(made))], list(np.repeat(made, shape[2], -1)))
    if path and any_size:
        return _at_their_own(path, shape[2], count, every)
    if path or bundled == "satellite":
        return _at_one_size(pictures.own(path or bundled, shape, count, every))
    return _at_one_size(pictures.photographs(shape, count))


def _at_their_own(path: str, channels: int, count: int, every: int) -> Shots:
    found = pictures.whole(path, channels, count, every)
    kept = [photos.Photo(shot) for shot in found.shots]
    flat = [fitting.opaque(shot._replace(alpha=None), channels) for shot in found.shots]
    return Shots(report.readable(found.names), [fitting.unit(each) for each in flat], found.note, kept)
