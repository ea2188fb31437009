"""A classifier inside the generator: guidance by its log probability, and GIF's starts, which it chooses.

The classifier is logistic regression on the pixels of the training part, the one whose confidence the filters ask: a
picture that it likes better is not yet one that teaches another classifier more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.augmentation import labelled
from diffinv.augmentation.generation import Climbing, Guide
from diffinv.augmentation.recipes import expanded
from diffinv.prior import Prior
from diffinv.typing import Array, Key, Sample, Scalar, Time
from experiments.augmenting.classifiers import pixels
from experiments.augmenting.scikit import scikit
from experiments.augmenting.splits import FewShot


class Judge(NamedTuple):
    """A linear classifier of pictures in [-1, 1].

    Attributes:
      weights: (classes, pixels).
      bias: (classes,).
      labels: the data's labels, ascending, (classes,).
    """

    weights: Any
    bias: Any
    labels: Any

    def log_probabilities(self, x: Sample) -> Array:
        """Of the classes, (classes,)."""
        scores = jnp.matmul(self.weights, x.reshape(-1), precision="highest") + self.bias
        return jax.nn.log_softmax(scores)

    def confidence(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The probability of each picture's label, (N,)."""
        told = jax.vmap(self.log_probabilities)(jnp.asarray(images, self.weights.dtype))
        return np.exp(np.asarray(told)[np.arange(len(labels)), np.searchsorted(self.labels, labels)])


def judge(split: FewShot) -> Judge:
    """Taught by the training part, whose classes weigh the same."""
    model = scikit("linear_model").LogisticRegression(max_iter=1000, class_weight="balanced")
    model.fit(pixels(split.train.images), split.train.labels)
    weights, bias = model.coef_, model.intercept_
    if len(weights) == 1:  # of two classes it keeps the second one's
        weights, bias = np.concatenate([0 * weights, weights]), np.concatenate([0 * bias, bias])
    return Judge(jnp.asarray(weights, jnp.float32), jnp.asarray(bias, jnp.float32), model.classes_)


class Judged(NamedTuple):
    """An `Example` with the classifier, and the place of its label among the classifier's."""

    label: Array
    image: Sample
    other: Sample
    judge: Judge
    place: Array
    mask: None = None


def climbing(scale: Scalar) -> Guide:
    """Guidance by the classifier's log probability of the class at the denoised picture: `augmentation.rewarded`."""

    def guide(prior: Prior, example: Judged) -> Prior:
        told = labelled(prior, example)
        reward = lambda x0: example.judge.log_probabilities(x0)[example.place]
        return replace(told, denoise=Climbing(told, reward, scale))

    return guide


def from_expanded(key: Key, prior: Prior, example: Judged, t: Time, count: int = 5) -> Sample:
    """One of GIF's `count` starts, which are chosen together: see `augmentation.recipes.expanded`."""
    draw, choose = jax.random.split(key)
    found = expanded(draw, prior, example, t, example.judge.log_probabilities, count)
    return found.x[jax.random.randint(choose, (), 0, count)]
