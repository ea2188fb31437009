r"""Which made pictures are used, and how often: filters, balance, and the share of made ones in a training batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from numpy.typing import ArrayLike

from diffinv.augmentation.generation import Example, Recipe, generate
from diffinv.describe import Described, described
from diffinv.prior import Prior
from diffinv.typing import Array, Key, Sample, Scalar


def confident(probabilities: ArrayLike, labels: ArrayLike, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Whether a classifier gives each picture's own label a probability from `low` to `high`, (N,) bool.

    Under `low` it looks like another class; over `high` it may teach nothing. Source: He et al. 2022, arXiv:2210.07574,
    section 3.2, filters by confidence; the band is original.

    Args:
      probabilities: (N, classes); labels: (N,), whole numbers.

    Raises ValueError for bounds that are not `0 <= low <= high <= 1`.
    """
    if not 0 <= low <= high <= 1:
        raise ValueError(f"low is {low}, high {high}; give 0 <= low <= high <= 1")
    own = np.take_along_axis(np.asarray(probabilities), np.asarray(labels)[:, None], 1)[:, 0]
    return (own >= low) & (own <= high)


def distinct(distances: ArrayLike, floor: float) -> np.ndarray:
    """Whether each picture is at least `floor` from its nearest training picture, (N,) bool: what is nearer is a copy.

    `distances` (N,) are of `metrics.memorisation.nearest_rows`; a floor may be a low quantile of those between real
    pictures. Source: original. Raises ValueError for a floor under 0.
    """
    if not floor >= 0:
        raise ValueError(f"floor is {floor}; give a distance of at least 0")
    return np.asarray(distances) >= floor


@described
class Kept(NamedTuple):
    """What filters left.

    Attributes:
      mask: (N,) bool.
      taken: by filter, in order, how many it took of what the ones before had left.
    """

    mask: np.ndarray
    taken: dict[str, int]


def filtered(filters: Mapping[str, ArrayLike]) -> Kept:
    """Filters by name, (N,) bool each, one after the other.

    Raises ValueError for no filter, and where nothing is left: it says which filter took how many.
    """
    if not filters:
        raise ValueError("filters is empty; give at least one, (N,) bool")
    mask, taken = np.ones(len(np.asarray(next(iter(filters.values())))), bool), {}
    for name, keeps in filters.items():
        taken[name] = int(np.sum(mask & ~np.asarray(keeps, bool)))
        mask = mask & np.asarray(keeps, bool)
    if not mask.any():
        told = ", ".join(f"{name} took {count}" for name, count in taken.items())
        raise ValueError(f"nothing is left of {len(mask)} made pictures: {told}; widen these filters")
    return Kept(mask, taken)


def missing(labels: ArrayLike, classes: int, count: int = 0) -> np.ndarray:
    """How many pictures each class lacks to have `count`, (classes,); 0 asks for as many as the largest has."""
    counts = np.bincount(np.asarray(labels), minlength=classes)
    return np.maximum((count or counts.max()) - counts, 0)


def mixed_label(label: Array, source: Array, classes: int, kept: Scalar) -> Array:
    """`kept [source] + (1 - kept) [label]`, (classes,): of a picture of one class that was made into another's.

    `kept` is what of the source is left in it, from 0 to 1. Source: Wang et al. 2024, arXiv:2403.19600 (Diff-Mix),
    whose weight is a power of the strength; the weight is an argument here. `classes` is static.
    """
    one = lambda each: jax.nn.one_hot(each, classes)
    return kept * one(source) + (1 - kept) * one(label)


@struct.dataclass
class Augmenter(Described):
    """`(key, image, label) -> image`: the picture itself, or one made of it, with a probability.

    It is a pure function of one picture and a pytree, to be jitted and vmapped inside a training step. Under `vmap`
    both branches run: where generation is dear, make variants once and draw among them (`variant`,
    `data.variants`).

    Attributes:
      prior: fine-tuned on the classes.
      recipe: static.
      probability: of a made picture; 0.5 by default, as in DA-Fusion (Trabucco et al. 2023, arXiv:2302.07944).
    """

    prior: Prior
    recipe: Recipe = struct.field(pytree_node=False)
    probability: Scalar = 0.5

    def __call__(self, key: Key, image: Sample, label: Array) -> Sample:
        choose, make = jax.random.split(key)
        return jax.lax.cond(
            jax.random.bernoulli(choose, self.probability),
            lambda: self.made(make, image, label),
            lambda: image,
        )

    def made(self, key: Key, image: Sample, label: Array) -> Sample:
        """A made picture, in the range of pictures."""
        example = Example(label, image)
        return jnp.clip(generate(key, self.prior, self.recipe, example).x, -1, 1).astype(image.dtype)


def variant(key: Key, image: Sample, made: Array, probability: Scalar = 0.5) -> Sample:
    """The picture, or with `probability` one of its made variants (K, H, W, C), each as likely.

    Source: Trabucco et al. 2023, arXiv:2302.07944, section 4: real and synthetic pictures mixed by a probability.
    """
    choose, pick = jax.random.split(key)
    chosen = made[jax.random.randint(pick, (), 0, len(made))]
    return jnp.where(jax.random.bernoulli(choose, probability), chosen, image)
