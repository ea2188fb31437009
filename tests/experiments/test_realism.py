"""Restored pictures as a set: features that are kept, nested draws, and a judge that knows the classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from PIL import Image

from diffinv.metrics import features
from experiments.evaluation import realism


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_features_are_kept_to_half_precision(rng):
    rows = rng.normal(size=(3, realism.WIDTH))
    np.testing.assert_allclose(realism.unpacked(realism.packed(rows)), rows, rtol=2**-11)


@pytest.mark.slow
def test_pictures_are_looked_at_in_batches_by_the_network_that_the_tables_name(rng):
    """Nine pictures, in a batch of eight and one that is filled up: as the network alone sees the last."""
    perceive, x = features.efficientnet_features(), jnp.asarray(rng.uniform(-1, 1, (9, 8, 8, 1)), jnp.float32)
    found = realism.Eye(perceive)(x)
    assert found.shape == (9, realism.WIDTH)
    alone = jax.jit(perceive.pooled, compiler_options=FAST)(jnp.tile(x[8], (1, 1, 3)))
    np.testing.assert_allclose(found[8], alone, atol=1e-4 * np.abs(alone).max())


def pack(path, rng, count=40):
    """A folder with a class for dark pictures and one for bright ones."""
    for i in range(count):
        level = 60 if i % 2 else 180
        picture = np.clip(level + rng.integers(-40, 40, (8, 8, 3)), 0, 255).astype(np.uint8)
        place = path / ("dark" if i % 2 else "bright") / f"{i:02d}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(place)
    return str(path)


def test_a_smaller_draw_is_the_first_of_a_larger_one_and_knows_its_labels(tmp_path, rng):
    source = pack(tmp_path, rng)
    few, many = (realism.drawn(source, (8, 8, 3), None, count, 3) for count in (6, 20))
    assert (few.pixels == many.pixels[:6]).all() and (few.labels == many.labels[:6]).all()
    assert set(many.labels) == {0, 1}  # bright, dark
    assert ((many.pixels.mean((1, 2, 3)) < 0) == (many.labels == 1)).all()
    with pytest.raises(ValueError, match="holds 40 pictures of this split, and 41 are asked for"):
        realism.drawn(source, (8, 8, 3), None, 41, 0)


def test_the_classifier_is_taught_by_the_training_part_alone(tmp_path, rng, monkeypatch):
    source, shape = pack(tmp_path, rng), (8, 8, 3)
    look = lambda pixels, name: pixels.reshape(len(pixels), -1)
    pictures = realism.drawn(source, shape, None, 40, 0)
    assert realism.splits(source) == (None, None)
    assert realism.realism(source, shape, pictures.pixels[:5], 10, 0, look).classifier is None  # no training part
    monkeypatch.setattr(realism, "splits", lambda source: (1, 0))
    monkeypatch.setattr(realism, "drawn", lambda *_: realism.Set(pictures.pixels[:20], pictures.labels[:20]))
    judge = realism.realism(source, shape, pictures.pixels[:5], 20, 0, look)
    rest = pictures.pixels[20:].reshape(20, -1)
    right = [judge.right(rest, labels).mean() for labels in (pictures.labels[20:], 1 - pictures.labels[20:])]
    assert right == [1, 0]
    assert realism.realism(source, shape, pictures.pixels[:5], 0, 0, look).classifier is None
