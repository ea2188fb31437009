"""What every arm keeps and adds, and each arm's own law."""

import math

import numpy as np
import pytest

from experiments.augmenting import baselines, labelled, splits
from experiments.augmenting.baselines import BASELINES

SHOTS, FREQUENT = 4, 11
ADDING = [name for name in BASELINES if name not in ("none", "class weights")]


def split(side=6, channels=1, shots=SHOTS, scale=0.5, seed=0, classes=5):
    """Two rare classes of `classes`, and half of 22 pictures of each for the test."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), 2 * FREQUENT)
    images = rng.uniform(-scale, scale, (len(labels), side, side, channels))
    return splits.few_shot(labelled.labelled(images, labels), seed, (1, 3), shots)


def run(name, *arguments, **given):
    arm = name if callable(name) else BASELINES[name]
    return arm(np.random.default_rng(1), *arguments, **given)


def made(found, few):
    """Images and labels of what was added."""
    many = len(few.train.labels)
    return found.images[many:], found.labels[many:], found.weights[many:]


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_arm_keeps_the_real_pictures_and_repeats_itself(name, channels):
    few = split(channels=channels)
    found, again = run(name, few), run(name, few)
    for one, other in zip(found, again):
        np.testing.assert_array_equal(one, other)
    many = len(few.train.labels)
    np.testing.assert_array_equal(found.images[:many], few.train.images)
    np.testing.assert_array_equal(found.labels[:many], few.train.labels)
    assert found.images.dtype == np.float32 and found.weights.dtype == np.float64
    assert {len(part) for part in found} == {len(found.labels)}
    assert np.isfinite(found.images).all() and (found.weights >= 0).all()


@pytest.mark.parametrize("name", ADDING)
@pytest.mark.parametrize("count", [None, 0, 9])
def test_what_is_added(name, count):
    """By default 11 - 4 of both rare classes; mixtures share their weight with the class of the other."""
    few, many = split(), 7 if count is None else count
    _, labels, weights = made(run(name, few, count), few)
    assert weights.sum() == pytest.approx(2 * many)
    if name != "mixup":
        assert np.bincount(labels, minlength=5).tolist() == [0, many, 0, many, 0]


@pytest.mark.parametrize("name", BASELINES)
def test_no_arm_reads_what_is_held_out(name):
    few = split()
    blind = few._replace(test=labelled.take(few.test, np.arange(0)), validation=None)
    np.testing.assert_array_equal(run(name, few).images, run(name, blind).images)


def test_balance_by_hand():
    """Frequent classes of 11, 11 and 8, rare ones of 4: 10 - 4; none where the rare ones are the more."""
    few = split()
    less = few._replace(train=labelled.take(few.train, np.arange(len(few.train.labels) - 3)))
    assert baselines.balance(few) == 7 and baselines.balance(less) == 6
    assert baselines.balance(few._replace(rare=(0, 2, 4))) == 0


def test_repeats_are_as_often_as_they_can_be():
    few = split()
    _, often = np.unique(baselines.repeats(np.random.default_rng(0), few, 10).ids, return_counts=True)
    assert sorted(often.tolist()) == [2, 2, 2, 2, 3, 3, 3, 3]


def test_without_more_pictures_the_classes_weigh_the_same():
    """9 + 2 pictures of a class, 33 + 8 in all: each class weighs 41/5."""
    few = split()
    found = run("class weights", few)
    sums = np.bincount(found.labels, found.weights)
    np.testing.assert_allclose(sums, np.full(5, len(few.train.labels) / 5), rtol=1e-12)
    assert (run("none", few).weights == 1).all()


def test_jitter_is_gaussian_about_the_few():
    few = split()
    images, labels, _ = made(run("jitter", few, 400), few)
    for label in few.rare:
        own = labelled.of_class(few.train, label).images
        far = images[labels == label][:, None] - own[None]
        noise = far[np.arange(400), np.argmin(np.sum(far**2, (2, 3, 4)), 1)]
        assert abs(noise.mean()) < 4 * 0.3 / math.sqrt(noise.size)
        assert abs(noise.std() / 0.3 - 1) < 4 / math.sqrt(2 * noise.size)


@pytest.mark.parametrize(
    ("pixels", "flip", "turn", "ways"),
    [(1, False, False, 9), (0, True, False, 2), (1, True, False, 18), (0, False, True, 4), (0, True, True, 8)],
)
def test_moves_are_all_that_there_are_and_no_more(pixels, flip, turn, ways):
    few = split(shots=1)
    images, labels, _ = made(run(baselines.shift_flip(pixels, flip, turn), few, 300), few)
    own = labelled.of_class(few.train, 1).images[0]
    wide = np.pad(own, ((1, 1), (1, 1), (0, 0)), "edge")
    steps = range(1 - pixels, 2 + pixels)
    moved = [wide[i : i + 6, j : j + 6] for i in steps for j in steps]
    moved += [x[:, ::-1] for x in moved] * flip
    moved += [np.rot90(x, k) for x in moved for k in (1, 2, 3)] * turn
    seen = {x.tobytes() for x in images[labels == 1]}
    assert seen == {x.tobytes() for x in moved} and len(seen) == ways


def test_mixtures_have_the_labels_and_weights_of_their_parts():
    """Classes of one value each, 0.1 apart: a mixture's value is the mean value of its labels by its weights."""
    few = split()
    value = lambda label: 0.1 * label - 0.2
    flat = few.train._replace(images=np.full_like(few.train.images, 0) + value(few.train.labels)[:, None, None, None])
    few = few._replace(train=flat._replace(images=flat.images.astype(np.float32)))
    images, labels, weights = made(run("mixup", few, 500), few)
    first, second = np.split(labels, 2)
    np.testing.assert_array_equal(*np.split(images, 2))
    share, rest = np.split(weights, 2)
    np.testing.assert_allclose(share + rest, 1, rtol=1e-12)
    expected = share * value(first) + rest * value(second)
    np.testing.assert_allclose(images[:1000, 2, 2, 0], expected, atol=1e-6)
    assert set(first) == {1, 3} and set(second) == {0, 1, 2, 3, 4}
    assert abs(share.mean() - 0.5) < 4 / math.sqrt(12 * 1000)
    assert share.var() == pytest.approx(1 / 12, rel=0.1)


