"""What is learnt moves, what is not stands still; the closed form is that of a network that says a label's row."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import table_prior

import diffinv as di
from diffinv import augmentation as au
from diffinv import process
from diffinv.nn.perceptron import Perceptron
from diffinv.nn.unet import UNet

SHAPE = (2, 2, 1)


@pytest.fixture(autouse=True)
def promoted():
    """optax's own arithmetic mixes types."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def few(rng_key=3):
    rng = np.random.default_rng(rng_key)
    images = rng.uniform(-1, 1, (6, *SHAPE))
    return jnp.asarray(images, jnp.float32), jnp.asarray([1, 1, 1, 3, 3, 3], jnp.int32)


def moved(params, wave):
    """No parameter is left at 0."""
    added = lambda leaf: (0.05 * wave(np.arange(leaf.size))).astype(leaf.dtype).reshape(leaf.shape)
    return jax.tree.map(lambda leaf: leaf + added(leaf), params)


@cache
def network(classes=5):
    net = Perceptron(width=16, blocks=1, classes=classes, embed=8)
    start = jax.jit(net.init)
    params = start(jax.random.key(0), jnp.zeros(SHAPE, jnp.float32), jnp.zeros(()), label=jnp.zeros((), jnp.int32))
    params = moved(params, np.cos)
    return net, di.Prior(process.EDM(), di.NetworkDenoiser(params, process.EDM(), net.apply, sigma_data=0.6), SHAPE)


def test_the_learnt_row_of_a_network_that_says_it_is_the_mean_of_the_few(few):
    images, labels = few
    table = np.asarray(np.random.default_rng(0).normal(size=(5, 4)), np.float32)
    prior, learnt = table_prior(table, SHAPE), au.embeddings((1, 3))
    run = lambda prior: au.finetune(jax.random.key(0), prior, learnt, images, labels, 800, 64, 0.05, log_sigma_std=0.01)
    found = jax.jit(run)(prior)
    rows = au.with_learnt(prior, learnt, found.values).denoise.params["params"]["label_emb"]["embedding"]
    means = np.stack([np.asarray(images[:3]).mean(0).ravel(), np.asarray(images[3:]).mean(0).ravel()])
    np.testing.assert_allclose(rows[jnp.asarray([1, 3])], means, atol=0.02)  # four deviations of the mean of the draws
    np.testing.assert_array_equal(rows[jnp.asarray([0, 2, 4])], table[[0, 2, 4]])
    assert found.losses.shape == (800,) and found.losses[-50:].mean() < found.losses[:5].mean()


def test_pictures_are_changed_before_they_are_learnt(few):
    """Mirrored in value or not by the key: the row is at the mean of what was drawn, 0 here, and at -x where always."""
    images, labels = few
    prior, learnt = table_prior(np.ones((5, 4), np.float32), SHAPE), au.embeddings((1, 3))

    def row(change):
        run = lambda prior: au.finetune(
            jax.random.key(0), prior, learnt, images, labels, 800, 64, 0.05, log_sigma_std=0.01, change=change
        )
        return np.asarray(jax.jit(run)(prior).values[0])

    mean = np.asarray(images[:3]).mean(0).ravel()
    np.testing.assert_allclose(row(lambda key, x: -x), -mean, atol=0.02)
    spread = np.sqrt(np.square(np.asarray(images[:3])).mean(0).ravel() / (64 * 50))
    signed = row(lambda key, x: jnp.where(jax.random.bernoulli(key), x, -x))
    assert np.all(np.abs(signed) < 5 * spread + 0.01) and np.any(np.abs(mean) > 10 * (spread + 0.01))


def test_rows_start_at_the_mean_of_the_others():
    table = np.arange(20.0, dtype=np.float32).reshape(5, 4)
    values = au.embeddings((0, 4)).init(jax.random.key(0), table_prior(table, SHAPE).denoise.params)
    np.testing.assert_allclose(values, np.tile(table[1:4].mean(0), (2, 1)))


@pytest.mark.parametrize("learnt", [au.everything(), au.adapters(2), au.together(au.embeddings((4,)), au.adapters(1))])
def test_training_starts_at_the_given_network_and_goes_down(learnt, few):
    images, labels = few
    _, prior = network()
    values = learnt.init(jax.random.key(1), prior.denoise.params)
    x = jnp.full(SHAPE, 0.3, jnp.float32)
    for label in jnp.asarray([1, 3]):
        before = prior.given(label=label).denoise(x, 0.01)
        np.testing.assert_array_equal(au.with_learnt(prior, learnt, values).given(label=label).denoise(x, 0.01), before)
    run = jax.jit(lambda prior: au.finetune(jax.random.key(0), prior, learnt, images, labels, 300, 32, 1e-2, ema=0.9))
    losses = np.asarray(run(prior).losses)
    assert losses[-50:].mean() < losses[:20].mean()


