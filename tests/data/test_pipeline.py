"""Batches: a function of (seed, step), the same for any number of hosts, and augmentation with a key."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffinv import data
from diffinv.data.builders import Resident, Source

pytest.importorskip("grain")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def source(count=10, size=4):
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    return Source(Resident(images, np.arange(count, dtype=np.int32)), size)


def test_every_epoch_visits_every_image_once():
    order = data.order(10, seed=0)
    epochs = np.asarray([order[i] for i in range(30)]).reshape(3, 10)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(10), (3, 1)))
    assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()
    assert [data.order(10, seed=1)[i] for i in range(10)] != epochs[0].tolist()


def test_batches_follow_the_order():
    feed, order = data.batches(source(), 4, seed=3), data.order(10, seed=3)
    for k in range(6):
        found = next(feed)
        assert found["index"].tolist() == [order[4 * k + i] for i in range(4)]
        np.testing.assert_array_equal(found["image"], source().take(found["index"])["image"])


def test_a_state_continues_exactly():
    feed = data.batches(source(), 4, seed=1)
    for _ in range(5):
        next(feed)
    state = json.loads(json.dumps(feed.get_state()))
    again = data.batches(source(), 4, seed=1, threads=1, ahead=1)
    again.set_state(state)
    for _ in range(5):
        np.testing.assert_array_equal(next(again)["index"], next(feed)["index"])


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_read_their_parts_of_the_same_batch(hosts):
    whole = data.batches(source(), 8, seed=2)
    parts = [data.batches(source(), 8, seed=2, part=(i, hosts)) for i in range(hosts)]
    for _ in range(4):
        found, rows = next(whole), [next(part) for part in parts]
        for name, value in found.items():
            np.testing.assert_array_equal(np.concatenate([row[name] for row in rows]), value)


@pytest.mark.parametrize(("size", "part"), [(0, (0, 1)), (9, (0, 2))])
def test_a_batch_that_hosts_cannot_share_is_refused(size, part):
    with pytest.raises(ValueError, match=f"size is {size}"):
        data.batches(source(), size, part=part)


def test_an_empty_source_is_refused():
    with pytest.raises(ValueError, match="source is empty"):
        data.batches(source(0), 2)


def images(count, key, **how):
    image = jnp.arange(27, dtype=jnp.uint8).reshape(3, 3, 3)
    many = jax.jit(jax.vmap(lambda k: data.augment(k, image, **how)))
    return np.asarray(image), np.asarray(many(jax.random.split(key, count)))


def test_flips_mirror_left_and_right_half_the_time(key):
    image, found = images(2000, key)
    same, mirrored = ((found == other).all((1, 2, 3)) for other in (image, image[:, ::-1]))
    assert (same ^ mirrored).all() and abs(same.mean() - 0.5) < 5 * 0.5 / np.sqrt(2000)


def test_shifts_are_windows_of_the_reflected_picture(key):
    image, found = images(500, key, flip=False, shift=1)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), "reflect")
    windows = {padded[i : i + 3, j : j + 3].tobytes() for i in range(3) for j in range(3)}
    assert {each.tobytes() for each in found} == windows and len(windows) == 9


def test_turns_are_quarter_turns(key):
    image, found = images(200, key, flip=False, turn=True)
    assert {each.tobytes() for each in found} == {np.rot90(image, k).tobytes() for k in range(4)}


def test_without_augmentation_nothing_changes(key):
    image, found = images(3, key, flip=False)
    assert (found == image).all() and found.dtype == np.uint8