def test_smote_lies_between_neighbours():
    """|x - a| + |x - b| = |a - b| for some a, b of the class; with one neighbour, b is the nearest to a."""
    few = split()
    images, labels, _ = made(run(baselines.smote(1), few, 50), few)
    for label in few.rare:
        own = labelled.of_class(few.train, label).images.reshape(SHOTS, -1).astype(np.float64)
        far = np.linalg.norm(own[:, None] - own[None], axis=-1) + np.diag(np.full(SHOTS, np.inf))
        to = np.linalg.norm(images[labels == label].reshape(50, 1, -1) - own[None], axis=-1)
        longer = [to[:, a] + to[:, b] - far[a, b] for a, b in enumerate(np.argmin(far, 1))]
        assert np.min(longer, 0).max() < 1e-6 and to.min(1).max() > 0.01


def test_smote_of_one_picture_repeats_it():
    few = split(shots=1)
    images, labels, _ = made(run("SMOTE", few, 3), few)
    for label in few.rare:
        assert (images[labels == label] == labelled.of_class(few.train, label).images).all()


@pytest.mark.parametrize("shape", [(30, 7), (7, 30), (200, 3)])
def test_shrinkage_is_scikit_learns(shape):
    covariance = pytest.importorskip("sklearn.covariance")
    rows = np.random.default_rng(0).normal(size=shape) * np.linspace(0.1, 2, shape[1])
    expected = covariance.ledoit_wolf_shrinkage(rows, assume_centered=True)
    assert 0.01 < expected < 1 and baselines.shrinkage(rows) == pytest.approx(expected, rel=1e-9)


def test_shrinkage_of_equal_pictures_is_0():
    assert baselines.shrinkage(np.zeros((3, 4))) == 0


def test_the_class_gaussian_has_the_shrunk_covariance():
    """Mean and covariance of 20,000 draws of 4 numbers, against those that scikit-learn forms, to 5 deviations."""
    covariance = pytest.importorskip("sklearn.covariance")
    few, many = split(side=2, scale=0.1), 20_000
    train = few.train
    rows = train.images.reshape(len(train.labels), -1).astype(np.float64)
    means = np.stack([rows[train.labels == label].mean(0) for label in range(5)])
    expected = covariance.ledoit_wolf(rows - means[train.labels], assume_centered=True)[0]
    images, labels, _ = made(run("class Gaussian", few, many), few)
    for label in few.rare:
        draws = images[labels == label].reshape(many, -1)
        off = (draws.mean(0) - means[label]) / np.sqrt(np.diag(expected) / many)
        assert abs(off).max() < 5
        spread = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / many)
        assert (abs(np.cov(draws.T) - expected) / spread).max() < 5


def test_the_names_say_what_moves():
    assert [name for name in baselines.baselines(0, True) if name not in BASELINES] == ["flip"]
    assert "shift and flip" in baselines.baselines(2, True)
    assert "shift and flip and turn" in baselines.baselines(2, True, True) and "turn" in baselines.baselines(
        0, turn=True
    )
    assert len(baselines.baselines(0)) == len(BASELINES) - 1
    with pytest.raises(ValueError, match="shift is -1; give a number of pixels"):
        baselines.baselines(-1)
