"""Few-shot splits: parts that share no picture, counts by hand, and refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.augmenting import labelled, splits


def pool(counts, seed=0):
    """So many pictures of each class in a random order, each the only one with its value; places from 1000."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    values = np.linspace(-1, 1, len(labels))
    return labelled.labelled(np.tile(values[:, None, None, None], (1, 2, 2, 1)), labels, 1000 + np.arange(len(labels)))


def counted(part, classes):
    return np.bincount(part.labels, minlength=classes).tolist()


@settings(max_examples=200, deadline=None)
@given(
    counts=st.lists(st.integers(12, 40), min_size=2, max_size=6),
    seed=st.integers(0, 2**40),
    shots=st.integers(1, 4),
    test=st.floats(0.01, 0.65),
    validation=st.floats(0, 0.99),
    data=st.data(),
)
def test_no_picture_is_in_two_parts(counts, seed, shots, test, validation, data):
    """By place and by content; every class is trained on and tested, and what is rare has its shots."""
    whole, rare = pool(counts), data.draw(st.integers(1, len(counts) - 1))
    found = splits.few_shot(whole, seed, rare, shots, test, validation)
    parts = (found.train, found.validation, found.test)
    for read in (lambda part: part.ids.tolist(), lambda part: part.images[:, 0, 0, 0].tolist()):
        rows = sum(map(read, parts), [])
        assert len(rows) == len(set(rows)) and set(rows) <= set(read(whole))
    for part in parts:
        assert (whole.labels[part.ids - 1000] == part.labels).all()
    assert len(found.rare) == rare and list(found.rare) == sorted(set(found.rare))
    trained, tested = counted(found.train, len(counts)), counted(found.test, len(counts))
    assert [trained[label] for label in found.rare] == [shots] * rare
    assert min(trained) >= 1 and tested == [round(test * n) or 1 for n in counts]


def test_counts_by_hand():
    """Of 40, half for the test; of the other 20 a quarter is held out; of class 2, 10 are left and 2 is a quarter."""
    found = splits.few_shot(pool([40, 40, 20]), 3, (2,), 6, 0.5, 0.25)
    assert [counted(part, 3) for part in found[:3]] == [[15, 15, 6], [5, 5, 2], [20, 20, 10]]
    assert found.rare == (2,)


def test_validation_takes_what_the_shots_leave_of_a_rare_class():
    found = splits.few_shot(pool([40, 20]), 0, (1,), 9, 0.5, 0.5)
    assert [counted(part, 2) for part in found[:3]] == [[10, 9], [10, 1], [20, 10]]


def test_without_validation_the_frequent_classes_keep_all():
    found = splits.few_shot(pool([30, 50]), 0, (1,), 5, 0.5)
    assert [counted(part, 2) for part in found[:3]] == [[15, 5], [0, 0], [15, 25]]


def test_the_test_part_depends_on_the_seed_alone():
    whole = pool([30, 30, 30])
    first = splits.few_shot(whole, 1, 1, 5).test.ids
    for other in (splits.few_shot(whole, 1, 2, 7), splits.few_shot(whole, 1, (0,), 3, validation=0.3)):
        np.testing.assert_array_equal(other.test.ids, first)
    assert set(splits.few_shot(whole, 2, 1, 5).test.ids) != set(first)


def test_more_shots_add_to_the_few():
    whole = pool([30, 30, 30])
    few, many = (set(splits.few_shot(whole, 1, (0,), shots).train.ids.tolist()) for shots in (5, 10))
    assert few < many and len(many - few) == 5


def test_every_class_is_drawn_rare_as_often():
    """Of 600 draws of 2 of 4 classes, each is in half: 300 ± 4 deviations of 12.2."""
    whole = pool([4] * 4)
    drawn = np.concatenate([splits.few_shot(whole, seed, 2, 1).rare for seed in range(600)])
    assert (abs(np.bincount(drawn, minlength=4) - 300) < 49).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"whole": pool([9, 1, 9])}, "class 1 has 1 pictures; give 2 at least"),
        ({"whole": pool([9, 0, 9])}, "class 1 has 0 pictures"),
        ({"classes": 4}, "class 3 has 0 pictures"),
        ({"classes": 2}, "labels has 2; they must be whole numbers from 0 to 1"),
        ({"whole": pool([9, 9])._replace(labels=np.arange(18) - 9)}, "labels has -9"),
        ({"whole": pool([9])}, "the data have 1 classes"),
        ({"whole": pool([9, 9])._replace(ids=np.zeros(18, int))}, "ids repeat"),
        ({"shots": 6}, "shots is 6, and class 0 has 5 pictures outside the test; lower shots or test"),
        ({"shots": 0}, "shots is 0"),
        ({"rare": (0, 3)}, "rare names the class 3; the classes are 0 to 2"),
        ({"rare": 3}, "rare is 3 of 3 classes; give one at least, and leave a frequent one"),
        ({"rare": (0, 1, 2)}, "leave a frequent one"),
        ({"rare": 0}, "rare is 0 of 3 classes"),
        ({"test": 1.0}, "test is 1.0; give a share between 0 and 1"),
        ({"validation": 1.0}, "validation is 1.0"),
    ],
)
def test_refusals(given, words):
    """Of ten pictures of a class, half are for the test."""
    whole = given.pop("whole", pool([10, 10, 10]))
    with pytest.raises(ValueError, match=words):
        splits.few_shot(whole, 0, **{"rare": 1, "shots": 2, **given})
