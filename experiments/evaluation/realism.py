"""What restored pictures as a set look like: kernel distances to other pictures of the law, and the classes seen."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from diffinv import data
from diffinv.metrics import probe
from diffinv.typing import Array
from experiments.restore.programs import coloured

BATCH, WIDTH = 8, 1280


def packed(rows: np.ndarray) -> str:
    """Features (n, WIDTH) in half precision, as text."""
    return base64.b64encode(np.asarray(rows, "<f2").tobytes()).decode()


def unpacked(text: str) -> np.ndarray:
    """What `packed` packed, (n, WIDTH)."""
    return np.frombuffer(base64.b64decode(text), "<f2").reshape(-1, WIDTH).astype(float)


class Set(NamedTuple):
    """Pictures (N, H, W, C) in [-1, 1] and their labels, (N,); -1 where there is none."""

    pixels: np.ndarray
    labels: np.ndarray


def drawn(source: str, shape: tuple[int, ...], split: int | None, count: int, seed: int) -> Set:
    """`count` pictures of a split, drawn: with the same seed a smaller count is the first of a larger one's.

    Raises ValueError where there are fewer.
    """
    found = data.read(source, shape[:2], split=split, limit=count, channels=shape[2], seed=seed)
    if len(found.names) < count:
        raise ValueError(f"{source} holds {len(found.names)} pictures of this split, and {count} are asked for")
    catalogue = data.catalogue(source)
    known = {record.name: record.label for record in catalogue.records()} if catalogue.classes else {}
    labels = np.asarray([known.get(name, -1) for name in found.names])
    return Set(np.asarray(data.to_unit(found.pixels)), labels)


def splits(source: str) -> tuple[int | None, int | None]:
    """Which pictures are held out, and which were for training; None for all of them, and for none."""
    return (1, 0) if any(record.split == 1 for record in data.catalogue(source).records()) else (None, None)


class Eye:
    """Features of pictures, (n, d), a batch at a time: `row(perceive, x)` of one in three colours."""

    def __init__(self, perceive: Any, row: Callable[[Any, Array], Array] = lambda judge, x: judge.pooled(x)) -> None:
        self.perceive = perceive
        self.program = jax.jit(jax.vmap(lambda judge, x: row(judge, coloured(x)), (None, 0)))

    def __call__(self, x: Array | np.ndarray) -> np.ndarray:
        """Of pictures in [-1, 1]; the last batch is filled up."""
        places = [np.arange(i, i + BATCH) % len(x) for i in range(0, len(x), BATCH)]
        shown = tqdm(places, desc="features", unit="batch", leave=False, disable=len(places) < 8)
        return np.concatenate([np.asarray(self.program(self.perceive, x[chosen])) for chosen in shown])[: len(x)]


class Realism(NamedTuple):
    """Features of other pictures of the same law, and a classifier that was fitted to training pictures, if any."""

    reference: np.ndarray
    classifier: probe.LinearProbe | None

    def right(self, seen: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """1 for each picture that is taken for its label, else 0, (n,); None without a classifier."""
        return None if self.classifier is None else (self.classifier.predict(seen) == labels).astype(float)


def realism(
    source: str,
    shape: tuple[int, ...],
    reference: np.ndarray,
    training: int,
    seed: int,
    look: Callable[[np.ndarray, str], np.ndarray],
) -> Realism:
    """The judge of sets: `reference` pictures, and up to `training` of the source's training part with their labels.

    `look(pixels, name)` gives features, (n, d).
    """
    taught, split = None, splits(source)[1]
    if training and split is not None and data.catalogue(source).classes:
        known = drawn(source, shape, split, training, seed)
        taught = probe.linear_probe(look(known.pixels, "training"), known.labels)
    return Realism(look(reference, "reference"), taught)