def test_adapters_change_matrices_by_low_rank_alone(few):
    images, labels = few
    _, prior = network()
    learnt = au.adapters(1)
    values = au.finetune(jax.random.key(0), prior, learnt, images, labels, 3, 4).values
    old, new = (jax.tree.leaves(p.denoise.params) for p in (prior, au.with_learnt(prior, learnt, values)))
    ranks = [np.linalg.matrix_rank(np.asarray(b - a, np.float64), tol=1e-6) for a, b in zip(old, new) if a.ndim == 2]
    assert set(ranks) == {1}
    assert all((a == b).all() for a, b in zip(old, new) if a.ndim < 2)


def test_null_labels_keep_the_null_row_of_a_table_learning(few):
    images, labels = few
    prior = table_prior(np.zeros((5, 4), np.float32), SHAPE)
    learnt = au.embeddings((4,))
    found = au.finetune(
        jax.random.key(0), prior, learnt, images, labels, 400, 64, 0.05, null=4, dropout=1.0, log_sigma_std=0.01
    )
    np.testing.assert_allclose(found.values[0], np.asarray(images).mean(0).ravel(), atol=0.02)


@pytest.mark.parametrize(
    "net",
    [
        Perceptron(16, 1, 3, 8),
        UNet(channels=8, multipliers=(1,), blocks=1, attention=(), head_channels=8, out_channels=1, classes=3),
    ],
)
def test_more_rows_leave_the_known_labels_as_they_were(net):
    x, t = jnp.full((4, 4, 1), 0.2, jnp.float32), jnp.asarray(0.3, jnp.float32)
    params = moved(jax.jit(net.init)(jax.random.key(0), x, t, label=jnp.zeros((), jnp.int32)), np.sin)
    grown, larger = au.with_rows(params, 2), jax.jit(net.clone(classes=5).apply)
    known = jax.jit(net.apply)
    for old, new in jnp.asarray([[0, 0], [1, 1], [2, 4]]):
        np.testing.assert_array_equal(larger(grown, x, t, label=new), known(params, x, t, label=old))
    table = grown["params"]["label_emb"]["embedding"]
    np.testing.assert_allclose(table[2], table[:2].mean(0), rtol=1e-6)
    end = au.with_rows(params, 1, null=False)["params"]["label_emb"]["embedding"]
    np.testing.assert_allclose(end[3], end[:3].mean(0), rtol=1e-6)


@pytest.mark.slow
def test_a_card_with_more_labels_loads_as_the_same_prior():
    from diffinv import weights

    path = weights.embedded("satellite64")
    card, params = weights.read_card(path), weights.restore(path)[0]
    grown, told = au.with_labels(params, card, ["Quarry", "Dune"])
    assert told["labels"][-2:] == ["Quarry", "Dune"] and told["label_null"] == 12
    old, new = weights.build(params, card), weights.build(grown, told)
    x = jnp.full(old.shape, 0.1, jnp.float32)
    denoise = jax.jit(lambda prior, label: prior.given(label=label).denoise(x, 0.01))
    for before, after in jnp.asarray([[3, 3], [10, 12]]):
        a, b = (denoise(p, label) for p, label in ((old, before), (new, after)))
        np.testing.assert_array_equal(a, b)


def test_refusals(few):
    images, labels = few
    prior = table_prior(np.zeros((5, 4), np.float32), SHAPE)
    with pytest.raises(ValueError, match="labels is \\(5,\\), the table has 5 rows"):
        au.finetune(jax.random.key(0), prior, au.embeddings((5,)), images, labels, 1, 1)
    with pytest.raises(ValueError, match="the network has no 'words'"):
        au.embeddings((0,), ("params", "words")).init(jax.random.key(0), prior.denoise.params)
    with pytest.raises(ValueError, match="rank is 0"):
        au.adapters(0)
    with pytest.raises(ValueError, match="give at least one picture, a label each"):
        au.finetune(jax.random.key(0), prior, au.everything(), images, labels[:2], 1, 1)
    with pytest.raises(ValueError, match="that was trained with labels"):
        au.with_labels({}, {}, ["a"])
    with pytest.raises(ValueError, match="give new ones, each once"):
        au.with_labels({}, {"labels": ["a"], "label_null": 1}, ["a"])
