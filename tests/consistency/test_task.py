"""The training task of consistency models: every part traces on pictures, for one time and for two; bad values."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from configs import ect32, ict32
from diffinv import train
from experiments.tasks.consistency import Consistency

SOURCE = SimpleNamespace(classes=())


@pytest.fixture(autouse=True)
def promoting():
    """Experiments run under jax's own rules of promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ect", "meanflow"])
def test_loss_errors_and_samples_have_their_shapes(key, method):
    config = ict32.get_config("smoke")
    config.method = method
    config.net.update({"multipliers": (1,), "attention": ()})  # every part traces the network many times
    task = Consistency(config, SOURCE)
    params = jax.eval_shape(task.init, key)
    batch = {"image": jnp.zeros((8, 8, 8, 3), jnp.uint8), "label": jnp.zeros(8, jnp.int32)}
    about = train.Context(jnp.int32(0), (params,) * 3, task.frozen(params) or ())
    assert jax.eval_shape(task.loss, key, params, batch, about).shape == ()
    errors = jax.eval_shape(task.errors, key, params, batch)
    assert list(errors) == ["energy, 1 step", "energy, 2 steps", "near 0.821", "near 80"]
    assert all(error.shape == () for error in errors.values())
    prompt = jax.tree.map(lambda leaf: leaf[0], task.prompts(SOURCE, 4))
    assert jax.eval_shape(task.sample, key, params, prompt).shape == (8, 8, 3)
    assert task.card()["consistency"]["name"] == method


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"method": "icd"}, "config.method is 'icd'"),
        ({"method": "cd"}, "cd has no teacher"),
        ({"method": "imm", "start": "prior32"}, "config.start is prior32"),
        ({"method": "imm", "batch": 10}, "config.batch is 10"),
    ],
)
def test_bad_values_are_named(changes, word):
    config = ict32.get_config("smoke")
    config.update(changes)
    with pytest.raises(ValueError, match=word):
        Consistency(config, SOURCE)


def test_the_published_lengths():
    """iCT's eight stages end at 1,280 steps; ECT starts from the embedded prior, whose network it shares."""
    config = ict32.get_config()
    scales = Consistency(config, SOURCE).doubling(10, 1280)
    assert [int(scales(jnp.int32(k))) for k in (0, 49_999, 350_000, config.steps)] == [11, 11, 1281, 1281]
    assert ect32.get_config().start == "prior32" and ect32.get_config("smoke").start == ""
