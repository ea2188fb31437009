"""Made pictures beside real ones in a training pipeline: made once, kept on disk by content, drawn from in the step.

source = data.Variants(data.source(...), folder, make, count=4, stamp="satellite64, sigma 1")
for batch in data.batches(source, 64):  # image (64, H, W, C), label, index, and made (64, 4, H, W, C)
    ...  # on the device: jax.vmap(augmentation.variant)(keys, to_unit(image), to_unit(made))
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from diffinv.atomic import replacing
from diffinv.data.fitting import to_pixels, to_unit
from diffinv.typing import Array, Key


@dataclass(frozen=True)
class Variants:
    """A source whose pictures have `count` made variants each.

    A picture's variants are kept in `folder` under a digest of its pixels, its label, the count and the stamp, and
    their keys come of that digest: they are the same in any order and batch. What is damaged is made again.

    Attributes:
      source: has `__len__` and `take(indices)`, of uint8 pictures and labels; see `data.Source`.
      folder: of the variants, a file each.
      make: `(keys (n,), images (n, H, W, C) in [-1, 1], labels (n,)) -> (n, H, W, C)`, such as the jitted and vmapped
        `augmentation.Augmenter.made`; it is always called with `batch` rows.
      count: variants of a picture, at least 1.
      stamp: what made them, in words: weights, recipe, version. Another stamp makes them anew.
      batch: pictures that are made at once.

    Raises ValueError for a count or a batch under 1.
    """

    source: Any
    folder: str
    make: Callable[[Key, Array, Array], Array]
    count: int
    stamp: str
    batch: int = 64

    def __post_init__(self) -> None:
        if self.count < 1 or self.batch < 1:
            raise ValueError(f"count is {self.count}, batch {self.batch}; give at least 1 of each")

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """What the source gives, and `made`, uint8 (n, count, H, W, C)."""
        found = self.source.take(indices)
        images, labels = found["image"], found["label"]
        names = [self._digest(image, label) for image, label in zip(images, labels, strict=True)]
        known = [self._read(name, image.shape) for name, image in zip(names, images)]
        absent = [i for i, made in enumerate(known) if made is None]
        fresh = iter(self._made([names[i] for i in absent], images[absent], labels[absent]) if absent else ())
        return {**found, "made": np.stack([next(fresh) if made is None else made for made in known])}

    def _digest(self, image: np.ndarray, label: Any) -> str:
        told = repr((self.stamp, self.count, image.shape, int(label))).encode()
        return hashlib.sha256(told + image.tobytes()).hexdigest()

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name[:2], f"{name}.npy")

    def _read(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        try:
            found = np.load(self._path(name), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return found if found.shape == (self.count, *shape) and found.dtype == np.uint8 else None

    def _made(self, names: list[str], images: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        """The variants of each, made in full batches and written."""
        keys = [key for name in names for key in jax.random.split(jax.random.key(int(name[:8], 16)), self.count)]
        rows = np.repeat(np.arange(len(names)), self.count)
        parts = []
        for first in range(0, len(rows), self.batch):
            place = np.minimum(np.arange(first, first + self.batch), len(rows) - 1)
            chosen = rows[place]
            given = jax.numpy.stack([keys[i] for i in place])
            parts.append(np.asarray(self.make(given, to_unit(images[chosen]), jax.numpy.asarray(labels[chosen]))))
        pixels = to_pixels(np.concatenate(parts)[: len(rows)]).reshape(len(names), self.count, *images.shape[1:])
        for name, made in zip(names, pixels, strict=True):
            os.makedirs(os.path.dirname(self._path(name)), exist_ok=True)
            with replacing(self._path(name)) as file:
                np.save(file, made)
        return list(pixels)
