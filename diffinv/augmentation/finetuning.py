r"""Teaching a prior a few pictures: of all its weights, some are learnt, and the rest stands still.

A `Learnt` says what: `init(key, params)` is what the optimizer moves, `merge(params, learnt)` the parameters that the
network then gets. One training loop serves all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffinv.describe import described
from diffinv.prior import Prior
from diffinv.train import Metrics, TrainState, denoising_loss, drop_label, trainer
from diffinv.typing import Array, Key

TABLE = ("params", "label_emb", "embedding")
"""Where our networks keep the embeddings of their classes, a row each."""


@described
class Learnt(NamedTuple):
    """What of a network is learnt.

    Attributes:
      init: `(key, params) -> learnt`, a pytree.
      merge: `(params, learnt) -> params`.
    """

    init: Callable[[Key, Any], Any]
    merge: Callable[[Any, Any], Any]


def everything() -> Learnt:
    """All weights."""
    return Learnt(lambda key, params: jax.tree.map(jnp.asarray, params), lambda params, learnt: learnt)


def _at(params: Any, path: tuple[str, ...]) -> Array:
    for name in path:
        if not isinstance(params, Mapping) or name not in params:
            raise ValueError(f"path is {'/'.join(path)}, and the network has no {name!r}; give the table of its labels")
        params = params[name]
    return jnp.asarray(params)


def _put(params: Any, path: tuple[str, ...], value: Array) -> Any:
    return {**params, path[0]: value if len(path) == 1 else _put(params[path[0]], path[1:], value)}


def embeddings(labels: tuple[int, ...], path: tuple[str, ...] = TABLE) -> Learnt:
    r"""The embeddings of some labels alone: textual inversion, with a table of classes in the place of a vocabulary.

    They start at the mean of the table's other rows, `e_0 = mean_{j not in labels} e_j`.

    Source: Gal et al. 2022, arXiv:2208.01618, eq. 2; as DA-Fusion uses it, Trabucco et al. 2023, arXiv:2302.07944.
    Differs: a word of the class starts the original; classes here have no words.

    Args:
      labels: rows of the table, static; make room for new ones by `with_rows`.
      path: of the table, (rows, width), in the nested parameters.

    Raises ValueError for a path that the parameters do not have, and labels that the table does not.
    """
    place = jnp.asarray(labels, jnp.int32)

    def init(key: Key, params: Any) -> Array:
        table = _at(params, path)
        if not labels or not 0 <= min(labels) <= max(labels) < len(table):
            raise ValueError(f"labels is {labels}, the table has {len(table)} rows; give some of them")
        others = jnp.ones(len(table), table.dtype).at[place].set(0)
        return jnp.tile(others @ table / jnp.maximum(others.sum(), 1), (len(labels), 1))

    return Learnt(init, lambda params, learnt: _put(params, path, _at(params, path).at[place].set(learnt)))


def adapters(rank: int = 4, scale: float = 1.0) -> Learnt:
    r"""Low-rank changes of every matrix and kernel: `W + scale / rank A B`, of the last axis against all others.

    A (m, rank) is drawn, B (rank, n) starts at 0, so that training starts at the given network.

    Source: Hu et al. 2021, arXiv:2106.09685, eq. 3. Differs: their matrices are those of attention alone.

    Args:
      rank: static, at least 1; kernels that are narrower are changed at their own width.
      scale: their alpha, dimensionless.

    Raises ValueError for a rank under 1.
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}; give at least 1")

    def init(key: Key, params: Any) -> list[Any]:
        leaves = jax.tree.leaves(params)
        return [_adapter(k, leaf, rank) for k, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)]

    def merge(params: Any, learnt: list[Any]) -> Any:
        leaves, tree = jax.tree.flatten(params)
        moved = [leaf if each is None else _moved(leaf, each, scale) for leaf, each in zip(leaves, learnt, strict=True)]
        return jax.tree.unflatten(tree, moved)

    return Learnt(init, merge)


def _adapter(key: Key, leaf: Array, rank: int) -> tuple[Array, Array] | None:
    if leaf.ndim < 2:
        return None
    m, n = leaf.size // leaf.shape[-1], leaf.shape[-1]
    r = min(rank, m, n)
    return jax.random.normal(key, (m, r), leaf.dtype) / jnp.sqrt(jnp.asarray(m, leaf.dtype)), jnp.zeros(
        (r, n), leaf.dtype
    )


def _moved(leaf: Array, pair: tuple[Array, Array], scale: float) -> Array:
    a, b = pair
    return leaf + (scale / b.shape[0]) * (a @ b).reshape(leaf.shape)


def together(*parts: Learnt) -> Learnt:
    """Several at once, merged in their order: `together(embeddings(labels), adapters())`."""

    def init(key: Key, params: Any) -> list[Any]:
        return [part.init(k, params) for part, k in zip(parts, jax.random.split(key, len(parts)), strict=True)]

    def merge(params: Any, learnt: list[Any]) -> Any:
        for part, each in zip(parts, learnt, strict=True):
            params = part.merge(params, each)
        return params

    return Learnt(init, merge)


