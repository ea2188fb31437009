"""Pictures with their classes, and where in the user's data they stand."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Labelled(NamedTuple):
    """Pictures of known classes.

    Attributes:
      images: float32, (N, H, W, C), in [-1, 1].
      labels: whole numbers from 0, (N,).
      ids: int64, (N,): the place in the user's data, or -1 - i for the i-th picture that was made.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray


class Training(NamedTuple):
    """What a classifier is trained on; the ids have done their duty.

    Attributes:
      images: float32, (N, H, W, C).
      labels: whole numbers from 0, (N,).
      weights: float64, (N,): a row of weight 2 counts as much as two of weight 1.
    """

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


def labelled(images: np.ndarray, labels: np.ndarray, ids: np.ndarray | None = None) -> Labelled:
    """Real pictures, by default numbered in their order. Raises ValueError for what `Labelled` cannot be."""
    images, labels = np.asarray(images, np.float32), np.asarray(labels)
    ids = np.arange(len(images)) if ids is None else np.asarray(ids)
    if images.ndim != 4 or labels.shape != images.shape[:1] or ids.shape != images.shape[:1]:
        shapes = f"images is {images.shape}, labels {labels.shape}, ids {ids.shape}"
        raise ValueError(f"{shapes}; give (N, H, W, C) and a label and a place for each picture")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels is {labels.dtype}; give whole numbers from 0")
    if images.size and not max(-images.min(), images.max()) <= 1:
        raise ValueError(f"images has values from {images.min():.3g} to {images.max():.3g}; bring them to [-1, 1]")
    return Labelled(images, labels.astype(np.int64), ids.astype(np.int64))


def made(images: np.ndarray, labels: np.ndarray, first: int = 0) -> Labelled:
    """Pictures that were made, numbered -1 - first, -2 - first, ..."""
    return labelled(images, labels, -1 - first - np.arange(len(images)))


def take(data: Labelled, chosen: np.ndarray) -> Labelled:
    """Those at the chosen places, or where a mask is true."""
    return Labelled(*(part[chosen] for part in data))


def of_class(data: Labelled, label: int) -> Labelled:
    """Those of one class."""
    return take(data, data.labels == label)


def join(*parts: Labelled) -> Labelled:
    """One after another."""
    return Labelled(*map(np.concatenate, zip(*parts, strict=True)))


def class_counts(labels: np.ndarray) -> np.ndarray:
    """How many pictures each class has, (classes,)."""
    return np.bincount(labels)


def training(data: Labelled) -> Training:
    """Every picture with the weight 1."""
    return Training(data.images, data.labels, np.ones(len(data.labels)))


def both(*sets: Training) -> Training:
    """One set after another."""
    return Training(*map(np.concatenate, zip(*sets, strict=True)))
