"""The dense network against its formula, written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffinv.nn import layers
from diffinv.nn.perceptron import Perceptron


@pytest.mark.parametrize("classes", [None, 4])
def test_it_is_its_formula(classes):
    net = Perceptron(width=8, blocks=2, classes=classes, embed=6)
    x, t = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 1)), jnp.float32), jnp.asarray(0.3, jnp.float32)
    label = {} if classes is None else {"label": jnp.asarray(2)}
    params = jax.jit(net.init)(jax.random.key(0), x, t, **label)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), params
    )
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    dense = lambda name, h: h @ p[name]["kernel"] + p[name]["bias"]
    silu = lambda h: h / (1 + np.exp(-h))
    level = silu(np.asarray(layers.time_embedding(40 * t, 6), np.float64))
    told = [np.ravel(x)] + ([] if classes is None else [p["label_emb"]["embedding"][2]])
    h = dense("first", np.concatenate(told))
    for i in range(2):
        normal = (h - h.mean()) / np.sqrt(h.var() + 1e-6) * p[f"norm{i}"]["scale"] + p[f"norm{i}"]["bias"]
        h = h + dense(f"outer{i}", silu(dense(f"inner{i}", silu(normal + dense(f"level{i}", level)))))
    np.testing.assert_allclose(net.apply(params, x, t, **label).ravel(), dense("last", silu(h)), rtol=2e-5, atol=1e-5)


def test_labels_and_classes_go_together():
    x, t = jnp.zeros((2, 2, 1), jnp.float32), jnp.zeros((), jnp.float32)
    with pytest.raises(ValueError, match="label is None for a network of classes=3"):
        Perceptron(classes=3).init(jax.random.key(0), x, t)
    with pytest.raises(ValueError, match="classes=None; give both or neither"):
        Perceptron().init(jax.random.key(0), x, t, label=jnp.zeros((), jnp.int32))