def with_rows(params: Any, count: int, path: tuple[str, ...] = TABLE, null: bool = True) -> Any:
    """The parameters with `count` (static) rows more in the table of labels, each the mean of the others.

    They come before the last row where that is the label that says nothing (`null`, static), at the end otherwise. The
    network must know of as many: `net.clone(classes=net.classes + count)`; `with_labels` does both, from a card.
    """
    table = _at(params, path)
    end = len(table) - null
    return _put(params, path, jnp.concatenate([table[:end], jnp.tile(table[:end].mean(0), (count, 1)), table[end:]]))


def with_labels(params: Any, card: dict[str, Any], names: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """Weights and card of the same network with more labels, whose embeddings are still to be learnt.

    The new labels follow the known ones, and the one that says nothing stays the last. `load_prior` of the result
    gives the same pictures under every label that was there before.

    Raises ValueError for a card without labels, for names that it knows already, or that repeat.
    """
    known = list(card.get("labels", []))
    if "label_null" not in card or len(known) != card["label_null"]:
        raise ValueError(f"card.labels has {len(known)} names; give the card of a prior that was trained with labels")
    if len({*known, *names}) < len(known) + len(names):
        raise ValueError(f"names are {list(names)}, and the card knows {known}; give new ones, each once")
    null = len(known) + len(names)
    changes = {"labels": [*known, *names], "label_null": null, "given": {**card.get("given", {}), "label": null}}
    network = {**card["architecture"], "classes": null + 1}
    kept = {name: value for name, value in card.items() if name not in ("sha256", "certificate")}
    return with_rows(params, len(names)), {**kept, **changes, "architecture": network}


def with_learnt(prior: Prior, learnt: Learnt, values: Any) -> Prior:
    """The prior of a network, with what was learnt in it."""
    denoise: Any = prior.denoise
    return replace(prior, denoise=replace(denoise, params=learnt.merge(denoise.params, values)))


@described
class Finetuned(NamedTuple):
    """What fine-tuning gives.

    Attributes:
      values: what was learnt, averaged where that was asked for; `with_learnt` puts it into the prior.
      losses: of every step, (steps,).
    """

    values: Any
    losses: Array


def finetune(
    key: Key,
    prior: Prior,
    learnt: Learnt,
    images: Array,
    labels: Array,
    steps: int = 500,
    batch: int = 64,
    rate: float = 1e-2,
    ema: float = 0.0,
    null: int | None = None,
    dropout: float = 0.0,
    log_sigma_mean: float = -1.2,
    log_sigma_std: float = 1.2,
    change: Callable[[Key, Array], Array] | None = None,
) -> Finetuned:
    r"""Learns from a few pictures, by the loss that the prior was trained with (`train.denoising_loss`) and Adam.

        values <- Adam(values, grad mean_i lambda(r) |D_{merge(params, values)}(x_t, t; c_i) - x_i|^2 / dim)

    A step's pictures are drawn with replacement, so that every label of the few is as frequent as its pictures.

    Source: Gal et al. 2022, arXiv:2208.01618, eq. 2 (embeddings); Hu et al. 2021, arXiv:2106.09685 (adapters); the
    loss of Karras et al. 2022, arXiv:2206.00364. The one form for all is original.

    Args:
      prior: of a network, `NetworkDenoiser`, that takes a label.
      learnt: `embeddings`, `adapters`, `everything`, or `together`.
      images: (N, H, W, C) in [-1, 1]; labels: (N,), int32.
      steps, batch: static; rate: of Adam, falling to 0 by a cosine.
      ema: rate of the average of the values, 0 for the last ones.
      null: the label that says nothing, with the probability `dropout`; None for never.
      log_sigma_mean, log_sigma_std: of the logarithm of the noise-to-signal ratio.
      change: `(key, image) -> image` of each picture that is drawn, static, such as `partial(data.augment, turn=True)`;
        None for the pictures as they are.

    Raises ValueError for no pictures, or labels that are not as many.
    """
    if not len(images) or len(images) != len(labels):
        raise ValueError(f"images is {images.shape}, labels {labels.shape}; give at least one picture, a label each")
    denoise: Any = prior.denoise
    model = lambda values: replace(denoise, params=learnt.merge(denoise.params, values))
    loss = denoising_loss(model, prior.process, log_sigma_mean, log_sigma_std, denoise.sigma_data)
    train = trainer(loss, optax.adam(optax.cosine_decay_schedule(rate, steps)), ema)

    def step(state: TrainState, k: Key) -> tuple[TrainState, Metrics]:
        draw, drop, noise = jax.random.split(k, 3)
        chosen = jax.random.randint(draw, (batch,), 0, len(images))
        drawn, told = images[chosen], labels[chosen]
        if change is not None:
            drawn = jax.vmap(change)(jax.random.split(jax.random.fold_in(draw, 1), batch), drawn)
        if null is not None:
            told = jax.vmap(lambda each, label: drop_label(each, label, null, dropout))(
                jax.random.split(drop, batch), told
            )
        return train.step(noise, state, {"image": drawn, "label": told})

    start, run = jax.random.split(key)
    state, metrics = jax.lax.scan(step, train.init(learnt.init(start, denoise.params)), jax.random.split(run, steps))
    return Finetuned(state.ema[0] if ema else state.params, metrics.loss)
