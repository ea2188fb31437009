"""Items by content: what a picture gets does not depend on where it stands, or on what stands beside it."""

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.evaluation import items
from experiments.evaluation.items import Item

SHAPE = (6, 5, 3)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(7):
        Image.fromarray(rng.integers(0, 255, SHAPE, np.uint8)).save(tmp_path / f"p{i}.png")
    return tmp_path


def test_fewer_pictures_are_the_first_of_more(folder):
    none, every = items.pictures(str(folder), SHAPE, 0, 7, 3)
    some = items.pictures(str(folder), SHAPE, 0, 4, 3)[1]
    left, rest = items.pictures(str(folder), SHAPE, 4, 3, 3)
    assert left.digests == some.digests and not none.digests
    assert left.with_others(rest).digests == every.digests and (left.with_others(rest).pixels == every.pixels).all()
    assert some.digests + rest.digests == every.digests and len(set(every.digests)) == 7
    assert every.names != sorted(every.names), "drawn by the seed"
    assert items.pictures(str(folder), SHAPE, 0, 7, 4)[1].names != every.names


def test_too_few_pictures_are_refused(folder):
    with pytest.raises(ValueError, match="holds 7 pictures, and config.first=3 and config.pictures=5"):
        items.pictures(str(folder), SHAPE, 3, 5, 0)


def test_a_picture_that_is_there_twice_is_taken_once(folder):
    (folder / "twin.png").write_bytes((folder / "p2.png").read_bytes())
    found = items.pictures(str(folder), SHAPE, 0, 8, 0)[1]
    assert len(found.names) == len(found.pixels) == 7 and "1 pictures are there twice" in found.note


def test_a_digest_is_of_pixels_and_shape():
    a = np.zeros((2, 6, 1), np.uint8)
    assert items.digest(a) == items.digest(a.copy()) != items.digest(a.reshape(3, 4, 1))
    assert items.digest(a) != items.digest(a + 1)
    assert 0 <= items.number(items.digest(a)) < 2**32


def test_parts_are_all_pictures_once(folder):
    every = items.pictures(str(folder), SHAPE, 0, 7, 0)[1]
    parts = [every.part(i, 3).items(2) for i in range(3)]
    assert sorted(sum(parts, [])) == sorted(every.items(2)) and len(every.items(2)) == 14
    for part in parts:
        assert {item.picture for item in part if item.draw} == {item.picture for item in part if not item.draw}


def test_keys_are_of_the_picture_and_the_draw_alone():
    base = jax.random.key(7)
    a, b = items.digest(np.zeros((2, 2, 3), np.uint8)), items.digest(np.ones((2, 2, 3), np.uint8))
    data = lambda keys: np.asarray(jax.random.key_data(keys))
    alone = data(items.solver_keys(base, [Item(a, 1)]))[0]
    among = data(items.solver_keys(base, [Item(b, 0), Item(b, 1), Item(a, 1), Item(a, 0)]))
    np.testing.assert_array_equal(alone, among[2])
    assert len({tuple(key) for key in among}) == 4
    noise = data(items.measurement_keys(base, [Item(a, 0), Item(a, 5), Item(b, 0)]))
    np.testing.assert_array_equal(noise[0], noise[1], "all draws are of one measurement")
    assert (noise[0] != noise[2]).any() and (noise[0] != among[3]).any()
