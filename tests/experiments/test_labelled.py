"""Pictures with classes: what they must be, and the helpers that keep picture, class and place together."""

import sys

import numpy as np
import pytest

from experiments.augmenting import labelled
from experiments.augmenting.scikit import scikit


def data(count, first=0):
    """Pictures that hold their own place."""
    places = np.arange(first, first + count)
    images = np.tile((places / 100)[:, None, None, None], (1, 2, 3, 1))
    return labelled.labelled(images, places % 3, places)


def together(found):
    """Whether picture, class and place of each row still belong together."""
    return np.array_equal(np.rint(found.images[:, 0, 0, 0] * 100), found.ids) and (found.labels == found.ids % 3).all()


def test_dtypes_and_default_places():
    found = labelled.labelled(np.zeros((4, 2, 2, 1)), np.array([0, 1, 1, 2], np.uint8))
    assert [part.dtype for part in found] == [np.float32, np.int64, np.int64]
    assert found.ids.tolist() == [0, 1, 2, 3]


def test_made_pictures_have_places_below_0():
    assert labelled.made(np.zeros((3, 2, 2, 1)), np.zeros(3, int), 2).ids.tolist() == [-3, -4, -5]


def test_helpers_keep_rows_together():
    joined = labelled.join(data(4), data(5, 10))
    assert joined.ids.tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 14] and together(joined)
    ones = labelled.of_class(joined, 1)
    assert ones.ids.tolist() == [1, 10, 13] and together(ones)
    assert labelled.take(joined, np.array([8, 0, 0])).ids.tolist() == [14, 0, 0]
    assert labelled.class_counts(joined.labels).tolist() == [3, 3, 3]


def test_a_training_set_counts_every_picture_once():
    found = labelled.training(data(4))
    assert found.weights.tolist() == [1, 1, 1, 1] and found.weights.dtype == np.float64
    np.testing.assert_array_equal(found.images, data(4).images)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.zeros((2, 3, 3)), [0, 1], r"images is \(2, 3, 3\), labels \(2,\)"),
        (np.zeros((2, 3, 3, 1)), [0], "a label and a place for each picture"),
        (np.zeros((2, 3, 3, 1)), [0.0, 1.0], "labels is float64; give whole numbers"),
        (np.full((2, 3, 3, 1), 255.0), [0, 1], r"values from 255 to 255; bring them to \[-1, 1\]"),
        (np.full((2, 3, 3, 1), np.nan), [0, 1], "values from nan"),
    ],
)
def test_refusals(images, labels, words):
    with pytest.raises(ValueError, match=words):
        labelled.labelled(images, np.asarray(labels))


def test_a_missing_scikit_learn_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        scikit("metrics")
