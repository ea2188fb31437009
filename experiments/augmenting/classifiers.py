"""Classifiers that judge training sets: `(seed, training, images) -> predicted labels`, (N,), each honouring weights.

Logistic regression is scikit-learn's, with its C of 1. The support vector machine has its Gaussian kernel of width
1 / (d var), and C = 10, at which another copy of a picture no longer changes it on digits. Both take the pixels in
[-1, 1] as they are, or features of EfficientNet-Lite0, `scaled`, which a picture of 32 pixels or more needs.
"""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffinv import seed_key
from diffinv.metrics.features import EfficientNetFeatures, efficientnet_features
from diffinv.nn import layers
from experiments.augmenting.labelled import Training
from experiments.augmenting.scikit import scikit

Classifier = Callable[[int, Training, np.ndarray], np.ndarray]
Rows = Callable[[np.ndarray], np.ndarray]
LEAST = 32  # pixels of the shorter side, below which EfficientNet-Lite0 sees nothing
SIZE, KEPT, BLOCK = 128, 50_000, 64  # pixels of its input; rows of features that are kept; pictures at once
STEPS, BATCH, RATE = 400, 64, 2e-3  # of the convolutional network


def pixels(images: np.ndarray) -> np.ndarray:
    """(N, H W C)."""
    return images.reshape(len(images), -1)


def linear(rows: Rows) -> Classifier:
    """Logistic regression on rows of numbers."""
    return _fitted(rows, lambda: scikit("linear_model").LogisticRegression(max_iter=5000))


def radial(rows: Rows) -> Classifier:
    """A support vector machine with a Gaussian kernel on rows of numbers."""
    return _fitted(rows, lambda: scikit("svm").SVC(C=10))


def _fitted(rows: Rows, estimator: Callable[[], Any]) -> Classifier:
    def classify(seed: int, training: Training, images: np.ndarray) -> np.ndarray:
        seen = training.weights > 0
        fitted = estimator().fit(rows(training.images[seen]), training.labels[seen], training.weights[seen])
        return fitted.predict(rows(images))

    return classify


class Features:
    """EfficientNet-Lite0's pooled features of pictures, (N, 1280); those of pictures it has seen are kept."""

    def __init__(self) -> None:
        self.kept: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self.network: EfficientNetFeatures | None = None
        self.program = jax.jit(lambda network, x: jax.vmap(network.pooled)(x))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Raises ValueError for pictures that are too small, or neither grey nor coloured."""
        if images.shape[-1] not in (1, 3) or min(images.shape[1:3]) < LEAST:
            raise ValueError(f"images is {images.shape}; its features take {LEAST} pixels or more, grey or colours")
        self.network = self.network or efficientnet_features(SIZE)
        names = [hashlib.blake2b(x.tobytes(), digest_size=16).digest() for x in images]
        new = {name: i for i, name in enumerate(names) if name not in self.kept}
        fresh = dict(zip(new, self._computed(images[list(new.values())])))
        found = np.stack([fresh[name] if name in fresh else self.kept[name] for name in names])
        self.kept.update(fresh)
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return found

    def _computed(self, images: np.ndarray) -> list[np.ndarray]:
        parts = [_coloured(images[start : start + BLOCK]) for start in range(0, len(images), BLOCK)]
        rows = [np.asarray(self.program(self.network, filled(part, BLOCK)))[: len(part)] for part in parts]
        return [row for block in rows for row in block]


def _coloured(images: np.ndarray) -> np.ndarray:
    return np.broadcast_to(images, (*images.shape[:-1], 3))


def filled(rows: np.ndarray, count: int) -> np.ndarray:
    """`count` rows: these, and then zeros."""
    return np.concatenate([rows, np.zeros((count - len(rows), *rows.shape[1:]), rows.dtype)])


def scaled(classifier: Callable[[Rows], Classifier], rows: Rows) -> Classifier:
    """A classifier of rows that are moved to the training set's mean, and divided by one number for all columns.

    They have a variance of 1 on average. To give each column its own would make a feature that hardly any training
    picture has the loudest of all.
    """

    def classify(seed: int, training: Training, images: np.ndarray) -> np.ndarray:
        seen = rows(training.images)
        mean, scale = seen.mean(0), np.sqrt(np.mean(seen.var(0))) or 1.0
        return classifier(lambda images: (rows(images) - mean) / scale)(seed, training, images)

    return classify


class Network(nn.Module):
    """A batch (N, H, W, C) to its classes' scores: three convolutions, the first of a stride of a twelfth of the side.

    It takes the batch itself, as `layers.conv` then sums its kernels' gradients over it in one product.

    Attributes:
      classes: how many.
    """

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first = max(min(x.shape[1:3]) // 12, 1)
        for features, stride in ((32, first), (64, 2), (64, 2)):
            side = max(3, 2 * stride - 1)
            x = nn.relu(nn.Conv(features, (side, side), stride, conv_general_dilated=layers.conv)(x))
        return nn.Dense(self.classes)(x.reshape(len(x), -1))


@functools.cache
def _programs(classes: int, steps: int) -> tuple[Any, Any]:
    """Training and prediction, compiled once for each shape."""
    network = Network(classes)
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))

    def loss(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(network.apply(params, x), labels))

    def train(key: jax.Array, images: jax.Array, labels: jax.Array, chosen: jax.Array) -> Any:
        def step(carried: Any, places: jax.Array) -> Any:
            params, state = carried
            updates, state = optimizer.update(jax.grad(loss)(params, images[places], labels[places]), state)
            return (optax.apply_updates(params, updates), state), None

        params = network.init(key, images[:1])
        return jax.lax.scan(step, (params, optimizer.init(params)), chosen)[0][0]

    return jax.jit(train), jax.jit(lambda params, x: jnp.argmax(network.apply(params, x), -1))


def convolutional(steps: int = STEPS) -> Classifier:
    """A small network, trained for a fixed count of steps on pictures drawn in proportion to their weights.

    Adam at a rate of 0.002 that falls to 0, batches of 64: all arms get as many steps, whatever they add.
    """

    def classify(seed: int, training: Training, images: np.ndarray) -> np.ndarray:
        train, predict = _programs(int(training.labels.max()) + 1, steps)
        share = training.weights / training.weights.sum()
        chosen = np.random.default_rng(seed).choice(len(share), (steps, BATCH), p=share).astype(np.int32)
        room = 1 << (len(share) - 1).bit_length()  # so that arms of about one size share a program
        stored = filled(training.images, room), filled(training.labels, room).astype(np.int32)
        params = train(seed_key(seed), *stored, chosen)
        parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        return np.concatenate([np.asarray(predict(params, filled(part, BATCH)))[: len(part)] for part in parts])

    return classify


FEATURES = Features()
CLASSIFIERS: dict[str, Classifier] = {
    "logistic regression": linear(pixels),
    "RBF-SVM": radial(pixels),
    "convolutional network": convolutional(),
    "logistic regression of features": scaled(linear, FEATURES),
    "RBF-SVM of features": scaled(radial, FEATURES),
}
"""Judges by name; the features are EfficientNet-Lite0's."""


def suited(images: np.ndarray) -> tuple[str, ...]:
    """The names of the classifiers that pictures (N, H, W, C) of this size are judged by."""
    large = min(images.shape[1:3]) >= LEAST
    return tuple(name for name in CLASSIFIERS if name == "convolutional network" or ("features" in name) == large)
