"""The optimizers that a training may name: what each does with one gradient, and that Muon's steps are rotations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from experiments.tasks import run

SETTINGS = {"learning_rate": 1e-2, "warmup": 0, "steps": 100, "cooldown": 0, "weight_decay": 0.0, "clip": 1e9}


@pytest.fixture(autouse=True)
def as_the_command_promotes():
    """Optax adds whole counts to floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def moved(name, params, grads, **changes):
    """What the first update adds to each weight."""
    optimizer = run.optimizer(ConfigDict({**SETTINGS, "optimizer": name, "b1": 0.9, "b2": 0.99, **changes}))
    return optimizer.update(grads, optimizer.init(params), params)[0]


def network(key):
    """A kernel of a convolution, one of a product, a bias and an embedding."""
    shapes = {
        "conv": {"kernel": (3, 3, 4, 8), "bias": (8,)},
        "dense": {"kernel": (16, 6)},
        "words": {"embedding": (5, 4)},
    }
    keys = iter(jax.random.split(key, 4))
    return jax.tree.map(
        lambda shape: jax.random.normal(next(keys), shape), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )


def test_muon_turns_kernels_and_leaves_the_rest_to_adam():
    params, grads = network(jax.random.key(0)), network(jax.random.key(1))
    nadam = optax.nadamw(SETTINGS["learning_rate"], 0.9, 0.99, weight_decay=0.0)
    turned, adam = moved("muon", params, grads), nadam.update(grads, nadam.init(params), params)[0]
    for one, other in ((turned["conv"]["bias"], adam["conv"]["bias"]), (turned["words"], adam["words"])):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), one, other)
    for kernel in (turned["conv"]["kernel"], turned["dense"]["kernel"]):
        matrix = np.asarray(kernel.reshape(-1, kernel.shape[-1]))
        singular = np.linalg.svd(matrix, compute_uv=False)
        assert singular.min() > 0.6 * singular.max(), "five steps bring them between 0.7 and 1.2"
        step = np.sqrt(np.mean(matrix**2))
        assert 0.65 < step / (run.TURNED * SETTINGS["learning_rate"]) < 1.25


def test_muons_step_is_the_nearest_rotation_of_the_gradient():
    """U V' of the gradient's U S V', up to what five steps leave of its singular values."""
    grads = {"dense": {"kernel": jax.random.normal(jax.random.key(2), (24, 10))}}
    step = moved("muon", jax.tree.map(jnp.zeros_like, grads), grads)["dense"]["kernel"]
    left, _, right = jnp.linalg.svd(grads["dense"]["kernel"], full_matrices=False)
    cosine = -jnp.sum(step * (left @ right)) / jnp.linalg.norm(step) / jnp.linalg.norm(left @ right)
    assert 0.97 < cosine < 1 + 1e-6


def test_muons_step_does_not_know_the_gradients_size():
    params, grads = network(jax.random.key(0)), network(jax.random.key(1))
    large = moved("muon", params, jax.tree.map(lambda g: 1e3 * g, grads))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), moved("muon", params, grads), large
    )


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weights_decay(name):
    """With no gradient a weight loses the rate times the decay of itself."""
    params = network(jax.random.key(0))
    step = moved(name, params, jax.tree.map(jnp.zeros_like, params), weight_decay=0.5)
    jax.tree.map(lambda w, d: np.testing.assert_allclose(d, -0.5e-2 * w, rtol=1e-4, atol=1e-7), params, step)


@pytest.mark.parametrize("name", ["adamw", "radam", "muon"])
def test_each_finds_the_least_squares(name):
    x = jax.random.normal(jax.random.key(3), (64, 6))
    y = x @ jax.random.normal(jax.random.key(4), (6, 3))
    loss = lambda params: jnp.mean((x @ params["dense"]["kernel"] - y) ** 2)
    params = {"dense": {"kernel": jnp.zeros((6, 3))}}
    fields = {
        **SETTINGS,
        "optimizer": name,
        "b1": 0.9,
        "b2": 0.99,
        "learning_rate": 5e-2,
        "steps": 300,
        "cooldown": 200,
    }
    optimizer = run.optimizer(ConfigDict(fields))

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (found, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=300)
    assert loss(found) < 1e-4 * loss(params)
