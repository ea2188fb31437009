"""Variants are made once, come back from disk, and depend on the picture alone."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffinv import augmentation, data
from diffinv.data import builders


@pytest.fixture
def source():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (6, 4, 3, 1), np.uint8), np.arange(6, dtype=np.int32) % 3
    return builders.Source(builders.Resident(images, labels), 4, 1, ("a", "b", "c"))


class Maker:
    """`image / 2 + noise / 10 + label / 20`, which counts its calls."""

    def __init__(self):
        self.calls, self.rows = 0, set()
        one = lambda key, x, label: x / 2 + 0.1 * jax.random.normal(key, x.shape, x.dtype) + 0.05 * label
        self.program = jax.jit(jax.vmap(one))

    def __call__(self, keys, images, labels):
        self.calls += 1
        self.rows.add(len(images))
        return self.program(keys, images, labels.astype(np.float32))


def test_variants_are_made_once_and_do_not_depend_on_the_batch(source, tmp_path):
    make = Maker()
    variants = data.Variants(source, str(tmp_path / "a"), make, 3, "half", batch=4)
    whole = variants.take(range(6))
    assert whole["made"].shape == (6, 3, 4, 3, 1) and whole["made"].dtype == np.uint8
    assert make.calls == 5 and make.rows == {4}  # 18 rows, 4 at once
    np.testing.assert_array_equal(variants.take([5, 0])["made"], whole["made"][[5, 0]])
    assert make.calls == 5
    other = data.Variants(source, str(tmp_path / "b"), make, 3, "half", batch=7)
    for i in (4, 1, 5):
        np.testing.assert_array_equal(other.take([i])["made"][0], whole["made"][i])
    unit = lambda x: np.asarray(x, float) / 127.5 - 1
    deviation = unit(whole["made"]) - unit(whole["image"])[:, None] / 2 - 0.05 * whole["label"].reshape(6, 1, 1, 1, 1)
    inside = (whole["made"] > 0) & (whole["made"] < 255)
    assert abs(np.std(deviation[inside]) - 0.1) < 0.02 and np.std(deviation, 1).min() > 0


def test_another_stamp_label_or_pixel_is_another_entry_and_damage_is_mended(source, tmp_path):
    make = Maker()
    first = data.Variants(source, str(tmp_path), make, 1, "one", batch=6).take([0, 1])["made"]
    second = data.Variants(source, str(tmp_path), make, 1, "two", batch=6).take([0, 1])["made"]
    assert make.calls == 2 and (first != second).any()
    for folder, _, names in os.walk(tmp_path):
        for name in names:
            (content := open(os.path.join(folder, name), "r+b")).truncate(20)
            content.close()
    again = data.Variants(source, str(tmp_path), make, 1, "one", batch=6).take([0, 1])["made"]
    np.testing.assert_array_equal(again, first)
    assert make.calls == 3


def test_a_grain_pipeline_gives_them_beside_the_pictures_and_the_step_draws_among_them(source, tmp_path):
    pytest.importorskip("grain")
    variants = data.Variants(source, str(tmp_path), Maker(), 2, "half", batch=8)
    batches = data.batches(variants, 4, seed=1)
    batch = next(batches)
    assert batch["made"].shape == (4, 2, 4, 3, 1)
    np.testing.assert_array_equal(batch["made"], variants.take(batch["index"])["made"])
    keys = jax.random.split(jax.random.key(0), 4)
    image, made = data.to_unit(batch["image"]), data.to_unit(batch["made"])
    for probability, among in ((0.0, image[:, None]), (1.0, made)):
        drawn = jax.vmap(lambda k, x, m, p=probability: augmentation.variant(k, x, m, p))(
            keys, image, jnp.asarray(made)
        )
        assert all(any((np.asarray(x) == np.asarray(each)).all() for each in own) for x, own in zip(drawn, among))


def test_refusals(source, tmp_path):
    with pytest.raises(ValueError, match="count is 0"):
        data.Variants(source, str(tmp_path), Maker(), 0, "")
