"""How near made pictures of rare classes are to real ones, and whether they are copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffinv.metrics import distribution, manifold, memorisation
from experiments.augmenting.classifiers import FEATURES, LEAST, pixels
from experiments.augmenting.labelled import Labelled, join
from experiments.augmenting.making import Made
from experiments.augmenting.splits import FewShot, of_classes
from experiments.evaluation.embedders import Embedder, headings
from experiments.report.tables import number

PIXELS, NEIGHBOURS = "pixels", 5


def network(size: int) -> str:
    """What pictures of this side are compared by."""
    return "EfficientNet-Lite0" if size >= LEAST else PIXELS


def seen(images: np.ndarray) -> np.ndarray:
    """A row each, by that network."""
    return FEATURES(images) if network(images.shape[1]) != PIXELS else pixels(images)


def unseen(split: FewShot) -> Labelled:
    """Real pictures of rare classes that were not trained on."""
    return of_classes(join(split.validation, split.test), split.rare)


def by_given(fake: np.ndarray, real: np.ndarray, given: Sequence[Embedder], folder: Path) -> dict[str, float]:
    """The distances of given networks, whose features are kept in `folder`; NaN where there are too few pictures."""
    told: dict[str, float] = {}
    for each in given:
        found = each.columns(each.rows(fake, folder), each.rows(real, folder)) if min(len(fake), len(real)) > 2 else {}
        values = [number(found.get(name)) for name in each.network.columns]
        told |= dict(zip(headings(each.name), [math.nan if value is None else value for value in values], strict=True))
    return told


def of(split: FewShot, made: Made, given: Sequence[Embedder] = (), folder: Path = Path()) -> dict[str, float]:
    """Distances and shares between made pictures and unseen real ones, both of the rare classes.

    `floor` is of two halves of the real ones. `copies` is the ratio of median distances to the nearest training
    picture, of made over unseen real ones: far below 1 where the pictures are copies. NaN where there are too few
    unseen real pictures to say. After them those of `by_given`.
    """
    few = of_classes(split.train, split.rare).images
    fake, real, train = seen(made.images), seen(unseen(split).images), seen(few)
    halves = np.random.default_rng(0).permutation(len(real))
    a, b = real[halves[::2]], real[halves[1::2]]
    nearest = lambda x: float(np.median(memorisation.nearest_rows(x, train).distance))
    enough = min(len(real), len(fake)) > NEIGHBOURS
    shares = manifold.manifold(real, fake, NEIGHBOURS) if enough else manifold.Manifold(*[math.nan] * 4)
    many = min(len(a), len(b), len(fake)) > 1
    return {
        "Frechet distance": distribution.feature_fid(fake, real) if many else math.nan,
        "its floor": distribution.feature_fid(a, b) if many else math.nan,
        "KID": distribution.feature_kid(fake, real).value if many else math.nan,
        **{name: float(value) for name, value in shares._asdict().items()},
        "copies": nearest(fake) / nearest(real) if len(real) else math.nan,
        **by_given(made.images, unseen(split).images, given, folder),
    }
