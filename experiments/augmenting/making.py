"""From a taught prior and a split to made pictures, filtered, with where each came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import augmentation, sharding
from diffinv.augmentation import Recipe
from diffinv.augmentation.recipes import Plan
from diffinv.metrics import memorisation
from diffinv.prior import Prior
from diffinv.typing import Key
from experiments.augmenting.baselines import balance
from experiments.augmenting.classifiers import pixels
from experiments.augmenting.labelled import Training, both, made, training
from experiments.augmenting.reward import Judge, Judged, judge
from experiments.augmenting.splits import FewShot, of_classes


class Made(NamedTuple):
    """What a plan made, filtered or not.

    Attributes:
      images: float32, (N, H, W, C), in [-1, 1].
      labels: classes of the data, (N,).
      sources: ids of the pictures that each started from, (N, 2); -1 for none.
      recipes: which of the plan's recipes made it, (N,).
      confidence: probability of its label, by a classifier of the training pictures, (N,).
      distance: to its nearest training picture of the rare classes, (N,).
    """

    images: np.ndarray
    labels: np.ndarray
    sources: np.ndarray
    recipes: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray


def generator(batch: int) -> Callable[..., np.ndarray]:
    """`(key, prior, recipe, examples) -> pictures`: any number, `batch` at once over all devices, by one program."""
    mesh = sharding.mesh()
    split, whole = sharding.split(mesh), sharding.replicated(mesh)
    size = -(-batch // mesh.size) * mesh.size

    def many(keys: Any, prior: Prior, recipe: Recipe, sigma: Any, judge: Judge, rows: tuple[Any, ...]) -> Any:
        def one(key: Any, label: Any, image: Any, other: Any, place: Any) -> Any:
            example = Judged(label, image, other, judge, place)
            return augmentation.generate(key, prior, recipe._replace(sigma=sigma), example).x

        return jnp.clip(jax.vmap(one)(keys, *rows), -1, 1)

    compiled = jax.jit(many, static_argnums=2)

    def run(key: Key, prior: Prior, recipe: Recipe, judge: Judge, *rows: Any) -> np.ndarray:
        count, found = len(rows[0]), []
        keys, static = jax.random.split(key, count), recipe._replace(sigma=0.0)
        prior, judge = jax.device_put((prior, judge), whole)
        for first in range(0, count, size):
            place = np.minimum(np.arange(first, first + size), count - 1)
            keyed, given = jax.device_put((keys[place], tuple(row[place] for row in rows)), split)
            found.append(np.asarray(compiled(keyed, prior, static, float(recipe.sigma), judge, given)))
        return np.concatenate(found)[:count]

    return run


def starts(rng: np.random.Generator, plan: Plan, split: FewShot, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and places in the training part, (N,) and (N, 2): `count` of each rare class, each real one as often."""
    labels = np.repeat(split.rare, count)
    train = split.train.labels
    own = [np.resize(rng.permutation(np.flatnonzero(train == label)), count) for label in split.rare]
    first = np.concatenate(own)
    if plan.foreign:
        first = rng.choice(np.flatnonzero(~np.isin(train, split.rare)), len(labels))
    among = [np.flatnonzero(train == label) for label in labels]
    second = np.array([rng.choice(own[own != place] if len(own) > 1 else own) for own, place in zip(among, first)])
    return labels, np.stack([first, second], 1)


def make(
    key: Key, run: Callable[..., np.ndarray], prior: Prior, plan: Plan, split: FewShot, told: np.ndarray, count: int
) -> Made:
    """`count` pictures of each rare class by the plan's recipes in turn; `told` are the prior's labels."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    labels, places = starts(rng, plan, split, count)
    which = np.arange(len(labels)) % len(plan.recipes)
    images = np.empty((len(labels), *split.train.images.shape[1:]), np.float32)
    classifier = judge(split)
    for number, recipe in enumerate(plan.recipes):
        own = which == number
        first, second = split.train.images[places[own].T]
        given = (told[labels[own]], first, second, np.searchsorted(classifier.labels, labels[own]))
        images[own] = run(jax.random.fold_in(key, number), prior, recipe, classifier, *given)
    blind = plan.recipes[0].start is augmentation.from_prior
    sources = np.stack([split.train.ids[places[:, 0]], split.train.ids[places[:, 1]]], 1)
    sources[:, 1] = np.where(plan.pairs, sources[:, 1], -1)
    sources = np.full_like(sources, -1) if blind else sources
    few = of_classes(split.train, split.rare).images
    distance = memorisation.nearest_rows(pixels(images), pixels(few)).distance
    return Made(images, labels, sources, which, classifier.confidence(images, labels), distance)


def floor(split: FewShot, quantile: float) -> float:
    """The quantile of the distances between real training pictures of one class; 0 for the quantile 0.

    They are of the frequent classes, which have pictures enough.
    """
    if not quantile:
        return 0.0
    found = []
    for label in np.setdiff1d(np.unique(split.train.labels), split.rare):
        own = pixels(of_classes(split.train, [label]).images)[:200].astype(np.float64)
        far = ((own**2).sum(1)[:, None] + (own**2).sum(1) - 2 * own @ own.T).clip(0) ** 0.5
        found.append(np.min(far + np.diag(np.full(len(own), np.inf)), 1))
    return float(np.quantile(np.concatenate(found), quantile))


def kept(config, split: FewShot, found: Made, what: str) -> augmentation.utilisation.Kept:
    """What the filters leave. Raises ValueError where it is nothing: it names the filters and the recipe."""
    filters = {
        "the classifier's confidence": augmentation.confident(
            found.confidence[:, None], np.zeros(len(found.labels), int), *config.confidence
        ),
        "the distance to training pictures": augmentation.distinct(found.distance, floor(split, config.copies)),
    }
    try:
        return augmentation.filtered(filters)
    except ValueError as error:
        raise ValueError(f"{what}: {error} (config.confidence, config.copies)") from None


def used(plan: Plan, split: FewShot, found: Made, mask: np.ndarray, beside: Training | None = None) -> Training:
    """The training set: real pictures, and the made ones that were kept; foreign ones weigh half for either class.

    With another arm's set `beside`, that set in place of the real pictures, and every second one of those kept.
    """
    mask = mask if beside is None else mask & (np.cumsum(mask) % 2 == 1)
    real = training(split.train) if beside is None else beside
    added = training(made(found.images[mask], found.labels[mask]))
    if not plan.foreign:
        return both(real, added)
    place = {int(number): i for i, number in enumerate(split.train.ids)}
    sources = split.train.labels[[place[int(number)] for number in found.sources[mask, 0]]]
    halved = added._replace(weights=added.weights / 2)
    return both(real, halved, halved._replace(labels=sources))


def many(config, split: FewShot) -> int:
    """Pictures that are made of each rare class."""
    return config.count or balance(split)
