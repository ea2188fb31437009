"""Priors for augmentation: trained on the frequent classes of a split, or given; then taught the rare ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from tqdm import tqdm

import diffinv as di
from diffinv import augmentation, process, train, weights
from diffinv.augmentation import Learnt
from diffinv.augmentation.recipes import Learns, embeddings, nothing
from diffinv.nn.perceptron import Perceptron
from diffinv.prior import Prior
from diffinv.typing import Array, Key
from experiments.augmenting.splits import FewShot, of_classes
from experiments.common import priors

PIECE = 100
"""Steps between two moves of the bar."""


class Teacher(NamedTuple):
    """Where the prior of a split comes from.

    Attributes:
      prior: `(key, split) -> Prior` of every class, with room for the label that says nothing.
      labels: `split -> (classes,)`, the prior's label of each class; of rare ones the same in every split.
      null: the label that says nothing.
      known: the classes that a given prior was trained on; () where it is trained here.
      sigma_data: deviation of the pictures that it was trained with.
    """

    prior: Callable[[Key, FewShot], Prior]
    labels: Callable[[FewShot], np.ndarray]
    null: int
    known: tuple[str, ...]
    sigma_data: float


def teacher(config, classes: tuple[str, ...]) -> Teacher:
    """By `config.model`."""
    return given(config, classes) if config.model else own(config, classes)


def network(config, classes: int) -> nn.Module:
    """The network of a prior that is trained here; its last label says nothing.

    Its convolutions are the library's: training, fine-tuning and sampling are scans, in which the gradients of lax's
    own take ten times as long on a CPU.
    """
    if config.architecture == "perceptron":
        return Perceptron(**config.net, classes=classes + 1)
    card = {"name": config.architecture, **config.net.to_dict()}
    return weights.cards.build_network({**card, "out_channels": config.channels, "classes": classes + 1}, "config.net")


def own(config, classes: tuple[str, ...]) -> Teacher:
    """A prior that is trained anew on the frequent classes of each split, by EDM's loss."""
    net, shape, null = network(config, len(classes)), (config.size, config.size, config.channels), len(classes)
    kind = process.EDM()
    model = lambda params: di.NetworkDenoiser(params, kind, net.apply, sigma_data=config.sigma_data)
    loss = train.denoising_loss(model, kind, config.log_sigma_mean, config.log_sigma_std, config.sigma_data)
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    trainer = di.trainer(loss, optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)), ema=0.999)

    @partial(jax.jit, donate_argnums=1)
    def advance(key, state, images, labels):
        def step(state, now):
            key, image, label = now
            drop, noise = jax.random.split(key)
            dropped = lambda k, each: train.drop_label(k, each, null, config.label_dropout)
            told = jax.vmap(dropped)(jax.random.split(drop, len(label)), label)
            return trainer.step(noise, state, {"image": image, "label": told})

        return jax.lax.scan(step, state, (jax.random.split(key, len(images)), images, labels))

    def prior(key: Key, split: FewShot) -> Prior:
        frequent = ~np.isin(split.train.labels, split.rare)
        images = split.train.images[frequent]
        labels = rare_last(split, null)[split.train.labels[frequent]]
        start, key = jax.random.split(key)
        state = trainer.init(net.init(start, jnp.zeros(shape), jnp.zeros(()), label=jnp.zeros((), jnp.int32)))
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        with tqdm(total=config.steps, desc="prior", unit="step", leave=False) as bar:
            for first in range(0, config.steps, PIECE):
                count = min(PIECE, config.steps - first)
                order = rng.integers(len(images), size=(count, config.batch))
                state, metrics = advance(jax.random.fold_in(key, first), state, images[order], labels[order])
                bar.set_postfix_str(f"loss {float(metrics.loss[-1]):.3f}")  # which waits for the piece
                bar.update(count)
        if not np.isfinite(np.asarray(metrics.loss)).all():
            raise ValueError(
                f"config.learning_rate is {config.learning_rate}; the prior's loss is not finite: give less"
            )
        return Prior(kind, model(state.ema[0]), shape)

    return Teacher(prior, partial(rare_last, classes=null), null, (), config.sigma_data)


def rare_last(split: FewShot, classes: int) -> np.ndarray:
    """Labels in which the rare classes are the last, so that one program serves every split, (classes,) int32."""
    order = [*(label for label in range(classes) if label not in split.rare), *split.rare]
    return np.argsort(order).astype(np.int32)


def given(config, classes: tuple[str, ...]) -> Teacher:
    """A prior that is there already, with room for the classes that it does not know.

    Raises ValueError for one without labels or of other pictures, and where it knows every class.
    """
    path = priors.place(config.model)
    card = weights.read_card(path, "prior")
    known = tuple(name for name in classes if name in card.get("labels", ()))
    shape = (config.size, config.size, config.channels)
    if tuple(card["shape"]) != shape:
        raise ValueError(f"config.model is of pictures {tuple(card['shape'])}, config.size and channels say {shape}")
    new = [name for name in classes if name not in known]
    if not new or not known:
        told = "every class" if not new else f"no class of {', '.join(classes)}"
        raise ValueError(f"config.model knows {told}; give a prior of some of them, the frequent ones")
    params, card = augmentation.with_labels(weights.restore(path)[0], card, new)
    prior = weights.build(params, card)
    labels = np.asarray([card["labels"].index(name) for name in classes], np.int32)
    sigma_data = card["parametrisation"].get("sigma_data", 0.5)
    return Teacher(lambda key, split: prior, lambda split: labels, card["label_null"], known, sigma_data)


def taught(
    config, teacher: Teacher, change: Callable[[Key, Array], Array] | None = None
) -> Callable[[Key, Prior, Learns, FewShot], Prior]:
    """`(key, prior, learns, split) -> Prior`: the prior after it has seen the split's pictures of rare classes, each
    changed by `change`."""

    def finetune(key: Key, prior: Prior, images: Any, labels: Any, learns: Learns, rare: tuple[int, ...]) -> Any:
        learnt = _learnt(learns, rare)
        rate = config.embed.rate if learns is embeddings else config.embed.weights_rate
        steps, batch, spread = config.embed.steps, config.embed.batch, (config.log_sigma_mean, config.log_sigma_std)
        return augmentation.finetune(
            key, prior, learnt, images, labels, steps, batch, rate, 0.0, None, 0.0, *spread, change
        ).values

    compiled = jax.jit(finetune, static_argnums=(4, 5))

    def learn(key: Key, prior: Prior, learns: Learns, split: FewShot) -> Prior:
        if learns is nothing:
            return prior
        few, told = of_classes(split.train, split.rare), teacher.labels(split)
        rare = tuple(map(int, told[list(split.rare)]))
        values = compiled(key, prior, few.images, told[few.labels], learns, rare)
        return augmentation.with_learnt(prior, _learnt(learns, rare), values)

    return learn


def _learnt(learns: Learns, rare: tuple[int, ...]) -> Learnt:
    found = learns(rare)
    assert found is not None
    return found
