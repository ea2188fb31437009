"""How near made pictures of rare classes are to real ones, and whether they are copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffinv.metrics import distribution, manifold, memorisation
from experiments.augmenting.classifiers import FEATURES, LEAST, linear, pixels, scaled
from experiments.augmenting.labelled import Labelled, Training, join, take
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


def recognised(split: FewShot, made: Made) -> dict[str, float]:
    """How often made pictures are taken for their class, and unseen real ones for theirs: what is left of a label.

    By logistic regression on every second one of the unseen real pictures of all classes; the real ones that it is
    asked of are the rest, of the rare classes. NaN where there are too few of them.
    """
    every = join(split.validation, split.test)
    order = np.random.default_rng(0).permutation(len(every.labels))
    known, rest = take(every, order[::2]), of_classes(take(every, order[1::2]), split.rare)
    if not len(rest.labels) or len(np.unique(known.labels)) < 2:
        return dict.fromkeys(("recognised", "real ones"), math.nan)
    training = Training(known.images, known.labels, np.ones(len(known.labels)))
    told = scaled(linear, seen)(0, training, np.concatenate([made.images, rest.images]))
    right = told == np.concatenate([made.labels, rest.labels])
    parts = np.split(right, [len(made.labels)])
    return dict(zip(("recognised", "real ones"), (float(part.mean()) for part in parts), strict=True))


def of(split: FewShot, made: Made, given: Sequence[Embedder] = (), folder: Path = Path()) -> dict[str, float]:
    """Distances and shares between made pictures and unseen real ones, both of the rare classes.

    `floor` is of two halves of the real ones. `copies` is the ratio of median distances to the nearest training
    picture, of made over unseen real ones: far below 1 where the pictures are copies. NaN where there are too few
    unseen real pictures to say. `recognised` is told there. After them those of `by_given`.
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
        **recognised(split, made),
        "copies": nearest(fake) / nearest(real) if len(real) else math.nan,
        **by_given(made.images, unseen(split).images, given, folder),
    }
